"""How many of MaxSim's ten best documents are among the best by row vectors, and what that does to the ranking.

    python -m benchmarks.quality.row_vectors --data ../shared/data --cache CACHE --set jaquad --set kyoto-wiki-ja

For each length that the bundle offers and each number format of the documents' row vectors: the mean share of the ten
best of exact MaxSim (float32, without phrases) among the first 100, 200 and 500 by inner product. "best" is the share
of the questions whose best document is among the first 200. "int8" has one scale for all numbers, as a database has it;
"signs" compares the signs of both vectors. A second table measures MaxSim over all documents, and over the first 200
alone. Shares and measures do not depend on the load of the machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np

from tansaku import Encoder
from tansaku.plugin.evaluation.judgements import judged_queries, read_qrels, read_queries
from tansaku.plugin.evaluation.measures import measure
from tansaku.plugin.rows.row_vectors import RowVectors, read_maps

from ..support.machine import cpu_name
from ..support.vectors import Vectors, corpus

AMONG = (100, 200, 500)
RANKED = 200
MEASURES = {"nDCG@10": "nDCG@10", "hit@1": "Success@1", "hit@10": "Success@10"}

_TOKENS = 16_384  # of documents, whose products with all tokens of the questions are in memory


def maxsim_of_all(queries: list[np.ndarray], documents: Vectors) -> np.ndarray:
    """MaxSim of all queries with all documents: float32 (queries, documents)."""
    tokens, starts = np.concatenate(queries), np.cumsum([0, *map(len, queries)])[:-1]
    scores = np.empty((len(queries), len(documents)), np.float32)
    first, offsets = 0, documents.offsets
    while first < len(documents):
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + _TOKENS, "right")) - 1)
        last = min(last, len(documents))
        products = tokens @ documents.tokens[offsets[first] : offsets[last]].T
        best = np.maximum.reduceat(products, offsets[first:last] - offsets[first], axis=1)
        scores[:, first:last] = np.add.reduceat(best, starts, axis=0)
        first = last
    return scores


def as_int8(rows: np.ndarray) -> np.ndarray:
    scale = np.quantile(np.abs(rows[:: max(1, len(rows) // 1000)]), 0.999) / 127
    return np.clip(np.rint(rows / scale), -127, 127).astype(np.float32)


FORMATS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "float32": (lambda rows: rows, lambda queries: queries),
    "float16": (lambda rows: rows.astype(np.float16).astype(np.float32), lambda queries: queries),
    "int8": (as_int8, lambda queries: queries),
    "signs": (lambda rows: np.sign(rows), lambda queries: np.sign(queries)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Folder of BEIR folders.")
    parser.add_argument("--cache", type=Path, required=True, help="Folder that keeps token vectors.")
    parser.add_argument("--set", action="append", required=True, dest="sets", help="Name of a set; may be repeated.")
    parser.add_argument("--questions", type=int, default=500, help="Number of questions of a set, evenly drawn.")
    parser.add_argument("--bundle", type=Path, help="Folder of the bundle; by default the model inside.")
    args = parser.parse_args()
    encoder = Encoder.load(args.bundle)
    if encoder.folder is None or encoder.bundle.row_vectors is None:
        parser.error(f"the bundle of {encoder.bundle.name!r} has no row vectors")
    maps = read_maps(encoder.folder / encoder.bundle.row_vectors)
    print(f"{cpu_name()}, {date.today()}", flush=True)
    for name in args.sets:
        documents = corpus(args.data / name, args.cache)
        qrels = read_qrels(args.data / name / "qrels" / "dev.tsv")
        texts = judged_queries(read_queries(args.data / name / "queries.jsonl"), qrels)
        ids = list(texts)[:: max(1, len(texts) // args.questions)][: args.questions]
        queries = encoder.encode_queries([texts[query] for query in ids])
        exact = maxsim_of_all(queries, documents)
        ten = np.argsort(-exact, axis=1, kind="stable")[:, :10]
        print(f"\n`{name}`: {len(ids):,} questions, {len(documents):,} documents\n", flush=True)
        print(f"| length | format | {' | '.join(f'in {n}' for n in AMONG)} | best |\n|{'---|' * (len(AMONG) + 3)}")
        whole = RowVectors(maps, len(maps.anchors))
        centred = np.concatenate([whole.of_documents([documents[n]]) for n in range(len(documents))])
        chosen: dict[int, np.ndarray] = {}
        for dim in sorted(maps.dims):
            row_vectors = RowVectors(maps, dim)
            rows = centred if dim == whole.dim else centred @ maps.components[:, :dim]
            asked = np.stack([row_vectors.of_query(query) for query in queries])
            for kind, (of_rows, of_queries) in FORMATS.items():
                near = of_queries(asked) @ of_rows(rows).T
                order = np.argsort(-near, axis=1, kind="stable")[:, : max(AMONG)]
                if kind == "float32":
                    chosen[dim] = order[:, :RANKED]
                shares = [np.mean([np.isin(a, b[:n]).mean() for a, b in zip(ten, order, strict=True)]) for n in AMONG]
                best = np.mean([a[0] in b[:RANKED] for a, b in zip(ten, order, strict=True)])
                print(f"| {dim} | {kind} | {' | '.join(f'{share:.4f}' for share in (*shares, best))} |", flush=True)
        print(f"\n| MaxSim over | {' | '.join(MEASURES)} |\n|{'---|' * (len(MEASURES) + 1)}")
        every = np.argpartition(-exact, min(RANKED, exact.shape[1] - 1), axis=1)[:, :RANKED]
        for label, rows in [("all", every), *((f"the first {RANKED} of {dim}", rows) for dim, rows in chosen.items())]:
            run = {query: {documents.ids[n]: float(exact[i, n]) for n in rows[i]} for i, query in enumerate(ids)}
            found = measure(run, {query: qrels[query] for query in ids}, MEASURES)
            print(f"| {label} | {' | '.join(f'{found[m]:.4f}' for m in MEASURES)} |", flush=True)


if __name__ == "__main__":
    main()
