"""Processes killed at random moments; what they leave, and what repeating the operation makes of it."""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

from tansaku import (
    Document,
    Hit,
    InputError,
    Searcher,
    TableExistsError,
)
from tansaku.indexer.read.passages import split_documents
from tansaku.indexer.table.codec_table import codec_table
from tansaku.indexer.table.database import connect
from tansaku.indexer.table.table import open_index_table

from .support import TABLE, Child
from .work import OPERATIONS, PASSAGE_TOKENS, SETTINGS, Setting, State, document, operate

_ROUNDING = 1e-4


@dataclass
class Counts:
    """What was found after the kills."""

    kills: collections.Counter = field(default_factory=collections.Counter)
    committed: collections.Counter = field(default_factory=collections.Counter)
    wrong: collections.Counter = field(default_factory=collections.Counter)
    resumed_rows: int = 0
    compared: int = 0
    equal: int = 0


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
        kind = {"real": self.setting.real, "passages": self.setting.passages, "fulltext": self.setting.fulltext}
        self.child = Child("work", db=str(self.db), **kind)
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
        for folder in [*folders, side, side / "build", side / "merge", side / "arrays"]:
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
            if between:
                found = before
            else:
                found = self.state_of(rows, job)
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

        if self.setting.fulltext:
            self.check_words(job, table)

    def check_words(self, job: dict[str, Any], searcher: Searcher) -> None:
        """Full-text search finds the rows that have a rare word: the number of one document."""
        for number in self.draw.sample(sorted(self.state or {}), min(3, len(self.state or {}))):
            content = self.content(self.db)
            wanted = {row["id"] for row in content.to_pylist() if f"の{number}、" in row["text"]}
            hits = searcher.search(f"の{number}、", 1_000, source="text", candidates=100_000)
            found = {hit.id for hit in hits if f"の{number}、" in hit.text}
            if found != wanted:
                self.fail("unreadable", job, f"full text finds {sorted(found)} of {sorted(wanted)} for {number}")

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
        *cheap, real = runs
        run = real if total % 10 == 9 else cheap[total // len(OPERATIONS) % len(cheap)]
        run.kill(draw.choice(OPERATIONS) if run is real else OPERATIONS[total % len(OPERATIONS)])
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
