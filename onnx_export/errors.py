"""The errors that tansaku raises.

TansakuError                everything raised on purpose
├── InputError              a text, document, query or argument that cannot be used (also a ValueError)
├── BundleError             an encoder bundle that is missing, incomplete or altered
├── CheckpointError         a checkpoint that cannot be read or converted
└── MissingExtraError       an optional package is not installed (also an ImportError)

The indexer adds its own below TansakuError, in `tansaku.indexer.errors`.
"""

from __future__ import annotations


class TansakuError(Exception):
    """Base of all errors that tansaku raises on purpose; the message names the offender and the remedy."""


class InputError(TansakuError, ValueError):
    """A text, document, query or argument that cannot be used."""


class BundleError(TansakuError):
    """An encoder bundle that is missing, incomplete, altered or of an unknown format."""


class CheckpointError(TansakuError):
    """A model checkpoint that cannot be read or converted."""


class MissingExtraError(TansakuError, ImportError):
    """An optional package is not installed; the message names the extra that brings it.

    Args:
        package: name of the missing package.
        extra: name of the extra of tansaku that installs it.
    """

    def __init__(self, package: str, extra: str) -> None:
        self._given = package, extra
        super().__init__(f"this needs the package {package}: pip install 'tansaku[{extra}]'")

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return MissingExtraError, self._given  # it may come from another process
