"""The codec in a bundle: trained once on texts of many kinds, for indexes too small to train a whole one.

A codec that is trained on a few documents fits these, and little of what is added later. One that comes with the model
fits other texts less well. So a small index adapts that one to its documents (`ResidualCodec.adapted`).
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...onnx_export.encode.bundle import Bundle, read_bundle, write_bundle
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import BundleError, InputError
from ...onnx_export.files import atomic_path
from ...onnx_export.progress import Progress, no_progress
from ..plain_files import open_plain
from .codec import ResidualCodec, check_numbers

CODEC_FILE = "codec.npz"
CENTROIDS = 4096  # with 8,192 a codec was no better on texts of a kind that it was not trained on

_TEXTS_AT_ONCE = 512
_MOST_VECTORS = 1_000_000


def bundled_codec(encoder: Encoder, nbits: int | None = None) -> ResidualCodec | None:
    """The codec in the bundle of an encoder.

    Args:
        encoder: the encoder.
        nbits: bits per dimension of a residual; None: as many as it has.

    Returns:
        The codec; None if the bundle has none, or one with another number of bits.

    Raises:
        BundleError: the file is damaged, or its codec is for vectors of another length.
    """
    folder, name = encoder.folder, encoder.bundle.codec
    if folder is None or name is None:
        return None
    path = folder / name
    try:
        with open_plain(path) as file, np.load(file, allow_pickle=False) as arrays:
            centroids, codewords = (arrays[part].astype(np.float32) for part in ("centroids", "codewords"))
            codec = ResidualCodec(centroids, arrays["groups"].astype(np.int32), codewords)
        check_numbers(codec)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path}: cannot be read ({error}); copy the bundle again") from error
    if codec.dim != encoder.dim:
        raise BundleError(f"{path}: for vectors of {codec.dim} dimensions, not {encoder.dim}; copy the bundle again")
    return codec if nbits in (None, codec.nbits) else None


def add_codec(folder: str | os.PathLike[str], codec: ResidualCodec) -> Bundle:
    """Put a codec into a bundle, in place of the one that it has. Indexes made with the bundle stay as they are.

    Args:
        folder: the bundle's folder.
        codec: the codec, for vectors of the bundle's model.

    Returns:
        The bundle with its codec.

    Raises:
        BundleError: there is no complete bundle in ``folder``.
        InputError: the codec is for vectors of another length.
    """
    folder = Path(folder)
    bundle = read_bundle(folder)
    if codec.dim != bundle.dim:
        raise InputError(f"the codec has {codec.dim} dimensions, and vectors of the model have {bundle.dim}")
    with atomic_path(folder / CODEC_FILE) as making, making.open("wb") as file:
        np.savez(
            file,
            centroids=codec.centroids.astype("<f2"),
            groups=codec.groups.astype("<i4"),
            codewords=codec.codewords.astype("<f2"),
        )
    return write_bundle(folder, dataclasses.replace(bundle, codec=CODEC_FILE))


def train_on_texts(
    encoder: Encoder, texts: Sequence[str], *, nbits: int = 2, progress: Progress = no_progress
) -> ResidualCodec:
    """Train a codec for `add_codec`.

    Args:
        encoder: the model.
        texts: texts of many kinds, in any order: as many are encoded as give a million token vectors.
        nbits: bits per dimension of a residual.
        progress: called for each batch of texts.

    Raises:
        InputError: there are too few texts for so many centroids.
    """
    parts: list[np.ndarray] = []
    total = 0
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        encoded = encoder.encode_documents(texts[start : start + _TEXTS_AT_ONCE])
        parts += encoded
        total += sum(map(len, encoded))
        progress("sample", min(start + _TEXTS_AT_ONCE, len(texts)), len(texts), total)
        if total >= _MOST_VECTORS:
            break
    if total < 32 * CENTROIDS:
        raise InputError(
            f"a codec needs {32 * CENTROIDS:,} token vectors to be trained on, and the texts have {total:,}; give more "
            "texts, of many kinds"
        )
    return ResidualCodec.train(np.concatenate(parts), nbits=nbits, n_centroids=CENTROIDS)
