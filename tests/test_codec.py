"""The residual codec against plain, slow readings of its documentation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tansaku.indexer import ResidualCodec, codec
from tansaku.onnx_export import InputError

deterministic = settings(deadline=None, derandomize=True, max_examples=80)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def sample_vectors(n=1500, dim=16, seed=0):
    """Unit vectors around a dozen directions, with a skewed spread, as float32."""
    rng = np.random.default_rng(seed)
    directions = unit(rng.normal(size=(12, dim)))
    spread = rng.exponential(0.15, size=(n, dim)) * rng.choice([-1.0, 2.0], size=dim)
    return unit(directions[rng.integers(12, size=n)] + spread).astype(np.float32)


def handmade_codec(dim, nbits, n_centroids, seed=0):
    """A codec nobody trained, with levels and cutoffs that differ from dimension to dimension."""
    rng = np.random.default_rng(seed)
    centroids = unit(rng.normal(size=(n_centroids, dim))).astype(np.float16).astype(np.float32)
    levels = np.sort(rng.normal(scale=0.2, size=(dim, 1 << nbits)), axis=1).astype(np.float32)
    return ResidualCodec(centroids, (levels[:, 1:] + levels[:, :-1]) / 2, levels)


def slow_buckets(codec, vector, centroid_id):
    """For each dimension how many cutoffs lie below the residual."""
    return [
        sum(1 for cutoff in codec.cutoffs[d] if vector[d] - codec.centroids[centroid_id][d] > cutoff)
        for d in range(codec.dim)
    ]


def slow_decode(codec, vector, centroid_id):
    """What encoding and decoding ``vector`` must give, in double precision."""
    total = [
        float(codec.levels[d][bucket]) + float(codec.centroids[centroid_id][d])
        for d, bucket in enumerate(slow_buckets(codec, vector, centroid_id))
    ]
    length = sum(x * x for x in total) ** 0.5
    return [x / length for x in total]


def round_trip(codec, vectors):
    return codec.decode(*codec.encode(vectors))


@st.composite
def packable(draw):
    """Bits per value, and rows of such values that fill whole bytes."""
    nbits = draw(st.sampled_from(codec.NBITS))
    rows, row_bytes = draw(st.integers(1, 4)), draw(st.integers(1, 16))
    shape = (rows, row_bytes * 8 // nbits)
    return nbits, draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, (1 << nbits) - 1)))


class TestPacking:
    @deterministic
    @given(packable())
    def test_unpack_inverts_pack(self, case):
        nbits, buckets = case
        np.testing.assert_array_equal(codec.unpack(codec.pack(buckets, nbits), nbits), buckets)

    @deterministic
    @given(packable())
    def test_a_packed_row_is_one_little_endian_number(self, case):
        nbits, buckets = case
        for row, packed in zip(buckets.tolist(), codec.pack(buckets, nbits), strict=True):
            number = sum(bucket << (nbits * d) for d, bucket in enumerate(row))
            assert int.from_bytes(packed.tobytes(), "little") == number

    @pytest.mark.parametrize(
        ("nbits", "row", "expected"),
        [
            (1, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1], [0b00000001, 0b11000000]),
            (2, [1, 2, 3, 0, 0, 0, 0, 2], [0b00_11_10_01, 0b10_00_00_00]),
            (4, [0xA, 0x5, 0x0, 0xF], [0x5A, 0xF0]),
        ],
    )
    def test_the_first_bucket_is_lowest_in_its_byte(self, nbits, row, expected):
        packed = codec.pack(np.array([row], np.uint8), nbits)
        assert packed.dtype == np.uint8
        assert packed.tolist() == [expected]


class TestEncode:
    def test_picks_the_centroid_with_the_largest_dot_product(self):
        made = handmade_codec(dim=8, nbits=2, n_centroids=40)
        vectors = sample_vectors(n=60, dim=8)
        ids, _ = made.encode(vectors)
        for vector, chosen in zip(vectors, ids, strict=True):
            dots = [
                sum(float(a) * float(b) for a, b in zip(vector, centroid, strict=True)) for centroid in made.centroids
            ]
            assert dots[chosen] == pytest.approx(max(dots), abs=1e-6)

    def test_does_not_depend_on_how_vectors_fall_into_blocks(self, monkeypatch):
        made = handmade_codec(dim=8, nbits=2, n_centroids=40)
        vectors = sample_vectors(n=23, dim=8)
        one_by_one = [made.encode(vector[None]) for vector in vectors]
        monkeypatch.setattr(codec, "_BLOCK", 5)
        ids, residuals = made.encode(vectors)
        assert ids.tolist() == [int(i[0]) for i, _ in one_by_one]
        assert residuals.tolist() == [r[0].tolist() for _, r in one_by_one]

    @pytest.mark.parametrize("nbits", [1, 2, 4])
    def test_buckets_are_the_number_of_cutoffs_below_the_residual(self, nbits):
        made = handmade_codec(dim=16, nbits=nbits, n_centroids=7)
        vectors = sample_vectors(n=25, dim=16)
        ids, residuals = made.encode(vectors)
        assert residuals.shape == (25, made.residual_bytes) == (25, 16 * nbits // 8)
        expected = [slow_buckets(made, v, i) for v, i in zip(vectors, ids, strict=True)]
        assert codec.unpack(residuals, nbits).tolist() == expected

    @pytest.mark.parametrize("bucket", [0, 1, 2])
    def test_a_residual_equal_to_a_cutoff_falls_into_the_lower_bucket(self, bucket):
        # Sums of few powers of two, so that nothing is rounded.
        centroid = np.array([[1, 0, 0, 0, 0, 0, 0, 0]], np.float32)
        cutoffs = np.tile(np.array([-0.25, 0.125, 0.5], np.float32), (8, 1))
        levels = np.tile(np.array([-0.5, 0, 0.25, 0.75], np.float32), (8, 1))
        made = ResidualCodec(centroid, cutoffs, levels)
        at_cutoff = centroid + cutoffs[:, bucket]
        just_above = at_cutoff + np.float32(2**-20)
        for vectors, expected in ((at_cutoff, bucket), (just_above, bucket + 1)):
            _, residuals = made.encode(vectors)
            assert codec.unpack(residuals, 2).tolist() == [[expected] * 8]

    @pytest.mark.parametrize(("n_centroids", "dtype"), [(1 << 16, "<u2"), ((1 << 16) + 1, "<u4")])
    def test_ids_have_two_bytes_up_to_65536_centroids_and_four_beyond(self, n_centroids, dtype):
        made = handmade_codec(dim=8, nbits=1, n_centroids=n_centroids)
        last = made.centroids[-1:]
        ids, residuals = made.encode(last)
        assert made.id_dtype == ids.dtype == np.dtype(dtype)
        assert ids.tolist() == [n_centroids - 1]
        np.testing.assert_allclose(
            made.decode(ids, residuals)[0], slow_decode(made, last[0], n_centroids - 1), atol=1e-6
        )


class TestDecode:
    @pytest.mark.parametrize("nbits", [1, 2, 4])
    def test_agrees_with_a_slow_reading_of_the_definition(self, nbits):
        made = handmade_codec(dim=16, nbits=nbits, n_centroids=9)
        vectors = sample_vectors(n=30, dim=16)
        ids, residuals = made.encode(vectors)
        expected = [slow_decode(made, v, i) for v, i in zip(vectors, ids, strict=True)]
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
        assert made.levels.shape == (24, 1 << nbits)
        assert made.cutoffs.shape == (24, (1 << nbits) - 1)
        assert (made.dim, made.nbits, made.residual_bytes) == (24, nbits, 3 * nbits)

    @pytest.mark.parametrize("nbits", [1, 2, 4])
    def test_levels_ascend_and_each_lies_between_its_cutoffs(self, nbits):
        made = ResidualCodec.train(sample_vectors(), nbits=nbits, n_centroids=16)
        assert (np.diff(made.levels, axis=1) > 0).all()
        assert (made.levels[:, :-1] < made.cutoffs).all()
        assert (made.cutoffs < made.levels[:, 1:]).all()

    def test_centroids_have_unit_length_and_survive_float16(self):
        centroids = ResidualCodec.train(sample_vectors(), nbits=2, n_centroids=64).centroids
        assert centroids.dtype == np.float32
        np.testing.assert_array_equal(centroids.astype(np.float16).astype(np.float32), centroids)
        np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-3)

    @pytest.mark.parametrize("nbits", [1, 2, 4])
    def test_levels_beat_equal_mass_buckets_on_skewed_residuals(self, nbits):
        vectors = sample_vectors(n=3000)
        made = ResidualCodec.train(vectors, nbits=nbits, n_centroids=1)
        residuals = vectors - made.centroids[0]

        buckets = codec.unpack(made.encode(vectors)[1], nbits)
        ours = np.sum((residuals - made.levels[np.arange(made.dim), buckets]) ** 2)

        theirs = 0.0
        for column in residuals.T:
            parts = np.array_split(np.sort(column.astype(np.float64)), 1 << nbits)
            theirs += sum(np.sum((part - part.mean()) ** 2) for part in parts)
        assert ours < theirs

    @pytest.mark.parametrize("n", [1, 5, 63])
    def test_fewer_vectors_than_centroids_give_a_centroid_each(self, n):
        vectors = sample_vectors(n=n)
        made = ResidualCodec.train(vectors, nbits=2, n_centroids=64)
        assert made.centroids.shape == (n, 16)
        np.testing.assert_allclose(round_trip(made, vectors), vectors, atol=2e-3)

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

    @pytest.mark.parametrize("part", ["centroids", "cutoffs", "levels"])
    def test_changes_with_every_number(self, part):
        made = handmade_codec(dim=8, nbits=2, n_centroids=3)
        changed = getattr(made, part).copy()
        changed[-1, -1] = np.nextafter(changed[-1, -1], np.float32(2))
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
    assert (2 * count) ** 2 > 256 * n_tokens or 64 * 2 * count > n_tokens
