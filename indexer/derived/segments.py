"""A segment is a fixed group of up to 65,536 rows of an index table, with their codes as plain arrays.

The arrays are in memory or memory-mapped. The rows of a segment never change: rows that are deleted or rewritten later
are marked in `deleted`, and their new codes go into another segment. (Lucene uses the word in the same sense.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..codec.codec import ResidualCodec
from ..errors import StorageError
from ..table.columns_of_rows import read_columns
from ..table.database import storage_errors
from ..table.schema import IndexHeader
from ..table.table import IndexTable
from .postings import MAX_ROWS, InvertedLists
from .routing import Codes, Routing
from .strings import Strings

# Allocates an array, given its name, shape and dtype.
Allocate = Callable[[str, tuple[int, ...], np.dtype], np.ndarray]

_ROWS_PER_READ = 4096
_MAX_TOKENS_UNSEEN = 1 << 24  # for which memory is taken before the codes have been seen: 600 MB at 2 bits


@dataclass(frozen=True)
class RowKeys:
    """Some rows of a table, ascending by row id.

    Attributes:
        row_ids: uint64 (rows,): LanceDB's stable row ids.
        write_ids: int64 (rows,): which write made the row's codes; the codes of a row id change only with it.
        counts: int64 (rows,): number of token vectors of each row.
    """

    row_ids: np.ndarray
    write_ids: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.row_ids)

    def take(self, which: np.ndarray) -> RowKeys:
        """Select rows.

        Args:
            which: bool (rows,), or integer positions.

        Returns:
            The selected rows.
        """
        return RowKeys(self.row_ids[which], self.write_ids[which], self.counts[which])


@dataclass(frozen=True)
class Segment:
    """The codes and ids of a group of rows, row after row, ascending by row id.

    Attributes:
        row_ids: uint64 (rows,), as in `RowKeys`.
        write_ids: int64 (rows,), as in `RowKeys`.
        offsets: int64 (rows + 1,): where each row's tokens begin.
        centroid_ids: uint16 or uint32 (tokens,).
        residuals: uint8 (tokens, residual bytes); None if they are read from the table instead.
        lists: inverted lists of the rows' positions in this segment: one for each routing point, or for each centroid
            where there is no routing.
        deleted: bool (rows,): whether the row is no longer in the table, or has other codes there.
        ids: the id of each row.
        parent_ids: in an index of passages the id of the document of each row; otherwise None.
    """

    row_ids: np.ndarray
    write_ids: np.ndarray
    offsets: np.ndarray
    centroid_ids: np.ndarray
    residuals: np.ndarray | None
    lists: InvertedLists
    deleted: np.ndarray
    ids: Strings
    parent_ids: Strings | None

    def __len__(self) -> int:
        return len(self.row_ids)

    @property
    def codes(self) -> Codes:
        """Centroid ids and residuals, which must be in memory or mapped."""
        if self.residuals is None:
            raise RuntimeError("the residuals of this segment are in the table alone")
        return self.centroid_ids, self.residuals

    def lists_of(self, codec: ResidualCodec, routing: Routing | None) -> InvertedLists:
        """The inverted lists for a routing, in memory; None stands for lists of the centroids."""
        if routing is None:
            return InvertedLists.build(self.centroid_ids, self.offsets, len(codec.centroids))
        return InvertedLists.build(routing.assign(codec, self.codes), self.offsets, len(routing))

    def keys(self) -> RowKeys:
        """The rows that are not deleted."""
        return RowKeys(self.row_ids, self.write_ids, np.diff(self.offsets)).take(~self.deleted)


def segment_problem(segment: Segment, codec: ResidualCodec, routing: Routing | None) -> str:
    """What is wrong with arrays that were read from files; empty if nothing is.

    The search loops check no bounds, so this must.

    Args:
        segment: the arrays, in memory or mapped.
        codec: the codec of their codes.
        routing: the routing of their lists, or None.
    """
    n_lists = len(codec.centroids) if routing is None else len(routing)
    n_rows, n_tokens, lists = len(segment), len(segment.centroid_ids), segment.lists
    expected = [
        ("row_ids", segment.row_ids, np.dtype(np.uint64), (n_rows,)),
        ("write_ids", segment.write_ids, np.dtype(np.int64), (n_rows,)),
        ("offsets", segment.offsets, np.dtype(np.int64), (n_rows + 1,)),
        ("centroid_ids", segment.centroid_ids, codec.id_dtype, (n_tokens,)),
        ("residuals", segment.residuals, np.dtype(np.uint8), (n_tokens, codec.residual_bytes)),
        ("list_offsets", lists.offsets, np.dtype(np.uint32), (n_lists + 1,)),
        ("postings", lists.postings, np.dtype(np.uint16), (len(lists.postings),)),
    ]
    strings = [("id", segment.ids), *([("parent_id", segment.parent_ids)] if segment.parent_ids else [])]
    for name, column in strings:
        expected.append((f"{name}_offsets", column.offsets, np.dtype(np.int64), (n_rows + 1,)))
        expected.append((f"{name}_text", column.text, np.dtype(np.uint8), (len(column.text),)))
    for name, array, dtype, shape in expected:
        if array is None or array.dtype != dtype or array.shape != shape:
            return f"{name} has another type or shape than expected"
    if n_rows > MAX_ROWS or (np.diff(segment.row_ids.astype(np.int64)) <= 0).any():
        return "row_ids do not ascend, or are too many"
    for name, array, end in (
        ("offsets", segment.offsets, n_tokens),
        ("list_offsets", lists.offsets, len(lists.postings)),
        *((f"{name}_offsets", column.offsets, len(column.text)) for name, column in strings),
    ):
        if array[0] != 0 or array[-1] != end or (array[1:] < array[:-1]).any():
            return f"{name} do not ascend from 0 to {end}"
    if n_tokens and segment.centroid_ids.max() >= len(codec.centroids):
        return "centroid_ids has ids that the codec does not have"
    if len(lists.postings) and lists.postings.max() >= n_rows:
        return "postings has rows that the segment does not have"
    for name, column in strings:
        try:
            column.array.validate(full=True)
        except pa.ArrowInvalid:
            return f"{name}_text is not in UTF-8"
    return ""


def read_keys(index: IndexTable) -> RowKeys:
    """Read which rows the table has, of a shard those of the shard.

    Args:
        index: the table, at the version that it has open.

    Returns:
        All rows, ascending by row id.

    Raises:
        StorageError: the table cannot be read, or is damaged.
    """
    with storage_errors(index.place()):
        rows = read_columns(index.table, ["write_id", "token_count"])
    for name in ("write_id", "token_count"):
        if not pa.types.is_integer(rows.schema.field(name).type) or rows[name].null_count:
            raise damaged(index, name, "is not a number in every row")
    row_ids = rows["_rowid"].to_numpy()
    order = np.argsort(row_ids, kind="stable")
    if not index.shard.is_whole:
        order = order[index.shard.holds(row_ids[order])]
    counts = rows["token_count"].to_numpy().astype(np.int64)
    if (counts < 0).any():
        raise damaged(index, "token_count", "is negative in some rows")
    return RowKeys(row_ids[order], rows["write_id"].to_numpy().astype(np.int64)[order], counts[order])


def build_segment(
    index: IndexTable,
    rows: RowKeys,
    *,
    residuals: bool,
    routing: Routing | None = None,
    allocate: Allocate | None = None,
) -> Segment:
    """Read the codes of ``rows`` from the table.

    Args:
        index: the open table.
        rows: at most 65,536 of its rows.
        residuals: also read the residuals. Without them a segment takes 2 to 4 bytes per token, inverted lists and ids.
        routing: the routing of the inverted lists, which needs residuals; None makes lists of the centroids.
        allocate: allocates the arrays; None allocates them in memory.

    Returns:
        The segment.

    Raises:
        StorageError: the table cannot be read, or is damaged.
    """
    allocate = allocate or _in_memory
    codec = index.codec
    offsets = allocate("offsets", (len(rows) + 1,), np.dtype(np.int64))
    offsets[0] = 0
    np.cumsum(rows.counts, out=offsets[1:])
    n_tokens = int(offsets[-1])
    if n_tokens > _MAX_TOKENS_UNSEEN:
        check_codes(index, rows)
    centroid_ids = allocate("centroid_ids", (n_tokens,), codec.id_dtype)
    codes = allocate("residuals", (n_tokens, codec.residual_bytes), np.dtype(np.uint8)) if residuals else None
    columns = {"centroid_ids": centroid_ids} if codes is None else {"centroid_ids": centroid_ids, "residuals": codes}
    read_codes(index, rows.row_ids, offsets, columns)
    if n_tokens and centroid_ids.max() >= len(codec.centroids):  # the search loops do not check bounds
        raise damaged(index, "centroid_ids", "has ids that the codec does not have")
    row_ids, write_ids = kept("row_ids", rows.row_ids, allocate), kept("write_ids", rows.write_ids, allocate)
    none = InvertedLists(np.zeros(1, np.uint32), np.empty(0, np.uint16))
    strings = {
        column: Strings(
            kept(f"{column}_text", of_rows.text, allocate), kept(f"{column}_offsets", of_rows.offsets, allocate)
        )
        for column, of_rows in _read_strings(index, rows.row_ids, string_columns(index.header)).items()
    }
    segment = Segment(
        row_ids=row_ids,
        write_ids=write_ids,
        offsets=offsets,
        centroid_ids=centroid_ids,
        residuals=codes,
        lists=none,
        deleted=np.zeros(len(rows), bool),
        ids=strings["id"],
        parent_ids=strings.get("parent_id"),
    )
    return with_lists(segment, codec, routing, allocate)


def with_lists(
    segment: Segment, codec: ResidualCodec, routing: Routing | None, allocate: Allocate | None = None
) -> Segment:
    """A segment with the inverted lists for a routing; arguments as for `build_segment`."""
    allocate = allocate or _in_memory
    lists = segment.lists_of(codec, routing)
    lists = InvertedLists(kept("list_offsets", lists.offsets, allocate), kept("postings", lists.postings, allocate))
    return replace(segment, lists=lists)


def kept(name: str, array: np.ndarray, allocate: Allocate) -> np.ndarray:
    """A copy of ``array`` in memory that ``allocate`` gives."""
    copy = allocate(name, array.shape, array.dtype)
    copy[:] = array
    return copy


def string_columns(header: IndexHeader) -> list[str]:
    """The columns of strings that a segment has."""
    return ["id", "parent_id"] if header.passage_tokens else ["id"]


def _read_strings(index: IndexTable, row_ids: np.ndarray, columns: Sequence[str]) -> dict[str, Strings]:
    """Columns of rows; ``row_ids`` is uint64 (rows,), ascending."""
    schema = pa.schema([*(index.table.schema.field(name) for name in columns), pa.field("_rowid", pa.uint64())])
    batches = [batch.select(schema.names) for batch in read_rows(index, row_ids, columns)]
    found = pa.Table.from_batches(batches, schema).sort_by("_rowid")
    if len(found) < len(row_ids):
        raise _removed(index)
    for name in columns:
        if found[name].null_count:
            raise damaged(index, name, "has no value in some rows")
    return {name: Strings.of(found[name]) for name in columns}


def read_codes(index: IndexTable, row_ids: np.ndarray, offsets: np.ndarray, into: Mapping[str, np.ndarray]) -> None:
    """Copy code columns of rows from the table into arrays.

    Args:
        index: the open table.
        row_ids: uint64 (rows,), in any order.
        offsets: integer (rows + 1,): where each row's tokens begin in the arrays.
        into: for each column an array with one entry per token, which is written to.

    Raises:
        StorageError: a row is missing, because `optimize` has removed the open version; or the table cannot be read, or
            is damaged.
    """
    order = np.argsort(row_ids, kind="stable")
    ascending = row_ids[order]
    found = 0
    for batch in read_rows(index, ascending, list(into)):
        places = order[np.searchsorted(ascending, batch["_rowid"].to_numpy())].tolist()
        for name, array in into.items():
            for value, place in zip(batch[name], places, strict=True):
                tokens = array[offsets[place] : offsets[place + 1]]
                content = value.as_buffer()
                if content is None or content.size != tokens.nbytes:
                    raise damaged(index, name, "has another length than token_count says in some rows")
                tokens[:] = np.frombuffer(content, array.dtype).reshape(tokens.shape)
        found += len(places)
    if found < len(row_ids):
        raise _removed(index)


def _removed(index: IndexTable) -> StorageError:
    version = index.table.version
    return StorageError(f"{index.place()}: version {version} has been removed; refresh and search again")


def check_codes(index: IndexTable, rows: RowKeys) -> None:
    """Compare the codes of rows with their counts and with the codec, holding a batch of them at a time.

    Args:
        index: the open table.
        rows: some of its rows.

    Raises:
        StorageError: a row is missing or damaged, or the table cannot be read.
    """
    codec, found = index.codec, 0
    for batch in read_rows(index, rows.row_ids, ["centroid_ids", "residuals"]):
        counts = rows.counts[np.searchsorted(rows.row_ids, batch["_rowid"].to_numpy())]
        for name, size in (("centroid_ids", codec.id_dtype.itemsize), ("residuals", codec.residual_bytes)):
            lengths = pc.call_function("binary_length", [batch[name]]).fill_null(-1).to_numpy(zero_copy_only=False)
            if (lengths != counts * size).any():
                raise damaged(index, name, "has another length than token_count says in some rows")
        joined = b"".join(batch["centroid_ids"].to_pylist())
        if joined and np.frombuffer(joined, codec.id_dtype).max() >= len(codec.centroids):
            raise damaged(index, "centroid_ids", "has ids that the codec does not have")
        found += batch.num_rows
    if found < len(rows):
        raise StorageError(f"{index.place()}: version {index.table.version} lacks {len(rows) - found} of its rows")


def damaged(index: IndexTable, column: str, problem: str) -> StorageError:
    """The error for a column that is not as it was written."""
    return StorageError(
        f"{index.place()}: column {column!r} {problem}; the table is damaged, restore it from a copy or create it again"
    )


def read_rows(index: IndexTable, row_ids: np.ndarray, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Read columns of rows.

    Args:
        index: the open table.
        row_ids: uint64 (rows,), ascending.
        columns: names of the columns.

    Yields:
        Batches of these columns and ``_rowid``, in any order.

    Raises:
        StorageError: the table cannot be read.
    """
    with storage_errors(index.place()):
        # One pass over the table is faster if most of its rows are wanted.
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
    """Divide rows into parts of at most `MAX_ROWS`, each for one segment."""
    return [rows.take(np.arange(s, min(s + MAX_ROWS, len(rows)))) for s in range(0, len(rows), MAX_ROWS)]


def _in_memory(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.empty(shape, dtype)
