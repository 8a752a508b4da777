"""Inverted lists: for each centroid, the documents with a token there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_ROWS = 1 << 16  # of one set of lists, so that a document's number fits into 16 bits


@dataclass(frozen=True)
class InvertedLists:
    """Compressed sparse rows.

    Attributes:
        offsets: uint32 (n_centroids + 1,); the list of centroid c is ``postings[offsets[c]:offsets[c + 1]]``.
        postings: uint16, document numbers, ascending and without repetition within a list.
    """

    offsets: np.ndarray
    postings: np.ndarray

    @classmethod
    def build(cls, centroid_ids: np.ndarray, doc_offsets: np.ndarray, n_centroids: int) -> InvertedLists:
        """Invert the documents' centroid ids.

        Args:
            centroid_ids: integer (tokens,), of all documents one after the other.
            doc_offsets: integer (n_documents + 1,): where each document's tokens begin; at most 65,536 documents.
            n_centroids: how many centroids there are.
        """
        n_documents = len(doc_offsets) - 1
        documents = np.repeat(np.arange(n_documents), np.diff(doc_offsets))
        pairs = centroid_ids.astype(np.int64) << 16 | documents
        pairs.sort()
        pairs = pairs[np.diff(pairs, prepend=-1) != 0]
        offsets = np.searchsorted(pairs, np.arange(n_centroids + 1, dtype=np.int64) << 16)
        return cls(offsets.astype(np.uint32), (pairs & 0xFFFF).astype(np.uint16))
