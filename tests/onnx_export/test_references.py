"""Parity: our vectors of the tiny checkpoints are those of the libraries that the formats come from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tansaku import Encoder
from tansaku.onnx_export.convert.checkpoint import Checkpoint
from tansaku.onnx_export.convert.export import export_checkpoint
from tansaku.onnx_export.convert.load import load_checkpoint
from tansaku.onnx_export.convert.trace import token_vectors_module
from tansaku.onnx_export.encode.encoder import graph_inputs
from tansaku.onnx_export.encode.segmenter import MecabSegmenter, load_segmenter
from tansaku.onnx_export.encode.tokenize import TextTokenizer, TokenizedText

from ..support import checkpoints

pytestmark = pytest.mark.integration

REFERENCES = Path(__file__).parent / "references"
LIBRARIES = ("colbert", "pylate", "sentence_transformers")
ROLES = ("query", "document")
# The references round to 2⁻¹⁸ and sum in another order; a wrong weight, mask or position costs more than 0.01.
TOLERANCE = 1e-5


@lru_cache
def golden(library: str) -> dict[str, Any]:
    with np.load(REFERENCES / f"{library}.npz") as file:
        arrays = {name: file[name] for name in file.files}
    return {**arrays, "about": json.loads(str(arrays["about"]))}


CASES = {(library, name): case for library in LIBRARIES for name, case in golden(library)["about"]["cases"].items()}
# All other roles of all other cases are compared.
DIFFERENT = {
    ("colbert", "full-length-search", "query"): (
        "a search-time option that widens one query up to 500 tokens and cuts its last words; ours are 'paper' and "
        "'shipped', which the files do not name either"
    ),
}
COMPARED = [(*case, role) for case in CASES for role in ROLES if (*case, role) not in DIFFERENT]


@dataclass(frozen=True)
class Text:
    """What a reference, or tansaku, makes of one text."""

    ids: np.ndarray
    kept: np.ndarray
    vectors: np.ndarray


def golden_texts(library: str, case: str, role: str) -> dict[str, Text]:
    """By text, but for the empty one, which tansaku refuses (tests/onnx_export/test_tokenize.py)."""
    arrays = golden(library)
    texts: list[str] = arrays["about"]["texts"]
    ids, kept, vectors, lengths = (arrays[f"{case}/{role}/{part}"] for part in ("ids", "kept", "vectors", "lengths"))
    ends = np.cumsum(lengths)[:-1]
    ids, kept = np.split(ids, ends), np.split(kept, ends)
    vectors = np.split(vectors, np.cumsum([row.sum() for row in kept])[:-1])
    assert texts.count("") == 1
    return {text: Text(*parts) for text, *parts in zip(texts, ids, kept, vectors, strict=True) if text}


def tokenizer(checkpoint: Checkpoint, role: str) -> TextTokenizer:
    segment = load_segmenter(checkpoint.segmenter, checkpoint.tokenizer)
    return TextTokenizer(checkpoint.tokenizer, getattr(checkpoint, role), segment)


def torch_texts(checkpoint: Checkpoint, tokenized: list[TokenizedText]) -> list[Text]:
    """Vectors as the graph computes them, in torch, of one padded batch."""
    inputs = graph_inputs(tokenized)
    with torch.inference_mode():
        output = token_vectors_module(checkpoint)(*map(torch.from_numpy, inputs.values())).numpy()
    return [
        Text(text.ids, text.keep, vectors[: len(text.ids)][text.keep])
        for text, vectors in zip(tokenized, output, strict=True)
    ]


def load_like_references(folder: Path) -> Checkpoint:
    # The references fill Stanford's queries to a fixed length; our default is the paper's dynamic one.
    is_stanford = (folder / "artifact.metadata").exists()
    return load_checkpoint(folder, query_expansion="fixed" if is_stanford else None)


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory):
    """Case → its checkpoint, loaded once."""
    parent = tmp_path_factory.mktemp("checkpoints")

    @lru_cache
    def load(library: str, name: str) -> Checkpoint:
        case = CASES[library, name]
        return load_like_references(checkpoints.make(parent / library / name, case["maker"], case["options"]))

    return load


def assert_equal(actual: Text, expected: Text, text: str, tolerance: float = TOLERANCE) -> None:
    assert actual.ids.tolist() == expected.ids.tolist(), text
    assert actual.kept.tolist() == expected.kept.tolist(), text
    np.testing.assert_allclose(actual.vectors, expected.vectors, atol=tolerance, rtol=0, err_msg=text)


@pytest.mark.parametrize(("library", "case", "role"), COMPARED, ids=map("-".join, COMPARED))
def test_ids_kept_positions_and_vectors_are_the_references(load, library: str, case: str, role: str):
    checkpoint = load(library, case)
    expected = golden_texts(library, case, role)
    tokenized = tokenizer(checkpoint, role)(list(expected))
    actual = torch_texts(checkpoint, tokenized)
    for text, ours in zip(expected, actual, strict=True):
        assert_equal(ours, expected[text], text)


def test_every_case_is_compared():
    # If this number falls, a reference lost cases or a difference was added.
    assert (len(CASES), len(DIFFERENT), len(COMPARED)) == (45, 1, 89)
    assert {len(golden_texts(*case)) for case in COMPARED} == {14}


def test_full_length_search_differs_in_queries_that_do_not_fit_only(load):
    # Guards the reason given above.
    expected = golden_texts("colbert", "full-length-search", "query")
    checkpoint = load("colbert", "full-length-search")
    tokenized = tokenizer(checkpoint, "query")(list(expected))
    differing = []
    for text, ours in zip(expected, torch_texts(checkpoint, tokenized), strict=True):
        if len(expected[text].ids) == checkpoint.query.max_length:
            assert_equal(ours, expected[text], text)
        else:
            differing.append(text)
    assert len(differing) == 2
    assert all(row.truncated == (text in differing) for text, row in zip(expected, tokenized, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "case"),
    [("colbert", "japanese"), ("pylate", "rich-layers"), ("sentence_transformers", "bert")],
    ids=["stanford-japanese", "pylate-rich-layers", "multi_vector_encoder-bert"],
)
def test_exported_bundle_gives_the_references_vectors(load, tmp_path: Path, library: str, case: str):
    export_checkpoint(load(library, case), tmp_path / "bundle", precision="float32")
    encoder = Encoder.load(tmp_path / "bundle", threads=1)
    for role, encode in (("query", encoder.encode_queries), ("document", encoder.encode_documents)):
        expected = golden_texts(library, case, role)
        for text, vectors in zip(expected, encode(expected), strict=True):
            np.testing.assert_allclose(vectors, expected[text].vectors, atol=1e-4, rtol=0, err_msg=text)


@pytest.mark.parametrize(
    ("maker", "options"),
    [
        ("pylate", {"config": {"document_length": 40}}),
        ("stanford", {"architectures": ["HF_ColBERT"], "metadata": {"doc_maxlen": 40}}),
    ],
    ids=["pylate", "stanford"],
)
def test_vectors_are_those_of_the_installed_sentence_transformers(tmp_path: Path, maker: str, options: dict):
    library = pytest.importorskip("sentence_transformers", minversion="6")
    folder = checkpoints.make(tmp_path / "checkpoint", maker, options)
    model = library.MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)
    checkpoint = load_like_references(folder)
    texts = [text for text in golden("sentence_transformers")["about"]["texts"] if text]
    for role, encode in (("query", model.encode_query), ("document", model.encode_document)):
        actual = torch_texts(checkpoint, tokenizer(checkpoint, role)(texts))
        expected = encode(texts, convert_to_numpy=True, show_progress_bar=False)
        for text, ours, theirs in zip(texts, actual, expected, strict=True):
            np.testing.assert_allclose(ours.vectors, theirs, atol=TOLERANCE, rtol=0, err_msg=text)


# Where loaders of JaColBERT are known to go wrong


@pytest.fixture(scope="module")
def japanese(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as JaColBERTv2.4 is published: the architecture is BertModel. Not to be changed."""
    return checkpoints.stanford(tmp_path_factory.mktemp("japanese") / "checkpoint")


def of_length(tokens: int) -> str:
    """A text of that many tokens, start, marker and end included."""
    return " ".join("1234567890"[place % 10] for place in range(tokens - 3))


def tokens(checkpoint: Checkpoint, row: TokenizedText) -> list[str | None]:
    return [checkpoint.tokenizer.id_to_token(token_id) for token_id in row.ids.tolist()]


@pytest.mark.parametrize("architectures", [["BertModel"], ["HF_ColBERT"], None], ids=str)
def test_projection_is_the_trained_one_whatever_the_architecture_is_called(tmp_path: Path, architectures):
    # PyLate and sentence-transformers go by the name, and draw a random projection for BertModel.
    folder = checkpoints.stanford(tmp_path / "checkpoint", architectures=architectures)
    trained = checkpoints.backbone(len(checkpoints.pieces()))["encoder.layer.1.output.dense.weight"]
    checkpoint = load_checkpoint(folder)
    backbone = checkpoint.backbone.state_dict()["encoder.layer.1.output.dense.weight"]
    np.testing.assert_array_equal(backbone.numpy(), trained)
    projection = load_file(folder / "model.safetensors")["linear.weight"]
    assert isinstance(checkpoint.projection, torch.nn.Linear)
    np.testing.assert_array_equal(checkpoint.projection.weight.numpy(), projection)
    assert (checkpoint.query.marker, checkpoint.document.marker) == ("[unused0]", "[unused1]")
    assert checkpoint.query.expansion is not None


LENGTHS = (6, 8, 9, 24, 25, 31, 32, 33, 40, 41, 63)
EXPANDED = {
    "paper": (32, 32, 32, 32, 33, 39, 40, 64, 64, 64, 71),
    "shipped": (14, 16, 32, 32, 32, 32, 40, 41, 48, 64, 64),
    "fixed": (32,) * 11,
    "none": LENGTHS,
}


@pytest.mark.parametrize("rule", [None, *EXPANDED])
def test_queries_reach_the_length_of_the_rule(japanese: Path, rule):
    checkpoint = load_checkpoint(japanese, query_expansion=rule)
    rows = tokenizer(checkpoint, "query")([of_length(length) for length in LENGTHS])
    expected = EXPANDED[rule or "paper"]
    if rule == "none":  # then the checkpoint's own length cuts
        expected = tuple(min(length, 32) for length in expected)
    assert tuple(len(row.ids) for row in rows) == expected
    assert [row.truncated for row in rows] == [rule in ("fixed", "none") and length > 32 for length in LENGTHS]
    for row, length in zip(rows, LENGTHS, strict=True):
        own = min(length, 32) if row.truncated else length
        assert tokens(checkpoint, row)[own - 1 :] == ["[SEP]", *["[MASK]"] * (len(row.ids) - own)]


@pytest.mark.parametrize("attend", [False, True])
def test_masks_are_kept_whether_they_are_attended_to_or_not(tmp_path: Path, attend: bool):
    folder = checkpoints.stanford(tmp_path / "checkpoint", metadata={"attend_to_mask_tokens": attend})
    checkpoint = load_checkpoint(folder)
    (row,) = tokenizer(checkpoint, "query")([of_length(9)])
    assert row.attention.tolist() == [1] * 9 + [int(attend)] * 23
    assert row.keep.all()
    (text,) = torch_texts(checkpoint, [row])
    assert text.vectors.shape == (32, checkpoints.DIM)
    np.testing.assert_allclose(np.linalg.norm(text.vectors, axis=1), 1, atol=1e-5)


def skipped(checkpoint: Checkpoint, text: str, role: str = "document") -> list[str | None]:
    (row,) = tokenizer(checkpoint, role)([text])
    return [token for token, kept in zip(tokens(checkpoint, row), row.keep, strict=True) if not kept]


def test_documents_keep_japanese_punctuation_and_skip_what_nfkc_makes_ascii(japanese: Path):
    checkpoint = load_checkpoint(japanese)
    (row,) = tokenizer(checkpoint, "document")(["「梅雨」、。・！？（）：!?"])
    assert {"「", "」", "、", "。", "・"} <= set(tokens(checkpoint, row))
    assert skipped(checkpoint, "「梅雨」、。・！？（）：!?") == ["!", "?", "(", ")", ":", "!", "?"]
    assert skipped(checkpoint, "「梅雨」、。・！？（）：!?", "query") == []


@pytest.mark.parametrize(
    ("maker", "is_skipped"), [("stanford", True), ("pylate", True), ("multi_vector_encoder", False)]
)
def test_unknown_tokens_are_skipped_where_the_vocabulary_lacks_a_punctuation_mark(tmp_path: Path, maker, is_skipped):
    # The mark then stands for [UNK]; sentence-transformers 6 alone leaves it out of its list instead.
    text = "梅雨と龘。"
    for missing, expected in ((False, []), (True, ["[UNK]"] if is_skipped else [])):
        options = {"missing_punctuation": missing}
        checkpoint = load_checkpoint(checkpoints.make(tmp_path / str(missing), maker, options))
        (row,) = tokenizer(checkpoint, "document")([text])
        assert "[UNK]" in tokens(checkpoint, row)
        assert skipped(checkpoint, text) == expected


def test_marker_does_not_change_where_words_end(japanese: Path):
    # colbert-ai's older code put ". " before the text, which MeCab then cut with it.
    checkpoint = load_checkpoint(japanese)
    text = "...すもももももももものうち"
    (row,) = tokenizer(checkpoint, "document")([text])
    words = MecabSegmenter([])(text)
    plain = checkpoint.tokenizer.encode(words, is_pretokenized=True).tokens
    assert tokens(checkpoint, row) == [plain[0], "[unused1]", *plain[1:]]
