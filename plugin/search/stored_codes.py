"""The codes of an index that a search reads: those of all its segments, their rows numbered one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from ...indexer.derived.arrays import Arrays
from ...indexer.derived.routing import is_outgrown
from ...indexer.derived.segments import Segment, read_codes
from ...indexer.derived.strings import Strings
from ...indexer.table.database import storage_errors
from ...indexer.table.table import IndexTable
from ...onnx_export.encode.bundle import check_weight
from ...onnx_export.errors import InputError
from ..kernels.query_layout import CoarseCodec
from .row_sets import RowSets
from .rows_by_id import RowsById


@dataclass(frozen=True)
class Part:
    """Codes of some rows, in arrays that may hold those of other rows too.

    Attributes:
        positions: int64 (rows,): where each row stands in the list of rows that was asked for.
        centroid_ids: uint16 or uint32 (tokens,).
        residuals: uint8 (tokens, residual bytes).
        starts: int64 (rows,): where each row's tokens begin.
        ends: int64 (rows,).
    """

    positions: np.ndarray
    centroid_ids: np.ndarray
    residuals: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


class StoredCodes:
    """The codes of one version of an index. A row is a document, or a passage in an index of passages.

    Attributes:
        index: The table at that version.
        codec: Decodes the codes.
        coarse: The codec in a shorter form, less exact.
        segments: The number of each segment's first row, and the segment.
        row_ids: uint64 (rows,): LanceDB's row ids, over all segments. They ascend in the order of writing.
        alive: bool (rows,): False for rows that are no longer in the table.
        phrase_weight: Weight of neighbouring tokens in a search that gives none: the model's, or 0 for pooled vectors.
        routing: The points that inverted lists are of; None if they are of the centroids.
        n_tokens: Number of token vectors, those of rows included that were deleted not long ago.
        outgrown: Whether the index has grown too much for its lists, see `is_outgrown`.
        row_sets: The rows that conditions left in earlier searches.
    """

    def __init__(self, index: IndexTable, arrays: Arrays, phrase_weight: float = 0.0) -> None:
        self.index = index
        self.phrase_weight = 0.0 if phrase_weight and index.header.pool > 1 else phrase_weight
        self.codec = index.codec
        self.row_sets = RowSets()
        self._first_rows = np.cumsum([0, *map(len, arrays.segments)])[:-1]
        self.segments: list[tuple[int, Segment]] = list(zip(self._first_rows.tolist(), arrays.segments, strict=True))
        self.row_ids = np.concatenate([np.empty(0, np.uint64), *(s.row_ids for s in arrays.segments)])
        self.alive = ~np.concatenate([np.empty(0, bool), *(s.deleted for s in arrays.segments)])
        self.coarse = CoarseCodec.of(index.codec)
        self._n_alive = int(np.count_nonzero(self.alive))
        self.routing = arrays.routing
        self.n_tokens = sum(int(segment.offsets[-1]) for segment in arrays.segments)
        self.outgrown = is_outgrown(self.codec, self.n_tokens, len(self.routing or ()))

    def __len__(self) -> int:
        """Number of rows that are in the table."""
        return self._n_alive

    @cached_property
    def schema(self) -> pa.Schema:
        """The table's columns at that version, which LanceDB would read again for each search."""
        with storage_errors(self.index.place()):
            return self.index.table.schema

    @cached_property
    def version(self) -> int:
        """The version of the table."""
        with storage_errors(self.index.place()):
            return self.index.table.version

    def phrase_weight_for(self, given: float | None) -> float:
        """The phrase weight of a search for which ``given`` was given; None takes the model's.

        Raises:
            InputError: A weight outside 0 to 1000, or one above 0 where vectors were pooled and have no
                order.
        """
        if given is None:
            return self.phrase_weight
        if check_weight("phrase_weight", given) and self.index.header.pool > 1:
            place = self.index.place()
            raise InputError(f"{place} has pooled vectors, which have no neighbours: leave out phrase_weight")
        return given

    def parts(self, rows: np.ndarray) -> Iterator[Part]:
        """The codes of ``rows``, int64 and ascending: one part for each segment that holds some of them."""
        for first_row, segment in self.segments:
            first, last = np.searchsorted(rows, [first_row, first_row + len(segment)])
            if first == last:
                continue
            local = rows[first:last] - first_row
            positions = np.arange(first, last)
            starts, ends = segment.offsets[local], segment.offsets[local + 1]
            if segment.residuals is not None:
                yield Part(positions, segment.centroid_ids, segment.residuals, starts, ends)
                continue
            offsets = np.concatenate([[0], np.cumsum(ends - starts)])
            residuals = np.empty((offsets[-1], self.codec.residual_bytes), np.uint8)
            read_codes(self.index, segment.row_ids[local], offsets, {"residuals": residuals})
            yield Part(positions, segment.centroid_ids[_ranges(starts, ends)], residuals, offsets[:-1], offsets[1:])

    def vectors(self, row: int) -> np.ndarray:
        """The vectors of a row, in the order of its text: float32 (tokens, dim)."""
        (part,) = self.parts(np.array([row]))
        tokens = slice(part.starts[0], part.ends[0])
        return self.codec.decode(part.centroid_ids[tokens], part.residuals[tokens])

    def ids(self, rows: np.ndarray, *, of_passages: bool = False) -> list[str]:
        """The ids of the documents that rows belong to.

        Args:
            rows: int64 (rows,), row numbers in any order.
            of_passages: In an index of passages: the rows' own ids.
        """
        found = np.empty(len(rows), object)
        segment_of_each = np.searchsorted(self._first_rows, rows, "right") - 1
        for number in np.unique(segment_of_each):
            first_row, segment = self.segments[number]
            places = np.flatnonzero(segment_of_each == number)
            found[places] = _ids_of(segment, of_passages).take(rows[places] - first_row)
        return found.tolist()

    @cached_property
    def by_id(self) -> RowsById:
        """The rows in the table, by the ids of whole documents."""
        return self._rows_by(of_passages=False)

    @cached_property
    def _by_passage_id(self) -> RowsById:
        return self._rows_by(of_passages=True)

    def _rows_by(self, *, of_passages: bool) -> RowsById:
        return RowsById(self._all_ids(of_passages).filter(pa.array(self.alive)), np.flatnonzero(self.alive))

    def _all_ids(self, of_passages: bool) -> pa.ChunkedArray:
        arrays = [_ids_of(segment, of_passages).array for _, segment in self.segments]
        return pa.chunked_array(arrays, pa.large_string())

    @cached_property
    def documents(self) -> np.ndarray:
        """Number of the document that each row belongs to, from 0, in no particular order: int64 (rows,)."""
        ids = pa.concat_arrays([pa.array([], pa.large_string()), *self._all_ids(of_passages=False).chunks])
        encoded = ids.dictionary_encode()
        return encoded.indices.to_numpy().astype(np.int64)

    def find_ids(self, wanted: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The rows of documents or passages by id; an id that both have is the document's.

        Returns:
            As `RowsById.find`.
        """
        positions, rows = self.by_id.find(wanted)
        if not self.index.header.passage_tokens:
            return positions, rows
        known = set(positions.tolist())
        others = [position for position, wanted_id in enumerate(wanted) if position not in known and "#" in wanted_id]
        if not others:
            return positions, rows
        of_others, more = self._by_passage_id.find([wanted[position] for position in others])
        positions = np.concatenate([positions, np.array(others)[of_others]])
        order = np.argsort(positions, kind="stable")
        return positions[order], np.concatenate([rows, more])[order]

    def rows_of(self, row_ids: np.ndarray) -> np.ndarray:
        """Row numbers of LanceDB's row ids, uint64, in their order: int64, -1 for those that are not in the table."""
        rows, ascending = self._by_row_id
        if not len(rows):
            return np.full(len(row_ids), -1)
        at = np.minimum(np.searchsorted(ascending, row_ids), len(rows) - 1)
        return np.where(ascending[at] == row_ids, rows[at], -1)

    @cached_property
    def _by_row_id(self) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of the rows in the table, and their row ids, ascending."""
        alive = np.flatnonzero(self.alive)
        rows = alive[np.argsort(self.row_ids[alive], kind="stable")]
        return rows, self.row_ids[rows]


def _ids_of(segment: Segment, of_passages: bool) -> Strings:
    return segment.ids if of_passages or segment.parent_ids is None else segment.parent_ids


def _ranges(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The numbers from each start to its end, one range after the other: int64."""
    lengths = ends - starts
    return np.arange(lengths.sum()) + np.repeat(ends - np.cumsum(lengths), lengths)
