// The page: a question goes in, hits come out, and each shows which of its words met which word of the question.

import { ApiError, call, useToken } from "./api.js";
import { HeatMap } from "./heat.js";
import { counts, files, judge, judgement, save } from "./judge.js";
import { Manage } from "./manage.js";
import { fill } from "./marks.js";
import { number, say, speak } from "./words.js";
import { compare } from "./why.js";

const PAUSE = 120; // ms after the last key before a search
const EXPLAIN_PAUSE = 150; // ms after the hits before they are explained
const MOST_TRIES = 3; // of a search that is answered with 429 or 503

const $ = (id) => document.getElementById(id);
const heat = new HeatMap($("heat-canvas"), $("heat-cell"), $("heat-pairs"));
new Manage(async () => {
  await readIndexes($("index").value);
  search(true);
}, showProblem);
const state = { request: null, timer: 0, answer: null, cards: [], first: null, lastAsked: "" };

start();

async function start() {
  const url = new URLSearchParams(location.search);
  speak(localStorage.getItem("tansaku.language") ?? (navigator.language.startsWith("ja") ? "ja" : "en"));
  $("language").value = document.documentElement.lang;
  $("query").value = url.get("q") ?? "";
  $("where").value = url.get("where") ?? "";
  if (url.get("recall")) $("recall").value = url.get("recall");
  wire();
  await readIndexes(url.get("index"));
  if ($("query").value) search();
}

async function readIndexes(chosen) {
  try {
    const { indexes, writes } = await call("GET", "info");
    $("manage").hidden = !writes;
    $("index").replaceChildren(...indexes.map((name) => new Option(name, name)));
    if (indexes.includes(chosen)) $("index").value = chosen;
    offerBeside(indexes);
    showError("");
    if (!indexes.length) showError(say("noIndex"));
  } catch (error) {
    showProblem(error);
  }
}

function offerBeside(indexes) {
  const choices = [["", say("nothing")], ["bm25", say("bm25")], ["recall:fast", say("fast")], ["recall:exact", say("exact")]];
  for (const name of indexes) choices.push([`index:${name}`, `${say("index")} ${name}`]);
  const kept = $("beside").value;
  $("beside").replaceChildren(...choices.map(([value, text]) => new Option(text, value)));
  if (choices.some(([value]) => value === kept)) $("beside").value = kept;
}

function wire() {
  $("ask").addEventListener("submit", (event) => { event.preventDefault(); search(); });
  $("query").addEventListener("input", (event) => { if (!event.isComposing) later(); });
  $("query").addEventListener("compositionend", later);
  for (const id of ["index", "recall", "k", "beside"]) $(id).addEventListener("change", () => search(true));
  $("where").addEventListener("change", () => search(true));
  $("judging").addEventListener("change", () => showHits());
  $("language").addEventListener("change", () => {
    localStorage.setItem("tansaku.language", $("language").value);
    speak($("language").value);
    offerBeside([...$("index").options].map((option) => option.value));
    if (state.answer) showAnswer();
  });
  $("token-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    useToken($("token").value);
    $("token").value = "";
    $("token-form").hidden = true;
    await readIndexes($("index").value);
      search(true);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "")) {
      event.preventDefault();
      $("query").focus();
    }
  });
  for (const [id, name] of [["save-qrels", "qrels.tsv"], ["save-queries", "queries.jsonl"]]) {
    $(id).addEventListener("click", () => save(name, files($("index").value)[name]));
  }
  $("copy-curl").addEventListener("click", () => copy(asCurl()));
  $("copy-python").addEventListener("click", () => copy(asPython()));
  $("columns").addEventListener("pointerover", (event) => light(event.target.closest?.("mark")?.dataset.tokens ?? ""));
  $("columns").addEventListener("pointerleave", () => light(""));
}

function later() {
  clearTimeout(state.timer);
  state.timer = setTimeout(search, PAUSE);
}

function body() {
  const asked = { query: $("query").value, k: Number($("k").value), recall: $("recall").value };
  if ($("index").value) asked.index = $("index").value;
  if ($("where").value.trim()) asked.where = $("where").value.trim();
  return asked;
}

/** What the right column asks; null if nothing is compared. */
function bodyBeside() {
  const [kind, name] = $("beside").value.split(/:(.*)/s);
  if (!kind) return null;
  if (kind === "bm25") return { ...body(), source: "text", bm25_weight: 1000 };
  return { ...body(), [kind]: name };
}

async function search(again = false) {
  clearTimeout(state.timer);
  const asked = body();
  const key = JSON.stringify(asked) + $("beside").value;
  if (!asked.query.trim() || (key === state.lastAsked && again !== true)) return;
  state.lastAsked = key;
  state.request?.abort();
  const request = (state.request = new AbortController());
  const url = new URLSearchParams({ q: asked.query, index: asked.index ?? "", recall: asked.recall, where: asked.where ?? "" });
  for (const [name, value] of [...url]) if (!value) url.delete(name);
  history.replaceState(null, "", `?${url}`);
  $("stats").textContent = say("searching");
  const began = performance.now();
  try {
    const beside = bodyBeside();
    const [answer, other] = await Promise.all([ask(asked, request.signal), beside && ask(beside, request.signal)]);
    state.answer = { asked, answer, other, ms: performance.now() - began, explained: new Map() };
    state.first = null;
    showError("");
    showAnswer();
    await explainAll(request.signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    state.lastAsked = "";
    $("stats").textContent = "";
    showProblem(error);
  }
}

/** A search that is repeated while the service is busy. */
async function ask(asked, signal) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await call("POST", "search", asked, signal);
    } catch (error) {
      if (![429, 503].includes(error.status) || attempt === MOST_TRIES) throw error;
      const seconds = Math.min(error.retryAfter || attempt, 10);
      showError(say("tooMany", { s: seconds }));
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
      if (signal.aborted) throw new DOMException("", "AbortError");
    }
  }
}

async function explainAll(signal) {
  const { asked, answer } = state.answer;
  await new Promise((resolve) => setTimeout(resolve, EXPLAIN_PAUSE));
  for (const hit of answer.hits) {
    if (signal.aborted) return;
    await explained(hit.id, signal);
    const card = state.cards.find((one) => one.hit === hit);
    if (card) card.paint();
    if (hit === answer.hits[0]) showWords(asked);
  }
}

async function explained(id, signal) {
  const { asked, explained: known } = state.answer;
  if (!known.has(id)) known.set(id, await call("POST", "explain", { query: asked.query, index: asked.index, id, matrix: true }, signal));
  return known.get(id);
}

// What is shown

function showProblem(error) {
  if (!(error instanceof ApiError)) throw error;
  $("token-form").hidden = error.status !== 401;
  if (error.status === 401) $("token").focus();
  showError(error.status === 0 ? say("down") : error.status === 401 ? say("unauthorised") : error.message);
}

function showError(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

function showAnswer() {
  const { answer, ms } = state.answer;
  const parts = [answer.hits.length ? say("stats", { n: number(answer.hits.length), ms: number(ms, 1), scored: number(answer.scored) }) : say("none")];
  if (answer.recall) parts.push(say("recallOf", { share: number(answer.recall, 3) }));
  $("stats").textContent = parts.join(" · ");
  $("timing").hidden = false;
  const most = Math.max(...Object.values(answer.stages_ms), 1e-9);
  $("stages").replaceChildren(...Object.entries(answer.stages_ms).flatMap(([name, value]) => {
    const [term, text] = [document.createElement("dt"), document.createElement("dd")];
    const meter = document.createElement("meter");
    [meter.min, meter.max, meter.value] = [0, most, value];
    meter.setAttribute("aria-label", name);
    term.textContent = name;
    text.append(meter, ` ${number(value, 2)} ms`);
    return [term, text];
  }));
  $("copy").hidden = false;
  $("copied").textContent = "";
  showHits();
  showWords();
}

function showHits() {
  if (!state.answer) return;
  const { answer, other } = state.answer;
  state.cards = answer.hits.map((hit, rank) => makeCard(hit, rank));
  $("left").replaceChildren(...state.cards.map((card) => card.element));
  $("right-section").hidden = !other;
  $("left-head").hidden = !other;
  $("columns").className = other ? "two" : "";
  if (other) {
    $("left-head").textContent = `${answer.index} · ${$("recall").selectedOptions[0].textContent}`;
    $("right-head").textContent = $("beside").selectedOptions[0].textContent;
    const there = new Map(answer.hits.map((hit, rank) => [hit.id, rank + 1]));
    $("right").replaceChildren(...other.hits.map((hit, rank) => makeCard(hit, rank, there.get(hit.id) ?? null).element));
  }
  showJudged();
}

function makeCard(hit, rank, there) {
  const { asked, explained: known } = state.answer;
  const element = document.createElement("li");
  const title = document.createElement("h3");
  title.textContent = hit.title || hit.id;
  title.lang = "ja";
  const about = document.createElement("p");
  about.className = "about";
  about.textContent = [`${rank + 1}.`, hit.id, say("score", { score: number(hit.score, 3) })].join(" · ");
  if (there !== undefined) about.textContent += ` · ${there === null ? say("notThere") : say("rankThere", { n: there })}`;
  const text = document.createElement("p");
  text.className = "text";
  text.lang = "ja";
  const columns = document.createElement("p");
  columns.className = "fields";
  columns.textContent = Object.entries(hit.fields).filter(([, value]) => value !== null && value !== "").map(([name, value]) => `${name}: ${short(value)}`).join(" · ");
  const buttons = document.createElement("p");
  let whole = false;
  const card = {
    hit,
    element,
    paint() {
      const explanation = there === undefined ? known.get(hit.id) : undefined;
      const cut = fill(text, explanation?.text ?? hit.text, explanation, whole);
      toggle.hidden = !cut && !whole;
      note.textContent = [explanation?.truncated && say("truncated"), explanation?.cut && say("cut")].filter(Boolean).join(" ");
    },
  };
  const toggle = button(say("whole"), () => { whole = !whole; toggle.textContent = say(whole ? "part" : "whole"); card.paint(); });
  const note = document.createElement("p");
  note.className = "note";
  buttons.append(toggle);
  if (there === undefined) {
    buttons.append(button(say("heat"), () => showHeat(hit)), button(say("why"), (event) => choose(hit, event.target)));
    if ($("judging").checked) buttons.append(...judgeButtons(asked, hit));
  }
  element.append(title, about, text, columns, note, buttons);
  card.paint();
  return card;
}

function judgeButtons(asked, hit) {
  const index = $("index").value;
  const made = [[1, "relevant"], [0, "notRelevant"]].map(([value, name]) => {
    const one = button(say(name), () => {
      judge(index, asked.query, hit.id, judgement(index, asked.query, hit.id) === value ? undefined : value);
      show();
      showJudged();
    });
    return [value, one];
  });
  const show = () => made.forEach(([value, one]) => one.setAttribute("aria-pressed", String(judgement(index, asked.query, hit.id) === value)));
  show();
  return made.map(([, one]) => one);
}

function showJudged() {
  const found = counts($("index").value);
  $("judged").hidden = !$("judging").checked || !found.n;
  $("judged-count").textContent = say("judgedCount", { n: number(found.n), q: number(found.q) });
}

/** The words of the question, from the explanation of the first hit that has one. */
function showWords() {
  const explanation = state.answer.explained.values().next().value;
  $("words-section").hidden = !explanation;
  if (!explanation) return;
  const most = Math.max(1e-9, ...explanation.matches.map((match) => match.weight));
  $("words").replaceChildren(...explanation.matches.flatMap((match, token) => {
    if (!match.query_text) return [];
    const item = document.createElement("li");
    const word = button(match.query_text, () => light(String(token)));
    word.lang = "ja";
    word.dataset.token = token;
    for (const event of ["pointerenter", "focus"]) word.addEventListener(event, () => light(String(token)));
    for (const event of ["pointerleave", "blur"]) word.addEventListener(event, () => light(""));
    const meter = document.createElement("meter");
    [meter.min, meter.max, meter.value] = [0, most, match.weight];
    meter.setAttribute("aria-label", `${match.query_text}: ${say("weight")} ${match.weight.toFixed(2)}`);
    item.append(word, meter);
    return [item];
  }));
}

/** Light the words that met one of these words of the question, in every hit; "" lights none. */
function light(tokens) {
  const wanted = new Set(tokens.split(" ").filter(Boolean));
  const isOn = (list) => list.split(" ").some((token) => wanted.has(token));
  document.body.classList.toggle("lit", wanted.size > 0);
  for (const mark of document.querySelectorAll("mark")) mark.classList.toggle("on", isOn(mark.dataset.tokens));
  for (const word of document.querySelectorAll("#words button")) word.classList.toggle("on", wanted.has(word.dataset.token));
}

async function showHeat(hit) {
  await attempt(async () => {
    const explanation = await explained(hit.id);
    $("heat-head").textContent = say("heatOf", { id: hit.title || hit.id });
    $("heat").showModal();
    heat.show(explanation);
    $("heat-canvas").focus();
  });
}

async function choose(hit, pressed) {
  if (state.first === null || state.first.hit === hit) {
    state.first?.pressed.setAttribute("aria-pressed", "false");
    state.first = state.first === null ? { hit, pressed } : null;
    pressed.setAttribute("aria-pressed", String(state.first !== null));
    $("stats").textContent = state.first ? say("chooseSecond") : "";
    return;
  }
  await attempt(async () => {
    const [a, b] = [await explained(state.first.hit.id), await explained(hit.id)];
    state.first.pressed.setAttribute("aria-pressed", "false");
    state.first = null;
    showAnswer();
    compare(a, b);
  });
}

async function attempt(action) {
  try {
    await action();
  } catch (error) {
    if (error.name !== "AbortError") showProblem(error);
  }
}

// Small things

function button(text, onClick) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", onClick);
  return made;
}

const short = (value) => {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
};

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const asCurl = () => `curl -s ${quoted(new URL("search", location.href.split("?")[0]).href)} -H 'Content-Type: application/json' -d ${quoted(JSON.stringify(body()))}`;

function asPython() {
  const { query, k, recall, where, index } = body();
  const text = (value) => JSON.stringify(value); // a string of JSON is one of Python too
  const options = [text(query), `k=${k}`, `recall=${text(recall)}`, ...(where ? [`where=${text(where)}`] : [])].join(", ");
  return `from tansaku import Searcher\n\nsearcher = Searcher.open("db", ${text(index ?? "docs")})\nfor hit in searcher.search(${options}):\n    print(hit.score, hit.id, hit.title)\n`;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    $("copied").textContent = say("copied");
  } catch {
    $("copied").textContent = say("notCopied");
  }
}
