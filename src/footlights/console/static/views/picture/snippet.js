// Code to be taken along.
import { html } from "../../ui/html.js";
import { Copy } from "../../ui/parts.js";

export const Snippet = ({ text, testid }) => html`<div class="snippet"><pre tabindex="0" data-testid=${testid}>${text}</pre><${Copy} text=${text}><span></span></${Copy}></div>`;
