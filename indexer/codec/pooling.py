"""Token pooling: similar token vectors of a document are averaged into one, which saves space."""

from __future__ import annotations

import numpy as np

from ...onnx_export.errors import InputError, MissingExtraError

_NO_DIRECTION = 1e-6  # a mean shorter than this is rounding error


def pool_tokens(vectors: np.ndarray, factor: int) -> np.ndarray:
    """Reduce the token vectors of a text to about 1 / ``factor`` of them, by Ward clustering of cosine distances.

    Clavié, Chaffin and Adams 2024 (arXiv 2409.14683). As in sentence-transformers and PyLate, the first vector (the
    start token's) is kept, and the other n - 1 become max(1, (n - 1) // factor) clusters, or fewer if merges tie. Each
    cluster becomes its mean, scaled to unit length. The order is that of the clusters' first vectors.

    Args:
        vectors: float32 (n, dim), unit length, in the order of the text.
        factor: pooling factor; 1 returns ``vectors`` unchanged.

    Returns:
        float32 (m, dim), unit length.

    Raises:
        InputError: ``factor`` is less than 1.
        MissingExtraError: the extra ``pooling`` is not installed.
    """
    if factor < 1:
        raise InputError(f"the pooling factor is {factor}; it must be 1 or more")
    if factor == 1:
        return vectors
    try:
        from scipy.cluster import hierarchy
        from scipy.spatial.distance import pdist
    except ModuleNotFoundError as error:
        raise MissingExtraError("scipy", "pooling") from error
    rest = vectors[1:]
    n_clusters = max(1, len(rest) // factor)
    if n_clusters >= len(rest):
        return vectors
    # A matrix product would start BLAS's threads for each document, and they compete with the encoder's.
    tree = hierarchy.linkage(pdist(rest, "cosine"), method="ward")
    labels = hierarchy.fcluster(tree, n_clusters, criterion="maxclust")
    return np.concatenate([vectors[:1], _directions(rest, labels)])


def _directions(vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean direction of each label's vectors, in the order of the labels' first vectors."""
    _, first, label_ids, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first)
    members = np.argsort(np.argsort(order)[label_ids], kind="stable")
    first, counts = first[order], counts[order]
    starts = np.cumsum(counts) - counts
    means = np.add.reduceat(vectors[members], starts, axis=0) / counts[:, None].astype(np.float32)
    # Opposite vectors have no mean direction; the first of them is used.
    lost = np.linalg.norm(means, axis=1) < _NO_DIRECTION
    means[lost] = vectors[first[lost]]
    return means / np.linalg.norm(means, axis=1, keepdims=True)
