// The same without this page: the calls behind it, filled in for this session.
import { apiAddress } from "../../api/api.js";
import { html } from "../../ui/html.js";
import { Copy, Dialog } from "../../ui/parts.js";

export function Embed({ session, onClose }) {
  const address = apiAddress();
  const { application, application_version, application_arguments } = session;
  const body = JSON.stringify({ application, application_version, application_arguments });
  const auth = '-H "Authorization: Bearer $TOKEN"';
  const start = `curl ${auth} -H 'Content-Type: application/json' \\\n  -d '${body.replaceAll("'", "'\\''")}' \\\n  '${address}/sessions'`;
  const connect = `curl -X POST ${auth} \\\n  '${address}/sessions/${session.session_id}:connect'`;
  return html`<${Dialog} title="Embed this in your own page" onClose=${onClose} testid="embed-dialog" wide>
    <h3>Start a session like this one</h3><${Snippet} text=${start} />
    <h3>Get a grant for a viewer, on your own server: never send the API token to a browser</h3><${Snippet} text=${connect} />
    <h3>Play it in the browser with that grant, with any WHEP player</h3><${Snippet} text=${PLAY} />
    <div class="dialog-end"><button class="button primary" onClick=${onClose}>Done</button></div></${Dialog}>`;
}

const Snippet = ({ text }) => html`<div class="snippet"><pre tabindex="0">${text}</pre><${Copy} text=${text}><span></span></${Copy}></div>`;

const PLAY = `// { whep_url, token, ice_servers } is the answer to :connect, passed on by your server.
const peer = new RTCPeerConnection({ iceServers: ice_servers });
peer.addTransceiver("video", { direction: "recvonly" });
const input = peer.createDataChannel("footlights-input");
// input.send('{"type":"pointer","action":"down","x":0.5,"y":0.5,"button":0,"buttons":1}')
peer.ontrack = ({ track }) => { video.srcObject = new MediaStream([track]); video.play(); };
await peer.setLocalDescription(await peer.createOffer());
await new Promise((done) => {
  if (peer.iceGatheringState === "complete") done();
  else peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && done();
});
const answer = await fetch(whep_url, {
  method: "POST",
  headers: { "Content-Type": "application/sdp", Authorization: \`Bearer \${token}\` },
  body: peer.localDescription.sdp,
});
await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
// When done: DELETE the answer's Location, with the same token.`;
