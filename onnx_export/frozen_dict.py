"""A dict that cannot be changed, for the fields of frozen dataclasses."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A dict that refuses every change. JSON, pickle, copies and `dataclasses.asdict` work as for a dict."""

    def __reduce__(self) -> tuple[type[FrozenDict[K, V]], tuple[dict[K, V]]]:
        return FrozenDict, (dict(self),)


def _refuse(_self: FrozenDict[Any, Any], *_args: Any, **_values: Any) -> NoReturn:
    raise TypeError("this mapping cannot be changed; make a copy with dict(...)")


for _name in ("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"):
    setattr(FrozenDict, _name, _refuse)
