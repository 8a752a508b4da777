"""Lists of coarse centroids, of fine centroids, and of routing points under coarse ones: what gathering finds.

    python -m benchmarks.search.routing --data ../shared/data --cache CACHE [--passages 6000] [--centroids 1024 8192]

For each number of centroids a codec is trained on the passages' vectors. Shown is which part of the exact ten (float32
MaxSim) is among the first documents by the approximate scores of gathering alone, and how many postings were read. With
routing, points lie under the same codes (`tansaku.indexer.derived.routing`). "imputed" is the share of a query token's
lowest probed score that stands for a document without a token in its probed lists.
"""

from __future__ import annotations

import argparse
import itertools
import time
from datetime import date
from pathlib import Path

import numpy as np

from tansaku.indexer.codec.codec import ResidualCodec
from tansaku.indexer.derived.postings import InvertedLists
from tansaku.indexer.derived.routing import Routing
from tansaku.plugin.kernels.index_loops import gather_from_lists
from tansaku.plugin.kernels.query_layout import BlockTables, CoarseCodec
from tansaku.plugin.search.candidates import IMPUTED_SHARE, Probed, imputed_scores, probe

from ..support.machine import cpu_name
from ..support.vectors import exhaustive, passages, questions

_FIRST = (32, 64, 128, 256, 512)
_SAMPLE = 400_000  # vectors that a codec is trained on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--passages", type=int, default=6000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--centroids", type=int, nargs="+", default=[1024, 8192])
    parser.add_argument("--probes", type=int, nargs="+", default=[16, 32, 48])
    parser.add_argument("--imputed", type=float, nargs="+", default=[1.0, IMPUTED_SHARE], help="shares")
    options = parser.parse_args()
    documents = passages(options.data, options.cache, options.passages)
    queries = questions(options.data, options.cache, options.questions)
    exact = exhaustive(documents.tokens, documents.offsets, queries, 10)
    vectors = np.asarray(documents.tokens)
    print(
        f"{date.today()}, {cpu_name()}, {len(documents):,} passages, {len(vectors):,} vectors, {len(queries)} questions"
    )
    print(f"{'':<62}{'postings':>10}" + "".join(f"{f'first {n}':>11}" for n in _FIRST))
    for n_centroids in options.centroids:
        sample = vectors[np.random.default_rng(0).permutation(len(vectors))[:_SAMPLE]]
        codec = ResidualCodec.train(sample, nbits=2, n_centroids=n_centroids)
        codes = codec.encode(vectors)
        coarse = CoarseCodec.of(codec)
        tables = [BlockTables.of(queries[number], codec, coarse) for number in range(len(queries))]
        started = time.perf_counter()
        routing = Routing.train(codec, [codes])
        points = routing.assign(codec, codes)
        seconds = time.perf_counter() - started
        for kind, lists, routed in (
            ("centroids", InvertedLists.build(codes[0], documents.offsets, n_centroids), None),
            (f"{len(routing):,} points ({seconds:.0f} s)",
             InvertedLists.build(points, documents.offsets, len(routing)), routing),
        ):  # fmt: skip
            for nprobe, imputed in itertools.product(options.probes, options.imputed):
                probed = [probe(blocks, nprobe, routed) for blocks in tables]
                shares, postings = found(lists, probed, exact, imputed)
                name = f"{n_centroids:,} centroids, lists of {kind}, {nprobe} probes, {imputed:g} imputed"
                print(f"{name:<62}{postings:>10,.0f}" + "".join(f"{share:>11.3f}" for share in shares), flush=True)


def found(
    lists: InvertedLists, probed: list[list[Probed]], exact: np.ndarray, imputed: float
) -> tuple[np.ndarray, float]:
    """Shares of the exact ten among the first documents, and the mean number of postings read for a question."""
    n_documents = int(lists.postings.max()) + 1
    shares, postings = [], 0
    for of_query, best in zip(probed, exact, strict=True):
        total = np.zeros(max(n_documents, int(exact.max()) + 1), np.int32)
        touched, n_touched = np.empty(len(total), np.int32), 0
        for ids, scores in of_query:
            instead = imputed_scores(scores, imputed)
            n_touched = gather_from_lists(
                lists.offsets, lists.postings, ids, scores, instead, total, touched, n_touched
            )
            postings += int((lists.offsets[ids + 1].astype(np.int64) - lists.offsets[ids]).sum())
        place = np.empty(len(total), np.int64)
        place[np.argsort(-total, kind="stable")] = np.arange(len(total))
        shares.append([(place[best] < n).mean() for n in _FIRST])
    return np.mean(shares, axis=0), postings / len(probed)


if __name__ == "__main__":
    main()
