"""How far a request has come, so that one that ends at the deadline can be told where the time went."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Phase:
    """How far a request has come.

    Attributes:
        name: "body", "queue" or "work".
    """

    name: str = "body"


current_phase: ContextVar[Phase | None] = ContextVar("phase", default=None)
"""Of the request that is worked on."""


def entered(name: str) -> Callable[[], None]:
    """A function that notes that the current request has come to a phase."""
    phase = current_phase.get()

    def note() -> None:
        if phase is not None:
            phase.name = name

    return note
