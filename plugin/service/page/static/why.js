// Why one hit is above another: what each word of the question adds to both.

import { added, fill } from "./marks.js";
import { say } from "./words.js";

/** Fill the dialog for two explained hits. */
export function compare(a, b) {
  if (b.score > a.score) [a, b] = [b, a];
  document.getElementById("why-head").textContent = say("whyOf", { a: a.id, b: b.id });
  const rows = a.matches
    .map((match, i) => ({ match, other: b.matches[i], difference: added(match) - added(b.matches[i]) }))
    .filter(({ match }) => match.query_text)
    .sort((x, y) => Math.abs(y.difference) - Math.abs(x.difference));
  const table = document.getElementById("why-table");
  table.replaceChildren();
  const head = table.createTHead().insertRow();
  const titles = [say("wordOfQuestion"), say("met", { id: a.id }), say("adds"), say("met", { id: b.id }), say("adds"), say("difference")];
  for (const title of titles) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = title;
    head.append(cell);
  }
  const body = table.createTBody();
  for (const { match, other, difference } of rows) {
    const row = body.insertRow();
    const cells = [match.query_text, match.document_text, added(match).toFixed(3), other.document_text, added(other).toFixed(3), signed(difference)];
    for (const text of cells) row.insertCell().textContent = text;
  }
  const total = body.insertRow();
  for (const text of [say("total"), "", a.score.toFixed(3), "", b.score.toFixed(3), signed(a.score - b.score)]) total.insertCell().textContent = text;
  total.className = "total";
  for (const [id, explanation] of [["why-a", a], ["why-b", b]]) {
    const section = document.getElementById(id);
    const title = document.createElement("h3");
    title.textContent = explanation.id;
    const text = document.createElement("p");
    text.className = "text";
    text.lang = "ja";
    fill(text, explanation.text, explanation, true);
    section.replaceChildren(title, text);
  }
  document.getElementById("why").showModal();
}

const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);
