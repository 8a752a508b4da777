"""The codes that a search reads: all segments of an index, their rows numbered one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from ...indexer.derived.arrays import Arrays
from ...indexer.derived.segments import Segment, read_codes
from ...indexer.table.database import storage_errors
from ...indexer.table.table import IndexTable
from ...onnx_export.encode.bundle import check_weight
from ...onnx_export.errors import InputError
from ..kernels.query_layout import CoarseCodec
from .rows_by_id import RowsById


@dataclass(frozen=True)
class Part:
    """Codes of some documents, in arrays that may hold those of others too.

    Attributes:
        positions: int64 (documents,): where each stands in the list of documents that was asked for.
        centroid_ids: uint16 or uint32 (tokens,).
        residuals: uint8 (tokens, residual bytes).
        starts: int64 (documents,): where each document's tokens begin.
        ends: int64 (documents,).
    """

    positions: np.ndarray
    centroid_ids: np.ndarray
    residuals: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


class Codes:
    """Codes of one version of an index.

    Attributes:
        index: the table at that version.
        codec: decodes the codes.
        coarse: the codec, less exactly.
        segments: first document number and segment.
        row_ids: uint64 (documents,), of all segments.
        alive: bool (documents,): false for rows that are not in the table any more.
        phrase_weight: see `phrases`; what counts in a search that does not say: the model's, 0 for pooled vectors.
    """

    def __init__(self, index: IndexTable, arrays: Arrays, phrase_weight: float = 0.0) -> None:
        self.index = index
        self.phrase_weight = 0.0 if phrase_weight and index.header.pool > 1 else phrase_weight
        self.codec = index.codec
        self.folder = arrays.folder
        bases = np.cumsum([0, *map(len, arrays.segments)])
        self.segments: list[tuple[int, Segment]] = list(zip(bases.tolist(), arrays.segments, strict=False))
        self.row_ids = np.concatenate([np.empty(0, np.uint64), *(s.row_ids for s in arrays.segments)])
        self.alive = ~np.concatenate([np.empty(0, bool), *(s.deleted for s in arrays.segments)])
        self.coarse = CoarseCodec.of(index.codec)
        self._n_alive = int(np.count_nonzero(self.alive))

    def __len__(self) -> int:
        """Documents that are in the table."""
        return self._n_alive

    def parts(self, documents: np.ndarray) -> Iterator[Part]:
        """Codes of documents given by number, int64 and ascending: one part for each segment concerned."""
        for base, segment in self.segments:
            first, last = np.searchsorted(documents, [base, base + len(segment)])
            if first == last:
                continue
            local = documents[first:last] - base
            positions = np.arange(first, last)
            starts, ends = segment.offsets[local], segment.offsets[local + 1]
            if segment.residuals is not None:
                yield Part(positions, segment.centroid_ids, segment.residuals, starts, ends)
                continue
            offsets = np.concatenate([[0], np.cumsum(ends - starts)])
            residuals = np.empty((offsets[-1], self.codec.residual_bytes), np.uint8)
            read_codes(self.index, segment.row_ids[local], offsets, {"residuals": residuals})
            yield Part(positions, segment.centroid_ids[_tokens(starts, ends)], residuals, offsets[:-1], offsets[1:])

    def vectors(self, document: int) -> np.ndarray:
        """Vectors of a document given by number, in its text's order: float32 (tokens, dim)."""
        (part,) = self.parts(np.array([document]))
        tokens = slice(part.starts[0], part.ends[0])
        return self.codec.decode(part.centroid_ids[tokens], part.residuals[tokens])

    def phrase_weight_for(self, asked: float | None) -> float:
        """What phrases count in a search that asks for ``asked``; None takes what the model says.

        Raises InputError for a weight that is none, and for one above 0 where vectors were pooled and have no order.
        """
        if asked is None:
            return self.phrase_weight
        if check_weight("phrase_weight", asked) and self.index.header.pool > 1:
            place = self.index.place()
            raise InputError(f"{place} has pooled vectors, which know no neighbours: leave out phrase_weight")
        return asked

    def numbers(self, row_ids: np.ndarray) -> np.ndarray:
        """Numbers of the rows with these row ids, uint64, in the same order; -1 for those that are not there."""
        documents, ascending = self._by_row_id
        if not len(documents):
            return np.full(len(row_ids), -1)
        at = np.minimum(np.searchsorted(ascending, row_ids), len(documents) - 1)
        return np.where(ascending[at] == row_ids, documents[at], -1)

    @cached_property
    def by_id(self) -> RowsById:
        """Numbers of the documents that are there, by the ids of whole documents."""
        index = self.index
        column = index.header.document_id_field
        with storage_errors(index.place()):
            rows = index.table.search().select([column]).with_row_id(True).to_arrow()
        numbers = self.numbers(rows["_rowid"].to_numpy())
        return RowsById(rows[column].filter(pa.array(numbers >= 0)), numbers[numbers >= 0])

    @cached_property
    def _by_row_id(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the documents that are there, and their row ids, ascending."""
        alive = np.flatnonzero(self.alive)
        documents = alive[np.argsort(self.row_ids[alive], kind="stable")]
        return documents, self.row_ids[documents]


def _tokens(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The numbers from each start to its end, one range after the other: int64."""
    lengths = ends - starts
    return np.arange(lengths.sum()) + np.repeat(ends - np.cumsum(lengths), lengths)
