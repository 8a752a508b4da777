"""Builds on Ray in which a worker, a node or the driver is killed at a random moment, and done again where need be."""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import lancedb

from tansaku.indexer.read.scan import DOCUMENTS_PER_CHUNK

from ..faults.support import ROOT, TABLE
from ..support.object_store import ObjectStore
from .logged import document
from .processes import mark, marked

_KINDS = ("worker", "node", "driver")
_ACTORS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this part."""
    parser.add_argument("--builds", type=int, default=50, help="number of builds with a kill")
    parser.add_argument("--documents", type=int, default=20_000, help="number of documents of a build")
    parser.add_argument("--store", choices=["folder", "s3"], default="folder", help="place of the table")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")


def run(options: argparse.Namespace) -> None:
    """Print what was killed, and what was wrong; ends with status 1 if anything was."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tk")))
        store = stack.enter_context(ObjectStore()) if options.store == "s3" else None
        os.environ["TANSAKU_CACHE_DIR"] = str(folder / "cache")
        # Actors find the encoder there; and a short path, since Ray's sockets lie below it.
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        os.environ["RAY_TMPDIR"] = str(folder)
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        kills = Kills(folder, store, options)
        stack.callback(kills.close)
        wrong = kills.run(options.builds)
    print(f"\n{'nothing was wrong' if not wrong else f'{wrong} builds were wrong'}")
    sys.exit(1 if wrong else 0)


class Kills:
    """A cluster of two nodes with one CPU each, beside a head without any, and a table that each build replaces."""

    def __init__(self, folder: Path, store: ObjectStore | None, options: argparse.Namespace) -> None:
        from ray.cluster_utils import Cluster

        self.draw = random.Random(options.seed)
        self.documents = options.documents
        self.log = folder / "log"
        self.db = str(folder / "db") if store is None else f"{store.bucket('kills')}/db"
        self.options = None if store is None else store.options
        self.generation = 0
        self.usual = math.inf  # seconds of a build that nothing kills
        self.value = mark()
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(_ACTORS)]
        self.counts: collections.Counter[str] = collections.Counter()

    def close(self) -> None:
        """End the cluster."""
        self.cluster.shutdown()

    def run(self, builds: int) -> int:
        """Number of builds that were wrong."""
        kills = wrong = 0
        while kills < builds:
            kind = _KINDS[kills % len(_KINDS)] if self.usual < math.inf else None
            began = time.perf_counter()
            killed, problems = self.build(kind)
            if not killed:
                self.usual = min(self.usual, time.perf_counter() - began)
            kills += killed
            wrong += bool(problems)
            label = f"{kills}: {kind} killed" if killed else f"not killed, {time.perf_counter() - began:.1f} s"
            print(f"{label}: {'; '.join(problems) or 'right'}", flush=True)
        print(f"\n{dict(self.counts)}")
        return wrong

    def build(self, kind: str | None) -> tuple[bool, list[str]]:
        """One build: whether something was killed meanwhile, and what was wrong."""
        shutil.rmtree(self.log, ignore_errors=True)
        self.log.mkdir()
        self.generation += 1
        watched = Watched(self)
        killed = False
        with watched:
            for attempt in range(4):
                child = self._start()
                if kind and not attempt:
                    killed = self._kill(kind, child)
                out, err = child.communicate()
                if child.returncode == 0:
                    self.counts["resumed rows"] += json.loads(out.splitlines()[-1])["resumed"]
                    break
                if child.returncode != -signal.SIGKILL:
                    error = err.strip().splitlines()[-1] if err.strip() else ""
                    if not killed or attempt:
                        return killed, [f"the driver ended with {child.returncode}: {error}"]
                    # Nothing may be wrong after such an error either, once the call is repeated.
                    print(f"the driver ended with an error, and is started again: {error}", flush=True)
                    self.counts["errors after a kill"] += 1
            else:
                return killed, ["four drivers did not end the build"]
        self.counts[f"{kind} killed" if killed else "not killed"] += 1
        return killed, [*watched.problems, *self.check(killed)]

    def _start(self) -> subprocess.Popen[str]:
        job: dict[str, Any] = {
            "db": self.db,
            "options": self.options,
            "documents": self.documents,
            "generation": self.generation,
            "log": str(self.log),
            "address": self.cluster.address,
            "actors": _ACTORS,
        }
        command = [sys.executable, "-m", "benchmarks.scale.logged", json.dumps(job)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def _kill(self, kind: str, child: subprocess.Popen[str]) -> bool:
        """Kill something at a random moment; false if the build was done by then."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(self.draw.uniform(0.2, 1.0) * self.usual)
            return False
        if kind == "driver":
            child.kill()
        elif kind == "node":
            self.cluster.remove_node(self.nodes.pop(self.draw.randrange(len(self.nodes))), allow_graceful=False)
            self.nodes.append(self.cluster.add_node(num_cpus=1))
        else:
            actors = marked(self.value, "ray::_Actor")
            if not actors:
                return False
            os.kill(self.draw.choice(actors), signal.SIGKILL)
        return True

    def check(self, killed: bool) -> list[str]:
        """What is wrong with the table and with what was encoded."""
        problems: list[str] = []
        expected = {f"d{number}": document(number, self.generation) for number in range(self.documents)}
        rows = self.table().search().limit(None).to_arrow().to_pylist()
        found = {row["id"]: row for row in rows}
        if len(found) != len(rows):
            problems.append(f"{len(rows) - len(found)} doubled")
        if lost := expected.keys() - found.keys():
            problems.append(f"{len(lost)} lost")
        dim = 16
        for doc_id, row in found.items():
            whole = len(row["centroid_ids"]) == 2 * row["token_count"]
            whole &= len(row["residuals"]) == row["token_count"] * dim * 2 // 8
            if not whole or {name: row[name] for name in ("id", "text", "generation")} != expected.get(doc_id):
                problems.append(f"{doc_id} is not what it was")
                break
        texts = collections.Counter(
            line for path in self.log.glob("*.log") for line in path.read_text(encoding="utf-8").splitlines()
        )
        twice = texts.total() - len(texts)
        self.counts["texts encoded twice, at most"] = max(self.counts["texts encoded twice, at most"], twice)
        if twice > (self.in_flight if killed else 0):
            problems.append(f"{twice:,} texts were encoded twice")
        return problems

    @property
    def in_flight(self) -> int:
        """Number of documents of the units that workers may have at a time."""
        chunks = -(-self.documents // DOCUMENTS_PER_CHUNK)
        return _ACTORS * -(-chunks // (2 * _ACTORS)) * DOCUMENTS_PER_CHUNK

    def table(self) -> Any:
        """The table as plain LanceDB opens it."""
        return lancedb.connect(self.db, storage_options=self.options).open_table(TABLE)


class Watched:
    """A reader of the table while it is built: it must see one generation, whole."""

    def __init__(self, kills: Kills) -> None:
        self.problems: list[str] = []
        self._kills = kills
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Watched:
        if self._kills.generation > 1:  # before the first build there is no table
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._thread.ident:
            self._thread.join()

    def _read(self) -> None:
        while not self._ended.wait(0.5):
            try:
                rows = self._kills.table().search().select(["generation"]).limit(None).to_arrow()
            except (ValueError, RuntimeError, OSError) as error:
                self.problems.append(f"the table could not be read: {str(error).splitlines()[0]}")
                return
            generations = set(rows["generation"].to_pylist())
            if len(generations) != 1 or len(rows) != self._kills.documents:
                self.problems.append(f"a reader saw {len(rows):,} rows of generations {sorted(generations)}")
                return
