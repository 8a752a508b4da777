"""Segments: the codes of up to 65,536 rows of an index table as plain arrays, in memory or memory-mapped.

What lies in a segment is fixed when it is made; rows that are deleted or rewritten later are marked in `deleted`, and
their new codes go into another segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..errors import StorageError
from ..table.database import storage_errors
from ..table.table import IndexTable
from .postings import MAX_ROWS, InvertedLists

# Makes room for an array: name, shape, type.
Allocate = Callable[[str, tuple[int, ...], np.dtype], np.ndarray]

_ROWS_PER_READ = 4096


@dataclass(frozen=True)
class RowKeys:
    """Which rows a table has, ascending by row id.

    Attributes:
        row_ids: uint64 (rows,), LanceDB's stable row ids.
        write_ids: int64 (rows,); with the row id it says which codes a row has.
        counts: int64 (rows,), token vectors.
    """

    row_ids: np.ndarray
    write_ids: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.row_ids)

    def take(self, which: np.ndarray) -> RowKeys:
        """Some of the rows."""
        return RowKeys(self.row_ids[which], self.write_ids[which], self.counts[which])


@dataclass(frozen=True)
class Segment:
    """Codes of some rows, one after the other, ascending by row id.

    Attributes:
        row_ids: uint64 (rows,).
        write_ids: int64 (rows,).
        offsets: int64 (rows + 1,): where each row's tokens begin.
        centroid_ids: uint16 or uint32 (tokens,).
        residuals: uint8 (tokens, residual bytes); None if they are to be read from the table.
        lists: inverted lists over the rows' positions.
        deleted: bool (rows,): rows that are in the table no more, or with other codes.
    """

    row_ids: np.ndarray
    write_ids: np.ndarray
    offsets: np.ndarray
    centroid_ids: np.ndarray
    residuals: np.ndarray | None
    lists: InvertedLists
    deleted: np.ndarray

    def __len__(self) -> int:
        return len(self.row_ids)

    def keys(self) -> RowKeys:
        """The rows that are still there."""
        return RowKeys(self.row_ids, self.write_ids, np.diff(self.offsets)).take(~self.deleted)


def read_keys(index: IndexTable) -> RowKeys:
    """The rows of the table at the version that ``index`` has open."""
    with storage_errors(index.place()):
        rows = index.table.search().select(["write_id", "token_count"]).with_row_id(True).to_arrow()
    row_ids = rows["_rowid"].to_numpy()
    order = np.argsort(row_ids, kind="stable")
    counts = rows["token_count"].to_numpy().astype(np.int64)
    return RowKeys(row_ids[order], rows["write_id"].to_numpy()[order], counts[order])


def build_segment(index: IndexTable, rows: RowKeys, *, residuals: bool, allocate: Allocate | None = None) -> Segment:
    """Read the codes of ``rows`` from the table.

    Args:
        index: the open table.
        rows: at most 65,536 of its rows.
        residuals: read them too; without, a segment takes 2 to 4 bytes a token and some for the inverted lists.
        allocate: makes the arrays; in memory by default.
    """
    allocate = allocate or _in_memory
    codec = index.codec
    offsets = allocate("offsets", (len(rows) + 1,), np.dtype(np.int64))
    offsets[0] = 0
    np.cumsum(rows.counts, out=offsets[1:])
    n_tokens = int(offsets[-1])
    centroid_ids = allocate("centroid_ids", (n_tokens,), codec.id_dtype)
    codes = allocate("residuals", (n_tokens, codec.residual_bytes), np.dtype(np.uint8)) if residuals else None
    columns = {"centroid_ids": centroid_ids} if codes is None else {"centroid_ids": centroid_ids, "residuals": codes}
    read_codes(index, rows.row_ids, offsets, columns)
    if n_tokens and centroid_ids.max() >= len(codec.centroids):  # the loops that read them look at no bounds
        raise StorageError(f"{index.place()}: centroid ids beyond the codec's; the table is damaged, index it again")
    lists = InvertedLists.build(centroid_ids, offsets, len(codec.centroids))

    def kept(name: str, array: np.ndarray) -> np.ndarray:
        copy = allocate(name, array.shape, array.dtype)
        copy[:] = array
        return copy

    row_ids, write_ids = kept("row_ids", rows.row_ids), kept("write_ids", rows.write_ids)
    lists = InvertedLists(kept("list_offsets", lists.offsets), kept("postings", lists.postings))
    return Segment(row_ids, write_ids, offsets, centroid_ids, codes, lists, np.zeros(len(rows), bool))


def read_codes(index: IndexTable, row_ids: np.ndarray, offsets: np.ndarray, into: Mapping[str, np.ndarray]) -> None:
    """Copy code columns of rows from the table into arrays.

    Args:
        index: the open table.
        row_ids: uint64 (rows,), in any order.
        offsets: integer (rows + 1,): where each row's tokens begin in the arrays.
        into: for each column the array, one entry for each token.

    Raises StorageError if a row is not there: its version has been given up.
    """
    order = np.argsort(row_ids, kind="stable")
    ascending = row_ids[order]
    found = 0
    for batch in read_rows(index, ascending, list(into)):
        places = order[np.searchsorted(ascending, batch["_rowid"].to_numpy())].tolist()
        for name, array in into.items():
            for value, place in zip(batch[name], places, strict=True):
                tokens = array[offsets[place] : offsets[place + 1]]
                tokens[:] = np.frombuffer(value.as_buffer(), array.dtype).reshape(tokens.shape)
        found += len(places)
    if found < len(row_ids):
        version = index.table.version
        raise StorageError(f"{index.place()}: version {version} has been removed; refresh and search again")


def read_rows(index: IndexTable, row_ids: np.ndarray, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Columns of rows given by row id, ascending, with ``_rowid``, in batches of any order."""
    with storage_errors(index.place()):
        everything = len(row_ids) > 0.5 * index.table.count_rows()
        if not everything:
            for start in range(0, len(row_ids), _ROWS_PER_READ):
                wanted = row_ids[start : start + _ROWS_PER_READ].tolist()
                query = index.table.take_row_ids(wanted).select(list(columns)).with_row_id()
                yield from query.to_arrow().to_batches()
            return
        for batch in index.table.search().select(list(columns)).with_row_id(True).to_batches(_ROWS_PER_READ):
            found = np.isin(batch["_rowid"].to_numpy(), row_ids)
            yield batch if found.all() else batch.filter(pa.array(found))


def parts(rows: RowKeys) -> list[RowKeys]:
    """``rows`` in parts that fit into one segment."""
    return [rows.take(np.arange(s, min(s + MAX_ROWS, len(rows)))) for s in range(0, len(rows), MAX_ROWS)]


def _in_memory(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.empty(shape, dtype)
