"""What surrounds a process: its cache folder, and a user without rights or a home folder to run it as."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

# Compiled loops outlive the tests here: compiling takes 20 seconds, and each worker would do it for itself.
CACHE = Path(__file__).parents[2] / "build" / "cache"
COMPILED = CACHE / "loops"
NOBODY = 54321  # a user that no machine knows
# For a Python in a home folder that is closed to others: of the folder $0 there is only $1, and others may enter it.
ONLY = (
    'mount --make-rprivate / && mount --bind "$1" /mnt && mount -t tmpfs -o mode=755 tmpfs "$0" && mkdir -p "$1" '
    '&& mount --bind /mnt "$1" && shift && exec "$@"'
)


def use_cache(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """A cache folder of its own for tests and the commands they run, with the loops that are compiled already."""
    COMPILED.mkdir(parents=True, exist_ok=True)
    (folder / "loops").symlink_to(COMPILED)
    patch.setenv("TANSAKU_CACHE_DIR", str(folder))


def bare_environment(**added: str) -> dict[str, str]:
    """Environment variables without HOME and without anything that names a folder to write to."""
    kept = (
        "PATH",
        "PYTHONPATH",
        "LANG",
        "LC_ALL",
        "LD_LIBRARY_PATH",
        "COVERAGE_PROCESS_START",
        "COVERAGE_PROCESS_CONFIG",
    )
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONDONTWRITEBYTECODE": "1"} | added


@cache
def as_nobody() -> tuple[str, ...]:
    """What to put before a command so that it runs as a user without rights and without an entry in /etc/passwd.

    Such a user can write neither to the installed packages nor to a home folder. Skips the test where there is none.
    """
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0 or setpriv is None:
        pytest.skip("only root can run a process as another user, with setpriv")
    user = (setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    opened = ("unshare", "-m", "sh", "-c", ONLY, str(Path.home()), sys.base_prefix)
    said = b""
    for prefix in (user, (*opened, *user)):
        tried = subprocess.run([*prefix, sys.executable, "-c", "import tansaku"], capture_output=True, check=False)
        if not tried.returncode:
            return prefix
        said = tried.stderr
    pytest.skip(f"another user cannot run this Python here: {said.decode()[-200:]}")
