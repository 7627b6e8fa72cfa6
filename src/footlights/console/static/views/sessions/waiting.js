// What stands in the picture's place until there is one: why one waits, and for how long.
import { call, may } from "../../api/api.js";
import { useNow } from "../../ui/clock.js";
import { count, seconds, span, words } from "../../ui/format.js";
import { html, useState } from "../../ui/html.js";
import { Icon } from "../../ui/icons.js";
import { Busy } from "../../ui/parts.js";
import { complain } from "../../ui/toasts.js";
import { Verdicts } from "./verdicts.js";
import { stepsOf } from "./timeline.js";

const SAYS = {
  PLACED: "Waiting for a device",
  PULLING: "Sending to the node",
  PROCESS_UP: "Starting the process",
  APPLICATION_READY: "Loading the stage",
};

export function Waiting({ session }) {
  const time = useNow();
  const current = stepsOf(session).find(({ status }) => status === "now");
  const pulling = session.timeline?.at(-1)?.stage === "PULLING";
  const title = session.state === "PENDING" ? SAYS.PLACED : pulling ? "Fetching the container image" : SAYS[current?.stage] ?? "Starting";
  const began = Date.parse(session.created_time);
  return html`<div class="stage waiting" role="status" data-testid="waiting">
    <div class="footlamps" aria-hidden="true"><i></i><i></i><i></i></div>
    <h2>${title}</h2>
    <p class="waiting-time">${span((time - began) / 1000)}</p>
    ${session.state === "PENDING" ? html`<${Queue} session=${session} />` : html`
      <p class="waiting-why">${session.status_message || (session.node ? `On ${session.node}${session.device_name ? `, ${session.device_name}` : ""}` : "")}</p>`}
  </div>`;
}

function Queue({ session }) {
  const { position, estimated_wait_duration: estimate, wait_reasons: reasons = [] } = session.queue ?? {};
  const [answer, setAnswer] = useState(null);
  const [busy, setBusy] = useState(false);
  const explain = async () => {
    setBusy(true);
    try {
      const { application, application_version, profile, priority } = session;
      setAnswer(await call("POST", "/sessions:explain", { body: { application, application_version, profile, priority } }));
    } catch (error) {
      complain(error, { title: "No explanation" });
    }
    setBusy(false);
  };
  const wait = seconds(estimate);
  return html`<div class="queue">
    <p class="queue-line">${position ? html`<strong>${position === 1 ? "Next" : `Number ${position}`}</strong> in the queue` : session.queue?.set_aside ? "Set aside" : "In the queue"}
      ${wait !== null && html`, about <strong>${span(Math.round(wait))}</strong>`}</p>
    ${session.status_message && html`<p class="waiting-why">${session.status_message}</p>`}
    ${reasons.length > 0 && html`<ul class="reasons">${reasons.map((one) => html`<li key=${one.reason}><${Reason} of=${one} /></li>`)}</ul>`}
    ${may("sessions.create") && !answer && html`<button class="button on-dark" onClick=${explain} disabled=${busy}>
      ${busy ? html`<${Busy} />` : html`<${Icon} name="info" />`} Explain for each device</button>`}
    ${answer && html`<${Verdicts} of=${answer.nodes} />`}
  </div>`;
}

const Reason = ({ of: { reason, device_count: devices, node_count: nodes } }) => html`
  <strong>${words(reason)}</strong> ${devices > 0 ? count(devices, "device") : count(nodes, "node")}`;

