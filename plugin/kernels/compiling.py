"""How the loops are compiled: when they are first called. The machine code is kept on disk for later processes.

It is kept in a pickle, so whoever can write the file can run code here. numba's own cache takes such files from any
folder that ``NUMBA_CACHE_DIR`` or ``XDG_CACHE_HOME`` names, and where it finds no folder to write to, it lets no module
be imported. This one looks for its folder when a loop is compiled, and uses it only if no other user may write there.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from ...onnx_export.cache_folder import CACHE_VARIABLE, cache_folder, make_private
from ...onnx_export.files import write_atomically

_logger = logging.getLogger(__name__)

# Loops run without Python's global lock.
_jit: Callable[..., Any] = numba.njit(nogil=True, error_model="numpy")


def compiled(function: Callable[..., Any]) -> Any:
    """A loop that is compiled at its first call, or loaded from the disk if an earlier process has kept it."""
    loop = _jit(function)
    loop._cache = _KeptLoop(function.__qualname__)
    return loop


def compiled_for(*constants: int) -> Callable[[Callable[..., Any]], Any]:
    """`compiled`, for a loop that is compiled once for each value of the ``constants`` in its code.

    The constants become a part of its name, which tells kept loops apart.
    """

    def named(function: Callable[..., Any]) -> Any:
        function.__qualname__ = "_".join(map(str, (function.__name__, *constants)))
        return compiled(function)

    return named


class _KeptLoop(NullCache):
    """What numba asks before it compiles a loop for certain types, and tells afterwards."""

    def __init__(self, name: str) -> None:
        self._name = name

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled loop for the types ``sig``; None if it is not kept, or not by the same versions and sources."""
        file = self._file(sig, target_context.codegen())
        try:
            content = b"" if file is None else file.read_bytes()
        except OSError:
            content = b""
        stamp, kept = content[:32], content[32:]
        if stamp != _stamp(kept):
            _say_once()
            return None
        target_context.refresh()
        return CompileResult._rebuild(target_context, *pickle.loads(kept))  # noqa: S301  a folder of this user alone

    def save_overload(self, sig: Any, cres: Any) -> None:
        """Keep a loop that has just been compiled; without room on the disk it is compiled again next time."""
        file = self._file(sig, cres.codegen)
        if file is None or cres.library.has_dynamic_globals:
            return
        kept = dumps(cres._reduce())
        try:
            write_atomically(file, _stamp(kept) + kept)
        except OSError as error:
            _warn(str(error))

    def _file(self, sig: Any, codegen: Any) -> Path | None:
        """Where the loop is kept: one file for each list of types, each processor, and each version of Python."""
        folder = _folder(_user())
        key = repr((str(sig), codegen.magic_tuple(), sys.implementation.cache_tag))
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return None if folder is None else folder / f"{self._name}-{digest}.loop"


@cache
def _say_once() -> None:
    _logger.info("compiling the search loops: once on this machine, which takes some seconds")


@cache
def _folder(_user: int) -> Path | None:
    folder = cache_folder()
    if folder is None:
        _warn("there is no home folder")
        return None
    try:
        return make_private(folder / "loops")
    except OSError as error:
        _warn(str(error))
        return None


def _user() -> int:
    """The user that this process acts for, which a server may change when it has started."""
    return os.geteuid() if hasattr(os, "geteuid") else 0


def _warn(reason: str) -> None:
    warnings.warn(
        f"compiled search loops are not kept ({reason}), and each process compiles them anew; set "
        f"{CACHE_VARIABLE} to a folder that only this user may write to",
        stacklevel=2,
    )


@cache
def _sources() -> bytes:
    """What the machine code depends on besides the types: the loops' sources, and the compiler."""
    versions = f"{numba.__version__} {llvmlite.__version__} {sys.version}".encode()
    return b"".join([versions, *(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))])


def _stamp(kept: bytes) -> bytes:
    """Checksum of a kept loop and of what it was made from, 32 bytes."""
    return hashlib.sha256(_sources() + kept).digest()
