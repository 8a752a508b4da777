// Texts with the words marked that the words of the question met.

const SHADES = 7; // 1 the faintest
const SHOWN = 240; // characters of a text, unless all of it is asked for

/** The characters of a text. Spans of the API count characters; JavaScript's strings count UTF-16 units. */
export const characters = (text) => Array.from(text);

/** What a match adds to the score. */
export const added = (match) => match.weight * match.similarity;

/** Matches by the span of the document that they met, in the order of the text: [{start, end, matches, most}].
 * Spans that overlap an earlier one are left out. */
export function bySpan(explanation) {
  const spans = new Map();
  explanation.matches.forEach((match, token) => {
    if (!match.document_span || !match.query_text) return;
    const key = match.document_span.join();
    if (!spans.has(key)) spans.set(key, { start: match.document_span[0], end: match.document_span[1], matches: [], most: 0 });
    const span = spans.get(key);
    span.matches.push({ ...match, token });
    span.most = Math.max(span.most, added(match));
  });
  const sorted = [...spans.values()].sort((a, b) => a.start - b.start || a.end - b.end);
  let at = 0;
  return sorted.filter((span) => span.start >= at && ((at = span.end), true));
}

/** The part of a text with the most that was met: [first, last] character. */
export function bestPart(spans, length) {
  if (length <= SHOWN) return [0, length];
  let best = 0;
  let first = 0;
  for (const { start } of spans) {
    const sum = spans.filter((span) => span.start >= start && span.end <= start + SHOWN).reduce((s, span) => s + span.most, 0);
    if (sum > best) [best, first] = [sum, start];
  }
  first = Math.max(0, Math.min(first - 20, length - SHOWN));
  return [first, first + SHOWN];
}

/** Put a text into `element`, with marks if it is explained, and as a part unless `whole`. */
export function fill(element, text, explanation, whole) {
  const all = characters(text);
  const spans = explanation ? bySpan(explanation) : [];
  const most = Math.max(1e-9, ...spans.map((span) => span.most));
  const [first, last] = whole ? [0, all.length] : bestPart(spans, all.length);
  const nodes = [];
  const plain = (from, to) => { if (to > from) nodes.push(document.createTextNode(all.slice(from, to).join(""))); };
  if (first > 0) nodes.push(document.createTextNode("… "));
  let at = first;
  for (const span of spans) {
    if (span.start < at || span.end > last) continue;
    plain(at, span.start);
    const shade = Math.min(SHADES, Math.round((SHADES * span.most) / most));
    const word = all.slice(span.start, span.end).join("");
    if (shade > 0) nodes.push(marked(word, shade, span.matches));
    else nodes.push(document.createTextNode(word));
    at = span.end;
  }
  plain(at, last);
  if (last < all.length) nodes.push(document.createTextNode(" …"));
  element.replaceChildren(...nodes);
  return last - first < all.length;
}

function marked(word, shade, matches) {
  const mark = document.createElement("mark");
  mark.className = `s${shade}`;
  mark.textContent = word;
  mark.dataset.tokens = matches.map((match) => match.token).join(" ");
  mark.title = matches.map((match) => `${match.query_text} ${match.similarity.toFixed(2)}`).join(", ");
  return mark;
}
