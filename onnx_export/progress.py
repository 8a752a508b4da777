"""How long-running work reports its progress: one call signature for indexing, evaluation and training."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A function that long-running work calls from time to time, in its own thread.

    Example:
        >>> def show(stage: str, done: int, total: int, tokens: int) -> None:
        ...     print(f"{stage}: {done} of {total or '?'}")
    """

    def __call__(self, stage: str, done: int, total: int, tokens: int, /) -> None:
        """Report progress.

        Args:
            stage: name of the stage, such as "read", "sample", "encode", "commit", "mine", "train". In "read bytes" and
                "types bytes" the items are bytes of the files that are read.
            done: number of items of the stage that are done.
            total: number of items of the stage; 0 if that is not known yet.
            tokens: number of token vectors of the items done; 0 for stages without token vectors.
        """
        ...


def no_progress(stage: str, done: int, total: int, tokens: int, /) -> None:
    """A `Progress` that shows nothing."""
