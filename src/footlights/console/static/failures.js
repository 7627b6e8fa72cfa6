// Reports when one of the caller's sessions fails, in any view.
import { identity } from "./api/api.js";
import { useEffect } from "./ui/html.js";
import { route, to } from "./router.js";
import { complain } from "./ui/toasts.js";
import { sessions } from "./api/watch.js";

export function useFailures() {
  useEffect(() => {
    const states = new Map([...sessions.value].map(([id, { state }]) => [id, state]));
    return sessions.follow((all) => {
      for (const [id, session] of all) {
        const before = states.get(id);
        states.set(id, session.state);
        // Without a previous state, it had already failed when the page received it.
        if (!before || before === session.state || session.state !== "FAILED") continue;
        if (session.username !== identity.value.caller?.subject || route.value.parts[0] === id) continue;
        complain(
          { message: session.status_message || "It ended with an error.", reason: session.end_reason },
          { title: `${session.application} failed`, href: to("sessions", [id]) },
        );
      }
      for (const id of states.keys()) if (!all.has(id)) states.delete(id);
    });
  }, []);
}
