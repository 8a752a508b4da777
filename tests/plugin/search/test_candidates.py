from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tansaku.indexer.derived.postings import MAX_ROWS, InvertedLists
from tansaku.plugin.search.candidates import Gathered, prune

deterministic = settings(deadline=None, derandomize=True, max_examples=80)


def random_corpus(seed: int, n_documents: int, n_centroids: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 9, n_documents)
    return random.integers(0, n_centroids, lengths.sum()), np.concatenate([[0], np.cumsum(lengths)])


corpora = st.builds(random_corpus, st.integers(0, 10_000), st.integers(1, 30), st.just(12))


@deterministic
@given(corpora)
def test_inverted_lists_hold_each_document_once_per_centroid(corpus: tuple[np.ndarray, np.ndarray]):
    centroid_ids, offsets = corpus
    lists = InvertedLists.build(centroid_ids, offsets, 12)
    for centroid in range(12):
        expected = [d for d in range(len(offsets) - 1) if centroid in centroid_ids[offsets[d] : offsets[d + 1]]]
        assert lists.postings[lists.offsets[centroid] : lists.offsets[centroid + 1]].tolist() == expected
    assert lists.offsets.tolist()[0] == 0
    assert lists.offsets.tolist()[-1] == len(lists.postings)


@pytest.mark.parametrize("dtype", ["<u2", "<u4", "<i8"])
def test_inverted_lists_take_ids_of_any_width_and_have_narrow_numbers_themselves(dtype: str):
    centroid_ids = np.array([3, 0, 3, 3, 1], dtype)
    lists = InvertedLists.build(centroid_ids, np.array([0, 2, 5]), 5)
    assert lists.postings.dtype == np.uint16
    assert lists.offsets.dtype == np.uint32
    assert lists.offsets.tolist() == [0, 1, 2, 2, 4, 4]
    assert lists.postings.tolist() == [0, 1, 0, 1]


def test_the_last_document_and_centroid_of_the_largest_set_are_told_apart_from_the_first():
    last = MAX_ROWS - 1
    centroid_ids = np.zeros(MAX_ROWS, np.uint32)
    centroid_ids[last] = 70_000
    lists = InvertedLists.build(centroid_ids, np.arange(MAX_ROWS + 1), 70_001)
    assert lists.postings[: lists.offsets[1]].tolist() == list(range(last))
    assert lists.postings[lists.offsets[70_000] :].tolist() == [last]


def test_inverted_lists_of_no_documents_are_empty():
    lists = InvertedLists.build(np.empty(0, np.uint16), np.zeros(1, np.int64), 3)
    assert lists.offsets.tolist() == [0] * 4
    assert len(lists.postings) == 0


def pruned(
    totals: Sequence[int],
    limit: int,
    row_ids: Sequence[int] | np.ndarray | None = None,
    allowed: Sequence[bool] | None = None,
) -> list[int]:
    ids = np.array(range(len(totals)) if row_ids is None else row_ids, np.uint64)
    mask = np.ones(len(totals), bool) if allowed is None else np.array(allowed)
    gathered = Gathered(np.array(totals, np.int32), np.flatnonzero(totals)[::-1])
    return prune(gathered, mask, limit, ids).tolist()


def test_prune_keeps_the_best_best_first():
    assert pruned([1, 9, 4, 8], 2) == [1, 3]
    assert pruned([1, 9, 4, 8], 4) == [1, 3, 2, 0]
    assert pruned([1, 9, 4, 8], 9) == [1, 3, 2, 0]


def test_prune_passes_over_what_is_not_allowed():
    assert pruned([1, 9, 4, 8], 2, allowed=[True, False, True, True]) == [3, 2]
    assert pruned([1, 9], 2, allowed=[False, False]) == []


def test_documents_met_nowhere_fill_up():
    assert pruned([0, 0, 5, 0], 3) == [2, 0, 1]


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_prune_keeps_the_first_written_of_those_that_tie(limit: int):
    assert pruned([5, 5, 7, 5, 2], limit, [40, 10, 50, 30, 20]) == [2, 1, 3, 0][:limit]


@deterministic
@given(st.lists(st.sampled_from([0, 1, 2, 9, 2_000_000]), min_size=1, max_size=30), st.integers(1, 32))
def test_prune_equals_sorting_by_score_and_row(totals: list[int], limit: int):
    row_ids = np.random.default_rng(len(totals)).permutation(len(totals))
    ranked = sorted(range(len(totals)), key=lambda i: (-totals[i], row_ids[i]))[:limit]
    assert pruned(totals, limit, row_ids) == ranked
