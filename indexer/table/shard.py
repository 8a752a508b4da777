"""`Shard`: which rows of a table one of several servers searches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...onnx_export.errors import InputError

# Ids ascend in the order of writing. A block is small enough that the shards of a small table have about as many rows
# each, and large enough that a document's passages, which are written one after the other, are mostly together.
_BLOCK = 1024


@dataclass(frozen=True)
class Shard:
    """One of several parts of a table, by the ids of its rows.

    A row's shard never changes, because its id does not: neither when others are written, nor when files are merged.

    Attributes:
        number: number of the shard, from 0.
        count: number of shards.

    Raises:
        InputError: a number that is not one of ``count``.
    """

    number: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.count:
            raise InputError(f"there is no shard {self.number} of {self.count}; shards have numbers from 0")

    def __str__(self) -> str:
        return f"{self.number}-of-{self.count}"

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole table."""
        return self.count == 1

    def holds(self, row_ids: np.ndarray) -> np.ndarray:
        """Which rows are in the shard: bool (rows,).

        Args:
            row_ids: LanceDB's row ids, uint64 (rows,).
        """
        return row_ids // _BLOCK % self.count == self.number


WHOLE = Shard()
