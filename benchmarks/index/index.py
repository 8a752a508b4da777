"""What an index costs and keeps: build time, bytes and recall on given vectors; speed and memory of a whole build.

    python -m benchmarks.index.index given --data ../shared/data --cache CACHE [--peer-python PYTHON]
    python -m benchmarks.index.index whole --data ../shared/data --corpus kyoto-wiki-ja

`given`: 6,000 real passages whose token vectors are there already go through `Index.create` (a stand-in for the encoder
looks them up), at 1, 2 and 4 bits and with pooling, and through fast-plaid in its own environment (PYTHON has
requirements-engines.txt). Reported are the seconds of the build, bytes per token of what is searched from and of the
table's files, and recall@10 and @100 of exhaustive MaxSim over the stored codes against exact float32 MaxSim, hit@1 for
200 questions, and the latency of a search over derived arrays and without them.

`whole`: a corpus from its JSONL file to a searchable index with the real encoder: how much of the time is encoding, and
peak memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path

import numpy as np

from tansaku import Encoder, Index, IndexInfo, Searcher, Source, TokenizedText
from tansaku.indexer.derived.arrays import load_arrays
from tansaku.indexer.table.database import connect
from tansaku.indexer.table.table import open_index_table

from ..support.machine import cpu_name
from ..support.vectors import Vectors, exhaustive, hit_at_1, passages, questions, recall, relevant

PEER = Path(__file__).with_name("index_peer.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    given = commands.add_parser("given")
    given.add_argument("--cache", type=Path, required=True)
    given.add_argument("--passages", type=int, default=6000)
    given.add_argument("--questions", type=int, default=200)
    given.add_argument("--nbits", type=int, nargs="+", default=[2, 1, 4])
    given.add_argument("--pools", type=int, nargs="+", default=[1, 2], help="pooling factors, at 2 bits")
    given.add_argument("--threads", type=int, default=2)
    given.add_argument("--peer-python", type=Path)
    given.set_defaults(run=measure_given)
    whole = commands.add_parser("whole")
    whole.add_argument("--corpus", default="kyoto-wiki-ja")
    whole.add_argument("--nbits", type=int, default=2)
    whole.add_argument("--out", type=Path, help="a folder that keeps the index; otherwise it is removed")
    whole.set_defaults(run=measure_whole)
    for command in (given, whole):
        command.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    print(f"{date.today()}, {cpu_name()}")
    options.run(options)


def measure_given(options: argparse.Namespace) -> None:
    documents = passages(options.data, options.cache, options.passages)
    queries = questions(options.data, options.cache, options.questions)
    judged = relevant(options.data)
    exact = exhaustive(documents.tokens, documents.offsets, queries)
    print(f"{len(documents):,} passages, {len(documents.tokens):,} vectors, {len(queries)} questions")
    print(f"exact float32: hit@1 {hit_at_1(exact, documents, queries, judged):.3f}\n")
    print(
        f"{'':<26}{'build s':>9}{'passages/s':>12}{'B/token':>9}{'on disk':>9}{'recall@10':>11}{'@100':>7}{'hit@1':>7}"
    )

    def report(
        name: str, seconds: float, searched: float, disk: float, decoded: np.ndarray, offsets: np.ndarray
    ) -> None:
        ranked = exhaustive(decoded, offsets, queries)
        print(
            f"{name:<26}{seconds:>9.1f}{len(documents) / seconds:>12,.0f}{searched:>9.2f}{disk:>9.2f}"
            f"{recall(ranked, exact, 10):>11.3f}{recall(ranked, exact, 100):>7.3f}"
            f"{hit_at_1(ranked, documents, queries, judged):>7.3f}",
            flush=True,
        )

    stand_in = Known(documents)
    latencies: dict[bool, tuple[float, float, float]] = {}
    for nbits in options.nbits:
        for pool in options.pools if nbits == 2 else (1,):
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                made = build(folder, documents, stand_in, nbits, pool)
                seconds = time.perf_counter() - started
                decoded, offsets = stored_vectors(folder)
                name = f"tansaku {nbits} bits" + (f", pooled by {pool}" if pool > 1 else "")
                report(name, seconds, made.searched_bytes_per_token, made.bytes_per_token, decoded, offsets)
                if nbits == 2 and pool == 1:
                    latencies = {derived: latency(folder, stand_in, queries, derived) for derived in (True, False)}
        if options.peer_python:
            peer = run_peer(options, nbits)
            per_token = peer["bytes"] / len(documents.tokens)
            name = f"{peer['name']}, {nbits} bits"
            report(name, peer["seconds"], per_token, per_token, np.load(peer["out"]), documents.offsets)
    if latencies:
        print("\nbytes per token are per stored vector; pooling halves the vectors")
        for derived, (opening, p50, p95) in latencies.items():
            print(f"search, derived={derived}: opening {opening:.2f} s, p50 {p50:.1f} ms, p95 {p95:.1f} ms")


def build(folder: str, documents: Vectors, encoder: Known, nbits: int, pool: int) -> IndexInfo:
    records = [{"id": i, "text": text} for i, text in zip(documents.ids, documents.texts, strict=True)]
    index = Index.create(folder, "t", records, encoder=encoder, nbits=nbits, pool=pool)
    load_arrays(open_index_table(connect(folder), "t"))
    return index.info()


def stored_vectors(folder: str) -> tuple[np.ndarray, np.ndarray]:
    """All vectors as the table's codes stand for them, and where each document's begin."""
    opened = open_index_table(connect(folder), "t")
    decoded = []
    for row in opened.table.search().select(["centroid_ids", "residuals"]).to_arrow().to_pylist():
        ids = np.frombuffer(row["centroid_ids"], opened.codec.id_dtype)
        decoded.append(opened.codec.decode(ids, np.frombuffer(row["residuals"], np.uint8).reshape(len(ids), -1)))
    return np.concatenate(decoded), np.cumsum([0, *map(len, decoded)])


def latency(folder: str, encoder: Known, queries: Vectors, derived: bool) -> tuple[float, float, float]:
    """Seconds to open (the arrays are on disk), and p50 and p95 in milliseconds of search with fetching."""
    started = time.perf_counter()
    searcher = Searcher.open(folder, "t", encoder=encoder, derived=derived)
    opening = time.perf_counter() - started
    times = []
    for number in range(len(queries)):
        started = time.perf_counter()
        searcher.search_vectors(queries[number], phrase_weight=0.0)
        times.append((time.perf_counter() - started) * 1000)
    return opening, float(np.percentile(times, 50)), float(np.percentile(times, 95))


def run_peer(options: argparse.Namespace, nbits: int) -> dict:
    folder = options.cache / f"passages-{options.passages}"
    request = {
        "tokens": str((folder / "tokens.npy").resolve()),
        "offsets": str((folder / "offsets.npy").resolve()),
        "nbits": nbits,
        "threads": options.threads,
        "out": str((options.cache / "peer.npy").resolve()),
    }
    command = [str(options.peer_python), str(PEER)]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1]) | {"out": request["out"]}


class Known(Encoder):
    """Looks vectors up by text instead of encoding."""

    def __init__(self, documents: Vectors) -> None:
        self.bundle = Encoder.load().bundle
        self._numbers = {text: number for number, text in enumerate(documents.texts)}
        self._documents = documents
        self._waiting: dict[int, int] = {}

    def tokenize_documents(self, texts: Iterable[str]) -> list[TokenizedText]:
        tokenized = []
        for text in texts:
            number = self._numbers[text.strip()]
            length = len(self._documents[number])
            ids = np.full(length, number)
            tokenized.append(TokenizedText(ids, np.ones(length, np.int64), np.ones(length, bool), False))
        return tokenized

    def encode_tokens(
        self, tokenized: Sequence[TokenizedText], note: Callable[[int], None] | None = None
    ) -> list[np.ndarray]:
        return [self._documents[int(text.ids[0])] for text in tokenized]


class Timed(Encoder):
    """Adds up the seconds that encoding takes."""

    def __init__(self, encoder: Encoder) -> None:
        self.__dict__.update(encoder.__dict__)
        self.seconds = 0.0

    def tokenize_documents(self, texts: Iterable[str]) -> list[TokenizedText]:
        started = time.perf_counter()
        tokenized = super().tokenize_documents(texts)
        self.seconds += time.perf_counter() - started
        return tokenized

    def encode_tokens(
        self, tokenized: Sequence[TokenizedText], note: Callable[[int], None] | None = None
    ) -> list[np.ndarray]:
        started = time.perf_counter()
        vectors = super().encode_tokens(tokenized, note)
        self.seconds += time.perf_counter() - started
        return vectors


def measure_whole(options: argparse.Namespace) -> None:
    encoder = Timed(Encoder.load())
    with contextlib.ExitStack() as stack:
        folder = options.out or stack.enter_context(tempfile.TemporaryDirectory())
        stages: dict[str, float] = {}
        started = last = time.perf_counter()

        def progress(stage: str, done: int, total: int, tokens: int) -> None:
            nonlocal last
            now = time.perf_counter()
            stages[stage] = stages.get(stage, 0.0) + now - last
            last = now

        source = Source(options.data / options.corpus / "corpus.jsonl")
        index = Index.create(folder, "t", source, encoder=encoder, nbits=options.nbits, progress=progress)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        before = time.perf_counter()
        load_arrays(open_index_table(connect(folder), "t"))
        arrays = time.perf_counter() - before
        info = index.info()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rest = seconds + arrays - encoder.seconds
    print(
        f"{options.corpus}: {info.documents:,} documents, {info.tokens:,} token vectors, {info.centroids:,} centroids"
    )
    print(f"build {seconds:.1f} s: " + ", ".join(f"{name} {value:.1f}" for name, value in stages.items()))
    print(f"derived arrays {arrays:.1f} s")
    print(
        f"encoding {encoder.seconds:.1f} s ({info.tokens / encoder.seconds:,.0f} tokens/s), all else {rest:.1f} s: "
        f"{rest / encoder.seconds:.1%} of it"
    )
    print(f"peak memory {peak:,.0f} MB, with the arrays {after:,.0f} MB")
    print(
        f"searched from {info.searched_bytes_per_token:.2f} bytes/token, tables {info.bytes_per_token:.2f} bytes/token"
    )


if __name__ == "__main__":
    main()
