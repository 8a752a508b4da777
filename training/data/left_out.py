"""What is left out of the data of a training, counted by reason and limited: never in silence, and never most of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import TrainingDataError

_NAMED = 3  # places of a reason that are named


@dataclass
class LeftOut:
    """A count of what is left out.

    Attributes:
        what: what it is, in the plural, such as "passages".
        total: number of all, with those that are left out.
        reasons: reason → number.
        places: reason → the first places, for people.
    """

    what: str
    total: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, place: str) -> None:
        """Count one."""
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        named = self.places.setdefault(reason, [])
        if len(named) < _NAMED:
            named.append(place)

    @property
    def count(self) -> int:
        """Number of those that are left out."""
        return sum(self.reasons.values())

    def check(self, limit: float) -> None:
        """Refuse data of which too much is left out.

        Args:
            limit: largest share, 0 to 1.

        Raises:
            TrainingDataError: more than that is left out; names reasons and places.
        """
        if self.count > limit * self.total:
            raise TrainingDataError(
                f"{self}; that is more than a share of {limit:g}: mend the data, or allow more (data.max_left_out, "
                "--max-left-out)"
            )

    def __str__(self) -> str:
        parts = [
            f"{count:,} {reason} ({', '.join(self.places[reason])}{', …' if count > _NAMED else ''})"
            for reason, count in self.reasons.items()
        ]
        return f"left out {self.count:,} of {self.total:,} {self.what}: {'; '.join(parts)}"
