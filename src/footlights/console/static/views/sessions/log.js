// The application's own output, as it is written.
import { call, follow, sessionPath } from "../../api/api.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "../../ui/html.js";
import { count } from "../../ui/format.js";
import { Copy } from "../../ui/parts.js";
import { hasEnded } from "../../api/watch.js";

const MOST = 5000;
const FIRST = 500;
const DELAY = 2000;

export function Log({ session }) {
  const { lines, truncated, problem } = useLog(session);
  const [wrap, setWrap] = useState(false);
  const [follows, setFollows] = useState(true);
  const frame = useRef(null);
  useLayoutEffect(() => {
    if (follows) frame.current.scrollTop = frame.current.scrollHeight;
  }, [lines, follows, wrap]);
  const scrolled = () => {
    const { scrollTop, scrollHeight, clientHeight } = frame.current;
    setFollows(scrollHeight - scrollTop - clientHeight < 24);
  };
  return html`<section class="card log" aria-label="Log">
    <div class="log-head"><h2>Log</h2><span class="faint">${lines.length > 0 ? count(lines.length, "line") : ""}${truncated ? ", earlier lines omitted" : ""}</span>
      <span class="log-tools">
        <button class="chip" aria-pressed=${wrap} onClick=${() => setWrap(!wrap)}>Wrap</button>
        <button class="chip" aria-pressed=${follows} onClick=${() => setFollows(true)}>Follow</button>
        ${lines.length > 0 && html`<${Copy} text=${lines.join("\n")} label="Copy the log"><span></span></${Copy}>`}
      </span></div>
    <pre ref=${frame} class=${`log-lines ${wrap ? "wrap" : ""}`} tabindex="0" onScroll=${scrolled} data-testid="log">${
      lines.length ? lines.join("\n") : html`<span class="faint">${problem || (session.state === "PENDING" ? "The output appears here when the application runs." : "No output yet.")}</span>`}</pre>
  </section>`;
}

/** The lines so far. They are kept outside of the state and shown together: an application may write thousands a second. */
function useLog(session) {
  const [shown, setShown] = useState({ lines: [], truncated: false, problem: "" });
  const ended = hasEnded(session);
  // Before that there is nothing to read: the server would have to refuse.
  const placed = ended || (session.timeline ?? []).some(({ stage }) => stage === "PROCESS_UP");
  useEffect(() => {
    if (!placed) return undefined;
    const ending = new AbortController();
    let lines = [];
    let truncated = false;
    let timer = 0;
    const show = (problem = "") => {
      clearTimeout(timer);
      timer = 0;
      setShown({ lines, truncated, problem });
    };
    const add = (part) => {
      truncated ||= Boolean(part.truncated) || lines.length + (part.lines?.length ?? 0) > MOST;
      lines = [...lines, ...(part.lines ?? [])].slice(-MOST);
      if (!timer) timer = setTimeout(show, 100);
    };
    const run = async () => {
      if (ended) return add(await call("GET", sessionPath(session.session_id, "/log"), { query: { tail_lines: MOST }, signal: ending.signal }));
      while (!ending.signal.aborted) {
        // Every attempt begins with the lines that are there.
        lines = [];
        truncated = false;
        await follow(sessionPath(session.session_id, ":tailLog"), { query: { tail_lines: FIRST }, signal: ending.signal, onMessage: add });
        await new Promise((resolve) => setTimeout(resolve, DELAY));
      }
      return undefined;
    };
    const attempt = () => run().catch((error) => {
      if (ending.signal.aborted) return;
      show(error.message);
      if (!ended && error.status !== 401) setTimeout(() => !ending.signal.aborted && attempt(), DELAY);
    });
    attempt();
    return () => {
      ending.abort();
      clearTimeout(timer);
    };
  }, [session.session_id, ended, placed]);
  if (ended && !shown.lines.length && session.log_tail?.length) return { lines: session.log_tail, truncated: true, problem: "" };
  return shown;
}
