"""Snippets: the part of a hit's text that matches most of the query, and which words in it do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...indexer.read.documents import Document
from ...onnx_export.encode.encoder import Encoder
from ..kernels.phrases import phrase_similarities
from .explain import rows_of_ids
from .query_encoder import EncodedQuery
from .stored_codes import StoredCodes

SNIPPET_CHARS = 80
_SIMILAR = 0.6  # from here on a token is marked; the most similar one always is


@dataclass(frozen=True)
class Snippet:
    """The part of a document that matches most of a query.

    Attributes:
        text: That part of `Hit.text`, as it stands there.
        start: Where it begins in `Hit.text`, in characters.
        marks: What matches, as (start, end) in ``text``, in order; empty in an index of pooled vectors, whose tokens
            have no place.
    """

    text: str
    start: int
    marks: tuple[tuple[int, int], ...] = ()


def snippets_of(
    encoder: Encoder,
    codes: StoredCodes,
    query_text: str,
    query: EncodedQuery,
    ids: Sequence[str],
    *,
    chars: int = SNIPPET_CHARS,
    phrase_weight: float | None = None,
) -> list[Snippet]:
    """The snippet of each document.

    Args:
        encoder: Finds where tokens stand in their text.
        codes: The index's codes.
        query_text: The query's text.
        query: The vectors of this text.
        ids: Ids of documents, of which the best passage is shown, or of passages.
        chars: Largest number of characters of a snippet.
        phrase_weight: As in `SearchOptions`.

    Raises:
        InputError: An id that is not in the index, or a phrase weight that cannot be used.
    """
    weight = codes.phrase_weight_for(phrase_weight)
    return [
        snippet_of(encoder, query_text, query, document, codes.vectors(row), weight, chars)
        for row, document in rows_of_ids(codes, ids, query, weight)
    ]


def snippet_of(
    encoder: Encoder,
    query_text: str,
    query: EncodedQuery,
    document: Document,
    vectors: np.ndarray,
    phrase_weight: float,
    chars: int,
) -> Snippet:
    """The snippet of one document.

    Args:
        encoder: Finds where tokens stand in their text.
        query_text: The query's text.
        query: The vectors of this text.
        document: Title and text.
        vectors: The document's vectors, float32 (tokens, dim), in the order of its text.
        phrase_weight: The phrase weight of the score.
        chars: Largest number of characters.
    """
    of_text = np.array([span is not None for span in encoder.query_spans(query_text)])
    weights, similarities = phrase_similarities(query.vectors, vectors, phrase_weight)
    spans = encoder.document_spans(document.encoded_text)
    if len(spans) != len(vectors) or not of_text.any():  # pooled, or the text was changed by another client
        spans = [None] * len(vectors)
    return _snippet(document, spans, weights[of_text], similarities[of_text], chars)


def _snippet(
    document: Document,
    spans: Sequence[tuple[int, int] | None],
    weights: np.ndarray,
    similarities: np.ndarray,
    chars: int,
) -> Snippet:
    """The window that would have the highest MaxSim if it were the whole document."""
    before = len(document.encoded_text) - len(document.text)  # the title
    tokens = [j for j, span in enumerate(spans) if span is not None and span[0] >= before]
    if not tokens:
        return Snippet(document.text[:chars], 0)
    places = [(span[0] - before, span[1] - before) for span in (spans[j] for j in tokens) if span is not None]
    similarities = similarities[:, tokens]
    gains = weights[:, None] * np.maximum(similarities, 0)
    ends = np.array([end for _, end in places])
    last = np.searchsorted(ends, [start + chars for start, _ in places], "right")
    last = np.maximum(last, np.arange(len(places)) + 1)  # where the token alone is longer
    totals = [gains[:, i:j].max(axis=1).sum() for i, j in enumerate(last.tolist())]
    first = int(np.argmax(totals))
    nearest = similarities.max(axis=0)
    similar = nearest >= min(_SIMILAR, nearest[first : last[first]].max())
    inside = [place for place, marked in list(zip(places, similar, strict=True))[first : last[first]] if marked]
    spare = max(chars - (inside[-1][1] - inside[0][0]), 0) // 2
    start = max(0, min(inside[0][0] - spare, len(document.text) - chars))
    end = min(len(document.text), start + chars)
    marks: list[tuple[int, int]] = []
    for (left, right), marked in zip(places, similar, strict=True):
        if not marked or left < start or right > end:
            continue
        left += len(document.text[left:right]) - len(document.text[left:right].lstrip())
        if marks and left - start <= marks[-1][1]:
            marks[-1] = (marks[-1][0], max(marks[-1][1], right - start))
        else:
            marks.append((left - start, right - start))
    return Snippet(document.text[start:end], start, tuple(marks))
