"""What a search computes from its query once: tokens in padded blocks, their centroid scores and code tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..indexer.codec import ResidualCodec
from .engine import code_tables, products, residual_bound

_LARGEST = 32_767
_NARROW, _WIDE = 16, 32


@dataclass(frozen=True)
class CoarseCentroids:
    """Centroids in a byte for each dimension: what limits the time of looking at all of them is reading them.

    Attributes:
        rows: int8 (n_centroids, dim).
        steps: float32 (n_centroids,): a centroid is its row times its step, to some thousandths.
    """

    rows: np.ndarray
    steps: np.ndarray

    @classmethod
    def of(cls, centroids: np.ndarray) -> CoarseCentroids:
        """Of centroids, float32 (n_centroids, dim)."""
        steps = np.abs(centroids).max(axis=1) / 127
        return cls(np.rint(centroids / np.maximum(steps, 1e-12)[:, None]).astype(np.int8), steps)


@dataclass(frozen=True)
class QueryTables:
    """A block of a query's tokens, laid out for the kernels; a query of up to 32 tokens is one block.

    Attributes:
        n_tokens: how many lanes are query tokens; the others are zero everywhere.
        vectors: float32 (dim, lanes); 16 or 32 lanes.
        centroid_scores: int16 (n_centroids, lanes).
        codes: int16 (residual_bytes, 256, lanes): what each value of each byte of a residual adds.
    """

    n_tokens: int
    vectors: np.ndarray
    centroid_scores: np.ndarray
    codes: np.ndarray

    @classmethod
    def of(cls, query: np.ndarray, codec: ResidualCodec, centroids: CoarseCentroids) -> list[QueryTables]:
        """The tables of a query, float32 (tokens, dim), block by block, as integers of one scale.

        The scale is the largest at which no similarity can leave 16 bits, whatever the codes. A query token's product
        with a centroid, which has length 1, is at most the token's own length; coarse ones are a little longer.
        """
        lanes = _NARROW if len(query) <= _NARROW else _WIDE
        parts = [query[start : start + lanes] for start in range(0, len(query), lanes)]
        blocks = [_padded(part, lanes) for part in parts]
        largest = max(residual_bound(codec.codewords, block) for block in blocks)
        largest += float(np.linalg.norm(query, axis=1).max()) * (1 + codec.dim**0.5 / 254)
        # Each of the numbers added up may have been rounded up by a half, and a few float operations round too.
        scale = (_LARGEST - codec.residual_bytes - 2) / max(largest * (1 + 1e-5), 1e-6)
        tables = []
        for part, block in zip(parts, blocks, strict=True):
            scores = np.empty((len(codec.centroids), lanes), np.int16)
            products(centroids.rows, centroids.steps * np.float32(scale), block, scores)
            codes = np.empty((codec.residual_bytes, 256, lanes), np.int16)
            code_tables(codec.codewords, block, scale, codes)
            tables.append(cls(len(part), block, scores, codes))
        return tables


def _padded(part: np.ndarray, lanes: int) -> np.ndarray:
    block = np.zeros((part.shape[1], lanes), np.float32)
    block[:, : len(part)] = part.T
    return block
