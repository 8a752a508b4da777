"""The path of a query from its vectors to the best rows: one function, one stage after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...indexer.table.ids import checked_ids
from ...onnx_export.errors import InputError
from ..kernels.query_layout import BlockTables, QueryLanes
from .candidates import gather, probe, prune
from .filters import Allowed, allowed_rows
from .fulltext import check_text, fused, text_candidates, with_bm25
from .plan import SearchOptions, make_plan
from .refine import best_scored, maxsim, refine
from .results import RankedRows, Stopwatch
from .stored_codes import StoredCodes

_PASSAGES_PER_HIT = 4  # rows looked at for each document, and as many times more while there are too few documents


def rank(
    codes: StoredCodes,
    query_text: str | None,
    query_vectors: np.ndarray,
    options: SearchOptions,
    watch: Stopwatch,
    allowed: Allowed | None = None,
    level: float | None = None,
) -> RankedRows:
    """The best rows for a query: in an index of passages, the best of each document, unless passages are asked for.

    Args:
        codes: The index's codes.
        query_text: The query's text, for candidates from full-text search; None if only its vectors are known.
        query_vectors: float32 (query tokens, dim).
        options: The options of the search.
        watch: Measures the time of each stage.
        allowed: The rows that the options' filters leave, if they are known already.
        level: As `make_plan` takes it, for a number as ``recall``.

    Raises:
        InputError: Vectors of another shape or not finite, or options that this index cannot use.
    """
    query_vectors = _checked_vectors(query_vectors, codes.codec.dim)
    weight = codes.phrase_weight_for(options.phrase_weight)
    words = check_text(codes, query_text) if options.source != "lists" else ""
    if allowed is None:
        with watch.stage("filter"):
            allowed = allowed_rows(codes, options.where, options.ids)

    def best_rows(n_rows: int) -> RankedRows:
        return rank_rows(codes, query_vectors, words, replace(options, k=n_rows), weight, allowed, watch, level)

    if options.passages or not codes.index.header.passage_tokens:
        return best_rows(options.k)
    with watch.stage("group"):
        documents = codes.documents
    n_rows = _PASSAGES_PER_HIT * options.k
    if options.recall == "exact":  # which scores all rows, so that once is enough
        n_rows = max(n_rows, len(codes))
    while True:
        ranked = best_rows(n_rows)
        with watch.stage("group"):
            _, first = np.unique(documents[ranked.rows], return_index=True)
        if len(first) >= options.k or len(ranked.rows) < n_rows:  # there are no more documents to be found
            best = np.sort(first)[: options.k]
            return replace(ranked, rows=ranked.rows[best], scores=ranked.scores[best])
        n_rows *= _PASSAGES_PER_HIT


def rank_rows(
    codes: StoredCodes,
    query_vectors: np.ndarray,
    words: str,
    options: SearchOptions,
    weight: float,
    allowed: Allowed,
    watch: Stopwatch,
    level: float | None = None,
) -> RankedRows:
    """The best of the allowed rows, each for itself; ``words`` is the query's text, ``weight`` that of phrases."""
    routed = codes.routing is not None
    plan = make_plan(options, len(codes), weight, outgrown=codes.outgrown, routed=routed, level=level)
    with watch.stage("layout"):
        query_lanes = QueryLanes.of(query_vectors, plan.phrase_weight)
    score_all = plan.score_all_up_to is None or allowed.count <= plan.score_all_up_to

    by_text, bm25 = np.empty(0, np.int64), np.empty(0, np.float32)
    if plan.bm25_weight or (plan.source != "lists" and not score_all):
        with watch.stage("text"):
            by_text, bm25 = text_candidates(codes, words, allowed, plan.max_candidates)

    if score_all:
        scored = allowed.count
        with watch.stage("refine"):
            rows, scores = best_scored(codes, query_lanes, np.flatnonzero(allowed.mask), plan.depth)
    else:
        with watch.stage("tables"):
            tables = BlockTables.of(query_vectors, codes.codec, codes.coarse)
        candidates, approximate_of_candidates = by_text, None
        if plan.source != "text":
            with watch.stage("probe"):
                probed = probe(tables, plan.nprobe, codes.routing)
            with watch.stage("gather"):
                gathered = gather(codes, probed)
            with watch.stage("prune"):
                candidates = prune(gathered, allowed.mask, plan.max_candidates, codes.row_ids)
            if plan.source == "lists":
                approximate_of_candidates = gathered.scores[candidates]
            else:
                candidates = fused([candidates, by_text], plan.max_candidates)
        with watch.stage("refine"):
            rows, scores, scored = refine(
                codes, tables, query_lanes, candidates, plan.depth, approximate_of_candidates, plan.margin, plan.sure
            )

    if plan.bm25_weight:
        rows, scores = with_bm25(rows, scores, by_text, bm25, plan.bm25_weight)
    return RankedRows(rows[: options.k], scores[: options.k], scored, allowed.missing, scored == allowed.count)


def score_ids(
    codes: StoredCodes, query_vectors: np.ndarray, ids: Sequence[str], phrase_weight: float | None = None
) -> np.ndarray:
    """MaxSim of documents given by id: float32 (ids,), NaN for an id that is not in the index.

    Args:
        codes: The index's codes.
        query_vectors: float32 (query tokens, dim).
        ids: Ids of documents or passages; a document's score is that of its best passage.
        phrase_weight: As in `SearchOptions`.

    Raises:
        InputError: Vectors of another shape or not finite, one string in place of ids, or a phrase weight that cannot
            be used.
    """
    query_vectors = _checked_vectors(query_vectors, codes.codec.dim)
    query_lanes = QueryLanes.of(query_vectors, codes.phrase_weight_for(phrase_weight))
    positions, rows = codes.find_ids(checked_ids(ids))
    distinct, of_each = np.unique(rows, return_inverse=True)
    scores = np.full(len(ids), np.nan, np.float32)
    np.fmax.at(scores, positions, maxsim(codes, query_lanes, distinct)[of_each])
    return scores


def _checked_vectors(query_vectors: np.ndarray, dim: int) -> np.ndarray:
    if query_vectors.ndim != 2 or query_vectors.shape[1] != dim or not len(query_vectors):
        raise InputError(f"the query's vectors have shape {query_vectors.shape}, expected (tokens, {dim})")
    if not np.isfinite(query_vectors).all():
        raise InputError("the query's vectors hold numbers that are not finite")
    return np.ascontiguousarray(query_vectors, np.float32)
