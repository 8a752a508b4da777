"""Running a bundle: which vectors come back for which text, whatever else is encoded beside it.

Most tests run a graph that is small enough to be computed again in NumPy: token embedding plus the mean embedding
of what the text attends to, to unit length. The mean makes padding that leaks into a text show. The last tests run the
bundle that ships inside.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tansaku import Bundle, BundleError, Encoder, Expansion, InputError, TextRules, TokenizedText
from tansaku.onnx_export.encode.bundle import write_bundle
from tansaku.onnx_export.encode.encoder import SLOW_FUSIONS, graph_inputs, runs
from tansaku.onnx_export.encode.find_bundle import DEFAULT_BUNDLE
from tansaku.training.default_model.vocabulary import build_tokenizer

from ..support.vocabulary import vocabulary

DIM = 6
PIECES = vocabulary("。", "、", *"検索質問文書あいうえお", "<query>", "<document>")
ID = {piece: i for i, piece in enumerate(PIECES)}
TABLE = np.random.default_rng(3).normal(size=(len(PIECES), DIM)).astype(np.float32)
QUERY = TextRules("", "<query>", 12)
DOCUMENT = TextRules("", "<document>", 600, ("。", "、", "▁"))


def vectors_by_hand(*pieces: str, unattended: int = 0) -> np.ndarray:
    """What the graph computes for one text alone, whose last ``unattended`` tokens no token attends to."""
    rows = TABLE[[ID[piece] for piece in pieces]]
    vectors = rows + rows[: len(rows) - unattended].mean(axis=0)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def graph() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask_column"]),
        helper.make_node("Mul", ["rows", "mask_column"], ["text_rows"]),
        helper.make_node("ReduceSum", ["text_rows", "middle"], ["sum"], keepdims=1),
        helper.make_node("ReduceSum", ["mask_column", "middle"], ["tokens"], keepdims=1),
        helper.make_node("Div", ["sum", "tokens"], ["mean"]),
        helper.make_node("Add", ["rows", "mean"], ["mixed"]),
        helper.make_node("LpNormalization", ["mixed"], ["token_vectors"], axis=-1, p=2),
    ]
    shape = ["batch", "length"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("token_vectors", TensorProto.FLOAT, [*shape, DIM])]
    constants = {"table": TABLE, "last": np.array([-1]), "middle": np.array([1])}
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = helper.make_graph(nodes, "mean", inputs, outputs, initializers)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def make_bundle(
    folder: Path,
    query: TextRules = QUERY,
    document: TextRules = DOCUMENT,
    *,
    dim: int = DIM,
    model: onnx.ModelProto | None = None,
) -> Path:
    folder.mkdir()
    onnx.save(model or graph(), folder / "model.onnx")
    build_tokenizer(PIECES, np.full(len(PIECES), -5, np.float32)).save(str(folder / "tokenizer.json"))
    write_bundle(folder, Bundle("mean", dim, "float32", query, document))
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(make_bundle(tmp_path_factory.mktemp("encoder") / "bundle"), threads=1)


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, atol=1e-5, rtol=0)


# Which vectors


def test_query_has_one_vector_per_token(encoder):
    (vectors,) = encoder.encode_queries(["検索、"])
    assert_close(vectors, vectors_by_hand("<s>", "<query>", "▁", "検", "索", "、", "</s>"))
    assert vectors.dtype == np.float32
    assert vectors.shape == (7, encoder.dim)


def test_skipped_tokens_of_a_document_leave_no_vectors_but_still_count_as_context(encoder):
    (vectors,) = encoder.encode_documents(["検、索。"])
    every = vectors_by_hand("<s>", "<document>", "▁", "検", "、", "索", "。", "</s>")
    assert_close(vectors, every[[0, 1, 3, 5, 7]])


def test_queries_and_documents_follow_their_own_rules(encoder):
    text = "検索。" * 20
    (query,) = encoder.encode_queries([text])
    (document,) = encoder.encode_documents([text])
    assert len(query) == QUERY.max_length
    assert len(document) == 2 + 40 + 1  # start and marker, all but the full stops, end


def test_cut_document_has_the_vectors_of_its_cut_tokens(tmp_path):
    encoder = Encoder.load(make_bundle(tmp_path / "bundle", document=TextRules("質問", None, 6)), threads=1)
    (vectors,) = encoder.encode_documents(["検索文書"])
    assert_close(vectors, vectors_by_hand("<s>", "▁", "質", "問", "検", "</s>"))


def test_vectors_have_unit_length(encoder):
    for vectors in encoder.encode_documents(["あ", "検索。文書", "い" * 500, "漢字"]):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_counts_of_documents_say_which_are_cut(encoder):
    texts = ["検索。文書", "あ" * 595, "あ" * 597, "い" * 900]
    # Start, marker, space and end, and what the rules for documents skip counts too.
    assert encoder.count_document_tokens(texts) == [9, 599, 601, 904]
    assert encoder.count_document_tokens(iter(texts)) == [9, 599, 601, 904]
    assert [text.truncated for text in encoder.tokenize_documents(texts)] == [False, False, True, True]


def test_tokenizing_first_gives_the_same_vectors(encoder):
    texts = ["検索。文書", "あ" * 700, "い"]
    tokenized = encoder.tokenize_documents(texts)
    assert [text.truncated for text in tokenized] == [False, True, False]
    vectors = encoder.encode_tokens(tokenized)
    for text, one, other in zip(tokenized, vectors, encoder.encode_documents(texts), strict=True):
        np.testing.assert_array_equal(one, other)
        assert len(one) == text.keep.sum()


# Mask tokens


@pytest.fixture(scope="module", params=[False, True], ids=["unattended", "attended"])
def attend(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(scope="module")
def expanding(attend: bool, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    query = TextRules("", "<query>", 16, expansion=Expansion("<mask>", "fixed", 16, attend))
    return Encoder.load(make_bundle(tmp_path_factory.mktemp("expanding") / "bundle", query), threads=1)


def test_masks_have_vectors_and_change_those_of_the_text_only_if_it_attends_to_them(expanding, attend):
    (vectors,) = expanding.encode_queries(["検索、"])
    tokens = ["<s>", "<query>", "▁", "検", "索", "、", "</s>"]
    assert_close(vectors, vectors_by_hand(*tokens, *["<mask>"] * 9, unattended=0 if attend else 9))
    without_masks = vectors_by_hand(*tokens)
    if attend:
        assert np.abs(vectors[:7] - without_masks).max() > 0.1
    else:
        assert_close(vectors[:7], without_masks)


def test_vectors_of_a_query_with_masks_do_not_depend_on_the_others(expanding, attend):
    texts = ["検", "検索。" * 9, "い", "あいうえお"] * 20
    for text, vectors in zip(texts, expanding.encode_queries(texts), strict=True):
        tokens = [*["<s>", "<query>", "▁", *text][:15], "</s>"]
        masks = 16 - len(tokens)
        assert_close(vectors, vectors_by_hand(*tokens, *["<mask>"] * masks, unattended=0 if attend else masks))


def test_documents_get_no_masks_of_the_queries(expanding):
    (vectors,) = expanding.encode_documents(["検索"])
    assert_close(vectors, vectors_by_hand("<s>", "<document>", "▁", "検", "索", "</s>")[[0, 1, 3, 4, 5]])


def test_tokenizing_queries_first_gives_the_same_vectors(expanding, attend):
    texts = ["検索", "あ" * 20]
    tokenized = expanding.tokenize_queries(texts)
    assert [text.truncated for text in tokenized] == [False, True]
    assert [len(text.ids) for text in tokenized] == [16, 16]
    assert [text.attention.sum() for text in tokenized] == [16 if attend else 6, 16]
    for one, other in zip(expanding.encode_tokens(tokenized), expanding.encode_queries(texts), strict=True):
        np.testing.assert_array_equal(one, other)


# Many texts


text_lists = st.lists(st.text("検索質問文書あいうえお。、 ", min_size=1, max_size=80).filter(str.strip), max_size=12)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(text_lists)
def test_each_text_has_the_vectors_it_has_alone_in_the_order_of_the_texts(encoder, texts):
    together = encoder.encode_documents(texts)
    assert len(together) == len(texts)
    for text, vectors in zip(texts, together, strict=True):
        (alone,) = encoder.encode_documents([text])
        assert_close(vectors, alone)


def test_order_is_kept_over_several_runs_of_the_graph(encoder):
    lengths = [1, 500, 3, 590, 20, 590, 7, 300] * 3
    texts = ["検索質問文書あいうえお"[i % 11] * length for i, length in enumerate(lengths)]
    for text, vectors in zip(texts, encoder.encode_documents(texts), strict=True):
        tokens = vectors_by_hand("<s>", "<document>", "▁", *text, "</s>")
        assert_close(vectors, np.delete(tokens, 2, axis=0))


class Recorder:
    """Stands in for the graph and notes the shape of every batch."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, int]] = []

    def run(self, _outputs, feeds):
        ids, mask = feeds["input_ids"], feeds["attention_mask"]
        assert ids.shape == mask.shape
        assert ids.dtype == mask.dtype == np.int64
        self.shapes.append(ids.shape)
        return [np.zeros((*ids.shape, DIM), np.float32)]


def tokenized_text(length: int, masks: int = 0) -> TokenizedText:
    """``length`` tokens and then ``masks`` that nothing attends to."""
    attention = np.repeat([1, 0], [length, masks])
    return TokenizedText(np.full(length + masks, 5), attention, np.ones(length + masks, bool), False)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(
    "lengths", [[1] * 3000, [600] * 20, [5, 600, 40, 1, 300] * 40, [3000], [512, 513, 1], [256, 257, 1]], ids=len
)
def test_no_run_takes_more_than_512_tokens_unless_one_text_alone_has_more(encoder, lengths, threads):
    recorder = Recorder()
    session = cast("onnxruntime.InferenceSession", recorder)
    recording = Encoder(encoder.bundle, session, encoder._parts.tokenize_query._tokenizer, threads=threads)
    limit = 512
    vectors = recording.encode_tokens([tokenized_text(n) for n in lengths])
    assert [len(one) for one in vectors] == lengths
    assert all(rows * width <= limit or rows == 1 for rows, width in recorder.shapes)
    assert sum(rows for rows, _ in recorder.shapes) == len(lengths)
    # As many of one length as fit go together.
    shapes = sorted(recorder.shapes, key=lambda shape: (-shape[1], -shape[0]))  # threads end in any order
    for (rows, width), (_, after) in itertools.pairwise(shapes):
        assert (rows + 1) * width > limit or after < width


SHAPES = st.tuples(st.integers(1, 40), st.integers(0, 3)).map(lambda shape: tokenized_text(*shape))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(SHAPES, max_size=80), st.integers(1, 300))
def test_runs_hold_every_text_once_longest_first_unpadded_and_no_more_than_the_limit(texts, limit):
    groups = list(runs(texts, limit))
    assert sorted(i for group in groups for i in group) == list(range(len(texts)))
    in_order = [len(texts[i].ids) for group in groups for i in group]
    assert in_order == sorted(in_order, reverse=True)
    for group in groups:
        shapes = {(len(texts[i].ids), texts[i].attention.sum()) for i in group}
        assert len(shapes) == 1
        assert len(group) == 1 or len(group) * len(texts[group[0]].ids) <= limit


def test_graph_takes_texts_side_by_side_filled_up_with_what_nothing_attends_to():
    inputs = graph_inputs([tokenized_text(2), tokenized_text(3, masks=2), tokenized_text(4)])
    assert inputs["input_ids"].tolist() == [[5, 5, 0, 0, 0], [5] * 5, [5, 5, 5, 5, 0]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]
    assert {values.dtype for values in inputs.values()} == {np.dtype(np.int64)}


def test_slow_fusion_is_one_that_onnx_runtime_knows_and_leaves_out(tmp_path):
    # A name that it does not know would be ignored in silence.
    def operators(disabled: list[str]) -> set[str]:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        onnxruntime.InferenceSession(
            add_and_normalize().SerializeToString(), options, providers=providers, disabled_optimizers=disabled
        )
        return {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}

    assert operators([]) == {"SkipLayerNormalization"}
    assert operators(SLOW_FUSIONS) == {"Add", "LayerNormalization"}


def add_and_normalize() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("LayerNormalization", ["sum", "scale", "shift"], ["out"], axis=-1),
    ]
    shape = [1, 4, 8]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "ab"]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)]
    constants = [numpy_helper.from_array(np.ones(8, np.float32), name) for name in ("scale", "shift")]
    made = helper.make_graph(nodes, "norm", inputs, outputs, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("method", ["encode_queries", "encode_documents"])
@pytest.mark.parametrize("iterable", [iter, tuple, dict.fromkeys, lambda texts: (text for text in texts)])
def test_any_iterable_of_texts_is_encoded(encoder, method, iterable):
    texts = ["検索", "文書。あ", "い"]
    encode = getattr(encoder, method)
    for vectors, expected in zip(encode(iterable(texts)), encode(texts), strict=True):
        np.testing.assert_array_equal(vectors, expected)


@pytest.mark.parametrize("method", ["tokenize_queries", "tokenize_documents"])
def test_generator_of_texts_is_tokenized(encoder, method):
    tokenized = getattr(encoder, method)(text for text in ["検索", "い"])
    assert [len(text.ids) for text in tokenized] == [6, 5]


def test_unusable_text_of_a_generator_is_refused_by_its_position(encoder):
    with pytest.raises(InputError, match="text 1 is empty"):
        encoder.encode_documents(text for text in ["検索", " "])


def test_no_texts_give_no_vectors(encoder):
    assert encoder.encode_queries([]) == []
    assert encoder.encode_documents([]) == []
    assert encoder.encode_documents(iter([])) == []
    assert encoder.encode_tokens([]) == []


def test_number_of_threads_changes_no_vector(tmp_path):
    folder = make_bundle(tmp_path / "bundle")
    texts = ["検索", "あ。" * 100, *("あ" * n for n in range(1, 60))]
    one, four = (Encoder.load(folder, threads=threads).encode_documents(texts) for threads in (1, 4))
    for a, b in zip(one, four, strict=True):
        np.testing.assert_array_equal(a, b)


# Refusals


@pytest.mark.parametrize(
    "method",
    ["encode_queries", "encode_documents", "tokenize_queries", "tokenize_documents", "count_document_tokens"],
)
def test_one_str_is_refused_with_the_remedy(encoder, method):
    with pytest.raises(InputError, match="expected a list of texts, found one str; put it in a list"):
        getattr(encoder, method)("検索")


@pytest.mark.parametrize("method", ["encode_queries", "encode_documents"])
@pytest.mark.parametrize(
    ("bad", "message"), [("", "text 1 is empty"), (" \n", "text 1 is empty"), (None, "text 1 is NoneType")]
)
def test_unusable_text_is_refused_by_its_position(encoder, method, bad, message):
    with pytest.raises(InputError, match=message):
        getattr(encoder, method)(["検索", bad, "文書"])


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_refused_by_number(tmp_path, threads):
    with pytest.raises(InputError, match=f"threads is {threads}; it must be a whole number of 1 or more"):
        Encoder.load(tmp_path, threads=threads)


def test_folder_without_a_bundle_is_refused_by_name(tmp_path):
    with pytest.raises(BundleError, match=r"no bundle\.json here"):
        Encoder.load(str(tmp_path))


def test_altered_graph_is_refused_by_name(tmp_path):
    folder = make_bundle(tmp_path / "bundle")
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=r"model\.onnx: sha256 is"):
        Encoder.load(folder)


@pytest.mark.parametrize("file", ["model.onnx", "tokenizer.json"])
@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"no" * 99])
def test_damaged_file_with_a_fitting_sha256_is_refused_by_folder(tmp_path, file, damage):
    folder = make_bundle(tmp_path / "bundle")
    (folder / file).write_bytes(damage((folder / file).read_bytes()))
    write_bundle(folder, Bundle("mean", DIM, "float32", QUERY, DOCUMENT))
    with pytest.raises(BundleError, match="the graph or the tokenizer cannot be loaded") as raised:
        Encoder.load(folder)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("dim", [DIM - 1, DIM + 1, 128])
def test_dim_that_is_not_the_graphs_is_refused_with_both_named(tmp_path, dim):
    folder = make_bundle(tmp_path / "bundle", dim=dim)
    with pytest.raises(BundleError, match=rf"model\.onnx: .* vectors of {DIM} dimensions; expected .* and {dim}"):
        Encoder.load(folder)


def test_graph_with_another_input_is_refused_by_name(tmp_path):
    model = graph()
    model.graph.input[1].name = model.graph.node[1].input[0] = "token_type_ids"
    folder = make_bundle(tmp_path / "bundle", model=model)
    with pytest.raises(BundleError, match=r"model\.onnx: takes input_ids, token_type_ids and"):
        Encoder.load(folder)


def test_graph_whose_output_has_no_dimensions_is_refused(tmp_path):
    model = graph()
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    folder = make_bundle(tmp_path / "bundle", model=model)
    with pytest.raises(BundleError, match=r"model\.onnx"):
        Encoder.load(folder)


@pytest.mark.parametrize(
    "rules",
    [
        {"query": TextRules("", "<q>", 8)},
        {"document": TextRules("", None, 8, ("<q>",))},
        {"query": TextRules("", None, 8, expansion=Expansion("<q>", "paper"))},
    ],
    ids=["marker", "skiplist", "mask"],
)
def test_rules_that_name_a_token_the_tokenizer_lacks_are_refused(tmp_path, rules):
    folder = make_bundle(tmp_path / "bundle", **rules)
    with pytest.raises(BundleError, match=r"name the token '<q>', which the tokenizer") as raised:
        Encoder.load(folder)
    assert str(raised.value).startswith(f"{folder}: ")


# The default bundle

SENTENCES = [
    "猫",
    "梅雨がないのはどこですか。",
    "ＣｏｌＢＥＲＴは、文書をトークンごとのベクトルで表す。 Late interaction keeps one vector per token.",
    "京都市は、日本の京都府の南部に位置する市で、同府の府庁所在地である。",
    "データベースのインデックスを再構築するには、次の手順を実行します。",
    "富士山は、静岡県と山梨県に跨る活火山である。標高3776.12 m、日本最高峰の独立峰である。" * 3,
    "スマートフォンの電池を長持ちさせる方法",
    "雪舟は、室町時代に活躍した水墨画家・禅僧で、画聖とも称えられる。" * 12,
    "ﾊﾝｶｸ ｶﾅ",
    "😀と\u200b制御\x07文字",
    "\ud800",
    "\x00\x01",
    "👩‍👩‍👧‍👧" * 30,
    "長" * 100_000,
]


@pytest.fixture(scope="module")
def sentence_vectors(default_encoder: Encoder) -> list[np.ndarray]:
    return default_encoder.encode_documents(SENTENCES)


def test_default_bundle_says_what_its_vectors_are(default_encoder, sentence_vectors):
    content = json.loads((DEFAULT_BUNDLE / "bundle.json").read_text(encoding="utf-8"))
    assert default_encoder.dim == content["dim"]
    for vectors in sentence_vectors:
        assert vectors.shape[1] == content["dim"]
        assert vectors.dtype == np.float32


def test_default_vectors_have_unit_length(sentence_vectors):
    for vectors in sentence_vectors:
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_default_vectors_of_a_sentence_do_not_depend_on_the_others(default_encoder, sentence_vectors):
    for sentence, vectors in zip(SENTENCES, sentence_vectors, strict=True):
        (alone,) = default_encoder.encode_documents([sentence])
        np.testing.assert_allclose(vectors, alone, atol=1e-3, rtol=0)


def test_default_bundle_keeps_no_vectors_of_punctuation(default_encoder):
    skiplist = default_encoder.bundle.document.skiplist
    assert {"。", "、", "「", "」", "・"} <= set(skiplist)
    plain, marked = default_encoder.encode_documents(["東京 京都", "東京、京都。"])
    assert len(plain) == len(marked)


@pytest.mark.parametrize("text", ["<s>", "</s>", "<mask>東京", "東京<pad>", "<unk>", "＜ｓ＞"])
def test_text_that_spells_a_special_token_is_read_letter_by_letter_by_the_default_bundle(default_encoder, text):
    special = [0, 1, 2, 3]
    (tokenized,) = default_encoder.tokenize_documents([text])
    assert not np.isin(tokenized.ids[1:-1], special).any()


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("日本でいちばん高い山は？", 5),
        ("京都府の役所はどの市にあるか", 3),
        ("水墨画を描いた室町時代の人物", 7),
        ("索引を作り直す手順", 4),
        ("スマホのバッテリーの持ちをよくしたい", 6),
    ],
)
def test_default_bundle_finds_the_sentence_that_answers(default_encoder, sentence_vectors, query, answer):
    (query_vectors,) = default_encoder.encode_queries([query])
    scores = [(query_vectors @ vectors.T).max(axis=1).sum() for vectors in sentence_vectors]
    assert int(np.argmax(scores)) == answer


def test_default_bundle_is_no_larger_than_40_mb():
    size = sum(file.stat().st_size for file in DEFAULT_BUNDLE.rglob("*") if file.is_file())
    assert size <= 40e6


def test_encoding_loads_neither_torch_nor_transformers(tmp_path):
    program = (
        "import sys\n"
        "from tansaku import Encoder\n"
        "(vectors,) = Encoder.load(threads=1).encode_queries(['探索'])\n"
        "print(len(vectors), *sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    tokens, *modules = done.stdout.split()
    assert int(tokens) >= 3
    assert "onnxruntime" in modules
    assert not {"torch", "transformers", "onnx", "onnxscript", "safetensors"} & set(modules)
