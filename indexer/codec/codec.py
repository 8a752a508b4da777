"""The residual codec: a token vector becomes the id of its nearest centroid and a few bits per dimension.

As in ColBERTv2 (Santhanam et al., 2022), a vector v is stored as its centroid c and the quantized residual v − c. The
residual is cut into one piece for each stored byte, of 8 / nbits dimensions, and each piece is replaced by the nearest
of 256 codewords (product quantization: Jégou et al., 2011). With the same number of bytes the error is smaller than
with ColBERTv2's buckets, which are the same for all dimensions: `benchmarks.index.codecs` compares them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ...onnx_export.errors import InputError
from .clustering import cluster, nearest

if TYPE_CHECKING:  # it is loaded where rows are written; searches do without
    import faiss

OUTGROWN_REMEDY = (
    "has grown far beyond the documents that its codec was trained on: searches look at more documents, which takes "
    "longer; train a new codec with Index.rebuild (tansaku rebuild)"
)
NBITS = (1, 2, 4)
MOST_CENTROIDS = 1 << 15

_MAX_NUMBER = 2.1  # in a centroid or a residual: a difference of two unit vectors has no more than 2
_FEWEST_PER_CENTROID = 32  # sampled vectors
_CODEWORD_SAMPLE = 131_072
_CODEWORD_ROUNDS = 10
# Residuals drawn from codewords that are there, where a codec is adapted: as a share of the sample's, and at least.
_DRAWN_SHARE, _FEWEST_DRAWN = 0.3, 16_384


@dataclass(frozen=True)
class ResidualCodec:
    """Compresses token vectors to centroid ids and residuals; `ResidualCodec.train` fits one to a sample.

    Attributes:
        centroids: float32 (n_centroids, dim), unit length; representable in float16.
        groups: int32 (groups + 1,): offsets of the groups of centroids, see `clustering.nearest`.
        codewords: float32 (residual_bytes, 256, 8 / nbits), representable in float16: what each value of each byte of
            a residual decodes to.

    Example:
        >>> import numpy as np
        >>> from tansaku import ResidualCodec
        >>> vectors = np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float32)
        >>> vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        >>> codec = ResidualCodec.train(vectors, nbits=2, n_centroids=16)
        >>> centroid_ids, residuals = codec.encode(vectors)
        >>> centroid_ids.dtype, residuals.shape
        (dtype('uint16'), (1000, 4))
        >>> cosines = (codec.decode(centroid_ids, residuals) * vectors).sum(axis=1)
        >>> bool(cosines.mean() > 0.9)
        True
    """

    centroids: np.ndarray
    groups: np.ndarray
    codewords: np.ndarray

    def __reduce__(self) -> tuple[type[ResidualCodec], tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Pickled without what is made of the arrays: faiss's objects cannot be pickled."""
        return ResidualCodec, (self.centroids, self.groups, self.codewords)

    @property
    def dim(self) -> int:
        """Length of a token vector."""
        return self.centroids.shape[1]

    @property
    def nbits(self) -> int:
        """Bits per dimension of a residual."""
        return 8 // self.codewords.shape[2]

    @property
    def residual_bytes(self) -> int:
        """Number of bytes of one residual: dim · nbits / 8."""
        return self.codewords.shape[0]

    @property
    def id_dtype(self) -> np.dtype:
        """Dtype of a stored centroid id: little-endian uint16, or uint32 with more than 65,536 centroids."""
        return np.dtype("<u2" if len(self.centroids) <= 1 << 16 else "<u4")

    @property
    def stored_bytes(self) -> int:
        """Number of bytes of the codec as stored: float16 centroids and codewords, int32 groups."""
        return 2 * self.centroids.size + 2 * self.codewords.size + 4 * self.groups.size

    @cached_property
    def codec_id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the codec's arrays."""
        digest = hashlib.sha256()
        for array, kind in ((self.centroids, "<f4"), (self.groups, "<i4"), (self.codewords, "<f4")):
            digest.update(repr(array.shape).encode() + np.ascontiguousarray(array, kind).tobytes())
        return digest.hexdigest()[:16]

    @classmethod
    def train(cls, vectors: np.ndarray, *, nbits: int, n_centroids: int, seed: int = 0) -> ResidualCodec:
        """Fit a codec to a sample of token vectors.

        Args:
            vectors: float32 (n, dim), unit length.
            nbits: bits per dimension of a residual: 1, 2 or 4.
            n_centroids: number of centroids; at most ``n`` are made.
            seed: seed of the clustering. The same sample and seed give the same codec.

        Returns:
            The codec.

        Raises:
            InputError: ``nbits`` is another number, dim · nbits is not a multiple of 8, or ``vectors`` is empty or has
                numbers that are not finite.
        """
        check_nbits(nbits)
        if len(vectors) == 0:
            raise InputError("a codec needs at least one vector to be trained on")
        dim = vectors.shape[1]
        if dim * nbits % 8:
            raise InputError(f"{dim} dimensions at {nbits} bits do not fill whole bytes; choose another nbits")
        vectors = _checked_sample(vectors)
        centroids, groups = cluster(vectors, n_centroids, seed)
        # Rounded before residuals are computed: they then belong to the centroids as stored, in float16.
        centroids = _through_float16(centroids)
        residuals = _sampled_residuals(vectors, centroids, groups, seed)
        return cls(centroids, groups, _train_codewords(residuals, dim * nbits // 8, seed))

    def adapted(self, vectors: np.ndarray, *, n_centroids: int, seed: int = 0) -> ResidualCodec:
        """Fit this codec to a sample of other vectors, without spoiling it for its own kind.

        The centroids of the sample join those that are there. Codewords are trained on the residuals of the sample,
        and on residuals drawn from the codewords that are there.

        Args:
            vectors: float32 (n, dim), unit length; ``n`` is 1 or more.
            n_centroids: number of centroids for the sample; at most ``n`` are made.
            seed: seed of the clustering.

        Returns:
            Another codec, with as many bits.

        Raises:
            InputError: ``vectors`` has numbers that are not finite.
        """
        vectors = _checked_sample(vectors)
        added, groups = cluster(vectors, n_centroids, seed)
        centroids = np.concatenate([self.centroids, _through_float16(added)])
        groups = np.concatenate([self.groups, groups[1:] + len(self.centroids)]).astype(np.int32)
        residuals = _sampled_residuals(vectors, centroids, groups, seed)
        n_drawn = max(int(_DRAWN_SHARE * len(residuals)), _FEWEST_DRAWN)
        codes = np.random.default_rng(seed).integers(0, 256, (n_drawn, self.residual_bytes))
        drawn = self.codewords[np.arange(self.residual_bytes), codes].reshape(n_drawn, self.dim)
        codewords = _train_codewords(np.concatenate([residuals, drawn]), self.residual_bytes, seed)
        return ResidualCodec(centroids, groups, codewords)

    def encode(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compress vectors.

        Args:
            vectors: float32 (n, dim), unit length.

        Returns:
            Centroid ids, `id_dtype` (n,), and residuals, uint8 (n, residual_bytes).
        """
        ids, _ = self.nearest(vectors)
        return ids, self.quantize(vectors, ids)

    def nearest(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the nearest centroid of each vector.

        Args:
            vectors: float32 (n, dim), unit length.

        Returns:
            Centroid ids, `id_dtype` (n,), and the dot products with these centroids, float32 (n,).
        """
        ids, similarities = nearest(vectors, self.centroids, self.groups)
        return ids.astype(self.id_dtype), similarities

    def quantize(self, vectors: np.ndarray, centroid_ids: np.ndarray) -> np.ndarray:
        """Compress the residuals of vectors from their centroids.

        Args:
            vectors: float32 (n, dim), unit length.
            centroid_ids: integer (n,).

        Returns:
            Residuals, uint8 (n, residual_bytes).
        """
        return self._quantizer.compute_codes(np.ascontiguousarray(vectors - self.centroids[centroid_ids]))

    def decode(self, centroid_ids: np.ndarray, residuals: np.ndarray) -> np.ndarray:
        """Decode vectors from their codes, with the error of compression.

        Args:
            centroid_ids: integer (n,).
            residuals: uint8 (n, residual_bytes).

        Returns:
            Vectors, float32 (n, dim), unit length.
        """
        rows = residuals + np.arange(0, 256 * self.residual_bytes, 256)
        vectors = self.codewords.reshape(-1, 8 // self.nbits)[rows].reshape(len(rows), self.dim)
        vectors += self.centroids[centroid_ids]
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    @cached_property
    def _quantizer(self) -> faiss.ProductQuantizer:
        return _product_quantizer(self.codewords)


def check_nbits(nbits: int) -> None:
    """Check a number of bits per dimension.

    Args:
        nbits: the number.

    Raises:
        InputError: it is not 1, 2 or 4.
    """
    if nbits not in NBITS:
        raise InputError(f"nbits is {nbits!r}; it must be one of {', '.join(map(str, NBITS))}")


def check_numbers(codec: ResidualCodec) -> None:
    """Check a codec that was read from a file or a table.

    Args:
        codec: the codec, whose arrays may be of any kind.

    Raises:
        ValueError: it is no codec; the message names the array.
    """
    centroids, groups, codewords = codec.centroids, codec.groups, codec.codewords
    if centroids.ndim != 2 or codewords.ndim != 3 or groups.ndim != 1 or groups.dtype.kind != "i":
        raise ValueError("its arrays have other shapes")
    nbits = 8 // max(codewords.shape[2], 1)
    if nbits not in NBITS or codewords.shape != (codec.dim * nbits // 8, 256, 8 // nbits):
        raise ValueError("codewords do not go with the centroids")
    for name, array in (("centroids", centroids), ("codewords", codewords)):
        if array.dtype != np.float32 or not (np.abs(array) <= _MAX_NUMBER).all():  # false for NaN, too
            raise ValueError(f"{name} are not those of vectors of unit length")
    if len(groups) < 2 or groups[0] != 0 or groups[-1] != len(centroids) or (np.diff(groups) < 0).any():
        raise ValueError("groups do not divide the centroids")


def default_centroids(n_tokens: int, n_sampled: int | None = None) -> int:
    """Choose the number of centroids: ColBERTv2's rule, with at most one centroid for 64 tokens, and at most 32,768.

    ColBERTv2's rule is the largest power of two up to 16 · √tokens. In a small index the centroids themselves take much
    space: with one for 24 tokens they took 11 of 49 bytes per token on `jsquad-valid`, and changed hit@1 by 0.2 points
    and hit@3 by −0.1. In a large one every search scores all centroids, and routing points (`derived.routing`) find
    candidates better than more centroids do.

    Args:
        n_tokens: number of token vectors of the index.
        n_sampled: number of token vectors that the codec is trained on; None: all. Each centroid gets 32 or more.

    Returns:
        The number of centroids, a power of two.
    """
    most = MOST_CENTROIDS if n_sampled is None else min(MOST_CENTROIDS, n_sampled / _FEWEST_PER_CENTROID)
    return min(centroids_by_the_rule(n_tokens), _power_of_two(most))


def centroids_by_the_rule(n_tokens: int) -> int:
    """`default_centroids` without its highest number.

    Args:
        n_tokens: number of token vectors of the index.
    """
    return _power_of_two(min(16 * np.sqrt(n_tokens), n_tokens / 64))


def _power_of_two(limit: float) -> int:
    return 1 << max(0, int(np.log2(max(limit, 1))))


def _checked_sample(vectors: np.ndarray) -> np.ndarray:
    if not np.isfinite(vectors).all():
        raise InputError("the sample for the codec has vectors that are not finite; check the model")
    return np.ascontiguousarray(vectors, np.float32)


def _sampled_residuals(vectors: np.ndarray, centroids: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    sample = vectors[np.random.default_rng(seed).permutation(len(vectors))[:_CODEWORD_SAMPLE]]
    ids, _ = nearest(sample, centroids, groups)
    return sample - centroids[ids]


def _train_codewords(residuals: np.ndarray, n_bytes: int, seed: int) -> np.ndarray:
    """k-means for all pieces of the residuals at once, float32 (n_bytes, 256, dim / n_bytes).

    faiss's `compute_codes` assigns the pieces. Its own training is about ten times slower for such short pieces.
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
            # A codeword without any piece starts again at a random one.
            start = piece * words.shape[1]
            words[~used] = residuals[draw.integers(n, size=np.count_nonzero(~used)), start : start + words.shape[1]]
    return _through_float16(codewords)


def _pieces(residuals: np.ndarray, n_bytes: int) -> np.ndarray:
    return residuals.reshape(len(residuals), n_bytes, -1)


def _product_quantizer(codewords: np.ndarray) -> faiss.ProductQuantizer:
    import faiss

    n_bytes, _, length = codewords.shape
    quantizer = faiss.ProductQuantizer(n_bytes * length, n_bytes, 8)
    faiss.copy_array_to_vector(np.ascontiguousarray(codewords, np.float32).ravel(), quantizer.centroids)
    return quantizer


def _through_float16(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float16).astype(np.float32)
