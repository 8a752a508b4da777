"""The residual codec: a token vector becomes the id of its nearest centroid and a few bits per dimension.

As in ColBERTv2 (Santhanam et al., 2022), a vector v is stored as its centroid c and the quantized residual v − c. The
residual is cut into one piece for each stored byte, of 8 / nbits dimensions, and each piece is replaced by the nearest
of 256 codewords (product quantization: Jégou et al., 2011). For the same bytes this errs less than ColBERTv2's buckets
for single dimensions, of which every dimension has the same: `benchmarks.index.codecs` compares them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import faiss
import numpy as np

from ...onnx_export.errors import InputError
from .clustering import cluster, nearest

NBITS = (1, 2, 4)

_CODEWORD_SAMPLE = 131_072
_CODEWORD_ROUNDS = 10


@dataclass(frozen=True)
class ResidualCodec:
    """Centroids and codewords.

    Attributes:
        centroids: float32 (n_centroids, dim), unit length; representable in float16.
        groups: int32 (groups + 1,): centroids of one group lie together; see `clustering.nearest`.
        codewords: float32 (residual_bytes, 256, 8 / nbits), representable in float16: what the values of each byte of
            a residual decode to.
    """

    centroids: np.ndarray
    groups: np.ndarray
    codewords: np.ndarray

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.centroids.shape[1]

    @property
    def nbits(self) -> int:
        """Bits per dimension of a residual."""
        return 8 // self.codewords.shape[2]

    @property
    def residual_bytes(self) -> int:
        """Bytes of one residual."""
        return self.codewords.shape[0]

    @property
    def id_dtype(self) -> np.dtype:
        """Type of a stored centroid id: little-endian uint16, or uint32 beyond 65,536 centroids."""
        return np.dtype("<u2" if len(self.centroids) <= 1 << 16 else "<u4")

    @property
    def stored_bytes(self) -> int:
        """Bytes of the codec as stored: float16 centroids and codewords, int32 groups."""
        return 2 * self.centroids.size + 2 * self.codewords.size + 4 * self.groups.size

    @cached_property
    def codec_id(self) -> str:
        """16 hex digits of the sha256 of the codec's numbers."""
        digest = hashlib.sha256()
        for array, kind in ((self.centroids, "<f4"), (self.groups, "<i4"), (self.codewords, "<f4")):
            digest.update(repr(array.shape).encode() + np.ascontiguousarray(array, kind).tobytes())
        return digest.hexdigest()[:16]

    @classmethod
    def train(cls, vectors: np.ndarray, *, nbits: int, n_centroids: int, seed: int = 0) -> ResidualCodec:
        """Fit a codec to a sample of token vectors.

        Args:
            vectors: float32 (n, dim), unit length.
            nbits: bits per dimension: 1, 2 or 4.
            n_centroids: how many centroids; no more than ``n`` are made.
            seed: of the clustering; the same sample and seed give the same codec.

        Raises InputError for another ``nbits``, for no vectors, for NaN, and where dim · nbits is no multiple of 8.
        """
        check_nbits(nbits)
        if len(vectors) == 0:
            raise InputError("a codec needs at least one vector to be fitted to")
        dim = vectors.shape[1]
        if dim * nbits % 8:
            raise InputError(f"{dim} dimensions at {nbits} bits do not fill whole bytes; choose another nbits")
        if not np.isfinite(vectors).all():
            raise InputError("the sample for the codec holds vectors that are not finite")
        vectors = np.ascontiguousarray(vectors, np.float32)
        centroids, groups = cluster(vectors, n_centroids, seed)
        # Rounded here, once, so that centroids stored as float16 are the ones that residuals were taken from.
        centroids = _through_float16(centroids)
        chosen = np.random.default_rng(seed).permutation(len(vectors))[:_CODEWORD_SAMPLE]
        sample = vectors[chosen]
        ids, _ = nearest(sample, centroids, groups)
        return cls(centroids, groups, _train_codewords(sample - centroids[ids], dim * nbits // 8, seed))

    def encode(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compress vectors.

        Args:
            vectors: float32 (n, dim).

        Returns:
            Centroid ids, `id_dtype` (n,), and residuals, uint8 (n, residual_bytes).
        """
        ids, _ = self.nearest(vectors)
        return ids, self.quantize(vectors, ids)

    def nearest(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The centroid of each vector and how near it is: ids, `id_dtype` (n,), and dot products, float32 (n,)."""
        ids, similarities = nearest(vectors, self.centroids, self.groups)
        return ids.astype(self.id_dtype), similarities

    def quantize(self, vectors: np.ndarray, centroid_ids: np.ndarray) -> np.ndarray:
        """The residuals of vectors from their centroids, compressed: uint8 (n, residual_bytes)."""
        return self._quantizer.compute_codes(np.ascontiguousarray(vectors - self.centroids[centroid_ids]))

    def decode(self, centroid_ids: np.ndarray, residuals: np.ndarray) -> np.ndarray:
        """The vectors that codes stand for: float32 (n, dim), unit length."""
        rows = residuals + np.arange(0, 256 * self.residual_bytes, 256)
        vectors = self.codewords.reshape(-1, 8 // self.nbits)[rows].reshape(len(rows), self.dim)
        vectors += self.centroids[centroid_ids]
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    @cached_property
    def _quantizer(self) -> faiss.ProductQuantizer:
        return _product_quantizer(self.codewords)


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


def _train_codewords(residuals: np.ndarray, n_bytes: int, seed: int) -> np.ndarray:
    """k-means for all pieces of the residuals at once, float32 (n_bytes, 256, dim / n_bytes).

    The assignment is faiss's `compute_codes`: its own training does the same some ten times slower for pieces so short.
    """
    n = len(residuals)
    draw = np.random.default_rng(seed)
    chosen = draw.permutation(max(n, 256))[:256] % n
    codewords = _pieces(residuals[chosen], n_bytes).transpose(1, 0, 2).copy()
    for _ in range(_CODEWORD_ROUNDS):
        codes = _product_quantizer(codewords).compute_codes(residuals)
        for piece, words in enumerate(codewords):
            counts = np.bincount(codes[:, piece], minlength=256)
            used = counts > 0
            for position in range(words.shape[1]):
                column = residuals[:, piece * words.shape[1] + position]
                sums = np.bincount(codes[:, piece], column, minlength=256)
                words[used, position] = sums[used] / counts[used]
            # A word that nothing is nearest to starts again elsewhere.
            start = piece * words.shape[1]
            words[~used] = residuals[draw.integers(n, size=np.count_nonzero(~used)), start : start + words.shape[1]]
    return _through_float16(codewords)


def _pieces(residuals: np.ndarray, n_bytes: int) -> np.ndarray:
    return residuals.reshape(len(residuals), n_bytes, -1)


def _product_quantizer(codewords: np.ndarray) -> faiss.ProductQuantizer:
    n_bytes, _, length = codewords.shape
    quantizer = faiss.ProductQuantizer(n_bytes * length, n_bytes, 8)
    faiss.copy_array_to_vector(np.ascontiguousarray(codewords, np.float32).ravel(), quantizer.centroids)
    return quantizer


def _through_float16(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float16).astype(np.float32)
