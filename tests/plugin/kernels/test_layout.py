"""The drawings of plugin/kernels/LAYOUT.md."""

from __future__ import annotations

import numpy as np
import pytest

from tansaku.indexer.codec.codec import ResidualCodec, default_centroids
from tansaku.plugin.kernels.query_layout import BlockTables, CoarseCodec, QueryLanes

DIM, BYTES, CENTROIDS = 128, 32, 64


@pytest.fixture(scope="module")
def codec() -> ResidualCodec:
    random = np.random.default_rng(0)
    centroids = unit(random.normal(size=(CENTROIDS, DIM)))
    codewords = random.normal(scale=0.03, size=(BYTES, 256, DIM // BYTES)).astype(np.float32)
    return ResidualCodec(centroids, np.array([0, CENTROIDS], np.int32), codewords)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def query(n_tokens: int) -> np.ndarray:
    return unit(np.random.default_rng(1).normal(size=(n_tokens, DIM)))


def tokens_in(block: np.ndarray, vectors: np.ndarray) -> list[int | None]:
    """Which token each lane holds; None for a lane of zeros."""
    found: list[int | None] = []
    for lane in block.T:
        number = int(np.argmax(vectors @ lane))
        found.append(number if np.allclose(vectors[number], lane, atol=1e-6) else None)
        assert found[-1] is not None or not lane.any()
    return found


@pytest.mark.parametrize(("n_tokens", "lanes"), [(1, 16), (9, 16), (16, 16), (17, 32), (32, 32)])
def test_a_query_of_up_to_32_tokens_is_one_block_with_padding(codec, n_tokens, lanes):
    vectors = query(n_tokens)
    laid_out = QueryLanes.of(vectors, 0.0)
    (block,), (weights,) = laid_out.blocks, laid_out.weights
    assert (block.shape, block.dtype) == ((DIM, lanes), np.float32)
    assert tokens_in(block, vectors) == [*range(n_tokens), *[None] * (lanes - n_tokens)]
    assert weights.tolist() == pytest.approx([1.0] * n_tokens + [0.0] * (lanes - n_tokens))
    (table,) = BlockTables.of(vectors, codec, CoarseCodec.of(codec))
    assert (table.n_tokens, table.centroid_scores.shape) == (n_tokens, (CENTROIDS, lanes))
    assert not table.centroid_scores[:, n_tokens:].any()
    assert not table.residual_scores[:, :, n_tokens:].any()


def test_seventy_tokens_are_cut_as_drawn(codec):
    vectors = query(70) * np.float32(3)
    tables = BlockTables.of(vectors, codec, CoarseCodec.of(codec))
    assert [table.n_tokens for table in tables] == [32, 32, 6]
    laid_out = QueryLanes.of(vectors, 0.25)
    held = [tokens_in(block, vectors / 3) for block in laid_out.blocks]
    assert held == [[None, *range(31)], list(range(29, 61)), [59, *range(60, 70), *[None] * 21]]
    counted = [
        [token for token, weight in zip(of_block, weights, strict=True) if weight]
        for of_block, weights in zip(held, laid_out.weights, strict=True)
    ]
    assert counted == [list(range(30)), list(range(30, 60)), list(range(60, 70))]
    assert np.concatenate(laid_out.weights).max() == pytest.approx(3 / 1.5)


def test_arrays_have_the_types_and_sizes_of_the_tables(codec):
    (table,) = BlockTables.of(query(9), codec, CoarseCodec.of(codec))
    assert table.centroid_scores.dtype == table.residual_scores.dtype == np.int16
    assert table.residual_scores.shape == (BYTES, 256, 16)
    assert table.residual_scores.nbytes == 262_144
    assert table.centroid_scores.nbytes * 8192 // CENTROIDS == 262_144
    coarse = CoarseCodec.of(codec)
    assert (coarse.centroids.dtype, coarse.sums.dtype, coarse.steps.dtype) == (np.int8, np.int32, np.float32)
    assert (coarse.centroids.nbytes + coarse.sums.nbytes + coarse.steps.nbytes) * 8192 // CENTROIDS == 1_114_112
    assert codec.codewords.nbytes == 131_072
    assert default_centroids(1_000_000) == 8192
