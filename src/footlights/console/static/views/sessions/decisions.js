// The two actions on a running session: terminate and extend.
import { call, sessionPath } from "../../api/api.js";
import { html, useState } from "../../ui/html.js";
import { seconds, span } from "../../ui/format.js";
import { Dialog } from "../../ui/parts.js";
import { complain, say } from "../../ui/toasts.js";
import { put } from "../../api/watch.js";

const EXTENSIONS = [[900, "15 min"], [3600, "1 h"], [14_400, "4 h"]];

export function Terminate({ session, onClose }) {
  const [busy, setBusy] = useState(false);
  const terminate = async () => {
    setBusy(true);
    try {
      await call("DELETE", sessionPath(session.session_id));
      onClose();
    } catch (error) {
      complain(error, { title: "Not terminated" });
      setBusy(false);
    }
  };
  const watched = session.viewers > 0;
  return html`<${Dialog} title="Terminate this session?" onClose=${onClose} testid="terminate-dialog">
    <p>${session.application} of <strong>${session.username}</strong> ends${session.node ? html` on ${session.node}` : ""}, and its device becomes free.
      Unsaved changes in the application are lost.${watched ? ` ${session.viewers === 1 ? "One viewer is" : `${session.viewers} viewers are`} connected now.` : ""}</p>
    <div class="dialog-end">
      <button class="button" onClick=${onClose}>Keep it running</button>
      <button class="button danger solid" onClick=${terminate} disabled=${busy} data-testid="confirm-terminate">Terminate</button>
    </div></${Dialog}>`;
}

export function Extend({ session, onClose }) {
  const [by, setBy] = useState(3600);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const extend = async () => {
    setBusy(true);
    setError(null);
    try {
      put(await call("POST", sessionPath(session.session_id, ":extend"), { body: { extend_by: `${by}s` } }));
      say(`Extended by ${span(by)}.`);
      onClose();
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  };
  return html`<${Dialog} title="Extend this session" onClose=${onClose} testid="extend-dialog">
    <p>Its maximum duration is ${span(seconds(session.limits?.max_duration))}, from ready. Extend it by:</p>
    <div class="chips" role="group" aria-label="Extend by">${EXTENSIONS.map(([value, name]) => html`
      <button key=${value} class="chip" aria-pressed=${by === value} onClick=${() => setBy(value)}>${name}</button>`)}</div>
    ${error && html`<p class="field-error" role="alert">${error.message} ${error.reason && html`<code>${error.reason}</code>`}</p>`}
    <div class="dialog-end"><button class="button" onClick=${onClose}>Cancel</button>
      <button class="button primary" onClick=${extend} disabled=${busy} data-testid="confirm-extend">Extend</button></div>
  </${Dialog}>`;
}
