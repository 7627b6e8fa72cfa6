// The same without this page: the calls behind it, filled in for this session.
import { apiAddress, call } from "../../api/api.js";
import { html } from "../../ui/html.js";
import { Loaded, useRead } from "../../ui/load.js";
import { Dialog } from "../../ui/parts.js";
import { streamer, WHEP } from "./code.js";
import { Snippet } from "./snippet.js";

export function Embed({ session, onClose }) {
  const address = apiAddress();
  const { application, application_version, application_arguments, profile } = session;
  const recipe = `/applications/${encodeURIComponent(application)}/versions/${encodeURIComponent(application_version)}`;
  const version = useRead((signal) => call("GET", recipe, { signal }), [recipe]);
  const body = JSON.stringify({ application, application_version, application_arguments, profile: profile || undefined });
  const auth = '-H "Authorization: Bearer $TOKEN"';
  const start = `curl ${auth} -H 'Content-Type: application/json' \\\n  -d '${body.replaceAll("'", "'\\''")}' \\\n  '${address}/sessions'`;
  const connect = `curl -X POST ${auth} \\\n  '${address}/sessions/${session.session_id}:connect'`;
  return html`<${Dialog} title="Embed this in your own page" onClose=${onClose} testid="embed-dialog" wide>
    <h3>Start a session like this one</h3><${Snippet} text=${start} />
    <h3>Get a grant for a viewer, on your own server: never send the API token to a browser</h3><${Snippet} text=${connect} />
    <${Loaded} of=${version} rows=${2}>${({ signaling, stage_delivery: stage }) => html`<${Play} signaling=${signaling ?? {}} asks=${stage?.method === "MESSAGE"} />`}</${Loaded}>
    <div class="dialog-end"><button class="button primary" onClick=${onClose}>Done</button></div></${Dialog}>`;
}

/** How it is played, by what its version speaks. */
const Play = ({ signaling: { whep_path: whep, websocket_path: websocket }, asks }) => html`
  ${whep && html`<h3>Play it in the browser with that grant, with any WHEP player</h3><${Snippet} text=${WHEP} testid="whep-code" />`}
  ${websocket && html`<h3>Play it in the browser with NVIDIA's library</h3><${Snippet} text=${streamer(asks)} testid="kit-code" />`}
  ${!whep && !websocket && html`<p class="hint" data-testid="direct">This application names no signalling: its own clients dial the routes that the session shows.</p>`}`;
