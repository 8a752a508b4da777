"""Learn the maps of row vectors: anchors from questions, principal components from documents. In closed form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ...indexer.codec.clustering import cluster
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError
from ...onnx_export.progress import Progress, no_progress
from .row_vectors import RowVectorMaps, largest_products

ANCHORS = 2000  # so that row vectors of all anchors fit a vector index of pgvector
COMPONENTS = 768
DIMS = (768, 512, 256, 2000)

_TEXTS_AT_ONCE = 256
_MOST_DOCUMENTS = 10_000
_MOST_QUESTIONS = 20_000
_TOKENS_PER_ANCHOR = 8
_SENTENCE = re.compile(r"[^。！？!?\n]{8,60}")


def fit_row_vectors(
    encoder: Encoder, questions: Sequence[str], texts: Sequence[str], *, progress: Progress = no_progress
) -> RowVectorMaps:
    """Learn the maps of row vectors for `add_row_vectors`.

    Args:
        encoder: the model.
        questions: questions, or texts that are like them; the first 20,000 are read.
        texts: documents of many kinds; the first 10,000 are read.
        progress: called for each batch of documents.

    Raises:
        InputError: there are too few questions or documents.
    """
    texts = texts[:_MOST_DOCUMENTS]

    def documents() -> Iterator[np.ndarray]:
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            yield from encoder.encode_documents(texts[start : start + _TEXTS_AT_ONCE])
            progress("row vectors", min(start + _TEXTS_AT_ONCE, len(texts)), len(texts), 0)

    return maps_of_vectors(encoder.encode_queries(questions[:_MOST_QUESTIONS]), documents())


def maps_of_vectors(questions: Sequence[np.ndarray], documents: Iterable[np.ndarray]) -> RowVectorMaps:
    """Learn the maps of row vectors from token vectors.

    Args:
        questions: the token vectors of questions, float32 (tokens, dim) each.
        documents: those of documents.

    Raises:
        InputError: there are too few questions or documents.
    """
    tokens = np.concatenate(questions) if len(questions) else np.empty((0, 1), np.float32)
    if len(tokens) < ANCHORS * _TOKENS_PER_ANCHOR:
        raise InputError(
            f"row vectors need questions of {ANCHORS * _TOKENS_PER_ANCHOR:,} tokens, and these have {len(tokens):,}; "
            "give more questions, or more texts"
        )
    tokens /= np.maximum(np.linalg.norm(tokens, axis=1, keepdims=True), 1e-12)
    anchors, _ = cluster(tokens, ANCHORS, seed=0)
    empty = RowVectorMaps(anchors, np.zeros(ANCHORS, np.float32), np.zeros((ANCHORS, 1), np.float32), (1,))
    stored = RowVectorMaps.restored(empty.stored()).anchors  # as they will be read, so that all else fits them
    n_documents, total, products = 0, np.zeros(ANCHORS), np.zeros((ANCHORS, ANCHORS))
    for block in _blocks(documents):
        largest = np.stack([largest_products(stored, matrix) for matrix in block])
        n_documents += len(block)
        total += largest.sum(axis=0, dtype=np.float64)
        products += largest.T @ largest
    if n_documents < 2 * COMPONENTS:
        raise InputError(f"row vectors need {2 * COMPONENTS:,} documents, and these are {n_documents:,}; give more")
    mean = total / n_documents
    _, components = np.linalg.eigh(products / n_documents - np.outer(mean, mean))
    return RowVectorMaps(
        anchors, mean.astype(np.float32), components[:, : -COMPONENTS - 1 : -1].astype(np.float32), DIMS
    )


def sentences(texts: Iterable[str]) -> Iterator[str]:
    """Sentences of texts in place of questions, two of each text.

    Args:
        texts: the texts.
    """
    for text in texts:
        found = _SENTENCE.findall(text)
        yield from found[:: max(1, len(found) // 2)][:2]


def _blocks(documents: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    block: list[np.ndarray] = []
    for matrix in documents:
        block.append(matrix)
        if len(block) == _TEXTS_AT_ONCE:
            yield block
            block = []
    if block:
        yield block
