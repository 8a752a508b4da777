"""MaxSim on the scales that callers want."""

from __future__ import annotations

import numpy as np

from ...onnx_export.errors import InputError
from .choices import ScoreMode

_NEAREST_TO_ONE = 1 - 1e-6


def check_mode(mode: ScoreMode) -> ScoreMode:
    """``mode``, if it is one of `ScoreMode`; raises InputError if not."""
    if mode not in ("mean", "raw", "logit"):
        raise InputError(f"unknown score {mode!r}; use mean, raw or logit")
    return mode


def as_mode(maxsim: np.ndarray, query_tokens: int, mode: ScoreMode) -> np.ndarray:
    """Scores of one query on another scale.

    Args:
        maxsim: float (documents,), MaxSim sums.
        query_tokens: Number of the query's tokens.
        mode: The scale.

    Returns:
        float (documents,), in the same order.
    """
    if mode == "raw":
        return maxsim
    mean = maxsim / query_tokens
    if mode == "mean":
        return mean
    inside = np.clip(mean, 1 - _NEAREST_TO_ONE, _NEAREST_TO_ONE)
    return np.log(inside / (1 - inside))
