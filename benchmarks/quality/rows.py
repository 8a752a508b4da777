"""Search in a database's own rows, next to our own index: quality, milliseconds, bytes, and the time to load.

    python -m benchmarks.quality.rows --data ../shared/data/jaquad --cache CACHE --store numpy --store postgres

The corpus is encoded once, under `--cache`: row vectors and codes by `Coder`, and our own index of the same texts. Each
database is a real one, in a new folder. "row vectors" is the order by the row vectors alone; "MaxSim" is the order of
the database's `--candidates` nearest rows by their codes. Times are of one thread, each question once, after twenty to
warm up: the database with what it sends, MaxSim, and the whole search with the encoding of the question. "KB a
document" is what the files of the database grow by: texts, row vectors, codes, index, and a log where there is one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tansaku import CodedRow, Coder, Index, RowStore, Searcher, Source
from tansaku.indexer.read.documents import DocumentReader
from tansaku.plugin.evaluation.judgements import Qrels, Run, judged_queries, read_qrels, read_queries
from tansaku.plugin.evaluation.measures import measure
from tansaku.plugin.evaluation.ranking import rank_all
from tansaku.plugin.rows.row_search import CANDIDATES

from ..support.machine import cpu_name
from ..support.row_stores import STORES

_TOGETHER = 512  # rows
_WARM_UP = 20
COLUMNS = (
    "row vectors: hit@1",
    "nDCG@10",
    "MaxSim: hit@1",
    "nDCG@10",
    "hit@10",
    "found",
    "database p50 ms",
    "p95",
    "MaxSim p50 ms",
    "p95",
    "whole p50 ms",
    "p95",
    "KB a document",
    "load s",
)
MEASURES = ("hit@1", "ndcg@10", "hit@10")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a BEIR folder")
    parser.add_argument("--cache", type=Path, required=True, help="where rows and index are kept")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--store", dest="stores", action="append", choices=STORES, help="by default all")
    parser.add_argument("--candidates", type=int, default=CANDIDATES)
    parser.add_argument("--questions", type=int, help="take so many, evenly spread")
    parser.add_argument("--row-dim", type=int, help="length of the row vectors")
    options = parser.parse_args()
    coder = Coder.load(threads=os.cpu_count(), row_dim=options.row_dim)
    queries, qrels = judged(options)
    rows = coded_corpus(options, coder)
    print(f"{date.today()}, {cpu_name()}, model {coder.encoder.bundle.name}, row vectors of {coder.row_dim} dimensions")
    print(f"{options.data.name} {options.split}: {len(rows):,} documents, {len(queries):,} questions")
    print(f"codes {np.mean([len(row.codes) for row in rows]):,.0f} bytes a document, {options.candidates} candidates\n")
    print(f"| | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    show("our index", *own_index(options, coder, queries, qrels))
    alone = Coder.load(threads=1, row_dim=options.row_dim)
    for name in options.stores or STORES:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            Path(folder).chmod(0o755)  # PostgreSQL runs as another user
            with STORES[name](alone, Path(folder), candidates=options.candidates) as store:
                show(name, *measured(store, rows, Path(folder), queries, qrels))


def judged(options: argparse.Namespace) -> tuple[dict[str, str], Qrels]:
    qrels = read_qrels(options.data / "qrels" / f"{options.split}.tsv")
    if options.questions and options.questions < len(qrels):
        names = list(qrels)
        qrels = {names[i]: qrels[names[i]] for i in np.linspace(0, len(names) - 1, options.questions).astype(int)}
    return judged_queries(read_queries(options.data / "queries.jsonl"), qrels), qrels


def coded_corpus(options: argparse.Namespace, coder: Coder) -> list[CodedRow]:
    """The corpus as rows; encoded once for each model, codec and length of row vectors."""
    options.cache.mkdir(parents=True, exist_ok=True)
    name = f"{options.data.name}-{coder.encoder.bundle.fingerprint}-{coder.codec_id}-{coder.row_dim}.parquet"
    path = options.cache / name
    if not path.exists():
        documents = list(DocumentReader(Source(options.data / "corpus.jsonl")))
        making = path.with_suffix(".making")
        schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("codes", pa.binary()),
                            ("vector", pa.list_(pa.float32(), coder.row_dim))])  # fmt: skip
        with pq.ParquetWriter(making, schema) as writer:
            for start in range(0, len(documents), _TOGETHER):
                part = documents[start : start + _TOGETHER]
                coded = coder.encode_documents([document.encoded_text for document in part])
                columns = (
                    [document.id for document in part],
                    [document.encoded_text for document in part],
                    [one.codes for one in coded],
                    list(np.stack([one.row_vector for one in coded])),
                )
                arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
        making.rename(path)
    return list(read_rows(path))


def read_rows(path: Path) -> Iterator[CodedRow]:
    for batch in pq.ParquetFile(path).iter_batches():
        vectors = batch["vector"].flatten().to_numpy().reshape(len(batch), -1)
        for row_id, text, codes, vector in zip(
            batch["id"].to_pylist(), batch["text"].to_pylist(), batch["codes"].to_pylist(), vectors, strict=True
        ):
            yield CodedRow(row_id, vector, codes, {"text": text})


def own_index(
    options: argparse.Namespace, coder: Coder, queries: dict[str, str], qrels: Qrels
) -> tuple[dict[str, float], ...]:
    """Quality and cost of our own index of the corpus."""
    table = f"{options.data.name}-{coder.encoder.bundle.fingerprint}"
    if not (options.cache / f"{table}.lance").exists():
        Index.create(options.cache, table, Source(options.data / "corpus.jsonl"), encoder=coder.encoder)
    searcher = Searcher.open(options.cache, table, encoder=coder.encoder)
    vectors = dict(zip(queries, coder.encoder.encode_queries(list(queries.values())), strict=True))
    run = rank_all(searcher, vectors, k=10)
    return {}, measure(run, qrels), {}


def measured(
    store: RowStore[Any], rows: list[CodedRow], folder: Path, queries: dict[str, str], qrels: Qrels
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Quality by row vectors alone and by MaxSim, and costs by name."""
    empty = bytes_in(folder)
    began = time.perf_counter()
    for start in range(0, len(rows), _TOGETHER):
        store.write_coded(rows[start : start + _TOGETHER])
    make_index = getattr(store, "create_index", None)
    if make_index is not None:
        make_index()
    load = time.perf_counter() - began
    by_vectors: Run = {}
    by_maxsim: Run = {}
    times: list[tuple[float, float, float]] = []
    found = 0
    for text in list(queries.values())[:_WARM_UP]:
        store.search(text)
    for query_id, text in queries.items():
        began = time.perf_counter()
        hits = store.search(text, 10)
        whole = 1000 * (time.perf_counter() - began)
        times.append((hits.stages["database"], hits.stages["maxsim"], whole))
        by_maxsim[query_id] = {str(hit.id): hit.score for hit in hits}
        every = store.search(text, store.candidates)  # the same rows, all of them ranked
        by_vectors[query_id] = {str(hit.id): -float(hit.row_rank) for hit in every}
        found += bool(qrels[query_id].keys() & by_vectors[query_id].keys())
    columns = np.array(times).T
    costs: dict[str, float] = {"found": found / len(queries)}
    for name, values in zip(("database", "maxsim", "whole"), columns, strict=True):
        costs[f"{name} p50"], costs[f"{name} p95"] = np.percentile(values, [50, 95])
    costs["kb"] = (bytes_in(folder) - empty) / len(rows) / 1000
    costs["load"] = load
    best = {query_id: dict(sorted(run.items(), key=lambda pair: -pair[1])[:10]) for query_id, run in by_vectors.items()}
    return measure(best, qrels), measure(by_maxsim, qrels), costs


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def show(name: str, by_vectors: dict[str, float], by_maxsim: dict[str, float], costs: dict[str, float]) -> None:
    """Print a line of the table."""
    cells = [f"{by_vectors[m]:.4f}" if by_vectors else "" for m in ("hit@1", "ndcg@10")]
    cells += [f"{by_maxsim[m]:.4f}" for m in MEASURES]
    cells.append(f"{costs['found']:.4f}" if costs else "")
    for stage in ("database", "maxsim", "whole"):
        cells += [f"{costs[f'{stage} {p}']:.2f}" if costs else "" for p in ("p50", "p95")]
    cells += [f"{costs['kb']:.1f}", f"{costs['load']:.0f}"] if costs else ["", ""]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
