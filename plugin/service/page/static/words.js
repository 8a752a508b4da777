// What the page says, in English and in Japanese. The tests compare the two lists.

export const WORDS = {
  en: {
    index: "Index", language: "Language", query: "Question or keywords", placeholder: "Ask in Japanese …  ( / )",
    options: "Options", recall: "Recall", fast: "fast", balanced: "balanced", exact: "exact", hits: "Hits",
    where: "Condition", beside: "Compare with", nothing: "nothing", bm25: "BM25 order", judge: "Judge hits",
    token: "Access token of this service", use: "Use", times: "Time of each stage", words: "Words of the question",
    saveQrels: "Save judgements (qrels.tsv)", saveQueries: "Save questions (queries.jsonl)",
    judgedCount: "{n} judged hits of {q} questions, kept in this browser.",
    copyCurl: "Copy as cURL", copyPython: "Copy as Python", copied: "Copied.", notCopied: "The browser does not allow copying.",
    stats: "{n} hits in {ms} ms; {scored} documents scored by MaxSim", none: "Nothing was found.", searching: "Searching …",
    recallOf: "expected share of the best: {share}",
    score: "Score {score}", heat: "Heat map", heatOf: "Heat map of {id}", heatHelp: "Rows are words of the question, columns words of the document. Arrow keys move from cell to cell.",
    cell: "{q} – {d}: similarity {s}", best: " (the best of its row)", pairs: "Best pairs as a table",
    why: "Compare", whyOf: "Why is {a} above {b}?", close: "Close", whole: "Whole text", part: "Less text",
    wordOfQuestion: "question", met: "met in {id}", adds: "adds", difference: "difference", total: "total", similarity: "similarity", weight: "weight",
    relevant: "Relevant", notRelevant: "Not relevant", rankThere: "rank {n} on the left", notThere: "not among the hits on the left",
    chooseSecond: "Choose the hit to compare with.", truncated: "The question is longer than the model reads; its end was ignored.",
    cut: "The text is longer than the model reads; its end was ignored.", noIndex: "No index is served here. Start tansaku serve with --db and --table.",
    down: "The service does not answer. Is it running?", unauthorised: "The service asks for a token.",
    manage: "Indexes and documents", rows: "Rows", version: "Version", model: "Model", jobs: "Jobs",
    into: "Into index", dropHelp: "Drop a JSONL, CSV or TSV file here, or", chooseFile: "choose a file",
    nameFirst: "Name the index first: one that is here, or a new one.", sending: "Sending {file}: {share}%", queued: "{file} was sent; see the jobs.",
    csvQuote: "The file has a quotation mark that is not closed.", csvRow: "Row {n} has more cells than the first row names.",
    queuedState: "waiting", running: "running", done: "done", failed: "failed", cancelled: "cancelled", leftOut: "{n} documents were left out",
    tooMany: "The service is busy. Trying again in {s} s …", canvas: "Similarities of {q} words of the question with {d} words of the document",
  },
  ja: {
    index: "インデックス", language: "言語", query: "質問またはキーワード", placeholder: "質問を入力…  （ / キー）",
    options: "検索の設定", recall: "再現率", fast: "速さ優先", balanced: "標準", exact: "完全", hits: "件数",
    where: "条件", beside: "比べる相手", nothing: "なし", bm25: "BM25 の順", judge: "結果を判定する",
    token: "このサービスのアクセストークン", use: "使う", times: "処理ごとの時間", words: "質問の語",
    saveQrels: "判定を保存（qrels.tsv）", saveQueries: "質問を保存（queries.jsonl）",
    judgedCount: "{q} 件の質問について {n} 件を判定しました（このブラウザに保存）。",
    copyCurl: "cURL としてコピー", copyPython: "Python としてコピー", copied: "コピーしました。", notCopied: "ブラウザがコピーを許可していません。",
    stats: "{n} 件、{ms} ミリ秒。MaxSim で採点した文書は {scored} 件", none: "何も見つかりませんでした。", searching: "検索しています…",
    recallOf: "上位が含まれる割合の見込み: {share}",
    score: "スコア {score}", heat: "ヒートマップ", heatOf: "{id} のヒートマップ", heatHelp: "行は質問の語、列は文書の語です。矢印キーでセルを移動します。",
    cell: "{q} – {d}: 類似度 {s}", best: "（この行で最大）", pairs: "類似度の高い組の表",
    why: "比べる", whyOf: "{a} が {b} より上にあるのはなぜ？", close: "閉じる", whole: "全文", part: "短く表示",
    wordOfQuestion: "質問", met: "{id} で一致した語", adds: "寄与", difference: "差", total: "合計", similarity: "類似度", weight: "重み",
    relevant: "適合", notRelevant: "不適合", rankThere: "左では {n} 位", notThere: "左の結果にはありません",
    chooseSecond: "比べる相手の結果を選んでください。", truncated: "質問がモデルの読める長さを超えるため、末尾は使われていません。",
    cut: "文書がモデルの読める長さを超えるため、末尾は使われていません。", noIndex: "インデックスがありません。tansaku serve に --db と --table を付けて起動してください。",
    down: "サービスが応答しません。起動しているか確かめてください。", unauthorised: "このサービスにはトークンが必要です。",
    manage: "インデックスと文書", rows: "行数", version: "バージョン", model: "モデル", jobs: "ジョブ",
    into: "登録先のインデックス", dropHelp: "JSONL、CSV、TSV のファイルをここにドロップするか、", chooseFile: "ファイルを選びます",
    nameFirst: "先にインデックスの名前を入力してください。既存でも新規でもかまいません。", sending: "{file} を送信しています: {share}%", queued: "{file} を送信しました。ジョブを見てください。",
    csvQuote: "閉じられていない引用符があります。", csvRow: "{n} 行目のセルが、先頭行の列名より多くあります。",
    queuedState: "待機中", running: "実行中", done: "完了", failed: "失敗", cancelled: "取り消し", leftOut: "{n} 件の文書を取り込めませんでした",
    tooMany: "サービスが混み合っています。{s} 秒後にもう一度試します…", canvas: "質問の {q} 語と文書の {d} 語の類似度",
  },
};

let language = "en";

/** Choose the language of the page, and write all fixed texts in it. */
export function speak(chosen) {
  language = chosen in WORDS ? chosen : "en";
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-say]")) element.textContent = say(element.dataset.say);
  for (const element of document.querySelectorAll("[data-say-placeholder]")) element.placeholder = say(element.dataset.sayPlaceholder);
}

/** A text in the language of the page; `{name}` stands for a value. */
export function say(key, values = {}) {
  return WORDS[language][key].replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/** A number as it is written in the language of the page. */
export function number(value, digits = 0) {
  return value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
