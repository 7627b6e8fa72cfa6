// Code for pages of others: how they play a session, by WHEP or by NVIDIA's library.

/** NVIDIA's library with everything that it must be told; `config` is `app_streamer` of an answer of `:connect`. */
export const appStreamerCode = (config) => streamerCode(JSON.stringify(config, Object.keys(config).toSorted(), 2));

const streamerCode = (config) => `import { AppStreamer } from "@nvidia/omniverse-webrtc-streaming-library";

// The page has <video id="remote-video" muted autoplay playsinline></video>
// and <audio id="remote-audio" muted></audio>.
const connection = ${config};

await AppStreamer.connect({
  streamSource: "direct",
  streamConfig: {
    ...connection,
    videoElementId: "remote-video",
    audioElementId: "remote-audio",
    nativeTouchEvents: true,
    onStart: ({ status }) => status === "success" && document.getElementById("remote-video").play(),
    onStop: (event) => console.log("The stream stopped.", event.info),
    onTerminate: (event) => console.log("The application ended the stream.", event.info),
  },
});
`;

/** The same, where a server of one's own passes the answer of `:connect` on. */
export const STREAMER = `// { app_streamer } is the answer to :connect, passed on by your server.
${streamerCode("app_streamer")}`;

/** For any browser, without a library. */
export const WHEP = `// { whep_url, token, ice_servers } is the answer to :connect, passed on by your server.
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
