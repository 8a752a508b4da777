"""What `recall` stands for at a corpus size."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tansaku.plugin.search.plan import make_plan


@pytest.mark.parametrize("recall", ["fast", "balanced"])
def test_more_is_looked_at_in_larger_corpora(recall):
    plans = [make_plan({"recall": recall}, 10, documents) for documents in (0, 10_000, 20_000, 140_000, 1_000_000)]
    assert plans[0] == plans[1]
    assert plans[-2] == plans[-1]  # nothing was measured beyond
    for smaller, larger in pairwise(plans[1:-1]):
        assert smaller.nprobe < larger.nprobe
        assert smaller.candidates < larger.candidates
        assert smaller.margin < larger.margin
    # Slower than the corpus: fourteen times as many documents, less than four times as many candidates.
    assert plans[-1].candidates < 4 * plans[1].candidates


def test_given_numbers_hold_at_every_size():
    plan = make_plan({"nprobe": 5, "candidates": 70}, 10, 1_000_000)
    assert (plan.nprobe, plan.candidates, plan.all_up_to) == (5, 70, 70)


def test_many_hits_need_many_candidates():
    assert make_plan({}, 1000, 1_000_000).candidates >= 16_000
