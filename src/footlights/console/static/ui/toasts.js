// Short messages in a corner. Errors stay until they are dismissed; others disappear by themselves.
import { cell, useCell } from "./cell.js";
import { html } from "./html.js";
import { Icon } from "./icons.js";

const STAYS = 5000;
const MOST = 4;
const toasts = cell([]);
let next = 1;

export function say(message) {
  const id = add({ kind: "good", message });
  setTimeout(() => drop(id), STAYS);
}

/** Show an error; `href` leads to what it is about. */
export function complain(error, { title = "", href = "" } = {}) {
  if (error.name === "AbortError" || error.status === 401) return;
  add({ kind: "bad", title, message: error.message, reason: error.reason ?? "", href });
}

function add(toast) {
  const id = next++;
  toasts.value = [...toasts.value, { id, ...toast }].slice(-MOST);
  return id;
}

const drop = (id) => (toasts.value = toasts.value.filter((toast) => toast.id !== id));

export function Toasts() {
  const shown = useCell(toasts);
  return html`<div class="toasts" role="status" aria-live="polite">
    ${shown.map((toast) => html`
      <div key=${toast.id} class=${`toast toast-${toast.kind}`} data-testid="toast">
        <${Icon} name=${toast.kind === "good" ? "check" : "warning"} />
        <div class="toast-text">
          ${toast.title && html`<strong>${toast.title}</strong>`}
          <span>${toast.message}</span>
          ${toast.reason && html`<code>${toast.reason}</code>`}
          ${toast.href && html`<a href=${toast.href} onClick=${() => drop(toast.id)}>Show</a>`}
        </div>
        <button class="icon-button" aria-label="Dismiss" onClick=${() => drop(toast.id)}><${Icon} name="cross" size=${14} /></button>
      </div>`)}
  </div>`;
}
