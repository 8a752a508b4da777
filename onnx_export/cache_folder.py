"""The folder for what can be made again, such as compiled loops; and a check that no other user writes to a folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "TANSAKU_CACHE_DIR"


def cache_folder() -> Path | None:
    """The folder that ``TANSAKU_CACHE_DIR`` names, or else ``tansaku`` in the user's cache; nothing is made.

    Returns:
        Its full path; None if it has none, because the user has no home folder.
    """
    try:
        folder = Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("tansaku"))
        return folder.expanduser().absolute()
    except RuntimeError:  # "~" stands for nothing: platformdirs raises this, or leaves it in the path
        return None


def make_private(folder: Path) -> Path:
    """Make ``folder`` for this user alone, if it is missing, and check that no other user can put files there.

    What lies in a private folder was written by this user, or by root. On Windows nothing is checked: there the access
    lists of a user's own folders keep others out.

    Args:
        folder: its full path.

    Returns:
        The path that was checked: ``folder`` without symbolic links.

    Raises:
        PermissionError: the folder, one above it or a file in it belongs to another user, or others may write there.
        OSError: it cannot be made.
    """
    for path in (*reversed(folder.parents), folder):
        path.mkdir(mode=0o700, exist_ok=True)
    folder = folder.resolve()
    if hasattr(os, "geteuid"):
        _check_private(folder, os.geteuid(), os.getegid())
    return folder


def _check_private(folder: Path, user: int, group: int) -> None:
    for path in (*folder.parents, folder, *folder.iterdir()):
        found = path.lstat()
        if found.st_uid != user and (path == folder or found.st_uid != 0):
            raise PermissionError(f"{path} belongs to another user (number {found.st_uid})")
        others = stat.S_IWGRP | stat.S_IWOTH
        if path in folder.parents:
            if found.st_mode & stat.S_ISVTX:  # as in /tmp: nobody can replace what another user has made
                continue
            if found.st_gid == group == user:  # the group that many systems give each user, of that user alone
                others = stat.S_IWOTH
        if found.st_mode & others and stat.S_ISDIR(found.st_mode):
            raise PermissionError(f"other users may write to {path} (mode {stat.S_IMODE(found.st_mode):o})")
