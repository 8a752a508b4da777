"""The rows that conditions leave, kept for the next search with the same condition."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_MAX_SETS = 64
_MAX_BYTES = 1 << 26


@dataclass(frozen=True)
class RowSet:
    """Some rows of one version of an index.

    Attributes:
        mask: bool (rows,).
        count: Number of rows in the set.
    """

    mask: np.ndarray
    count: int

    @classmethod
    def of(cls, mask: np.ndarray) -> RowSet:
        """The rows of a mask."""
        return cls(mask, int(np.count_nonzero(mask)))


class RowSets:
    """The sets of the conditions used last, of one version of an index. Several threads may ask.

    Args:
        max_sets: Number of sets that are kept.
        max_bytes: Bytes of all of them, and of their conditions; the set used longest ago goes first.
    """

    def __init__(self, max_sets: int = _MAX_SETS, max_bytes: int = _MAX_BYTES) -> None:
        self._max_sets = max_sets
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, RowSet] = OrderedDict()
        self._bytes = 0

    def find(self, condition: str, read: Callable[[], RowSet]) -> RowSet:
        """The rows that meet a condition.

        Args:
            condition: SQL with all its values, which means the same at any time.
            read: Finds the rows, if they are not kept. Two threads that ask at the same moment may both call it.
        """
        with self._lock:
            found = self._kept.get(condition)
            if found is not None:
                self._kept.move_to_end(condition)
                return found
        found = read()
        size = _bytes_of(condition, found)
        with self._lock:
            if size <= self._max_bytes and condition not in self._kept:
                self._kept[condition] = found
                self._bytes += size
                while self._bytes > self._max_bytes or len(self._kept) > self._max_sets:
                    self._bytes -= _bytes_of(*self._kept.popitem(last=False))
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._kept)


def _bytes_of(condition: str, rows: RowSet) -> int:
    return sys.getsizeof(condition) + rows.mask.nbytes
