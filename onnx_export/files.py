"""Files and folders that are complete or not there, and files read line by line.

Files and folders are written beside their place, flushed to the disk, then renamed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from .errors import InputError


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write a file to; renamed to ``path`` at the end, or removed after an error.

    Readers see the old file or the new one, never a part, also after a loss of power: the file and its folder are
    flushed to the disk before and after the rename.

    Args:
        path: where the file goes. Its folder must exist.

    Yields:
        A path in the same folder, which does not exist yet.

    Raises:
        OSError: the file cannot be written.
    """
    making = path.with_name(f".{path.name}.{secrets.token_hex(4)}.making")
    try:
        yield making
        _flush(making)
        os.replace(making, path)
        _flush(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            making.unlink()
        raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new, empty folder beside ``path``; takes the place of ``path`` at the end, or is removed after an error.

    A folder that is at ``path`` already stays until the new one is complete.

    Args:
        path: where the folder goes. The folder above it must exist.

    Yields:
        The new folder.

    Raises:
        OSError: the folder cannot be written.
    """
    number = secrets.token_hex(4)
    making, old = path.with_name(f".{path.name}.{number}.making"), path.with_name(f".{path.name}.{number}.old")
    making.mkdir()
    try:
        yield making
        for file in (*making.rglob("*"), making):
            _flush(file)
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(making, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
        _flush(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write ``content`` (a str as UTF-8) to ``path`` as `atomic_path` does."""
    with atomic_path(path) as making:
        making.write_bytes(content.encode() if isinstance(content, str) else content)


def check_output(path: Path) -> None:
    """Make sure that a file can be written, before work whose result goes there; it is left as it is.

    Raises:
        InputError: the file cannot be written.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        return  # a device or a pipe: opening it may wait
    try:
        if path.exists():
            with path.open("ab"):
                return
        with path.open("xb"):
            pass
        path.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def check_output_folder(path: Path) -> None:
    """Make sure that a folder can be made at ``path``, with those above it that do not exist; nothing is left there.

    Raises:
        InputError: it cannot be made.
    """
    above = path.absolute().parent
    while not above.exists() and above != above.parent:
        above = above.parent
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=above):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error


def write_output(path: Path, lines: Iterable[str]) -> None:
    r"""Write lines of text, each with "\n" at its end, to a file that the caller has named.

    A file takes the place of an older one only when it is complete; into a device or a pipe the lines are written.

    Raises:
        InputError: the file cannot be written.
    """
    ended = (f"{line}\n" for line in lines)
    try:
        if path.exists() and not path.is_file():
            with path.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(ended)
        else:
            with atomic_path(path) as making, making.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(ended)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written ({error.strerror or error}); choose another place")


def read_lines(path: Path) -> Iterator[str]:
    r"""The lines of a UTF-8 file, without their ends and without a byte order mark.

    Only "\n" and "\r\n" end a line. `str.splitlines` also divides at characters that ids and texts may hold, such as
    U+2028, U+0085 and U+000B; files that Python opens as text also at a lone "\r".

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for line in file:
            yield line.removesuffix("\n").removesuffix("\r")


def finished_lines(path: Path) -> list[str]:
    r"""The lines of a UTF-8 file up to its last "\n", without their ends; what follows was cut off while written.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    *lines, _ = path.read_bytes().split(b"\n")
    return [line.decode() for line in lines]


def _flush(path: Path) -> None:
    """Flush a file or a folder to the disk, where the system can."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder
        return
    # Windows flushes only files that are open for writing.
    opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
