"""The processes of a Ray cluster of this machine, found by a variable that all of them inherit."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from pathlib import Path

_VARIABLE = "TANSAKU_BENCHMARK_CLUSTER"


def mark() -> str:
    """Set the variable for what is started from now on; returns its value."""
    os.environ[_VARIABLE] = secrets.token_hex(8)
    return os.environ[_VARIABLE]


def marked(value: str, name: str) -> list[int]:
    """The processes with that value whose command line begins with ``name``."""
    wanted = f"{_VARIABLE}={value}".encode()

    def is_one(folder: Path) -> bool:
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            named = (folder / "cmdline").read_bytes().startswith(name.encode())
            return named and wanted in (folder / "environ").read_bytes().split(b"\0")
        return False

    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit() and is_one(folder)]


def peak_megabytes(pid: int) -> float:
    """The largest memory that a process has had; 0 if it has ended."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024
    return 0.0


class PeakMemory:
    """Watches the largest memory of each process; use as a context manager.

    Args:
        value: what `mark` returned.
        name: with what the command lines begin.

    Attributes:
        peaks: megabytes by process.
    """

    def __init__(self, value: str, name: str) -> None:
        self.peaks: dict[int, float] = {}
        self._value, self._name = value, name
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            for pid in marked(self._value, self._name):
                self.peaks[pid] = max(self.peaks.get(pid, 0.0), peak_megabytes(pid))
