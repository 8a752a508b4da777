"""How long work tells what is done: one call signature for export, indexing, evaluation and training."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A function that long work calls as it goes on, from the thread that it runs in.

    Example:
        >>> def show(stage: str, done: int, total: int, tokens: int) -> None:
        ...     print(f"{stage}: {done} of {total or '?'}")
    """

    def __call__(self, stage: str, done: int, total: int, tokens: int, /) -> None:
        """Take note of what is done.

        Args:
            stage: name of the stage, such as "read", "sample", "encode", "commit", "mine", "train".
            done: how many items of the stage are done.
            total: how many items the stage has; 0 if that is not known yet.
            tokens: how many token vectors those were; 0 where the stage has none.
        """
        ...


def no_progress(stage: str, done: int, total: int, tokens: int, /) -> None:
    """A `Progress` that shows nothing."""
