"""How long a lock that another process holds is waited for."""

from __future__ import annotations

import math
import os

from ...onnx_export.errors import InputError

LOCK_VARIABLE = "TANSAKU_LOCK_SECONDS"
LOCK_MODE = 0o600  # whoever can open a lock file can hold the lock


def lock_seconds(default: float) -> float:
    """Number of seconds to wait for a lock: those of ``TANSAKU_LOCK_SECONDS``, or the default.

    Args:
        default: the seconds where the variable is not set.

    Raises:
        InputError: the variable is not a number from 0.
    """
    given = os.environ.get(LOCK_VARIABLE)
    if not given:
        return default
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(f"{LOCK_VARIABLE} is {given!r}; it must be a number of seconds, 0 or more")
    return seconds
