// Reading data for a view: once, again on demand, or regularly while the page is visible.
import { html, useCallback, useEffect, useRef, useState } from "./html.js";
import { Skeleton, Trouble } from "./parts.js";

/**
 * Read by `read(signal)`, again when `keys` change, and every `every` ms while the page is visible.
 * What was read stays in view while it is read again, also when that fails: then `error` says so.
 */
export function useRead(read, keys, { every = 0 } = {}) {
  const [state, setState] = useState({ value: null, error: null });
  const [round, setRound] = useState(0);
  const fresh = useRef(keys);
  useEffect(() => {
    const ending = new AbortController();
    let timer = 0;
    const same = keys.every((key, at) => Object.is(key, fresh.current[at]));
    fresh.current = keys;
    if (!same) setState({ value: null, error: null });
    const once = async () => {
      if (!every || document.visibilityState === "visible") {
        try {
          const value = await read(ending.signal);
          if (!ending.signal.aborted) setState({ value, error: null });
        } catch (error) {
          if (!ending.signal.aborted) setState((before) => ({ value: before.value, error }));
        }
      }
      if (every && !ending.signal.aborted) timer = setTimeout(once, every);
    };
    const look = () => {
      if (!every || document.visibilityState !== "visible") return;
      clearTimeout(timer);
      once();
    };
    once();
    document.addEventListener("visibilitychange", look);
    return () => {
      ending.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", look);
    };
  }, [...keys, round]);
  const again = useCallback(() => setRound((count) => count + 1), []);
  return { ...state, again };
}

/** Show the data, or that it is loading, or the error. */
export const Loaded = ({ of, rows, children }) => {
  if (of.value !== null) return children(of.value);
  if (of.error) return html`<${Trouble} error=${of.error} onRetry=${of.again} />`;
  return html`<${Skeleton} rows=${rows} />`;
};
