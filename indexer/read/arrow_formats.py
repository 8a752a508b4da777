"""Read records from Arrow columns: Parquet files, Arrow IPC files and streams, Lance datasets.

Each row yields a pair of its place ("data.parquet row 5", from 0) and the record. If a value of the row is damaged, or
Python does not have such a value, the record is a BadRecord.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import SourceError, StorageError
from ..forks import check_process
from ..plain_files import check_plain
from .line_formats import BadRecord, Record, check_unique, cut
from .packed import MAX_UNPACK_RATIO, unpacked_limit, unpacks_to_too_much
from .vectors import ArrowVectors

_ROWS = 1024  # rows converted to Python objects at a time
_MATRICES = 64  # rows decoded at a time where they have token vectors: of the longest documents some 16 MB
_LANCE_ROWS = 8192  # rows per query: within a query, Lance reads ahead by up to 2 GiB
_BUFFER = 2**20
# Text that is not UTF-8, a time finer than Python's (ValueError), one beyond Python's (OverflowError).
_NO_VALUE = (ValueError, OverflowError)


def read_parquet(
    path: Path, max_unpack_ratio: float = MAX_UNPACK_RATIO, matrices: str | None = None
) -> Iterator[Record]:
    """Read a Parquet file.

    Args:
        path: the file.
        max_unpack_ratio: see `packed.unpacked_limit`; compared with what the file says of itself.
        matrices: name of a column of token vectors, see `batch_records`.

    Yields:
        Pairs of place and record.

    Raises:
        SourceError: the file is damaged, or unpacks to too much; also OSError and ArrowException.
    """
    # Buffered, but not pre-buffered: pages are read when they are needed, not a whole row group at once.
    with pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True) as file:
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        if sum(group.total_byte_size for group in groups) > unpacked_limit(path, max_unpack_ratio):
            raise unpacks_to_too_much(path, max_unpack_ratio)
        check_unique(file.schema_arrow.names, str(path))
        yield from _records(_parquet_batches(file, path, _ROWS if matrices is None else _MATRICES), path, matrices)


def read_ipc(path: Path, matrices: str | None = None) -> Iterator[Record]:
    """Read an Arrow IPC file or stream, which differ in their first bytes. Feather (version 2) is such a file.

    Args:
        path: the file.
        matrices: name of a column of token vectors, see `batch_records`.

    Yields:
        Pairs of place and record.

    Raises:
        SourceError: the file is damaged, or a stream has no end marker because its writer was interrupted; also
            OSError and ArrowException.
    """
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"FEA1"):
        raise SourceError(f"{path}: Feather version 1 cannot be read; write it as version 2, Parquet or JSONL")
    # Mapped, not read: some writers put the whole table into one batch.
    with pa.memory_map(str(path)) as source:
        batches = _file_batches(source, path) if magic == b"ARROW1" else _stream_batches(source, path)
        yield from _records(batches, path, matrices)


def read_lance(path: Path, matrices: str | None = None) -> Iterator[Record]:
    """Read a Lance dataset.

    Args:
        path: a folder NAME.lance.
        matrices: name of a column of token vectors, see `batch_records`.

    Yields:
        Pairs of place and record.

    Raises:
        SourceError: the dataset cannot be read.
    """
    yield from _records(_lance_batches(Path(os.path.abspath(path)), path, matrices), path, matrices)


def schema_metadata(path: Path, kind: str) -> Mapping[bytes, bytes]:
    """The metadata that a file's schema has, without reading its rows.

    Args:
        path: the file.
        kind: "parquet" or "arrow"; other kinds have none.

    Raises:
        OSError: the file cannot be read; also ArrowException.
    """
    if kind == "parquet":
        return pq.read_schema(path).metadata or {}
    if kind == "arrow":
        with pa.memory_map(str(path)) as source:
            is_file = source.read(6) == b"ARROW1"
            source.seek(0)
            with pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source) as reader:
                return reader.schema.metadata or {}
    return {}


def _parquet_batches(file: pq.ParquetFile, path: Path, rows: int) -> Iterator[pa.RecordBatch]:
    left = file.metadata.num_rows
    for batch in file.iter_batches(batch_size=rows):
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
        # Arrow also accepts the end of the file as the end of the stream, and ignores all data after the marker.
        if source.tell() == position:
            raise SourceError(f"{path}: the stream has no end marker; write or copy the whole file again")
        if source.tell() != source.size():
            raise SourceError(f"{path}: there is data after the stream's end marker; put each stream into its own file")


def _lance_batches(folder: Path, path: Path, matrices: str | None) -> Iterator[pa.RecordBatch]:
    import lancedb  # this takes seconds, so other formats do without

    check_process(str(path))
    try:
        check_plain(folder, linked_files=True, linked_folders=True)  # LanceDB would wait at a pipe
    except StorageError as error:
        raise SourceError(str(error)) from error
    try:
        table = lancedb.connect(str(folder.parent)).open_table(folder.name.removesuffix(".lance"))
        rows = _LANCE_ROWS if matrices is None else _ROWS
        for start in range(0, table.count_rows(), rows):
            yield from table.search().offset(start).limit(rows).to_batches(batch_size=_ROWS)
    except (OSError, RuntimeError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read ({error})") from error


def batch_records(batch: pa.RecordBatch, matrices: str | None = None) -> Iterator[dict[str, Any] | BadRecord]:
    """Read records from Arrow columns in memory.

    Args:
        batch: the columns.
        matrices: name of a column of token vectors, whose values become arrays and not lists of Python's numbers,
            which take ten times as much memory. None: no such column.

    Yields:
        For each row a mapping, or a BadRecord if Python does not have one of its values.

    Raises:
        ArrowInvalid: the columns are damaged.
    """
    number = -1 if matrices is None else batch.schema.get_field_index(matrices)
    for start in range(0, len(batch), _ROWS):
        rows = batch.slice(start, _ROWS)
        # Offsets in a damaged file may point anywhere, and nothing else checks them.
        vectors: Iterable[Any] = ()
        if number >= 0:
            rows.column(number).validate(full=True)
            vectors = ArrowVectors(rows.column(number))
            rows = rows.select([i for i in range(rows.num_columns) if i != number])
        try:
            rows.validate(full=True)
            for column in rows.columns:
                _check_times(column)
            records = rows.to_pylist() if rows.num_columns else [{} for _ in vectors]
        except _NO_VALUE:
            records = _one_by_one(rows)
        if number >= 0:
            yield from (_with_matrix(*pair, str(matrices)) for pair in zip(records, vectors, strict=True))
        else:
            yield from records


def _with_matrix(record: dict[str, Any] | BadRecord, matrix: Any, name: str) -> dict[str, Any] | BadRecord:
    return record if isinstance(record, BadRecord) else {**record, name: matrix}


def _records(batches: Iterable[pa.RecordBatch], path: Path, matrices: str | None) -> Iterator[Record]:
    number = 0
    for batch in batches:
        for record in batch_records(batch, matrices):
            yield f"{path} row {number}", record
            number += 1


def _one_by_one(rows: pa.RecordBatch) -> list[dict[str, Any] | BadRecord]:
    """The records, or a BadRecord for each with a value that Python does not have. Raises ArrowInvalid if damaged."""
    as_bytes = [column.view(_bytes_type(column.type)) for column in rows.columns]
    for column in as_bytes:
        if not _is_flat(column.type):
            column.validate(full=True)
    return [_record(rows, as_bytes, i) for i in range(len(rows))]


def _record(rows: pa.RecordBatch, as_bytes: list[pa.Array], i: int) -> dict[str, Any] | BadRecord:
    record, shown, reasons = {}, [], []
    for name, column, data in zip(rows.schema.names, rows.columns, as_bytes, strict=True):
        record[name], reason = _value(column[i])
        if not reason:
            try:
                _check_times(column.slice(i, 1))
            except ValueError as error:
                reason = str(error)
        if reason:
            reasons.append(f"field {name!r}: {reason}")
        shown.append(f"{name}: {_readable(data[i]) if reason else record[name]}")
    return BadRecord("; ".join(reasons), cut("\n".join(shown))) if reasons else record


def _value(scalar: pa.Scalar) -> tuple[Any, str]:
    """The value and an empty string, or None and the reason why Python does not have such a value."""
    try:
        return scalar.as_py(), ""
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 ({error})"
    except _NO_VALUE as error:
        return None, str(error)


def _check_times(array: pa.Array) -> None:
    """Raise ValueError for a time of day, anywhere in the values, whose nanoseconds Python would cut off unasked."""
    if pa.types.is_time64(array.type) and array.type.unit == "ns":
        for nanoseconds in array.drop_null().view(pa.int64()).to_pylist():
            if nanoseconds % 1000:
                raise ValueError(f"the time of day has {nanoseconds % 1000} nanoseconds; microseconds are the finest")
    elif pa.types.is_dictionary(array.type):
        _check_times(array.dictionary)
    elif pa.types.is_map(array.type):
        first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
        for part in (array.keys, array.items):
            _check_times(part.slice(first, last - first))
    elif pa.types.is_run_end_encoded(array.type):
        _check_times(pc.call_function("run_end_decode", [array]))
    elif pa.types.is_struct(array.type) or hasattr(array.type, "value_field"):  # a list of any kind
        parts = array.flatten()
        for part in parts if isinstance(parts, list) else [parts]:
            _check_times(part)


def _readable(scalar: pa.Scalar) -> str:
    value, reason = _value(scalar)
    if reason:  # of a time, show the number
        return str(getattr(scalar, "value", scalar.type)) if _is_flat(scalar.type) else "(not shown)"
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _is_flat(kind: pa.DataType) -> bool:
    """Whether the values have a fixed width: reading one is then safe, whatever its bits are."""
    return pa.types.is_primitive(kind) or pa.types.is_decimal(kind)


def _bytes_type(kind: pa.DataType) -> pa.DataType:
    """The same type with bytes in place of text."""
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
