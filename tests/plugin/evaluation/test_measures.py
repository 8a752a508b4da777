"""Measures of runs, checked by hand."""

from __future__ import annotations

import math

import pytest

from tansaku.plugin.evaluation.measures import measure


def test_measures_equal_hand_computed_values():
    qrels = {"a": {"x": 1}, "b": {"y": 1}, "c": {"z": 1}}
    run = {"a": {"x": 3.0, "y": 2.0}, "b": {"x": 3.0, "w": 2.5, "y": 2.0}}  # c found nothing
    values = measure(run, qrels)
    assert values["hit@1"] == pytest.approx(1 / 3)
    assert values["hit@3"] == values["hit@10"] == pytest.approx(2 / 3)
    assert values["mrr@10"] == pytest.approx((1 + 1 / 3) / 3)
    assert values["ndcg@10"] == pytest.approx((1 + 1 / math.log2(4)) / 3)
