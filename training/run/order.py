"""Which groups are trained on in which step, and by which rank."""

from __future__ import annotations

import numpy as np


def batch_of_step(
    step: int, *, groups: int, batch_size: int, seed: int, block: int = 1, rank: int = 0, ranks: int = 1
) -> np.ndarray:
    """The groups that one rank trains on in one step.

    All groups come once, in a random order, before any comes again; ``block`` neighbours stay together. The ranks
    divide the batch of a step. This is a pure function of its arguments, so a continued training sees the same groups.

    Args:
        step: number of the step, from 0.
        groups: number of groups.
        batch_size: number of groups of a step, over all ranks; a multiple of ``ranks``.
        seed: seed of the order.
        block: number of neighbouring groups that stay together.
        rank: number of the rank, from 0.
        ranks: number of ranks.

    Returns:
        Numbers of the groups, int64 (batch_size / ranks,).
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
