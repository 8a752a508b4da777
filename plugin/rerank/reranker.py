"""`Reranker`: documents that another engine found, in the order of MaxSim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ...onnx_export.encode.bundle import check_weight
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError
from ..kernels.phrases import phrase_maxsim
from ..search.query_encoder import QueryEncoder
from ..search.scores import ScoreMode, as_mode, check_mode
from ..search.searcher import Searcher

_TOGETHER = 128  # texts whose vectors are in memory at a time


@dataclass(frozen=True)
class RerankedDocument:
    """One document in its new place.

    Attributes:
        index: where it stood in what was given, from 0.
        id: its id, if ids were given.
        score: how well it fits the query; see `Reranker.rerank`.
    """

    index: int
    id: str | None
    score: float


class RerankResult(list[RerankedDocument]):
    """Documents in their new order, best first.

    Attributes:
        stored: how many documents were scored by the index's codes.
        encoded: how many were scored by encoding their texts.
        missing: ids of those that could not be scored, for neither has the index them nor was a text given. They are
            left out.
    """

    def __init__(
        self, ranked: Iterable[RerankedDocument], *, stored: int, encoded: int, missing: tuple[str, ...]
    ) -> None:
        super().__init__(ranked)
        self.stored = stored
        self.encoded = encoded
        self.missing = missing


class Reranker:
    """Ranks documents by MaxSim: those of an index by its codes, others by their texts. Several threads may use one.

    Args:
        encoder: the model; None takes the searcher's, or the one that ships inside.
        searcher: of the index that has the documents; None if all are given by their texts.
        phrase_weight: as in `SearchOptions`; None is what the model says.

    Raises InputError for an encoder beside a searcher that has another, and for a weight that is none.
    """

    def __init__(
        self, encoder: Encoder | None = None, *, searcher: Searcher | None = None, phrase_weight: float | None = None
    ) -> None:
        if searcher is not None and encoder is not None and searcher.encoder is not encoder:
            raise InputError("the searcher has an encoder of its own; leave out the other")
        self.searcher = searcher
        self.encoder = searcher.encoder if searcher is not None else encoder or Encoder.load()
        self._queries = QueryEncoder(self.encoder)
        self._asked_weight = phrase_weight if phrase_weight is None else check_weight("phrase_weight", phrase_weight)

    @property
    def phrase_weight(self) -> float:
        """What counts in a score; in an index of pooled vectors 0, and then for texts beside it too."""
        if self._asked_weight is not None:
            return self._asked_weight
        return self.encoder.bundle.phrase_weight if self.searcher is None else self.searcher.phrase_weight

    def rerank(
        self,
        query: str,
        documents: Sequence[str | None] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        k: int | None = None,
        score: ScoreMode = "mean",
    ) -> RerankResult:
        """Documents by falling MaxSim; of equal ones the earlier first.

        Args:
            query: the question or keywords.
            documents: their texts; an empty one scores 0. None, or None for some: only what the index has is scored.
            ids: their ids, as many. What the index has of them is scored by its codes, without encoding; the others,
                and those whose id is None, by their texts.
            k: only the best so many; None is all.
            score: "mean", MaxSim divided by the number of query tokens, a mean cosine; "raw", their sum; or "logit",
                the mean's log-odds, for callers that put a sigmoid on top. The order is the same.

        Raises InputError for an empty query, ``k`` below 1, neither texts nor ids, as many of one as not of the other,
        and ids without an index.
        """
        vectors = self._queries(query)
        n = self._check(documents, ids, k, score)
        texts = [None] * n if documents is None else list(documents)
        scores = np.full(n, np.nan)
        if ids is not None and self.searcher is not None:
            known = [i for i, doc_id in enumerate(ids) if doc_id is not None]
            scores[known] = self.searcher.score_vectors(
                vectors, [str(ids[i]) for i in known], phrase_weight=self._asked_weight
            )
        stored = np.isfinite(scores)
        to_encode = {i: text for i, text in enumerate(texts) if text is not None and not stored[i]}
        for i, maxsim in zip(to_encode, self._of_texts(vectors, list(to_encode.values())), strict=True):
            scores[i] = maxsim
        scored = np.flatnonzero(np.isfinite(scores))
        best = scored[np.argsort(-scores[scored], kind="stable")][:k]
        values = as_mode(scores[best], len(vectors), score)
        names = [None] * n if ids is None else [None if doc_id is None else str(doc_id) for doc_id in ids]
        return RerankResult(
            (RerankedDocument(i, names[i], value) for i, value in zip(best.tolist(), values.tolist(), strict=True)),
            stored=int(np.count_nonzero(stored)),
            encoded=len(to_encode),
            missing=tuple(str(names[i]) for i in np.flatnonzero(~np.isfinite(scores)).tolist()),
        )

    def _check(self, documents: Sequence | None, ids: Sequence | None, k: int | None, score: ScoreMode) -> int:
        for name, given in (("documents", documents), ("ids", ids)):
            if isinstance(given, str):
                raise InputError(f"{name} is one string; give a list")
        if documents is None and ids is None:
            raise InputError("there is nothing to rank; give documents, ids or both")
        if documents is not None and ids is not None and len(documents) != len(ids):
            raise InputError(f"there are {len(documents)} documents and {len(ids)} ids; give one id for each document")
        if documents is None and self.searcher is None:
            raise InputError("ids alone need an index; give a searcher, or the documents' texts")
        if ids is None and documents is not None:
            for i, text in enumerate(documents):
                if text is None:
                    raise InputError(f"document {i} has neither a text nor an id")
        for i, text in enumerate(documents or ()):
            if text is not None and not isinstance(text, str):
                raise InputError(f"document {i} is {type(text).__name__}, not str")
        if k is not None and k < 1:
            raise InputError(f"k is {k}; it must be 1 or more")
        check_mode(score)
        return len(documents if documents is not None else ids or ())

    def _of_texts(self, query: np.ndarray, texts: list[str]) -> list[float]:
        """MaxSim of texts in float32, each different one encoded once; 0 of those without a word."""
        known: dict[str, float] = dict.fromkeys(texts, 0.0)
        different = [text for text in known if text.strip()]
        weight = self.phrase_weight
        for start in range(0, len(different), _TOGETHER):
            some = different[start : start + _TOGETHER]
            vectors = self.encoder.encode_documents(some)
            known.update(zip(some, (phrase_maxsim(query, of_one, weight) for of_one in vectors), strict=True))
        return [known[text] for text in texts]
