// The heat map of one hit: words of the question by words of its text.

import { characters } from "./marks.js";
import { say } from "./words.js";

const CELL = 16; // pixels
const PAIRS = 30; // in the table

/** Draw the similarities of `explanation` on `canvas`, and say those of the chosen cell in `line`. */
export class HeatMap {
  constructor(canvas, line, table) {
    this.canvas = canvas;
    this.line = line;
    this.table = table;
    this.chosen = [0, 0];
    canvas.addEventListener("keydown", (event) => this.onKey(event));
    canvas.addEventListener("pointermove", (event) => this.onPointer(event));
    canvas.addEventListener("focus", () => this.choose(...this.chosen));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  show(explanation) {
    const text = characters(explanation.text);
    this.rows = explanation.matches.map((match, i) => ({ i, word: match.query_text, weight: match.weight })).filter((row) => row.word);
    this.columns = explanation.document_spans.map((span, j) => ({ j, word: span ? text.slice(...span).join("") : "" })).filter((column) => column.word);
    this.values = this.rows.map((row) => this.columns.map((column) => explanation.similarities[row.i][column.j]));
    this.best = this.values.map((row) => row.indexOf(Math.max(...row)));
    this.chosen = [0, 0];
    this.draw();
    this.tabulate();
    this.choose(0, this.best[0] ?? 0);
  }

  draw() {
    if (!this.rows) return;
    const style = getComputedStyle(this.canvas);
    const [ink, paper, amber] = ["--ink", "--paper", "--heat"].map((name) => style.getPropertyValue(name).trim());
    const context = this.canvas.getContext("2d");
    context.font = "13px sans-serif";
    const left = Math.ceil(Math.max(0, ...this.rows.map((row) => context.measureText(row.word).width))) + 8;
    const top = Math.ceil(Math.min(140, Math.max(0, ...this.columns.map((column) => 13 * characters(column.word).length)))) + 6;
    const width = left + CELL * this.columns.length + 1;
    const height = top + CELL * this.rows.length + 1;
    const scale = Math.min(devicePixelRatio || 1, 16000 / width); // browsers refuse wider ones
    [this.canvas.width, this.canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    Object.assign(this, { left, top });
    context.scale(scale, scale);
    context.fillStyle = paper;
    context.fillRect(0, 0, width, height);
    context.font = "13px sans-serif";
    context.textBaseline = "middle";
    context.fillStyle = ink;
    this.rows.forEach((row, i) => context.fillText(row.word, 2, top + CELL * (i + 0.5)));
    this.columns.forEach((column, j) => {
      characters(column.word).slice(0, 10).forEach((letter, n, letters) => {
        context.fillText(letter, left + CELL * j + 1, top - 13 * (letters.length - n) + 4);
      });
    });
    context.fillStyle = amber;
    this.values.forEach((row, i) => row.forEach((value, j) => {
      context.globalAlpha = Math.max(0, Math.min(1, value)) ** 2;
      context.fillRect(left + CELL * j, top + CELL * i, CELL - 1, CELL - 1);
    }));
    context.globalAlpha = 1;
    context.strokeStyle = ink;
    this.best.forEach((j, i) => context.strokeRect(left + CELL * j + 0.5, top + CELL * i + 0.5, CELL - 2, CELL - 2));
    this.canvas.setAttribute("aria-label", say("canvas", { q: this.rows.length, d: this.columns.length }));
  }

  choose(i, j) {
    if (!this.rows?.length || !this.columns.length) return;
    this.chosen = [Math.max(0, Math.min(this.rows.length - 1, i)), Math.max(0, Math.min(this.columns.length - 1, j))];
    const [row, column] = this.chosen;
    const values = { q: this.rows[row].word, d: this.columns[column].word, s: this.values[row][column].toFixed(3) };
    this.line.textContent = say("cell", values) + (this.best[row] === column ? say("best") : "");
  }

  onKey(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    this.choose(this.chosen[0] + step[0], this.chosen[1] + step[1]);
  }

  onPointer(event) {
    const box = this.canvas.getBoundingClientRect();
    const [i, j] = [(event.clientY - box.top - this.top) / CELL, (event.clientX - box.left - this.left) / CELL];
    if (i >= 0 && j >= 0) this.choose(Math.floor(i), Math.floor(j));
  }

  tabulate() {
    const pairs = this.values.flatMap((row, i) => row.map((value, j) => ({ value, i, j })));
    pairs.sort((a, b) => b.value - a.value);
    this.table.replaceChildren(...pairs.slice(0, PAIRS).map(({ value, i, j }) => {
      const line = document.createElement("tr");
      for (const text of [this.rows[i].word, this.columns[j].word, value.toFixed(3)]) line.insertCell().textContent = text;
      return line;
    }));
  }
}
