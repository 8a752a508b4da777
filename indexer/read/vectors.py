"""Token vectors that the caller made: for each document one matrix, in order or in a field of the documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ...onnx_export.errors import InputError
from ..errors import SourceError

MODEL_KEY = b"tansaku.model"
"""Key in the metadata of an Arrow schema or a Parquet file: name of the model that made its vectors."""
FINGERPRINT_KEY = b"tansaku.fingerprint"
"""Key in the same place: the model's `Bundle.fingerprint`."""


class FlatVectors(Sequence[np.ndarray]):
    """Token vectors of many documents in one array, one document after the other.

    Args:
        values: float (all tokens, dim); may be a memory map.
        lengths: number of token vectors of each document; None if ``offsets`` are given.
        offsets: where each document begins, and where the last one ends: one more than there are documents.

    Raises:
        InputError: both or neither of lengths and offsets are given, or they do not divide the array.

    Example:
        >>> import numpy as np
        >>> from tansaku import FlatVectors
        >>> vectors = FlatVectors(np.eye(16, dtype=np.float32)[:3], lengths=[2, 1])
        >>> [matrix.shape for matrix in vectors]
        [(2, 16), (1, 16)]
    """

    def __init__(
        self, values: np.ndarray, lengths: Sequence[int] | None = None, *, offsets: Sequence[int] | None = None
    ) -> None:
        if (lengths is None) == (offsets is None):
            raise InputError("give lengths or offsets, one of the two")
        name, numbers = ("offsets", np.asarray(offsets)) if lengths is None else ("lengths", np.asarray(lengths))
        if np.ndim(values) != 2:
            raise InputError(f"the array of token vectors has shape {np.shape(values)}, expected (tokens, dim)")
        if numbers.ndim != 1 or (len(numbers) and not np.issubdtype(numbers.dtype, np.integer)):
            raise InputError(f"{name} must be whole numbers, one after the other")
        bounds = numbers if lengths is None else np.concatenate(([0], np.cumsum(numbers, dtype=np.int64)))
        if not len(bounds) or bounds[0] != 0 or (np.diff(bounds) < 0).any() or bounds[-1] != len(values):
            end = int(bounds[-1]) if len(bounds) else 0
            raise InputError(
                f"the {name} end at {end:,}, and the array has {len(values):,} token vectors; give one length for each "
                "document, or offsets from 0 that ascend"
            )
        self.values = values
        self._bounds = bounds.astype(np.int64)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        start = position % len(self)
        return self.values[self._bounds[start] : self._bounds[start + 1]]


class ArrowVectors(Sequence[Any]):
    """Token vectors in an Arrow column of lists of lists of floats; the inner ones may have a fixed size.

    A row becomes a matrix in the column's own floats when it is asked for.

    Args:
        column: the column.
    """

    def __init__(self, column: pa.Array | pa.ChunkedArray) -> None:
        self._chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        self._ends = np.cumsum([len(chunk) for chunk in self._chunks])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        if not 0 <= position < len(self):
            raise IndexError(position)
        number = int(np.searchsorted(self._ends, position, "right"))
        chunk = self._chunks[number]
        return _matrix(chunk[position - int(self._ends[number]) + len(chunk)])

    def __iter__(self) -> Iterator[Any]:
        for chunk in self._chunks:
            yield from map(_matrix, chunk)


def _matrix(row: pa.Scalar) -> Any:
    """A row as an array (tokens, dim); as Python has it if it is something else, for the check to say what."""
    values: Any = getattr(row, "values", None)
    if not isinstance(values, pa.Array):
        return row.as_py()
    size = getattr(values.type, "list_size", None)
    nested = size is not None or hasattr(values.type, "value_field")
    if not nested or values.null_count or not pa.types.is_floating(values.type.value_type):
        return values.to_pylist()
    if size is None:
        lengths = np.unique(values.value_lengths().to_numpy(zero_copy_only=False))
        if len(lengths) > 1:
            return values.to_pylist()
        size = int(lengths[0]) if len(lengths) else 0
    numbers = values.flatten().to_numpy(zero_copy_only=False)  # null is NaN, which is refused
    return numbers.reshape(len(values), size)


@dataclass(frozen=True)
class GivenVectors:
    """Token vectors that the caller made, and where they are.

    Attributes:
        source: one matrix for each document in order, float (tokens, dim), of unit length: arrays, tensors or nested
            lists; or the name of the field of the documents that has them.
        dim: length of a token vector.
    """

    source: Sequence[Any] | str
    dim: int

    @property
    def field(self) -> str | None:
        """Name of the field of the documents that has them; None if they come in order."""
        return self.source if isinstance(self.source, str) else None

    @property
    def count(self) -> int | None:
        """Number of matrices; None if they are in a field."""
        return None if isinstance(self.source, str) else len(self.source)

    def take(self, position: int, place: str, record: Any) -> tuple[Any, Any]:
        """Part a record and its vectors.

        Args:
            position: position of the document, from 0.
            place: where the document was read, for error messages.
            record: the record.

        Returns:
            The record without the field of the vectors, and the vectors as they are there.

        Raises:
            SourceError: there are fewer matrices than documents.
            InputError: the record does not have the field.
        """
        if not isinstance(self.source, str):
            if position >= len(self.source):
                raise SourceError(
                    f"there are more documents than matrices of vectors ({len(self.source)}); give one for each "
                    "document"
                )
            return record, self.source[position]
        if not isinstance(record, Mapping):
            return record, None
        if self.source not in record:
            raise InputError(
                f"{place}: no field {self.source!r} here (fields: {', '.join(map(str, record)) or 'none'}); add it, or "
                "name the field with the token vectors: --vectors, in Python vectors="
            )
        kind = type(record) if isinstance(record, dict) else dict
        return kind((name, value) for name, value in record.items() if name != self.source), record[self.source]

    def checked(self, matrix: Any, place: str, doc_id: str) -> np.ndarray:
        """The vectors of one document as they are indexed.

        Args:
            matrix: as `take` gave them.
            place: where the document was read, for error messages.
            doc_id: id of the document, for error messages.

        Returns:
            float32 (tokens, dim).

        Raises:
            InputError: they are missing or no numbers, or have another shape.
        """
        if matrix is None:
            raise InputError(f"{place}: document {doc_id!r} has no vectors; give them, or leave the document out")
        try:
            array = np.asarray(on_cpu(matrix), np.float32)
        except (TypeError, ValueError) as error:
            raise InputError(f"{place}: the vectors of {doc_id!r} are not an array of numbers ({error})") from None
        if array.ndim == 1 and not len(array):
            array = array.reshape(0, self.dim)  # an empty list
        if array.ndim != 2 or array.shape[1] != self.dim:
            raise InputError(
                f"{place}: the vectors of {doc_id!r} have shape {array.shape}, expected (tokens, {self.dim})"
            )
        return array


def on_cpu(matrix: Any) -> Any:
    """A tensor of torch as one that NumPy reads, which has no bfloat16; anything else as it is."""
    return matrix.detach().cpu().float() if hasattr(matrix, "detach") else matrix
