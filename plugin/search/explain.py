"""Why a document scored as it did: which of its tokens each query token met."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.encode.tokenize import Span
from ..kernels.phrases import phrase_similarities
from .stored_codes import Codes


@dataclass(frozen=True)
class Match:
    """One query token and the document token most similar to it.

    Attributes:
        similarity: cosine of the two vectors; with a phrase weight, what `phrases` makes of it.
        weight: of the query token: a document's score is the sum of weight × similarity. 1 for models without weights.
        query_span: where the token stands in the query, in characters; None for a token that stands for no text.
        query_text: that part of the query; empty where there is no span.
        document_span: where the other one stands in `Explanation.text`; None where that is not known: for a token
            that stands for no text, and in an index whose vectors were pooled.
        document_text: that part of the document; empty where there is no span.
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
        id: the document's id.
        score: MaxSim, the sum of the matches' similarities, each times its weight.
        text: what the encoder saw of the document: title and text.
        matches: one for each query token, in the query's order.
    """

    id: str
    score: float
    text: str
    matches: tuple[Match, ...]


def explain_hit(
    encoder: Encoder,
    codes: Codes,
    query: str,
    query_vectors: np.ndarray,
    document: int,
    doc_id: str,
    text: str,
    phrase_weight: float,
) -> Explanation:
    """Score one document and keep what met what.

    Args:
        encoder: tells where tokens stand.
        codes: the document's are decoded.
        query: the query's text.
        query_vectors: float32 (query tokens, dim), as long as the tokens weigh.
        document: its number.
        doc_id: its id.
        text: what the encoder saw of it.
        phrase_weight: what counts.
    """
    vectors = codes.vectors(document)
    weights, similarities = phrase_similarities(query_vectors, vectors, phrase_weight)
    best = similarities.argmax(axis=1)
    query_spans = encoder.query_spans(query)
    document_spans = encoder.document_spans(text)
    if len(document_spans) != len(vectors):  # pooled, or the text was changed by another client
        document_spans = [None] * len(vectors)
    matches = tuple(
        Match(
            similarity=float(similarities[i, j]),
            weight=float(weights[i]),
            query_span=query_spans[i],
            query_text=_cut(query, query_spans[i]),
            document_span=document_spans[j],
            document_text=_cut(text, document_spans[j]),
        )
        for i, j in enumerate(best.tolist())
    )
    return Explanation(doc_id, sum(match.weight * match.similarity for match in matches), text, matches)


def _cut(text: str, span: Span) -> str:
    return "" if span is None else text[slice(*span)]
