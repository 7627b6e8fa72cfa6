// The small parts that views are made of.
import { ago, moment, span, words } from "./format.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { Icon } from "./icons.js";
import { useNow } from "./clock.js";

const TONES = {
  PENDING: "wait", STARTING: "busy", READY: "good", ACTIVE: "good", TERMINATING: "busy", TERMINATED: "off", FAILED: "bad",
  CORDONED: "wait", DRAINING: "busy", DRAINED: "off", UNREACHABLE: "bad", UNWELL: "bad",
  OK: "good", DEGRADED: "wait", UNHEALTHY: "bad", LOST: "bad",
};

/** A state in its colour; never by colour alone. */
export const State = ({ state, testid }) => html`
  <span class=${`state tone-${TONES[state] ?? "off"}`} data-state=${state} data-testid=${testid}><i></i>${words(state)}</span>`;

export const Busy = () => html`<span class="busy" role="progressbar" aria-label="Working"></span>`;

/** How long ago, with the moment itself on hover. */
export function Ago({ time }) {
  const now = useNow({ slow: true });
  return time ? html`<time datetime=${time} title=${moment(time)}>${ago(time, now)}</time>` : null;
}

/** How long until a moment, with the moment itself on hover. */
export function Until({ time }) {
  const left = (Date.parse(time) - useNow({ slow: true })) / 1000;
  return html`<time datetime=${time} title=${moment(time)}>${left > 0 ? `in ${span(left)}` : "now"}</time>`;
}

/** Text that can be taken along by one click. */
export function Copy({ text, children, label = "Copy" }) {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    const timer = copied ? setTimeout(() => setCopied(false), 1500) : 0;
    return () => clearTimeout(timer);
  }, [copied]);
  const copy = () => navigator.clipboard?.writeText(text).then(() => setCopied(true), () => undefined);
  return html`<span class="copy">${children ?? html`<code>${text}</code>`}
    <button type="button" class="icon-button" onClick=${copy} aria-label=${copied ? "Copied" : label} title=${label}>
      <${Icon} name=${copied ? "check" : "copy"} size=${14} />
    </button></span>`;
}

/** A modal question. Closes by Escape, by its cancel button, and where `onClose` is called. */
export function Dialog({ title, children, onClose, testid, wide = false }) {
  const ref = useRef(null);
  useEffect(() => {
    const dialog = ref.current;
    dialog.showModal();
    return () => dialog.open && dialog.close();
  }, []);
  return html`<dialog ref=${ref} class=${wide ? "dialog dialog-wide" : "dialog"} data-testid=${testid} aria-label=${title}
      onCancel=${(event) => { event.preventDefault(); onClose(); }}
      onClick=${(event) => event.target === ref.current && onClose()}>
    <div class="dialog-body"><h2>${title}</h2>${children}</div>
  </dialog>`;
}

/** A bar from 0 to 1. */
export const Meter = ({ value, label, tone = "" }) => html`
  <div class=${`meter ${tone}`} role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax="100"
    aria-valuenow=${Math.round(value * 100)}>
    <div style=${{ width: `${Math.min(100, Math.max(0, value * 100)).toFixed(1)}%` }}></div>
  </div>`;

/** Grey lines in the shape of what will come; they appear only where waiting is noticeable. */
export const Skeleton = ({ rows = 4 }) => html`
  <div class="skeleton" aria-busy="true" aria-label="Loading">
    ${Array.from({ length: rows }, (_, row) => html`<div key=${row} class="skeleton-row"><b></b><b></b><b></b></div>`)}
  </div>`;

/** What a view says when it could not be read, and the way to try again. */
export const Trouble = ({ error, onRetry }) => html`
  <div class="trouble" role="alert">
    <${Icon} name="warning" size=${20} />
    <div><strong>${error.message}</strong>${error.reason && html` <code>${error.reason}</code>`}</div>
    ${onRetry && html`<button class="button" onClick=${onRetry}><${Icon} name="again" /> Try again</button>`}
  </div>`;

export const Empty = ({ art, title, children, action }) => html`
  <div class="empty">${art}<h2>${title}</h2><p>${children}</p>${action}</div>`;

/** Labels, arguments and other pairs. */
export const Pairs = ({ of, none = "none" }) => {
  const entries = Object.entries(of ?? {});
  if (!entries.length) return html`<span class="faint">${none}</span>`;
  return html`<span class="pairs">${entries.map(([key, value]) => html`
    <span class="pair" key=${key}><span>${key}</span><code>${typeof value === "string" ? value : JSON.stringify(value)}</code></span>`)}</span>`;
};
