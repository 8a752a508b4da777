"""Which groups are trained on in which step, and by which rank."""

from __future__ import annotations

import numpy as np


def batch_of_step(
    step: int, *, groups: int, batch_size: int, seed: int, block: int = 1, rank: int = 0, ranks: int = 1
) -> np.ndarray:
    """Numbers of the groups of one step that belong to one rank: int64.

    All groups come once in an order of their own before any comes again, ``block`` neighbours always together; every
    rank takes its part of a step's batch, so that together they have all of it, each once. A pure function of its
    arguments: a run that was interrupted goes on with the groups it would have seen.
    """
    share = batch_size // ranks
    positions = step * batch_size + rank * share + np.arange(share)
    passes = positions // groups
    numbers = np.empty(len(positions), np.int64)
    for number in np.unique(passes):
        blocks = np.random.default_rng([seed, int(number)]).permutation(-(-groups // block))
        order = (blocks[:, None] * block + np.arange(block)).ravel()
        order = order[order < groups]
        of_pass = passes == number
        numbers[of_pass] = order[positions[of_pass] % groups]
    return numbers
