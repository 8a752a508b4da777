"""What a search computes from its query once: tokens in padded blocks, their centroid scores and code tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...indexer.codec.codec import ResidualCodec
from .dispatch import code_tables, products, residual_bound

_LARGEST = 32_767
_LARGEST_IN_PAIRS = 8_191  # products of up to 2,000 dimensions with bytes then fit into 32 bits
_NARROW, _WIDE = 16, 32
_SLACK = 0.15  # of the length of a residual


@dataclass(frozen=True)
class CoarseCodec:
    """What a search first looks at of a codec: centroids in a byte for each dimension, and how long residuals are.

    What limits the time of looking at all centroids is reading them.

    Attributes:
        rows: int8 (n_centroids, dim).
        steps: float32 (n_centroids,): a centroid is its row times its step, to some thousandths.
        residual_length: root mean square over all residuals that can be coded.
    """

    rows: np.ndarray
    steps: np.ndarray
    residual_length: float

    @classmethod
    def of(cls, codec: ResidualCodec) -> CoarseCodec:
        """Of a codec."""
        steps = np.abs(codec.centroids).max(axis=1) / 127
        rows = np.rint(codec.centroids / np.maximum(steps, 1e-12)[:, None]).astype(np.int8)
        return cls(rows, steps, float(np.sqrt((codec.codewords**2).sum(axis=2).mean(axis=1).sum())))


@dataclass(frozen=True)
class QueryTables:
    """A block of a query's tokens, laid out for the kernels; a query of up to 32 tokens is one block.

    Attributes:
        n_tokens: how many lanes are query tokens; the others are zero everywhere.
        centroid_scores: int16 (n_centroids, lanes).
        codes: int16 (residual_bytes, 256, lanes): what each value of each byte of a residual adds.
        slack: how much worse than a document's best centroid another may be for its residual to matter.
    """

    n_tokens: int
    centroid_scores: np.ndarray
    codes: np.ndarray
    slack: int

    @classmethod
    def of(cls, query: np.ndarray, codec: ResidualCodec, coarse: CoarseCodec) -> list[QueryTables]:
        """The tables of a query, float32 (tokens, dim), block by block, as integers of one scale.

        The scale is the largest at which no similarity can leave 16 bits, whatever the codes. A query token's product
        with a centroid, which has length 1, is at most the token's own length; coarse ones are a little longer.
        """
        blocks = _blocks(query)
        lanes = blocks[0].shape[1]
        largest = max(residual_bound(codec.codewords, block) for block in blocks)
        longest = float(np.linalg.norm(query, axis=1).max())
        largest += longest * (1 + codec.dim**0.5 / 240)
        # Each of the numbers added up may have been rounded up by a half, and a few float operations round too.
        scale = (_LARGEST - codec.residual_bytes - 2) / max(largest * (1 + 1e-5), 1e-6)
        slack = min(max(round(_SLACK * coarse.residual_length * longest * scale), 1), _LARGEST)
        tables = []
        for start, block in zip(range(0, len(query), lanes), blocks, strict=True):
            scores = np.empty((len(codec.centroids), lanes), np.int16)
            pairs, step = _as_pairs(block)
            products(coarse.rows, coarse.steps * np.float32(scale * step), pairs, scores)
            codes = np.empty((codec.residual_bytes, 256, lanes), np.int16)
            code_tables(codec.codewords, block, scale, codes)
            tables.append(cls(min(len(query) - start, lanes), scores, codes, slack))
        return tables


@dataclass(frozen=True)
class QueryVectors:
    """A query's tokens, laid out for `rescore`; a query of up to 32 tokens is one block.

    Attributes:
        blocks: float32 (dim, lanes) each, of unit length or zero; 16 or 32 lanes.
        weights: float32 (lanes,) for each block: what a token's best similarity counts. 0 for lanes without a token,
            and for tokens that are there as neighbours only and count in another block.
        phrase_weight: see `phrases`.
    """

    blocks: list[np.ndarray]
    weights: list[np.ndarray]
    phrase_weight: float

    @classmethod
    def of(cls, query: np.ndarray, phrase_weight: float) -> QueryVectors:
        """The vectors of a query, float32 (tokens, dim), as long as the tokens weigh."""
        lengths = np.linalg.norm(query, axis=1)
        unit = query / np.maximum(lengths, 1e-12)[:, None]
        counts = (lengths / (1 + 2 * phrase_weight))[:, None]
        edge = 0 if len(query) <= _WIDE else 1
        weights = [block[0] for block in _blocks(counts, edge)]
        for of_block in weights:
            of_block[:edge] = of_block[len(of_block) - edge :] = 0
        return cls(_blocks(unit, edge), weights, phrase_weight)


def _blocks(query: np.ndarray, edge: int = 0) -> list[np.ndarray]:
    """The tokens of a query, float32 (tokens, dim), in blocks, float32 (dim, lanes): zeros fill up the last one.

    The first and the last ``edge`` lanes of a block hold tokens of the blocks beside it, or zeros.
    """
    lanes = _NARROW if len(query) <= _NARROW else _WIDE
    inside = lanes - 2 * edge
    starts = range(0, len(query), inside)
    padded = np.zeros((query.shape[1], len(starts) * inside + 2 * edge), np.float32)
    padded[:, edge : edge + len(query)] = query.T
    return [padded[:, start : start + lanes].copy() for start in starts]


def _as_pairs(block: np.ndarray) -> tuple[np.ndarray, float]:
    """A block, float32 (dim, lanes), as int16 (dim / 2, lanes, 2), and what one of its units stands for."""
    step = max(float(np.abs(block).max()), 1e-12) / _LARGEST_IN_PAIRS
    integers = np.rint(block / np.float32(step)).astype(np.int16)
    return np.ascontiguousarray(integers.reshape(-1, 2, block.shape[1]).transpose(0, 2, 1)), step
