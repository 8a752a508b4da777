"""The layout of a query for the loops: its tokens in padded blocks of lanes, and what is computed from it once.

LAYOUT.md in this folder draws it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...indexer.codec.codec import ResidualCodec
from .query_loops import fill_centroid_scores, fill_residual_scores, residual_bound

_NARROW, _WIDE = 16, 32  # lanes of a block
_LARGEST = 32_767  # of 16-bit integers
_LARGEST_BYTE = 127
_SLACK = 0.15  # in lengths of a residual


@dataclass(frozen=True)
class QueryLanes:
    """A query's tokens for scoring in float32 (`float_maxsim`); a query of up to 32 tokens is one block.

    Attributes:
        blocks: float32 (dim, lanes) each, of unit length or zero; 16 or 32 lanes.
        weights: float32 (lanes,) for each block: what the best similarity of each lane is multiplied by. 0 for lanes
            without a token, and for tokens that are there only as neighbours of others and count in another block.
        phrase_weight: Weight of the similarities of both neighbours, see `phrases`.
    """

    blocks: list[np.ndarray]
    weights: list[np.ndarray]
    phrase_weight: float

    @classmethod
    def of(cls, query_vectors: np.ndarray, phrase_weight: float) -> QueryLanes:
        """Lay out a query.

        Args:
            query_vectors: float32 (tokens, dim); the length of each vector is the weight of its token.
            phrase_weight: Weight of the similarities of both neighbours.
        """
        lengths = np.linalg.norm(query_vectors, axis=1)
        unit = query_vectors / np.maximum(lengths, 1e-12)[:, None]
        counts = (lengths / (1 + 2 * phrase_weight))[:, None]
        edge = 0 if len(query_vectors) <= _WIDE else 1
        weights = [block[0] for block in _blocks(counts, edge)]
        for of_block in weights:
            of_block[:edge] = of_block[len(of_block) - edge :] = 0
        return cls(_blocks(unit, edge), weights, phrase_weight)


@dataclass(frozen=True)
class CoarseCodec:
    """What a search first reads of a codec: centroids in one byte for each dimension, and the length of residuals.

    Reading the centroids is what limits the time of scoring all of them.

    Attributes:
        centroids: int8 (n_centroids, dim).
        sums: int32 (n_centroids,): the sum of each one's bytes.
        steps: float32 (n_centroids,): a centroid is its bytes times its step, to some thousandths.
        residual_length: Root mean square of the length of all residuals that can be coded.
    """

    centroids: np.ndarray
    sums: np.ndarray
    steps: np.ndarray
    residual_length: float

    @classmethod
    def of(cls, codec: ResidualCodec) -> CoarseCodec:
        """The coarse form of a codec."""
        centroids, steps = _as_bytes(codec.centroids, axis=1)
        return cls(
            centroids,
            centroids.sum(axis=1, dtype=np.int32),
            steps,
            float(np.sqrt((codec.codewords**2).sum(axis=2).mean(axis=1).sum())),
        )


@dataclass(frozen=True)
class BlockTables:
    """The integer scores of one block of a query's tokens; a query of up to 32 tokens is one block.

    Attributes:
        n_tokens: Number of lanes that are query tokens; the others are zero everywhere.
        centroid_scores: int16 (n_centroids, lanes).
        residual_scores: int16 (residual_bytes, 256, lanes): what each value of each byte of a residual adds.
        slack: How far below a row's best centroid another may score for its residual to be read; in the unit of the
            scores, 1 to 32,767.
    """

    n_tokens: int
    centroid_scores: np.ndarray
    residual_scores: np.ndarray
    slack: int

    @classmethod
    def of(cls, query_vectors: np.ndarray, codec: ResidualCodec, coarse: CoarseCodec) -> list[BlockTables]:
        """The tables of a query, one object for each block, as integers of one scale.

        The scale is the largest at which no similarity can leave 16 bits, whatever the codes. A query token's product
        with a centroid, which has length 1, is at most the token's own length; with a coarse centroid a little more.

        Args:
            query_vectors: float32 (tokens, dim); the length of each vector is the weight of its token.
            codec: The index's codec.
            coarse: The coarse form of this codec.
        """
        blocks = _blocks(query_vectors)
        lanes = blocks[0].shape[1]
        longest = float(np.linalg.norm(query_vectors, axis=1).max())
        largest = max(residual_bound(codec.codewords, block) for block in blocks)
        largest += longest * (1 + codec.dim**0.5 / 240) ** 2
        # Each of the numbers added up may have been rounded up by a half, and a few float operations round too.
        scale = (_LARGEST - codec.residual_bytes - 2) / max(largest * (1 + 1e-5), 1e-6)
        slack = min(max(round(_SLACK * coarse.residual_length * longest * scale), 1), _LARGEST)
        tables = []
        for start, block in zip(range(0, len(query_vectors), lanes), blocks, strict=True):
            centroid_scores = np.empty((len(codec.centroids), lanes), np.int16)
            query, query_steps = _as_bytes(block, axis=0)
            query_steps *= np.float32(scale)
            fill_centroid_scores(coarse.centroids, coarse.sums, coarse.steps, query, query_steps, centroid_scores)
            residual_scores = np.empty((codec.residual_bytes, 256, lanes), np.int16)
            fill_residual_scores(codec.codewords, block, scale, residual_scores)
            tables.append(cls(min(len(query_vectors) - start, lanes), centroid_scores, residual_scores, slack))
        return tables


def _blocks(query_vectors: np.ndarray, edge: int = 0) -> list[np.ndarray]:
    """The tokens of a query in blocks, float32 (dim, lanes) each; zeros fill the last one.

    Args:
        query_vectors: float32 (tokens, dim).
        edge: Number of lanes at either end of a block that repeat tokens of the blocks beside it, or are zero.
    """
    lanes = _NARROW if len(query_vectors) <= _NARROW else _WIDE
    inside = lanes - 2 * edge
    starts = range(0, len(query_vectors), inside)
    padded = np.zeros((query_vectors.shape[1], len(starts) * inside + 2 * edge), np.float32)
    padded[:, edge : edge + len(query_vectors)] = query_vectors.T
    return [padded[:, start : start + lanes].copy() for start in starts]


def _as_bytes(vectors: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors along an axis as int8, and what each vector's bytes are to be multiplied by, float32."""
    steps = np.abs(vectors).max(axis=axis) / np.float32(_LARGEST_BYTE)
    return np.rint(vectors / np.expand_dims(np.maximum(steps, 1e-12), axis)).astype(np.int8), steps
