"""Robustness: processes killed at random moments, fuzzed files, readers beside a writer that never rests, and attacks.

    python -m benchmarks.faults [--only kills|fuzz|reader|attacks|bundles] [--kills 100] [--lines 20000] [--seconds 60]
                                [--inputs 100000]

kills: a worker process builds, appends, upserts, deletes, optimizes, rebuilds and makes derived arrays; SIGKILL ends it
at a random moment of one of these. After each kill the table is looked at, by plain LanceDB and by tansaku: it must be
as it was before the operation or as it is after it, with codes that decode to its texts, and a search over derived
arrays must find what one over the table finds. Then the operation is repeated with ``resume`` (now and then killed
again), and its result compared with that of the same operation on a copy of the database, never interrupted. "bulk" is
an append or upsert of several transactions, of which each must be there as a whole or not at all. The databases differ:
with and without passages and full text. Full-text search must find the rows that have the words.

fuzz: mutated JSONL, TSV and CSV lines go through `Source` and `Index.create` or `upsert`, with a file for rejects. What
was read is counted from the raw bytes; each record must be either in the file for rejects, with a reason, or in the
table as it was given.

reader: one process writes all the time and optimizes, keeping nothing or a minute; two others search and refresh, over
derived arrays and over the table, in two threads each. All rows of a group are given their generation in one upsert: an
answer with two generations, or with another number of rows, is one that no version of the table gives.

attacks: conditions, bodies, framings and MCP calls that mean harm, drawn with the seed, are sent to `tansaku serve` and
`tansaku mcp --http` in other processes. After each input its server must answer a known question rightly. After each
batch both must be alive and use at most a gigabyte more than before, and neither event loop may have been held for more
than 2 seconds. No answer may come after the deadline, be a 500, name places within the machine, or repeat at length
what was sent.

bundles: one for each twenty of those inputs, with checksums that fit, is loaded and used in another process: it encodes
texts as finite vectors, or is a BundleError.

Kills and the rest use an encoder that costs next to nothing, so that the time goes into storage; every tenth kill is of
the model that ships inside, as are attacks. The exit status is 1 if anything was not as it should be.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import lancedb

from ..support.machine import cpu_name
from .attacks import attacks
from .bundles import bundles, load
from .fuzz import fuzz
from .heartbeat import serve
from .kills import kills
from .reader import read, reader, write
from .work import work

PARTS: dict[str, Callable[[Path, argparse.Namespace], list[str]]] = {
    "kills": kills,
    "fuzz": fuzz,
    "reader": reader,
    "attacks": attacks,
    "bundles": bundles,
}
PROCESSES: dict[str, Callable[..., None]] = {"work": work, "write": write, "read": read, "load": load, "serve": serve}
FAILURES_SHOWN = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--lines", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--process", choices=PROCESSES, help=argparse.SUPPRESS)  # what the parts start
    parser.add_argument("--arguments", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        PROCESSES[options.process](**options.arguments)
        return

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


if __name__ == "__main__":
    main()
