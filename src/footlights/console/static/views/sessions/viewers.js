// Who watches a session, and disconnecting them.
import { call, may, sessionPath } from "../../api/api.js";
import { html, useState } from "../../ui/html.js";
import { count, shortId } from "../../ui/format.js";
import { Loaded, useRead } from "../../ui/load.js";
import { Ago, Dialog } from "../../ui/parts.js";
import { complain, say } from "../../ui/toasts.js";

const EVERY = 5000;
const SHOWN = 20;

export function Viewers({ session }) {
  const viewers = useRead(
    (signal) => call("GET", sessionPath(session.session_id, "/viewers"), { query: { limit: 100 }, signal }),
    [session.session_id, session.viewers],
    { every: EVERY },
  );
  const [asking, setAsking] = useState(null);
  return html`<section class="card" data-testid="viewers"><h2>Viewers</h2>
    <${Loaded} of=${viewers} rows=${1}>${({ items }) => {
      const here = items.filter(({ state }) => state === "CONNECTED");
      if (!here.length) return html`<p class="hint">Nobody is watching now.</p>`;
      return html`<ul class="viewers">${here.slice(0, SHOWN).map((viewer) => html`<${Row} key=${viewer.viewer_id} viewer=${viewer} onDisconnect=${() => setAsking(viewer)} />`)}</ul>
        ${here.length > SHOWN && html`<p class="hint">${count(here.length - SHOWN, "more viewer")}: footlights sessions viewers.</p>`}`;
    }}</${Loaded}>
    ${asking && html`<${Disconnect} session=${session} viewer=${asking} onClose=${() => setAsking(null)} onDone=${viewers.again} />`}
  </section>`;
}

const Row = ({ viewer, onDisconnect }) => html`<li data-testid="viewer">
  <span><strong>${viewer.subject}</strong> <code title=${viewer.viewer_id}>${shortId(viewer.viewer_id)}</code>
    <span class="under">joined <${Ago} time=${viewer.connected_time} /></span></span>
  ${may("sessions.connect") && html`<button class="button small danger" onClick=${onDisconnect} data-testid="disconnect-viewer">Disconnect</button>`}</li>`;

function Disconnect({ session, viewer, onClose, onDone }) {
  const [busy, setBusy] = useState(false);
  const disconnect = async () => {
    setBusy(true);
    try {
      await call("POST", sessionPath(session.session_id, `/viewers/${encodeURIComponent(viewer.viewer_id)}:disconnect`), { body: {} });
      say(`The viewer of ${viewer.subject} is disconnected.`);
      onClose();
    } catch (error) {
      complain(error, { title: "Not disconnected" });
      setBusy(false);
    }
    onDone();
  };
  return html`<${Dialog} title="Disconnect this viewer?" onClose=${onClose} testid="disconnect-dialog">
    <p>The picture of <strong>${viewer.subject}</strong> (<code>${shortId(viewer.viewer_id)}</code>) ends, and the grant it came with is
      refused from now on. Whoever may see the session can get another one.</p>
    <div class="dialog-end"><button class="button" onClick=${onClose}>Cancel</button>
      <button class="button danger solid" disabled=${busy} onClick=${disconnect} data-testid="confirm-disconnect">Disconnect</button></div></${Dialog}>`;
}
