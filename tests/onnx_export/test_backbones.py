"""Every kind of backbone that is allowed: tiny and random, its graph computes what torch does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoConfig, AutoModel

from tansaku import Bundle, CheckpointError, Encoder, Expansion, TextRules
from tansaku.onnx_export.convert import export as export_module
from tansaku.onnx_export.convert.checkpoint import Checkpoint, linear_projection
from tansaku.onnx_export.convert.export import export_checkpoint
from tansaku.onnx_export.convert.formats.backbone import BACKBONES, positions
from tansaku.onnx_export.convert.formats.tokenizer import load_tokenizer

from ..support import backbones
from ..support.checkpoints import stanford

pytestmark = pytest.mark.integration

HIDDEN, DIM, POSITIONS = backbones.HIDDEN, 16, backbones.POSITIONS
CONFIGS = backbones.CONFIGS
# Their attention adds positions between the scores and the softmax, which ONNX Runtime's operator does not.
NOT_FUSED = {"deberta-v2", "mpnet"}
INT8 = ("bert", "modernbert")
# The graphs that differ most; those of the others take longer together than `make test` has.
QUICK = {"bert", "xlm-roberta", "modernbert"}

QUERY = TextRules("", "[unused0]", POSITIONS, expansion=Expansion("[MASK]", "paper"))
DOCUMENT = TextRules("", "[unused1]", POSITIONS, ("。", "、"))
TEXTS = [
    "猫",
    "梅雨がないのはどこですか。",
    "What is late interaction?",
    "。、。",
    "京都市は、日本の京都府の南部に位置する市で、同府の府庁所在地である。" * 9,
    "The capital of Japan, 東京。",
]


@dataclass(frozen=True)
class Exported:
    """A checkpoint, the folder of its float32 bundle, and what that says."""

    checkpoint: Checkpoint
    folder: Path
    bundle: Bundle


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    return load_tokenizer(stanford(tmp_path_factory.mktemp("tokenizer") / "bert", tokenizer="bert")).tokenizer


@pytest.fixture(scope="module")
def export(tokenizer, tmp_path_factory: pytest.TempPathFactory):
    """Exports each kind of backbone once."""
    done: dict[str, Exported] = {}
    parent = tmp_path_factory.mktemp("backbones")

    def export(kind: str) -> Exported:
        if kind not in done:
            checkpoint = make_checkpoint(kind, tokenizer)
            bundle = export_checkpoint(checkpoint, parent / kind, precision="float32")
            done[kind] = Exported(checkpoint, parent / kind, bundle)
        return done[kind]

    return export


def make_checkpoint(kind: str, tokenizer) -> Checkpoint:
    torch.manual_seed(17)
    special = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    config = AutoConfig.for_model(kind, vocab_size=tokenizer.get_vocab_size(), **{**special, **CONFIGS[kind]})
    backbone = AutoModel.from_config(config, attn_implementation="eager").eval()
    for parameter in backbone.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)  # biases are zero and gains are one otherwise
    projection = linear_projection(torch.randn(DIM, HIDDEN), torch.randn(DIM))
    return Checkpoint(kind, backbone, projection, tokenizer, QUERY, DOCUMENT)


@pytest.fixture(
    scope="module",
    params=[kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in BACKBONES],
)
def exported(request: pytest.FixtureRequest, export) -> Exported:
    return export(request.param)


def torch_vectors(checkpoint: Checkpoint, ids: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """Token vectors of one text, without padding and without the exported module."""
    with torch.inference_mode():
        hidden = checkpoint.backbone(
            input_ids=torch.from_numpy(ids)[None], attention_mask=torch.from_numpy(attention)[None]
        ).last_hidden_state[0]
        vectors = checkpoint.projection(hidden).numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of branches too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from nodes(attribute.g)


def test_every_backbone_that_is_allowed_is_tried():
    assert set(CONFIGS) == set(BACKBONES)


def test_graph_computes_what_the_checkpoint_does(exported):
    parity = exported.bundle.parity
    assert parity["vectors"] > 500
    assert parity["max_abs_difference"] <= 1e-4
    assert parity["min_cosine"] >= 0.99999


@pytest.mark.parametrize("role", ["queries", "documents"])
def test_vectors_are_those_of_torch_alone_and_in_a_padded_batch(exported, role):
    encoder = Encoder.load(exported.folder, threads=2)
    tokenized = getattr(encoder, f"tokenize_{role}")(TEXTS)
    assert max(len(text.ids) for text in tokenized) == POSITIONS  # all positions that the backbone has
    for text, vectors in zip(tokenized, encoder.encode_tokens(tokenized), strict=True):
        (alone,) = encoder.encode_tokens([text])
        np.testing.assert_allclose(vectors, alone, atol=1e-5, rtol=0)
        expected = torch_vectors(exported.checkpoint, text.ids, text.attention)[text.keep]
        np.testing.assert_allclose(alone, expected, atol=1e-4, rtol=0)


def test_vectors_depend_on_the_rest_of_their_text(exported):
    # If they did not, the tests of padding would show nothing.
    encoder = Encoder.load(exported.folder, threads=2)
    one, other = encoder.encode_documents(["猫がいる", "猫 What is this"])
    assert np.abs(one[2] - other[2]).max() > 0.02


def test_attention_is_one_operator_where_it_can_be(exported):
    graph = onnx.load(exported.folder / "model.onnx").graph
    operators = [node.op_type for node in nodes(graph)]
    kind = exported.checkpoint.name
    assert ("MultiHeadAttention" in operators) == (kind not in NOT_FUSED)
    assert ("Softmax" in operators) == (kind in NOT_FUSED)
    # What follows it is slower in one operator than in two: see `SLOW_FUSIONS`.
    assert "SkipLayerNormalization" not in operators


def test_longest_text_is_one_that_the_backbone_reads(exported, tmp_path):
    checkpoint = exported.checkpoint
    assert positions(checkpoint.backbone.config) == POSITIONS
    longer = dataclasses.replace(checkpoint, document=dataclasses.replace(DOCUMENT, max_length=POSITIONS + 1))
    message = f"may have {POSITIONS + 1} tokens, but the backbone has {POSITIONS} positions; give --document-length"
    with pytest.raises(CheckpointError, match=message):
        export_checkpoint(longer, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", INT8)
def test_int8_vectors_point_where_the_checkpoints_do(export, monkeypatch, tmp_path, kind):
    exported = export(kind)
    graph = onnx.load(exported.folder / "model.onnx")
    monkeypatch.setattr(export_module, "trace", lambda checkpoint: graph)  # the same trace, which is slow
    bundle = export_checkpoint(exported.checkpoint, tmp_path / "bundle", precision="int8")
    assert bundle.parity["mean_cosine"] >= 0.99
    assert bundle.parity["vectors"] == exported.bundle.parity["vectors"]
    small, large = ((folder / "model.onnx").stat().st_size for folder in (tmp_path / "bundle", exported.folder))
    assert small < large / 2

    encoder, cosines = Encoder.load(tmp_path / "bundle", threads=2), []
    for tokenized in (encoder.tokenize_queries(TEXTS), encoder.tokenize_documents(TEXTS)):
        for text, vectors in zip(tokenized, encoder.encode_tokens(tokenized), strict=True):
            expected = torch_vectors(exported.checkpoint, text.ids, text.attention)[text.keep]
            cosines.append((vectors * expected).sum(axis=1))
    assert np.concatenate(cosines).mean() >= 0.99
