// The API tokens; a secret is shown only when its token is created.
import { call, identity, may, pages } from "../../api/api.js";
import { useCell } from "../../ui/cell.js";
import { moment, words } from "../../ui/format.js";
import { html, useState } from "../../ui/html.js";
import { Icon } from "../../ui/icons.js";
import { Loaded, useRead } from "../../ui/load.js";
import { Ago, Copy, Dialog, Empty } from "../../ui/parts.js";
import { complain, say } from "../../ui/toasts.js";
import { Field } from "../../ui/fields.js";

const ROLES = [
  ["DEVELOPER", "Creates sessions, and sees and ends its own."],
  ["SERVICE", "Creates sessions for others, and sees and ends all."],
  ["OPERATOR", "Everything, including registering versions (a version is a command on every node)."],
  ["NODE", "Authenticates the agent of one node."],
];
const TTLS = [["", "unlimited"], ["86400s", "1 day"], ["2592000s", "30 days"], ["31536000s", "1 year"]];

export function Tokens() {
  const tokens = useRead((signal) => pages("/tokens", {}, signal), []);
  const [asking, setAsking] = useState(null);
  return html`<header class="head"><h1>Tokens</h1><div class="head-end">${may("tokens.write") && html`
      <button class="button primary" onClick=${() => setAsking("create")} data-testid="create-token"><${Icon} name="plus" /> Create a token</button>`}</div></header>
    <${Loaded} of=${tokens} rows=${4}>${({ items }) => (items.length ? html`<div class="table-frame"><table class="table" data-testid="tokens">
      <thead><tr><th>Token</th><th>Role</th><th>Holder</th><th>Description</th><th>Created</th><th>Expires</th><th></th></tr></thead>
      <tbody>${items.map((token) => html`<${Row} key=${token.token_id} token=${token} onRevoke=${() => setAsking(token)} />`)}</tbody></table></div>`
      : html`<${Empty} title="No tokens">You have no access to the list of tokens.</${Empty}>`)}</${Loaded}>
    ${asking === "create" && html`<${Create} onClose=${() => setAsking(null)} onDone=${tokens.again} />`}
    ${asking?.token_id && html`<${Revoke} token=${asking} onClose=${() => setAsking(null)} onDone=${tokens.again} />`}`;
}

const Row = ({ token, onRevoke }) => html`<tr data-testid="token-row" class=${token.revoked_time ? "off" : ""}>
  <td><code>${token.token_id}</code></td><td>${words(token.role)}</td><td>${token.subject}</td><td class="row-what">${token.description}</td>
  <td><${Ago} time=${token.created_time} /></td>
  <td>${token.revoked_time ? html`<span class="bad">revoked <${Ago} time=${token.revoked_time} /></span>` : token.expire_time ? moment(token.expire_time) : html`<span class="faint">never</span>`}</td>
  <td class="end">${!token.revoked_time && may("tokens.write") && html`<button class="button small danger" onClick=${onRevoke}>Revoke</button>`}</td></tr>`;

function Create({ onClose, onDone }) {
  const [form, setForm] = useState({ role: "DEVELOPER", subject: "", description: "", ttl: "2592000s" });
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const [made, setMade] = useState(null);
  const change = (name) => (event) => setForm({ ...form, [name]: event.target.value });
  const problem = (name) => error?.violations?.find(({ field }) => field === name)?.description;
  const create = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      const body = { role: form.role, subject: form.subject.trim(), description: form.description.trim() };
      if (form.ttl) body.ttl = form.ttl;
      setMade(await call("POST", "/tokens", { body }));
      onDone();
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  };
  if (made) {
    return html`<${Dialog} title="Token created" onClose=${onClose} testid="token-secret">
      <p>Copy it now: it is shown only once. Only a hash of it is stored.</p>
      <div class="secret"><${Copy} text=${made.secret} label="Copy the token" /></div>
      <div class="dialog-end"><button class="button primary" onClick=${onClose}>Done</button></div></${Dialog}>`;
  }
  return html`<${Dialog} title="Create a token" onClose=${onClose} testid="token-dialog"><form onSubmit=${create} novalidate>
    <${Field} name="Role" hint=${ROLES.find(([role]) => role === form.role)[1]} problem=${problem("role")}><select class="input" value=${form.role} onChange=${change("role")} data-testid="token-role">
      ${ROLES.map(([role]) => html`<option key=${role} value=${role}>${words(role)}</option>`)}</select></${Field}>
    <${Field} name=${form.role === "NODE" ? "Node" : "Holder"} problem=${problem("subject")}><input class="input" value=${form.subject} onInput=${change("subject")} data-testid="token-subject"
      placeholder=${form.role === "NODE" ? "the node's name" : "a user or service"} /></${Field}>
    <${Field} name="Description" problem=${problem("description")}><input class="input" value=${form.description} onInput=${change("description")} /></${Field}>
    <${Field} name="Valid for" problem=${problem("ttl")}><select class="input" value=${form.ttl} onChange=${change("ttl")}>${TTLS.map(([value, name]) => html`<option key=${value} value=${value}>${name}</option>`)}</select></${Field}>
    ${error && html`<p class="field-error" role="alert">${error.message} ${error.reason && html`<code>${error.reason}</code>`}</p>`}
    <div class="dialog-end"><button type="button" class="button" onClick=${onClose}>Cancel</button>
      <button class="button primary" disabled=${busy || !form.subject.trim()} data-testid="confirm-create-token">Create</button></div></form></${Dialog}>`;
}

function Revoke({ token, onClose, onDone }) {
  const { token: own } = useCell(identity);
  const [busy, setBusy] = useState(false);
  const revoke = async () => {
    setBusy(true);
    try {
      await call("DELETE", `/tokens/${encodeURIComponent(token.token_id)}`);
      say(`${token.token_id} is revoked.`);
      onClose();
      onDone();
    } catch (error) {
      complain(error, { title: "Not revoked" });
      setBusy(false);
    }
  };
  return html`<${Dialog} title="Revoke this token?" onClose=${onClose} testid="revoke-dialog">
    <p><code>${token.token_id}</code> of <strong>${token.subject}</strong> will be refused from now on; this cannot be undone.
      ${own?.includes(token.token_id) ? " You are using this token: you will have to sign in with another one." : ""}</p>
    <div class="dialog-end"><button class="button" onClick=${onClose}>Cancel</button>
      <button class="button danger solid" disabled=${busy} onClick=${revoke} data-testid="confirm-revoke">Revoke</button></div></${Dialog}>`;
}
