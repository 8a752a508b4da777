"""What MaxSim over an engine's own candidates gains and costs: nDCG@10 and hit@1 before and after, and milliseconds.

    python -m benchmarks.quality.hosts --data ../shared/data/jaquad --cache CACHE --engine groonga --engine postgres

For each engine the corpus is loaded into a real server (or file), which gives `--candidates` documents for each
question of the split. "host" is the engine's own order, "tansaku" the order by MaxSim over the stored codes of an index
of the same corpus, which is made once under `--cache`. "found" is the share of questions whose document is among the
candidates: no ranking can do better. Times are of one thread of questions; "added" is what ranking costs beside the
engine and without encoding the question, "all" is engine, encoding and ranking.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import psycopg
from qdrant_client import QdrantClient

from tansaku import CandidateSource, Encoder, Index, Reranker, Searcher, Source
from tansaku.indexer.read.documents import DocumentReader
from tansaku.plugin.evaluation.judgements import Qrels, Run, judged_queries, read_qrels, read_queries
from tansaku.plugin.evaluation.measures import measure
from tansaku.plugin.hosts.groonga import GroongaSource
from tansaku.plugin.hosts.lancedb import LanceDBSource
from tansaku.plugin.hosts.postgres import PostgresSource
from tansaku.plugin.hosts.qdrant import QdrantSource, bigram_query
from tansaku.plugin.hosts.sqlite import SqliteSource
from tests.support import engines

from ..support.machine import cpu_name

BOTH = ("title", "text")
Documents = list[dict[str, str]]


@contextlib.contextmanager
def groonga(documents: Documents, folder: Path) -> Iterator[CandidateSource]:
    with engines.groonga(folder) as url:
        engines.fill_groonga(url, documents)
        yield GroongaSource(url, "Docs", text_columns=BOTH)


@contextlib.contextmanager
def postgres(documents: Documents, folder: Path) -> Iterator[CandidateSource]:
    with engines.postgres(folder) as place:
        engines.fill_postgres(place, documents)
        with psycopg.connect(place) as connection:  # one for all questions, as a pool has it
            yield PostgresSource(lambda: contextlib.nullcontext(connection), "docs", text_columns=BOTH, timeout=60)


@contextlib.contextmanager
def qdrant(documents: Documents, folder: Path) -> Iterator[CandidateSource]:
    with contextlib.closing(QdrantClient(":memory:")) as client:
        engines.fill_qdrant(client, documents)
        yield QdrantSource(client, "docs", bigram_query, using="bigrams", id_field="id")


@contextlib.contextmanager
def sqlite(documents: Documents, folder: Path) -> Iterator[CandidateSource]:
    engines.fill_sqlite(folder / "docs.db", documents)
    yield SqliteSource(folder / "docs.db", "docs", text_columns=BOTH)


@contextlib.contextmanager
def lancedb(documents: Documents, folder: Path) -> Iterator[CandidateSource]:
    yield LanceDBSource(engines.fill_lancedb(folder, documents), text_columns=BOTH)


ENGINES: dict[str, Callable[[Documents, Path], contextlib.AbstractContextManager[CandidateSource]]] = {
    made.__name__: made for made in (groonga, postgres, qdrant, sqlite, lancedb)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a BEIR folder")
    parser.add_argument("--cache", type=Path, required=True, help="where the index is kept")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--engine", dest="engines", action="append", choices=ENGINES, help="by default all")
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--questions", type=int, help="take so many, evenly spread")
    parser.add_argument("--documents", type=int, help="take the first so many, and questions about them")
    parser.add_argument("--threads", type=int, default=1, help="of the encoder")
    options = parser.parse_args()

    encoder = Encoder.load(threads=options.threads)
    documents, queries, qrels = read_all(options)
    searcher = indexed(options, documents, encoder)
    print(f"{date.today()}, {cpu_name()}, model {encoder.bundle.name}")
    print(f"{options.data.name} {options.split}: {len(documents):,} documents, {len(queries):,} questions")
    header = f"{'':<10}{'nDCG@10':>8}{'after':>8}{'hit@1':>8}{'after':>8}{'found':>8}"
    print(header + "".join(f"{name:>9}{'p95':>8}" for name in ("host p50", "added", "encode", "all")))
    for name in options.engines or ENGINES:
        # A Unix socket's path must be short, so no folder of the user's choice.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            Path(folder).chmod(0o755)  # PostgreSQL runs as another user
            try:
                with ENGINES[name](documents, Path(folder)) as source:
                    show(name, source, searcher, queries, qrels, options.candidates)
            except engines.NotInstalledError as error:
                print(f"{name:<10}{error}")


def read_all(options: argparse.Namespace) -> tuple[Documents, dict[str, str], Qrels]:
    found = list(DocumentReader(Source(options.data / "corpus.jsonl")))[: options.documents]
    documents = [{"id": d.id, "title": d.title, "text": d.text} for d in found]
    there = {d.id for d in found}
    qrels = read_qrels(options.data / "qrels" / f"{options.split}.tsv")
    qrels = {query_id: grades for query_id, grades in qrels.items() if there & grades.keys()}
    if options.questions and options.questions < len(qrels):
        chosen = np.linspace(0, len(qrels) - 1, options.questions).astype(int)
        names = list(qrels)
        qrels = {names[i]: qrels[names[i]] for i in chosen}
    return documents, judged_queries(read_queries(options.data / "queries.jsonl"), qrels), qrels


def indexed(options: argparse.Namespace, documents: Documents, encoder: Encoder) -> Searcher:
    """Over the index of these documents and this model, made if it is not there."""
    options.cache.mkdir(parents=True, exist_ok=True)
    table = f"{options.data.name}-{len(documents)}-{encoder.bundle.fingerprint}"
    if not (options.cache / f"{table}.lance").exists():
        Index.create(options.cache, table, documents, encoder=encoder)
    return Searcher.open(options.cache, table, encoder=encoder)


def show(
    name: str, source: CandidateSource, searcher: Searcher, queries: dict[str, str], qrels: Qrels, limit: int
) -> None:
    reranker = Reranker(searcher=searcher)
    before: Run = {}
    after: Run = {}
    times = []
    found = 0
    # First use: connections, compiled kernels, and the engine's own caches.
    warm_up = [candidate.id for candidate in source.candidates(next(iter(queries.values())), limit)]
    reranker.rerank("最初の問い", ids=warm_up)
    for query_id, text in queries.items():
        times.append(marks := [time.perf_counter()])
        candidates = source.candidates(text, limit)
        marks.append(time.perf_counter())
        vectors = reranker.encoder.encode_queries([text])[0]
        marks.append(time.perf_counter())
        scores = searcher.score_vectors(vectors, [c.id for c in candidates])
        marks.append(time.perf_counter())
        if np.isnan(scores).any():
            raise RuntimeError(f"the index does not have all documents that {name} found")
        before[query_id] = {c.id: float(len(candidates) - place) for place, c in enumerate(candidates)}
        after[query_id] = {c.id: float(score) for c, score in zip(candidates, scores, strict=True)}
        found += bool(qrels[query_id].keys() & before[query_id].keys())
    host, encode, added = (1000 * np.diff(times, axis=1)).T
    values = [measure(run, qrels) for run in (before, after)]
    row = "".join(f"{v[m]:>8.4f}" for m in ("ndcg@10", "hit@1") for v in values) + f"{found / len(queries):>8.4f}"
    for spent in (host, added, encode, host + encode + added):
        p50, p95 = np.percentile(spent, [50, 95])
        row += f"{p50:>9.2f}{p95:>8.2f}"
    print(f"{name:<10}{row}", flush=True)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a local Qdrant warns of many points
        main()
