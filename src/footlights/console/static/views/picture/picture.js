// The live picture of a session, and the hand on it.
import { call, identity, sessionPath } from "../../api/api.js";
import { useNow } from "../../ui/clock.js";
import { span } from "../../ui/format.js";
import { html, useEffect, useRef, useState } from "../../ui/html.js";
import { Icon } from "../../ui/icons.js";
import { Input } from "../../stream/input.js";
import { Player } from "../../stream/player.js";
import { Connecting } from "./connecting.js";
import { Kit } from "./kit.js";

const NOTICE_FOR = 4000;
const MOST_LEFT_OUT = 50;
const STILL_AFTER = 3;

export function Picture({ session }) {
  // Some applications show their picture only to the newest viewer, so another user's session is not connected at once.
  const [wanted, setWanted] = useState(session.username === identity.value.caller?.subject);
  if (!wanted) {
    return html`<div class="stage waiting"><h2>Running</h2>
      <p class="waiting-why">This session belongs to ${session.username}. Connecting may disconnect them.</p>
      <button class="button on-dark" onClick=${() => setWanted(true)} data-testid="watch"><${Icon} name="play" /> Connect anyway</button></div>`;
  }
  return html`<${Playing} id=${session.session_id} />`;
}

/** By WHEP, or, where the application speaks only NVIDIA's signalling, by NVIDIA's player. */
function Playing({ id }) {
  const [first, setFirst] = useState(null);
  return first ? html`<${Kit} id=${id} first=${first} />` : html`<${Whep} id=${id} onOther=${setFirst} />`;
}

function Whep({ id, onOther }) {
  const frame = useRef(null);
  const surface = useRef(null);
  const video = useRef(null);
  const keyboard = useRef(null);
  const input = useRef(null);
  const player = useRef(null);
  const [round, setRound] = useState(0);
  const [status, setStatus] = useState({ state: "connecting", reason: "", attempt: 1 });
  const [stats, setStats] = useState(null);
  const [hello, setHello] = useState(null);
  const [notice, setNotice] = useState("");
  const [ending, setEnding] = useState(null);
  const [controls, setControls] = useState(false);
  const [figures, setFigures] = useState(true);
  const [types, setTypes] = useState(false);

  useEffect(() => {
    const playing = new Player(video.current, async () => {
      const answer = await call("POST", sessionPath(id, ":connect"), { body: {} });
      if (!answer.whep_url && answer.app_streamer?.signalingServer) onOther(answer);
      return answer;
    });
    const hand = new Input({ surface: surface.current, video: video.current, keyboard: keyboard.current, send: (message) => playing.send(message) });
    player.current = playing;
    input.current = hand;
    playing.addEventListener("state", ({ detail }) => {
      setStatus(detail);
      if (detail.state !== "playing") setStats(null);
    });
    let still = 0;
    playing.addEventListener("stats", ({ detail }) => {
      setStats(detail);
      still = detail.fps === 0 ? still + 1 : 0;
      if (still >= STILL_AFTER) setNotice(`No new picture for ${still} s`);
    });
    playing.addEventListener("message", ({ detail }) => {
      if (detail.type === "hello") setHello(detail);
      if (detail.type === "notice") {
        // A notice with a reason stays until it is withdrawn; one without is a remark, or withdraws the last one.
        setEnding(detail.reason ? { message: String(detail.message ?? ""), at: endOf(detail) } : null);
        if (!detail.reason) setNotice(String(detail.message ?? ""));
      }
    });
    hand.addEventListener("control", ({ detail }) => setControls(detail));
    playing.start();
    return () => {
      hand.end();
      playing.stop();
    };
  }, [id, round]);

  useEffect(() => {
    const timer = notice ? setTimeout(() => setNotice(""), NOTICE_FOR) : 0;
    return () => clearTimeout(timer);
  }, [notice]);

  const plays = status.state === "playing";
  const whole = () => (document.fullscreenElement ? document.exitFullscreen() : frame.current.requestFullscreen()).catch(() => undefined);
  // A tap on the picture must not open a tablet's keyboard: it opens only on request.
  const type = () => {
    keyboard.current.blur();
    keyboard.current.inputMode = types ? "none" : "text";
    setTypes(!types);
    if (!types) keyboard.current.focus();
  };
  return html`<div ref=${frame} class=${`stage picture ${plays ? "plays" : ""} ${controls ? "controls" : ""}`} data-testid="picture" data-state=${status.state}>
    <div ref=${surface} class="surface" data-testid="surface">
      <video ref=${video} data-testid="stream-video" autoplay muted playsinline disablepictureinpicture
        aria-label=${hello?.title ? `Live picture: ${hello.title}` : "Live picture"}></video>
      <textarea ref=${keyboard} class="keyboard" data-testid="keyboard" rows="1" autocapitalize="off" autocomplete="off" autocorrect="off" spellcheck=${false}
        inputmode=${types ? "text" : "none"} aria-label="Control the application. It receives the keys; Escape releases them."></textarea>
    </div>
    ${!plays && html`<${Connecting} status=${status} onRetry=${() => setRound(round + 1)} />`}
    ${plays && html`<span class="hint-chip" aria-hidden="true">${controls ? "Esc to release" : "Click to control"}</span>`}
    ${plays && ending && html`<${Ending} ...${ending} />`}
    ${notice && html`<span class="notice-chip" role="status">${notice}</span>`}
    <div class="picture-tools">
      ${plays && Array.isArray(hello?.left_out) && html`<${LeftOut} items=${hello.left_out} />`}
      ${plays && figures && html`<${Stats} stats=${stats} />`}
      ${plays && html`<button class="tool touch-only" aria-pressed=${types} title="On-screen keyboard" aria-label="On-screen keyboard" onClick=${type}><${Icon} name="keyboard" /></button>
        <button class="tool" aria-pressed=${figures} title="Figures" aria-label="Figures" onClick=${() => setFigures(!figures)}><${Icon} name="gauge" /></button>
        <button class="tool" title="Full screen" aria-label="Full screen" onClick=${whole} data-testid="full-screen"><${Icon} name="expand" /></button>`}
    </div>
  </div>`;
}

/** When the session ends, on this page's own clock, which no setting of the time moves; null where that is not said. */
const endOf = ({ ends_in_seconds: left }) => (typeof left === "number" && left >= 0 ? performance.now() + left * 1000 : null);

/** What of the application's content is not shown as authored, as it says in its hello; what makes no sense there is passed over. */
function LeftOut({ items }) {
  const kinds = items.filter((item) => typeof item?.what === "string").slice(0, MOST_LEFT_OUT);
  if (!kinds.length) return null;
  const lines = kinds.map(({ what, count, first }) => `${what}${count > 1 ? `: ${count}` : ""}${typeof first === "string" && first ? ` (first: ${first})` : ""}`);
  return html`<details class="left-out" data-testid="left-out"><summary title="Some content is not shown as authored"><${Icon} name="warning" /> ${lines.length}</summary>
    <ul>${lines.map((line) => html`<li>${line}</li>`)}</ul></details>`;
}

function Ending({ message, at }) {
  useNow({ slow: true, running: at !== null });
  return html`<div class="ending-banner" role="status" data-testid="viewer-notice"><${Icon} name="warning" />
    <span>${at !== null && html`<b>Ends in ${span((at - performance.now()) / 1000)}.</b> `}${message}</span></div>`;
}

function Stats({ stats }) {
  if (!stats) return html`<span class="figures" data-testid="stream-stats">…</span>`;
  const latency = [stats.roundTripMs === null ? null : stats.roundTripMs / 2, stats.bufferMs, stats.decodeMs].filter((part) => part !== null);
  const sum = latency.reduce((total, part) => total + part, 0);
  const ms = (value) => (value === null ? "?" : Math.round(value));
  return html`<span class="figures" data-testid="stream-stats"
      title=${`Half the round trip (${ms(stats.roundTripMs)} ms), buffer ${ms(stats.bufferMs)} ms, decoding ${ms(stats.decodeMs)} ms. ${stats.packetsLost} packets lost, ${stats.framesDropped} pictures dropped.`}>
    <b>${stats.fps}</b> fps<i></i><b>${Math.round(sum)}</b> ms<i></i>${stats.width}×${stats.height}<i></i>${stats.codec}<i></i><b>${(stats.bitsPerSecond / 1e6).toFixed(1)}</b> Mb/s</span>`;
}
