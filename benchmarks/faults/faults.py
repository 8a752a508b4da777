"""Robustness: processes killed at random moments, fuzzed files, and readers beside a writer that never rests.

    python benchmarks/faults/faults.py [--only kills|fuzz|reader] [--kills 100] [--lines 20000] [--seconds 60]

kills: a worker process builds, appends, upserts, deletes, optimizes, rebuilds and makes derived arrays; SIGKILL ends it
at a random moment of one of these. After each kill the table is looked at, by plain LanceDB and by tansaku: it must be
as it was before the operation or as it is after it, with codes that decode to its texts, and a search over derived
arrays must find what one over the table finds. Then the operation is repeated with ``resume`` (now and then killed
again), and its result compared with that of the same operation on a copy of the database, never interrupted. "bulk" is
an append or upsert of several transactions, of which each must be there as a whole or not at all.

fuzz: mutated JSONL, TSV and CSV lines go through `Source` and `Index.create` or `upsert`, with a file for rejects. What
was read is counted from the raw bytes; each record must be either in the file for rejects, with a reason, or in the
table as it was given.

reader: one process writes all the time and optimizes, keeping nothing or a minute; two others search and refresh, over
derived arrays and over the table, in two threads each. All rows of a group are given their generation in one upsert: an
answer with two generations, or with another number of rows, is one that no version of the table gives.

Kills and the rest use an encoder that costs next to nothing, so that the time goes into storage; every tenth kill is of
the model that ships inside. The exit status is 1 if anything was not as it should be.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import csv
import json
import math
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

from tansaku import (
    Bundle,
    Document,
    Encoder,
    Hit,
    Index,
    InputError,
    Rejects,
    Searcher,
    Source,
    SourceError,
    TableExistsError,
    TextRules,
)
from tansaku.indexer.read.passages import split_documents
from tansaku.indexer.table import changes
from tansaku.indexer.table.codec_table import codec_table
from tansaku.indexer.table.database import connect
from tansaku.indexer.table.table import open_index_table

TABLE = "docs"
PASSAGE_TOKENS = 20
FAILURES_SHOWN = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--lines", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--process", choices=PROCESSES, help=argparse.SUPPRESS)  # what the parts start
    parser.add_argument("--arguments", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        PROCESSES[options.process](**options.arguments)
        return
    from quality import cpu_name  # not above: it brings what the child processes need not load

    print(f"{date.today()}, {cpu_name()}, lancedb {lancedb.__version__}, seed {options.seed}")
    failures: list[str] = []
    for name, part in PARTS.items():
        if options.only in (None, name):
            started = time.perf_counter()
            with tempfile.TemporaryDirectory(prefix="tansaku-faults-") as folder:
                found = part(Path(folder), options)
            print(f"  {len(found)} failures in {time.perf_counter() - started:.0f} s", flush=True)
            failures += found
    for failure in failures[:FAILURES_SHOWN]:
        print(f"FAILURE {failure}")
    sys.exit(1 if failures else 0)


class CharacterEncoder:
    """Looks like `Encoder`: a token for each of the first 64 characters, each character's vector drawn once."""

    dim = 16

    def __init__(self) -> None:
        rules = TextRules("", None, 64)
        self.bundle = Bundle("characters", self.dim, "float32", rules, rules)
        vectors = np.random.default_rng(0).standard_normal((512, self.dim)).astype(np.float32)
        self._vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def tokenize_documents(self, texts: Sequence[str]) -> list[SimpleNamespace]:
        return [SimpleNamespace(ids=[ord(c) % 512 for c in text[:64]], truncated=len(text) > 64) for text in texts]

    def count_document_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

    def encode_tokens(self, tokenized: Sequence[SimpleNamespace]) -> list[np.ndarray]:
        return [self._vectors[text.ids] for text in tokenized]

    def encode_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        return self.encode_tokens(self.tokenize_documents(texts))

    encode_queries = encode_documents


class Child:
    """Another process of this file, which answers a line of JSON with a line of JSON."""

    def __init__(self, process: str, **arguments: Any) -> None:
        command = [sys.executable, __file__, "--process", process, "--arguments", json.dumps(arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, message: Any) -> None:
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def answer(self, timeout: float = 300) -> Any:
        """The next line; None if there is none in that time."""
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            return None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a child process ended with status {self._process.wait()}")
        return json.loads(line)

    def has_answered(self) -> bool:
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self.close()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


# --- kills -----------------------------------------------------------------------------------------------------------

_ROUNDING = 1e-4
OPERATIONS = ("build", "append", "upsert", "delete", "optimize", "rebuild", "read", "bulk", "overwrite")
State = dict[int, int]  # document number → generation


@dataclass(frozen=True)
class Setting:
    """A kind of database that is worked on."""

    real: bool
    passages: bool
    documents: int  # of a build

    def encoder(self) -> Any:
        return Encoder.load(threads=1) if self.real else CharacterEncoder()

    @property
    def passage_tokens(self) -> int | None:
        return PASSAGE_TOKENS if self.passages else None


SETTINGS = (Setting(False, False, 700), Setting(False, True, 400), Setting(True, False, 40))


@dataclass
class Counts:
    """What was found after the kills."""

    kills: collections.Counter = field(default_factory=collections.Counter)
    committed: collections.Counter = field(default_factory=collections.Counter)
    wrong: collections.Counter = field(default_factory=collections.Counter)
    resumed_rows: int = 0
    compared: int = 0
    equal: int = 0


def document(number: int, generation: int) -> dict[str, Any]:
    """What a document is at a generation: its text, and in passages their number, change with it."""
    draw = random.Random(number * 1000 + generation)
    sentences = [f"{draw.choice('山川海空森町駅城')}の{number}、{generation}版{i}。" for i in range(draw.randint(1, 3))]
    title = f"題{number}" if number % 3 else ""
    return {"id": f"d{number}", "title": title, "text": "".join(sentences), "generation": generation}


def documents(state: Mapping[int, int]) -> list[dict[str, Any]]:
    return [document(number, generation) for number, generation in state.items()]


def work(db: str, real: bool, passages: bool) -> None:
    """The worker: does what it is told until it is killed."""
    setting = Setting(real, passages, 0)
    encoder = setting.encoder()
    slice_bytes = changes.SLICE_BYTES
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        changes.SLICE_BYTES = 1 if job["operation"] == "bulk" else slice_bytes
        try:
            answer = {"resumed": operate(db, setting, encoder, job)}
        except Exception as error:  # what it is is for the parent to judge
            answer = {"error": type(error).__name__, "message": str(error), "trace": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


def operate(db: str, setting: Setting, encoder: Any, job: dict[str, Any]) -> int:
    """Do one operation; returns how many rows of it had been done before."""
    operation, state = job["operation"], {int(number): g for number, g in job["change"].items()}
    report = None
    if operation in ("build", "overwrite"):
        index = Index.create(
            db,
            TABLE,
            documents(state),
            encoder=encoder,
            passage_tokens=setting.passage_tokens,
            overwrite=operation == "overwrite",
            resume=True,
        )
        report = index.last_build
    elif operation == "read":
        Searcher.open(db, TABLE, encoder=encoder).search("山の話")
    else:
        index = Index.open(db, TABLE, encoder=encoder)
        if operation == "append":
            report = index.add(documents(state), resume=job["resume"])
        elif operation in ("upsert", "bulk"):
            report = index.upsert(documents(state), resume=job["resume"])
        elif operation == "delete":
            index.delete([f"d{number}" for number in state])
        elif operation == "optimize":
            index.optimize(keep=timedelta(seconds=job["keep"]))
        elif operation == "rebuild":
            report = index.rebuild(resume=True)
    return report.resumed if report else 0


class KillRun:
    """One database, the worker on it, and what must be in it."""

    def __init__(self, setting: Setting, folder: Path, draw: random.Random, counts: Counts) -> None:
        self.setting = setting
        self.db = folder / "db"
        self.copy = folder / "copy"
        self.draw = draw
        self.counts = counts
        self.failures: list[str] = []
        self.encoder = setting.encoder()
        self.state: State | None = None
        self.generation = 0
        self.usual = 0.3, 6  # seconds and new files of an operation that nothing interrupts
        self._known: dict[str, np.ndarray] = {}
        self._start()

    def _start(self) -> None:
        self.child = Child("work", db=str(self.db), real=self.setting.real, passages=self.setting.passages)
        self._ready = False

    def job(self, operation: str) -> dict[str, Any]:
        """An operation with numbers of its own, and the state it leads to."""
        self.generation += 1
        draw, n = self.draw, self.setting.documents
        state = self.state or {}
        fresh = max(state, default=0) + 1
        change: State = {}
        if operation in ("build", "overwrite"):
            change = dict.fromkeys(range(draw.randint(n // 2, n)), self.generation)
        elif operation == "append":
            change = dict.fromkeys(range(fresh, fresh + draw.randint(1, n // 10)), self.generation)
        elif operation in ("upsert", "bulk"):
            size = n if operation == "bulk" else n // 10
            old = draw.sample(sorted(state), min(len(state), draw.randint(1, size)))
            change = dict.fromkeys([*old, *range(fresh, fresh + draw.randint(1, size))], self.generation)
        elif operation == "delete":
            old = draw.sample(sorted(state), draw.randint(1, max(1, len(state) // 3)))
            change = dict.fromkeys([*old, fresh + 10**6], self.generation)
        after = dict(state)
        if operation == "delete":
            after = {number: g for number, g in state.items() if number not in change}
        elif operation in ("build", "overwrite"):
            after = change
        else:
            after |= change
        resume = operation in ("build", "overwrite", "rebuild", "bulk") or draw.random() < 0.7
        keep = draw.choice([0, 0, 60])
        return {"operation": operation, "change": change, "after": after, "resume": resume, "keep": keep}

    def prepare(self, operation: str) -> None:
        """Bring the database to where ``operation`` has something to do."""
        if operation == "build":
            database = connect(self.db, create=True)
            for name in (TABLE, codec_table(TABLE)):
                if name in database.list_tables().tables:
                    database.drop_table(name)
            self.state = None
            return
        if self.state is None or len(self.state) > 4 * self.setting.documents or len(self.state) < 10:
            self.finish(self.job("build" if self.state is None else "overwrite"))
        if operation in ("read", "optimize"):
            for _ in range(self.draw.randint(1, 3)):
                self.finish(self.job(self.draw.choice(["append", "upsert", "delete"])))
        if operation == "read" and self.draw.random() < 0.3:
            shutil.rmtree(self.db / f"{TABLE}.tansaku" / "arrays", ignore_errors=True)

    def finish(self, job: dict[str, Any]) -> None:
        """Do an operation without interrupting it."""
        self._await_ready()
        self.child.send(job)
        answer = self.child.answer()
        if answer is None or "error" in answer:
            self.fail("error", job, str(answer))
        self.state = job["after"]

    def kill(self, operation: str) -> None:
        """Kill the worker at a random moment of ``operation``, look at what is there, and have it done again."""
        self.prepare(operation)
        job, before = self.job(operation), self.state
        uninterrupted = self.uninterrupted(job)
        while not self.interrupted(job):
            self.state = job["after"]
            self.prepare(operation)
            job, before = self.job(operation), self.state
            uninterrupted = self.uninterrupted(job)
        found = self.check(job, before)
        killed = True
        while killed and found != job["after"] and self.draw.random() < 0.2:
            killed = self.interrupted(job)
            found = self.check(job, before) if killed else job["after"]
        if killed and found == job["after"] and before != job["after"]:
            self.counts.committed[operation] += 1
        self.repeat(job, found)
        if self.check(job, job["after"]) == job["after"]:
            self.state = job["after"]
            self.compare(job, uninterrupted)
        else:
            self.state = None
            shutil.rmtree(self.db)

    def interrupted(self, job: dict[str, Any]) -> bool:
        """Have ``job`` done and kill the worker meanwhile; false if it was done by then.

        The moment is one of two kinds, in turn: a time, or when so many files have come into the database's folders.
        """
        operation = job["operation"]
        self._await_ready()
        seconds = self.draw.uniform(0, 1.2 * self.usual[0])
        files = self.draw.randint(1, self.usual[1])
        by_time = self.draw.random() < 0.5
        seen = self._files(self.db)
        n_old = len(seen)
        started = time.perf_counter()
        self.child.send(job)
        while not self.child.has_answered():
            seen |= self._files(self.db)
            if (time.perf_counter() - started >= seconds) if by_time else (len(seen) - n_old >= files):
                time.sleep(self.draw.uniform(0, 0.002))
                self.child.kill()
                self._start()
                self.counts.kills[operation] += 1
                return True
        answer = self.child.answer()
        if "error" in answer:
            self.fail("error", job, str(answer))
        return False

    @staticmethod
    def _files(db: Path) -> set[str]:
        side = db / f"{TABLE}.tansaku"
        tables = [db / f"{name}.lance" for name in (TABLE, codec_table(TABLE))]
        folders = [table / kind for table in tables for kind in ("_versions", "_transactions", "_deletions", "data")]
        names: set[str] = set()
        for folder in [*folders, side, side / "build", side / "arrays"]:
            with contextlib.suppress(OSError):
                names.update(os.path.join(folder, name) for name in os.listdir(folder))
        return names

    def repeat(self, job: dict[str, Any], found: State | None) -> None:
        """Have an interrupted operation done again, to its end."""
        self._await_ready()
        self.child.send(job)
        answer = self.child.answer()
        error = (answer or {}).get("error")
        # What was killed after its last step is done, and cannot be done twice.
        done_already = error in (TableExistsError.__name__, InputError.__name__) and "already" in answer["message"]
        if answer is None or (error and not (done_already and found == job["after"])):
            self.fail("error", job, f"when repeated: {answer}")
        self.counts.resumed_rows += (answer or {}).get("resumed", 0)

    def check(self, job: dict[str, Any], before: State | None) -> State | None:
        """What the database holds; failures are noted unless it is ``before`` or what ``job`` leads to."""
        after = job["after"]
        try:
            database = lancedb.connect(str(self.db))
            if TABLE not in database.list_tables().tables or not _opens(database):
                if before is not None:
                    self.fail("lost", job, "the table is gone")
                return None
            rows = database.open_table(TABLE).to_arrow()
            # Between the transactions of an upsert of passages there are old ones beside new ones.
            between = self.setting.passages and job["operation"] == "bulk" and before is not after
            found = before if between else self.state_of(rows, job)
            if not between:
                self.check_state(found, before, job)
            self.check_codes(rows, job)
            self.check_search(job)
        except Exception:
            self.fail("unreadable", job, traceback.format_exc())
            return None
        return after if found == after else before

    def state_of(self, rows: pa.Table, job: dict[str, Any]) -> State:
        """The state that the rows are in; what is no document of a known generation is noted."""
        ids = rows["id"].to_pylist()
        if len(set(ids)) < len(ids):
            self.fail("doubled", job, f"{len(ids) - len(set(ids))} rows")
        owner = "parent_id" if self.setting.passages else "id"
        contents = rows.select(["id", "title", "text", "generation"]).to_pylist()
        by_document: dict[str, list[dict[str, Any]]] = {}
        for doc_id, row in zip(rows[owner].to_pylist(), contents, strict=True):
            by_document.setdefault(doc_id, []).append(row)
        state = {}
        for doc_id, its_rows in by_document.items():
            number, generation = int(doc_id[1:]), its_rows[0]["generation"]
            expected = self.rows_of(number, generation)
            if sorted(its_rows, key=lambda row: row["id"]) != expected:
                self.fail("half", job, f"{doc_id}: {len(its_rows)} rows, first {its_rows[0]}")
            state[number] = generation
        return state

    def rows_of(self, number: int, generation: int) -> list[dict[str, Any]]:
        whole = document(number, generation)
        if not self.setting.passages:
            return [whole]
        given = Document(whole["id"], whole["text"], whole["title"])
        passages = split_documents([given], PASSAGE_TOKENS, self.encoder.count_document_tokens)
        rows = [{"id": p.id, "title": p.title, "text": p.text, "generation": generation} for p in passages]
        return sorted(rows, key=lambda row: row["id"])

    def check_state(self, found: State, before: State | None, job: dict[str, Any]) -> None:
        after = job["after"]
        if before is None and found != after:
            self.fail("half", job, f"a table of {len(found)} of {len(after)} documents")
            return
        before = before or {}
        touched = [number for number in before | after if before.get(number) != after.get(number)]
        for number in before | after | found:
            if found.get(number) not in (before.get(number), after.get(number)):
                kind = "lost" if number not in found else "half"
                self.fail(kind, job, f"d{number} has generation {found.get(number)}")
                return
        done = [found.get(number) == after.get(number) for number in touched]
        if job["operation"] == "bulk":  # a transaction for each chunk, in order
            order = list(job["change"])
            done = [found.get(n) == after[n] for n in order]
            chunks = [done[i : i + 512] for i in range(0, len(done), 512)]
            whole = all(len(set(chunk)) == 1 for chunk in chunks)
            if not whole or [chunk[0] for chunk in chunks] != sorted((chunk[0] for chunk in chunks), reverse=True):
                self.fail("half", job, f"transactions done: {[sum(chunk) for chunk in chunks]}")
        elif len(set(done)) > 1:
            self.fail("half", job, f"{sum(done)} of {len(done)} changes")

    def check_codes(self, rows: pa.Table, job: dict[str, Any]) -> None:
        """Codes must have the right lengths and decode to vectors near those of the row's text."""
        codec = open_index_table(connect(self.db), TABLE).codec
        ids, residuals, counts = (rows[name].to_pylist() for name in ("centroid_ids", "residuals", "token_count"))
        for id_bytes, residual_bytes, count in zip(ids, residuals, counts, strict=True):
            expected = count * codec.id_dtype.itemsize, count * codec.residual_bytes
            if (len(id_bytes), len(residual_bytes)) != expected:
                self.fail(
                    "unreadable", job, f"codes of {len(id_bytes)} and {len(residual_bytes)} bytes, not {expected}"
                )
                return
        texts = [
            f"{t} {x}" if t else x for t, x in zip(rows["title"].to_pylist(), rows["text"].to_pylist(), strict=True)
        ]
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known |= dict(zip(new, self.encoder.encode_documents(new), strict=True))
        decoded = codec.decode(
            np.frombuffer(b"".join(ids), codec.id_dtype),
            np.frombuffer(b"".join(residuals), np.uint8).reshape(-1, codec.residual_bytes),
        )
        cosines = np.sum(decoded * np.concatenate([self._known[text] for text in texts]), axis=1)
        starts = np.cumsum([0, *counts[:-1]])
        lowest = float((np.add.reduceat(cosines, starts) / np.array(counts)).min())
        if lowest < 0.7:
            self.fail("unreadable", job, f"a row's codes decode to vectors of cosine {lowest:.2f} with its text's")

    def check_search(self, job: dict[str, Any]) -> None:
        table, arrays = (Searcher.open(self.db, TABLE, encoder=self.encoder, derived=d) for d in (False, True))
        if len(table) != len(arrays):
            self.fail("unreadable", job, f"{len(table)} rows, but {len(arrays)} in derived arrays")
        for candidates in (20, None):
            query = f"{self.draw.choice('山川海')}の{self.draw.randint(0, 99)}、{self.generation}版"
            hits, others = (searcher.search(query, 20, candidates=candidates) for searcher in (table, arrays))
            if not same_hits(hits, others):
                first = next((a, b) for a, b in zip(hits, others, strict=True) if a != b)
                self.fail("unreadable", job, f"derived arrays find other hits for {query!r} ({candidates}): {first}")

    def uninterrupted(self, job: dict[str, Any]) -> pa.Table:
        """The table that an operation leads to which nothing interrupts, on a copy of the database."""
        shutil.rmtree(self.copy, ignore_errors=True)
        if self.db.exists():
            shutil.copytree(self.db, self.copy)
        before, started = self._files(self.copy), time.perf_counter()
        operate(str(self.copy), self.setting, self.encoder, job)
        files = len(self._files(self.copy) - before) + 2  # and some that are there for a while only
        self.usual = time.perf_counter() - started, files
        return self.content(self.copy)

    def compare(self, job: dict[str, Any], expected: pa.Table) -> None:
        self.counts.compared += 1
        if self.content(self.db).equals(expected):
            self.counts.equal += 1
        else:
            self.fail("other result", job, "the table differs from that of an uninterrupted operation")

    @staticmethod
    def content(db: Path) -> pa.Table:
        rows = lancedb.connect(str(db)).open_table(TABLE).to_arrow()
        drawn = [name for name in rows.column_names if name == "write_id" or name.startswith("build_")]
        return rows.drop_columns(drawn).sort_by("id").combine_chunks().replace_schema_metadata(None)

    def fail(self, kind: str, job: dict[str, Any], message: str) -> None:
        self.counts.wrong[kind] += 1
        about = f"{kind} after {job['operation']} (resume {job['resume']}, {len(job['change'])} documents)"
        self.failures.append(f"{about}: {message}")

    def _await_ready(self) -> None:
        if not self._ready:
            self.child.answer()
            self._ready = True


def same_hits(hits: Sequence[Hit], others: Sequence[Hit]) -> bool:
    """Whether two answers agree; scores may differ by rounding, and then the order of hits that lie so close."""
    if len(hits) != len(others):
        return False
    if not hits:
        return True
    if any(abs(a.score - b.score) > _ROUNDING for a, b in zip(hits, others, strict=True)):
        return False
    last = hits[-1].score + 2 * _ROUNDING  # those at the end may be others
    above = [{hit.id: (hit.title, hit.text, hit.fields) for hit in h if hit.score > last} for h in (hits, others)]
    return above[0] == above[1]


def _opens(database: Any) -> bool:
    try:
        database.open_table(TABLE)
    except ValueError as error:  # listed, but never committed
        if "not found" in str(error):
            return False
        raise
    return True


def kills(folder: Path, options: argparse.Namespace) -> list[str]:
    draw = random.Random(options.seed)
    counts = Counts()
    runs = []
    for number, setting in enumerate(SETTINGS):
        (folder / str(number)).mkdir()
        runs.append(KillRun(setting, folder / str(number), draw, counts))
    total = 0
    while (done := sum(counts.kills.values())) < options.kills:
        run = runs[2] if total % 10 == 9 else runs[total // len(OPERATIONS) % 2]
        run.kill(draw.choice(OPERATIONS) if run is runs[2] else OPERATIONS[total % len(OPERATIONS)])
        total += 1
        if sys.stderr.isatty():
            print(f"\r{done} kills", end="", file=sys.stderr)
    for run in runs:
        run.child.close()
    print(f"\n{sum(counts.kills.values())} kills")
    print(f"  {'in':<12}{'kills':>7}{'had committed':>15}")
    for operation in OPERATIONS:
        print(f"  {operation:<12}{counts.kills[operation]:>7}{counts.committed[operation]:>15}")
    print(
        "  " + ", ".join(f"{counts.wrong[kind]} {kind}" for kind in ("lost", "doubled", "unreadable", "half", "error"))
    )
    print(
        f"  {counts.equal} of {counts.compared} results of repeated operations equal those of uninterrupted ones; "
        f"{counts.resumed_rows:,} rows taken up from interrupted ones"
    )
    return [failure for run in runs for failure in run.failures]


# --- fuzz ------------------------------------------------------------------------------------------------------------

LINES_PER_FILE = 1000
HEADER = ["id", "title", "text", "note"]
ODD_TEXTS = [
    "",
    " ",
    "\u3000",
    "が",
    "か\u3099",
    "\ud800",
    "a\udc00b",
    "\x00",
    "\x1c",
    "\x85",
    "\u2028",
    "\ufeff",
    "😀" * 50,
    "長" * 5000,
]
ODD_NUMBERS = [
    0,
    -1,
    2**31,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64,
    -(2**63) - 1,
    10**400,
    0.5,
    -0.0,
    1e308,
    math.nan,
    math.inf,
]
ODD_VALUES = [
    None, True, False, [], {}, [[]], [{}], [None], [1, 2], [0.5], [2**53 + 1], ["x"], [1, None], [1, "x"], [True, 1],
    {"a": None}, {"a": {}}, {"a": 1}, {"a": 0.5}, {"a": 2**53 + 1}, {"a": "x"}, {"b": [1, "x"]}, {"a": [{"b": 1}]},
    {"a.b": 1}, {"": 1}, {"\x00": 1},
]  # fmt: skip
ODD_NAMES = [
    "token_count", "write_id", "residuals", "title", "_rowid", "_rowaddr", "_distance", "parent_id", "_id", "ID",
    "Text", "a.b", "", " ", "名", "a b", "a`b", 'a"b', "a'b", "a\\b", "\ud800", "\x00", "a\nb", "n" * 300,
    "year", "tags", "about",
]  # fmt: skip
ODD_BYTES = [
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xc3",
    b"\r",
    b"\n",
    b"\r\n",
    b"\xef\xbb\xbf",
    b'"',
    b"\\",
    b"{",
    b"[",
    b",",
    b"\t",
    b"\xe3\x80\x80",
]
BLANK = [b"", b" ", b"\t", b"\r", b"\xe3\x80\x80", b"\x0b", b"\xc2\x85", b" \t "]
_DEEP = b'{"id": "deep", "text": "x", "about": ' + b"[" * 20_000 + b"]" * 20_000 + b"}"


class Fuzz:
    """Draws mutated lines."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self._number = 0
        self._may_break_quotes = True
        self._ids: list[str] = ["か\u3099"]

    def file(self, kind: str) -> bytes:
        """The bytes of a file of about `LINES_PER_FILE` lines."""
        make = {"jsonl": self._json_line, "tsv": self._tsv_line, "csv": self._csv_line}[kind]
        self._may_break_quotes = kind != "csv" or self.draw.random() < 0.2  # such a CSV file is refused as a whole
        lines = [make() for _ in range(LINES_PER_FILE)]
        start = b"\xef\xbb\xbf" if self.draw.random() < 0.3 else b""
        if kind != "jsonl":
            lines.insert(0, {"tsv": b"\t", "csv": b","}[kind].join(name.encode() for name in HEADER))
        end = b"\r\n" if self.draw.random() < 0.3 else b"\n"
        return start + end.join(lines) + (end if self.draw.random() < 0.7 else b"")

    def _document(self) -> dict[str, Any]:
        self._number += 1
        record: dict[str, Any] = {"id": f"n{self._number}", "text": f"文書{self._number}の本文、海と山の話。"}
        self._ids.append(record["id"])
        kind = self._number % 4
        if kind:
            record |= {"title": f"題{self._number}", "year": 1900 + self._number % 100}
        if kind > 1:
            record |= {"tags": ["山", "海"][: self._number % 3], "about": {"a": self._number, "b": None}}
        return record

    def _json_line(self) -> bytes:
        draw, record = self.draw, self._document()
        plain = draw.random()
        if plain < 0.5:
            return json.dumps(record, ensure_ascii=draw.random() < 0.5).encode()
        if plain < 0.55:
            return draw.choice(BLANK)
        if plain < 0.552:
            return _DEEP
        for _ in range(draw.randint(1, 3)):
            self._mutate_record(record)
        if draw.random() < 0.1:
            return json.dumps(draw.choice([[record], "x", 1, None, list(record)])).encode()
        line = json.dumps(record, ensure_ascii=draw.random() < 0.7).encode("utf-8", "surrogatepass")
        return self._mutate_bytes(line) if draw.random() < 0.3 else line

    def _mutate_record(self, record: dict[str, Any]) -> None:
        draw = self.draw
        name = draw.choice(["id", "text", "title", "year", "tags", "about", "note", draw.choice(ODD_NAMES)])
        how = draw.random()
        if how < 0.15:
            record.pop(name, None)
        elif how < 0.3:
            record["id"] = draw.choice([*self._ids[-2000:], unicodedata.normalize("NFC", self._ids[0]), self._number])
        elif how < 0.5:
            record[name] = draw.choice(ODD_TEXTS) + draw.choice(["", "x"])
        elif how < 0.7:
            record[name] = draw.choice(ODD_NUMBERS)
        elif how < 0.95:
            record[name] = draw.choice(ODD_VALUES)
        else:
            value: Any = 1
            for _ in range(draw.randint(1, 30)):
                value = draw.choice([[value], {"a": value}])
            # In a field of its own: where [None] meets objects with lists of lists, LanceDB 0.40 cannot read it again.
            record["deep"] = value

    def _tsv_line(self) -> bytes:
        return self._row(b"\t", quoted=False)

    def _csv_line(self) -> bytes:
        return self._row(b",", quoted=True)

    def _row(self, separator: bytes, *, quoted: bool) -> bytes:
        draw, record = self.draw, self._document()
        if draw.random() < 0.05:
            return draw.choice(BLANK)
        values = [record["id"], record.get("title", ""), record["text"], f"注{self._number}"]
        for _ in range(draw.choice([0, 0, 1, 2])):
            position = draw.randrange(len(values))
            values[position] = draw.choice(
                [*ODD_TEXTS, *map(str, ODD_NUMBERS), *self._ids[-500:], "a,b", "a\tb", '"q"']
            )
        if draw.random() < 0.1:
            values = values[: draw.randint(0, 3)] if draw.random() < 0.5 else [*values, "more"]
        cells = [value.encode("utf-8", "surrogatepass") for value in values]
        if quoted:
            cells = [
                b'"' + c.replace(b'"', b'""') + b'"' if b'"' in c or b"," in c or draw.random() < 0.1 else c
                for c in cells
            ]
        line = separator.join(cells)
        return self._mutate_bytes(line) if draw.random() < 0.2 else line

    def _mutate_bytes(self, line: bytes) -> bytes:
        draw, data = self.draw, bytearray(line)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(data) + 1)
            how = draw.randrange(5)
            if how == 0 and at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            elif how == 1:
                del data[at:]
            elif how == 2:
                del data[at : at + draw.randint(1, 5)]
            elif how == 3:
                data[at:at] = draw.choice(ODD_BYTES)
            else:
                data[at:at] = data[at : at + draw.randint(1, 20)]
        return line if b'"' in bytes(data) + line and not self._may_break_quotes else bytes(data)


def records_by_line(kind: str, data: bytes) -> tuple[dict[int, Any], bool]:
    """By line number what each record holds, None for one that cannot be read; and whether all lines were read.

    Written anew from the documentation of `Source`, with none of its code.
    """
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not lines[-1]:
        lines.pop()
    found: dict[int, Any] = {}
    if kind == "csv":
        return _csv_records(lines)
    for number, line in enumerate(lines, 1):
        if kind == "tsv" and number == 1:
            continue
        try:
            text = line.removesuffix(b"\r").decode()
        except UnicodeDecodeError:
            found[number] = None
            continue
        if kind == "tsv":
            cells = text.split("\t")
            if text:
                found[number] = dict(zip(HEADER, cells, strict=True)) if len(cells) == len(HEADER) else None
        elif text.strip():
            try:
                found[number] = json.loads(text)
            except (ValueError, RecursionError):
                found[number] = None
    return found, True


def _csv_records(lines: list[bytes]) -> tuple[dict[int, Any], bool]:
    texts = [line.decode("utf-8", "backslashreplace") + "\n" for line in lines]
    reader = csv.reader(iter(texts), strict=True)
    found: dict[int, Any] = {}
    while True:
        first = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            found.pop(1, None)  # the header
            return found, True
        except csv.Error:
            if reader.line_num > first:
                return found, False
            found[first] = None
            continue
        bad = any(_is_bad(line) for line in lines[first - 1 : reader.line_num])
        if bad or (row and len(row) != len(HEADER)):
            found[first] = None
        elif row:
            found[first] = dict(zip(HEADER, row, strict=True))


def _is_bad(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return True
    return False


def same(value: Any, stored: Any) -> bool:
    """Whether a column's value is what was given: structs gain nulls, integers may be floats of the same value."""
    if isinstance(value, dict):
        if not isinstance(stored, dict) or not set(value) <= set(stored):
            return False
        return all(same(value.get(name), item) for name, item in stored.items())
    if isinstance(value, list):
        return isinstance(stored, list) and len(value) == len(stored) and all(map(same, value, stored))
    if isinstance(value, (str, bool)) or value is None or isinstance(stored, (str, bool)) or stored is None:
        return type(value) is type(stored) and value == stored
    return value == stored or (value != value and stored != stored)


def fuzz(folder: Path, options: argparse.Namespace) -> list[str]:
    fuzzer = Fuzz(options.seed)
    encoder = CharacterEncoder()
    failures: list[str] = []
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    number = 0
    while sum(count["lines"] for count in counts.values()) < options.lines:
        kind = ("jsonl", "jsonl", "jsonl", "tsv", "csv")[number % 5]
        place = folder / str(number)
        place.mkdir()
        known: dict[str, Any] = {}
        for call in ("create", "upsert"):
            path = place / f"{call}.{kind}"
            path.write_bytes(fuzzer.file(kind))
            counts[kind]["lines"] += path.read_bytes().count(b"\n") + 1
            try:
                failures += [
                    f"seed {options.seed}, {path.name} {number}: {f}"
                    for f in fuzz_file(path, call, known, encoder, counts[kind])
                ]
            except Exception as error:
                failures.append(f"seed {options.seed}, {path.name} {number}: {type(error).__name__}: {error}")
            if not known:
                break
        shutil.rmtree(place)
        number += 1
    print("\nfuzz")
    names = ("files", "lines", "records", "accepted", "rejected", "refused files")
    print("  " + f"{'':<7}" + "".join(f"{name:>15}" for name in names))
    for kind, count in counts.items():
        print("  " + f"{kind:<7}" + "".join(f"{count[name]:>15,}" for name in names))
    return failures


def fuzz_file(path: Path, call: str, known: dict[str, Any], encoder: Any, counts: collections.Counter) -> Iterator[str]:
    """Index one file and yield what is wrong; ``known`` maps ids to what the table holds, and is brought up to date."""
    kind = path.suffix[1:]
    expected, all_read = records_by_line(kind, path.read_bytes())
    db, rejects_path = path.parent / "db", path.parent / f"{call}.rejects"
    counts["files"] += 1
    with Rejects(rejects_path) as rejects:
        try:
            if call == "create":
                Index.create(db, TABLE, Source(path), encoder=encoder, rejects=rejects)
            else:
                Index.open(db, TABLE, encoder=encoder).upsert(Source(path), rejects=rejects)
        except SourceError as error:
            counts["refused files"] += 1
            if all_read or not str(error).startswith(f"{path}:"):
                yield f"refused: {error}"
            return
    lines = [] if not rejects_path.exists() else rejects_path.read_text(encoding="utf-8").split("\n")[:-1]
    noted = [json.loads(line) for line in lines]
    places = {note["place"]: note["reason"] for note in noted}
    accepted = {n: record for n, record in expected.items() if f"{path}:{n}" not in places}
    counts["records"] += len(expected)
    counts["accepted"] += len(accepted)
    counts["rejected"] += len(places)
    if not all_read:
        yield "broken CSV was not refused"
    if not len(rejects) == len(noted) == len(places):
        yield f"{len(rejects)} rejects, {len(noted)} in the file, {len(places)} places"
    for place, reason in places.items():
        if int(place.removeprefix(f"{path}:")) not in expected or not reason:
            yield f"no such record, or no reason: {place}: {reason!r}"
    for n, record in expected.items():
        place = f"{path}:{n}"
        if isinstance(record, dict) and set(record) == {"id", "text"} and place in places:
            usable = all(isinstance(v, str) and v.strip() and not _has_half(v) for v in record.values())
            if usable and "occurs twice" not in places[place] and "Unicode form" not in places[place]:
                yield f"rejected for nothing: {place}: {places[place]}"
    for n, record in accepted.items():
        if not isinstance(record, dict):
            yield f"line {n} cannot be read, but was not rejected"
            continue
        known[str(record["_id"] if "_id" in record else record["id"])] = record
    rows = {row["id"]: row for row in lancedb.connect(str(db)).open_table(TABLE).to_arrow().to_pylist()}
    if set(rows) != set(known):
        yield f"{len(known)} documents were accepted, {len(rows)} are in the table"
    for doc_id in rows.keys() & known.keys():
        record, row = known[doc_id], rows[doc_id]
        if (row["text"], row["title"]) != (record["text"], record.get("title") or ""):
            yield f"{doc_id!r}: the text or title is another"
        for name in set(record) - {"id", "_id", "text", "title"}:
            if not same(record[name], row[name]):
                yield f"{doc_id!r}: field {name!r} is {row[name]!r:.200}, not {record[name]!r:.200}"


def _has_half(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


# --- reader ----------------------------------------------------------------------------------------------------------

GROUPS, GROUP_ROWS = 5, 20
_NONE_BELOW = 10**9


def group_rows(group: int, generation: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"g{group}-{i}",
            "text": f"群{group}の{i}番、第{generation}版",
            "part_of": f"g{group}",
            "generation": generation,
        }
        for i in range(GROUP_ROWS)
    ]


def batch_rows(number: int, rows: int) -> list[dict[str, Any]]:
    return [
        {"id": f"b{number}-{i}", "text": f"組{number}の{i}番", "part_of": f"b{number}", "generation": rows}
        for i in range(rows)
    ]


def write(db: str, seconds: float, seed: int) -> None:
    """The writer: small changes without a pause."""
    draw, encoder = random.Random(seed), CharacterEncoder()
    index = Index.open(db, TABLE, encoder=encoder)
    done: collections.Counter = collections.Counter()
    errors: collections.Counter = collections.Counter()
    batches: list[int] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        number = sum(done.values())
        operation = draw.choices(
            ["upsert", "add", "delete", "optimize, keeping 0", "optimize, keeping 1 min", "rebuild"],
            [60, 18, 18, 3, 1, 0.5],
        )[0]
        try:
            if operation == "upsert":
                index.upsert(group_rows(draw.randrange(GROUPS), number + 1))
            elif operation == "add":
                index.add(batch_rows(number, draw.randint(1, 30)))
                batches.append(number)
            elif operation == "delete" and batches:
                index.delete(where=f"part_of = 'b{batches.pop(draw.randrange(len(batches)))}'")
            elif operation == "rebuild":
                index.rebuild()
            elif operation.startswith("optimize"):
                index.optimize(keep=timedelta(minutes=int(operation.endswith("min"))))
            done[operation] += 1
        except Exception as error:
            errors[f"writer, {operation}: {type(error).__name__}: {error}"] += 1
    print(json.dumps({"done": done, "errors": errors}), flush=True)


def read(db: str, derived: bool, seconds: float) -> None:
    """A reader: two threads with one Searcher, one of them refreshing it before every search."""
    encoder = CharacterEncoder()
    searcher = Searcher.open(db, TABLE, encoder=encoder, derived=derived)
    errors: collections.Counter = collections.Counter()
    wrong: collections.Counter = collections.Counter()
    latencies: list[float] = []
    refreshes: list[float] = []
    versions = {searcher.version}
    until = time.monotonic() + seconds

    def loop(refresh: bool, seed: int) -> None:
        draw = random.Random(seed)
        while time.monotonic() < until:
            try:
                started = time.perf_counter()
                if refresh:
                    searcher.refresh()
                    refreshes.append(time.perf_counter() - started)
                    versions.add(searcher.version)
                started = time.perf_counter()
                hits = searcher.search(f"群{draw.randrange(GROUPS)}の番", k=100_000, candidates=_NONE_BELOW)
                latencies.append(time.perf_counter() - started)
            except Exception as error:
                errors[
                    f"{'refreshing' if refresh else 'searching'}, derived={derived}: {type(error).__name__}: {error}"
                ] += 1
                continue
            wrong.update(inconsistencies([(hit.id, hit.text, hit.fields) for hit in hits]))

    threads = [threading.Thread(target=loop, args=(refresh, seed)) for seed, refresh in enumerate((True, False))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(
        json.dumps(
            {
                "errors": errors,
                "wrong": wrong,
                "searches": len(latencies),
                "latencies": [float(np.quantile(latencies, q)) for q in (0.5, 0.95)],
                "refreshes": len(refreshes),
                "refresh_latencies": [float(np.quantile(refreshes, q)) for q in (0.5, 0.95)],
                "versions": len(versions),
            }
        ),
        flush=True,
    )


def inconsistencies(hits: Sequence[tuple[str, str, dict[str, Any]]]) -> Iterator[str]:
    """What no single version of the table would give."""
    parts: dict[str, list[tuple[str, str, int]]] = collections.defaultdict(list)
    for doc_id, text, fields in hits:
        parts[fields["part_of"]].append((doc_id, text, fields["generation"]))
    if len({doc_id for doc_id, _, _ in hits}) < len(hits):
        yield "an id twice"
    if sum(name.startswith("g") for name in parts) != GROUPS:
        yield f"{sum(name.startswith('g') for name in parts)} groups, not {GROUPS}"
    for name, rows in parts.items():
        generations = {generation for _, _, generation in rows}
        if len(generations) > 1:
            yield "two generations in one group"
        elif name.startswith("g") and not all(text.endswith(f"第{generations.copy().pop()}版") for _, text, _ in rows):
            yield "a text of another generation"
        if len(rows) != (GROUP_ROWS if name.startswith("g") else rows[0][2]):
            yield "a part of a group"


def reader(folder: Path, options: argparse.Namespace) -> list[str]:
    db = str(folder / "db")
    start = [row for group in range(GROUPS) for row in group_rows(group, 0)]
    Index.create(db, TABLE, start + batch_rows(10**6, 200), encoder=CharacterEncoder())
    seconds = options.seconds
    writer = Child("write", db=db, seconds=seconds + 1, seed=options.seed)
    readers = [Child("read", db=db, derived=derived, seconds=seconds) for derived in (True, False)]
    results = [child.answer(timeout=seconds + 120) for child in readers]
    written = writer.answer(timeout=120)
    print(f"\nreaders beside a writer, {seconds:.0f} s: {sum(written['done'].values())} writes", end="")
    print(f" ({', '.join(f'{n} {name}' for name, n in written['done'].items())})")
    columns = ("searches/s", "p50 ms", "p95 ms", "refreshes/s", "p50 ms", "p95 ms", "versions", "errors", "wrong")
    print(f"  {'':<8}" + "".join(f"{column:>12}" for column in columns))
    failures = [f"{n} times {error}" for error, n in written["errors"].items()]
    for name, result in zip(("derived", "table"), results, strict=True):
        times = [1000 * value for value in (*result["latencies"], *result["refresh_latencies"])]
        rates = (result["searches"] / seconds, *times[:2], result["refreshes"] / seconds, *times[2:])
        counted = (result["versions"], sum(result["errors"].values()), sum(result["wrong"].values()))
        print(f"  {name:<8}" + "".join(f"{n:>12.1f}" for n in rates) + "".join(f"{n:>12}" for n in counted))
        failures += [f"{n} times {what}" for what, n in {**result["errors"], **result["wrong"]}.items()]
    for child in (writer, *readers):
        child.close()
    return failures


PARTS: dict[str, Callable[[Path, argparse.Namespace], list[str]]] = {"kills": kills, "fuzz": fuzz, "reader": reader}
PROCESSES: dict[str, Callable[..., None]] = {"work": work, "write": write, "read": read}

if __name__ == "__main__":
    main()
