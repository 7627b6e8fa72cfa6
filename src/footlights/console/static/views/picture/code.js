// Code for pages of others: how they play a session, by WHEP or by NVIDIA's library.

/** NVIDIA's library with everything that it must be told, for an answer of `:connect`. */
export const appStreamerCode = ({ app_streamer: config, usd_stage_uri: stage }) =>
  streamerCode(JSON.stringify(config, Object.keys(config).toSorted(), 2), stage ? JSON.stringify(stage) : "");

/** The same, where a server of one's own passes the answer on; `asks`: the stage is opened by a message of the client. */
export const streamer = (asks) => `// { app_streamer${asks ? ", usd_stage_uri" : ""} } is the answer to :connect, passed on by your server.
${streamerCode("app_streamer", asks ? "usd_stage_uri" : "")}`;

const streamerCode = (config, stage) => `import { AppStreamer } from "@nvidia/omniverse-webrtc-streaming-library";

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
    onStart: ({ status }) => {
      if (status !== "success") return;
      document.getElementById("remote-video").play();${stage && `
      AppStreamer.sendMessage(JSON.stringify({ event_type: "openStageRequest", payload: { url: ${stage} } }));`}
    },
    onStop: (event) => console.log("The stream stopped.", event.info),
    onTerminate: (event) => console.log("The application ended the stream.", event.info),
  },
});
`;

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
