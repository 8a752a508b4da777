"""Why a document scores as it does: which of its tokens each query token met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lancedb.expr import col

from ...indexer.read.documents import Document
from ...indexer.table.database import storage_errors
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.encode.tokenize import Span
from ...onnx_export.errors import InputError
from ..kernels.phrases import phrase_similarities
from ..kernels.query_layout import QueryLanes
from .explain_html import explanation_html
from .query_encoder import EncodedQuery
from .refine import best_scored
from .stored_codes import StoredCodes


@dataclass(frozen=True)
class Match:
    """One query token and its most similar document token.

    Attributes:
        similarity: Cosine of the two vectors, −1 to 1; with a phrase weight, its weighted mean with the cosines of the
            neighbours.
        weight: Weight of the query token; a document's score is the sum of weight × similarity. 1 for models without
            query weights.
        query_span: Where the token stands in the query, as (start, end) in characters; None for a token that stands
            for no text.
        query_text: That part of the query; empty without a span.
        document_span: Where the document token stands in `Explanation.text`, as (start, end) in characters; None for a
            token that stands for no text, and in an index of pooled vectors.
        document_text: That part of the document; empty without a span.
    """

    similarity: float
    weight: float
    query_span: Span
    query_text: str
    document_span: Span
    document_text: str


@dataclass(frozen=True)
class Explanation:
    """How the score of one document comes about.

    Attributes:
        id: The document's id.
        score: MaxSim: the sum of the matches' similarities, each times its weight.
        text: What the encoder saw of the document: title and text.
        matches: One for each query token, in the query's order.
        truncated: Whether the query was longer than the model reads (`Bundle.query`), so that its end was ignored.
        cut: Whether ``text`` is longer than the model reads (`Bundle.document`), so that its end was ignored.
        document_spans: Where each of the document's tokens stands in ``text``, as in `Match.document_span`.
        similarities: The similarity of each query token with each of the document's tokens: float32 (query tokens,
            document tokens), in the order of ``matches`` and ``document_spans``.
    """

    id: str
    score: float
    text: str
    matches: tuple[Match, ...]
    truncated: bool = False
    cut: bool = False
    document_spans: tuple[Span, ...] = field(default=(), repr=False)
    similarities: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32), repr=False, compare=False)

    def _repr_html_(self) -> str:
        """For notebooks: the text with what matched marked, and a table of the matches."""
        return explanation_html(self)


def explain_hit(
    encoder: Encoder,
    codes: StoredCodes,
    query_text: str,
    query: EncodedQuery,
    doc_id: str,
    phrase_weight: float | None,
) -> Explanation:
    """Score one document and keep which tokens met.

    Args:
        encoder: Finds where tokens stand in their text.
        codes: The index's codes.
        query_text: The query's text.
        query: The vectors of this text.
        doc_id: Id of the document, of which the best passage is explained, or of a passage.
        phrase_weight: As in `SearchOptions`.

    Raises:
        InputError: An id that is not in the index, or a phrase weight that cannot be used.
    """
    weight = codes.phrase_weight_for(phrase_weight)
    ((row, document),) = rows_of_ids(codes, [doc_id], query, weight)
    vectors = codes.vectors(row)
    return explain_vectors(encoder, query_text, query, doc_id, document.encoded_text, vectors, weight)


def explain_vectors(
    encoder: Encoder,
    query_text: str,
    query: EncodedQuery,
    doc_id: str,
    text: str,
    vectors: np.ndarray,
    phrase_weight: float,
) -> Explanation:
    """Score one document's decoded vectors and keep which tokens met.

    Args:
        encoder: Finds where tokens stand in their text.
        query_text: The query's text.
        query: The vectors of this text.
        doc_id: Id of the document.
        text: The document's text, as it was encoded.
        vectors: The document's vectors, float32 (tokens, dim), in the order of its text.
        phrase_weight: The phrase weight of the score.
    """
    weights, similarities = phrase_similarities(query.vectors, vectors, phrase_weight)
    best = similarities.argmax(axis=1)
    query_spans = encoder.query_spans(query_text)
    document_spans = encoder.document_spans(text)
    if len(document_spans) != len(vectors):  # pooled, or the text was changed by another client
        document_spans = [None] * len(vectors)
    matches = tuple(
        Match(
            similarity=float(similarities[i, j]),
            weight=float(weights[i]),
            query_span=query_spans[i],
            query_text=_cut(query_text, query_spans[i]),
            document_span=document_spans[j],
            document_text=_cut(text, document_spans[j]),
        )
        for i, j in enumerate(best.tolist())
    )
    (tokenized,) = encoder.tokenize_documents([text])
    score = sum(match.weight * match.similarity for match in matches)
    return Explanation(
        doc_id,
        score,
        text,
        matches,
        truncated=query.truncated,
        cut=tokenized.truncated,
        document_spans=tuple(document_spans),
        similarities=similarities.astype(np.float32, copy=False),
    )


def rows_of_ids(
    codes: StoredCodes, ids: Sequence[str], query: EncodedQuery, phrase_weight: float
) -> list[tuple[int, Document]]:
    """The row of each document, of several passages the best for a query, and its title and text.

    Args:
        codes: The index's codes.
        ids: Ids of documents, or of passages.
        query: The query's vectors.
        phrase_weight: The phrase weight of the scores.

    Raises:
        InputError: An id that is not in the index.
    """
    index = codes.index
    column = index.header.document_id_field
    columns = list(dict.fromkeys(["id", column, "title", "text"]))
    if not ids:
        return []
    with storage_errors(index.place()):
        named = index.table.search().where(col(column).isin(list(ids)) | col("id").isin(list(ids)))
        found = named.select(columns).with_row_id(True).to_arrow().to_pylist()
    rows = codes.rows_of(np.array([record["_rowid"] for record in found], np.uint64))
    of_document: dict[str, dict[int, dict[str, Any]]] = {}
    of_passage: dict[str, dict[int, dict[str, Any]]] = {}
    for row, record in zip(rows.tolist(), found, strict=True):
        if row >= 0:
            of_document.setdefault(record[column], {})[row] = record
            of_passage.setdefault(record["id"], {})[row] = record
    chosen = []
    for doc_id in ids:
        named_so = of_document.get(doc_id) or of_passage.get(doc_id)  # an id of both is the document's
        if named_so is None:
            raise InputError(f"{index.place()} has no document with the id {doc_id!r}")
        row = next(iter(named_so))
        if len(named_so) > 1:
            lanes = QueryLanes.of(query.vectors, phrase_weight)
            row = int(best_scored(codes, lanes, np.array(sorted(named_so)), 1)[0][0])
        chosen.append((row, Document(doc_id, named_so[row]["text"], named_so[row]["title"])))
    return chosen


def _cut(text: str, span: Span) -> str:
    return "" if span is None else text[slice(*span)]
