// Which stage to open: free text, with what is known to be there one click away.
import { useCell } from "../../ui/cell.js";
import { basename, words } from "../../ui/format.js";
import { html } from "../../ui/html.js";
import { sessions } from "../../api/watch.js";
import { Field } from "../../ui/fields.js";

// The API cannot list a node's directories. The stages that ship with the reference application lie side by side, so
// where a version's own stage is one of them, the others are there too.
const SAMPLES = ["orrery", "robot_cell", "theatre"];
const MOST = 6;

/** Stages to offer: the version's own, its samples, and those that sessions of the application have used. */
export function suggestionsFor(recipe, application, all) {
  const standard = recipe?.default_usd_stage_uri ?? "";
  const [, name, ending] = basename(standard).match(/^(.*)(\.[^.]+)$/) ?? [];
  const folder = standard.slice(0, standard.length - basename(standard).length);
  const samples = SAMPLES.includes(name) && folder ? SAMPLES.map((sample) => folder + sample + ending) : [];
  const used = all.filter((one) => one.application === application).map((one) => one.application_arguments?.usd_stage_uri);
  return [...new Set([standard, ...samples, ...used].filter(Boolean))].slice(0, MOST);
}

export function StageField({ application, recipe, value, onChange, problem }) {
  const all = useCell(sessions);
  const standard = recipe?.default_usd_stage_uri ?? "";
  const roots = (recipe?.allowed_stage_roots ?? []).map((root) => (root.endsWith("/") ? root : `${root}/`));
  const offered = suggestionsFor(recipe, application, [...all.values()]);
  const links = roots.map((root, at) => html`${at ? ", " : ""}
    <button type="button" class="root" key=${root} onClick=${() => onChange(root)}>${root}</button>`);
  const hint = recipe && !roots.length ? "This version opens only its own stage."
    : html`${standard && html`Empty opens <code>${basename(standard)}</code>. `}${roots.length > 0 && html`Allowed sources: ${links}`}`;
  return html`<${Field} name="Stage" problem=${problem} hint=${hint}>
    <input class="input mono" data-testid="start-stage" list="stages" spellcheck=${false} autocomplete="off" value=${value}
      placeholder=${standard || "path or URL of a USD stage"} onInput=${(event) => onChange(event.target.value)} />
    ${offered.length > 1 && html`<div class="chips" role="group" aria-label="Stages to choose from">${offered.map((uri) => html`
      <button type="button" class="chip" key=${uri} title=${uri} aria-pressed=${value === uri || (!value && uri === standard)}
        onClick=${() => onChange(uri)}>${words(basename(uri).replace(/\.usd[acz]?$/, ""))}</button>`)}</div>`}
    <datalist id="stages">${[...offered, ...roots].map((uri) => html`<option key=${uri} value=${uri}></option>`)}</datalist>
  </${Field}>`;
}
