// One device: memory, utilization, health, and its sessions.
import { bytes, count, shortId, words } from "../../ui/format.js";
import { html } from "../../ui/html.js";
import { Icon } from "../../ui/icons.js";
import { Ago, Meter, State } from "../../ui/parts.js";
import { to } from "../../router.js";

const KEPT = 45;
const busyness = new Map();

/** Keep a device's utilisation for the small curve beside it. */
export function remember({ uuid, utilization_percent: now }) {
  if (now == null) return;
  const kept = busyness.get(uuid) ?? [];
  busyness.set(uuid, [...kept, now].slice(-KEPT));
}

export function Device({ of }) {
  const total = Number(of.memory_total_bytes ?? 0);
  const used = total - Number(of.memory_free_bytes ?? total);
  const foreign = of.foreign_processes ?? [];
  const kept = Number(of.memory_reserved_bytes ?? 0);
  return html`<div class="device" role="listitem" data-testid="device" data-uuid=${of.uuid}>
    <div class="device-name"><strong>${of.name}</strong>
      <span class="under" title=${of.uuid}>${[kind(of), of.pci_bus_id, of.kind === "SOFTWARE" ? "" : shortId(of.uuid)].filter(Boolean).join(" · ")}</span></div>
    <div class="device-health"><${State} state=${of.health} /></div>
    <div class="device-figure">${total ? html`<span class="figure-text">${bytes(used)} <span class="faint">of ${bytes(total)}${kept ? `, ${bytes(kept)} kept` : ""}</span></span>
      <${Meter} value=${used / total} label="Memory" tone=${used / total > 0.95 ? "tone-wait" : ""} />` : html`<span class="faint">no memory</span>`}</div>
    <div class="device-figure"><${Use} of=${of} /></div>
    <${Slots} of=${of} />
    <${Remarks} of=${of} foreign=${foreign} />
  </div>`;
}

function Use({ of }) {
  if (of.utilization_percent == null) return html`<span class="faint">utilization unknown</span>`;
  const encoding = of.encoder_sessions ? `, ${of.encoder_sessions} encoding` : "";
  return html`<span class="figure-text">${of.utilization_percent} % <span class="faint">busy${encoding}</span></span>
    <${Curve} of=${busyness.get(of.uuid) ?? []} />`;
}

const kind = ({ kind: name, mig_profile: profile }) => (name === "MIG" ? `MIG ${profile}` : name === "GPU" ? "" : words(name));

function Slots({ of }) {
  const { slots = 0, slots_leased: leased = 0, sessions = [] } = of;
  const barred = of.health === "UNHEALTHY" || of.health === "LOST" || Boolean(of.quarantine_status) || of.foreign_processes?.length > 0;
  const pips = Array.from({ length: Math.min(slots, 16) }, (_, at) => html`<i key=${at} class=${at < leased ? "taken" : ""}></i>`);
  return html`<div class="device-slots"><span class="pips" role="img" aria-label=${`${leased} of ${slots} slots leased`} title=${`${leased} of ${slots} slots leased`}>${pips}</span>
    <span class="slot-text">${leased === 0 && barred ? html`<span class="faint">not used</span>` : leased === 0 ? html`<span class="faint">free</span>`
      : sessions.length ? sessions.map((id) => html`<a key=${id} href=${to("sessions", [id])} title=${id}>${shortId(id)}</a> `)
      : html`<span class="faint">${leased} of ${slots} leased</span>`}</span></div>`;
}

const Remarks = ({ of, foreign }) => html`${(of.health_reasons ?? []).map(({ reason, message }) => html`
    <p class=${`device-note ${of.health === "DEGRADED" ? "wait" : "bad"}`} key=${reason}><${Icon} name="warning" size=${14} /> <span><code>${reason}</code> ${message}</span></p>`)}
  ${foreign.length > 0 && html`<${Foreign} of=${foreign} />`}
  ${of.processes_known === false && of.kind !== "SOFTWARE" && of.kind !== "FAKE" && html`<p class="device-note"><${Icon} name="info" size=${14} /> The processes on it cannot be read.</p>`}
  ${of.quarantine_status && html`<p class="device-note wait" data-testid="quarantine"><${Icon} name="warning" size=${14} /> <span>In quarantine: ${of.quarantine_status.message}.</span></p>`}
  ${of.events?.length > 0 && html`<${History} of=${of.events} />`}
  ${of.note && html`<p class="device-note"><${Icon} name="info" size=${14} /> ${of.note}</p>`}`;

const History = ({ of }) => html`<details class="device-history" data-testid="device-history"><summary>What happened to it: ${count(of.length, "event")}</summary>
  <ol>${of.toReversed().map(({ time, reason, message }) => html`<li key=${time}><${Ago} time=${time} /> <code>${reason}</code> ${message}</li>`)}</ol></details>`;

const Foreign = ({ of }) => html`<p class="device-note wait"><${Icon} name="warning" size=${14} />
  <span>Not ours: ${of.map(({ pid, name, used_memory_bytes: memory }, at) => html`${at ? ", " : ""}<code key=${pid}>${name || "?"} (${pid})</code>
    ${memory == null ? "" : ` ${bytes(memory)}`}`)}. It is not placed while they run.</span></p>`;

function Curve({ of }) {
  const width = 100;
  const height = 18;
  const step = width / (KEPT - 1);
  const from = width - (of.length - 1) * step;
  const points = of.map((value, at) => `${(from + at * step).toFixed(1)},${(height - 1 - (value / 100) * (height - 2)).toFixed(1)}`);
  const path = points.length > 1 ? `M${points.join("L")}` : "";
  return html`<svg class="curve" viewBox=${`0 0 ${width} ${height}`} preserveAspectRatio="none" aria-hidden="true">
    ${path && html`<path class="curve-area" d=${`${path}L${width},${height}L${from.toFixed(1)},${height}Z`} /><path class="curve-line" d=${path} />`}</svg>`;
}
