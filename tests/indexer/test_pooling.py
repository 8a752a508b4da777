"""Token pooling against sentence-transformers' own, cases by hand, and what holds for all vectors."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

from tansaku import Index, InputError, MissingExtraError
from tansaku.indexer.codec.pooling import pool_tokens

from ..support.fakes import FakeEncoder, corpus

deterministic = settings(deadline=None, derandomize=True, max_examples=60)

START = [0.0, 0.0, 1.0]


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def random_vectors(n, dim=16, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(n, dim)))


def around(*degrees):
    """The start token's vector, and one at each of these angles in the plane across it."""
    angles = np.radians(degrees)
    rest = np.stack([np.cos(angles), np.sin(angles), np.zeros(len(degrees))], axis=1)
    return np.concatenate([[START], rest]).astype(np.float32)


def lexically_sorted(vectors):
    return vectors[np.lexsort(np.round(vectors, 4).T)]


@st.composite
def documents(draw):
    """Vectors with directions in common, some of them the same, and a factor."""
    n, dim, n_directions = draw(st.integers(1, 40)), draw(st.integers(2, 12)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    directions = rng.normal(size=(n_directions, dim))
    noise = draw(st.sampled_from([0.0, 0.1, 1.0])) * rng.normal(size=(n, dim))
    return unit(directions[rng.integers(n_directions, size=n)] + noise), draw(st.integers(2, 9))


class TestByHand:
    def test_the_nearest_become_their_mean_direction(self):
        # Five vectors behind the start token, factor 2: two clusters.
        pooled = pool_tokens(around(0, 100, 20, 80, 90), 2)
        np.testing.assert_allclose(pooled, around(10, 90), atol=1e-6)

    def test_a_cluster_comes_where_its_first_vector_was(self):
        pooled = pool_tokens(around(90, 0, 94, 4, 180, 184), 2)
        np.testing.assert_allclose(pooled, around(92, 2, 182), atol=1e-6)

    def test_means_weigh_every_vector_alike(self):
        pooled = pool_tokens(around(0, 0, 30), 3)
        np.testing.assert_allclose(pooled[1], unit(2 * around(0)[1:] + around(30)[1:])[0], atol=1e-6)

    def test_opposite_vectors_leave_the_first(self):
        np.testing.assert_array_equal(pool_tokens(around(70, 250), 2), around(70))

    def test_the_start_vector_is_kept_though_another_is_the_same(self):
        vectors = np.array([START, START, [1, 0, 0], [1, 0, 0]], np.float32)
        np.testing.assert_array_equal(pool_tokens(vectors, 2)[0], np.array(START, np.float32))
        assert len(pool_tokens(vectors, 2)) == 2

    @pytest.mark.parametrize(
        ("n", "factor", "left"), [(1, 2, 1), (2, 5, 2), (3, 2, 2), (7, 2, 4), (8, 2, 4), (9, 99, 2)]
    )
    def test_count(self, n, factor, left):
        assert len(pool_tokens(random_vectors(n), factor)) == left


class TestAsSentenceTransformersPools:
    @pytest.mark.parametrize("factor", [2, 3, 4, 6])
    @pytest.mark.parametrize(("n", "dim"), [(2, 8), (5, 8), (60, 32), (301, 128)])
    def test_the_same_vectors_in_another_order(self, n, dim, factor):
        vectors = random_vectors(n, dim, seed=n)
        theirs = HierarchicalTokenPooling(factor).pool_one(torch.from_numpy(vectors)).numpy()
        ours = pool_tokens(vectors, factor)
        np.testing.assert_allclose(ours[0], theirs[0], atol=1e-6)
        np.testing.assert_allclose(lexically_sorted(ours[1:]), lexically_sorted(theirs[1:]), atol=1e-5)


class TestAlways:
    @deterministic
    @given(documents())
    def test_unit_float32_rows_no_more_than_asked_for(self, case):
        vectors, factor = case
        pooled = pool_tokens(vectors, factor)
        assert pooled.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(pooled, axis=1), 1, atol=1e-5)
        assert 1 <= len(pooled) <= 1 + max(1, (len(vectors) - 1) // factor)
        np.testing.assert_array_equal(pooled[0], vectors[0])

    @deterministic
    @given(st.integers(2, 60), st.integers(2, 9), st.integers(0, 2**32 - 1))
    def test_as_many_as_asked_for_where_no_distances_tie(self, n, factor, seed):
        assert len(pool_tokens(random_vectors(n, seed=seed), factor)) == 1 + max(1, (n - 1) // factor)

    @deterministic
    @given(st.integers(2, 60), st.integers(2, 9), st.integers(0, 2**32 - 1))
    def test_the_order_of_the_tokens_decides_the_order_alone(self, n, factor, seed):
        vectors = random_vectors(n, seed=seed)
        shuffled = np.concatenate([vectors[:1], np.random.default_rng(seed).permutation(vectors[1:])])
        ours, again = (lexically_sorted(pool_tokens(v, factor)) for v in (vectors, shuffled))
        np.testing.assert_allclose(ours, again, atol=1e-5)

    @deterministic
    @given(documents())
    def test_the_input_stays_as_it_is_and_the_result_is_the_same_again(self, case):
        vectors, factor = case
        before = vectors.copy()
        first = pool_tokens(vectors, factor)
        np.testing.assert_array_equal(vectors, before)
        np.testing.assert_array_equal(pool_tokens(vectors, factor), first)

    @pytest.mark.parametrize("n", [0, 1, 2])
    def test_so_few_that_there_is_nothing_to_pool(self, n):
        np.testing.assert_array_equal(pool_tokens(random_vectors(n), 4), random_vectors(n))


class TestArguments:
    def test_factor_one_pools_nothing_and_needs_no_scipy(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "scipy.cluster", None)
        vectors = random_vectors(9)
        assert pool_tokens(vectors, 1) is vectors

    @pytest.mark.parametrize("factor", [0, -2])
    def test_a_factor_below_one_is_refused(self, factor):
        with pytest.raises(InputError, match=f"pooling factor is {factor}; it must be 1 or more"):
            pool_tokens(random_vectors(9), factor)

    @pytest.mark.parametrize("how", ["create", "add", "rebuild"])
    def test_a_missing_scipy_is_noticed_before_anything_is_staged(self, tmp_path, monkeypatch, how):
        db, encoder = tmp_path / "db", FakeEncoder()
        if how != "create":
            Index.create(db, "t", corpus(5), encoder=FakeEncoder(), pool=2)
        writes = {
            "create": lambda: Index.create(db, "t", corpus(5), encoder=encoder, pool=2),
            "add": lambda: Index.open(db, "t", encoder=encoder).add(corpus(2, "n")),
            "rebuild": lambda: Index.open(db, "t", encoder=encoder).rebuild(),
        }
        monkeypatch.setitem(sys.modules, "scipy", None)
        with pytest.raises(MissingExtraError, match=r"scipy: pip install 'tansaku\[pooling\]'"):
            writes[how]()
        assert not encoder.encoded
        assert not (db / "t.tansaku").exists()

    def test_a_missing_scipy_is_named_with_the_extra_that_brings_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "scipy.cluster", None)
        with pytest.raises(MissingExtraError, match=r"scipy: pip install 'tansaku\[pooling\]'"):
            pool_tokens(random_vectors(9), 2)
