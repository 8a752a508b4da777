"""Which groups are trained on in which step, and by which rank."""

from __future__ import annotations

import numpy as np


def batch_of_step(step: int, *, groups: int, batch_size: int, seed: int, rank: int = 0, ranks: int = 1) -> np.ndarray:
    """Numbers of the groups of one step that belong to one rank: int64.

    All groups come once in an order of their own before any comes again; every rank takes every ranks-th of a step's
    batch, so that together they have all of it, each once. A pure function of its arguments: a run that was interrupted
    goes on with the groups it would have seen.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)[rank::ranks]
    passes = positions // groups
    numbers = np.empty(len(positions), np.int64)
    for number in np.unique(passes):
        order = np.random.default_rng([seed, int(number)]).permutation(groups)
        of_pass = passes == number
        numbers[of_pass] = order[positions[of_pass] % groups]
    return numbers
