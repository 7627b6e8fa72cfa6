// The steps of a session's start, and how long each took.
import { now, useNow } from "../../ui/clock.js";
import { moment, span, words } from "../../ui/format.js";
import { html } from "../../ui/html.js";
import { hasEnded } from "../../api/watch.js";

const STEPS = ["QUEUED", "PLACED", "PULLING", "PROCESS_UP", "APPLICATION_READY", "FIRST_VIEWER"];
const WAITING_FOR = {
  PLACED: "Waiting for a device",
  PULLING: "Waiting for the node",
  PROCESS_UP: "Starting the process",
  APPLICATION_READY: "The application is loading",
  FIRST_VIEWER: "Waiting for the first viewer",
  ENDED: "Releasing the device",
};

/** The steps of a session: `{stage, at, took, status}` with times in ms; `status` is done, now, failed, or ahead. */
export function stepsOf(session) {
  const reached = new Map((session.timeline ?? []).map(({ stage, time }) => [stage, Date.parse(time)]));
  const stages = STEPS.filter((stage) => stage !== "PULLING" || reached.has(stage));
  for (const stage of ["ENDING", "ENDED"]) if (reached.has(stage) || (stage === "ENDED" && reached.has("ENDING"))) stages.push(stage);
  const ended = hasEnded(session);
  let before = null;
  let open = true;
  return stages.map((stage) => {
    const at = reached.get(stage) ?? null;
    const took = at !== null && before !== null ? at - before : null;
    let status = "ahead";
    if (at !== null) status = "done";
    else if (open && !ended && !(session.state === "TERMINATING" && stage !== "ENDED")) {
      status = "now";
      open = false;
    } else if (ended && stage !== "FIRST_VIEWER") status = session.state === "FAILED" && open ? "failed" : "skipped";
    else if (ended || session.state === "TERMINATING") status = "skipped";
    if (status === "failed") open = false;
    const since = before;
    if (at !== null) before = at;
    return { stage, at, took, since, status };
  });
}

export function Timeline({ session }) {
  const steps = stepsOf(session);
  const ticking = steps.some(({ status }) => status === "now");
  const time = useNow({ running: ticking });
  return html`<div class="timeline" data-testid="timeline">
    <${Strip} steps=${steps} time=${time} />
    <ol class="steps">${steps.map((step) => html`<${Step} key=${step.stage} step=${step} time=${time} />`)}</ol>
  </div>`;
}

function Step({ step, time }) {
  const { stage, at, took, since, status } = step;
  const label = status === "now" ? WAITING_FOR[stage] ?? words(stage) : words(stage);
  let length = "";
  if (took !== null) length = span(took / 1000);
  else if (status === "failed") length = "not reached";
  else if (status === "now" && since !== null) length = span((time - since) / 1000);
  return html`<li class=${`step step-${status}`} data-stage=${stage} data-status=${status} aria-current=${status === "now" ? "step" : null}>
    <i></i><span class="step-name">${label}</span>
    <span class="step-length" title=${at === null ? "" : moment(new Date(at).toISOString())}>${length}</span>
  </li>`;
}

/** The parts of the start in proportion. */
function Strip({ steps, time }) {
  const parts = steps
    .filter(({ stage }) => STEPS.includes(stage) && stage !== "FIRST_VIEWER")
    .map(({ stage, took, since, status }) => ({ stage, status, ms: took ?? (status === "now" && since !== null ? time - since : 0) }))
    .filter(({ ms }) => ms > 0);
  const whole = parts.reduce((sum, { ms }) => sum + ms, 0);
  if (!whole) return null;
  return html`<div class="strip-frame">
    <div class="strip" aria-hidden="true">${parts.map(({ stage, status, ms }) => html`
      <div key=${stage} class=${`strip-part strip-${stage.toLowerCase()} ${status}`} title=${`${words(stage)}: ${span(ms / 1000)}`}
        style=${{ flexGrow: String(Math.max(ms / whole, 0.02)) }}></div>`)}</div>
    <span class="strip-sum">${span(whole / 1000)}</span>
  </div>`;
}

/** The same in one line, for lists. */
export function Progress({ session }) {
  const steps = stepsOf(session).filter(({ stage }) => stage !== "FIRST_VIEWER" && STEPS.includes(stage));
  const current = steps.find(({ status }) => status === "now");
  return html`<span>${current ? WAITING_FOR[current.stage] : words(session.state)}
      ${current?.since ? html` <span class="faint">${span((now() - current.since) / 1000)}</span>` : null}</span>
    <span class="dots" aria-hidden="true">${steps.map(({ stage, status }) => html`<i key=${stage} class=${status}></i>`)}</span>`;
}
