"""Old import paths, kept until version 0.2: each folder's public names are now imported from `tansaku`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any


def moved_names(folder: str, names: str) -> Callable[[str], Any]:
    """Make a module's ``__getattr__`` that finds its old public names in `tansaku` and warns.

    Args:
        folder: full name of the module, such as ``tansaku.indexer``.
        names: the names, separated by spaces.
    """
    known = frozenset(names.split())

    def find(name: str) -> Any:
        if name not in known:
            raise AttributeError(f"module {folder!r} has no attribute {name!r}")
        # 3: the line of the caller, behind this function and the import system.
        warnings.warn(f"{folder}.{name} is now tansaku.{name}", DeprecationWarning, stacklevel=3)
        return getattr(import_module("tansaku"), name)

    return find
