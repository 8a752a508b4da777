"""How much a search looks at: the knob `recall`, and what it stands for at a corpus size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from ...onnx_export.encode.bundle import check_weight
from ...onnx_export.errors import InputError

Recall = Literal["fast", "balanced", "exact"]
SourceName = Literal["lists", "text", "fused"]

_ALL_UP_TO = 512
# At up to `_SMALL` documents; beyond, more of them come close to the best, and `make_plan` lets these grow, so far as
# that was measured: `benchmarks/search/stages.py --plans`, at 20,000 and 140,000.
_SMALL, _LARGE = 10_000, 140_000
_NPROBE = {"fast": 16, "balanced": 32}
_CANDIDATES = {"fast": 256, "balanced": 1024}
_CANDIDATES_PER_HIT = {"fast": 4, "balanced": 16}
_MARGIN = {"fast": 2.0, "balanced": 2.75}
# Documents, the best by MaxSim, among which BM25 may change the order, or so many times the hits if that is more; and
# phrases, which change it less.
_BY_BM25, _BY_BM25_PER_HIT = 64, 4
_BY_PHRASES = 16


class SearchOptions(TypedDict, total=False):
    """What a search can be told; all of it may be left out.

    Attributes:
        recall: "fast", "balanced" (the default), or "exact", which scores every document.
        where: a condition over the table's columns, in LanceDB's SQL; only documents for which it holds are found.
        ids: only these documents are found; `Hits.missing` has those that the index has not.
        source: where candidates come from: "lists" (the default), our inverted lists; "text", LanceDB's full text
            search, in an index made with it; "fused", both by reciprocal rank. The final order is MaxSim's, unless:
        bm25_weight: a hit's score is its MaxSim and so many times its BM25 by full text search; 0 (the default) is
            MaxSim alone. Needs ``source`` "text" or "fused". BM25 grows with the rarity of the words that are met,
            MaxSim with the query's tokens: 0.02 did well (`benchmarks/search/sources.py`).
        phrase_weight: what the neighbours of a token count, see `phrases`; 0 is MaxSim alone. None (the default) is
            what the model says, `Bundle.phrase_weight`, and 0 in an index of pooled vectors, which allows nothing else.
        nprobe: centroids probed for each query token, instead of what ``recall`` stands for.
        candidates: documents that may be scored by their codes, likewise; where no more are allowed, all are scored.
    """

    recall: Recall
    where: str | None
    ids: Sequence[str] | None
    source: SourceName
    bm25_weight: float
    phrase_weight: float | None
    nprobe: int | None
    candidates: int | None


@dataclass(frozen=True)
class Plan:
    """What a search does.

    Attributes:
        all_up_to: up to so many allowed documents all are scored, in float32; None is always.
        source: where candidates come from otherwise.
        bm25_weight: what a hit's BM25 counts beside its MaxSim.
        phrase_weight: what the neighbours of a token count.
        depth: how many documents are ranked before BM25 is added.
        nprobe: centroids probed for each query token.
        candidates: documents that may be scored by their codes.
        margin: how sure it must be that the rest of the candidates hold no hit; see `refine`.
    """

    all_up_to: int | None
    source: SourceName
    bm25_weight: float
    phrase_weight: float
    depth: int
    nprobe: int
    candidates: int
    margin: float


def make_plan(options: SearchOptions, k: int, documents: int = 0) -> Plan:
    """The plan for ``k`` hits among so many ``documents``; where options have no phrase weight, for MaxSim alone.

    Raises InputError for an option that is none, another ``recall``, a number below 1, a weight that is none, and one
    of BM25 that no full text search would give.
    """
    unknown = sorted(set(options) - set(SearchOptions.__annotations__))
    if unknown:
        raise InputError(f"a search has no option {unknown[0]!r}; it has {', '.join(SearchOptions.__annotations__)}")
    recall, nprobe, candidates = options.get("recall", "balanced"), options.get("nprobe"), options.get("candidates")
    source = options.get("source", "lists")
    for name, value, known in (("recall", recall, get_args(Recall)), ("source", source, get_args(SourceName))):
        if value not in known:
            raise InputError(f"{name} is {value!r}; it must be one of {', '.join(known)}")
    for name, value in (("k", k), ("nprobe", nprobe), ("candidates", candidates)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; it must be 1 or more")
    weight = check_weight("bm25_weight", options.get("bm25_weight", 0.0))
    if weight and source == "lists":
        raise InputError("bm25_weight needs candidates from full text: set source to 'fused' or 'text'")
    phrase_weight = check_weight("phrase_weight", options.get("phrase_weight") or 0.0)
    depth = k
    if weight:
        depth = max(_BY_BM25, _BY_BM25_PER_HIT * k)
    elif phrase_weight:
        depth = max(_BY_PHRASES, k)
    if recall == "exact":
        return Plan(None, source, weight, phrase_weight, depth, 1, depth, 0.0)
    growth = min(max(documents, _SMALL), _LARGE) / _SMALL
    wanted = candidates or max(round(_CANDIDATES[recall] * growth**0.5), _CANDIDATES_PER_HIT[recall] * k)
    return Plan(
        all_up_to=candidates or max(_ALL_UP_TO, k),
        source=source,
        bm25_weight=weight,
        phrase_weight=phrase_weight,
        depth=depth,
        nprobe=nprobe or round(_NPROBE[recall] * growth ** (1 / 3)),
        candidates=max(wanted, depth) if weight else wanted,
        margin=_MARGIN[recall] + 0.2 * math.log(growth),
    )
