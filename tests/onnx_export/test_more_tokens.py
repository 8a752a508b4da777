"""More tokens for a bundle: rows of its embedding table and pieces of its vocabulary."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, processors

from tansaku import BundleError, Encoder, InputError
from tansaku.onnx_export.convert.more_tokens import add_tokens
from tansaku.onnx_export.convert.quantize import embedding_rows
from tansaku.onnx_export.encode.bundle import Bundle, write_bundle
from tansaku.onnx_export.encode.rules import TextRules

DIM = 4
PIECES = ["<s>", "</s>", "<unk>", "試", "験", "山"]
BYTES = {f"<0x{byte:02X}>": -1e4 for byte in range(256)}


@pytest.fixture
def folder(tmp_path):
    """A bundle whose vectors are the rows of its table."""
    rows, scales = embedding_rows(np.random.default_rng(0).standard_normal((len(PIECES), DIM)).astype(np.float32))
    nodes = [
        helper.make_node("Gather", ["table_rows", "input_ids"], ["bytes"]),
        helper.make_node("Gather", ["table_rows_scale", "input_ids"], ["scales"]),
        helper.make_node("Cast", ["bytes"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scales"], ["token_vectors"]),
    ]
    ids = [helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "t"]) for n in ("input_ids", "attention_mask")]
    out = [helper.make_tensor_value_info("token_vectors", TensorProto.FLOAT, ["b", "t", DIM])]
    tensors = [numpy_helper.from_array(rows, "table_rows"), numpy_helper.from_array(scales, "table_rows_scale")]
    graph = helper.make_graph(nodes, "rows", ids, out, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    tokenizer = Tokenizer(models.Unigram([(piece, -5.0) for piece in PIECES], unk_id=2))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    rules = TextRules(prefix="", marker=None, max_length=64)
    write_bundle(tmp_path, Bundle(name="rows", dim=DIM, precision="int8", query=rules, document=rules))
    return tmp_path


def tokens(folder, text):
    return Encoder.load(folder, threads=1).tokenize_documents([text])[0].ids[1:-1].tolist()


def test_new_tokens_have_their_rows_and_the_old_ones_keep_theirs(folder):
    before = Encoder.load(folder, threads=1)
    (old,) = before.encode_documents(["試験山"])
    rows = np.array([[1, 2, 3, 4], [-1, 0, 0, 1]], np.float32)
    bundle = add_tokens(folder, {"川": -6.0, "谷": -6.0}, rows, origin={"more": 2})
    encoder = Encoder.load(folder, threads=1)
    np.testing.assert_array_equal(encoder.encode_documents(["試験山"])[0], old)
    np.testing.assert_allclose(encoder.encode_documents(["谷川"])[0][1:-1], rows[::-1], atol=0.02)
    assert bundle.fingerprint != before.bundle.fingerprint
    assert bundle.origin["more"] == 2


def test_without_bytes_unknown_characters_are_one_token_and_with_them_each_is_its_own(folder):
    assert tokens(folder, "鰯") == tokens(folder, "鮒")
    add_tokens(folder, BYTES, np.ones((256, DIM), np.float32), byte_fallback=True)
    first = len(PIECES)
    assert tokens(folder, "鰯") == [first + byte for byte in "鰯".encode()]
    assert tokens(folder, "鰯") != tokens(folder, "鮒")
    assert tokens(folder, "山鰯")[0] == PIECES.index("山")


def test_a_normalizer_takes_the_place_of_the_old_one(folder):
    island = {"type": "Replace", "pattern": {"String": "嶋"}, "content": "山"}
    add_tokens(folder, {"川": -6.0}, np.ones((1, DIM), np.float32), normalizer=island)
    assert tokens(folder, "嶋") == tokens(folder, "山")


@pytest.mark.parametrize(
    ("pieces", "rows", "says"),
    [
        ({"山": -6.0}, np.ones((1, DIM)), "has '山' already"),
        ({"川": -6.0}, np.ones((2, DIM)), r"shape \(2, 4\), expected \(1, 4\)"),
        ({"川": -6.0}, np.full((1, DIM), np.nan), "finite"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(folder, pieces, rows, says):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InputError, match=says):
        add_tokens(folder, pieces, rows.astype(np.float32))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_bundle_without_an_int8_table_is_refused(folder):
    model = onnx.load(str(folder / "model.onnx"))
    model.graph.initializer[1].name = "scales_of_rows"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    rules = TextRules(prefix="", marker=None, max_length=64)
    write_bundle(folder, Bundle(name="rows", dim=DIM, precision="int8", query=rules, document=rules))
    with pytest.raises(BundleError, match="no int8 embedding table of 6 rows"):
        add_tokens(folder, {"川": -6.0}, np.ones((1, DIM), np.float32))


def test_a_vocabulary_that_is_not_unigram_is_refused(folder):
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"] = {"type": "WordPiece", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    rules = TextRules(prefix="", marker=None, max_length=64)
    write_bundle(folder, Bundle(name="rows", dim=DIM, precision="int8", query=rules, document=rules))
    with pytest.raises(BundleError, match="the vocabulary is WordPiece, not Unigram"):
        add_tokens(folder, {"川": -6.0}, np.ones((1, DIM), np.float32))
