// What stands in the picture's place when the session is over: how it ended, and why.
import { html } from "../../ui/html.js";
import { overdue, span, words } from "../../ui/format.js";
import { Icon } from "../../ui/icons.js";
import { Busy } from "../../ui/parts.js";

const SAYS = {
  USER_TERMINATED: "It was terminated by a user.",
  COMPLETED: "The application finished by itself.",
  CRASHED: "The application ended with an error.",
  LAUNCH_FAILED: "The application could not be launched.",
  START_TIMEOUT: "The application was not ready in time.",
  NEVER_CONNECTED: "No viewer connected in time.",
  UNRESPONSIVE: "The application did not answer for too long.",
  IDLE_TIMEOUT: "There was no viewer or no input for too long.",
  MAX_DURATION: "Its maximum duration was reached.",
  QUEUE_TIMEOUT: "No device became free in time.",
  NODE_LOST: "Its node was lost.",
  GPU_LOST: "Its GPU failed.",
  DRAINED: "Its node was drained.",
  WRONG_DEVICE: "The application ran on another device than its own.",
  NODE_FAILED: "No node could start it.",
};
const HELPS = {
  START_TIMEOUT: "A first start may be slow while shaders are compiled: starting again is often faster. The log shows its progress.",
  NEVER_CONNECTED: "If a viewer tried to connect, UDP to the node's media port may be blocked.",
  QUEUE_TIMEOUT: "The Nodes view shows what holds the devices.",
  LAUNCH_FAILED: "The message and the last lines of the log describe the cause.",
  WRONG_DEVICE: "The version must restrict the application to its device.",
};

export function Ended({ session }) {
  if (session.state === "TERMINATING") {
    if (overdue(session)) {
      return html`<div class="stage waiting" role="alert" data-testid="overdue"><${Icon} name="warning" size=${22} /><h2>It does not end</h2>
        <p class="waiting-why">${session.status_message}</p>
        <p class="dim">An operator must check ${session.node || "its node"}; the agent keeps trying.</p></div>`;
    }
    return html`<div class="stage waiting" role="status"><${Busy} /><h2>Terminating</h2>
      <p class="waiting-why">${session.status_message || "The application is ending and its device will be free."}</p></div>`;
  }
  const failed = session.state === "FAILED";
  const lasted = (Date.parse(session.ended_time) - Date.parse(session.created_time)) / 1000;
  return html`<div class=${`stage ended ${failed ? "ended-failed" : ""}`} role=${failed ? "alert" : "status"} data-testid="ended">
    <div class="ended-text">
      <span class="ended-sign"><${Icon} name=${failed ? "warning" : "check"} size=${22} /></span>
      <h2>${failed ? "The session failed" : "The session has ended"}</h2>
      <p class="ended-why">${SAYS[session.end_reason] ?? words(session.end_reason)} ${Number.isFinite(lasted) && html`<span class="dim">After ${span(lasted)}.</span>`}</p>
      ${session.status_message && html`<p class="ended-message">${session.status_message}</p>`}
      ${HELPS[session.end_reason] && html`<p class="dim">${HELPS[session.end_reason]}</p>`}
      <p class="ended-codes"><code>${session.end_reason}</code>
        ${session.failure_reason && html` <code>${session.failure_reason}</code>`}
        ${session.exit_code != null && html` <code>${session.exit_code < 0 ? `killed by signal ${-session.exit_code}` : `exit code ${session.exit_code}`}</code>`}</p>
    </div>
    ${session.log_tail?.length > 0 && html`<pre class="ended-log" tabindex="0" aria-label="Last lines of its output">${session.log_tail.slice(-12).join("\n")}</pre>`}
  </div>`;
}
