"""Teachers: they give the scores that a model is trained to give. `ensemble` makes one score of several.

Each teacher has a scale of its own, which its class names. `ensemble` scales them alike, over the passages of a group.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Protocol

import numpy as np

from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError, MissingExtraError
from ...plugin.evaluation.bm25 import Bm25
from .groups import normalized

_PAIRS_PER_BATCH = 32  # for a cross-encoder
_PASSAGES_PER_BATCH = 256  # for an encoder


class Teacher(Protocol):
    """Anything that scores passages for a query.

    A ``name`` attribute, where there is one, tells it from others of its class: mining that is continued compares it.
    """

    def scores(self, query: str, passages: Mapping[str, str]) -> np.ndarray:
        """How well each passage answers a query.

        Args:
            query: the query's text.
            passages: passage id → text.

        Returns:
            float (passages,), in their order; higher is better.
        """
        ...


class CrossEncoderTeacher:
    """A cross-encoder of sentence-transformers.

    Scale: raw logits, any number, as in the published data of JaColBERTv2.5. The probabilities that many models give
    by default would make one number of most hard negatives, which are all near 0 there.

    Args:
        model: folder or hub name of the model, which must have one output.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
    """

    def __init__(self, model: str) -> None:
        try:
            from sentence_transformers import CrossEncoder
            from torch.nn import Identity
        except ImportError as error:
            raise MissingExtraError("sentence-transformers", "train") from error
        self.name = f"cross-encoder:{model} logits"
        self._model, self._activation = CrossEncoder(model), Identity()

    def scores(self, query: str, passages: Mapping[str, str]) -> np.ndarray:
        """See `Teacher`."""
        pairs = [(query, text) for text in passages.values()]
        scores = self._model.predict(
            pairs, batch_size=_PAIRS_PER_BATCH, show_progress_bar=False, activation_fn=self._activation
        )
        return np.asarray(scores, np.float64)


class TokenVectors:
    """Token vectors by a bundle. Those of passages are kept for a while, as neighbouring queries often share passages.

    Args:
        encoder: the model.
        kept: number of passages whose vectors are kept, in float16.
    """

    def __init__(self, encoder: Encoder, kept: int = 20_000) -> None:
        self.model = f"{encoder.bundle.name} {encoder.bundle.scoring_fingerprint}"
        self.dim = encoder.bundle.dim
        self._encoder, self._limit = encoder, kept
        self._kept: OrderedDict[str, np.ndarray] = OrderedDict()  # the oldest first
        self._asked: tuple[str, np.ndarray] | None = None  # the last query, which several teachers ask for in turn

    def of_query(self, query: str) -> np.ndarray:
        """Vectors of a query, float32 (tokens, dim)."""
        if self._asked is None or self._asked[0] != query:
            self._asked = query, self._encoder.encode_queries([query])[0]
        return self._asked[1]

    def of_passages(self, texts: Iterable[str]) -> list[np.ndarray]:
        """Vectors of each passage, float16 (tokens, dim)."""
        texts = list(texts)
        missing = [text for text in dict.fromkeys(texts) if text not in self._kept]
        for text, vectors in zip(missing, self._encoder.encode_documents(missing) if missing else [], strict=True):
            self._kept[text] = vectors.astype(np.float16)
        found = [self._kept[text] for text in texts]
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)
        return found

    def means_of_passages(self, texts: Iterable[str]) -> np.ndarray:
        """The mean of the vectors of each passage, scaled to unit length: float32 (passages, dim)."""
        means = np.array([of_one.mean(axis=0, dtype=np.float32) for of_one in self.of_passages(texts)])
        return means / np.linalg.norm(means, axis=1, keepdims=True)


class MaxSimTeacher:
    """MaxSim by a ColBERT model.

    Scale: a sum of cosines, at most the number of the query's tokens.

    Args:
        vectors: token vectors by the model.
    """

    def __init__(self, vectors: TokenVectors) -> None:
        self.name = f"maxsim:{vectors.model}"
        self._vectors = vectors

    def scores(self, query: str, passages: Mapping[str, str]) -> np.ndarray:
        """See `Teacher`."""
        asked = self._vectors.of_query(query)
        found = self._vectors.of_passages(passages.values())
        return np.array([float((asked @ of_one.T.astype(np.float32)).max(axis=1).sum()) for of_one in found])


class DenseTeacher:
    """Similarity of dense vectors: the mean of the token vectors of each text.

    Scale: -1 to 1; the passage's vector has unit length, the query's at most that.

    Args:
        vectors: token vectors by the model.
    """

    def __init__(self, vectors: TokenVectors) -> None:
        self.name = f"dense:{vectors.model}"
        self._vectors = vectors

    def scores(self, query: str, passages: Mapping[str, str]) -> np.ndarray:
        """See `Teacher`."""
        return self._vectors.means_of_passages(passages.values()) @ self._vectors.of_query(query).mean(axis=0)


class LabelTeacher:
    """Judgements as scores.

    Scale: 1 for a passage that was judged relevant, 0 for any other.

    Args:
        positives: query text → ids of its relevant passages.
    """

    def __init__(self, positives: Mapping[str, Collection[str]]) -> None:
        self._positives = positives

    def scores(self, query: str, passages: Mapping[str, str]) -> np.ndarray:
        """See `Teacher`."""
        relevant = self._positives.get(query, ())
        return np.array([float(doc_id in relevant) for doc_id in passages])


class Bm25Teacher:
    """BM25 with the statistics of the whole collection.

    Scale: 0 or more; 0 for a passage that shares no bigram with the query.

    Args:
        bm25: index of the collection.
    """

    def __init__(self, bm25: Bm25) -> None:
        self._bm25 = bm25

    def scores(self, query: str, passages: Mapping[str, str]) -> np.ndarray:
        """See `Teacher`."""
        return self._bm25.scores(query, list(passages))


def teacher_named(
    name: str,
    bm25: Bm25 | None = None,
    positives: Mapping[str, Collection[str]] | None = None,
    *,
    threads: int | None = None,
) -> tuple[Teacher, float]:
    """The teacher that a name stands for, and its weight.

    Args:
        name: "cross-encoder:MODEL", "maxsim:BUNDLE", "dense:BUNDLE", "bm25" or "labels", perhaps with a weight before
            it: "2*bm25". An empty BUNDLE is the model inside tansaku.
        bm25: index of the collection, for "bm25".
        positives: query text → ids of its relevant passages, for "labels".
        threads: number of threads for encoding; None is one per usable core.

    Returns:
        The teacher and its weight, 1 if the name has none.

    Raises:
        InputError: an unknown teacher, or one that needs an argument that is not given.
        MissingExtraError: the teacher's package is not installed.
    """
    factor, star, spec = name.rpartition("*")
    kind, _, model = spec.partition(":")
    try:
        weight = float(factor) if star else 1.0
    except ValueError:
        weight = 0.0
    if weight > 0 and not model and kind == "bm25" and bm25 is not None:
        return Bm25Teacher(bm25), weight
    if weight > 0 and not model and kind == "labels":
        if not positives:
            raise InputError("the teacher 'labels' needs judgements; give --qrels")
        return LabelTeacher(positives), weight
    if weight > 0 and kind == "cross-encoder" and model:
        return CrossEncoderTeacher(model), weight
    if weight > 0 and kind in ("maxsim", "dense"):
        vectors = _token_vectors(model or None, threads)
        return MaxSimTeacher(vectors) if kind == "maxsim" else DenseTeacher(vectors), weight
    raise InputError(
        f"unknown teacher {name!r}; use cross-encoder:MODEL, maxsim:BUNDLE, dense:BUNDLE, bm25 or labels, or one with "
        "a weight above 0 before it, such as 0.5*bm25"
    )


def dense_vectors(bundle: str | None, texts: Collection[str], *, threads: int | None = None) -> np.ndarray:
    """One vector for each passage: the mean of its token vectors by a bundle.

    Args:
        bundle: folder of the bundle; None is the model inside tansaku.
        texts: the passages, of which a batch is held at a time.
        threads: number of threads for encoding; None is one per usable core.

    Returns:
        float32 (passages, dim), of unit length.
    """
    vectors = _token_vectors(bundle, threads)
    means = np.empty((len(texts), vectors.dim), np.float32)
    remaining = iter(texts)
    for start in range(0, len(means), _PASSAGES_PER_BATCH):
        some = list(islice(remaining, _PASSAGES_PER_BATCH))
        means[start : start + len(some)] = vectors.means_of_passages(some)
    return means


@lru_cache
def _token_vectors(bundle: str | None, threads: int | None) -> TokenVectors:
    return TokenVectors(Encoder.load(bundle, threads=threads))


def ensemble(
    teachers: Sequence[Teacher], weights: Sequence[float], query: str, passages: Mapping[str, str]
) -> np.ndarray:
    """The weighted mean of the teachers' scores, each scaled to [0, 1] over these passages.

    Args:
        teachers: one or more.
        weights: weight of each teacher.
        query: the query's text.
        passages: passage id → text.

    Returns:
        float32 (passages,).

    Raises:
        InputError: there is not one weight for each teacher, or a teacher gave no finite number for a passage.
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
