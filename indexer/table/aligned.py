"""Arrow data in memory as LanceDB needs it.

LanceDB reads buffers where they lie. A value of 128 bits, as decimals have, that does not begin at a multiple of 16
stops one of its threads, and rows are then missing from a commit that is reported as done. Arrow's files, as rows are
staged in them, align buffers to 8 bytes only.
"""

from __future__ import annotations

import pyarrow as pa

_ALIGNMENT = 64  # bytes: what Arrow recommends, and gives what it allocates itself


def aligned(batch: pa.RecordBatch) -> pa.RecordBatch:
    """``batch`` with every column copied that has a buffer which does not begin at a multiple of 64 bytes."""
    return pa.RecordBatch.from_arrays([_aligned_array(column) for column in batch.columns], schema=batch.schema)


def _aligned_array(array: pa.Array) -> pa.Array:
    if isinstance(array, pa.DictionaryArray):
        return pa.DictionaryArray.from_arrays(
            _aligned_array(array.indices), _aligned_array(array.dictionary), ordered=array.type.ordered
        )
    if all(buffer is None or buffer.address % _ALIGNMENT == 0 for buffer in array.buffers()):
        return array
    return pa.concat_arrays([array])  # even of one array this is a copy
