// The applications that can be started.
import { may, pages } from "../../api/api.js";
import { useCell } from "../../ui/cell.js";
import { count } from "../../ui/format.js";
import { html } from "../../ui/html.js";
import { EmptyStage, Icon } from "../../ui/icons.js";
import { Loaded, useRead } from "../../ui/load.js";
import { Empty } from "../../ui/parts.js";
import { to } from "../../router.js";
import { hasEnded, sessions } from "../../api/watch.js";

export function Applications() {
  const applications = useRead((signal) => pages("/applications", {}, signal), []);
  const living = [...useCell(sessions).values()].filter((session) => !hasEnded(session));
  return html`<header class="head"><h1>Applications</h1></header>
    <${Loaded} of=${applications} rows=${4}>${({ items }) => (items.length ? html`
      <div class="cards" data-testid="applications">${items.map((one) => html`<${Card} key=${one.application} of=${one}
        live=${living.filter(({ application }) => application === one.application).length} />`)}</div>`
      : html`<${Empty} art=${html`<${EmptyStage} />`} title="No application is registered">
          Operators register them: <code>footlights apps apply -f FILE.yaml</code></${Empty}>`)}</${Loaded}>`;
}

const Card = ({ of, live }) => html`<article class="card application">
  <h2><a href=${to("applications", [of.application])}>${of.display_name || of.application}</a></h2>
  <span class="under mono">${of.application}</span>
  <p class="application-text">${of.description || html`<span class="faint">No description.</span>`}</p>
  <div class="application-tags">
    ${Object.entries(of.releases ?? {}).map(([name, version]) => html`<span class="pair" key=${name}><span>${name}</span><code>${version}</code></span>`)}
    ${(of.tags ?? []).map((tag) => html`<span class="tag" key=${tag}>${tag}</span>`)}
  </div>
  <div class="application-end"><span class="faint">${live ? `${count(live, "active session")}` : "No active session"}</span>
    ${may("sessions.create") && html`<a class="button" href=${to("start", [of.application])} data-testid=${`start-${of.application}`}><${Icon} name="play" size=${14} /> Start</a>`}</div>
</article>`;
