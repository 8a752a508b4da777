"""What rows lose that are made from an index, in place of from texts: its vectors are decoded, and coded again.

    python -m benchmarks.quality.moved --data ../shared/data/jaquad --documents 2000

Each line ranks all documents by MaxSim over other vectors: the encoder's float32; an index; rows coded from texts; rows
that `tansaku export-codes` makes of the index; an index that `tansaku import-codes` makes of rows. "recall@10" is the
share of the ten best by float32. "in 200" is the share of these that are among the 200 nearest row vectors, and "after
200" the recall@10 of MaxSim over these alone.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tansaku import Coder, Index, ResidualCodec, Source
from tansaku.indexer.read.documents import DocumentReader
from tansaku.indexer.table.database import connect
from tansaku.indexer.table.table import open_index_table
from tansaku.plugin.evaluation.judgements import judged_queries, read_qrels, read_queries
from tansaku.plugin.hosts.rows.moving import IndexRows

from ..support.machine import cpu_name

_CANDIDATES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a BEIR folder")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--documents", type=int, default=2000, help="the first so many, and their questions")
    parser.add_argument("--questions", type=int, default=500, help="at most so many of these, evenly spread")
    options = parser.parse_args()
    coder = Coder.load(threads=os.cpu_count())
    documents = list(islice(DocumentReader(Source(options.data / "corpus.jsonl")), options.documents))
    ids = [document.id for document in documents]
    known = set(ids)
    qrels = {query: docs for query, docs in read_qrels(options.data / "qrels" / f"{options.split}.tsv").items()
             if known >= docs.keys()}  # fmt: skip
    asked = list(qrels)
    if len(asked) > options.questions:
        asked = [asked[i] for i in np.linspace(0, len(asked) - 1, options.questions).astype(int)]
    qrels = {query: qrels[query] for query in asked}
    texts = judged_queries(read_queries(options.data / "queries.jsonl"), qrels)
    queries = coder.encoder.encode_queries(list(texts.values()))
    gold = [{ids.index(doc) for doc, grade in qrels[query].items() if grade > 0} for query in texts]
    print(f"{date.today()}, {cpu_name()}, model {coder.encoder.bundle.name}")
    print(f"{options.data.name} {options.split}: {len(ids):,} documents, {len(queries):,} questions\n")
    print("| MaxSim over | hit@1 | recall@10 | in 200 | after 200 |\n|---|---|---|---|---|")

    vectors = coder.encoder.encode_documents([document.encoded_text for document in documents])
    exact = [scores_of(query, vectors) for query in queries]
    best = [top(scores, 10) for scores in exact]
    show("float32", exact, gold, best)
    fresh = coder.code_vectors(vectors)
    with tempfile.TemporaryDirectory() as folder:
        records = [{"id": document.id, "text": document.text, "title": document.title} for document in documents]
        Index.create_from_vectors(folder, "first", records, vectors, encoder=coder.encoder)
        opened = open_index_table(connect(folder), "first")
        rows = {row.id: row for batch, _ in IndexRows(opened, coder).batches(0, None) for row in batch}
        decoded = {
            row["id"]: row for row in opened.table.search().select(["id", "centroid_ids", "residuals"]).to_list()
        }
        kept = [decoded_row(opened.codec, decoded[doc_id]) for doc_id in ids]
        show("the index", [scores_of(query, kept) for query in queries], gold, best)
        texts_rows = coder.decode([one.codes for one in fresh])
        show("rows from texts", [scores_of(query, texts_rows) for query in queries], gold, best,
             np.stack([one.row_vector for one in fresh]), coder, queries)  # fmt: skip
        moved = coder.decode([rows[doc_id].codes for doc_id in ids])
        show("rows from the index", [scores_of(query, moved) for query in queries], gold, best,
             np.stack([rows[doc_id].row_vector for doc_id in ids]), coder, queries)  # fmt: skip
        Index.create_from_vectors(folder, "second", records, texts_rows, encoder=coder.encoder)
        again = open_index_table(connect(folder), "second")
        decoded = {row["id"]: row for row in again.table.search().select(["id", "centroid_ids", "residuals"]).to_list()}
        back = [decoded_row(again.codec, decoded[doc_id]) for doc_id in ids]
        show("an index from these rows", [scores_of(query, back) for query in queries], gold, best)


def decoded_row(codec: ResidualCodec, row: dict[str, Any]) -> np.ndarray:
    ids = np.frombuffer(row["centroid_ids"], codec.id_dtype)
    return codec.decode(ids, np.frombuffer(row["residuals"], np.uint8).reshape(len(ids), -1))


def scores_of(query: np.ndarray, documents: Sequence[np.ndarray]) -> np.ndarray:
    products = np.concatenate(documents) @ query.T
    starts = np.cumsum([0, *map(len, documents[:-1])])
    return np.maximum.reduceat(products, starts, axis=0).sum(axis=1)


def top(scores: np.ndarray, n: int) -> set[int]:
    return set(np.argsort(-scores, kind="stable")[:n].tolist())


def show(
    name: str,
    scores: Sequence[np.ndarray],
    gold: Sequence[set[int]],
    best: Sequence[set[int]],
    row_vectors: np.ndarray | None = None,
    coder: Coder | None = None,
    queries: Sequence[np.ndarray] = (),
) -> None:
    hit = np.mean([int(one.argmax()) in right for one, right in zip(scores, gold, strict=True)])
    recall = np.mean([len(top(one, 10) & ten) / 10 for one, ten in zip(scores, best, strict=True)])
    cells = ["–", "–"]
    if row_vectors is not None and coder is not None:
        found, after = [], []
        for query, one, ten in zip(queries, scores, best, strict=True):
            near = top(row_vectors @ coder._row_vectors.of_query(query), _CANDIDATES)
            found.append(len(near & ten) / 10)
            among = np.full(len(one), -np.inf)
            among[list(near)] = one[list(near)]
            after.append(len(top(among, 10) & ten) / 10)
        cells = [f"{np.mean(found):.4f}", f"{np.mean(after):.4f}"]
    print(f"| {name} | {hit:.4f} | {recall:.4f} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
