"""Where candidates come from, and what counts beside MaxSim, and what that does to the hits.

    tansaku index ../shared/data/jaquad/corpus.jsonl --db DB --table jaquad --fulltext
    python -m benchmarks.search.sources --db DB --table jaquad --data ../shared/data/jaquad
    python -m benchmarks.search.sources --tokenizers --data ../shared/data/jaquad

The first form searches an index with each source (inverted lists, full text, both fused), scores as many candidates as
`--candidates` says by MaxSim, those of the lists and the fused ones also with the phrase weights that `--phrase-weight`
says, the fused ones also with so much of BM25 beside as `--bm25-weight` says, and reports measures and milliseconds of
a search without encoding. The second compares LanceDB's tokenizers as a candidate source: hit@1, @10 and @100 of BM25
alone over title and text in NFKC, milliseconds, and size of the index.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import FTS

from tansaku import Searcher
from tansaku.indexer.table.fulltext import normalized
from tansaku.plugin.evaluation.judgements import Qrels, Run, judged_queries, read_qrels, read_queries
from tansaku.plugin.evaluation.measures import MEASURES, measure

from ..support.machine import cpu_name
from ..support.vectors import read

WEIGHTS = ("bm25_weight", "phrase_weight")
TOKENIZERS = {
    "icu": {"base_tokenizer": "icu"},
    "ngram 2-2": {"base_tokenizer": "ngram", "ngram_min_length": 2, "ngram_max_length": 2},
    "ngram 1-2": {"base_tokenizer": "ngram", "ngram_min_length": 1, "ngram_max_length": 2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a BEIR folder")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--db")
    parser.add_argument("--table")
    parser.add_argument("--candidates", type=int, nargs="+", default=[100, 512])
    parser.add_argument("--bm25-weight", type=float, nargs="*", default=[0.02, 0.03, 0.05], help="for the fused ones")
    parser.add_argument("--phrase-weight", type=float, nargs="*", default=[0.05, 0.1, 0.15, 0.2, 0.3])
    parser.add_argument("--tokenizers", action="store_true")
    options = parser.parse_args()
    qrels = read_qrels(options.data / "qrels" / f"{options.split}.tsv")
    queries = judged_queries(read_queries(options.data / "queries.jsonl"), qrels)
    every = max(1, len(queries) // options.questions)
    queries = dict(list(queries.items())[::every][: options.questions])
    qrels = {query_id: qrels[query_id] for query_id in queries}
    print(f"{date.today()}, {cpu_name()}; {options.data.name}, {len(queries)} questions")
    if options.tokenizers:
        compare_tokenizers(options.data, queries, qrels)
    else:
        searcher = Searcher.open(options.db, options.table)
        compare_sources(searcher, queries, qrels, options.candidates, options.bm25_weight, options.phrase_weight)


def compare_sources(
    searcher: Searcher,
    queries: dict[str, str],
    qrels: Qrels,
    candidates: list[int],
    bm25_weights: list[float],
    phrase_weights: list[float],
) -> None:
    searcher.search_many(list(queries.values()), 1)  # compiled
    ways: list[dict[str, Any]] = [{"source": "lists"}, {"source": "text"}, {"source": "fused"}]
    ways += [{"source": "fused", "bm25_weight": weight} for weight in bm25_weights]
    ways = [{**way, "phrase_weight": 0.0} for way in ways]
    ways += [{"source": "lists", "phrase_weight": weight} for weight in phrase_weights]
    for weight in bm25_weights:
        ways += [{"source": "fused", "bm25_weight": weight, "phrase_weight": phrase} for phrase in phrase_weights]
    print(f"{'':<46}{'candidates':>10}" + "".join(f"{name:>9}" for name in MEASURES) + f"{'p50 ms':>9}{'p95':>8}")
    for way in ways:
        for limit in candidates:
            run: Run = {}
            times = []
            for query_id, text in queries.items():
                hits = searcher.search(text, 10, candidates=limit, **way)
                run[query_id] = {hit.id: hit.score for hit in hits}
                times.append(sum(value for name, value in hits.stages.items() if name not in ("encode", "fetch")))
            values = measure(run, qrels)
            p50, p95 = np.percentile(times, [50, 95])
            row = "".join(f"{values[name]:>9.4f}" for name in MEASURES)
            label = ", ".join([way["source"], *(f"{name} {way[name]}" for name in WEIGHTS if way.get(name))])
            print(f"{label:<46}{limit:>10}{row}{p50:>9.2f}{p95:>8.2f}", flush=True)


def compare_tokenizers(data: Path, queries: dict[str, str], qrels: Qrels) -> None:
    records = list(read(data / "corpus.jsonl"))
    texts = [normalized(f"{record.get('title', '')} {record['text']}".strip()) for record in records]
    rows = pa.table({"id": [record["_id"] for record in records], "text": texts})
    print(f"{'':<12}{'hit@1':>8}{'@10':>8}{'@100':>8}{'p50 ms':>9}{'p95':>8}{'MB':>8}{'build s':>9}")
    for name, settings in TOKENIZERS.items():
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = lancedb.connect(folder).create_table("t", rows)
            started = time.perf_counter()
            table.create_index("text", config=FTS(stem=False, remove_stop_words=False, with_position=False, **settings))
            seconds = time.perf_counter() - started
            size = sum(f.stat().st_size for f in Path(folder).rglob("_indices/**/*") if f.is_file())
            found, times = [], []
            for text in queries.values():
                started = time.perf_counter()
                search = table.search(normalized(text), query_type="fts", fts_columns="text")
                found.append(search.select(["id", "_score"]).limit(100).to_arrow()["id"].to_pylist())
                times.append(1000 * (time.perf_counter() - started))
        hits = [
            np.mean([bool(set(ids[:k]) & set(qrels[query_id])) for query_id, ids in zip(queries, found, strict=True)])
            for k in (1, 10, 100)
        ]
        p50, p95 = np.percentile(times, [50, 95])
        shown = "".join(f"{hit:>8.3f}" for hit in hits)
        print(f"{name:<12}{shown}{p50:>9.1f}{p95:>8.1f}{size / 1e6:>8.1f}{seconds:>9.1f}", flush=True)


if __name__ == "__main__":
    main()
