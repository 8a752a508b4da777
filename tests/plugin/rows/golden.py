"""A small codec and token vectors, whose codes are written out in docs/reference/codes.md."""

from __future__ import annotations

import numpy as np

from tansaku import ResidualCodec

MODEL = "0123456789abcdef"
ROW_VECTORS = "fedcba9876543210"


def golden_codec() -> ResidualCodec:
    """Four centroids of 8 dimensions, 2 bits; each two bits of a byte stand for −3/16, −1/16, 1/16 or 3/16."""
    centroids = np.zeros((4, 8), np.float32)
    centroids[[0, 1, 2, 3], [0, 1, 2, 3]] = [1, 1, 1, -1]
    byte, position = np.arange(256)[:, None], np.arange(4)
    words = ((byte >> 2 * position) & 3) * 0.125 - 0.1875
    return ResidualCodec(centroids, np.array([0, 4], np.int32), np.stack([words, words]).astype(np.float32))


def golden_vectors() -> np.ndarray:
    """Two token vectors, float32 (2, 8), of unit length."""
    vectors = np.array(
        [[0.75, 0.5, 0.25, 0.05, -0.05, 0.25, -0.05, 0.25], [0.05, 0.1, -0.04, -0.9, 0.3, 0.04, -0.2, 0.2]], np.float32
    )
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
