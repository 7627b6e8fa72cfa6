// One application: its releases and its versions.
import { call, may, pages } from "../../api/api.js";
import { html, useState } from "../../ui/html.js";
import { bytes, seconds, span, words } from "../../ui/format.js";
import { Icon } from "../../ui/icons.js";
import { Loaded, useRead } from "../../ui/load.js";
import { Ago, Empty, Pairs } from "../../ui/parts.js";
import { to } from "../../router.js";
import { complain, say } from "../../ui/toasts.js";

export function Application({ id }) {
  const path = `/applications/${encodeURIComponent(id)}`;
  const all = useRead(async (signal) => {
    const [application, versions, releases, pools] = await Promise.all([
      call("GET", path, { signal }), pages(`${path}/versions`, {}, signal), pages(`${path}/releases`, {}, signal),
      may("pools.read") ? pages("/pools", {}, signal) : { items: [] },
    ]);
    const mine = pools.items.filter((pool) => pool.application === id);
    return { application, versions: versions.items, releases: releases.items, pools: mine };
  }, [id]);
  return html`<a class="back" href=${to("applications")}><${Icon} name="left" size=${14} /> Applications</a>
    <${Loaded} of=${all} rows=${5}>${({ application, versions, releases, pools }) => html`
      <header class="head"><div><h1>${application.display_name || application.application}</h1>
          <span class="under">${application.description}</span></div>
        <div class="head-end">${may("sessions.create") && html`<a class="button primary" href=${to("start", [id])}><${Icon} name="play" /> Start</a>`}</div></header>
      <section class="block"><h2>Releases</h2>${releases.length ? html`<div class="table-frame"><table class="table"><thead><tr><th>Release</th><th>Version</th><th class="end">Changed</th></tr></thead>
        <tbody>${releases.map((release) => html`<tr key=${release.release}><td><strong>${release.release}</strong></td>
          <td><${Target} path=${path} release=${release} versions=${versions} onDone=${all.again} /></td>
          <td class="end"><${Ago} time=${release.updated_time} /></td></tr>`)}</tbody></table></div>`
        : html`<p class="hint">No release points at a version yet: sessions must name a version.</p>`}</section>
      ${pools.length > 0 && html`<section class="block"><h2>Warm instances</h2><div class="table-frame"><table class="table" data-testid="pools">
        <thead><tr><th>Pool</th><th>Version</th><th>Profile</th><th>Size</th><th class="end">Ready</th><th class="end">Starting</th><th class="end">Wanted</th></tr></thead>
        <tbody>${pools.map((pool) => html`<tr key=${pool.pool}><td><strong>${pool.pool}</strong>${pool.status_message && html`<span class="under">${pool.status_message}</span>`}</td>
          <td><code>${pool.resolved_version || pool.application_version || "default"}</code></td>
          <td>${pool.profile || html`<span class="faint">none</span>`}</td>
          <td>${pool.wait_goal == null ? pool.size : `for a wait of ${span(seconds(pool.wait_goal))}`}</td>
          <td class="end">${pool.ready_count}</td><td class="end">${pool.starting_count}</td><td class="end">${pool.wanted_count}</td></tr>`)}</tbody></table></div>
        <p class="hint">Started before there is a session: who starts one gets it at once. Operators set them: <code>footlights pools set</code></p></section>`}
      <section class="block"><h2>Versions</h2>${versions.length ? versions.map((version, at) => html`<${Version} key=${version.version} of=${version} id=${id} open=${at === 0}
          releases=${releases.filter((release) => release.version === version.version).map(({ release }) => release)} />`)
        : html`<${Empty} title="No version yet">Register one: <code>footlights apps apply -f FILE.yaml</code></${Empty}>`}</section>`}</${Loaded}>`;
}

function Target({ path, release, versions, onDone }) {
  const [busy, setBusy] = useState(false);
  if (!may("applications.write")) return html`<code>${release.version}</code>`;
  const point = async (event) => {
    const version = event.target.value;
    setBusy(true);
    try {
      await call("PATCH", `${path}/releases/${encodeURIComponent(release.release)}`, { body: { version }, etag: release.etag });
      say(`${release.release} points at ${version}. New sessions use it; running ones keep their version.`);
      onDone();
    } catch (error) {
      complain(error, { title: "Not changed" });
    }
    setBusy(false);
  };
  return html`<select class="select" aria-label=${`Version of ${release.release}`} disabled=${busy} value=${release.version} onChange=${point}>
    ${versions.map(({ version }) => html`<option key=${version} value=${version}>${version}</option>`)}</select>`;
}

const Version = ({ of, id, open, releases }) => html`<details class="card version-card" open=${open}>
  <summary><strong>${of.version}</strong> ${releases.map((release) => html`<span class="tag tag-accent" key=${release}>${release}</span>`)}
    <span class="faint">${of.description}</span><span class="version-age"><${Ago} time=${of.created_time} /></span></summary>
  <dl class="facts wide-facts">
    <dt>Runs</dt><dd>${of.container ? html`container <code>${of.container.image}</code>` : of.fake ? "nothing (fake launcher, for tests)" : "a process on the node"}</dd>
    ${of.command?.length > 0 && html`<dt>Command</dt><dd><pre class="command" tabindex="0">${of.command.map(quoted).join(" ")}</pre></dd>`}
    <dt>Stage</dt><dd>${of.default_usd_stage_uri ? html`<code>${of.default_usd_stage_uri}</code>` : html`<span class="faint">none</span>`}</dd>
    <dt>Stage sources</dt><dd>${of.allowed_stage_roots?.length ? of.allowed_stage_roots.map((root) => html`<code key=${root} class="line">${root}</code>`) : html`<span class="faint">only its own stage</span>`}</dd>
    <dt>Watched by</dt><dd>${players(of.signaling)}</dd>
    <dt>Needs</dt><dd>${needs(of.needs)}</dd>
    <dt>Limits</dt><dd>${limits(of.limits)}</dd>
    <dt>Arguments</dt><dd>${of.arguments?.length ? html`<table class="mini"><tbody>${of.arguments.map((one) => html`<tr key=${one.name}>
        <td><code>${one.name}</code></td><td>${words(one.type)}${one.required ? ", required" : ""}${one.secret ? ", secret" : ""}</td>
        <td class="faint">${one.default_value != null ? `default ${JSON.stringify(one.default_value)}. ` : ""}${one.description}</td></tr>`)}</tbody></table>` : html`<span class="faint">none</span>`}</dd>
    ${Object.keys(of.environment ?? {}).length > 0 && html`<dt>Environment</dt><dd><${Pairs} of=${of.environment} /></dd>`}
  </dl>
  ${may("sessions.create") && html`<a class="button" href=${to("start", [id], { version: of.version })}><${Icon} name="play" size=${14} /> Start this version</a>`}
</details>`;

const quoted = (token) => (/[\s"'\\]/.test(token) || token === "" ? JSON.stringify(token) : token);

function players(of) {
  const names = [of?.whep_path && "any browser (WHEP)", of?.websocket_path && "NVIDIA's player"].filter(Boolean);
  return names.length ? names.join(", ") : html`<span class="faint">clients of its own</span>`;
}

function needs(of) {
  const { slots, min_memory_bytes: memory, gpu, graphics, encoder, device_names: names, node_labels: labels, isolation } = of ?? {};
  const parts = [slots > 1 && `${slots} slots`, Number(memory) > 0 && `${bytes(memory)} free memory`, gpu && "a GPU", graphics && "graphics", encoder && "a video encoder", names?.length && names.join(" or "), isolation && `isolation ${isolation}`];
  const text = parts.filter(Boolean).join(", ");
  if (!text && !Object.keys(labels ?? {}).length) return html`<span class="faint">any free device</span>`;
  return html`${text} ${Object.keys(labels ?? {}).length > 0 && html`<${Pairs} of=${labels} />`}`;
}

function limits(of) {
  const names = [["start_timeout", "start"], ["never_connected_timeout", "first viewer"], ["idle_timeout", "idle"], ["max_duration", "at most"], ["queue_timeout", "queue"]];
  const parts = names.filter(([name]) => seconds(of?.[name])).map(([name, text]) => `${text} ${span(seconds(of[name]))}`);
  return parts.length ? parts.join(", ") : html`<span class="faint">defaults</span>`;
}
