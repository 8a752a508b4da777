"""What the caller asks of a search (`SearchOptions`), and what the search does for it at a corpus size (`Plan`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, get_args

from ...indexer.table.conditions import Where
from ...onnx_export.encode.bundle import check_weight
from ...onnx_export.errors import InputError
from ...onnx_export.kinds import check_whole
from .choices import LEAST_RECALL, Recall, RecallName, SourceName

_SCORE_ALL_UP_TO = 512  # documents
# Where the codec has too few centroids to tell likely documents: all are scored, or beyond that many more.
_SCORE_ALL_OUTGROWN = 100_000
_MORE_OUTGROWN = 16
# The values for up to `_SMALL` documents. In a larger corpus more documents come close to the best, and `make_plan`
# lets the values grow, up to `_LARGE` documents: as far as `benchmarks.search.stages --plans` measured it, at 20,000
# and 140,000.
_SMALL, _LARGE = 10_000, 140_000
# They are those of level 0. Each level more doubles numbers of probes, takes four times as many candidates, and adds to
# the margin.
LEVELS_BY_NAME = {"fast": 0.0, "balanced": 1.0}
_NPROBE, _NPROBE_ROUTED = 16, 32
_CANDIDATES, _CANDIDATES_ROUTED, _CANDIDATES_PER_HIT = 256, 80, 4
_MARGIN, _MARGIN_PER_LEVEL = 1.9, 0.6
MEASURED_HITS = 10  # for which the share is measured that a number as recall promises
# How many of the best documents by MaxSim are reordered: by BM25 the first 64, or four times the hits if that is more;
# by phrases, which change the order less, the first 16.
_DEPTH_FOR_BM25, _DEPTH_FOR_BM25_PER_HIT = 64, 4
_DEPTH_FOR_PHRASES = 16


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """The options of a search. `Searcher.search` takes each of them by the same name, with the same default.

    Attributes:
        k: Number of hits, 1 or more.
        recall: How much of the index is examined: "fast", "balanced", or "exact", which scores every document. Or the
            share of exact MaxSim's ten best that is expected among the first ten hits, 0.9 to 1.0: as little is
            examined as that share was measured to need in this index (`Searcher.calibrate`); 1.0 is "exact".
        where: Condition over the table's columns: text, or a `Condition` with parameters; only documents that meet it
            are found.
        ids: Ids of documents or passages; only these are found. `Hits.missing` lists the ids that are not in the index.
        passages: In an index of passages: whether each passage is a hit of its own, under its own id. False: each
            document is one hit, with its best passage as the text.
        source: Where candidates come from: "lists", the inverted lists of tansaku; "text", LanceDB's full-text search,
            in an index made with it; "fused", both, merged by reciprocal rank fusion. Candidates are ranked by MaxSim,
            and by BM25 if it has a weight.
        bm25_weight: Weight given to a hit's BM25 score, 0 to 1000: its score is MaxSim + weight × BM25. 0 is MaxSim
            alone. Needs ``source`` "text" or "fused". BM25 grows with the rarity of the words found, MaxSim with the
            number of query tokens: 0.02 did well (`benchmarks.search.sources`).
        phrase_weight: Weight given to the similarity of neighbouring tokens, 0 to 1000; 0 is plain MaxSim. The formula
            is in `plugin/kernels/phrases.py`. None takes the model's own (`Bundle.phrase_weight`), or 0 in an index of
            pooled vectors, which allows no other.
        nprobe: Number of centroids probed for each query token, 1 or more. None: as ``recall`` sets it.
        candidates: Number of documents that may be scored by their codes, 1 or more; if the filters leave no more than
            that, all of them are scored. None: as ``recall`` sets it.
        fields: What is read of each hit: "title", "text" and names of columns. None reads all; an empty list nothing,
            which spares the search a read of the table. A title or text that is not read is empty. All hits have their
            id and score, which may be named too.

    Raises:
        InputError: An unknown ``recall`` or ``source``, a number below 1, a weight outside 0 to 1000, a
            ``bm25_weight`` where no full-text search runs, one string as ``fields``, or a number as ``recall`` that is
            outside 0.9 to 1.0 or given with ``nprobe``, ``candidates`` or another ``source`` than "lists", of which it
            promises nothing.
    """

    k: int = 10
    recall: Recall = "balanced"
    where: Where | None = None
    ids: Sequence[str] | None = None
    passages: bool = False
    source: SourceName = "lists"
    bm25_weight: float = 0.0
    phrase_weight: float | None = None
    nprobe: int | None = None
    candidates: int | None = None
    fields: Sequence[str] | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> SearchOptions:
        """The options that are ``given`` by name, the others at their defaults.

        Raises:
            InputError: An unknown name, or a value that `SearchOptions` refuses.
        """
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise InputError(f"unknown search option {name!r}; use {_one_of(known)}")
        return cls(**given)

    def __post_init__(self) -> None:
        if self.source not in get_args(SourceName):
            raise InputError(f"unknown source {self.source!r}; use {_one_of(get_args(SourceName))}")
        self._check_recall()
        check_whole("k", self.k)
        if not isinstance(self.passages, bool):
            raise InputError(f"passages is {self.passages!r}; use True or False")
        for name, value in (("nprobe", self.nprobe), ("candidates", self.candidates)):
            if value is not None:
                check_whole(name, value)
        if isinstance(self.fields, str):
            raise InputError(f"fields is one string, {self.fields!r}; give a list of names")
        check_weight("bm25_weight", self.bm25_weight)
        if self.phrase_weight is not None:
            check_weight("phrase_weight", self.phrase_weight)
        if self.bm25_weight and self.source == "lists":
            raise InputError("bm25_weight needs candidates from full text: set source to 'fused' or 'text'")

    def _check_recall(self) -> None:
        recall, names = self.recall, get_args(RecallName)
        remedy = f"use {', '.join(names)} or a number from {LEAST_RECALL} to 1"
        if isinstance(recall, str):
            if recall not in names:
                raise InputError(f"unknown recall {recall!r}; {remedy}")
            return
        if not isinstance(recall, Real) or isinstance(recall, bool) or not LEAST_RECALL <= recall <= 1:
            raise InputError(f"recall is {recall!r}; {remedy}")
        for name, value in (("nprobe", self.nprobe), ("candidates", self.candidates)):
            if value is not None:
                raise InputError(f"recall {recall} is a promise that {name} would overrule; give one of the two")
        if self.source != "lists":
            raise InputError(
                f"recall {recall} is a promise for candidates from lists: leave out source, or give recall by name"
            )


def _one_of(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"


@dataclass(frozen=True)
class Plan:
    """What a search does.

    Attributes:
        score_all_up_to: If no more documents than this are allowed, all are scored in float32; None: always.
        source: Where candidates come from otherwise.
        bm25_weight: Weight of the BM25 score that is added to MaxSim.
        phrase_weight: Weight of the similarity of neighbouring tokens.
        depth: Number of documents that are ranked in float32 by MaxSim with phrases; BM25 is added to these.
        sure: Number of documents that the margin holds for, ``depth`` or fewer.
        nprobe: Number of centroids probed for each query token.
        max_candidates: Number of documents that may be scored by their codes.
        margin: How sure it must be that the remaining candidates hold no hit, in standard deviations; see
            `refine.refine`.
    """

    score_all_up_to: int | None
    source: SourceName
    bm25_weight: float
    phrase_weight: float
    depth: int
    sure: int
    nprobe: int
    max_candidates: int
    margin: float


def make_plan(
    options: SearchOptions,
    n_documents: int = 0,
    phrase_weight: float = 0.0,
    *,
    outgrown: bool = False,
    routed: bool = False,
    level: float | None = None,
) -> Plan:
    """The plan for a search of an index.

    Args:
        options: The options of the search; its ``phrase_weight`` is not read here.
        n_documents: Number of documents in the index.
        phrase_weight: The weight that the search uses, see `StoredCodes.phrase_weight_for`.
        outgrown: Whether the index has grown too much for its lists: more is looked at, unless an option says how much.
        routed: Whether lists are of routing points: they are equally fine in an index of any size.
        level: How thorough a search is whose ``recall`` is a number: 0 as "fast", 1 as "balanced", and more in the same
            steps; None: all rows are scored. Not read where ``recall`` is a name.
    """
    k = sure = depth = options.k
    if isinstance(options.recall, str):
        level = LEVELS_BY_NAME.get(options.recall)
    else:
        sure = depth = max(depth, MEASURED_HITS)  # what was measured of ten hits holds for the first of them
    if options.bm25_weight:
        sure = depth = max(_DEPTH_FOR_BM25, _DEPTH_FOR_BM25_PER_HIT * k)
    elif phrase_weight:
        depth = max(_DEPTH_FOR_PHRASES, depth)
    if level is None:
        return Plan(
            score_all_up_to=None,
            source=options.source,
            bm25_weight=options.bm25_weight,
            phrase_weight=phrase_weight,
            depth=depth,
            sure=sure,
            nprobe=1,  # this and the next two are read only where not all is scored
            max_candidates=depth,
            margin=0.0,
        )
    growth = min(max(n_documents, _SMALL), _LARGE) / _SMALL
    more = _MORE_OUTGROWN if outgrown else 1
    usual = (_CANDIDATES_ROUTED if routed else _CANDIDATES) * growth**0.5
    usual = round(4**level * max(usual, _CANDIDATES_PER_HIT * k))
    candidates = options.candidates or more * usual
    usual = round(2**level * (_NPROBE_ROUTED if routed else _NPROBE * growth ** (1 / 3)))
    nprobe = options.nprobe or more * usual
    score_all_up_to = options.candidates or max(_SCORE_ALL_OUTGROWN if outgrown else _SCORE_ALL_UP_TO, k)
    return Plan(
        score_all_up_to=score_all_up_to,
        source=options.source,
        bm25_weight=options.bm25_weight,
        phrase_weight=phrase_weight,
        depth=depth,
        sure=sure,
        nprobe=nprobe,
        max_candidates=max(candidates, depth) if options.bm25_weight else candidates,
        margin=_MARGIN + _MARGIN_PER_LEVEL * level + 0.2 * math.log(growth),
    )
