"""MaxSim on the scales that callers want."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from ...onnx_export.errors import InputError

ScoreMode = Literal["mean", "raw", "logit"]

_NEAREST_TO_ONE = 1 - 1e-6


def check_mode(mode: ScoreMode) -> ScoreMode:
    """``mode``, if there is one of that name; raises InputError if not."""
    if mode not in get_args(ScoreMode):
        raise InputError(f"unknown score {mode!r}; use mean, raw or logit")
    return mode


def as_mode(maxsim: np.ndarray, query_tokens: int, mode: ScoreMode) -> np.ndarray:
    """MaxSim sums of a query with so many tokens, on another scale; float64, in the same order.

    Args:
        maxsim: float (documents,).
        query_tokens: of the query.
        mode: "raw", the sums; "mean", divided by the number of query tokens, a mean cosine; or "logit", the mean's
            log-odds, for callers that put a sigmoid on top.
    """
    if mode == "raw":
        return maxsim
    mean = maxsim / query_tokens
    if mode == "mean":
        return mean
    inside = np.clip(mean, 1 - _NEAREST_TO_ONE, _NEAREST_TO_ONE)
    return np.log(inside / (1 - inside))
