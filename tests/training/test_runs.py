"""Texts that go through the backbone together are of about one length."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tansaku import TokenizedText
from tansaku.training.model.student import runs_of


def texts(lengths):
    return [TokenizedText(np.zeros(n, np.int64), np.ones(n, np.int64), np.ones(n, bool), False) for n in lengths]


@given(st.lists(st.integers(1, 6_000), min_size=1, max_size=80))
def test_every_text_runs_once_within_bounds_and_beside_its_likes(lengths):
    runs = [[lengths[number] for number in run] for run in runs_of(texts(lengths))]
    assert sorted(length for run in runs for length in run) == sorted(lengths)
    for run in runs:
        assert len(run) == 1 or len(run) * max(run) <= 16_384
        before_last = (len(run) - 1) * sorted(run)[-2] if len(run) > 1 else 0
        assert before_last < 1_024 or max(run) <= 1.25 * min(run)


def test_a_few_short_texts_are_one_run():
    assert list(runs_of(texts([9, 30, 12]))) == [[0, 2, 1]]
    assert list(runs_of(texts([128] * 8 + [160, 161]))) == [[*range(9)], [9]]
