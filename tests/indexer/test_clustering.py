"""Centroids in two levels, against plain searches through all of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tansaku.indexer.codec import clustering
from tansaku.indexer.codec.clustering import cluster, nearest

deterministic = settings(deadline=None, derandomize=True, max_examples=60)


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def directions(n, dim=16, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(n, dim)))


def bundled(n, dim=32, n_directions=200, seed=0):
    """Vectors around directions of which few are frequent, as tokens are."""
    rng = np.random.default_rng(seed)
    chosen = np.minimum(rng.zipf(1.3, n) - 1, n_directions - 1)
    return unit(directions(n_directions, dim, seed)[chosen] + rng.normal(scale=0.08, size=(n, dim)))


def grouped(n_centroids, sizes, dim=16, seed=0):
    """Centroids nobody clustered, in groups of these sizes."""
    groups = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    assert groups[-1] == n_centroids
    return directions(n_centroids, dim, seed), groups


def assert_is_clustering(centroids, groups, n_centroids, dim):
    """Just ``n_centroids`` of them, of unit length, each in one group, and no group empty."""
    assert centroids.shape == (n_centroids, dim)
    assert centroids.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    assert groups.dtype == np.int32
    assert (groups[0], groups[-1]) == (0, n_centroids)
    assert (np.diff(groups) > 0).all()


class TestCluster:
    @pytest.mark.parametrize(("n", "n_centroids"), [(2000, 1), (2000, 7), (2000, 256), (2000, 257), (5000, 600)])
    def test_makes_as_many_centroids_as_asked_for_in_groups_that_are_not_empty(self, n, n_centroids):
        centroids, groups = cluster(bundled(n), n_centroids, 0)
        assert_is_clustering(centroids, groups, n_centroids, 32)

    def test_few_centroids_are_one_group_and_many_about_as_many_as_a_group_has(self):
        vectors = bundled(6000)
        assert cluster(vectors, 256, 0)[1].tolist() == [0, 256]
        assert 8 < len(cluster(vectors, 1024, 0)[1]) - 1 <= 32

    @pytest.mark.parametrize("n_centroids", [40, 400])
    def test_the_same_seed_gives_the_same_and_another_others(self, n_centroids):
        vectors = bundled(3000)
        first, second, other = (cluster(vectors, n_centroids, seed) for seed in (5, 5, 6))
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])
        assert not np.array_equal(first[0], other[0])

    def test_does_not_change_the_vectors(self):
        vectors = bundled(1500)
        before = vectors.copy()
        cluster(vectors, 300, 0)
        np.testing.assert_array_equal(vectors, before)

    @pytest.mark.parametrize("n", [1, 2, 5, 255, 256, 257, 300])
    def test_fewer_vectors_than_centroids_give_a_centroid_each(self, n):
        vectors = directions(n)
        centroids, groups = cluster(vectors, 10_000, 0)
        assert_is_clustering(centroids, groups, n, 16)
        np.testing.assert_allclose((vectors @ centroids.T).max(axis=1), 1, atol=1e-5)

    @pytest.mark.parametrize("n_centroids", [1, 30, 300])
    def test_vectors_that_are_all_the_same_give_centroids_at_that_place(self, n_centroids):
        vectors = np.repeat(directions(1), 500, axis=0)
        centroids, groups = cluster(vectors, n_centroids, 0)
        assert_is_clustering(centroids, groups, n_centroids, 16)
        np.testing.assert_allclose(centroids @ vectors[0], 1, atol=1e-3)

    def test_a_few_repeated_vectors_are_all_found_again(self):
        few = directions(20, seed=3)
        vectors = few[np.random.default_rng(0).integers(20, size=2000)]
        centroids, groups = cluster(vectors, 400, 0)
        assert_is_clustering(centroids, groups, 400, 16)
        np.testing.assert_allclose((few @ centroids.T).max(axis=1), 1, atol=1e-4)

    def test_two_levels_lose_little_against_one(self, monkeypatch):
        vectors = bundled(8000)
        two = cluster(vectors, 512, 0)[0]
        monkeypatch.setattr(clustering, "_COMPARED_ONE_BY_ONE", 512)
        one = cluster(vectors, 512, 0)[0]
        fits = [float((vectors @ centroids.T).max(axis=1).mean()) for centroids in (two, one)]
        assert fits[0] > fits[1] - 0.01


class TestShares:
    @deterministic
    @given(st.lists(st.integers(0, 400), min_size=1, max_size=40).filter(any), st.floats(0, 1))
    def test_they_sum_to_the_total_and_no_group_gets_more_than_it_has(self, sizes, part):
        sizes = np.array(sizes)
        used = np.count_nonzero(sizes)
        total = used + int(part * (sizes.sum() - used))
        shares = clustering._shares(sizes, total)
        assert shares.sum() == total
        assert (shares <= sizes).all()
        assert ((shares > 0) == (sizes > 0)).all()

    def test_they_are_in_proportion(self):
        assert clustering._shares(np.array([100, 300, 0, 600]), 10).tolist() == [1, 3, 0, 6]
        assert clustering._shares(np.array([10, 10, 10]), 4).tolist() == [2, 1, 1]

    def test_many_small_groups_beside_a_large_one_do_not_make_them_more(self):
        assert clustering._shares(np.array([1] * 15 + [985]), 257).sum() == 257


class TestNearest:
    @pytest.mark.parametrize("sizes", [[40], [1, 39], [5] * 8, [1, 1, 1, 1, 1, 1, 1, 33]])
    def test_is_exact_among_up_to_eight_groups(self, sizes):
        centroids, groups = grouped(40, sizes)
        vectors = directions(200, seed=1)
        ids, best = nearest(vectors, centroids, groups)
        scores = vectors.astype(float) @ centroids.T.astype(float)
        assert ids.dtype == np.int64
        assert best.dtype == np.float32
        assert ids.tolist() == scores.argmax(axis=1).tolist()
        np.testing.assert_allclose(best, scores.max(axis=1), atol=1e-6)

    def test_is_the_best_of_the_eight_groups_whose_mean_directions_are_nearest(self):
        centroids, groups = grouped(120, [3, 7] * 12)
        vectors = directions(100, seed=2)
        ids, best = nearest(vectors, centroids, groups)
        heads = [centroids[s:e].sum(axis=0) for s, e in itertools.pairwise(groups)]
        for vector, chosen, score in zip(vectors, ids, best, strict=True):
            near = sorted(range(24), key=lambda g: -(vector @ heads[g]) / np.linalg.norm(heads[g]))[:8]
            members = [c for g in near for c in range(groups[g], groups[g + 1])]
            dots = {c: float(vector @ centroids[c]) for c in members}
            assert chosen in dots
            assert dots[chosen] == pytest.approx(max(dots.values()), abs=1e-6)
            assert score == pytest.approx(dots[chosen], abs=1e-6)

    def test_seldom_misses_the_nearest_of_many_clustered_groups_and_then_by_little(self):
        vectors = bundled(12_000)
        centroids, groups = cluster(vectors, 1024, 0)
        assert len(groups) - 1 > 16
        ids, best = nearest(vectors, centroids, groups)
        exact = (vectors @ centroids.T).max(axis=1)
        assert (best > exact - 1e-5).mean() > 0.97
        assert (exact - best).mean() < 0.002
        np.testing.assert_allclose(best, np.sum(vectors * centroids[ids], axis=1), atol=1e-5)

    def test_does_not_depend_on_how_vectors_fall_into_blocks(self, monkeypatch):
        centroids, groups = grouped(120, [3, 7] * 12)
        vectors = directions(23, seed=4)
        whole = nearest(vectors, centroids, groups)
        monkeypatch.setattr(clustering, "_VECTORS_PER_BLOCK", 5)
        ids, best = nearest(vectors, centroids, groups)
        assert ids.tolist() == whole[0].tolist()
        np.testing.assert_allclose(best, whole[1], atol=1e-6)

    def test_of_no_vectors_is_nothing(self):
        centroids, groups = grouped(40, [20, 20])
        ids, best = nearest(np.empty((0, 16), np.float32), centroids, groups)
        assert (ids.dtype, best.dtype) == (np.int64, np.float32)
        assert len(ids) == len(best) == 0

    def test_a_group_whose_centroids_cancel_out_is_found_all_the_same(self):
        centroids = np.array([[1, 0], [-1, 0], [0, 1]], np.float32)
        ids, best = nearest(np.array([[1, 0], [-1, 0]], np.float32), centroids, np.array([0, 2, 3], np.int32))
        assert ids.tolist() == [0, 1]
        assert best.tolist() == [1, 1]
