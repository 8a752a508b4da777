"""The residual codec against plain, slow readings of its documentation."""

from __future__ import annotations

import dataclasses

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tansaku import InputError, ResidualCodec
from tansaku.indexer.codec import codec

deterministic = settings(deadline=None, derandomize=True, max_examples=80)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def sample_vectors(n=1500, dim=16, seed=0):
    """Unit vectors around a dozen directions, with a skewed spread, as float32."""
    rng = np.random.default_rng(seed)
    directions = unit(rng.normal(size=(12, dim)))
    spread = rng.exponential(0.15, size=(n, dim)) * rng.choice([-1.0, 2.0], size=dim)
    return unit(directions[rng.integers(12, size=n)] + spread).astype(np.float32)


def handmade_codec(dim, nbits, n_centroids, seed=0, groups=None):
    """A codec nobody trained, with codewords that differ from byte to byte."""
    rng = np.random.default_rng(seed)
    centroids = unit(rng.normal(size=(n_centroids, dim))).astype(np.float16).astype(np.float32)
    codewords = rng.normal(scale=0.2, size=(dim * nbits // 8, 256, 8 // nbits)).astype(np.float16).astype(np.float32)
    groups = np.array([0, n_centroids] if groups is None else groups, np.int32)
    return ResidualCodec(centroids, groups, codewords)


def slow_codes(codec, vector, centroid_id):
    """For each byte of a residual the number of the nearest codeword."""
    residual = vector.astype(float) - codec.centroids[centroid_id]
    length = codec.dim // codec.residual_bytes
    codes = []
    for byte, words in enumerate(codec.codewords.astype(float)):
        piece = residual[byte * length : (byte + 1) * length]
        distances = [sum((x - y) ** 2 for x, y in zip(piece, word, strict=True)) for word in words]
        codes.append(min(range(256), key=distances.__getitem__))
    return codes


def slow_decode(codec, centroid_id, codes):
    """What a centroid id and the bytes of a residual stand for, in double precision."""
    residual = [float(x) for byte, code in enumerate(codes) for x in codec.codewords[byte][code]]
    total = [x + float(c) for x, c in zip(residual, codec.centroids[centroid_id], strict=True)]
    length = sum(x * x for x in total) ** 0.5
    return [x / length for x in total]


def round_trip(codec, vectors):
    return codec.decode(*codec.encode(vectors))


class TestShape:
    @pytest.mark.parametrize("nbits", [1, 2, 4])
    def test_dimensions_bits_and_bytes_follow_from_the_arrays(self, nbits):
        made = handmade_codec(dim=24, nbits=nbits, n_centroids=5)
        assert (made.dim, made.nbits, made.residual_bytes) == (24, nbits, 3 * nbits)
        assert made.stored_bytes == 2 * 5 * 24 + 2 * 256 * 24 + 4 * 2


class TestEncode:
    def test_picks_the_centroid_with_the_largest_dot_product(self):
        made = handmade_codec(dim=8, nbits=2, n_centroids=40, groups=[0, 1, 12, 20, 40])
        vectors = sample_vectors(n=60, dim=8)
        ids, _ = made.encode(vectors)
        for vector, chosen in zip(vectors, ids, strict=True):
            dots = [
                sum(float(a) * float(b) for a, b in zip(vector, centroid, strict=True)) for centroid in made.centroids
            ]
            assert dots[chosen] == pytest.approx(max(dots), abs=1e-6)

    def test_tells_how_near_the_centroid_is(self):
        made = handmade_codec(dim=8, nbits=2, n_centroids=40)
        vectors = sample_vectors(n=60, dim=8)
        ids, similarities = made.nearest(vectors)
        assert ids.dtype == made.id_dtype
        assert similarities.dtype == np.float32
        np.testing.assert_allclose(similarities, np.sum(vectors * made.centroids[ids], axis=1), atol=1e-6)

    def test_does_not_depend_on_the_vectors_beside(self):
        made = handmade_codec(dim=8, nbits=2, n_centroids=40, groups=range(0, 41, 2))
        vectors = sample_vectors(n=23, dim=8)
        one_by_one = [made.encode(vector[None]) for vector in vectors]
        ids, residuals = made.encode(vectors)
        assert ids.tolist() == [int(i[0]) for i, _ in one_by_one]
        assert residuals.tolist() == [r[0].tolist() for _, r in one_by_one]

    @pytest.mark.parametrize("nbits", [1, 2, 4])
    def test_the_bytes_of_a_residual_number_the_nearest_codewords(self, nbits):
        made = handmade_codec(dim=16, nbits=nbits, n_centroids=7)
        vectors = sample_vectors(n=25, dim=16)
        ids, residuals = made.encode(vectors)
        assert residuals.dtype == np.uint8
        assert residuals.shape == (25, made.residual_bytes) == (25, 16 * nbits // 8)
        assert residuals.tolist() == [slow_codes(made, v, i) for v, i in zip(vectors, ids, strict=True)]

    def test_takes_the_residual_from_the_centroid_it_is_told(self):
        made = handmade_codec(dim=16, nbits=2, n_centroids=7)
        vectors = sample_vectors(n=10, dim=16)
        ids = np.arange(10) % 7
        expected = [slow_codes(made, v, i) for v, i in zip(vectors, ids, strict=True)]
        assert made.quantize(vectors, ids).tolist() == expected

    def test_no_vectors_give_no_codes(self):
        made = handmade_codec(dim=16, nbits=2, n_centroids=3)
        ids, residuals = made.encode(np.empty((0, 16), np.float32))
        assert (ids.dtype, len(ids)) == (made.id_dtype, 0)
        assert residuals.shape == (0, 4)

    @pytest.mark.parametrize(("n_centroids", "dtype"), [(1 << 16, "<u2"), ((1 << 16) + 1, "<u4")])
    def test_ids_have_two_bytes_up_to_65536_centroids_and_four_beyond(self, n_centroids, dtype):
        made = handmade_codec(dim=8, nbits=1, n_centroids=n_centroids)
        last = made.centroids[-1:]
        ids, residuals = made.encode(last)
        assert made.id_dtype == ids.dtype == np.dtype(dtype)
        assert ids.tolist() == [n_centroids - 1]
        np.testing.assert_allclose(
            made.decode(ids, residuals)[0], slow_decode(made, n_centroids - 1, residuals[0]), atol=1e-6
        )


class TestDecode:
    @pytest.mark.parametrize("nbits", [1, 2, 4])
    def test_agrees_with_a_slow_reading_of_the_definition(self, nbits):
        made = handmade_codec(dim=16, nbits=nbits, n_centroids=9)
        rng = np.random.default_rng(1)
        ids = rng.integers(9, size=30).astype(made.id_dtype)
        residuals = rng.integers(256, size=(30, made.residual_bytes), dtype=np.uint8)
        expected = [slow_decode(made, i, codes) for i, codes in zip(ids, residuals, strict=True)]
        np.testing.assert_allclose(made.decode(ids, residuals), expected, atol=1e-6)

    @pytest.mark.parametrize("nbits", [1, 2, 4])
    def test_gives_float32_vectors_of_unit_length(self, nbits):
        vectors = sample_vectors()
        decoded = round_trip(ResidualCodec.train(vectors, nbits=nbits, n_centroids=16), vectors)
        assert decoded.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), 1, atol=1e-5)

    def test_of_no_codes_gives_no_vectors(self):
        made = handmade_codec(dim=16, nbits=2, n_centroids=3)
        decoded = made.decode(np.empty(0, made.id_dtype), np.empty((0, made.residual_bytes), np.uint8))
        assert decoded.shape == (0, 16)

    def test_leaves_the_codec_as_it_was(self):
        made = handmade_codec(dim=16, nbits=2, n_centroids=3)
        before = made.codewords.copy(), made.centroids.copy()
        round_trip(made, sample_vectors(n=20))
        np.testing.assert_array_equal(made.codewords, before[0])
        np.testing.assert_array_equal(made.centroids, before[1])

    def test_more_bits_come_nearer_to_the_vectors(self):
        vectors = sample_vectors()
        errors = [
            np.sum((vectors - round_trip(ResidualCodec.train(vectors, nbits=n, n_centroids=16), vectors)) ** 2)
            for n in (1, 2, 4)
        ]
        assert errors[0] > errors[1] > errors[2]


class TestTrain:
    @pytest.mark.parametrize("nbits", [1, 2, 4])
    def test_makes_what_was_asked_for(self, nbits):
        made = ResidualCodec.train(sample_vectors(dim=24), nbits=nbits, n_centroids=32)
        assert made.centroids.shape == (32, 24)
        assert made.groups.tolist() == [0, 32]
        assert made.codewords.shape == (3 * nbits, 256, 8 // nbits)
        assert (made.dim, made.nbits, made.residual_bytes) == (24, nbits, 3 * nbits)

    def test_many_centroids_come_in_groups(self):
        made = ResidualCodec.train(sample_vectors(n=3000), nbits=2, n_centroids=512)
        assert made.centroids.shape == (512, 16)
        assert len(made.groups) > 9
        assert (np.diff(made.groups) > 0).all()

    def test_numbers_survive_float16_and_centroids_have_unit_length(self):
        made = ResidualCodec.train(sample_vectors(), nbits=2, n_centroids=64)
        for numbers in (made.centroids, made.codewords):
            assert numbers.dtype == np.float32
            np.testing.assert_array_equal(numbers.astype(np.float16).astype(np.float32), numbers)
        np.testing.assert_allclose(np.linalg.norm(made.centroids, axis=1), 1, atol=1e-3)

    @pytest.mark.parametrize("nbits", [1, 2, 4])
    def test_codewords_beat_equal_mass_buckets_of_single_dimensions_on_skewed_residuals(self, nbits):
        vectors = sample_vectors(n=3000)
        made = ResidualCodec.train(vectors, nbits=nbits, n_centroids=1)
        residuals = vectors - made.centroids[0]

        codes = made.quantize(vectors, np.zeros(len(vectors), np.int64))
        words = made.codewords[np.arange(made.residual_bytes), codes].reshape(len(vectors), -1)
        ours = np.sum((residuals - words) ** 2)

        theirs = 0.0
        for column in residuals.T:
            parts = np.array_split(np.sort(column.astype(np.float64)), 1 << nbits)
            theirs += sum(np.sum((part - part.mean()) ** 2) for part in parts)
        assert ours < theirs

    @pytest.mark.parametrize("nbits", [1, 2, 4])
    def test_codewords_are_near_what_long_k_means_finds(self, nbits):
        vectors = sample_vectors(n=3000, dim=8)
        made = ResidualCodec.train(vectors, nbits=nbits, n_centroids=1)
        residuals = (vectors - made.centroids[0]).reshape(len(vectors), nbits, 8 // nbits)
        codes = made.quantize(vectors, np.zeros(len(vectors), np.int64))
        ours = np.sum((residuals - made.codewords[np.arange(nbits), codes]) ** 2)
        theirs = 0.0
        for byte in range(nbits):
            piece = np.ascontiguousarray(residuals[:, byte])
            kmeans = faiss.Kmeans(8 // nbits, 256, niter=40, seed=1, min_points_per_centroid=1)
            kmeans.train(piece)
            theirs += float(kmeans.index.search(piece, 1)[0].sum())
        assert ours < 1.25 * theirs

    @pytest.mark.parametrize("nbits", [1, 2, 4])
    def test_vectors_that_are_all_the_same_come_back(self, nbits):
        vectors = np.repeat(sample_vectors(n=1), 700, axis=0)
        made = ResidualCodec.train(vectors, nbits=nbits, n_centroids=8)
        np.testing.assert_allclose(round_trip(made, vectors), vectors, atol=2e-3)

    @pytest.mark.parametrize("n", [1, 5, 63])
    def test_fewer_vectors_than_centroids_give_a_centroid_each(self, n):
        vectors = sample_vectors(n=n)
        made = ResidualCodec.train(vectors, nbits=2, n_centroids=64)
        assert made.centroids.shape == (n, 16)
        np.testing.assert_allclose(round_trip(made, vectors), vectors, atol=2e-3)

    @pytest.mark.parametrize("n", [100, 255, 256, 257])
    def test_so_few_vectors_that_each_piece_has_a_codeword_come_back(self, n):
        vectors = sample_vectors(n=n)
        made = ResidualCodec.train(vectors, nbits=2, n_centroids=1)
        error = np.sum((round_trip(made, vectors) - vectors) ** 2, axis=1)
        assert (error < 1e-4).mean() > 0.98

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_numbers_that_are_not_finite_are_refused(self, value):
        vectors = sample_vectors(n=10)
        vectors[3, 5] = value
        with pytest.raises(InputError, match="not finite"):
            ResidualCodec.train(vectors, nbits=2, n_centroids=2)

    def test_takes_vectors_as_any_float_array(self):
        vectors = sample_vectors(n=200)
        expected = ResidualCodec.train(vectors, nbits=2, n_centroids=8)
        for same in (vectors.astype(np.float64), np.asfortranarray(vectors)):
            assert ResidualCodec.train(same, nbits=2, n_centroids=8).codec_id == expected.codec_id

    @pytest.mark.parametrize("nbits", [0, 3, 8, -1])
    def test_other_numbers_of_bits_are_refused(self, nbits):
        with pytest.raises(InputError, match=f"nbits is {nbits}; .* 1, 2, 4"):
            ResidualCodec.train(sample_vectors(n=10), nbits=nbits, n_centroids=2)

    def test_no_vectors_are_refused(self):
        with pytest.raises(InputError, match="at least one vector"):
            ResidualCodec.train(np.empty((0, 16), np.float32), nbits=2, n_centroids=2)

    @pytest.mark.parametrize(("dim", "nbits"), [(12, 1), (7, 2), (9, 4)])
    def test_dimensions_that_do_not_fill_bytes_are_refused(self, dim, nbits):
        with pytest.raises(InputError, match=f"{dim} dimensions at {nbits} bits"):
            ResidualCodec.train(sample_vectors(n=10, dim=dim), nbits=nbits, n_centroids=2)


class TestCodecId:
    def test_is_the_same_for_the_same_sample_and_seed(self):
        first, second = (ResidualCodec.train(sample_vectors(), nbits=2, n_centroids=32, seed=7) for _ in range(2))
        assert first.codec_id == second.codec_id
        assert len(first.codec_id) == 16
        assert int(first.codec_id, 16) >= 0

    def test_differs_between_samples_seeds_bits_and_numbers_of_centroids(self):
        usual = {"nbits": 2, "n_centroids": 32, "seed": 7}
        ids = {ResidualCodec.train(sample_vectors(seed=1), **usual).codec_id}
        for change in ({}, {"seed": 8}, {"nbits": 4}, {"n_centroids": 31}):
            ids.add(ResidualCodec.train(sample_vectors(), **{**usual, **change}).codec_id)
        assert len(ids) == 5

    @pytest.mark.parametrize("part", ["centroids", "groups", "codewords"])
    def test_changes_with_every_number(self, part):
        made = handmade_codec(dim=8, nbits=2, n_centroids=3)
        changed = getattr(made, part).copy()
        last = changed.reshape(-1)[-1]
        changed.reshape(-1)[-1] = last + 1 if part == "groups" else np.nextafter(last, np.float32(2))
        assert dataclasses.replace(made, **{part: changed}).codec_id != made.codec_id

    def test_changes_with_the_shape(self):
        made = handmade_codec(dim=8, nbits=2, n_centroids=4)
        assert dataclasses.replace(made, centroids=made.centroids.reshape(8, 4)).codec_id != made.codec_id


@deterministic
@given(st.integers(1, 10**12))
def test_default_centroids_is_the_largest_power_of_two_within_both_limits(n_tokens):
    count = codec.default_centroids(n_tokens)
    assert count & (count - 1) == 0
    assert count == 1 or (count**2 <= 256 * n_tokens and 64 * count <= n_tokens)
    assert (2 * count) ** 2 > 256 * n_tokens or 64 * 2 * count > n_tokens or count == codec.MOST_CENTROIDS


@deterministic
@given(st.integers(1, 10**12), st.integers(1, 10**7))
def test_each_centroid_gets_32_vectors_of_the_sample(n_tokens, n_sampled):
    count = codec.default_centroids(n_tokens, n_sampled)
    assert count == 1 or 32 * count <= n_sampled
    assert count == codec.default_centroids(n_tokens) or 64 * count > n_sampled


def test_growth_is_judged_by_the_rule_without_its_highest_number():
    assert codec.centroids_by_the_rule(10**9) == 8 * codec.MOST_CENTROIDS == 8 * codec.default_centroids(10**9)


class TestAdapted:
    OWN = sample_vectors(seed=1)
    BASE = codec.ResidualCodec.train(OWN, nbits=2, n_centroids=32)
    OTHERS = unit(sample_vectors(seed=2) @ np.linalg.qr(np.random.default_rng(3).normal(size=(16, 16)))[0]).astype(
        np.float32
    )

    def test_has_the_centroids_of_both(self):
        adapted = self.BASE.adapted(self.OTHERS, n_centroids=8)
        assert len(adapted.centroids) == 40
        assert np.array_equal(adapted.centroids[:32], self.BASE.centroids)
        assert (adapted.groups[0], adapted.groups[-1]) == (0, 40)
        codec.check_numbers(adapted)

    @staticmethod
    def mean_cosine(fitted, vectors):
        return (fitted.decode(*fitted.encode(vectors)) * vectors).sum(axis=1).mean()

    def test_fits_the_sample_better_and_its_own_kind_hardly_worse(self):
        adapted = self.BASE.adapted(self.OTHERS, n_centroids=8)
        assert self.mean_cosine(adapted, self.OTHERS) > self.mean_cosine(self.BASE, self.OTHERS)
        assert self.mean_cosine(adapted, self.OWN) > self.mean_cosine(self.BASE, self.OWN) - 0.005

    def test_to_one_vector(self):
        adapted = self.BASE.adapted(self.OTHERS[:1], n_centroids=4)
        assert len(adapted.centroids) == 33
        assert self.mean_cosine(adapted, self.OTHERS[:1]) > 0.99
        alone = ResidualCodec.train(self.OTHERS[:1], nbits=2, n_centroids=1)
        assert self.mean_cosine(adapted, self.OWN) > 0.95
        assert self.mean_cosine(alone, self.OWN) < 0.5

    def test_is_the_same_for_the_same_sample(self):
        assert self.BASE.adapted(self.OTHERS, n_centroids=8).codec_id == (
            self.BASE.adapted(self.OTHERS, n_centroids=8).codec_id
        )

    def test_numbers_that_are_not_finite_are_refused(self):
        with pytest.raises(InputError, match="not finite"):
            self.BASE.adapted(np.full((1, 16), np.nan, np.float32), n_centroids=1)
