"""The way of a query from its vectors to the numbers of the best documents: one function, one stage after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...onnx_export.errors import InputError
from ..kernels.query_layout import QueryTables, QueryVectors
from .candidates import gather, probe, prune
from .filters import allowed, checked_ids
from .fulltext import check_text, fused, text_candidates, with_bm25
from .plan import SearchOptions, make_plan
from .refine import maxsim, refine, score
from .results import Ranking, Stopwatch
from .stored_codes import Codes


def rank(codes: Codes, text: str | None, query: np.ndarray, options: SearchOptions, watch: Stopwatch) -> Ranking:
    """The best documents.

    Args:
        codes: of the index.
        text: the query's text, where candidates may come from full text.
        query: float (query tokens, dim).
        options: of the search.
        watch: takes the time of each stage.

    Raises InputError for vectors of another shape or that are not finite, and for options that cannot be used.
    """
    query = _checked_vectors(query, codes.codec.dim)
    plan = make_plan(options, len(codes), codes.phrase_weight_for(options.phrase_weight))
    words = check_text(codes, text) if plan.source != "lists" else ""
    with watch.stage("filter"):
        allow = allowed(codes, options.where, options.ids)
    with watch.stage("tables"):
        vectors = QueryVectors.of(query, plan.phrase_weight)
    score_all = plan.score_all_up_to is None or allow.count <= plan.score_all_up_to
    by_text, bm25 = np.empty(0, np.int64), np.empty(0, np.float32)
    if plan.bm25_weight or (plan.source != "lists" and not score_all):
        with watch.stage("text"):
            by_text, bm25 = text_candidates(codes, words, allow, options.where, plan.candidates)
    if score_all:
        scored = allow.count
        with watch.stage("refine"):
            ranked, scores = score(codes, vectors, np.flatnonzero(allow.mask), plan.depth)
    else:
        with watch.stage("tables"):
            tables = QueryTables.of(query, codes.codec, codes.coarse)
        candidates, expected = by_text, None
        if plan.source != "text":
            with watch.stage("probe"):
                probed = probe(tables, plan.nprobe)
            with watch.stage("gather"):
                total = gather(codes, probed)
            with watch.stage("prune"):
                candidates = prune(codes, total, allow.mask, plan.candidates)
            if plan.source == "lists":
                expected = total[candidates]
            else:
                candidates = fused([candidates, by_text], plan.candidates)
        with watch.stage("refine"):
            ranked, scores, scored = refine(codes, tables, vectors, candidates, plan.depth, expected, plan.margin)
    if plan.bm25_weight:
        ranked, scores = with_bm25(ranked, scores, by_text, bm25, plan.bm25_weight)
    return Ranking(ranked[: options.k], scores[: options.k], scored, allow.missing)


def score_ids(codes: Codes, query: np.ndarray, ids: Sequence[str], phrase_weight: float | None = None) -> np.ndarray:
    """MaxSim of documents given by id: float32 (ids,), NaN for an id that the index has not.

    Args:
        codes: of the index.
        query: float (query tokens, dim).
        ids: of whole documents; where those are divided, the best of a document's passages counts.
        phrase_weight: as in `SearchOptions`.

    Raises InputError for vectors of another shape or that are not finite, for ids that are one string, and for a
    phrase weight that cannot be used.
    """
    vectors = QueryVectors.of(_checked_vectors(query, codes.codec.dim), codes.phrase_weight_for(phrase_weight))
    positions, documents = codes.by_id.find(checked_ids(ids))
    scored, of_each = np.unique(documents, return_inverse=True)
    scores = np.full(len(ids), np.nan, np.float32)
    np.fmax.at(scores, positions, maxsim(codes, vectors, scored)[of_each])
    return scores


def _checked_vectors(query: np.ndarray, dim: int) -> np.ndarray:
    if query.ndim != 2 or query.shape[1] != dim or not len(query):
        raise InputError(f"the query's vectors have shape {query.shape}, expected (tokens, {dim})")
    if not np.isfinite(query).all():
        raise InputError("the query's vectors hold numbers that are not finite")
    return np.ascontiguousarray(query, np.float32)
