"""The residual codec: a token vector becomes the id of its nearest centroid and a few bits per dimension.

As in ColBERTv2 (Santhanam et al., 2022), a vector v is stored as its centroid c and the quantized residual v − c. The
levels of the residual are fitted per dimension by Lloyd–Max, the quantizer of least squared error, in place of
ColBERTv2's one table of equal-mass buckets: better recall for the same bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import faiss
import numpy as np

from ..onnx_export import InputError

NBITS = (1, 2, 4)

_BLOCK = 8192  # vectors per step, so that scores against all centroids stay small
_KMEANS_ROUNDS = 8
_POINTS_PER_CENTROID = 256
_LLOYD_ROUNDS = 30
_LLOYD_SAMPLE = 50_000


@dataclass(frozen=True)
class ResidualCodec:
    """Centroids and residual levels.

    Attributes:
        centroids: float32 (n_centroids, dim), unit length; representable in float16.
        cutoffs: float32 (dim, 2**nbits − 1), ascending: bucket boundaries of a residual. A value equal to
            a cutoff falls into the lower bucket.
        levels: float32 (dim, 2**nbits), ascending: what a bucket decodes to.
    """

    centroids: np.ndarray
    cutoffs: np.ndarray
    levels: np.ndarray

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.centroids.shape[1]

    @property
    def nbits(self) -> int:
        """Bits per dimension of a residual."""
        return self.levels.shape[1].bit_length() - 1

    @property
    def residual_bytes(self) -> int:
        """Bytes of one packed residual."""
        return self.dim * self.nbits // 8

    @property
    def id_dtype(self) -> np.dtype:
        """Type of a stored centroid id: little-endian uint16, or uint32 beyond 65,536 centroids."""
        return np.dtype("<u2" if len(self.centroids) <= 1 << 16 else "<u4")

    @property
    def stored_bytes(self) -> int:
        """Bytes of the codec as stored: float16 centroids, float32 cutoffs and levels."""
        return 2 * self.centroids.size + 4 * (self.cutoffs.size + self.levels.size)

    @cached_property
    def codec_id(self) -> str:
        """16 hex digits of the sha256 of the codec's numbers."""
        digest = hashlib.sha256()
        for array in (self.centroids, self.cutoffs, self.levels):
            digest.update(repr(array.shape).encode() + np.ascontiguousarray(array, "<f4").tobytes())
        return digest.hexdigest()[:16]

    @classmethod
    def train(cls, vectors: np.ndarray, *, nbits: int, n_centroids: int, seed: int = 0) -> ResidualCodec:
        """Fit a codec to a sample of token vectors.

        Args:
            vectors: float32 (n, dim), unit length.
            nbits: bits per dimension: 1, 2 or 4.
            n_centroids: how many centroids; no more than ``n`` are made.
            seed: of the clustering; the same sample and seed give the same codec.

        Raises InputError for another ``nbits``, for no vectors, and where dim · nbits is no multiple of 8.
        """
        check_nbits(nbits)
        if len(vectors) == 0:
            raise InputError("a codec needs at least one vector to be fitted to")
        dim = vectors.shape[1]
        if dim * nbits % 8:
            raise InputError(f"{dim} dimensions at {nbits} bits do not fill whole bytes; choose another nbits")
        vectors = np.ascontiguousarray(vectors, np.float32)
        centroids = _spherical_kmeans(vectors, min(n_centroids, len(vectors)), seed)
        chosen = np.random.default_rng(seed).permutation(len(vectors))[:_LLOYD_SAMPLE]
        sample = vectors[chosen]
        levels = _lloyd_max(sample - centroids[nearest_centroids(sample, centroids)], nbits)
        return cls(centroids, (levels[:, 1:] + levels[:, :-1]) / 2, levels)

    def encode(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compress vectors.

        Args:
            vectors: float32 (n, dim).

        Returns:
            Centroid ids, `id_dtype` (n,), and packed residuals, uint8 (n, residual_bytes).
        """
        ids = nearest_centroids(vectors, self.centroids)
        residuals = vectors - self.centroids[ids]
        buckets = np.zeros(residuals.shape, np.uint8)
        for boundary in self.cutoffs.T:
            buckets += residuals > boundary
        return ids.astype(self.id_dtype), pack(buckets, self.nbits)

    def decode(self, centroid_ids: np.ndarray, residuals: np.ndarray) -> np.ndarray:
        """The vectors that codes stand for: float32 (n, dim), unit length."""
        rows = residuals + np.arange(0, 256 * self.residual_bytes, 256)
        vectors = self._byte_levels[rows].reshape(len(rows), self.dim)
        vectors += self.centroids[centroid_ids]
        return _unit(vectors)

    @cached_property
    def _byte_levels(self) -> np.ndarray:
        """What each value of each residual byte decodes to: float32 (residual_bytes · 256, 8 / nbits)."""
        buckets = unpack(np.arange(256, dtype=np.uint8)[:, None], self.nbits)
        levels = self.levels.reshape(self.residual_bytes, 1, -1, 1 << self.nbits)
        return np.take_along_axis(levels, buckets[None, :, :, None], axis=3).reshape(-1, 8 // self.nbits)


def check_nbits(nbits: int) -> None:
    """Raise InputError unless ``nbits`` is 1, 2 or 4."""
    if nbits not in NBITS:
        raise InputError(f"nbits is {nbits}; it must be one of {', '.join(map(str, NBITS))}")


def default_centroids(n_tokens: int) -> int:
    """ColBERTv2's rule, the power of two at or below 16 · √(tokens), but no more than a centroid for 64 tokens.

    In a small index the centroids themselves weigh much: at one for 24 tokens they took 11 of 49 bytes a token on
    `jsquad-valid` and changed hit@1 by 0.2 points, hit@3 by −0.1.
    """
    limit = min(16 * np.sqrt(n_tokens), n_tokens / 64)
    return 1 << max(0, int(np.log2(max(limit, 1))))


def pack(buckets: np.ndarray, nbits: int) -> np.ndarray:
    """Pack buckets, uint8 (n, dim) below 2**nbits, into uint8 (n, dim · nbits / 8); the first is lowest in its byte."""
    per_byte = 8 // nbits
    groups = buckets.reshape(len(buckets), buckets.shape[1] // per_byte, per_byte)
    packed = np.zeros(groups.shape[:2], np.uint8)
    for position in range(per_byte):
        packed |= groups[:, :, position] << np.uint8(position * nbits)
    return packed


def unpack(packed: np.ndarray, nbits: int) -> np.ndarray:
    """The inverse of `pack`."""
    shifts = np.arange(0, 8, nbits, dtype=np.uint8)
    buckets = packed[:, :, None] >> shifts & np.uint8((1 << nbits) - 1)
    return buckets.reshape(len(packed), packed.shape[1] * 8 // nbits)


def nearest_centroids(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """For each vector the id of the centroid with the largest dot product: int64 (n,)."""
    ids = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), _BLOCK):
        block = slice(start, start + _BLOCK)
        ids[block] = np.argmax(vectors[block] @ centroids.T, axis=1)
    return ids


def _spherical_kmeans(vectors: np.ndarray, n_centroids: int, seed: int) -> np.ndarray:
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        n_centroids,
        niter=_KMEANS_ROUNDS,
        spherical=True,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=_POINTS_PER_CENTROID,
    )
    kmeans.train(vectors)
    # Rounded here, once, so that centroids stored as float16 are the ones that residuals were taken from.
    return _unit(np.asarray(kmeans.centroids)).astype(np.float16).astype(np.float32)


def _lloyd_max(residuals: np.ndarray, nbits: int) -> np.ndarray:
    """Levels of least squared error for each column: float32 (dim, 2**nbits), ascending."""
    n, dim = residuals.shape
    n_levels = 1 << nbits
    ordered = np.sort(residuals, axis=0).T.astype(np.float64)
    sums = np.concatenate([np.zeros((dim, 1)), np.cumsum(ordered, axis=1)], axis=1)
    levels = np.quantile(ordered, (np.arange(n_levels) + 0.5) / n_levels, axis=1).T
    for _ in range(_LLOYD_ROUNDS):
        cutoffs = (levels[:, 1:] + levels[:, :-1]) / 2
        edges = np.array([np.searchsorted(row, cut, side="right") for row, cut in zip(ordered, cutoffs, strict=True)])
        edges = np.concatenate([np.zeros((dim, 1), np.int64), edges, np.full((dim, 1), n)], axis=1)
        counts = np.diff(edges, axis=1)
        means = np.diff(np.take_along_axis(sums, edges, axis=1), axis=1) / np.maximum(counts, 1)
        levels = np.where(counts > 0, means, levels)
    return levels.astype(np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
