"""Files and folders of a database that are what they seem: not links to those of others, and no pipes or devices.

A database may come from elsewhere, or be shared. A link in it would have files elsewhere read, written or deleted, and
whoever opens a pipe waits for ever.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import IO

from .errors import StorageError

# On a link `open` then fails, and on a pipe it does not wait; Windows has neither.
_OPEN_PLAIN = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def check_plain(folder: Path, *, linked_files: bool = False, linked_folders: bool = False) -> None:
    """Check that a folder has files and folders only, itself and all below it; it may not exist.

    Args:
        folder: the folder.
        linked_files: links to files are allowed, for a folder in which nothing is written through them. A cache of
            downloads keeps its files so.
        linked_folders: links to folders are allowed, for a folder that is only read.

    Raises:
        StorageError: there is a link, a pipe, a socket or a device. The message names it.
    """
    try:
        _check_kind(folder, folder.lstat().st_mode, False, linked_folders)
    except (FileNotFoundError, NotADirectoryError):
        return
    unread = [str(folder)]
    while unread:
        # What others have just removed, or do not let be read, is for those to say who use it.
        with contextlib.suppress(OSError), os.scandir(unread.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    unread.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    _check_kind(
                        Path(entry.path), entry.stat(follow_symlinks=False).st_mode, linked_files, linked_folders
                    )


def open_plain(path: Path) -> IO[bytes]:
    """Open a file for reading.

    Raises:
        OSError: there is no such file; also, it is a link, a pipe, a socket or a device, which is not waited for.
    """
    opened = os.open(path, _OPEN_PLAIN)
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise OSError(f"{path} is no file")
        return os.fdopen(opened, "rb")
    except BaseException:
        os.close(opened)
        raise


def read_plain(path: Path) -> bytes:
    """The content of a file, opened by `open_plain`."""
    with open_plain(path) as file:
        return file.read()


def only_ours(status: os.stat_result) -> bool:
    """Whether no other user can change a file: it belongs to this user or to root, and others may not write to it."""
    if not hasattr(os, "geteuid"):  # on Windows the access lists of a user's own folders keep others out
        return True
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _check_kind(path: Path, mode: int, linked_files: bool, linked_folders: bool) -> None:
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return
    if not stat.S_ISLNK(mode):
        raise StorageError(f"{path}: a pipe, a socket or a device, where a database has files only; remove it")
    if not (linked_files and path.is_file()) and not (linked_folders and path.is_dir()):
        raise StorageError(
            f"{path}: a link, and links within a database are not followed, because they may lead to files of others; "
            "put what it leads to in its place, or remove it"
        )
