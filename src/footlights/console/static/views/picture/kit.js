// The picture of an application that speaks NVIDIA's signalling only: by NVIDIA's library where the operator provides it,
// else what to paste where that library is.
import { call, sessionPath } from "../../api/api.js";
import { html, useEffect, useRef, useState } from "../../ui/html.js";
import { moment } from "../../ui/format.js";
import { Icon } from "../../ui/icons.js";
import { KitPlayer } from "../../stream/kit.js";
import { Connecting } from "./connecting.js";
import { appStreamerCode } from "./code.js";
import { Snippet } from "./snippet.js";

const PAGE = document.querySelector('meta[name="kit-library"]').content;

/** `first` is the first answer of `:connect`, by which it was found out that there is no WHEP. */
export const Kit = ({ id, first }) => (PAGE ? html`<${KitPicture} id=${id} first=${first} />` : html`<${Paste} id=${id} first=${first} />`);

const connect = (id) => call("POST", sessionPath(id, ":connect"), { body: {} });

function KitPicture({ id, first }) {
  const stage = useRef(null);
  const host = useRef(null);
  const given = useRef(first);
  const [round, setRound] = useState(0);
  const [status, setStatus] = useState({ state: "connecting", reason: "", attempt: 1 });
  const [stats, setStats] = useState(null);
  const [figures, setFigures] = useState(true);

  useEffect(() => {
    // A grant opens a first connection for a few minutes only: each attempt asks for one, the first one has it.
    const player = new KitPlayer(host.current, new URL(PAGE, document.baseURI).href, () => {
      const answer = given.current ?? connect(id);
      given.current = null;
      return answer;
    });
    player.addEventListener("state", ({ detail }) => {
      setStatus(detail);
      if (detail.state !== "playing") setStats(null);
    });
    player.addEventListener("stats", ({ detail }) => setStats(detail));
    player.start();
    return () => player.stop();
  }, [id, round]);

  const plays = status.state === "playing";
  const whole = () => (document.fullscreenElement ? document.exitFullscreen() : stage.current.requestFullscreen()).catch(() => undefined);
  return html`<div ref=${stage} class=${`stage picture kit ${plays ? "plays" : ""}`} data-testid="picture" data-state=${status.state}>
    <div ref=${host} class="kit-host" data-testid="kit-frame"></div>
    ${!plays && html`<${Connecting} status=${status} onRetry=${() => setRound(round + 1)} />`}
    ${plays && html`<div class="picture-tools">
      ${figures && html`<span class="figures" data-testid="stream-stats">${stats ? html`<b>${stats.fps}</b> fps<i></i>${stats.width}×${stats.height}` : "…"}</span>`}
      <button class="tool" aria-pressed=${figures} title="Figures" aria-label="Figures" onClick=${() => setFigures(!figures)}><${Icon} name="gauge" /></button>
      <button class="tool" title="Full screen" aria-label="Full screen" onClick=${whole} data-testid="full-screen"><${Icon} name="expand" /></button>
    </div>`}
  </div>`;
}

/** What to paste, with the grant in it: this page is where its user would look for the picture. */
function Paste({ id, first }) {
  const [answer, setAnswer] = useState(first);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState("");
  const again = async () => {
    setBusy(true);
    setProblem("");
    try {
      setAnswer(await connect(id));
    } catch (error) {
      setProblem(error.message);
    }
    setBusy(false);
  };
  return html`<div class="stage waiting paste" data-testid="kit-paste">
    <h2>Watch it with NVIDIA's player</h2>
    <p class="waiting-why">The application streams by NVIDIA's signalling, which no browser speaks by itself, and NVIDIA's library is not part
      of Footlights. Paste this into a page that has it, or start the server with <code>--kit-library DIR</code> to play it here.</p>
    <div class="paste-code"><${Snippet} text=${appStreamerCode(answer)} testid="kit-code" /></div>
    <p class="dim">It lets one viewer in, first until ${moment(answer.expire_time)}, and then again until the session ends: do not publish it.</p>
    ${problem && html`<p class="waiting-why" role="alert">${problem}</p>`}
    <button class="button on-dark" onClick=${again} disabled=${busy} data-testid="kit-again"><${Icon} name="again" /> Get one for another viewer</button>
  </div>`;
}
