// A stand-in for NVIDIA's streaming library, written from the public facts of its interface and of recorded signalling; no
// code of it. `AppStreamer.connect` dials as that player does, answers the handshake of a Kit, and shows a picture that it
// draws itself, since it has no media. What it gets at, as code of somebody else, is in `globalThis.attempts`, for tests.

export const StreamType = { DIRECT: "direct" };

const HEARTBEAT = 5000;

class Stream {
  constructor(config) {
    this.config = config;
    this.name = `peer-${Math.floor(Math.random() * 9e9 + 1e9)}`;
    this.ended = false;
  }

  get url() {
    const { signalingServer, signalingPort, signalingPath = "", signalingQuery = "", forceWSS } = this.config;
    const scheme = forceWSS || signalingPort === 443 ? "wss" : "ws";
    const query = `${signalingQuery}${signalingQuery ? "&" : ""}peer_id=${this.name}&version=2`;
    return `${scheme}://${signalingServer}:${signalingPort}${signalingPath}/sign_in?${query}`;
  }

  get protocols() {
    const { sessionId, authenticate, accessToken } = this.config;
    return [...(sessionId ? [`x-nv-sessionid.${sessionId}`] : []), ...(authenticate ? [`Authorization-Bearer.${accessToken}`] : [])];
  }

  open() {
    this.socket = new WebSocket(this.url, this.protocols);
    this.socket.onmessage = ({ data }) => this.take(JSON.parse(data));
    this.socket.onclose = ({ code, reason }) => this.end(reason || `The signalling was closed (${code}).`);
    this.beat = setInterval(() => this.say({ hb: 1 }), HEARTBEAT);
  }

  say(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  take(message) {
    if (message.ackid) this.say({ ack: message.ackid });
    if (!message.peer_msg) return;
    const offer = JSON.parse(message.peer_msg.msg);
    if (offer.type !== "offer") return;
    this.say({ peer_msg: { from: 3, to: message.peer_msg.from, msg: JSON.stringify({ type: "answer", sdp: offer.sdp, nvstSdp: "" }) } });
    this.show();
  }

  show() {
    const { videoElementId, onStart } = this.config;
    const video = document.getElementById(videoElementId);
    const canvas = Object.assign(document.createElement("canvas"), { width: 640, height: 360 });
    const pen = canvas.getContext("2d");
    let hue = 0;
    this.drawing = setInterval(() => {
      hue += 2;
      pen.fillStyle = `hsl(${hue} 60% 45%)`;
      pen.fillRect(0, 0, canvas.width, canvas.height);
      pen.fillStyle = "white";
      pen.font = "28px sans-serif";
      pen.fillText(`Stand-in Kit, media of ${this.config.mediaServer}:${this.config.mediaPort}`, 30, 190);
    }, 40);
    video.srcObject = canvas.captureStream(25);
    onStart?.({ action: "start", status: "success", info: "" });
  }

  end(reason) {
    if (this.ended) return;
    this.ended = true;
    clearInterval(this.beat);
    clearInterval(this.drawing);
    this.socket.close();
    this.config.onStop?.({ action: "stop", status: "error", info: reason });
  }
}

let stream = null;

export const AppStreamer = {
  async connect({ streamSource, streamConfig }) {
    if (streamSource !== StreamType.DIRECT) throw { action: "start", status: "error", info: `unknown source ${streamSource}` };
    // NVIDIA's library keeps settings.
    localStorage.setItem("stand-in", sessionStorage.length);
    document.cookie = "stand-in=1";
    stream = new Stream(streamConfig);
    if (parent !== window) globalThis.attempts = await attempts();
    stream.open();
    return { action: "start", status: "inProgress", info: "" };
  },
  sendMessage(text) {
    const { event_type: type, payload } = JSON.parse(text);
    // What a USD Viewer says, whose stage is here `globalThis.stage`.
    if (type === "openStageRequest") globalThis.stage = payload.url;
    const loading = { event_type: "loadingStateResponse", payload: { url: globalThis.stage ?? "", loading_state: "idle" } };
    if (type === "loadingStateQuery") setTimeout(() => stream.config.onCustomEvent?.(loading));
  },
  terminate: async () => stream?.end("terminated"),
};

/** What this code, which is somebody else's, gets at: each entry is refused, or what was got. */
async function attempts() {
  const tried = {};
  const attempt = async (name, action) => {
    try {
      tried[name] = String(await action());
    } catch (error) {
      tried[name] = `refused: ${error.name}`;
    }
  };
  await attempt("origin", () => origin);
  await attempt("page", () => parent.document.title);
  await attempt("token", () => parent.sessionStorage.getItem("footlights.token"));
  await attempt("own storage", () => sessionStorage.getItem("footlights.token"));
  await attempt("elsewhere", () => fetch("http://127.0.0.2:9/telemetry"));
  await attempt("api", async () => (await fetch(new URL("/v1/sessions", import.meta.url))).status);
  await attempt("window", () => window.open("about:blank"));
  await attempt("top", () => {
    top.location.href = "about:blank";
    return "led elsewhere";
  });
  return tried;
}
