"""Teachers: what gives the scores that a model is trained to give, and how several of them become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from ..onnx_export import Encoder, InputError, MissingExtraError
from .bm25 import Bm25
from .groups import normalized

_TOGETHER = 32  # pairs that a cross-encoder reads at a time


class Teacher(Protocol):
    """Anything that scores passages for a query."""

    def scores(self, query: str, passages: Mapping[str, str]) -> np.ndarray:
        """How well each passage, id → text, answers ``query``: float (passages,), higher is better."""
        ...


class CrossEncoderTeacher:
    """A cross-encoder of sentence-transformers.

    Args:
        model: its folder or its name on a hub.

    Raises MissingExtraError without sentence-transformers.
    """

    def __init__(self, model: str) -> None:
        try:
            from sentence_transformers import CrossEncoder
        except ImportError as error:
            raise MissingExtraError("sentence-transformers", "train") from error
        self._model = CrossEncoder(model)

    def scores(self, query: str, passages: Mapping[str, str]) -> np.ndarray:
        """See `Teacher`."""
        pairs = [(query, text) for text in passages.values()]
        return np.asarray(self._model.predict(pairs, batch_size=_TOGETHER, show_progress_bar=False), np.float64)


class MaxSimTeacher:
    """A ColBERT model, run from its bundle.

    Args:
        encoder: the model.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def scores(self, query: str, passages: Mapping[str, str]) -> np.ndarray:
        """See `Teacher`."""
        (vectors,) = self._encoder.encode_queries([query])
        found = self._encoder.encode_documents(passages.values())
        return np.array([float((vectors @ of_one.T).max(axis=1).sum()) for of_one in found])


class Bm25Teacher:
    """BM25 with the statistics of the whole collection."""

    def __init__(self, bm25: Bm25) -> None:
        self._bm25 = bm25

    def scores(self, query: str, passages: Mapping[str, str]) -> np.ndarray:
        """See `Teacher`."""
        return self._bm25.scores(query, list(passages))


def teacher_named(name: str, bm25: Bm25 | None) -> tuple[Teacher, float]:
    """The teacher and its weight that ``name`` stands for: "bm25", "cross-encoder:MODEL" or "2*maxsim:BUNDLE".

    Raises InputError for another form.
    """
    factor, star, spec = name.rpartition("*")
    kind, _, model = spec.partition(":")
    try:
        weight = float(factor) if star else 1.0
    except ValueError:
        weight = 0.0
    if weight > 0 and kind == "bm25" and not model and bm25 is not None:
        return Bm25Teacher(bm25), weight
    if weight > 0 and kind == "cross-encoder" and model:
        return CrossEncoderTeacher(model), weight
    if weight > 0 and kind == "maxsim":
        return MaxSimTeacher(Encoder.load(model or None)), weight
    raise InputError(f"teacher {name!r} is none; give cross-encoder:MODEL, maxsim:BUNDLE or bm25, perhaps as WEIGHT*…")


def ensemble(
    teachers: Sequence[Teacher], weights: Sequence[float], query: str, passages: Mapping[str, str]
) -> np.ndarray:
    """The weighted mean of the teachers' scores, each brought to [0, 1] over these passages: float32 (passages,).

    Raises InputError for another number of weights, and for a teacher that gives something else than a number for each
    passage.
    """
    if not teachers or len(weights) != len(teachers):
        raise InputError(f"there are {len(teachers)} teachers and {len(weights)} weights; give one for each")
    total = np.zeros(len(passages))
    for teacher, weight in zip(teachers, weights, strict=True):
        scores = np.asarray(teacher.scores(query, passages))
        if scores.shape != (len(passages),) or not np.isfinite(scores).all():
            raise InputError(f"{type(teacher).__name__} gave no number for each passage of the query {query!r}")
        total += weight * normalized(scores.astype(np.float64))
    return (total / sum(weights)).astype(np.float32)
