// What stands over the picture until there is one, and why there is none.
import { html } from "../../ui/html.js";
import { Icon } from "../../ui/icons.js";
import { Busy } from "../../ui/parts.js";

export const Connecting = ({ status, onRetry }) => html`<div class="connecting" role="status" data-testid="connecting">
  ${status.state !== "failed" && html`<${Busy} />`}
  <h2>${{ connecting: status.attempt > 1 ? "Connecting again" : "Connecting", waiting: status.attempt ? "Not connected" : "Connection lost", failed: "No picture", stopped: "Disconnected" }[status.state]}</h2>
  ${status.reason && html`<p class="waiting-why">${status.reason}</p>`}
  ${status.state === "waiting" && html`<p class="dim">Trying again in ${status.retryIn} s.</p>`}
  ${status.state === "failed" && html`<button class="button on-dark" onClick=${onRetry}><${Icon} name="again" /> Try again</button>`}
</div>`;
