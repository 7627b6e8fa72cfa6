// Node by node and device by device: would it be placed here, and if not, why not.
import { html } from "../../ui/html.js";
import { words } from "../../ui/format.js";

export const Verdicts = ({ of }) => html`<ul class="verdicts">${(of ?? []).map((node) => html`
  <li key=${node.node}><div class="verdict"><strong>${node.node}</strong><${Verdict} of=${node} /></div>
    ${node.devices?.length > 0 && html`<ul>${node.devices.map((device) => html`
      <li key=${device.device} class="verdict"><span title=${device.device}>${device.device_name || device.device}</span><${Verdict} of=${device} /></li>`)}</ul>`}
  </li>`)}</ul>`;

const Verdict = ({ of }) => html`<span class=${`verdict-word ${of.reason === "FITS" ? "good" : ""}`} title=${of.reason}>
  ${of.message || words(of.reason)}</span>`;
