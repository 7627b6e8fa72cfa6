// Time as the server tells it, so that "12 s" is right on a machine whose clock is wrong.
import { cell, useCell } from "./cell.js";
import { useEffect } from "./html.js";

let offset = 0;

/** Learn the server's clock from a `Date` header, which has whole seconds: smaller differences are not corrected. */
export function learn(dateHeader) {
  const server = Date.parse(dateHeader ?? "");
  if (Number.isNaN(server)) return;
  const difference = server + 500 - Date.now();
  offset = Math.abs(difference) > 2000 ? difference : 0;
}

/** Milliseconds since the epoch, on the server's clock. */
export const now = () => Date.now() + offset;

const ticks = cell(0);
let timer = 0;
let users = 0;

/** Draw the view again every `period` ms while `running`; returns the time. */
export function useNow(running = true) {
  useCell(ticks);
  useEffect(() => {
    if (!running) return undefined;
    users += 1;
    if (users === 1) timer = setInterval(() => (ticks.value += 1), 250);
    return () => {
      users -= 1;
      if (users === 0) clearInterval(timer);
    };
  }, [running]);
  return now();
}
