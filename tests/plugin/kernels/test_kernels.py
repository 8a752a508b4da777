"""The compiled loops against the plain NumPy ones, and those against loops plainer still."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tansaku.indexer.codec.codec import ResidualCodec
from tansaku.indexer.derived.postings import InvertedLists
from tansaku.plugin.kernels import index_loops, query_loops, reference
from tansaku.plugin.kernels.query_layout import BlockTables, CoarseCodec, QueryLanes
from tansaku.plugin.kernels.simd import has_byte_products

few = settings(deadline=None, derandomize=True, max_examples=40)
seeds = st.integers(0, 10_000)
shapes = st.sampled_from([(8, 8), (24, 4), (48, 2), (128, 4), (40, 8)])  # dim, dimensions to a byte
lanes = st.sampled_from([16, 32])


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def make_codec(random, dim, length, n_centroids=11, spread=0.1):
    centroids = unit(random.normal(size=(n_centroids, dim)))
    codewords = random.normal(scale=spread, size=(dim // length, 256, length)).astype(np.float32)
    return ResidualCodec(centroids, np.array([0, n_centroids], np.int32), codewords)


def make_codes(random, codec, lengths, id_dtype: type[np.unsignedinteger] = np.uint16):
    ends = np.cumsum(lengths)
    ids = random.integers(0, len(codec.centroids), ends[-1]).astype(id_dtype)
    residuals = random.integers(0, 256, (ends[-1], codec.residual_bytes), dtype=np.uint8)
    return ids, residuals, ends - lengths, ends


def tables_of(query, codec):
    return BlockTables.of(query, codec, CoarseCodec.of(codec))


def integers_of(block):
    """The arguments of `integer_maxsim` for a query, with which it reads all residuals."""
    return block.centroid_scores, block.residual_scores, block.n_tokens, 65_535


def padded(query, lanes):
    block = np.zeros((query.shape[1], lanes), np.float32)
    block[:, : len(query)] = query.T
    return block


@few
@given(seeds, st.integers(1, 40), shapes, lanes)
def test_products_are_the_rounded_ones(seed, n, shape, lanes):
    random = np.random.default_rng(seed)
    coarse = CoarseCodec.of(make_codec(random, *shape, n_centroids=n))
    query = random.integers(-127, 128, (shape[0], lanes)).astype(np.int8)
    query_steps = random.uniform(0.1, 200 / shape[0] ** 0.5, lanes).astype(np.float32)
    found, expected = np.empty((2, n, lanes), np.int16)
    arguments = coarse.centroids, coarse.sums, coarse.steps, query, query_steps
    reference.fill_centroid_scores(*arguments, expected)
    for quads in {False, has_byte_products()}:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(query_loops, "has_byte_products", lambda quads=quads: quads)
            query_loops.fill_centroid_scores(*arguments, found)
        assert found.tolist() == expected.tolist()


@few
@given(seeds, shapes, st.integers(1, 40))
def test_centroid_scores_are_the_products_with_all_query_tokens(seed, shape, n_tokens):
    random = np.random.default_rng(seed)
    codec, query = make_codec(random, *shape), unit(random.normal(size=(n_tokens, shape[0])))
    blocks = tables_of(query, codec)
    found = np.concatenate([block.centroid_scores[:, : block.n_tokens] for block in blocks], axis=1)
    exact = codec.centroids @ query.T
    scale = np.vdot(found, exact) / np.vdot(exact, exact)
    np.testing.assert_allclose(found / scale, exact, atol=1e-2)


@few
@given(seeds, st.integers(1, 20), st.sampled_from([8, 128, 768]))
def test_coarse_centroids_are_near_the_true_ones(seed, n, dim):
    codec = make_codec(np.random.default_rng(seed), dim, 4, n_centroids=n)
    coarse = CoarseCodec.of(codec)
    np.testing.assert_allclose(
        coarse.centroids * coarse.steps[:, None], codec.centroids, atol=coarse.steps.max() / 2 + 1e-6
    )
    assert np.linalg.norm(coarse.centroids * coarse.steps[:, None], axis=1).max() < 1 + dim**0.5 / 254
    assert coarse.residual_length == pytest.approx(0.1 * dim**0.5, rel=0.1)


@few
@given(seeds, shapes, lanes)
def test_code_tables_hold_what_each_byte_adds(seed, shape, lanes):
    random = np.random.default_rng(seed)
    codec, query = make_codec(random, *shape), padded(unit(random.normal(size=(7, shape[0]))), lanes)
    found, expected = np.empty((2, codec.residual_bytes, 256, lanes), np.int16)
    query_loops.fill_residual_scores(codec.codewords, query, 8192.0, found)
    reference.fill_residual_scores(codec.codewords, query, 8192.0, expected)
    assert np.abs(found.astype(int) - expected).max() <= 1
    byte, value, token = 0, 77, 3
    product = codec.codewords[byte, value] @ query[: shape[1], token]
    assert found[byte, value, token] == pytest.approx(product * 8192, abs=1)
    bound = query_loops.residual_bound(codec.codewords, query)
    assert bound == pytest.approx(reference.residual_bound(codec.codewords, query), rel=1e-5)


@few
@given(seeds, st.integers(1, 60), st.integers(1, 16), st.integers(1, 20), st.booleans())
def test_probe_finds_the_best_centroids_best_first(seed, n, n_tokens, nprobe, tied):
    random = np.random.default_rng(seed)
    scores = random.integers(-3 if tied else -32_000, 3 if tied else 32_000, (n, 16)).astype(np.int16)
    nprobe = min(nprobe, n)
    found_ids, found = query_loops.best_centroids(scores, n_tokens, nprobe)
    expected_ids, expected = reference.best_centroids(scores, n_tokens, nprobe)
    assert found.tolist() == expected.tolist()
    assert found_ids.tolist() == expected_ids.tolist()


@few
@given(seeds, st.sampled_from([16, 32]), st.integers(1, 20), st.integers(1, 9), st.booleans())
def test_probe_finds_the_best_points_of_some_centroids(seed, lanes, nprobe, n_chosen, tied):
    random = np.random.default_rng(seed)
    largest = 2 if tied else 500
    centroid_scores = random.integers(-largest, largest, (9, lanes)).astype(np.int16)
    residual_scores = random.integers(-largest, largest, (4, 256, lanes)).astype(np.int16)
    offsets = np.concatenate([[0], np.cumsum(random.integers(1, 6, 9))]).astype(np.uint32)
    residuals = random.integers(0, 256, (int(offsets[-1]), 4), np.uint8)
    centroids = random.permutation(9)[:n_chosen].astype(np.int32)
    nprobe = min(nprobe, int((offsets[centroids + 1] - offsets[centroids]).sum()))
    arguments = (centroid_scores, residual_scores, 5, nprobe, centroids, offsets, residuals)
    found_points, found = query_loops.best_points(*arguments)
    expected_points, expected = reference.best_points(*arguments)
    assert found.tolist() == expected.tolist()
    assert found_points.tolist() == expected_points.tolist()


@few
@given(seeds, st.integers(1, 30), st.integers(1, 12))
def test_gather_sums_the_best_that_each_token_meets(seed, n_documents, nprobe):
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 9, n_documents)
    ids, offsets = random.integers(0, 12, lengths.sum()), np.concatenate([[0], np.cumsum(lengths)])
    lists = InvertedLists.build(ids, offsets, 12)
    probed, scores = reference.best_centroids(random.integers(-99, 99, (12, 16)).astype(np.int16), 3, nprobe)
    imputed = scores[:, -1].astype(np.int32) - random.integers(-2, 9, 3).astype(np.int32)
    expected = np.zeros(n_documents, np.int32)
    for document in range(n_documents):
        tokens = set(ids[offsets[document] : offsets[document + 1]].tolist())
        for token_ids, token_scores, instead in zip(probed, scores.astype(int), imputed, strict=True):
            met = [score for c, score in zip(token_ids, token_scores, strict=True) if c in tokens]
            expected[document] += max([*met, instead]) - instead
    for module in (index_loops, reference):
        total, touched = np.zeros(n_documents, np.int32), np.full(n_documents, -1, np.int32)
        n = 0
        for tokens in (slice(2), slice(2, 3)):  # as if the query had two blocks
            n = module.gather_from_lists(
                lists.offsets, lists.postings, probed[tokens], scores[tokens], imputed[tokens], total, touched, n
            )
        assert total.tolist() == expected.tolist()
        assert sorted(touched[:n].tolist()) == np.flatnonzero(expected).tolist()


@few
@given(
    st.lists(st.one_of(st.integers(0, 3), st.integers(0, 10**6)), min_size=1, max_size=40), seeds, st.integers(1, 45)
)
def test_select_loses_none_of_the_best(totals, seed, limit):
    total = np.array(totals, np.int32)
    random = np.random.default_rng(seed)
    rows = random.permutation(np.flatnonzero(random.random(len(total)) < 0.8))
    ranked = sorted(rows, key=lambda d: -total[d])[:limit]
    for module in (index_loops, reference):
        found = module.best_rows(total, rows, limit)
        assert found.dtype == np.int64
        assert found.tolist() == [row for row in rows.tolist() if row in set(found.tolist())]
        worst = min((total[d] for d in ranked), default=0)
        assert {d for d in rows if total[d] > worst} <= set(found.tolist())
        assert len(found) >= len(ranked)


@few
@given(seeds, shapes, st.lists(st.integers(1, 9), min_size=1, max_size=7), st.integers(1, 40), st.booleans())
def test_refine_and_rescore_equal_the_reference(seed, shape, lengths, n_tokens, wide_ids):
    random = np.random.default_rng(seed)
    codec, query = make_codec(random, *shape), unit(random.normal(size=(n_tokens, shape[0])))
    codes = make_codes(random, codec, np.array(lengths), np.uint32 if wide_ids else np.uint16)
    for block in tables_of(query, codec):
        for slack in (1, block.slack, 5_000, 32_767, 65_535):
            integers = (block.centroid_scores, block.residual_scores, block.n_tokens, slack, *codes)
            found = index_loops.integer_maxsim(*integers)
            assert found.dtype == np.int32
            assert found.tolist() == reference.integer_maxsim(*integers).tolist()
    for phrase_weight in (0.0, 0.3):
        query_lanes = QueryLanes.of(query, phrase_weight)
        for block, weights in zip(query_lanes.blocks, query_lanes.weights, strict=True):
            arguments = (block, weights, phrase_weight, codec.centroids, codec.codewords, *codes)
            np.testing.assert_allclose(
                index_loops.float_maxsim(*arguments), reference.float_maxsim(*arguments), rtol=1e-5, atol=1e-5
            )


@few
@given(
    seeds,
    shapes,
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.one_of(st.integers(1, 40), st.sampled_from([16, 17, 30, 31, 32, 33, 60, 61, 91])),
    st.sampled_from([0.0, 0.1, 2.0]),
)
def test_rescore_is_maxsim_of_the_decoded_vectors_in_double_precision(seed, shape, lengths, n_tokens, phrase_weight):
    random = np.random.default_rng(seed)
    codec, query = make_codec(random, *shape), unit(random.normal(size=(n_tokens, shape[0])))
    token_weights = random.uniform(0.2, 2, n_tokens).astype(np.float32)
    ids, residuals, starts, ends = make_codes(random, codec, np.array(lengths))
    decoded = codec.decode(ids, residuals).astype(float)
    expected = []
    for start, end in zip(starts, ends, strict=True):
        cosines = np.pad(query.astype(float) @ decoded[start:end].T, 1)
        neighbours = cosines[:-2, :-2] + cosines[2:, 2:]
        similarities = (cosines[1:-1, 1:-1] + phrase_weight * neighbours) / (1 + 2 * phrase_weight)
        expected.append(token_weights @ similarities.max(axis=1))
    query_lanes = QueryLanes.of(query * token_weights[:, None], phrase_weight)
    for module in (index_loops, reference):
        scores = sum(
            module.float_maxsim(
                block, weights, phrase_weight, codec.centroids, codec.codewords, ids, residuals, starts, ends
            )
            for block, weights in zip(query_lanes.blocks, query_lanes.weights, strict=True)
        )
        np.testing.assert_allclose(scores, expected, atol=2e-5 * n_tokens)


@pytest.mark.parametrize(("dim", "length"), [(8, 8), (128, 4), (128, 2)])
@pytest.mark.parametrize("spread", [1e-9, 1e-3, 1.0, 30.0])
@pytest.mark.parametrize("size", [1e-6, 1.0, 50.0])
def test_no_codes_and_no_query_leave_16_bits(dim, length, spread, size):
    random = np.random.default_rng(1)
    codec = make_codec(random, dim, length, spread=spread)
    # Query tokens along centroids, and every byte with its largest entry for one of them.
    query = np.concatenate([codec.centroids[:6], -codec.centroids[:5]]) * np.float32(size)
    (block,) = tables_of(query, codec)
    for token in range(len(query)):
        for extreme in (np.argmax, np.argmin):
            residuals = extreme(block.residual_scores[:, :, token], axis=1).astype(np.uint8)
            codes = (np.arange(11, dtype=np.uint16), np.tile(residuals, (11, 1)), np.arange(11), np.arange(1, 12))
            exact = block.centroid_scores.astype(int) + block.residual_scores[np.arange(len(residuals)), residuals].sum(
                0, int
            )
            assert np.abs(exact).max() <= 32_767
            assert index_loops.integer_maxsim(*integers_of(block), *codes).tolist() == exact.sum(axis=1).tolist()


def test_integers_keep_similarities_to_a_few_ten_thousandths():
    random = np.random.default_rng(2)
    codec, query = make_codec(random, 128, 4, spread=0.05), unit(random.normal(size=(16, 128)))
    ids, residuals, starts, ends = make_codes(random, codec, np.full(50, 30))
    (block,) = tables_of(query, codec)
    exact = codec.centroids @ query[0]
    scale = block.centroid_scores[:, 0] @ exact / (exact @ exact)
    rows = codec.codewords[np.arange(32), residuals].reshape(len(ids), -1) + codec.centroids[ids]
    exact = np.maximum.reduceat(rows @ query.T, starts, axis=0).sum(axis=1)
    found = index_loops.integer_maxsim(*integers_of(block), ids, residuals, starts, ends) / scale
    np.testing.assert_allclose(found, exact, atol=16 * 1e-3)


def test_negative_similarities_count_as_they_are():
    codec = ResidualCodec(unit(-np.eye(8)), np.array([0, 8], np.int32), np.zeros((1, 256, 8), np.float32))
    query_lanes = QueryLanes.of(np.eye(8, dtype=np.float32)[:1], 0.0)
    codes = (np.zeros(1, np.uint16), np.zeros((1, 1), np.uint8), np.array([0]), np.array([1]))
    for module in (index_loops, reference):
        query = (query_lanes.blocks[0], query_lanes.weights[0], 0.0)
        assert module.float_maxsim(*query, codec.centroids, codec.codewords, *codes).tolist() == [-1.0]


def test_no_documents_no_scores():
    codec = make_codec(np.random.default_rng(0), 8, 8)
    (block,) = tables_of(np.eye(8, dtype=np.float32), codec)
    nothing = (np.empty(0, np.uint16), np.empty((0, 1), np.uint8), np.empty(0, np.int64), np.empty(0, np.int64))
    for module in (index_loops, reference):
        assert module.integer_maxsim(*integers_of(block), *nothing).tolist() == []
        query = (np.zeros((8, 16), np.float32), np.zeros(16, np.float32), 0.1)
        assert module.float_maxsim(*query, codec.centroids, codec.codewords, *nothing).tolist() == []


def test_kernels_with_other_constants_have_other_names():
    """Otherwise a process could load one in place of another: numba numbers compiled code from 0 in each process."""
    makers = [
        (index_loops._integer_loop, (16, 4), (32, 4), (16, 8)),
        (index_loops._float_loop, (16, 4, 4), (32, 4, 4), (16, 8, 4), (16, 4, 8)),
        (query_loops._bound_loop, (16, 4), (32, 4), (16, 8)),
        (query_loops._residual_loop, (16, 4), (32, 4), (16, 8)),
        (query_loops._pair_loop, (16,), (32,)),
        (query_loops._quad_loop, (16,), (32,)),
        (query_loops._points_loop, (16, 4), (32, 4), (16, 8)),
        (query_loops._best_loop, (16,), (32,)),
    ]
    names = [make(*constants).py_func.__qualname__ for make, *all_constants in makers for constants in all_constants]
    assert len(set(names)) == len(names) == 22
