"""Token pooling: a document's near-alike token vectors become one, so that it takes a fraction of the room."""

from __future__ import annotations

import numpy as np

from ...onnx_export.errors import InputError, MissingExtraError

_NO_DIRECTION = 1e-6  # a mean shorter than this is rounding error


def pool_tokens(vectors: np.ndarray, factor: int) -> np.ndarray:
    """About one vector for every ``factor`` of a document's, by Ward clustering over cosine distances.

    Clavié, Chaffin and Adams 2024 (arXiv 2409.14683). As in sentence-transformers and PyLate, the first vector (the
    start token's) stays as it is, and the other n - 1 become max(1, (n - 1) // factor) clusters, or fewer where merges
    tie. Each cluster becomes its mean, brought to unit length; the order is that of the clusters' first vectors.

    Args:
        vectors: float32 (n, dim), unit length, in the order of the text.
        factor: 1 leaves ``vectors`` as they are.

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
    # Not a matrix product: BLAS would wake its threads for each document, and they wait for the encoder's.
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
    # Opposite vectors have no mean direction; any one of them is as near as can be.
    lost = np.linalg.norm(means, axis=1) < _NO_DIRECTION
    means[lost] = vectors[first[lost]]
    return means / np.linalg.norm(means, axis=1, keepdims=True)
