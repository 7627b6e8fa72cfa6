// Puts the page together: who is here, which view, and the watch that all views share.
import { call, identity, signOut, takeTokenFromAddress } from "./api/api.js";
import { useCell } from "./ui/cell.js";
import { html, render, useEffect, useState } from "./ui/html.js";
import { Trouble } from "./ui/parts.js";
import { Mark } from "./ui/icons.js";
import { route } from "./router.js";
import { Shell } from "./shell.js";
import { Toasts } from "./ui/toasts.js";
import { watch } from "./api/watch.js";
import { Application } from "./views/catalog/application.js";
import { Applications } from "./views/catalog/applications.js";
import { Nodes } from "./views/fleet/nodes.js";
import { Session } from "./views/sessions/session.js";
import { Sessions } from "./views/sessions/sessions.js";
import { SignIn } from "./views/account/signin.js";
import { Start } from "./views/sessions/start.js";
import { Tokens } from "./views/account/tokens.js";

function App() {
  const { token, caller, reason } = useCell(identity);
  const [error, setError] = useState(null);

  useEffect(() => {
    if (!token || caller) return undefined;
    const ending = new AbortController();
    setError(null);
    call("GET", "/caller", { signal: ending.signal }).then(
      (answer) => (identity.value = { ...identity.value, caller: answer }),
      (failure) => !ending.signal.aborted && failure.status !== 401 && setError(failure),
    );
    return () => ending.abort();
  }, [token, caller, error === null]);

  const present = Boolean(caller);
  useEffect(() => {
    if (!present) return undefined;
    const ending = new AbortController();
    watch(ending.signal);
    return () => ending.abort();
  }, [present]);

  if (!token) return html`<${SignIn} reason=${reason} />`;
  if (!caller) return html`<${Opening} error=${error} onRetry=${() => setError(null)} />`;
  return html`<${Shell}><${View} /></${Shell}>`;
}

const Opening = ({ error, onRetry }) => html`
  <main class="alone">
    <div class="opening"><${Mark} size=${40} /></div>
    ${error && html`<${Trouble} error=${error} onRetry=${onRetry} />
      <button class="button quiet" onClick=${() => signOut()}>Use another token</button>`}
  </main>`;

function View() {
  const { view, parts } = useCell(route);
  switch (view) {
    case "sessions":
      return parts[0] ? html`<${Session} key=${parts[0]} id=${parts[0]} />` : html`<${Sessions} />`;
    case "start":
      return html`<${Start} />`;
    case "applications":
      return parts[0] ? html`<${Application} key=${parts[0]} id=${parts[0]} />` : html`<${Applications} />`;
    case "nodes":
      return html`<${Nodes} />`;
    case "tokens":
      return html`<${Tokens} />`;
    default:
      return html`<${Sessions} />`;
  }
}

takeTokenFromAddress();
// A second `#token=` pasted into the open page counts too.
addEventListener("hashchange", () => location.hash.includes("token=") && takeTokenFromAddress());
render(html`<${App} /><${Toasts} />`, document.getElementById("app"));
