"""Queries and documents that are longer than the model reads, and what users are told of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ...indexer.read.documents import Document
from ...onnx_export.counts import named
from ...onnx_export.encode.encoder import Encoder
from .results import Hit


def query_warning(encoder: Encoder) -> str:
    """What is said of a query whose end was cut off."""
    return (
        f"the query is longer than the {encoder.bundle.query.max_length} tokens that the model reads; its end was "
        "ignored: put what matters first, or shorten it"
    )


def queries_warning(encoder: Encoder, queries: Collection[str]) -> str | None:
    """What is said of many queries, some of which are too long; None if none is."""
    n_cut = sum(query.truncated for query in encoder.tokenize_queries(queries))
    if not n_cut:
        return None
    return (
        f"{n_cut:,} of {len(queries):,} queries are longer than the {encoder.bundle.query.max_length} tokens that the "
        "model reads; their ends were ignored"
    )


def documents_warning(encoder: Encoder, cut: Collection[object], total: int) -> str:
    """What is said of documents that were ranked by their beginnings.

    Args:
        encoder: The model.
        cut: Their ids or positions.
        total: Number of all documents that were encoded.
    """
    return (
        f"{len(cut):,} of {total:,} texts are longer than the {encoder.bundle.document.max_length} tokens that the "
        f"model reads; their ends were ignored ({named(cut, len(cut))}): divide them into passages"
    )


def documents_cut(encoder: Encoder, hits: Iterable[Hit]) -> list[str]:
    """The ids of those hits whose texts are longer than the model reads, and were indexed by their beginnings."""
    texts = {hit.id: Document(hit.id, hit.text, hit.title).encoded_text for hit in hits}
    written = {doc_id: text for doc_id, text in texts.items() if text.strip()}
    tokenized = encoder.tokenize_documents(list(written.values()))
    return [doc_id for doc_id, text in zip(written, tokenized, strict=True) if text.truncated]
