// Opens a session's stage in an application that is given it by a message of a client, as NVIDIA's USD Viewer is.

const EVERY = 3000;
const MOST = 40;

/**
 * Ask until the application says what it has, and for the stage if that is another one: a page that is loaded again
 * must not undo what its user has done. Returns a function that stops asking.
 */
export function askForStage(player, url) {
  const done = new AbortController();
  let asked = 0;
  const query = () => {
    asked += 1;
    if (asked > MOST) done.abort();
    else player.send({ event_type: "loadingStateQuery", payload: {} });
  };
  const timer = setInterval(query, EVERY);
  done.signal.addEventListener("abort", () => clearInterval(timer));
  player.addEventListener("message", ({ detail }) => {
    if (detail?.event_type !== "loadingStateResponse") return;
    done.abort();
    // It may name a file by the whole of its address.
    if (!String(detail.payload?.url ?? "").endsWith(url)) player.send({ event_type: "openStageRequest", payload: { url } });
  }, { signal: done.signal });
  query();
  return () => done.abort();
}
