"""Ranking quality, step by step: BM25, exact MaxSim, compressed at 4, 2 and 1 bits, and through candidate search.

    python -m benchmarks.quality.quality --data ../shared/data --set jsquad-valid --set niilc-qa

All rows of one set use the same token vectors and the same queries. "exact" is exhaustive MaxSim over uncompressed
float32 vectors; "N-bit exhaustive" over decoded ones; "2-bit search" is the product: `Searcher` with its defaults,
which have phrases if the model says so. BM25 is that of `tansaku beir`, over character bigrams of title and text.

In a small corpus the codec itself moves hit@1 by some thousandths. `--orders 5` makes five indexes of the documents in
different orders, whose codecs differ, and shows the mean of their searches: for comparing two models.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path

import numpy as np

from tansaku import Document, Encoder, Index, Searcher, Source, TokenizedText
from tansaku.indexer.read.documents import DocumentReader
from tansaku.indexer.table.database import connect
from tansaku.indexer.table.table import open_index_table
from tansaku.plugin.evaluation.bm25 import Bm25
from tansaku.plugin.evaluation.judgements import Qrels, Run, judged_queries, read_qrels, read_queries
from tansaku.plugin.evaluation.measures import MEASURES, measure
from tansaku.plugin.evaluation.ranking import rank_all

from ..support.machine import cpu_name
from ..support.vectors import all_maxsim

K = 10
DEFAULT_NBITS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the BEIR folders")
    parser.add_argument("--set", dest="sets", action="append", required=True, help="name of one; may be repeated")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--queries", type=int, help="take this many queries, drawn with a fixed seed")
    parser.add_argument("--nbits", type=int, nargs="+", default=[2, 4, 1])
    parser.add_argument("--orders", type=int, default=1, help="number of orders of the documents for the 2-bit search")
    parser.add_argument("--model", type=Path, help="an encoder bundle; by default the one that ships inside")
    options = parser.parse_args()

    encoder = Remembering(Encoder.load(options.model))
    print(f"{date.today()}, {cpu_name()}, model {encoder.bundle.name} ({encoder.bundle.fingerprint})")
    for name in options.sets:
        evaluate_set(options.data / name, options, encoder)


def evaluate_set(folder: Path, options: argparse.Namespace, encoder: Encoder) -> None:
    documents = list(DocumentReader(Source(folder / "corpus.jsonl")))
    qrels = read_qrels(folder / "qrels" / f"{options.split}.tsv")
    queries = judged_queries(read_queries(folder / "queries.jsonl"), qrels)
    if options.queries and options.queries < len(queries):
        chosen = random.Random(0).sample(sorted(queries), options.queries)
        queries = {query_id: queries[query_id] for query_id in chosen}
        qrels = {query_id: qrels[query_id] for query_id in chosen}
    print(f"\n{folder.name} {options.split}: {len(documents):,} documents, {len(queries):,} queries")
    print(f"{'':<27}" + "".join(f"{name:>9}" for name in MEASURES) + f"{'bytes/token':>13}")

    ids = [document.id for document in documents]
    texts = [document.encoded_text for document in documents]
    show("BM25, bigrams", bm25_run(ids, texts, queries), qrels)

    vectors = encoder.encode_documents(texts)
    query_vectors = dict(zip(queries, encoder.encode_queries(list(queries.values())), strict=True))
    show("exact float32", exhaustive_run(ids, vectors, query_vectors), qrels, 4.0 * encoder.dim)
    with tempfile.TemporaryDirectory() as db:
        for nbits in options.nbits:
            index = Index.create(db, f"bits{nbits}", documents, encoder=encoder, nbits=nbits)
            size = index.info().bytes_per_token
            codec = open_index_table(connect(db), index.name).codec
            decoded = [codec.decode(*codec.encode(matrix)) for matrix in vectors]
            show(f"{nbits}-bit exhaustive", exhaustive_run(ids, decoded, query_vectors), qrels, size)
            if nbits == DEFAULT_NBITS:
                searcher = Searcher.open(db, index.name, encoder=encoder)
                if searcher.phrase_weight:
                    plain = rank_all(searcher, query_vectors, k=K, phrase_weight=0.0)
                    show(f"{nbits}-bit search, no phrases", plain, qrels, size)
                show(f"{nbits}-bit search", rank_all(searcher, query_vectors, k=K), qrels, size)
        if options.orders > 1:
            runs = list(in_orders(db, documents, encoder, query_vectors, options.orders))
            show_mean(f"{DEFAULT_NBITS}-bit search, {options.orders} orders", [measure(run, qrels) for run in runs])


def in_orders(
    db: str, documents: list[Document], encoder: Encoder, queries: dict[str, np.ndarray], orders: int
) -> Iterator[Run]:
    """The product's run over an index of the documents in each of some orders."""
    for seed in range(orders):
        shuffled = random.Random(seed).sample(documents, len(documents))
        index = Index.create(db, f"order{seed}", shuffled, encoder=encoder, nbits=DEFAULT_NBITS)
        yield rank_all(Searcher.open(db, index.name, encoder=encoder), queries, k=K)


class Remembering(Encoder):
    """An encoder that runs each text once, so that every index is made of the same vectors in little time."""

    def __init__(self, encoder: Encoder) -> None:
        self.__dict__.update(encoder.__dict__)
        self._known: dict[bytes, np.ndarray] = {}

    def remember(self, texts: Sequence[str], vectors: Iterable[np.ndarray]) -> None:
        """Take the vectors of texts of documents as they were encoded before."""
        tokenized = self.tokenize_documents(texts)
        self._known.update({text.ids.tobytes(): v for text, v in zip(tokenized, vectors, strict=True)})

    def encode_tokens(
        self, tokenized: Sequence[TokenizedText], note: Callable[[int], None] | None = None
    ) -> list[np.ndarray]:
        fresh = [text for text in tokenized if text.ids.tobytes() not in self._known]
        for text, vectors in zip(fresh, super().encode_tokens(fresh, note), strict=True):
            self._known[text.ids.tobytes()] = vectors
        return [self._known[text.ids.tobytes()] for text in tokenized]


def bm25_run(ids: list[str], texts: list[str], queries: dict[str, str]) -> Run:
    index = Bm25(zip(ids, texts, strict=True))
    return {query_id: index.best(text, K) for query_id, text in queries.items()}


def exhaustive_run(ids: list[str], vectors: Sequence[np.ndarray], queries: dict[str, np.ndarray]) -> Run:
    run: Run = {}
    for query_id, scores in zip(queries, all_maxsim(queries.values(), vectors), strict=True):
        best = np.argsort(-scores, kind="stable")[:K]
        run[query_id] = {ids[i]: float(scores[i]) for i in best}
    return run


def show(label: str, run: Run, qrels: Qrels, size: float | None = None) -> None:
    values = measure(run, qrels)
    row = "".join(f"{values[name]:>9.4f}" for name in MEASURES)
    print(f"{label:<27}{row}" + (f"{size:>13.1f}" if size else ""), flush=True)


def show_mean(label: str, values: list[dict[str, float]]) -> None:
    row = "".join(f"{np.mean([of_run[name] for of_run in values]):>9.4f}" for name in MEASURES)
    first = [of_run["hit@1"] for of_run in values]
    print(f"{label:<27}{row}  hit@1 from {min(first):.4f} to {max(first):.4f}", flush=True)


if __name__ == "__main__":
    main()
