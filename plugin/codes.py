"""The codes that a search reads: all segments of an index, their rows numbered one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..indexer.arrays import Arrays
from ..indexer.segments import Segment, read_codes
from ..indexer.table import IndexTable


class Codes:
    """Codes of one version of an index.

    Attributes:
        index: the table at that version.
        codec: decodes the codes.
        segments: first document number and segment.
        row_ids: uint64 (documents,), of all segments.
        alive: bool (documents,): false for rows that are not in the table any more.
    """

    def __init__(self, index: IndexTable, arrays: Arrays) -> None:
        self.index = index
        self.codec = index.codec
        self.folder = arrays.folder
        bases = np.cumsum([0, *map(len, arrays.segments)])
        self.segments: list[tuple[int, Segment]] = list(zip(bases.tolist(), arrays.segments, strict=False))
        self.row_ids = np.concatenate([np.empty(0, np.uint64), *(s.row_ids for s in arrays.segments)])
        self.alive = ~np.concatenate([np.empty(0, bool), *(s.deleted for s in arrays.segments)])

    def __len__(self) -> int:
        """Documents that are in the table."""
        return int(np.count_nonzero(self.alive))

    def vectors(self, documents: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Decoded token vectors of documents given by number.

        Yields for each segment concerned: positions in ``documents``, vectors of these one after the other, float32
        (tokens, dim), and where each begins, int64 (positions + 1,).
        """
        for base, segment in self.segments:
            inside = np.flatnonzero((documents >= base) & (documents < base + len(segment)))
            if not len(inside):
                continue
            local = documents[inside] - base
            starts, ends = segment.offsets[local], segment.offsets[local + 1]
            offsets = np.concatenate([[0], np.cumsum(ends - starts)])
            tokens = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], ends - starts)
            if segment.residuals is None:
                residuals = np.empty((offsets[-1], self.codec.residual_bytes), np.uint8)
                read_codes(self.index, segment.row_ids[local], offsets, {"residuals": residuals})
            else:
                residuals = segment.residuals[tokens]
            yield inside, self.codec.decode(segment.centroid_ids[tokens], residuals), offsets
