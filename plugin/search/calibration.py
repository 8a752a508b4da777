"""What share of exact MaxSim's best a search finds in one index: a ladder of steps, with what was measured of each.

A number as ``recall`` of a search (`SearchOptions`) takes the cheapest step whose recall reaches it. `calibrator`
measures, and keeps the result in a file.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...indexer.derived.routing import is_about_as_large
from ...onnx_export.encode.rules import CHECKED_STRICTLY
from .choices import LEAST_RECALL
from .plan import MEASURED_HITS, Plan, SearchOptions, make_plan
from .stored_codes import StoredCodes

if TYPE_CHECKING:
    from pydantic import TypeAdapter

LEVELS = (-0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5)  # of `make_plan`; 0 is "fast", 1 "balanced"
PROMISED = SearchOptions(k=MEASURED_HITS, recall=LEAST_RECALL)  # of a search that is measured


@dataclass(frozen=True)
class CalibrationStep:
    """One step of the ladder.

    Attributes:
        level: How thorough it is: 0 as "fast", 1 as "balanced".
        nprobe: Number of centroids or routing points probed for each query token.
        candidates: Number of documents that may be scored by their codes.
        margin: How sure it must be that the remaining candidates hold no hit, see `Plan`.
        recall: Share of the ten best by exact MaxSim over the index's codes that such a search finds, at least.
    """

    level: float
    nprobe: int
    candidates: int
    margin: float
    recall: float = 0.0

    __pydantic_config__: ClassVar[dict[str, Any]] = CHECKED_STRICTLY

    def __post_init__(self) -> None:
        if not 0 <= self.recall <= 1:
            raise ValueError(f"recall is {self.recall}; it must be from 0 to 1")


@dataclass(frozen=True)
class Fitted:
    """What the measurements of an index hold for; of another one they say nothing.

    Attributes:
        build_id: The table's build.
        codec_id: Its codec.
        routing: Number of routing points, and of the tokens that they were found for; None without.
        phrase_weight: Weight of phrases in a search that gives none.
    """

    build_id: int
    codec_id: str
    routing: tuple[int, int] | None
    phrase_weight: float

    __pydantic_config__: ClassVar[dict[str, Any]] = CHECKED_STRICTLY

    @classmethod
    def of(cls, codes: StoredCodes) -> Fitted:
        """That of an open index."""
        header, routing = codes.index.header, codes.routing
        points = None if routing is None else (len(routing), routing.n_tokens)
        return cls(header.build_id, header.codec_id, points, codes.phrase_weight)


@dataclass(frozen=True)
class Calibration:
    """What was measured in one index.

    Attributes:
        steps: The ladder, from cheap to thorough.
        queries: Number of queries.
        own_queries: Number of those that the user gave; the others are stored documents.
        exhaustive: Whether the truth was the exhaustive ranking; False: that of a search with many more candidates.
        documents: Number of documents (or passages) in the index then.
        tokens: Number of their token vectors.
        fitted: What it holds for.
    """

    steps: tuple[CalibrationStep, ...]
    queries: int
    own_queries: int
    exhaustive: bool
    documents: int
    tokens: int
    fitted: Fitted

    __pydantic_config__: ClassVar[dict[str, Any]] = CHECKED_STRICTLY

    @classmethod
    def from_json(cls, content: bytes) -> Calibration:
        """Read what `as_json` wrote.

        Raises:
            ValueError: The content is another one.
        """
        return _adapter().validate_json(content)

    def as_json(self) -> str:
        """What `from_json` reads."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    def fits(self, codes: StoredCodes) -> bool:
        """Whether it holds for an open index: for the same codec and lists, and about as many tokens."""
        if self.fitted != Fitted.of(codes) or not is_about_as_large(self.tokens, codes.n_tokens):
            return False
        return [dataclasses.replace(step, recall=0.0) for step in self.steps] == ladder(codes, self.documents)

    def cheapest(self, recall: float) -> CalibrationStep | None:
        """The first step that reaches ``recall``; None: only scoring all rows does."""
        return next((step for step in self.steps if step.recall >= recall), None)

    def at(self, level: float) -> float:
        """The recall of the step of a level."""
        return next(step.recall for step in self.steps if step.level == level)


def plan_of(codes: StoredCodes, level: float, n_documents: int | None = None) -> Plan:
    """The plan of a search at a level, in the index as it is or as it was with another number of documents."""
    return make_plan(
        PROMISED,
        len(codes) if n_documents is None else n_documents,
        codes.phrase_weight,
        outgrown=codes.outgrown,
        routed=codes.routing is not None,
        level=level,
    )


def ladder(codes: StoredCodes, n_documents: int) -> list[CalibrationStep]:
    """The steps for an index, without what is measured of them.

    Args:
        codes: The index's codes.
        n_documents: Its number of documents, or an earlier one.
    """
    plans = [plan_of(codes, level, n_documents) for level in LEVELS]
    return [
        CalibrationStep(level, plan.nprobe, plan.max_candidates, plan.margin)
        for level, plan in zip(LEVELS, plans, strict=True)
    ]


@functools.cache
def _adapter() -> TypeAdapter[Calibration]:
    from pydantic import TypeAdapter  # here, because it takes a tenth of a second

    return TypeAdapter(Calibration)
