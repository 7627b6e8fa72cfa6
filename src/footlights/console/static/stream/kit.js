// Plays a session by NVIDIA's streaming library, in a frame of its own: `kit/frame.html`, which has no origin. The library
// is not ours, so it gets a grant for this one session and nothing else: no token, no storage, no other server.
//
//   const player = new KitPlayer(host, page, async () => answerOfConnect);
//
// `host` is the element that the frame is put into, `page` the frame's address. Events: those of `Attempts`.

import { Attempts, ownOrigin, PlayerError, reachable } from "./attempts.js";
import { askForStage } from "./stage.js";

// The front door waits some seconds itself for a viewer that has just left.
const ASKING_LIMIT = 8000;
const LOADING_LIMIT = 20_000;
const PICTURE_LIMIT = 90_000;
const LONGEST_REASON = 300;

const SAYS = {
  401: "The grant was refused.",
  404: "The session cannot be connected to by NVIDIA's player.",
  409: "The session has no picture now.",
  429: "The application takes no more viewers: wait until somebody leaves, or have them disconnected.",
};
const DISCONNECTED = 403;

export class KitPlayer extends Attempts {
  #host;
  #page;
  #connect;
  #frame = null;
  #port = null;
  #asked = null;
  #asking = () => undefined;

  constructor(host, page, connect) {
    super();
    this.#host = host;
    this.#page = page;
    this.#connect = connect;
  }

  /** Send a message to the application, on the data channel of its stream; false while there is none. */
  send(message) {
    if (!this.#port) return false;
    this.#port.postMessage({ message });
    return true;
  }

  async play(ending) {
    const { app_streamer: config, signaling_url: url, token, usd_stage_uri: stage } = await this.#connect();
    if (!config?.signalingServer) throw new PlayerError("This application cannot be played by NVIDIA's player.", { final: true });
    this.#asked = { url: asHttp(url), token };
    const door = await find(this.#asked, ending);
    if (ending.aborted) throw new PlayerError("stopped");
    const frame = Object.assign(document.createElement("iframe"), {
      src: this.#page,
      title: "Live picture",
      allow: "autoplay; gamepad",
    });
    frame.setAttribute("sandbox", "allow-scripts allow-pointer-lock");
    this.#frame = frame;
    const loaded = new Promise((resolve) => frame.addEventListener("load", resolve, { once: true }));
    this.#host.append(frame);
    await Promise.race([loaded, over(LOADING_LIMIT, "The page around NVIDIA's library was not loaded.", ending)]);
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    const end = this.#listen(port1);
    // The frame has no origin that could be named here; it is ours, and may not lead elsewhere.
    frame.contentWindow.postMessage({ ...config, ...placeOf(door) }, "*", [port2]);
    const drawn = new Promise((resolve) => this.addEventListener("drawn", resolve, { once: true }));
    const late = over(PICTURE_LIMIT, `No picture within ${PICTURE_LIMIT / 1000} s: UDP to the node's media port may be blocked.`, ending);
    await Promise.race([drawn, late, end.then(raise)]);
    this.say("playing");
    if (stage) this.#asking = askForStage(this, stage);
    return end;
  }

  /** What the frame says; resolves with the error that ended it. Nothing that it says is more than text here. */
  #listen(port) {
    return new Promise((resolve) => {
      port.onmessage = ({ data }) => {
        if (data?.type === "started") this.emit("drawn");
        else if (data?.type === "stats") this.emit("stats", { fps: whole(data.fps), width: whole(data.width), height: whole(data.height) });
        else if (data?.type === "message") this.emit("message", data.message);
        else if (data?.type === "ended") {
          const reason = typeof data.reason === "string" ? data.reason.slice(0, LONGEST_REASON) : "";
          resolve(new PlayerError(reason || "The stream ended.", { final: data.final === true }));
        }
      };
    });
  }

  release() {
    const asked = this.#asked;
    this.#asking();
    this.#port?.close();
    this.#frame?.remove();
    this.#port = this.#frame = this.#asked = null;
    return async () => Boolean(asked) && (await look(asked.url, asked.token).catch(() => 0)) === DISCONNECTED;
  }
}

/** Where the front door answers that a viewer may be connected: where the server says, or where this page is from. */
async function find(asked, ending) {
  const addresses = new Set([reachable(asked.url).href, ownOrigin(asked.url).href]);
  for (const address of [...addresses].map((href) => new URL(href))) {
    const status = await look(address, asked.token, ending).catch(() => 0);
    asked.url = address;
    if (status === 200) return address;
    if (status === DISCONNECTED) throw new PlayerError("You were disconnected from this session.", { final: true });
    if (status) throw new PlayerError(SAYS[status] ?? `The front door answered ${status}.`);
  }
  throw new PlayerError("The front door cannot be reached.");
}

async function look(address, token, ending) {
  const signal = AbortSignal.any([AbortSignal.timeout(ASKING_LIMIT), ...(ending ? [ending] : [])]);
  const headers = { Authorization: `Bearer ${token}` };
  return (await fetch(address, { method: "HEAD", headers, signal, credentials: "omit", cache: "no-store" })).status;
}

const asHttp = (url) => new URL(url.replace(/^ws/, "http"));

/** An address as the library's members name it. */
function placeOf({ protocol, hostname, port, pathname }) {
  const secure = protocol === "https:";
  return {
    signalingServer: hostname,
    signalingPort: Number(port) || (secure ? 443 : 80),
    signalingPath: pathname.replace(/\/sign_in$/, ""),
    forceWSS: secure,
  };
}

function over(ms, reason, ending) {
  return new Promise((_, reject) => {
    const timer = setTimeout(() => reject(new PlayerError(reason)), ms);
    ending.addEventListener("abort", () => clearTimeout(timer), { once: true });
  });
}

const whole = (value) => (Number.isFinite(value) ? Math.round(value) : 0);

function raise(error) {
  throw error;
}
