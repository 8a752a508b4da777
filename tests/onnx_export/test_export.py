"""Checkpoint → bundle, on a tiny random BERT: the graph computes what the checkpoint does, at both precisions."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers import BertConfig, BertModel

from tansaku import CheckpointError, Encoder, Expansion, InputError, TextRules, TokenizedText, read_bundle
from tansaku.onnx_export.convert import export as export_module
from tansaku.onnx_export.convert.checkpoint import Checkpoint, linear_projection
from tansaku.onnx_export.convert.export import export_checkpoint
from tansaku.onnx_export.convert.quantize import quantize
from tansaku.training.default_model.vocabulary import build_tokenizer

from ..support.vocabulary import ASCII, KANA, vocabulary

pytestmark = pytest.mark.integration

HIDDEN, DIM, POSITIONS = 32, 16, 96
# More than 1,024 pieces, so that the embedding table is quantized too.
PIECES = vocabulary("。", "、", "<query>", *ASCII, *KANA, *map(chr, range(0x4E00, 0x4E00 + 2000)))
QUERY = TextRules("", "<query>", 24, expansion=Expansion("<mask>", "minimum", 10))
DOCUMENT = TextRules("文: ", None, POSITIONS, ("。", "、"))
CARD = "# 小さなモデル\n"

TEXTS = [
    "あ",
    "いろはにほへと、ちりぬるを。",
    "京 and Kyoto、これは ASCII と 仮名。",
    "ひさかたの ひかりのどけき はるのひに しづこころなく はなのちるらむ。" * 2,
    "x",
    "。、。",
    "世上 中丸 主 乱 予事 互五井 人 他代 仮名" * 3,
    "ながいぶん。" * 40,
]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    torch.manual_seed(11)
    config = BertConfig(
        vocab_size=len(PIECES),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=POSITIONS,
        initializer_range=0.4,  # enough for attention to tell tokens apart
        pad_token_id=1,
    )
    return Checkpoint(
        name="tiny",
        backbone=BertModel(config, add_pooling_layer=False).eval(),
        projection=linear_projection(torch.randn(DIM, HIDDEN)),
        tokenizer=build_tokenizer(PIECES, np.full(len(PIECES), -5, np.float32)),
        query=QUERY,
        document=DOCUMENT,
        origin={"licence": "MIT"},
    )


@pytest.fixture(scope="module")
def exported(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundles, one per precision. Not to be changed."""
    parent = tmp_path_factory.mktemp("exported")
    return {
        precision: export_checkpoint(checkpoint, parent / precision, precision=precision, card=CARD)
        and parent / precision
        for precision in ("float32", "int8")
    }


@pytest.fixture(scope="module", params=["float32", "int8"])
def folder(request: pytest.FixtureRequest, exported: dict[str, Path]) -> Path:
    return exported[request.param]


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return Encoder.load(folder, threads=1)


@pytest.fixture
def traced(exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the trace, which is slow, from the float32 bundle."""
    graph = onnx.load(exported["float32"] / "model.onnx")
    monkeypatch.setattr(export_module, "trace", lambda checkpoint: graph)


def torch_vectors(checkpoint: Checkpoint, text: TokenizedText) -> np.ndarray:
    """Token vectors that are kept of one text, without the exported module."""
    ids, mask = torch.from_numpy(text.ids), torch.from_numpy(text.attention)
    with torch.inference_mode():
        hidden = checkpoint.backbone(input_ids=ids[None], attention_mask=mask[None]).last_hidden_state[0]
        vectors = (hidden @ checkpoint.projection.weight.T).numpy()[text.keep]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def with_projection(checkpoint: Checkpoint, weight: torch.Tensor) -> Checkpoint:
    return dataclasses.replace(checkpoint, projection=linear_projection(weight))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# What the graph computes


@pytest.mark.parametrize("kind", ["queries", "documents"])
def test_float32_vectors_are_the_checkpoints(checkpoint, exported, kind):
    encoder = Encoder.load(exported["float32"])
    tokenized = getattr(encoder, f"tokenize_{kind}")(TEXTS)
    for text, vectors in zip(tokenized, encoder.encode_tokens(tokenized), strict=True):
        np.testing.assert_allclose(vectors, torch_vectors(checkpoint, text), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["queries", "documents"])
def test_int8_vectors_point_where_the_checkpoints_do(checkpoint, exported, kind):
    encoder = Encoder.load(exported["int8"])
    tokenized = getattr(encoder, f"tokenize_{kind}")(TEXTS)
    cosines = [
        (vectors * torch_vectors(checkpoint, text)).sum(axis=1)
        for text, vectors in zip(tokenized, encoder.encode_tokens(tokenized), strict=True)
    ]
    assert np.concatenate(cosines).mean() >= 0.99


def test_masks_that_nothing_attends_to_leave_the_other_vectors_as_they_are(encoder, folder):
    (text,) = encoder.tokenize_queries(["あいう"])
    ids, attention, keep = (values[:7] for values in (text.ids, text.attention, text.keep))
    assert text.attention.tolist() == [1] * 7 + [0] * 3
    attended = dataclasses.replace(text, attention=np.ones(10, np.int64))
    with_masks, without, other = encoder.encode_tokens([text, TokenizedText(ids, attention, keep, False), attended])
    np.testing.assert_allclose(with_masks[:7], without, atol=1e-5 if folder.name == "float32" else 1e-3, rtol=0)
    assert np.abs(other[:7] - without).max() > 0.05


def test_token_vectors_depend_on_their_text(encoder):
    # If they did not, the tests of padding and of batches would show nothing.
    one, other = encoder.encode_queries(["あいう", "あ漢字"])
    assert np.abs(one[3] - other[3]).max() > 0.05


@pytest.mark.parametrize("kind", ["encode_documents", "encode_queries"])
def test_vectors_of_a_text_do_not_depend_on_the_texts_beside_it(folder, encoder, kind):
    tolerance = 1e-5 if folder.name == "float32" else 1e-3
    encode = getattr(encoder, kind)
    for text, vectors in zip(TEXTS, encode(TEXTS), strict=True):
        (alone,) = encode([text])
        np.testing.assert_allclose(vectors, alone, atol=tolerance, rtol=0)


def test_vectors_come_in_the_order_of_the_texts(encoder):
    forwards = encoder.encode_documents(TEXTS)
    backwards = encoder.encode_documents(TEXTS[::-1])[::-1]
    for one, other in zip(forwards, backwards, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3, rtol=0)


def test_vectors_have_unit_length(encoder):
    for vectors in encoder.encode_documents(TEXTS) + encoder.encode_queries(TEXTS):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert vectors.shape[1] == encoder.dim == DIM


def test_every_token_but_skipped_ones_has_a_vector(encoder):
    # Start, space, 文, :, space, text, end.
    counts = [len(vectors) for vectors in encoder.encode_documents(["あ", "あ、い。", "。、。", "ん" * 200])]
    assert counts == [7, 8, 6, POSITIONS]
    # Start, marker, space, text, end, and masks up to 10.
    counts = [len(vectors) for vectors in encoder.encode_queries(["あ", "あ、い。", "あ" * 8, "ん" * 200])]
    assert counts == [10, 10, 12, QUERY.max_length]


def test_graph_takes_any_number_of_texts_of_any_length(folder):
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    assert {entry.name: entry.shape for entry in session.get_inputs()} == {
        "input_ids": ["batch", "length"],
        "attention_mask": ["batch", "length"],
    }
    (output,) = session.get_outputs()
    assert (output.name, output.type, output.shape) == ("token_vectors", "tensor(float)", ["batch", "length", DIM])
    for shape in [(1, 1), (1, POSITIONS), (7, 2), (33, 17)]:
        ids = np.full(shape, 9)
        (vectors,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones(shape, np.int64)})
        assert np.asarray(vectors).shape == (*shape, DIM)


# What the bundle holds


def test_bundle_holds_the_model_the_tokenizer_and_the_card(folder):
    assert sorted(contents(folder)) == ["README.md", "bundle.json", "model.onnx", "tokenizer.json"]
    assert (folder / "README.md").read_text(encoding="utf-8") == CARD


def test_bundle_says_what_the_checkpoint_does(folder, checkpoint):
    bundle = read_bundle(folder)
    assert (bundle.name, bundle.dim, bundle.precision) == ("tiny", DIM, folder.name)
    assert (bundle.query, bundle.document) == (QUERY, DOCUMENT)
    assert bundle.segmenter is None
    graph = onnx.load(folder / "model.onnx")
    assert bundle.opset == next(entry.version for entry in graph.opset_import if entry.domain == "")
    assert bundle.origin == {"licence": "MIT"}


def test_parity_is_recorded(exported):
    float32, int8 = (read_bundle(exported[precision]).parity for precision in ("float32", "int8"))
    assert float32["vectors"] == int8["vectors"] > 100
    assert float32["max_abs_difference"] <= 1e-4
    assert 1e-4 < int8["max_abs_difference"] < 0.5
    assert 0.99 <= int8["mean_cosine"] <= 1
    assert int8["min_cosine"] <= int8["mean_cosine"]


def test_no_file_holds_a_path_of_the_exporting_machine(folder):
    traces = [b"/tmp/", b"site-packages", b"onnx_export", b".py", bytes(Path.home()), bytes(Path.cwd())]
    for name, content in contents(folder).items():
        assert not [trace for trace in traces if trace in content], name


def test_int8_graph_is_the_float32_graph_quantized(exported):
    # The two were traced one after the other: so a second export gives the same bytes as the first.
    graph = quantize(onnx.load(exported["float32"] / "model.onnx"))
    assert graph.SerializeToString(deterministic=True) == onnx.load(exported["int8"] / "model.onnx").SerializeToString(
        deterministic=True
    )


def test_int8_graph_stores_its_matrices_in_bytes(exported):
    graph = onnx.load(exported["int8"] / "model.onnx").graph
    matrices = {tensor.name: tensor for tensor in graph.initializer if np.prod(tensor.dims) >= DIM * HIDDEN}
    as_bytes = [name for name, tensor in matrices.items() if tensor.data_type == TensorProto.INT8]
    assert len(as_bytes) == 2 * 6 + 1 + 1  # two layers, projection, word embeddings
    assert "MatMul" not in {node.op_type for node in graph.node}


def test_bundle_without_a_card_gets_one_that_says_what_its_json_says(checkpoint, traced, tmp_path):
    bundle = export_checkpoint(checkpoint, str(tmp_path / "new" / "bundle"), precision="float32", phrase_weight=0.25)
    assert sorted(contents(tmp_path)) == [
        f"new/bundle/{name}" for name in ("README.md", "bundle.json", "model.onnx", "tokenizer.json")
    ]
    card = (tmp_path / "new" / "bundle" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# tiny\n")
    said = [
        "float32",
        f"{DIM} dimensions",
        f"opset {bundle.opset}",
        "licence: MIT",
        "`<query>`",
        "`文: `",
        "minimum, 10",
        "neighbouring tokens in a score is 0.25",
    ]
    said += [str(QUERY.max_length), str(POSITIONS), *map(str, bundle.parity.values())]
    assert [words for words in said if words not in card] == []
    encoder = Encoder.load(tmp_path / "new" / "bundle")
    assert encoder.bundle.phrase_weight == 0.25
    assert encoder.encode_queries(["あ"])[0].shape == (10, DIM)


def test_empty_card_is_one_too(checkpoint, traced, tmp_path):
    export_checkpoint(checkpoint, tmp_path / "bundle", precision="float32", card="")
    assert contents(tmp_path / "bundle")["README.md"] == b""


def test_projection_by_one_matrix_has_its_dimensions():
    weight, bias = torch.randn(3, 5), torch.randn(3)
    x = torch.randn(2, 5)
    torch.testing.assert_close(linear_projection(weight)(x), x @ weight.T)
    torch.testing.assert_close(linear_projection(weight, bias)(x), x @ weight.T + bias)
    assert not any(parameter.requires_grad for parameter in linear_projection(weight, bias).parameters())


def test_checkpoint_has_the_dimensions_of_its_projection(checkpoint):
    assert checkpoint.dim == DIM
    deeper = torch.nn.Sequential(checkpoint.projection, torch.nn.GELU(), torch.nn.Linear(DIM, 7))
    assert dataclasses.replace(checkpoint, projection=deeper).dim == 7


def test_export_leaves_the_checkpoint_as_it_was(exported, checkpoint):
    # Tracing needs eager attention; the checkpoint's own is torch's scaled dot product.
    assert checkpoint.backbone.config._attn_implementation == "sdpa"
    assert checkpoint.origin == {"licence": "MIT"}
    with pytest.raises(TypeError, match="cannot be changed"):
        checkpoint.origin["licence"] = "other"


# Replacing, and failing


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_phrase_weight_that_is_negative_or_not_finite_is_refused(checkpoint, tmp_path, weight):
    with pytest.raises(InputError, match=r"phrase_weight is .*; it must be from 0 to 1000"):
        export_checkpoint(checkpoint, tmp_path / "bundle", phrase_weight=weight)
    assert not (tmp_path / "bundle").exists()


@pytest.fixture
def older(exported: dict[str, Path], tmp_path: Path) -> Path:
    """A folder with an older bundle."""
    older = tmp_path / "models" / "bundle"
    older.mkdir(parents=True)
    for name, content in contents(exported["float32"]).items():
        (older / name).write_bytes(content)
    return older


def test_export_replaces_the_bundle_that_is_there(checkpoint, traced, older):
    renamed = dataclasses.replace(checkpoint, name="newer")
    bundle = export_checkpoint(renamed, older, precision="int8")
    assert read_bundle(older) == bundle
    assert (bundle.name, bundle.precision) == ("newer", "int8")
    assert (older / "README.md").read_text(encoding="utf-8").startswith("# newer\n")
    assert [path.name for path in older.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("precision", ["float16", "INT8", "", None])
def test_unknown_precision_is_refused_by_name_and_leaves_nothing(checkpoint, tmp_path, precision):
    with pytest.raises(InputError, match=f'unknown precision {precision!r}; use "int8" or "float32"'):
        export_checkpoint(checkpoint, tmp_path / "new" / "bundle", precision=precision)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("float32", r"tiny: the float32 graph differs by .* from the checkpoint"),
        ("int8", r"tiny: the int8 graph's mean cosine with the checkpoint is"),
    ],
)
def test_graph_that_is_not_the_checkpoints_is_refused_and_the_older_bundle_stays(
    checkpoint, traced, older, precision, message
):
    before = contents(older)
    # The traced graph has the projection of before.
    torch.manual_seed(12)
    other = with_projection(checkpoint, checkpoint.projection.weight + torch.randn(DIM, HIDDEN))
    with pytest.raises(CheckpointError, match=message):
        export_checkpoint(other, older, precision=precision)
    assert contents(older) == before
    assert [path.name for path in older.parent.iterdir()] == ["bundle"]


def test_float32_graph_that_is_only_slightly_off_is_refused_too(checkpoint, traced, tmp_path):
    weight = checkpoint.projection.weight.clone()
    weight[0] *= 1.001
    off = with_projection(checkpoint, weight)
    with pytest.raises(CheckpointError, match="the float32 graph differs"):
        export_checkpoint(off, tmp_path / "bundle", precision="float32")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_projection_with_nan_is_refused(checkpoint, exported, monkeypatch, tmp_path, precision):
    weight = checkpoint.projection.weight.clone()
    weight[3, 5] = float("nan")
    broken = with_projection(checkpoint, weight)
    # As if traced from it.
    graph = onnx.load(exported["float32"] / "model.onnx")
    (projection,) = (tensor for tensor in graph.graph.initializer if list(tensor.dims) == [HIDDEN, DIM])
    projection.CopyFrom(numpy_helper.from_array(weight.T.numpy(), projection.name))
    monkeypatch.setattr(export_module, "trace", lambda checkpoint: graph)
    with pytest.raises(CheckpointError, match=f"tiny: the {precision} graph.* nan "):
        export_checkpoint(broken, tmp_path / "bundle", precision=precision)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def untraceable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "trace", lambda checkpoint: pytest.fail("traced"))


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "model.onnx", "sub/bundle.json"])
def test_folder_that_holds_no_bundle_is_refused_and_left_as_it_is(checkpoint, untraceable, tmp_path, name):
    mine = tmp_path / "mine"
    (mine / name).parent.mkdir(parents=True)
    (mine / name).write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="not empty and not an encoder bundle") as raised:
        export_checkpoint(checkpoint, mine)
    assert str(mine) in str(raised.value)
    assert contents(tmp_path) == {f"mine/{name}": b"mine"}


def test_file_in_place_of_the_folder_is_refused_and_left_as_it_is(checkpoint, untraceable, tmp_path):
    (tmp_path / "bundle").write_bytes(b"mine")
    with pytest.raises(InputError, match="not empty and not an encoder bundle"):
        export_checkpoint(checkpoint, tmp_path / "bundle")
    assert contents(tmp_path) == {"bundle": b"mine"}


def test_empty_folder_is_filled(checkpoint, traced, tmp_path):
    bundle = export_checkpoint(checkpoint, tmp_path, precision="float32")
    assert read_bundle(tmp_path) == bundle


@pytest.mark.parametrize("kind", ["query", "document"])
def test_longer_texts_than_the_backbone_reads_are_refused_before_tracing(checkpoint, untraceable, tmp_path, kind):
    longer = dataclasses.replace(checkpoint, **{kind: TextRules("", None, POSITIONS + 1)})
    message = f"a {kind} may have {POSITIONS + 1} tokens, but the backbone has {POSITIONS} positions; give --{kind}-"
    with pytest.raises(CheckpointError, match=message):
        export_checkpoint(longer, tmp_path / "new" / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["trace", "quantize", "measure_parity", "write_bundle"])
def test_export_that_breaks_off_leaves_the_older_bundle_and_no_other_folder(
    checkpoint, traced, older, monkeypatch, step
):
    before = contents(older)

    def disk_full(*_args, **_options):
        raise OSError("No space left on device")

    monkeypatch.setattr(export_module, step, disk_full)
    with pytest.raises(OSError, match="No space left"):
        export_checkpoint(checkpoint, older)
    assert contents(older) == before
    assert [path.name for path in older.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize(("module", "package"), [("export", "torch"), ("load", "transformers")])
def test_module_without_its_extra_names_the_package_and_the_extra(module, package):
    program = (
        "import sys\n"
        f"sys.modules['{package}'] = None\n"
        "from tansaku import MissingExtraError\n"
        "try:\n"
        f"    import tansaku.onnx_export.convert.{module}\n"
        "except MissingExtraError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"this needs the package {package}: pip install 'tansaku[export]'"


# Quantization by itself


def model_of(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], **inputs: int) -> onnx.ModelProto:
    """A graph from ``inputs``, float32 (rows, width) or, of width 0, int64 (rows,), to "out"."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width])
        if width
        else helper.make_tensor_value_info(name, TensorProto.INT64, ["rows"])
        for name, width in inputs.items()
    ]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["rows", None])
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", values, [out], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, **inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["out"], inputs)[0])


@pytest.fixture(scope="module")
def weight() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(48, 20)).astype(np.float32)


@pytest.fixture(scope="module")
def product(weight: np.ndarray) -> onnx.ModelProto:
    return quantize(model_of([helper.make_node("MatMul", ["x", "w"], ["out"])], {"w": weight}, x=48))


def test_quantized_product_is_as_near_as_its_steps_allow(product, weight):
    x = np.random.default_rng(6).normal(size=(9, 48)).astype(np.float32)
    x_step = np.abs(x).max(axis=1, keepdims=True) / 127
    w_step = np.abs(weight).max(axis=0, keepdims=True) / 64
    # Each factor is off by at most half a step.
    bound = x_step / 2 * np.abs(weight).sum(axis=0) + np.abs(x).sum(axis=1, keepdims=True) * w_step / 2
    bound += 48 * x_step * w_step / 4 + 1e-4
    error = np.abs(run(product, x=x) - x @ weight)
    assert (error <= bound).all()
    assert error.max() > 0  # it was quantized at all


def int8_weights(model: onnx.ModelProto) -> list[np.ndarray]:
    """The weights of all integer products: matrices of bytes that are not looked up."""
    looked_up = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return [v for name, v in values.items() if v.dtype == np.int8 and v.ndim == 2 and name not in looked_up]


def test_weights_leave_room_for_the_sum_of_two_products_in_16_bits(product, exported):
    # Without VNNI a processor adds u8 · s8 + u8 · s8 in 16 bits, and saturates: 2 · 255 · 64 just fits.
    weights = int8_weights(product) + int8_weights(onnx.load(exported["int8"] / "model.onnx"))
    assert len(weights) == 1 + 2 * 6 + 1
    for values in weights:
        assert values.dtype == np.int8
        np.testing.assert_array_equal(np.abs(values.astype(int)).max(axis=0), 64)


@pytest.mark.parametrize("sign", [1, -1])
def test_product_of_nothing_but_the_largest_values_does_not_saturate(sign):
    weight = np.full((64, 8), 3 * sign, np.float32)
    product = quantize(model_of([helper.make_node("MatMul", ["x", "w"], ["out"])], {"w": weight}, x=64))
    x = np.full((2, 64), 5, np.float32)
    np.testing.assert_allclose(run(product, x=x), x @ weight, rtol=1e-5)


def test_an_outlier_token_changes_no_other_token(product):
    x = np.random.default_rng(6).normal(size=(9, 48)).astype(np.float32)
    beside = x.copy()
    beside[4] *= 1e4
    np.testing.assert_array_equal(np.delete(run(product, x=beside), 4, 0), np.delete(run(product, x=x), 4, 0))


def test_token_of_zeros_stays_zero(product):
    out = run(product, x=np.zeros((2, 48), np.float32))
    assert not out.any()


def test_column_of_zero_weights_gives_zeros(weight):
    weight = weight.copy()
    weight[:, 3] = 0
    product = quantize(model_of([helper.make_node("MatMul", ["x", "w"], ["out"])], {"w": weight}, x=48))
    out = run(product, x=np.ones((2, 48), np.float32))
    assert not out[:, 3].any()
    assert np.isfinite(out).all()


def test_products_that_share_a_weight_or_an_input_are_all_quantized(weight):
    other = weight[::-1].copy()
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["y", "w"], ["b"]),
        helper.make_node("MatMul", ["x", "v"], ["c"]),
        helper.make_node("Sum", ["a", "b", "c"], ["out"]),
    ]
    model = model_of(nodes, {"w": weight, "v": other}, x=48, y=48)
    x, y = np.random.default_rng(7).normal(size=(2, 3, 48)).astype(np.float32)
    quantized = quantize(model)
    assert "MatMul" not in {node.op_type for node in quantized.graph.node}
    expected = run(model, x=x, y=y)
    error = np.linalg.norm(run(quantized, x=x, y=y) - expected) / np.linalg.norm(expected)
    assert 0 < error < 0.02


def test_product_of_two_inputs_stays_as_it_is():
    model = model_of(
        [helper.make_node("Transpose", ["y"], ["t"]), helper.make_node("MatMul", ["x", "t"], ["out"])], {}, x=4, y=4
    )
    x, y = np.random.default_rng(8).normal(size=(2, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(quantize(model), x=x, y=y), run(model, x=x, y=y))


@pytest.mark.parametrize(("rows", "is_quantized"), [(1023, False), (1024, True)])
def test_embedding_table_of_1024_rows_is_quantized_row_by_row(rows, is_quantized):
    table = np.random.default_rng(9).normal(size=(rows, 8)).astype(np.float32)
    table[1] *= 1e3
    table[2] = 0
    model = model_of([helper.make_node("Gather", ["table", "ids"], ["out"])], {"table": table}, ids=0)
    ids = np.array([0, 1, 2, rows - 1, 0])
    error = np.abs(run(quantize(model), ids=ids) - table[ids])
    assert (error <= np.abs(table[ids]).max(axis=1, keepdims=True) / 127 * 0.501).all()
    assert bool(error.any()) is is_quantized


def assert_near(actual: np.ndarray, expected: np.ndarray) -> None:
    error = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
    assert 0 < error < 0.03  # 0 would mean that nothing was quantized


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    return np.random.default_rng(10).normal(size=(1024, 16)).astype(np.float32)


def test_table_that_is_looked_up_twice_is_quantized_once(table):
    nodes = [
        helper.make_node("Gather", ["table", "i"], ["a"]),
        helper.make_node("Gather", ["table", "j"], ["b"], axis=0),
        helper.make_node("Add", ["a", "b"], ["out"]),
    ]
    quantized = quantize(model_of(nodes, {"table": table}, i=0, j=0))
    i, j = np.array([0, 5, 1023]), np.array([7, 5, 0])
    assert_near(run(quantized, i=i, j=j), table[i] + table[j])
    large = [tensor for tensor in quantized.graph.initializer if np.prod(tensor.dims) >= table.size]
    assert [(tuple(tensor.dims), tensor.data_type) for tensor in large] == [(table.shape, TensorProto.INT8)]


def test_matrix_that_is_looked_up_and_multiplied_too_is_quantized_for_both(table):
    nodes = [
        helper.make_node("Gather", ["table", "i"], ["a"]),
        helper.make_node("MatMul", ["x", "table"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["out"]),
    ]
    quantized = quantize(model_of(nodes, {"table": table}, i=0, x=1024))
    i = np.array([0, 5, 1023])
    x = np.random.default_rng(11).normal(size=(3, 1024)).astype(np.float32) / 32  # so that both weigh the same
    assert_near(run(quantized, i=i, x=x), table[i] + x @ table)
    assert "table" not in {tensor.name for tensor in quantized.graph.initializer}


def test_columns_that_are_looked_up_stay_as_they_are(table):
    nodes = [helper.make_node("Gather", ["table", "i"], ["a"], axis=1), helper.make_node("Transpose", ["a"], ["out"])]
    i = np.array([0, 15, 3])
    np.testing.assert_array_equal(run(quantize(model_of(nodes, {"table": table}, i=0)), i=i), table.T[i])


def test_products_with_nothing_between_them_are_quantized(weight):
    other = np.random.default_rng(12).normal(size=(20, 12)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["a", "v"], ["out"])]
    x = np.random.default_rng(13).normal(size=(3, 48)).astype(np.float32)
    assert_near(run(quantize(model_of(nodes, {"w": weight, "v": other}, x=48)), x=x), x @ weight @ other)


def test_product_of_what_was_looked_up_is_quantized(table):
    other = np.random.default_rng(12).normal(size=(16, 12)).astype(np.float32)
    nodes = [helper.make_node("Gather", ["table", "i"], ["a"]), helper.make_node("MatMul", ["a", "v"], ["out"])]
    i = np.array([0, 5, 1023])
    assert_near(run(quantize(model_of(nodes, {"table": table, "v": other}, i=0)), i=i), table[i] @ other)


def test_quantizing_leaves_the_float32_graph_as_it_was(weight):
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["out"])], {"w": weight}, x=48)
    before = model.SerializeToString(deterministic=True)
    quantize(model)
    assert model.SerializeToString(deterministic=True) == before
