"""Records in Arrow's columns: Parquet files, Arrow IPC files and streams, Lance datasets, read in slices of rows.

Every row gives one pair of its place ("data.parquet row 5", from 0) and either the record or, where one of its values
is damaged or has no counterpart in Python, a BadRecord.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import SourceError
from .line_formats import BadRecord, Record, check_unique, cut

_ROWS = 1024  # as Python objects at a time
_LANCE_ROWS = 8192  # per query: Lance reads ahead by up to 2 GiB within one
_BUFFER = 2**20
# Text that is not UTF-8, a time finer than Python's (ValueError), one beyond Python's (OverflowError).
_NO_VALUE = (ValueError, OverflowError)


def read_parquet(path: Path) -> Iterator[Record]:
    """The rows of a Parquet file. Raises SourceError, OSError or ArrowException if it is damaged."""
    # Buffered, without pre-buffering: pages are read as they are needed, not a whole row group at once.
    with pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True) as file:
        check_unique(file.schema_arrow.names, str(path))
        yield from _records(_parquet_batches(file, path), path)


def read_ipc(path: Path) -> Iterator[Record]:
    """The rows of an Arrow IPC file or stream, told apart by the first bytes; Feather (V2) is such a file.

    Raises SourceError, OSError or ArrowException if it is damaged, and SourceError for a stream without its end marker,
    as a writer leaves it that did not come to its end.
    """
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"FEA1"):
        raise SourceError(f"{path}: Feather version 1 is not read; write it as version 2, Parquet or JSONL")
    # Mapped, not read: some writers put the whole table into one batch.
    with pa.memory_map(str(path)) as source:
        batches = _file_batches(source, path) if magic == b"ARROW1" else _stream_batches(source, path)
        yield from _records(batches, path)


def read_lance(path: Path) -> Iterator[Record]:
    """The rows of a Lance dataset, a folder NAME.lance. Raises SourceError if it cannot be read."""
    yield from _records(_lance_batches(Path(os.path.abspath(path)), path), path)


def _parquet_batches(file: pq.ParquetFile, path: Path) -> Iterator[pa.RecordBatch]:
    left = file.metadata.num_rows
    for batch in file.iter_batches(batch_size=_ROWS):
        left -= len(batch)
        yield batch
    if left:
        raise SourceError(f"{path}: cannot be read ({file.metadata.num_rows - left} rows of {file.metadata.num_rows})")


def _file_batches(source: pa.NativeFile, path: Path) -> Iterator[pa.RecordBatch]:
    with pa.ipc.open_file(source) as reader:
        check_unique(reader.schema.names, str(path))
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def _stream_batches(source: pa.NativeFile, path: Path) -> Iterator[pa.RecordBatch]:
    with pa.ipc.open_stream(source) as reader:
        check_unique(reader.schema.names, str(path))
        position = source.tell()
        for batch in reader:
            yield batch
            position = source.tell()
        # Arrow takes the end of the file for the end of the stream, too, and looks at nothing after the marker.
        if source.tell() == position:
            raise SourceError(f"{path}: ends without the stream's end marker; it was not written or copied whole")
        if source.tell() != source.size():
            raise SourceError(f"{path}: there is more after the stream's end marker; keep each stream in its own file")


def _lance_batches(folder: Path, path: Path) -> Iterator[pa.RecordBatch]:
    import lancedb  # takes seconds, which readers of other formats save

    try:
        table = lancedb.connect(str(folder.parent)).open_table(folder.name.removesuffix(".lance"))
        for start in range(0, table.count_rows(), _LANCE_ROWS):
            yield from table.search().offset(start).limit(_LANCE_ROWS).to_batches(batch_size=_ROWS)
    except (OSError, RuntimeError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read ({error})") from error


def _records(batches: Iterable[pa.RecordBatch], path: Path) -> Iterator[Record]:
    number = 0
    for batch in batches:
        for start in range(0, len(batch), _ROWS):
            rows = batch.slice(start, _ROWS)
            try:
                # Offsets in a damaged file may point anywhere, and nothing else looks at them.
                rows.validate(full=True)
                records = rows.to_pylist()
            except _NO_VALUE:
                records = _one_by_one(rows)
            for record in records:
                yield f"{path} row {number}", record
                number += 1


def _one_by_one(rows: pa.RecordBatch) -> list[dict[str, Any] | BadRecord]:
    """The records, a BadRecord for each that has a value which Python lacks. Raises ArrowInvalid for damage beyond."""
    as_bytes = [column.view(_bytes_type(column.type)) for column in rows.columns]
    for column in as_bytes:
        if not _is_flat(column.type):
            column.validate(full=True)
    return [_record(rows, as_bytes, i) for i in range(len(rows))]


def _record(rows: pa.RecordBatch, as_bytes: list[pa.Array], i: int) -> dict[str, Any] | BadRecord:
    record, shown, reasons = {}, [], []
    for name, column, data in zip(rows.schema.names, rows.columns, as_bytes, strict=True):
        record[name], reason = _value(column[i])
        if reason:
            reasons.append(f"field {name!r}: {reason}")
        shown.append(f"{name}: {_readable(data[i]) if reason else record[name]}")
    return BadRecord("; ".join(reasons), cut("\n".join(shown))) if reasons else record


def _value(scalar: pa.Scalar) -> tuple[Any, str]:
    """The value, or None and the reason why there is none."""
    try:
        return scalar.as_py(), ""
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 ({error})"
    except _NO_VALUE as error:
        return None, str(error)


def _readable(scalar: pa.Scalar) -> str:
    value, reason = _value(scalar)
    if reason:  # a time: its number
        return str(getattr(scalar, "value", scalar.type)) if _is_flat(scalar.type) else "(not shown)"
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _is_flat(kind: pa.DataType) -> bool:
    """Whether the values are of fixed width: reading one cannot go astray, whatever its bits are."""
    return pa.types.is_primitive(kind) or pa.types.is_decimal(kind)


def _bytes_type(kind: pa.DataType) -> pa.DataType:
    """The type with bytes for text."""
    types = pa.types
    if types.is_string(kind):
        return pa.binary()
    if types.is_large_string(kind):
        return pa.large_binary()
    if types.is_string_view(kind):
        return pa.binary_view()
    if types.is_struct(kind):
        return pa.struct([field.with_type(_bytes_type(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(_bytes_type(kind.key_type), _bytes_type(kind.item_type))
    if types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _bytes_type(kind.value_type))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        item = kind.value_field.with_type(_bytes_type(kind.value_type))
        if types.is_fixed_size_list(kind):
            return pa.list_(item, kind.list_size)
        return pa.list_(item) if types.is_list(kind) else pa.large_list(item)
    return kind
