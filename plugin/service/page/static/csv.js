// CSV and TSV files as lines of JSON, which the service takes. The first row names the fields.

/** The rows of a text: lists of cells, by RFC 4180; cells in quotes may hold line ends and doubled quotes. */
export function rowsOf(text, separator) {
  const rows = [];
  let row = [];
  let cell = "";
  let quoted = false;
  const endRow = () => {
    if (row.length || cell) rows.push([...row, cell]);
    [row, cell] = [[], ""];
  };
  for (let i = 0; i < text.length; i++) {
    const letter = text[i];
    if (quoted) {
      if (letter !== '"') cell += letter;
      else if (text[i + 1] === '"') { cell += '"'; i++; }
      else quoted = false;
    } else if (letter === '"' && cell === "") quoted = true;
    else if (letter === separator) { row.push(cell); cell = ""; }
    else if (letter === "\n") endRow();
    else if (letter !== "\r") cell += letter;
  }
  if (quoted) throw new Error("unclosed");
  endRow();
  return rows;
}

const TEXTS = ["_id", "id", "text", "title"]; // which stay as they are
const NUMBER = /^-?(0|[1-9]\d{0,14})(\.\d{1,9})?$/;

/** The same rows as lines of JSON. Empty cells are left out; a column whose cells are all numbers becomes one of numbers.
 * Throws an Error whose message is "unclosed" or the number of the row with too many cells. */
export function asLines(text, separator) {
  const [names, ...rows] = rowsOf(text.replace(/^\ufeff/, ""), separator);
  const isNumber = names.map((name, i) => !TEXTS.includes(name) && rows.every((row) => !row[i] || NUMBER.test(row[i])));
  return rows.map((row, n) => {
    if (row.length > names.length) throw new Error(String(n + 2));
    const cells = row.map((cell, i) => [names[i], isNumber[i] ? Number(cell) : cell, cell]).filter(([, , cell]) => cell !== "");
    return `${JSON.stringify(Object.fromEntries(cells))}\n`;
  }).join("");
}
