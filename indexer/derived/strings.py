"""Many strings in two plain arrays, which can be memory-mapped."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Strings:
    """Strings, one after the other.

    Attributes:
        text: uint8 (bytes,): all of them in UTF-8.
        offsets: int64 (strings + 1,): where each begins.
    """

    text: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def of(cls, values: pa.ChunkedArray) -> Strings:
        """Strings of Arrow, none of which is null."""
        array = pa.concat_arrays([pa.array([], pa.large_string()), *values.cast(pa.large_string()).chunks])
        _, offsets, text = array.buffers()
        numbers = np.zeros(1, np.int64) if not len(array) else np.frombuffer(offsets, np.int64)[: len(array) + 1]
        content = np.empty(0, np.uint8) if text is None else np.frombuffer(text, np.uint8)[: numbers[-1]]
        return cls(content, numbers)

    def take(self, positions: np.ndarray) -> list[str]:
        """The strings at ``positions``, integers, in their order. For some strings this is quicker than Arrow."""
        starts, ends = self.offsets[positions].tolist(), self.offsets[positions + 1].tolist()
        text = self.text.data
        return [str(text[start:end], "utf-8") for start, end in zip(starts, ends, strict=True)]

    @cached_property
    def array(self) -> pa.Array:
        """The same strings for Arrow, without a copy."""
        buffers = [None, pa.py_buffer(self.offsets), pa.py_buffer(self.text)]
        return pa.Array.from_buffers(pa.large_string(), len(self), buffers)
