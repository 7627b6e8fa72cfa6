// The server's time, so that "12 s" is right on a machine with a wrong clock.
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

/** A cell that changes every `period` ms while it has followers. */
function ticker(period) {
  const ticks = cell(0);
  let timer = 0;
  let users = 0;
  return {
    ticks,
    use() {
      users += 1;
      if (users === 1) timer = setInterval(() => (ticks.value += 1), period);
      return () => {
        users -= 1;
        if (users === 0) clearInterval(timer);
      };
    },
  };
}

const fine = ticker(200);
const coarse = ticker(1000);

/** Draw the view again as time passes while `running`: five times a second, or once for `slow`; returns the time. */
export function useNow({ running = true, slow = false } = {}) {
  const chosen = slow ? coarse : fine;
  useCell(chosen.ticks);
  useEffect(() => (running ? chosen.use() : undefined), [running, chosen]);
  return now();
}
