"""How many processor cores this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Number of cores that this process may use, at least 1: those of its affinity mask, if the system has one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
