// Indexes, jobs, and files that become documents: shown where the service lets its clients write.

import { ApiError, call, send } from "./api.js";
import { asLines } from "./csv.js";
import { number, say } from "./words.js";

const PART = 4 << 20; // bytes of an upload that are sent at a time
const TRIES = 4; // of a part whose connection breaks
const LOOK = 700; // ms between two looks at the jobs
const SHOWN = 20; // jobs

const $ = (id) => document.getElementById(id);

/** The part of the page for writing. `onChange` is called when an index has changed, `onProblem` with errors. */
export class Manage {
  constructor(onChange, onProblem) {
    Object.assign(this, { onChange, onProblem, timer: 0, running: new Set() });
    $("file").addEventListener("change", () => this.take($("file").files[0]));
    const area = $("drop");
    for (const name of ["dragenter", "dragover"]) area.addEventListener(name, (event) => { event.preventDefault(); area.classList.add("over"); });
    for (const name of ["dragleave", "drop"]) area.addEventListener(name, (event) => { event.preventDefault(); area.classList.remove("over"); });
    area.addEventListener("drop", (event) => this.take(event.dataTransfer.files[0]));
    $("manage").addEventListener("toggle", () => { if ($("manage").open) this.look(); });
  }

  async take(file) {
    $("file").value = "";
    const index = $("into").value.trim();
    if (!file) return;
    if (!index) {
      $("upload-state").textContent = say("nameFirst");
      $("into").focus();
      return;
    }
    try {
      const content = await contentOf(file);
      const upload = await this.upload(content, file.name);
      const { indexes } = await call("GET", "indexes");
      const exists = indexes.some((one) => one.name === index);
      const job = exists
        ? await call("POST", `indexes/${encodeURIComponent(index)}/documents`, { upload, mode: "upsert", wait: false })
        : await call("POST", "indexes", { name: index, upload, wait: false });
      this.running.add(job.id);
      $("upload-state").textContent = say("queued", { file: file.name });
      await this.look();
    } catch (error) {
      $("upload-state").textContent = error instanceof ApiError ? error.message : error.message === "unclosed" ? say("csvQuote") : say("csvRow", { n: error.message });
      if (error instanceof ApiError && error.status === 401) this.onProblem(error);
    }
  }

  /** Send the bytes in parts; after a broken connection it continues with what the service has. */
  async upload(content, name) {
    const { id } = await call("POST", "uploads");
    let at = 0;
    let tries = 0;
    while (at < content.size) {
      $("upload-state").textContent = say("sending", { file: name, share: number((100 * at) / content.size) });
      try {
        const answer = await send("PATCH", `uploads/${id}`, content.slice(at, at + PART), { "Content-Type": "application/x-ndjson", "Upload-Offset": String(at) });
        at = answer.received;
        tries = 0;
      } catch (error) {
        if (error.status !== 0 || ++tries === TRIES) throw error;
        await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** tries));
        at = (await call("GET", `uploads/${id}`)).received;
      }
    }
    return id;
  }

  /** Show indexes and jobs, again and again while a job has not ended. */
  async look() {
    clearTimeout(this.timer);
    try {
      const [{ indexes }, { jobs }] = await Promise.all([call("GET", "indexes"), call("GET", "jobs")]);
      this.showIndexes(indexes);
      $("jobs").replaceChildren(...jobs.slice(0, SHOWN).map(line));
      const going = new Set(jobs.filter((job) => job.ended === null).map((job) => job.id));
      if ([...this.running].some((id) => !going.has(id))) this.onChange();
      this.running = going;
      if (going.size && $("manage").open) this.timer = setTimeout(() => this.look(), LOOK);
    } catch (error) {
      this.onProblem(error);
    }
  }

  showIndexes(indexes) {
    $("index-names").replaceChildren(...indexes.map((one) => new Option(one.name, one.name)));
    const table = $("index-table");
    table.replaceChildren();
    const head = table.createTHead().insertRow();
    for (const title of [say("index"), say("rows"), say("version"), say("model")]) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = title;
      head.append(cell);
    }
    const body = table.createTBody();
    for (const one of indexes) {
      const row = body.insertRow();
      for (const text of [one.name, number(one.rows), one.version, one.model]) row.insertCell().textContent = text;
    }
  }
}

/** The lines of JSON of a file. */
async function contentOf(file) {
  const separator = { csv: ",", tsv: "\t" }[file.name.toLowerCase().split(".").pop()];
  if (!separator) return file;
  return new Blob([asLines(await file.text(), separator)]);
}

function line(job) {
  const item = document.createElement("li");
  const text = document.createElement("span");
  text.textContent = [job.kind, job.index, say(job.state === "queued" ? "queuedState" : job.state), job.stage && job.ended === null && `${job.stage} ${number(job.done)}${job.total ? ` / ${number(job.total)}` : ""}`].filter(Boolean).join(" · ");
  item.append(text);
  if (job.ended === null && job.total) {
    const meter = document.createElement("progress");
    [meter.max, meter.value] = [job.total, job.done];
    meter.setAttribute("aria-label", `${job.kind} ${job.index}`);
    item.append(" ", meter);
  }
  if (job.error) item.append(` – ${job.error}`);
  if (job.rejected) {
    const details = document.createElement("details");
    const summary = document.createElement("summary");
    summary.textContent = say("leftOut", { n: number(job.rejected) });
    const list = document.createElement("ul");
    for (const reject of job.rejects) {
      const entry = document.createElement("li");
      entry.textContent = Object.values(reject).filter((value) => value !== null).join(": ");
      list.append(entry);
    }
    details.append(summary, list);
    item.append(details);
  }
  return item;
}
