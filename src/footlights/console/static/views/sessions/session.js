// One session: its picture, its start, its log, and its actions.
import { call, identity, may, newId } from "../../api/api.js";
import { useCell } from "../../ui/cell.js";
import { html, useEffect, useState } from "../../ui/html.js";
import { basename, moment, seconds, span } from "../../ui/format.js";
import { Icon } from "../../ui/icons.js";
import { Ago, Copy, Empty, Pairs, Skeleton, State, Trouble } from "../../ui/parts.js";
import { to } from "../../router.js";
import { complain } from "../../ui/toasts.js";
import { hasEnded, put, read, sessions } from "../../api/watch.js";
import { Ended } from "./ended.js";
import { Extend, Terminate } from "./decisions.js";
import { Embed } from "../picture/embed.js";
import { Log } from "./log.js";
import { Picture } from "../picture/picture.js";
import { Timeline } from "./timeline.js";
import { Viewers } from "./viewers.js";
import { Waiting } from "./waiting.js";

export function Session({ id }) {
  const session = useCell(sessions).get(id);
  const [error, setError] = useState(null);
  const [round, setRound] = useState(0);
  useEffect(() => {
    const ending = new AbortController();
    setError(null);
    // The watch has sessions that have not ended; others must be requested.
    read(id, ending.signal).catch((failure) => !ending.signal.aborted && setError(failure));
    return () => ending.abort();
  }, [id, round, Boolean(session)]);
  if (session) return html`<${Details} session=${session} />`;
  if (error?.status === 404) {
    return html`<${Back} /><${Empty} title="No such session" action=${html`<a class="button" href=${to("sessions")}>All sessions</a>`}>
      <code>${id}</code> does not exist, or you have no access to it.</${Empty}>`;
  }
  if (error) return html`<${Back} /><${Trouble} error=${error} onRetry=${() => setRound(round + 1)} />`;
  return html`<${Back} /><${Skeleton} rows=${6} />`;
}

const Back = () => html`<a class="back" href=${to("sessions")}><${Icon} name="left" size=${14} /> Sessions</a>`;

function Details({ session }) {
  const [asking, setAsking] = useState(null);
  const ended = hasEnded(session);
  const viewable = session.state === "READY" || session.state === "ACTIVE";
  const over = ended || session.state === "TERMINATING";
  return html`<${Back} />
    <header class="head session-head">
      <div><h1>${session.application} <span class="version">${session.application_version}</span></h1>
        <div class="session-line">
          <${State} state=${session.unknown_values?.state ?? session.state} testid="session-state" />
          ${session.condition === "UNREACHABLE" && html`<${State} state="UNREACHABLE" />`}
          <span>${session.username}</span>
          <span>${ended ? html`ended <${Ago} time=${session.ended_time} />` : html`created <${Ago} time=${session.created_time} />`}</span>
        </div></div>
      <div class="head-end">
        <button class="button quiet" onClick=${() => setAsking("embed")} data-testid="embed"><${Icon} name="code" /> Embed</button>
        ${!ended && session.limits?.max_duration && may("sessions.extend")
          && html`<button class="button" onClick=${() => setAsking("extend")} data-testid="extend"><${Icon} name="clock" /> Extend</button>`}
        ${!ended && may("sessions.terminate") && html`<button class="button danger" data-testid="terminate"
          disabled=${session.state === "TERMINATING"} onClick=${() => setAsking("terminate")}><${Icon} name="stop" />
          ${session.state === "TERMINATING" ? "Terminating…" : "Terminate"}</button>`}
        ${ended && may("sessions.create") && html`<${StartAgain} session=${session} />`}
      </div>
    </header>
    ${session.condition === "UNREACHABLE" && html`<div class="note note-wait" role="status"><${Icon} name="warning" />
      <span>The node <strong>${session.node}</strong> does not report. The session continues there and is not started
      elsewhere; this page shows the last report.</span></div>`}
    ${viewable && session.status_message && html`<div class="note note-wait" role="status" data-testid="session-says"><${Icon} name="info" /><span>${session.status_message}</span></div>`}
    ${!over && session.stage_message && html`<div class="note note-wait" role="status" data-testid="session-stage"><${Icon} name="info" /><span>${session.stage_message}</span></div>`}
    <div class="session">
      <div class="session-main">
        <div class="stage-frame">
          ${viewable && html`<${Picture} session=${session} />`}
          ${over && html`<${Ended} session=${session} />`}
          ${!viewable && !over && html`<${Waiting} session=${session} />`}
        </div>
        <${Log} key=${ended ? "whole" : "live"} session=${session} />
      </div>
      <aside class="session-side">
        <section class="card"><h2>Start</h2><${Timeline} session=${session} />
          ${session.launch_count > 1 && html`<p class="hint">Launched ${session.launch_count} times: earlier launches were refused or failed.</p>`}
        </section>
        ${viewable && html`<${Viewers} session=${session} />`}
        <section class="card"><h2>Facts</h2><${Facts} session=${session} /></section>
      </aside>
    </div>
    ${asking === "embed" && html`<${Embed} session=${session} onClose=${() => setAsking(null)} />`}
    ${asking === "terminate" && html`<${Terminate} session=${session} onClose=${() => setAsking(null)} />`}
    ${asking === "extend" && html`<${Extend} session=${session} onClose=${() => setAsking(null)} />`}`;
}

/** Start the same again; if a secret is needed, which no answer contains, in the form. */
function StartAgain({ session }) {
  const [busy, setBusy] = useState(false);
  const { application, application_version, application_arguments, profile } = session;
  const secret = Object.values(application_arguments ?? {}).some((value) => JSON.stringify(value)?.includes("[redacted]"));
  const form = to("start", [application], { version: application_version, stage: application_arguments?.usd_stage_uri });
  if (secret) return html`<a class="button primary" href=${form}><${Icon} name="again" /> Start again…</a>`;
  const start = async () => {
    setBusy(true);
    try {
      const body = { application, application_version, application_arguments, request_id: newId() };
      if (profile) body.profile = profile;
      const fresh = await call("POST", "/sessions", { body });
      put(fresh);
      location.hash = to("sessions", [fresh.session_id]);
    } catch (error) {
      complain(error, { title: "Not started", href: form });
      setBusy(false);
    }
  };
  return html`<button class="button primary" onClick=${start} disabled=${busy} data-testid="start-again"><${Icon} name="again" /> Start again</button>`;
}

function Facts({ session }) {
  const { caller } = useCell(identity);
  const routes = Object.entries(session.routes ?? {}).flatMap(([host, { routes: of }]) => (of ?? []).map((one) => ({ host, ...one })));
  const { usd_stage_uri: stage, nucleus_connection_config: nucleus, ...rest } = session.application_arguments ?? {};
  if (nucleus?.length) rest.nucleus_connection_config = nucleus;
  return html`<dl class="facts">
    <dt>Session</dt><dd><${Copy} text=${session.session_id} label="Copy the id" /></dd>
    ${session.username !== caller?.subject && html`<dt>User</dt><dd>${session.username}</dd>`}
    <dt>Stage</dt><dd>${stage ? html`<${Copy} text=${stage} label="Copy the address"><span title=${stage}>${basename(stage)}</span></${Copy}>` : html`<span class="faint">the version's own</span>`}</dd>
    <dt>Arguments</dt><dd><${Pairs} of=${rest} /></dd>
    <dt>Node</dt><dd>${session.node || html`<span class="faint">none yet</span>`}</dd>
    <dt>Device</dt><dd>${session.device ? html`${session.device_name || session.device}<span class="under mono" title=${session.device}>${session.device}</span>` : html`<span class="faint">none yet</span>`}</dd>
    ${session.viewers != null && html`<dt>Viewers</dt><dd>${session.viewers}</dd>`}
    ${session.profile && html`<dt>Profile</dt><dd>${session.profile}</dd>`}
    ${session.started_from_pool && html`<dt>Started ahead</dt><dd>by the pool ${session.started_from_pool}</dd>`}
    ${session.priority ? html`<dt>Priority</dt><dd>${session.priority}</dd>` : null}
    <dt>Max duration</dt><dd><${Limit} of=${session.limits?.max_duration} /></dd>
    <dt>Idle timeout</dt><dd><${Limit} of=${session.limits?.idle_timeout} /></dd>
    <dt>Created</dt><dd>${moment(session.created_time)}</dd>
    ${session.ready_time && html`<dt>Ready</dt><dd>${moment(session.ready_time)}</dd>`}
    ${session.ended_time && html`<dt>Ended</dt><dd>${moment(session.ended_time)}</dd>`}
    ${routes.length > 0 && html`<dt>Routes</dt><dd class="routes">${routes.map((one) => html`
      <span key=${one.host + one.description}>${one.description} <code>${one.host}:${one.source_port}/${one.protocol.toLowerCase()}</code></span>`)}
      ${Object.keys(session.routes).length > 1 && session.routes_message && html`<span class="under">${session.routes_message}</span>`}</dd>`}
    ${Object.keys(session.labels ?? {}).length > 0 && html`<dt>Labels</dt><dd><${Pairs} of=${session.labels} /></dd>`}
    ${session.exit_code != null && html`<dt>Exit code</dt><dd>${session.exit_code}</dd>`}
  </dl>`;
}

const Limit = ({ of }) => {
  const value = seconds(of);
  return value ? html`${span(value)}` : html`<span class="faint">no limit</span>`;
};

