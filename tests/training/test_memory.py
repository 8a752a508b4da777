"""What saves memory in a training leaves the result as it is, and the estimate is near what is kept."""

from __future__ import annotations

import importlib.util
import json
import re
from typing import Any

import pytest
import torch
from transformers import AutoModel, BertConfig, DebertaV2Config, DistilBertConfig, ModernBertConfig, XLMRobertaConfig

from tansaku import MissingExtraError
from tansaku.onnx_export.convert.load import load_checkpoint
from tansaku.training.config import DataConfig, LossConfig, ModelConfig, RunConfig, TrainingConfig
from tansaku.training.model.attention import use_sdpa
from tansaku.training.model.losses import loss_of
from tansaku.training.model.student import Student, with_rules
from tansaku.training.run.batches import Pass
from tansaku.training.run.log import TrainingLog
from tansaku.training.run.memory import MemoryEstimate, estimate_memory, said_of_memory

from ..support import checkpoints

pytestmark = pytest.mark.integration

TEXTS = [f"日本東京大学山川田{last}" * (1 + i % 3) for i, last in enumerate("中国人年月水火木")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return checkpoints.stanford(tmp_path_factory.mktemp("start") / "model", tokenizer="bert")


@pytest.fixture
def student(checkpoint):
    return Student(with_rules(load_checkpoint(checkpoint), ModelConfig(checkpoint=str(checkpoint)))).train()


def some_pass(student) -> Pass:
    queries = student.tokenize_queries(["水火木金土上下", "時代市県"])
    return Pass(queries, student.tokenize_passages(TEXTS), torch.rand(2, 4))


def gradients(student, some: Pass) -> torch.Tensor:
    torch.manual_seed(3)  # of dropout
    student.zero_grad()
    scores, _ = student(some.queries, some.passages)
    loss_of(LossConfig(), scores, torch.linspace(1, 0, 4).repeat(2, 1)).backward()
    return torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])


def kept_bytes(student, some: Pass) -> int:
    """Of the tensors that the forward pass keeps for the backward pass, without the weights."""
    weights = {p.untyped_storage().data_ptr() for p in student.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = tensor, storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        student(some.queries, some.passages)
    return sum(size for _, size in kept.values())


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_computing_again_gives_the_same_gradients_with_less_memory(student, dropout):
    some = some_pass(student)
    student.drop_out(dropout)
    student.tokens_at_once = 64
    whole, size = gradients(student, some), kept_bytes(student, some)
    student.recompute = True
    assert torch.allclose(gradients(student, some), whole, rtol=1e-4, atol=1e-6)
    assert kept_bytes(student, some) < 0.4 * size


@pytest.mark.parametrize(
    ("config", "fused"),
    [
        (BertConfig, True),
        (XLMRobertaConfig, True),
        (DistilBertConfig, True),
        (ModernBertConfig, True),
        (DebertaV2Config, False),
    ],
)
def test_fused_attention_is_used_where_it_gives_the_same_vectors(student, config, fused):
    sizes: dict[str, Any] = {"vocab_size": 2_000, "num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 2}
    if config is DistilBertConfig:
        sizes = {"vocab_size": 2_000, "n_layers": 3, "dim": 32, "n_heads": 2, "hidden_dim": 64}
    elif config is ModernBertConfig:
        sizes |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    torch.manual_seed(1)
    backbone = AutoModel.from_config(config(**sizes), attn_implementation="eager")
    student.backbone, student.projection = backbone, torch.nn.Linear(32, 8)
    texts = [*student.tokenize_queries(["水火木", "金"]), *student.tokenize_passages(TEXTS)]
    assert use_sdpa(student, texts) == fused
    assert backbone.config._attn_implementation == ("sdpa" if fused else "eager")
    assert student.training


def test_another_result_is_not_taken(student, monkeypatch):
    def other(implementation):
        type(student.backbone).set_attn_implementation(student.backbone, implementation)
        if implementation == "sdpa":
            student.projection.weight.data.mul_(-1)

    monkeypatch.setattr(student.backbone, "set_attn_implementation", other)
    assert not use_sdpa(student, student.tokenize_passages(TEXTS))
    assert student.backbone.config._attn_implementation == "eager"


def config_of(**run) -> TrainingConfig:
    return TrainingConfig(
        model=ModelConfig(checkpoint="x"), data=DataConfig(groups=["g"], nway=4), run=RunConfig(output="o", **run)
    )


def test_the_estimate_is_near_what_is_kept(student):
    some = some_pass(student)
    estimate = estimate_memory(student, config_of(), [some], torch.float32)
    kept = kept_bytes(student, some)
    assert kept < estimate.activations + estimate.maxsim < 2 * kept
    weights = [p.numel() for p in student.parameters()]
    # Of the pooler only the weights, and of the largest weight two gradients more.
    assert 4 * 3 * sum(weights) < estimate.model < 4 * (4 * sum(weights) + 2 * max(weights))
    less = estimate_memory(student, config_of(recompute=True, tokens_at_once=64), [some], torch.float32)
    assert less.tokens <= 64 < estimate.tokens
    assert less.activations < estimate.activations / 3
    assert estimate_memory(student, config_of(), [some], torch.bfloat16).activations < estimate.activations


def test_more_than_there_is_is_a_warning(monkeypatch):
    estimate = MemoryEstimate(2 * 2**30, 30 * 2**30, 2**30, 9_999)
    monkeypatch.setattr("tansaku.training.run.memory.memory_of", lambda _: 24 * 2**30)
    said = said_of_memory(estimate, torch.device("cpu"))
    assert re.match(r"warning: a step takes about 33 GiB: .*9,999 tokens.*cpu has 24 GiB; set run.recompute", said)
    monkeypatch.setattr("tansaku.training.run.memory.memory_of", lambda _: 40 * 2**30)
    assert said_of_memory(estimate, torch.device("cpu")) == str(estimate)


def test_a_log_has_each_step_once(tmp_path):
    log = TrainingLog(tmp_path)
    log.begin(0)
    for step in (1, 2, 3):
        log.add(step, 1 / step, {"mrr@10": 0.5} if step == 3 else {})
    log.begin(2)
    assert log.has(2)
    assert not log.has(3)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    log.begin(0)
    assert not log.has(0)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is not None, reason="tensorboard is installed")
def test_a_missing_tensorboard_names_its_extra(tmp_path):
    with pytest.raises(MissingExtraError, match=r"tansaku\[tensorboard\]"):
        TrainingLog(tmp_path, tensorboard=True)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard")
def test_scalars_for_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TrainingLog(tmp_path, tensorboard=True)
    log.begin(0)
    log.add(1, 0.5, {"mrr@10": 0.25})
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5)]
    assert events.Scalars("mrr_at_10")[0].value == 0.25
