// A value that views follow: the smallest thing that makes several views agree.
import { useLayoutEffect, useReducer } from "./html.js";

export function cell(initial) {
  let value = initial;
  const followers = new Set();
  return {
    get value() {
      return value;
    },
    set value(next) {
      if (Object.is(next, value)) return;
      value = next;
      for (const follower of [...followers]) follower(next);
    },
    /** Call `follower` at every change; returns what ends it. */
    follow(follower) {
      followers.add(follower);
      return () => followers.delete(follower);
    },
    get followed() {
      return followers.size > 0;
    },
  };
}

/** Read a cell in a view, and draw the view again when it changes. */
export function useCell(source) {
  const [, redraw] = useReducer((count) => count + 1, 0);
  const seen = source.value;
  useLayoutEffect(() => {
    // It may have changed between drawing and this.
    if (!Object.is(source.value, seen)) redraw();
    return source.follow(redraw);
  }, [source]);
  return seen;
}
