"""Routing: fine inverted lists under coarse codes.

A code centroid of a large index has thousands of tokens, and a list of thousands of tokens says little about any of
them. So the tokens of each centroid are divided once more, around a few routing points, each near about 64 of them. A
routing point is coded as a token is, by its centroid and a residual: a search scores it with the tables that it has
anyway, and it takes 34 bytes at 2 bits.

Routing is derived from the stored codes alone. No text is encoded and no code changes when it is made again, which is
done when the index has grown (`Routing.fits`). So neither the size of an index nor the order in which it grew decides
how well candidates are found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..codec.clustering import cluster
from ..codec.codec import ResidualCodec, centroids_by_the_rule

# Centroid ids, integer (tokens,), and residuals, uint8 (tokens, residual bytes).
Codes = tuple[np.ndarray, np.ndarray]

TOKENS_PER_POINT = 64
_POINTS_PER_CENTROID = 3  # with fewer on average, lists of the centroids themselves do as well
_FEWEST_TOKENS = 1 << 18  # of an index with routing: in a smaller one all rows can be scored
_MOST_POINTS = 1024  # of one centroid: all of them are compared with each of its tokens
_SAMPLED = 0.5  # share of the tokens that points are trained on: 32 for each
_GROWN = 1.5
_OUTGROWN = 16
_TOKENS_AT_ONCE = 1 << 21  # whose residuals are in memory together
_VECTORS_AT_ONCE = 1 << 15
_SEED = 28


@dataclass(frozen=True)
class Routing:
    """The routing points of an index.

    Attributes:
        offsets: uint32 (n_centroids + 1,): those of centroid c are ``offsets[c]`` to ``offsets[c + 1] - 1``, at least
            one.
        residuals: uint8 (points, residual bytes): each point's place around its centroid, coded as that of a token.
        n_tokens: number of tokens in the index when they were made.
    """

    offsets: np.ndarray
    residuals: np.ndarray
    n_tokens: int

    def __len__(self) -> int:
        return len(self.residuals)

    @classmethod
    def train(cls, codec: ResidualCodec, parts: Sequence[Codes]) -> Routing:
        """Find routing points for stored codes.

        Memory: the codes of some two million tokens, and a 4-byte integer for each token of the sample.

        Args:
            codec: the codec of the codes.
            parts: all codes, in memory or mapped.
        """
        counts = np.zeros(len(codec.centroids), np.int64)
        for centroid_ids, _ in parts:
            counts += np.bincount(centroid_ids, minlength=len(counts))
        wanted = np.clip(np.rint(counts / TOKENS_PER_POINT), 1, _MOST_POINTS).astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(wanted)]).astype(np.uint32)
        residuals = np.empty((int(offsets[-1]), codec.residual_bytes), np.uint8)
        sample = [_sampled(part, number, len(counts)) for number, part in enumerate(parts)]
        for first, last in _ranges(counts * _SAMPLED):
            of_range = _joined(parts, sample, first, last)
            points = [
                _points(codec, centroid, of_range[1][start:end], int(wanted[centroid]))
                for centroid, start, end in _by_centroid(of_range[0], first, last)
            ]
            at = slice(int(offsets[first]), int(offsets[last]))
            ids = np.repeat(np.arange(first, last), wanted[first:last])
            residuals[at] = codec.quantize(np.concatenate(points), ids)
        return cls(offsets, residuals, int(counts.sum()))

    def problem(self, codec: ResidualCodec) -> str:
        """What is wrong with arrays that were read from files; empty if nothing is. The search checks no bounds."""
        for name, array, dtype, shape in (
            ("offsets", self.offsets, np.dtype(np.uint32), (len(codec.centroids) + 1,)),
            ("residuals", self.residuals, np.dtype(np.uint8), (len(self.residuals), codec.residual_bytes)),
        ):
            if array.dtype != dtype or array.shape != shape:
                return f"{name} has another type or shape than expected"
        if self.offsets[0] != 0 or self.offsets[-1] != len(self) or (self.offsets[1:] <= self.offsets[:-1]).any():
            return f"offsets do not ascend from 0 to {len(self)}"
        return ""

    def fits(self, n_tokens: int) -> bool:
        """Whether lists are still about as long as they should be, with ``n_tokens`` tokens in the index."""
        return is_about_as_large(self.n_tokens, n_tokens)

    def assign(self, codec: ResidualCodec, codes: Codes) -> np.ndarray:
        """The routing point of each token: the nearest of its centroid's.

        Args:
            codec: the codec of the codes.
            codes: the codes of some rows.

        Returns:
            Numbers of points, uint32 (tokens,).
        """
        centroid_ids, residuals = codes
        found = self.offsets[centroid_ids]
        order = np.argsort(centroid_ids, kind="stable")
        n_centroids = len(self.offsets) - 1
        for centroid, start, end in _by_centroid(centroid_ids[order], 0, n_centroids):
            first, last = int(self.offsets[centroid]), int(self.offsets[centroid + 1])
            if last - first == 1 or start == end:
                continue
            points = _decoded(codec, centroid, self.residuals[first:last])
            for begin in range(start, end, _VECTORS_AT_ONCE):
                tokens = order[begin : min(begin + _VECTORS_AT_ONCE, end)]
                vectors = _decoded(codec, centroid, residuals[tokens])
                found[tokens] += (vectors @ points.T).argmax(axis=1).astype(np.uint32)
        return found


def is_about_as_large(before: int, now: int) -> bool:
    """Whether what was derived from an index, or measured in it, still holds at its present size.

    Args:
        before: number of token vectors that it had then.
        now: number of token vectors of the index now.
    """
    return before / _GROWN <= now <= before * _GROWN


def is_wanted(codec: ResidualCodec, n_tokens: int) -> bool:
    """Whether an index with ``n_tokens`` tokens needs routing: its own centroids are too coarse."""
    return n_tokens >= max(_FEWEST_TOKENS, _POINTS_PER_CENTROID * TOKENS_PER_POINT * len(codec.centroids))


def is_outgrown(codec: ResidualCodec, n_tokens: int, n_points: int | None = None) -> bool:
    """Tell whether an index has grown so much that likely candidates are missed.

    With few lists, all documents look alike to the search for candidates.

    Args:
        codec: the codec of the index.
        n_tokens: number of token vectors of the index now.
        n_points: number of its routing points, 0 if it has none; None: as many as it gets when it is next opened.

    Returns:
        Whether ColBERTv2's rule gives `_OUTGROWN` times as many centroids as the index has lists, or more.
    """
    n_centroids = len(codec.centroids)
    if n_points is None:
        n_points = min(n_tokens // TOKENS_PER_POINT, _MOST_POINTS * n_centroids) if is_wanted(codec, n_tokens) else 0
    return centroids_by_the_rule(n_tokens) >= _OUTGROWN * max(n_centroids, n_points)


def _points(codec: ResidualCodec, centroid: int, residuals: np.ndarray, wanted: int) -> np.ndarray:
    """The routing points of one centroid: float32 (wanted, dim). Where there are too few tokens, some are repeated."""
    if not len(residuals):
        return np.repeat(codec.centroids[centroid][None], wanted, axis=0)
    vectors = _decoded(codec, centroid, residuals)
    if wanted == 1:
        return vectors.mean(axis=0)[None]
    points, _ = cluster(vectors, wanted, _SEED)
    return points[np.arange(wanted) % len(points)]


def _decoded(codec: ResidualCodec, centroid: int, residuals: np.ndarray) -> np.ndarray:
    return codec.decode(np.full(len(residuals), centroid), residuals)


def _ranges(tokens: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of centroids with about `_TOKENS_AT_ONCE` tokens together, or one centroid with more."""
    total = np.concatenate([[0], np.cumsum(tokens)])
    first = 0
    while first < len(tokens):
        last = int(np.searchsorted(total, total[first] + _TOKENS_AT_ONCE, side="right")) - 1
        last = min(max(last, first + 1), len(tokens))
        yield first, last
        first = last


def _sampled(part: Codes, number: int, n_centroids: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a sample of a part's tokens, uint32 and by centroid, and where those of each centroid begin."""
    centroid_ids = part[0]
    draw = np.random.default_rng([_SEED, number]).random(len(centroid_ids), np.float32)
    chosen = np.flatnonzero(draw < _SAMPLED).astype(np.uint32)
    chosen = chosen[np.argsort(centroid_ids[chosen], kind="stable")]
    return chosen, np.searchsorted(centroid_ids[chosen], np.arange(n_centroids + 1))


def _joined(parts: Sequence[Codes], sample: Sequence[tuple[np.ndarray, np.ndarray]], first: int, last: int) -> Codes:
    """The codes of the sample of the centroids from ``first`` to ``last - 1``, ascending by centroid."""
    ids, residuals = [], []
    for (centroid_ids, codes), (positions, starts) in zip(parts, sample, strict=True):
        chosen = positions[starts[first] : starts[last]]
        ids.append(centroid_ids[chosen])
        residuals.append(codes[chosen])
    joined = np.concatenate(ids)
    order = np.argsort(joined, kind="stable")
    return joined[order], np.concatenate(residuals)[order]


def _by_centroid(ascending_ids: np.ndarray, first: int, last: int) -> Iterator[tuple[int, int, int]]:
    """For each centroid from ``first`` to ``last - 1``: its id, and where its tokens begin and end."""
    edges = np.searchsorted(ascending_ids, np.arange(first, last + 1)).tolist()
    for centroid, (start, end) in enumerate(pairwise(edges), first):
        yield centroid, start, end
