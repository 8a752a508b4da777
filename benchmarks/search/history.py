"""Whether the history of an index matters: built at once, or begun with a few documents and grown.

    python -m benchmarks.search.history --data ../shared/data --cache CACHE [--passages 4000]
    python -m benchmarks.search.history --data ../shared/data --cache CACHE --passages 1000 --rebuild

Documents are those of `benchmarks.support.vectors.passages`, encoded once. Searches have their defaults, but no
phrases. recall@10 is against MaxSim over uncompressed vectors of all documents, hit@1 against the judgements. "grown
from 10" began with ten documents, and each addition made it ten times as large. No command was given in between.

With `--rebuild` each index is rebuilt afterwards and measured again, below what its `info` said: that is how the rule
of `indexer.info.advice_on_rebuild` was chosen. `--without-bundled` trains codecs as for a model whose bundle has none.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np

from tansaku import Encoder, Index, Searcher

from ..quality.quality import Remembering
from ..support.machine import cpu_name
from ..support.vectors import Vectors, exhaustive, hit_at_1, passages, questions, recall, relevant

_BEGUN_WITH = (1, 10, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--passages", type=int, default=4000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--rebuild", action="store_true")
    parser.add_argument("--without-bundled", action="store_true")
    options = parser.parse_args()
    documents = passages(options.data, options.cache, options.passages)
    queries = questions(options.data, options.cache, options.questions)
    exact = exhaustive(documents.tokens, documents.offsets, queries, 10)
    judged = relevant(options.data)
    encoder = Remembering(Encoder.load())
    encoder.remember(documents.texts, (documents[number] for number in range(len(documents))))
    if options.without_bundled:
        encoder.bundle = replace(encoder.bundle, codec=None)
    print(f"{date.today()}, {cpu_name()}, {len(documents):,} passages, {len(queries)} questions")
    print(f"{'':<18}{'centroids':>10}{'recall@10':>11}{'hit@1':>8}{'p50 ms':>8}{'p95':>7}{'writes s':>10}")
    for begun in (options.passages, *_BEGUN_WITH):
        name = "built at once" if begun == options.passages else f"grown from {begun}"
        with tempfile.TemporaryDirectory() as db:
            started = time.perf_counter()
            index = grown(Path(db), encoder, documents, begun)
            seconds = time.perf_counter() - started
            for again in range(1 + options.rebuild):
                if again:
                    drift = index.info().drift
                    print(f"  {drift}\n  {index.info().advice}")
                    started = time.perf_counter()
                    index.rebuild()
                    name, seconds = "  rebuilt", time.perf_counter() - started
                found, times = searched(Path(db), encoder, documents, queries)
                p50, p95 = np.percentile(times, [50, 95])
                print(
                    f"{name:<18}{index.info().centroids:>10,}{recall(found, exact, 10):>11.3f}"
                    f"{hit_at_1(found, documents, queries, judged):>8.3f}{p50:>8.2f}{p95:>7.2f}{seconds:>10.0f}",
                    flush=True,
                )


def searched(db: Path, encoder: Encoder, documents: Vectors, queries: Vectors) -> tuple[list[list[int]], list[float]]:
    """The numbers of the ten documents found for each question, and the milliseconds of each search."""
    searcher = Searcher.open(db, "t", encoder=encoder)
    numbers = {doc_id: number for number, doc_id in enumerate(documents.ids)}
    found, times = [], []
    for repeat in range(2):
        for number in range(len(queries)):
            started = time.perf_counter()
            rows, _ = searcher.rank_vectors(queries[number], 10, phrase_weight=0.0)
            if repeat:
                times.append(1000 * (time.perf_counter() - started))
                found.append([numbers[doc_id] for doc_id in searcher.ids(rows)])
    return found, times


def grown(db: Path, encoder: Encoder, documents: Vectors, begun: int) -> Index:
    """An index that begins with ``begun`` documents and gets ten times as many by each addition."""
    records = [{"id": i, "text": text} for i, text in zip(documents.ids, documents.texts, strict=True)]
    index = Index.create(db, "t", records[:begun], encoder=encoder)
    while begun < len(records):
        index.add(records[begun : 10 * begun])
        begun *= 10
    return index


if __name__ == "__main__":
    main()
