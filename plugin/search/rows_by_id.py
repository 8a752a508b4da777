"""The rows of each document id, looked up in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


class RowsById:
    """The rows of every id: 16 bytes a row, in addition to the ids.

    Args:
        ids: The id of each row, strings; several rows may have the same.
        rows: int64 (rows,): the row numbers.
    """

    def __init__(self, ids: pa.ChunkedArray, rows: np.ndarray) -> None:
        hashes = np.empty(len(ids), np.int64)
        done = 0
        for chunk in ids.chunks:
            hashes[done : done + len(chunk)] = [hash(doc_id) for doc_id in chunk.to_pylist()]
            done += len(chunk)
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._ids = ids.combine_chunks().take(pa.array(order))
        self._rows = rows[order]

    def find(self, wanted: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the ``wanted`` ids, in their order; an unknown id has no row.

        Returns:
            int64 positions in ``wanted``, and the row found for each, int64. An id with several rows has its position
            several times.
        """
        hashes = np.fromiter(map(hash, wanted), np.int64, len(wanted))
        first, last = (np.searchsorted(self._hashes, hashes, side) for side in ("left", "right"))
        counts = last - first
        positions = np.repeat(np.arange(len(wanted)), counts)
        at = np.arange(len(positions)) + np.repeat(first - np.cumsum(counts) + counts, counts)
        stored = self._ids.take(pa.array(at)).to_pylist()
        # Two ids may have the same hash.
        same = np.array([doc_id == wanted[i] for doc_id, i in zip(stored, positions.tolist(), strict=True)], bool)
        return positions[same], self._rows[at[same]]
