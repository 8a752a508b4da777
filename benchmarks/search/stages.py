"""What each choice in the path of a query costs and keeps, on one index.

    python -m benchmarks.search.stages --data ../shared/data --cache CACHE --passages 6000

The index is the one that search.py has made. recall@10 is against exhaustive scoring of the same codes; milliseconds
are p50 and p95 at one thread, of the stages from tables to ranked documents. Tried are how many centroids are probed, a
fixed number of candidates against rounds that stop (see `refine`), and PLAID's centroid interaction (MaxSim over the
centroids of all of a document's tokens) between gathering and refining. `--plans` measures only what `recall` stands
for at this corpus size, and beside it what it stands for at 10,000 documents.
"""

from __future__ import annotations

import argparse
import time
from datetime import date
from pathlib import Path

import numpy as np

from tansaku.plugin.kernels.index_loops import integer_maxsim
from tansaku.plugin.kernels.query_layout import BlockTables, QueryLanes
from tansaku.plugin.search.candidates import gather, probe, prune
from tansaku.plugin.search.plan import SearchOptions, make_plan
from tansaku.plugin.search.refine import refine
from tansaku.plugin.search.stored_codes import StoredCodes

from ..support.machine import cpu_name
from ..support.vectors import questions, recall
from .search_engine import Tansaku


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--passages", type=int, default=6000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--plans", action="store_true", help="only the plans of fast and balanced")
    options = parser.parse_args()
    folder = options.cache / "engines" / f"tansaku-2-{options.passages}"
    opened = Tansaku({"folder": str(folder), "nbits": 2, "threads": 1, "recall": ["balanced"]})
    codes = opened.searcher._codes
    queries = questions(options.data, options.cache, options.questions)
    asked = [queries[number] for number in range(len(queries))]
    exact = np.array([opened.searcher.rank_vectors(q, 10, recall="exact", phrase_weight=0.0)[0] for q in asked])
    print(f"{date.today()}, {cpu_name()}; {len(codes):,} passages, {len(asked)} questions, 10 hits")
    print(f"{'':<52}{'recall@10':>10}{'p50 ms':>8}{'p95':>8}{'scored':>8}")

    def report(name: str, nprobe: int, limit: int, margin: float, interaction: int = 0) -> None:
        found, times, scored = [], [], []
        for repeat in range(2):
            for query in asked:
                started = time.perf_counter()
                documents, count = ranked(codes, query, nprobe, limit, margin, interaction)
                if repeat:
                    times.append(1000 * (time.perf_counter() - started))
                    found.append(documents[:10].tolist())
                    scored.append(count)
        p50, p95 = np.percentile(times, [50, 95])
        print(f"{name:<52}{recall(found, exact, 10):>10.4f}{p50:>8.2f}{p95:>8.2f}{np.median(scored):>8.0f}", flush=True)

    for documents in (10_000, len(codes)):
        for name in ("fast", "balanced"):
            plan = make_plan(SearchOptions(recall=name), documents, routed=codes.routing is not None)
            how = f"{plan.nprobe}, {plan.max_candidates:,}, {plan.margin:.2f}"
            report(f"{name} of {documents:,} documents: {how}", plan.nprobe, plan.max_candidates, plan.margin)
    if options.plans:
        return
    for nprobe in (8, 16, 32, 64):
        report(f"nprobe {nprobe}, 512 candidates", nprobe, 512, np.inf)
    for limit in (128, 256, 1024):
        report(f"nprobe 32, {limit} candidates", 32, limit, np.inf)
    for margin in (2.0, 2.5, 3.0, 3.5):
        report(f"nprobe 32, up to 1,024 candidates, margin {margin}", 32, 1024, margin)
    for limit in (128, 256):
        report(f"nprobe 32, 1,024, centroid interaction to {limit}", 32, 1024, np.inf, limit)


def ranked(
    codes: StoredCodes, query: np.ndarray, nprobe: int, limit: int, margin: float, interaction: int
) -> tuple[np.ndarray, int]:
    tables = BlockTables.of(query, codes.codec, codes.coarse)
    gathered = gather(codes, probe(tables, nprobe, codes.routing))
    documents = prune(gathered, codes.alive, limit, codes.row_ids)
    if interaction:
        documents = np.sort(documents)
        scores = np.zeros(len(documents), np.int64)
        for part in codes.parts(documents):
            for block in tables:  # without a byte of the residuals
                scores[part.positions] += integer_maxsim(
                    block.centroid_scores,
                    block.residual_scores[:0],
                    block.n_tokens,
                    1,
                    part.centroid_ids,
                    part.residuals,
                    part.starts,
                    part.ends,
                )
        documents = documents[np.argsort(-scores, kind="stable")[:interaction]]
    approximate = None if np.isinf(margin) else gathered.scores[documents]
    found, _, scored = refine(codes, tables, QueryLanes.of(query, 0.0), documents, 10, approximate, margin)
    return found, scored


if __name__ == "__main__":
    main()
