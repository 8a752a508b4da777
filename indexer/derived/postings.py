"""Inverted lists: for each centroid, the rows that have a token at it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_ROWS = 1 << 16  # rows in one set of lists: a row's position then fits into 16 bits


@dataclass(frozen=True)
class InvertedLists:
    """The inverted lists of one segment, in the layout of a compressed sparse row matrix.

    Attributes:
        offsets: uint32 (n_centroids + 1,); the list of centroid c is ``postings[offsets[c]:offsets[c + 1]]``.
        postings: uint16 (postings,), positions of rows in the segment; ascending and distinct within a list.
    """

    offsets: np.ndarray
    postings: np.ndarray

    @classmethod
    def build(cls, centroid_ids: np.ndarray, row_offsets: np.ndarray, n_centroids: int) -> InvertedLists:
        """Invert the centroid ids of rows.

        Args:
            centroid_ids: integer (tokens,): the centroid ids of all rows, row after row.
            row_offsets: integer (rows + 1,): where each row's tokens begin; at most 65,536 rows.
            n_centroids: number of centroids.

        Returns:
            The inverted lists.
        """
        n_rows = len(row_offsets) - 1
        rows = np.repeat(np.arange(n_rows), np.diff(row_offsets))
        pairs = centroid_ids.astype(np.int64) << 16 | rows
        pairs.sort()
        pairs = pairs[np.diff(pairs, prepend=-1) != 0]
        offsets = np.searchsorted(pairs, np.arange(n_centroids + 1, dtype=np.int64) << 16)
        return cls(offsets.astype(np.uint32), (pairs & 0xFFFF).astype(np.uint16))
