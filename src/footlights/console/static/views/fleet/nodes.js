// The nodes, their devices and sessions: read every two seconds while the page is visible.
import { call, may, pages } from "../../api/api.js";
import { count } from "../../ui/format.js";
import { html, useMemo, useState } from "../../ui/html.js";
import { EmptyStage, Icon } from "../../ui/icons.js";
import { Loaded, useRead } from "../../ui/load.js";
import { Ago, Dialog, Empty, Pairs, State, Until } from "../../ui/parts.js";
import { complain, say } from "../../ui/toasts.js";
import { Device, remember } from "./device.js";

const EVERY = 2000;
const FIRST = 40;

export function Nodes() {
  const nodes = useRead(async (signal) => {
    const { items, brake } = await pages("/nodes", { view: "FULL" }, signal);
    for (const { devices } of items) devices?.forEach(remember);
    return Object.assign(items, { brake });
  }, [], { every: EVERY });
  const [search, setSearch] = useState("");
  const [most, setMost] = useState(FIRST);
  return html`<header class="head"><h1>Nodes</h1>${nodes.value && html`<${Sum} of=${nodes.value} />`}</header>
    ${nodes.error && nodes.value && html`<div class="note note-wait" role="status"><${Icon} name="warning" /><span>${nodes.error.message} This is the last known state.</span></div>`}
    ${nodes.value?.brake && html`<div class="note note-wait" role="status" data-testid="brake"><${Icon} name="warning" />
      <span>Expiry is paused since <${Ago} time=${nodes.value.brake.since_time} /> <code>${nodes.value.brake.reason}</code>: ${nodes.value.brake.message}
      No node becomes unreachable and no session ends by a timeout; it resumes by itself.</span></div>`}
    <${Loaded} of=${nodes} rows=${5}>${(items) => {
      if (!items.length) {
        return html`<${Empty} art=${html`<${EmptyStage} />`} title="No node has joined">
          Start an agent on a GPU server: <code>footlights agent</code>. A machine without a GPU offers software devices.</${Empty}>`;
      }
      const found = items.filter((node) => matches(node, search));
      return html`${items.length > 3 && html`<div class="filters" role="search"><label class="search"><${Icon} name="search" />
          <input type="search" aria-label="Find nodes" placeholder="Node, device, label or state" value=${search} onInput=${(event) => setSearch(event.target.value)} /></label>
          <span class="filters-note">${search ? `${found.length} of ${count(items.length, "node")}` : ""}</span></div>`}
        <div class="nodes" data-testid="nodes-list">${found.slice(0, most).map((node) => html`<${Node} key=${node.node} node=${node} onChange=${nodes.again} />`)}</div>
        ${found.length > most && html`<div class="more"><button class="button" onClick=${() => setMost(most + FIRST)}>Show more (${found.length - most})</button></div>`}`;
    }}</${Loaded}>`;
}

const matches = ({ node, state, facts, devices }, search) =>
  !search || [node, state, ...Object.entries(facts?.labels ?? {}).flat(), ...(devices ?? []).flatMap(({ name, uuid, health }) => [name, uuid, health])]
    .some((text) => String(text).toLowerCase().includes(search.toLowerCase()));

function Sum({ of }) {
  const devices = of.flatMap((node) => node.devices ?? []);
  const slots = devices.reduce((sum, device) => sum + (device.slots ?? 0), 0);
  const leased = devices.reduce((sum, device) => sum + (device.slots_leased ?? 0), 0);
  const unwell = devices.filter((device) => device.health === "UNHEALTHY" || device.health === "LOST").length;
  return html`<p class="sum">${count(of.length, "node")}, ${count(devices.length, "device")}, <strong>${leased}</strong> of ${slots} slots leased${unwell ? html`, <span class="bad">${unwell} not usable</span>` : ""}</p>`;
}

function Node({ node, onChange }) {
  const { facts } = node;
  const devices = node.devices ?? [];
  const kinds = useMemo(() => summary(devices), [devices]);
  const { cordoned, message, subject } = node.scheduling ?? {};
  return html`<article class="card node" data-testid="node" data-node=${node.node}>
    <header class="node-head">
      <div><h2>${node.node}</h2><span class="under">${kinds}</span></div>
      <${State} state=${node.state} testid="node-state" />
      ${node.state === "UNREACHABLE" && cordoned && html`<${State} state=${node.scheduling.draining ? "DRAINING" : "CORDONED"} />`}
      ${node.state === "DRAINING" && node.drain_time && html`<span class="faint" data-testid="drains">${count(node.session_count ?? 0, "session")} left, will be ended <${Until} time=${node.drain_time} /></span>`}
      ${node.state === "UNREACHABLE" && html`<span class="bad">last report <${Ago} time=${node.last_seen_time} /></span>`}
      <div class="head-end"><${Actions} node=${node} onChange=${onChange} /></div>
    </header>
    ${node.state === "DRAINING" && !node.drain_time && html`<p class="node-note"><${Icon} name="info" size=${14} /> ${count(node.session_count ?? 0, "session")} left; they end by themselves.</p>`}
    ${cordoned && message && html`<p class="node-note" data-testid="cordon-message"><${Icon} name="info" size=${14} /> ${subject ? `${subject}: ` : ""}${message}</p>`}
    ${(node.notices ?? []).map(({ reason, message, time }) => html`<p class="node-note bad" key=${reason} data-testid="node-notice"><${Icon} name="warning" size=${14} />
      <span><code>${reason}</code> ${message}${time && html` <span class="faint"><${Ago} time=${time} /></span>`}</span></p>`)}
    ${(node.back_offs ?? []).map((off, index) => html`<p class="node-note bad" key=${index} data-testid="node-back-off"><${Icon} name="warning" size=${14} />
      <span><code>${off.reason}</code> ${[off.launcher, off.application, off.application_version, off.device].filter(Boolean).join(" ")}: ${off.message}</span></p>`)}
    ${(facts?.notes ?? []).map((note) => html`<p class="node-note" key=${note}><${Icon} name="info" size=${14} /> ${note}</p>`)}
    ${devices.length ? html`<div class="devices" role="list">${devices.map((device) => html`<${Device} key=${device.uuid} of=${device} />`)}</div>`
      : html`<p class="hint">It has no devices.</p>`}
    <footer class="node-facts">
      ${sentences(facts ?? {}).map((text) => html`<span key=${text}>${text}</span>`)}
      ${Object.keys(facts?.labels ?? {}).length > 0 && html`<${Pairs} of=${facts.labels} />`}
    </footer>
  </article>`;
}

function sentences({ os, driver_version: driver, agent_version: agent, public_address: address, launchers, launcher_facts: known } = {}) {
  const all = [os, driver && `driver ${driver}`, agent && `agent ${agent}`, address && `media to ${address}`];
  return [...all, launchers?.length && `launchers: ${launchers.map((name) => launcher(name, known)).join(", ")}`].filter(Boolean);
}

function launcher(name, known) {
  const isolation = known?.find((each) => each.name === name)?.isolation;
  return isolation ? `${name} (isolation ${isolation})` : name;
}

function summary(devices) {
  const names = new Map();
  for (const { name } of devices) names.set(name, (names.get(name) ?? 0) + 1);
  return [...names].map(([name, n]) => (n > 1 ? `${n} × ${name}` : name)).join(", ");
}

function Actions({ node, onChange }) {
  const [asking, setAsking] = useState(null);
  const [busy, setBusy] = useState(false);
  if (!may("nodes.write")) return null;
  const path = `/nodes/${encodeURIComponent(node.node)}`;
  const act = async (method, rest, body, done) => {
    setBusy(true);
    try {
      await call(method, path + rest, body && { body });
      say(done);
      setAsking(null);
      onChange();
    } catch (error) {
      complain(error, { title: node.node });
    }
    setBusy(false);
  };
  const cordoned = ["CORDONED", "DRAINING", "DRAINED"].includes(node.state) && (!node.acceptance || node.scheduling?.reason === "OPERATOR");
  const drain = (timeout, when) => act("POST", ":drain", timeout === null ? {} : { drain_timeout: timeout }, `${node.node} is draining${when}.`);
  return html`
    ${node.state === "READY" && html`<button class="button small" disabled=${busy} onClick=${() => act("POST", ":cordon", {}, `${node.node} accepts no new sessions.`)}>Cordon</button>`}
    ${node.acceptance && html`<button class="button small primary" disabled=${busy} onClick=${() => act("POST", ":accept", {}, `${node.node} is accepted.`)}>Accept</button>`}
    ${cordoned && html`<button class="button small" disabled=${busy} onClick=${() => act("POST", ":uncordon", {}, `${node.node} accepts sessions again.`)}>Uncordon</button>`}
    ${(node.state === "READY" || node.state === "CORDONED") && html`<button class="button small" disabled=${busy} onClick=${() => setAsking("drain")}>Drain…</button>`}
    ${node.state === "UNREACHABLE" && html`<button class="button small danger" disabled=${busy} onClick=${() => setAsking("forget")}>Forget…</button>`}
    ${asking === "drain" && html`<${Dialog} title=${`Drain ${node.node}?`} onClose=${() => setAsking(null)}>
      <p>It accepts no new sessions. ${node.session_count
        ? `${count(node.session_count, "session")} ${node.session_count === 1 ? "runs" : "run"} there. When should ${node.session_count === 1 ? "it" : "they"} end?`
        : "No session runs there."}</p>
      <div class="dialog-end"><button class="button" onClick=${() => setAsking(null)}>Cancel</button>
        <button class="button danger" disabled=${busy} onClick=${() => drain("0s", " now")}>Now</button>
        <button class="button" disabled=${busy} onClick=${() => drain("3600s", ", within an hour")}>In an hour</button>
        <button class="button primary" disabled=${busy} onClick=${() => drain(null, " as its sessions end")}>When they end by themselves</button></div></${Dialog}>`}
    ${asking === "forget" && html`<${Dialog} title=${`Forget ${node.node}?`} onClose=${() => setAsking(null)}>
      <p>Only for a machine that will not return: ${node.session_count ? `${count(node.session_count, "session")} ${node.session_count === 1 ? "ends" : "end"} as NODE_LOST, and ` : ""}its devices are removed.</p>
      <div class="dialog-end"><button class="button" onClick=${() => setAsking(null)}>Cancel</button>
        <button class="button danger solid" disabled=${busy} onClick=${() => act("DELETE", "", null, `${node.node} is removed.`)}>Forget</button></div></${Dialog}>`}`;
}
