"""A checksum of rows that does not depend on their order or on how they are divided into batches."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_MASK = (1 << 64) - 1


def rows_checksum(batches: Iterable[pa.RecordBatch]) -> int:
    """The checksum of rows: 64 bits, the sum of the rows' own checksums.

    Args:
        batches: rows; their columns may come in any order.

    Example:
        >>> import pyarrow as pa
        >>> whole = pa.record_batch({"id": ["a", "b"], "codes": [b"12", b""]})
        >>> rows_checksum([whole]) == rows_checksum([whole.slice(1), whole.slice(0, 1)])
        True
    """
    total = 0
    for batch in batches:
        rows = np.zeros(batch.num_rows, np.uint64)
        for name in sorted(batch.schema.names):
            seed = zlib.crc32(name.encode())
            rows = _mixed(rows + _mixed(_of_values(batch.column(name)) ^ np.uint64(seed)))
        total += int(rows.sum(dtype=np.uint64)) if len(rows) else 0
    return total & _MASK


def _of_values(values: pa.Array) -> np.ndarray:
    """A number for each value, uint64 (values,)."""
    kind = values.type
    if pa.types.is_null(kind):
        return np.zeros(len(values), np.uint64)
    if pa.types.is_dictionary(kind):
        return _of_values(values.dictionary_decode())
    if isinstance(values, pa.ExtensionArray):
        return _of_values(values.storage)
    if pa.types.is_struct(kind):
        found = np.ones(len(values), np.uint64)
        for part in values.flatten():  # in the order of the type; a null is one in each
            found = _mixed(found + _of_values(part))
    elif pa.types.is_fixed_size_list(kind):
        if values.null_count:
            return _of_values(values.cast(pa.list_(kind.value_type)))
        of_parts = _of_numbers if _is_number(kind.value_type) else _of_lists
        found = of_parts(values.flatten(), np.arange(len(values) + 1) * kind.list_size)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)  # pyright: ignore[reportAttributeAccessIssue]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        of_parts = _of_numbers if _is_number(kind.value_type) else _of_lists
        found = of_parts(values.flatten(), offsets)
    else:
        texts = values.cast(pa.large_binary()) if _has_bytes(kind) else None
        found = _of_bytes(texts) if texts is not None else _of_fixed(values)
    if values.null_count:
        found = np.where(values.is_valid().to_numpy(zero_copy_only=False), found, np.uint64(0x9E3779B97F4A7C15))
    return found


def _has_bytes(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_float32(kind) or pa.types.is_float64(kind)


def _of_bytes(values: pa.Array) -> np.ndarray:
    given = (zlib.crc32(value) | len(value) << 32 for value in _buffers(values))
    return np.fromiter(given, np.uint64, len(values))


def _buffers(values: pa.Array) -> Iterable[memoryview]:
    offsets = np.frombuffer(values.buffers()[1], np.int64)[values.offset : values.offset + len(values) + 1]
    data = memoryview(values.buffers()[2] or b"")
    return (data[start:end] for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))


def _of_fixed(values: pa.Array) -> np.ndarray:
    """Of numbers, truth values, dates and times: their bytes. What stands in the place of a null does not matter."""
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8())
    try:
        width = values.type.bit_width // 8
    except ValueError:  # a kind that has no fixed width, such as a map
        return _of_bytes(pa.array([repr(value).encode() for value in values.to_pylist()], pa.large_binary()))
    start = values.offset * width
    data = np.frombuffer(values.buffers()[1], np.uint8)[start : start + len(values) * width].reshape(len(values), width)
    found = np.zeros(len(values), np.uint64)
    for byte in data.T:
        found = found * np.uint64(1_099_511_628_211) + byte
    return found


def _of_numbers(parts: pa.Array, offsets: np.ndarray) -> np.ndarray:
    """Of lists of numbers, such as codes: the CRC of their bytes, and the places of nulls."""
    width = parts.type.bit_width // 8
    whole = parts.fill_null(0) if parts.null_count else parts
    data = memoryview(whole.buffers()[1] or b"")[whole.offset * width : (whole.offset + len(whole)) * width]
    ends = (offsets * width).tolist()
    crcs = (zlib.crc32(data[start:end]) | (end - start) << 32 for start, end in itertools.pairwise(ends))
    found = np.fromiter(crcs, np.uint64, len(offsets) - 1)
    if parts.null_count:
        found += _sums(parts.is_null().cast(pa.uint64()).to_numpy(), offsets)
    return found


def _of_lists(parts: pa.Array, offsets: np.ndarray) -> np.ndarray:
    """Of other lists: what their parts give, and their lengths."""
    return _mixed(_sums(_of_values(parts), offsets) + np.diff(offsets).astype(np.uint64))


def _sums(parts: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """For each list, the sum of its parts, each times a number of its place in the list; 0 for no parts but zeros."""
    place = np.arange(len(parts)) - np.repeat(offsets[:-1], np.diff(offsets))
    weighted = parts * (_mixed(place.astype(np.uint64)) | np.uint64(1))
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(weighted, dtype=np.uint64)])
    return running[offsets[1:]] - running[offsets[:-1]]


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): each bit of the input moves each of the output."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
