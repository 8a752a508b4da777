"""The options of a search, and what `recall` stands for at a corpus size."""

from __future__ import annotations

import dataclasses
import inspect
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tansaku import InputError, Searcher
from tansaku.plugin.search.calibration import LEVELS
from tansaku.plugin.search.plan import LEVELS_BY_NAME, SearchOptions, make_plan


@pytest.mark.parametrize("recall", ["fast", "balanced"])
def test_more_is_looked_at_in_larger_corpora(recall):
    sizes = (0, 10_000, 20_000, 140_000, 1_000_000)
    plans = [make_plan(SearchOptions(recall=recall), n_documents) for n_documents in sizes]
    assert plans[0] == plans[1]
    assert plans[-2] == plans[-1]  # nothing was measured beyond
    for smaller, larger in pairwise(plans[1:-1]):
        assert smaller.nprobe < larger.nprobe
        assert smaller.max_candidates < larger.max_candidates
        assert smaller.margin < larger.margin
    # Slower than the corpus: fourteen times as many documents, less than four times as many candidates.
    assert plans[-1].max_candidates < 4 * plans[1].max_candidates


def test_given_numbers_hold_at_every_size():
    plan = make_plan(SearchOptions(nprobe=5, candidates=70), 1_000_000)
    assert (plan.nprobe, plan.max_candidates, plan.score_all_up_to) == (5, 70, 70)


def test_many_hits_need_many_candidates():
    assert make_plan(SearchOptions(k=1000), 1_000_000).max_candidates >= 16_000


@pytest.mark.parametrize("method", ["search", "search_vectors", "search_many", "rank_vectors"])
def test_every_search_method_has_the_options_by_name_with_their_defaults(method):
    parameters = inspect.signature(getattr(Searcher, method)).parameters
    options = [(field.name, field.default, field.type) for field in dataclasses.fields(SearchOptions)]
    if method == "rank_vectors":  # which reads nothing of the hits
        options = [option for option in options if option[0] != "fields"]
    assert [(p.name, p.default, p.annotation) for p in parameters.values()][2 : 2 + len(options)] == options
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name, *_ in options if name != "k")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"recall": "all"}, r"unknown recall 'all'; use fast, balanced, exact or a number from 0\.9 to 1"),
        ({"recall": "0.95"}, "unknown recall '0.95'"),
        ({"recall": 0.89}, r"recall is 0\.89; use fast, balanced, exact or a number from 0\.9 to 1"),
        ({"recall": 1.01}, "recall is 1.01"),
        ({"recall": np.nan}, "recall is nan"),
        ({"recall": True}, "recall is True"),
        ({"recall": None}, "recall is None"),
        ({"recall": 0.95, "nprobe": 3}, "recall 0.95 is a promise that nprobe would overrule; give one of the two"),
        ({"recall": 1.0, "candidates": 3}, "recall 1.0 is a promise that candidates would overrule"),
        ({"recall": 0.95, "source": "text"}, "recall 0.95 is a promise for candidates from lists: leave out source"),
        ({"recall": 0.95, "source": "fused"}, "leave out source"),
        ({"source": "bm25"}, "unknown source 'bm25'; use lists, text or fused"),
        ({"k": 0}, "k is 0; it must be a whole number of 1 or more"),
        ({"k": "3"}, "k is '3'"),
        ({"nprobe": -1}, "nprobe is -1"),
        ({"candidates": 0.5}, "candidates is 0.5"),
        ({"bm25_weight": np.nan, "source": "text"}, "bm25_weight is nan"),
        ({"phrase_weight": -0.1}, "phrase_weight is -0.1"),
        ({"fields": "text"}, "fields is one string, 'text'; give a list of names"),
        ({"bm25_weight": 0.1}, "bm25_weight needs candidates from full text"),
        ({"nprob": 3}, "unknown search option 'nprob'; use k, recall, where, .* or "),
    ],
)
def test_options_are_checked_when_they_are_made(given, message):
    with pytest.raises(InputError, match=message):
        SearchOptions.of(given)


def test_options_cannot_be_changed_and_are_given_by_name():
    assert SearchOptions.of({"k": 3, "recall": "fast"}) == SearchOptions(k=3, recall="fast")
    with pytest.raises(dataclasses.FrozenInstanceError):
        SearchOptions().k = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        SearchOptions(3)  # type: ignore[misc]


@pytest.mark.parametrize("n_documents", [0, 10_000, 50_000, 1_000_000])
@pytest.mark.parametrize("routed", [False, True])
def test_fast_and_balanced_are_steps_of_the_ladder(n_documents, routed):
    for name, level in LEVELS_BY_NAME.items():
        named = make_plan(SearchOptions.of({"recall": name}), n_documents, routed=routed)
        assert make_plan(SearchOptions(recall=0.9), n_documents, routed=routed, level=level) == named
    assert set(LEVELS_BY_NAME.values()) < set(LEVELS)


@given(st.integers(0, 10**7), st.booleans(), st.booleans(), st.integers(1, 1000))
def test_a_higher_step_never_looks_at_less(n_documents, outgrown, routed, k):
    options = SearchOptions(k=k, recall=0.9)
    plans = [make_plan(options, n_documents, outgrown=outgrown, routed=routed, level=level) for level in LEVELS]
    for lower, higher in pairwise(plans):
        assert lower.nprobe < higher.nprobe
        assert lower.max_candidates < higher.max_candidates
        assert lower.margin < higher.margin
    assert plans[0].depth >= 10
    assert make_plan(options, n_documents, level=None).score_all_up_to is None


def test_an_outgrown_index_is_looked_at_more_closely_unless_an_option_says_how_much():
    for n_documents in (4_000, 1_000_000):
        usual, more = (make_plan(SearchOptions(), n_documents, outgrown=outgrown) for outgrown in (False, True))
        assert usual.score_all_up_to == 512
        assert more.score_all_up_to == 100_000
        assert more.nprobe == 16 * usual.nprobe
        assert more.max_candidates == 16 * usual.max_candidates
    given = SearchOptions(nprobe=5, candidates=70)
    assert make_plan(given, 4_000, outgrown=True) == make_plan(given, 4_000)
