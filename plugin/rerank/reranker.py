"""`Reranker`: documents that another engine found, in the order of MaxSim."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ...onnx_export.encode.bundle import check_weight
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError
from ...onnx_export.kinds import check_kind, check_whole
from ..kernels.phrases import phrase_maxsim
from ..search.choices import ScoreMode
from ..search.query_encoder import QueryEncoder, check_query
from ..search.results import Scores
from ..search.scores import as_mode, check_mode
from ..search.searcher import ScoredQuery, Searcher

_TEXTS_PER_BATCH = 128  # whose vectors are in memory at a time


@dataclass(frozen=True)
class RerankedDocument:
    """One document in its new place.

    Attributes:
        index: Its position in the documents or ids that were given, from 0.
        id: Its id; None if no ids were given.
        score: Its score for the query, on the scale that was asked for; see `ScoreMode`.
    """

    index: int
    id: str | None
    score: float


class RerankResult(list[RerankedDocument]):
    """Documents in their new order, best first.

    Attributes:
        stored: Number of documents that were scored by their codes in the index.
        encoded: Number of documents that were scored by encoding their texts.
        missing: Ids of documents that could not be scored and were left out: not in the index, and without a text.
        truncated: Whether the query was longer than the model reads (`Bundle.query`), so that its end was ignored.
        cut: Positions, from 0, of documents whose texts are longer than the model reads (`Bundle.document`); they were
            scored by their beginnings. Of documents that were scored by their codes it is not known.
        tokens: Number of tokens that the model read: of the query, and of each different text that was encoded.
    """

    def __init__(
        self,
        ranked: Iterable[RerankedDocument],
        *,
        stored: int,
        encoded: int,
        missing: tuple[str, ...],
        truncated: bool = False,
        cut: tuple[int, ...] = (),
        tokens: int = 0,
    ) -> None:
        super().__init__(ranked)
        self.stored = stored
        self.encoded = encoded
        self.missing = missing
        self.truncated = truncated
        self.cut = cut
        self.tokens = tokens


class Reranker:
    """Ranks documents by MaxSim: those in an index by their codes, others by their texts.

    May be used from several threads at the same time.

    Args:
        encoder: The model; None: the searcher's, which may change when that is refreshed, or the model inside tansaku.
        searcher: A searcher of the index that holds the documents; None if all documents are given by their texts.
        phrase_weight: Weight given to the similarity of neighbouring tokens, 0 to 1000; None: the model's own, or 0
            with an index of pooled vectors. See `SearchOptions`.

    Raises:
        InputError: An encoder that is not the searcher's, or a weight outside 0 to 1000.

    Example:
        >>> from tansaku import Reranker
        >>> ranked = Reranker().rerank("昔の首都はどこ？", ["犬は嗅覚が鋭い動物である。", "京都は794年から都だった。"])
        >>> [document.index for document in ranked]
        [1, 0]
    """

    def __init__(
        self, encoder: Encoder | None = None, *, searcher: Searcher | None = None, phrase_weight: float | None = None
    ) -> None:
        if encoder is not None:
            check_kind("encoder", encoder, Encoder, "give Encoder.load(FOLDER), or leave it out")
        if searcher is not None:
            check_kind("searcher", searcher, Searcher, "give Searcher.open(db, table)")
        if searcher is not None and encoder is not None and searcher.encoder is not encoder:
            raise InputError("the searcher has an encoder of its own; leave out encoder")
        self.searcher = searcher
        self._encode_query = (
            None if searcher is not None else QueryEncoder(encoder or Encoder.load())
        )  # or the searcher's
        self._given_weight = phrase_weight if phrase_weight is None else check_weight("phrase_weight", phrase_weight)

    @property
    def encoder(self) -> Encoder:
        """The model."""
        if self.searcher is not None:
            return self.searcher.encoder
        assert self._encode_query is not None  # noqa: S101
        return self._encode_query.encoder

    @property
    def given_phrase_weight(self) -> float | None:
        """The phrase weight that it was made with; None if it takes the model's own."""
        return self._given_weight

    @property
    def phrase_weight(self) -> float:
        """The phrase weight of all scores; with an index of pooled vectors 0, for texts too."""
        if self._given_weight is not None:
            return self._given_weight
        return self.encoder.bundle.phrase_weight if self.searcher is None else self.searcher.phrase_weight

    def rerank(
        self,
        query: str,
        documents: Sequence[str | None] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        k: int | None = None,
        score: ScoreMode = "mean",
        before_batch: Callable[[], None] | None = None,
    ) -> RerankResult:
        """Documents by falling MaxSim; among equal ones the earlier first.

        Args:
            query: Question or keywords.
            documents: Their texts; an empty one scores 0. None, for all or for some, if the index has them.
            ids: Their ids, one for each document. Documents in the index are scored by their codes, without encoding;
                others, and those whose id is None, by their texts.
            k: Number of documents returned, the best ones; None for all.
            score: Scale of the scores: "mean", MaxSim divided by the number of query tokens, a mean cosine; "raw", the
                sum; or "logit", the mean's log-odds. The order is the same.
            before_batch: Called before each batch of texts is encoded. An error that it raises ends the work, such as
                that of a service whose client has gone.

        Raises:
            InputError: An empty query, ``k`` below 1, neither texts nor ids, unlike numbers of texts and ids, a
                document with neither text nor id, ids without an index, or an unknown ``score``.
            StorageError: The database of the index cannot be read.
        """
        check_query(query)
        n_documents = self._check(documents, ids, k, score)
        given = ids if ids is not None and self.searcher is not None else []
        known = {i: str(doc_id) for i, doc_id in enumerate(given) if doc_id is not None}
        of_query = self._score_stored(query, list(known.values()))
        scores = np.full(n_documents, np.nan)
        scores[list(known)] = of_query.scores
        stored = np.isfinite(scores)
        texts = [] if documents is None else documents
        to_encode = {i: text for i, text in enumerate(texts) if text is not None and not stored[i]}
        text_scores, too_long, n_tokens = _score_texts(of_query, list(to_encode.values()), before_batch)
        for i, text in to_encode.items():
            scores[i] = text_scores[text]
        scored = np.flatnonzero(np.isfinite(scores))
        best = scored[np.argsort(-scores[scored], kind="stable")][:k]
        values = as_mode(scores[best], len(of_query.query_vectors), score)
        names = [None] * n_documents if ids is None else [None if doc_id is None else str(doc_id) for doc_id in ids]
        return RerankResult(
            (RerankedDocument(i, names[i], value) for i, value in zip(best.tolist(), values.tolist(), strict=True)),
            stored=int(np.count_nonzero(stored)),
            encoded=len(to_encode),
            missing=tuple(str(names[i]) for i in np.flatnonzero(~np.isfinite(scores)).tolist()),
            truncated=of_query.scores.truncated,
            cut=tuple(i for i, text in to_encode.items() if text in too_long),
            tokens=len(of_query.query_vectors) + n_tokens,
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
                    raise InputError(f"document {i} has neither a text nor an id; give one of them")
        for i, text in enumerate(documents or ()):
            if text is not None and not isinstance(text, str):
                raise InputError(f"document {i} is {type(text).__name__}, not str")
        if k is not None:
            check_whole("k", k)
        check_mode(score)
        return len(documents if documents is not None else ids or ())

    def _score_stored(self, query: str, ids: list[str]) -> ScoredQuery:
        """MaxSim of the documents in the index, else NaN, and what other texts are scored with."""
        if self.searcher is not None:
            return self.searcher._score_and_encode(query, ids, phrase_weight=self._given_weight)
        assert self._encode_query is not None  # noqa: S101
        vectors, truncated = self._encode_query(query)
        none = Scores.of(np.empty(0, np.float32), truncated)
        return ScoredQuery(none, vectors, self._encode_query.encoder, self.phrase_weight)


def _score_texts(
    query: ScoredQuery, texts: list[str], before_batch: Callable[[], None] | None
) -> tuple[dict[str, float], set[str], int]:
    """MaxSim of each distinct text in float32, 0 for those without a word; the texts that were cut; how many tokens."""
    n_tokens = 0
    too_long: set[str] = set()
    scores: dict[str, float] = dict.fromkeys(texts, 0.0)
    distinct = [text for text in scores if text.strip()]
    encoder = query.encoder
    for start in range(0, len(distinct), _TEXTS_PER_BATCH):
        if before_batch is not None:
            before_batch()
        batch = distinct[start : start + _TEXTS_PER_BATCH]
        tokenized = encoder.tokenize_documents(batch)
        for text, text_vectors in zip(batch, encoder.encode_tokens(tokenized), strict=True):
            scores[text] = phrase_maxsim(query.query_vectors, text_vectors, query.phrase_weight)
        n_tokens += sum(len(tokens.ids) for tokens in tokenized)
        too_long.update(text for text, tokens in zip(batch, tokenized, strict=True) if tokens.truncated)
    return scores, too_long, n_tokens
