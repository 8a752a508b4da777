// Judgements of hits, kept in this browser, and saved as files for `tansaku evaluate`.

const KEY = "tansaku.judgements"; // index → question → id → 1 or 0

const load = () => JSON.parse(localStorage.getItem(KEY) ?? "{}");

/** The judgement of a hit: 1, 0, or undefined. */
export const judgement = (index, query, id) => load()[index]?.[query]?.[id];

/** Keep a judgement; undefined takes it back. */
export function judge(index, query, id, relevant) {
  const all = load();
  const of = ((all[index] ??= {})[query] ??= {});
  if (relevant === undefined) delete of[id];
  else of[id] = relevant;
  if (!Object.keys(of).length) delete all[index][query];
  localStorage.setItem(KEY, JSON.stringify(all));
}

/** Number of judged hits, and of questions. */
export function counts(index) {
  const questions = Object.values(load()[index] ?? {});
  return { n: questions.reduce((sum, of) => sum + Object.keys(of).length, 0), q: questions.length };
}

/** The judgements as the files of a BEIR folder: {"qrels.tsv": text, "queries.jsonl": text}. */
export function files(index) {
  const questions = Object.entries(load()[index] ?? {});
  const clean = (id) => id.replace(/[\t\r\n]/g, " ");
  const qrels = questions.flatMap(([, of], n) => Object.entries(of).map(([id, relevant]) => `q${n + 1}\t${clean(id)}\t${relevant}`));
  return {
    "qrels.tsv": ["query-id\tcorpus-id\tscore", ...qrels, ""].join("\n"),
    "queries.jsonl": questions.map(([query], n) => `${JSON.stringify({ _id: `q${n + 1}`, text: query })}\n`).join(""),
  };
}

/** Have the browser save a text as a file. */
export function save(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
