// Signing in without a link that contains the token.
import { signIn } from "../../api/api.js";
import { html, useState } from "../../ui/html.js";
import { Icon, Mark } from "../../ui/icons.js";

export function SignIn({ reason }) {
  const [token, setToken] = useState("");
  const submit = (event) => {
    event.preventDefault();
    if (token.trim()) signIn(token.trim());
  };
  return html`<main class="alone">
    <form class="sign-in" onSubmit=${submit}>
      <${Mark} size=${44} />
      <h1>Footlights</h1>
      <p>Sign in with an API token. It stays in this tab and is sent only to this server.</p>
      ${reason && html`<div class="note note-bad" role="alert" data-testid="sign-in-reason"><${Icon} name="warning" /> <span>${reason}</span></div>`}
      <label class="field"><span class="field-name">Token</span>
        <input type="password" autocomplete="off" spellcheck=${false} autofocus data-testid="token" value=${token}
          onInput=${(event) => setToken(event.target.value)} placeholder="Paste a token" /></label>
      <button class="button primary wide" data-testid="sign-in" disabled=${!token.trim()}>Sign in</button>
      <p class="hint">The first token is in <code>admin.token</code> in the server's data directory.
        Operators create more: <code>footlights tokens create</code>.</p>
    </form>
  </main>`;
}
