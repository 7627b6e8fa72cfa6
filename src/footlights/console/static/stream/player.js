// A WHEP player: one session's picture in, its viewer's input out. Independent of the console, and usable alone.
//
//   const player = new Player(video, async () => ({ whep_url, token, ice_servers }));
//   player.addEventListener("state", ({ detail }) => …);    // {state, reason, attempt}
//   player.addEventListener("stats", ({ detail }) => …);    // once a second while it plays
//   player.addEventListener("message", ({ detail }) => …);  // messages of the application on the data channel
//   player.start(); player.send({ type: "ping", t: 1 }); player.stop();
//
// WHEP is draft-ietf-wish-whep: POST an offer, 201 with the answer and a Location, DELETE that when done. There is no
// trickle: the offer is sent when gathering is complete, or after a second, whichever is first.

import { Attempts, ownOrigin, PlayerError, reachable } from "./attempts.js";

const CHANNEL = "footlights-input";
const GATHERING_LIMIT = 1000;
const ANSWER_LIMIT = 15_000;
const CONNECT_LIMIT = 12_000;
const PICTURE_LIMIT = 20_000;
const DISCONNECTED_FOR = 4000;
const ASKING_LIMIT = 2000;
const STATS_EVERY = 1000;

export class Player extends Attempts {
  #video;
  #connect;
  #peer = null;
  #channel = null;
  #resource = null;
  #roundTrip = null;

  /** `connect` is called for every attempt, because a grant expires soon. */
  constructor(video, connect) {
    super();
    this.#video = video;
    this.#connect = connect;
  }

  /** Send a message to the application; false if there is no channel, or it is full. */
  send(message) {
    if (this.#channel?.readyState !== "open" || this.#channel.bufferedAmount > 65_536) return false;
    this.#channel.send(JSON.stringify(message));
    return true;
  }

  /** Connect and play; returns the error that ended it. */
  async play(ending) {
    checkBrowser();
    const { whep_url: url, token, ice_servers: iceServers } = await this.#connect();
    if (ending.aborted) throw new PlayerError("stopped");
    if (!url) throw new PlayerError("This application offers no WHEP: clients of its own dial the routes of the session.", { final: true });
    const peer = new RTCPeerConnection({ iceServers: iceServers ?? [], bundlePolicy: "max-bundle" });
    this.#peer = peer;
    const lost = new Promise((resolve) => {
      watchPeer(peer, ending, resolve);
      this.#openChannel(peer, resolve);
    });
    const transceiver = peer.addTransceiver("video", { direction: "recvonly" });
    prefer(transceiver);
    const stream = new Promise((resolve) => peer.addEventListener("track", (event) => resolve(event)));

    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer);
    await peer.setRemoteDescription({ type: "answer", sdp: await this.#offer(url, token, peer.localDescription.sdp, ending) });
    const { track, receiver } = await Promise.race([stream, lost.then(raise)]);
    // Drawn as soon as it is there: this is a thing to be driven, not a film.
    if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
    this.#video.srcObject = new MediaStream([track]);
    const drawn = firstPicture(this.#video, ending);
    // A muted video may always play; where a page forbids even that, the first click starts it.
    this.#video.play().catch(() => undefined);
    await Promise.race([drawn, lost.then(raise)]);
    this.say("playing");
    this.#measure(peer, receiver);
    return lost;
  }

  async #offer(url, token, sdp, ending) {
    const limit = AbortSignal.any([ending, AbortSignal.timeout(ANSWER_LIMIT)]);
    const post = (address) =>
      fetch(address, {
        method: "POST",
        headers: { "Content-Type": "application/sdp", Authorization: `Bearer ${token}` },
        body: sdp,
        signal: limit,
        credentials: "omit",
      });
    const address = reachable(new URL(url, location.href));
    let response;
    try {
      response = await post(address).catch((error) => {
        // Behind a proxy the server may not know the name that the page was opened by.
        if (error.name !== "TypeError" || address.origin === location.origin) throw error;
        return post(ownOrigin(address));
      });
    } catch (error) {
      if (error.name === "TimeoutError") throw new PlayerError(`The application did not answer the offer within ${ANSWER_LIMIT / 1000} s.`);
      throw new PlayerError("The front door cannot be reached: the offer was not sent.");
    }
    if (response.status !== 201) throw new PlayerError(`The offer was refused: ${await refusal(response)}`);
    const location_ = response.headers.get("Location");
    this.#resource = location_ && { url: new URL(location_, response.url), token };
    return response.text();
  }

  #openChannel(peer, lost) {
    const channel = peer.createDataChannel(CHANNEL, { ordered: true });
    this.#channel = channel;
    // The first sign of an application that leaves. One that takes no input never opens the channel, and still plays.
    channel.addEventListener("open", () => {
      channel.addEventListener("close", () => lost(new PlayerError("The application closed the connection.")));
    });
    channel.addEventListener("message", ({ data }) => {
      let message;
      try {
        message = JSON.parse(data);
      } catch {
        return;
      }
      if (message.type === "pong") this.#roundTrip = performance.now() - message.t;
      this.emit("message", message);
    });
  }

  #measure(peer, receiver) {
    const read = reader(receiver);
    const timer = setInterval(async () => {
      if (peer.connectionState === "closed") return clearInterval(timer);
      this.send({ type: "ping", t: performance.now() });
      const stats = await read().catch(() => null);
      if (stats) this.emit("stats", { ...stats, roundTripMs: this.#roundTrip ?? stats.roundTripMs });
      return undefined;
    }, STATS_EVERY);
  }

  release({ keepalive }) {
    this.#channel = null;
    this.#peer?.close();
    this.#peer = null;
    const resource = this.#resource;
    this.#resource = null;
    if (resource) {
      // A lost DELETE costs nothing but the seconds until the application sees that the peer is gone.
      fetch(resource.url, { method: "DELETE", headers: { Authorization: `Bearer ${resource.token}` }, keepalive, credentials: "omit" })
        .catch(() => undefined);
    }
    return () => wasDisconnected(resource);
  }
}

/** Whether the viewer was disconnected by a call. */
async function wasDisconnected(resource) {
  if (!resource) return false;
  const headers = { Authorization: `Bearer ${resource.token}`, "Content-Type": "application/trickle-ice-sdpfrag" };
  try {
    const response = await fetch(resource.url, { method: "PATCH", headers, body: "", signal: AbortSignal.timeout(ASKING_LIMIT), credentials: "omit" });
    if (response.status !== 403) return false;
    const { details } = await response.json();
    return details.some(({ reason }) => reason === "VIEWER_DISCONNECTED");
  } catch {
    return false;
  }
}

function checkBrowser() {
  if (typeof RTCPeerConnection === "undefined") {
    throw new PlayerError("This browser has no WebRTC, or its administrator has turned it off.", { final: true });
  }
  const codecs = RTCRtpReceiver.getCapabilities?.("video")?.codecs;
  if (codecs && !codecs.some(({ mimeType }) => /h264|vp8/i.test(mimeType))) {
    throw new PlayerError("This browser decodes neither H.264 nor VP8.", { final: true });
  }
}

/** H.264 first, then VP8; what else there is (retransmission and the like) behind them. */
function prefer(transceiver) {
  const codecs = RTCRtpReceiver.getCapabilities?.("video")?.codecs;
  if (!codecs || !transceiver.setCodecPreferences) return;
  const rank = ({ mimeType, sdpFmtpLine = "" }) => {
    if (/h264/i.test(mimeType)) return sdpFmtpLine.includes("packetization-mode=1") ? 0 : 1;
    return /vp8/i.test(mimeType) ? 2 : 3;
  };
  transceiver.setCodecPreferences(codecs.toSorted((one, other) => rank(one) - rank(other)));
}

function gathered(peer) {
  if (peer.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, GATHERING_LIMIT);
    peer.addEventListener("icegatheringstatechange", () => {
      if (peer.iceGatheringState !== "complete") return;
      clearTimeout(timer);
      resolve();
    });
  });
}

/** Resolve with an error as soon as the peer is not, or no longer, connected. */
function watchPeer(peer, ending, resolve) {
  const noPath = new PlayerError("No media connection: UDP between this browser and the node's media port is blocked.");
  let timer = setTimeout(() => peer.connectionState !== "connected" && resolve(noPath), GATHERING_LIMIT + ANSWER_LIMIT + CONNECT_LIMIT);
  ending.addEventListener("abort", () => clearTimeout(timer), { once: true });
  peer.addEventListener("connectionstatechange", () => {
    clearTimeout(timer);
    if (peer.connectionState === "failed") resolve(noPath);
    else if (peer.connectionState === "closed") resolve(new PlayerError("The application closed the connection."));
    else if (peer.connectionState === "disconnected") {
      timer = setTimeout(() => resolve(new PlayerError("The connection to the application was lost.")), DISCONNECTED_FOR);
    } else if (peer.connectionState === "connecting") timer = setTimeout(() => resolve(noPath), CONNECT_LIMIT);
  });
}

function firstPicture(video, ending) {
  return new Promise((resolve, reject) => {
    const missing = new PlayerError(`No picture was received within ${PICTURE_LIMIT / 1000} s.`);
    const timer = setTimeout(() => reject(missing), PICTURE_LIMIT);
    const done = () => {
      clearTimeout(timer);
      resolve();
    };
    ending.addEventListener("abort", done, { once: true });
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(done);
    else video.addEventListener("loadeddata", done, { once: true });
  });
}

/** A reader of what passed since it was last called. */
function reader(receiver) {
  let before = null;
  return async () => {
    const report = await receiver.getStats();
    const all = [...report.values()];
    const inbound = all.find(({ type, kind }) => type === "inbound-rtp" && kind === "video");
    if (!inbound) return null;
    const pair = all.find(({ type, nominated, state }) => type === "candidate-pair" && nominated && state === "succeeded");
    const earlier = before ?? { timestamp: inbound.timestamp - 1000 };
    const since = (name) => (inbound[name] ?? 0) - (earlier[name] ?? inbound[name] ?? 0);
    const elapsed = Math.max(1, inbound.timestamp - earlier.timestamp) / 1000;
    before = inbound;
    const each = (total, number) => (since(number) > 0 ? (since(total) / since(number)) * 1000 : null);
    return {
      fps: Math.round(since("framesDecoded") / elapsed) || Math.round(inbound.framesPerSecond ?? 0),
      width: inbound.frameWidth ?? 0,
      height: inbound.frameHeight ?? 0,
      codec: (report.get(inbound.codecId)?.mimeType ?? "").replace(/^video\//, ""),
      bitsPerSecond: (since("bytesReceived") * 8) / elapsed,
      packetsLost: inbound.packetsLost ?? 0,
      framesDropped: inbound.framesDropped ?? 0,
      framesDecoded: inbound.framesDecoded ?? 0,
      roundTripMs: pair?.currentRoundTripTime === undefined ? null : pair.currentRoundTripTime * 1000,
      bufferMs: each("jitterBufferDelay", "jitterBufferEmittedCount"),
      decodeMs: each("totalDecodeTime", "framesDecoded"),
    };
  };
}

async function refusal(response) {
  const text = await response.text().catch(() => "");
  try {
    const body = JSON.parse(text);
    return (body.error ?? body).message ?? `HTTP ${response.status}`;
  } catch {
    return text.trim().slice(0, 200) || `HTTP ${response.status}`;
  }
}

function raise(error) {
  throw error;
}
