"""What an index of 1, 10 and 100 million passages costs: hours of cores, bytes, and requests to an object store.

    python -m benchmarks.scale.cost

Two things are measured here: how fast a build reads its documents, and the requests of one fragment of rows, which
goes into an S3 server in this process (moto), is committed, and is read again. What other commands have measured are
the defaults of the options, which name them. All else is calculated from these, as if twice as many passages took
twice as much, and twice as many cores half the time. It takes 1 GB of memory.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa

from tansaku import Source
from tansaku.indexer.read.documents import DocumentReader
from tansaku.indexer.read.scan import scan
from tansaku.indexer.write.build_steps import as_scanned

from ..support.machine import cpu_name
from ..support.object_store import ObjectStore

PASSAGES = (1_000_000, 10_000_000, 100_000_000)
_CODES = ["id", "token_count", "centroid_ids", "residuals"]  # what a server reads of every row
_READINGS = 3  # of all documents by a build: to check them, for the codec's sample, and to hand them out
_ID_BYTES = 100  # memory of a build for each id


@dataclass(frozen=True)
class Measured:
    """What was measured here.

    Attributes:
        documents: documents that one process reads and checks a second.
        rows: number of rows of the fragment.
        stored: its bytes in the store.
        writes: PUT and POST requests that write it.
        reads: GET and HEAD requests that read all its codes.
        commit: requests that make it a table.
    """

    documents: float
    rows: int
    stored: int
    writes: int
    reads: int
    commit: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    whole = "benchmarks.index.index whole, kyoto-wiki-ja"
    add("--tokens", type=float, default=134.7, help=f"token vectors of a passage ({whole})")
    add("--characters", type=int, default=251, help="characters of a passage (kyoto-wiki-ja)")
    add("--encoded", type=float, default=8947, help="tokens encoded a second (benchmarks.encode.encode)")
    add("--cores", type=int, default=2, help="number of cores that did so")
    add("--rest", type=float, default=31 / 9_391_190, help=f"seconds of a token for all but encoding ({whole})")
    add("--searched", type=float, default=36.66, help=f"bytes of a token that are searched from ({whole})")
    add("--fragment", type=int, default=32_768, help="number of rows of a fragment: 64 chunks of 512 documents")
    add("--machine-cores", type=int, default=16, help="number of cores of each machine of the cluster")
    add("--machines", type=int, default=64, help="number of machines of the cluster")
    add("--shard-gb", type=float, default=50, help="gigabytes that one server searches from")
    options = parser.parse_args()
    found = measured(options.fragment, options.tokens, options.characters)
    print(f"{datetime.date.today()}, {cpu_name()}\n")
    print(*table(["measured", ""], measured_rows(options, found)), "", sep="\n")
    heads = ["calculated", *(f"{passages / 1e6:g} million passages" for passages in PASSAGES)]
    print(*table(heads, calculated_rows(options, found)), sep="\n")


def measured(rows: int, tokens: float, characters: int) -> Measured:
    """Read ``rows`` documents, and write, commit and read them as a fragment with random codes of 2 bits."""
    draw = np.random.default_rng(0)
    texts = ["".join(map(chr, draw.integers(0x4E00, 0x9000, characters))) for _ in range(rows)]
    ids = [f"passage-{number:09d}" for number in range(rows)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "docs.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for doc_id, text in zip(ids, texts, strict=True):
                file.write(json.dumps({"id": doc_id, "text": text}, ensure_ascii=False) + "\n")
        documents = DocumentReader(Source(path))
        started = time.perf_counter()
        found = scan(documents, lambda chunk: None, documents.leave_out, lambda *at: None)
        for _ in as_scanned(documents, found):
            pass
        speed = 2 * rows / (time.perf_counter() - started)
    counts = np.maximum(1, draw.poisson(tokens, rows)).astype(np.int32)
    columns = {
        "id": ids,
        "text": texts,
        "token_count": counts,
        "centroid_ids": pa.array([draw.bytes(2 * int(count)) for count in counts], pa.large_binary()),
        "residuals": pa.array([draw.bytes(32 * int(count)) for count in counts], pa.large_binary()),
        "centroid_cosine": draw.random(rows, np.float32),
        "write_id": np.ones(rows, np.int64),
    }
    return _stored(pa.table(columns), speed)


def _stored(rows: pa.Table, speed: float) -> Measured:
    with ObjectStore() as store:
        uri, options = f"{store.bucket('cost')}/docs.lance", store.options
        made: list[lance.fragment.FragmentMetadata] = []
        how = {"enable_stable_row_ids": True, "storage_options": options}
        written = store.counted(lambda: made.extend(lance.fragment.write_fragments(rows, uri, mode="overwrite", **how)))
        operation = lance.LanceOperation.Overwrite(rows.schema, made)
        committed = store.counted(lambda: lance.LanceDataset.commit(uri, operation, **how))
        opened = lance.dataset(uri, storage_options=options)
        read = store.counted(lambda: opened.to_table(columns=_CODES))
        size = sum(file.file_size_bytes or 0 for each in made for file in each.files)
    writes, reads = written["PUT"] + written["POST"], read["GET"] + read["HEAD"]
    return Measured(speed, len(rows), size, writes, reads, committed.total())


def measured_rows(options: argparse.Namespace, found: Measured) -> list[list[str]]:
    """What was measured, here or by the commands that the options name."""
    return [
        ["token vectors of a passage", f"{options.tokens:g}"],
        ["characters of a passage", f"{options.characters}"],
        [f"tokens encoded a second on {options.cores} cores", f"{options.encoded:,g}"],
        ["tokens compressed and written a second", f"{1 / options.rest:,.0f}"],
        ["bytes of a token that are searched from", f"{options.searched:g}"],
        ["documents that one process reads and checks a second", f"{found.documents:,.0f}"],
        [f"bytes in the store of a fragment of {found.rows:,} rows", f"{found.stored:,}"],
        ["PUT and POST requests that write it", f"{found.writes}"],
        ["requests of the commit", f"{found.commit}"],
        ["GET and HEAD requests that read its codes", f"{found.reads}"],
    ]


def calculated_rows(options: argparse.Namespace, found: Measured) -> list[list[str]]:
    """What follows for each number of passages."""
    core_seconds = options.cores * (1 / options.encoded + options.rest)  # of a token
    cluster = options.machines * options.machine_cores

    def column(passages: int) -> list[str]:
        tokens = passages * options.tokens
        hours = tokens * core_seconds / 3600
        fragments = math.ceil(passages / found.rows)
        searched = tokens * options.searched / 1e9
        return [
            f"{tokens / 1e6:,.0f} million",
            f"{hours:,.0f}",
            f"{hours / options.cores:,.1f}",
            f"{hours / cluster:,.2f}",
            f"{_READINGS * passages / found.documents / 3600:,.2f}",
            f"{_ID_BYTES * passages / 1e9:,.1f} GB",
            f"{passages * found.stored / found.rows / 1e9:,.1f} GB",
            f"{fragments:,}",
            f"{fragments * found.writes + found.commit:,}",
            f"{searched:,.1f} GB",
            f"{math.ceil(searched / options.shard_gb):,}",
            f"{fragments * found.reads:,}",
        ]

    names = [
        "token vectors",
        "core-hours of a build",
        f"its hours on one machine with {options.cores} cores",
        f"its hours on {options.machines} machines with {options.machine_cores} cores",
        f"hours in which its driver reads the documents {_READINGS} times, in one process",
        "memory of its driver for the ids",
        "the table in the store",
        "fragments",
        "requests of the build (PUT, POST)",
        "searched from, in all servers",
        f"shards of {options.shard_gb:g} GB",
        "requests of all servers that start with nothing (GET, HEAD)",
    ]
    return [list(row) for row in zip(names, *map(column, PASSAGES), strict=True)]


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    main()
