"""The trainer on a language of its own: questions spell every character of a passage with another one."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from tansaku import CheckpointError, InputError, ResumeError
from tansaku.onnx_export.convert.load import load_checkpoint
from tansaku.plugin.cli.main import app
from tansaku.training.config import DataConfig, LossConfig, ModelConfig, OptimizerConfig, RunConfig, TrainingConfig
from tansaku.training.errors import ConfigError
from tansaku.training.model.frozen import SplitBackbone
from tansaku.training.model.losses import loss_of
from tansaku.training.model.optimizer import Optimizer
from tansaku.training.model.start import load_start
from tansaku.training.model.student import Student, with_rules
from tansaku.training.run.averaging import average_weights, read_weights, save_average
from tansaku.training.run.evaluation import Evaluation
from tansaku.training.run.trainer import StepReport, train

from ..support import checkpoints

pytestmark = pytest.mark.integration

SPELLED = "日本東京大学山川田中国人年月"
SPELLS = "水火木金土上下時代市県区町駅"
TRAINED, HELD = 400, 60
NWAY = 8


def write_jsonl(path: Path, records: list) -> None:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A checkpoint, training groups, and passages with as many questions that are not among them."""
    folder = tmp_path_factory.mktemp("world")
    checkpoints.stanford(folder / "start", tokenizer="bert", config={"hidden_dropout_prob": 0.0})
    random = np.random.default_rng(5)
    passages = {f"p{i}": "".join(random.choice(list(SPELLED), 5, replace=False)) for i in range(TRAINED + HELD)}
    spell = dict(zip(SPELLED, SPELLS, strict=True))
    questions = {f"q{i}": "".join(spell[c] for c in passages[f"p{i}"][1:4]) for i in range(TRAINED + HELD)}
    write_jsonl(folder / "queries.jsonl", [{"_id": q, "text": t} for q, t in questions.items()])
    write_jsonl(folder / "corpus.jsonl", [{"_id": p, "text": t} for p, t in passages.items()])
    groups = []
    for i in range(TRAINED):
        others = [f"p{j}" for j in random.choice(TRAINED, NWAY, replace=False) if j != i][: NWAY - 1]
        asked = set(passages[f"p{i}"][1:4])
        groups.append([f"q{i}", *([p, float(len(asked & set(passages[p])))] for p in [f"p{i}", *others])])
    write_jsonl(folder / "groups.jsonl", groups)
    held = folder / "held"
    (held / "qrels").mkdir(parents=True)
    write_jsonl(
        held / "corpus.jsonl", [{"_id": f"p{i}", "text": passages[f"p{i}"]} for i in range(TRAINED, TRAINED + HELD)]
    )
    write_jsonl(
        held / "queries.jsonl", [{"_id": f"q{i}", "text": questions[f"q{i}"]} for i in range(TRAINED, TRAINED + HELD)]
    )
    rows = [f"q{i}\tp{i}\t1" for i in range(TRAINED, TRAINED + HELD)]
    (held / "qrels" / "dev.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")
    return folder


def config_for(world: Path, output: Path, **sections) -> TrainingConfig:
    def of(kind, name, **values):
        return kind(**{**values, **sections.get(name, {})})

    return TrainingConfig(
        model=of(ModelConfig, "model", checkpoint=str(world / "start"), query_length=16, document_length=24),
        data=of(
            DataConfig,
            "data",
            groups=[str(world / "groups.jsonl")],
            queries=[str(world / "queries.jsonl")],
            collection=[str(world / "corpus.jsonl")],
            nway=NWAY,
        ),
        loss=of(LossConfig, "loss"),
        optimizer=of(OptimizerConfig, "optimizer", learning_rate=1e-2, batch_size=32, warmup_steps=5),
        run=of(RunConfig, "run", output=str(output), steps=8, device="cpu", seed=3),
    )


def losses(output: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (output / "log.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_a_hundred_steps_lower_the_loss_and_find_more(world, tmp_path):
    config = config_for(
        world,
        tmp_path / "out",
        optimizer={"learning_rate": 4e-3, "batch_size": 64},
        run={"steps": 100, "evaluation": str(world / "held")},
    )
    checkpoint = with_rules(load_checkpoint(config.model.checkpoint), config.model)
    before = Evaluation.read(world / "held").measure(Student(checkpoint).eval())
    seen = []
    folder = train(config, on_step=seen.append)
    after = seen[-1].evaluation
    made = losses(tmp_path / "out")
    assert np.mean(made[-10:]) < 0.8 * np.mean(made[:10])
    assert after["hit@1"] > before["hit@1"] + 0.1
    assert after["mrr@10"] > before["mrr@10"] + 0.2
    assert folder == tmp_path / "out" / "checkpoint-100"
    assert [p.step for p in seen] == list(range(1, 101))


class StopError(Exception):
    pass


def stop_at(step: int):
    def stop(report: StepReport) -> None:
        if report.step == step:
            raise StopError

    return stop


@pytest.mark.parametrize("schedule", ["schedule_free", "linear"])
def test_going_on_gives_the_weights_of_not_stopping(world, tmp_path, schedule):
    sections = {"optimizer": {"schedule": schedule}, "run": {"save_every": 3}}
    whole = train(config_for(world, tmp_path / "whole", **sections))
    with pytest.raises(StopError):
        train(config_for(world, tmp_path / "cut", **sections), on_step=stop_at(5))
    seen = []
    cut = train(config_for(world, tmp_path / "cut", **sections), on_step=seen.append)
    assert [p.step for p in seen] == [4, 5, 6, 7, 8]
    assert same(read_weights(cut), read_weights(whole))
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_a_finished_training_is_not_begun_again(world, tmp_path):
    folder = train(config_for(world, tmp_path / "out"))
    seen = []
    assert train(config_for(world, tmp_path / "out"), on_step=seen.append) == folder
    assert seen == []
    train(config_for(world, tmp_path / "out"), resume=False, on_step=seen.append)
    assert len(seen) == len(losses(tmp_path / "out")) == 8


def test_going_on_with_another_configuration_is_refused(world, tmp_path):
    train(config_for(world, tmp_path / "out"))
    with pytest.raises(ResumeError, match=r"8 steps are done here with another configuration \(loss\); .*--no-resume"):
        train(config_for(world, tmp_path / "out", loss={"kind": "margin_mse"}))
    with pytest.raises(ResumeError, match=r"another configuration \(run\)"):
        train(config_for(world, tmp_path / "out", run={"steps": 7}))


def test_a_finished_training_is_extended_as_if_it_had_been_longer(world, tmp_path):
    """The number of warm-up steps is that of the training's beginning, and evaluations change nothing."""
    sections = {"optimizer": {"warmup_steps": None, "learning_rate": 1e-2, "batch_size": 32}}
    train(config_for(world, tmp_path / "out", run={"steps": 40, "evaluation": str(world / "held")}, **sections))
    extended = train(config_for(world, tmp_path / "out", run={"steps": 44}, **sections))
    sections["optimizer"]["warmup_steps"] = 2
    longer = train(config_for(world, tmp_path / "longer", run={"steps": 44}, **sections))
    assert same(read_weights(extended), read_weights(longer))
    assert losses(tmp_path / "out") == losses(tmp_path / "longer")


def test_a_linear_decay_is_not_extended(world, tmp_path):
    sections = {"optimizer": {"schedule": "linear"}}
    train(config_for(world, tmp_path / "out", run={"steps": 2}, **sections))
    with pytest.raises(ResumeError, match="if the schedule is not linear"):
        train(config_for(world, tmp_path / "out", run={"steps": 4}, **sections))


def test_a_new_training_begins_a_new_log(world, tmp_path):
    train(config_for(world, tmp_path / "out", run={"steps": 3}))
    with pytest.raises(StopError):
        train(config_for(world, tmp_path / "out", run={"steps": 2}), resume=False, on_step=stop_at(1))
    assert len(losses(tmp_path / "out")) == 1


def test_what_stops_an_evaluation_loses_no_step(world, tmp_path, monkeypatch):
    sections = {"run": {"steps": 3, "evaluation": str(world / "held")}}
    whole = train(config_for(world, tmp_path / "whole", **sections))
    with monkeypatch.context() as patch:
        patch.setattr(Evaluation, "measure", stop_at_once)
        with pytest.raises(StopError):
            train(config_for(world, tmp_path / "cut", **sections))
    seen = []
    cut = train(config_for(world, tmp_path / "cut", **sections), on_step=seen.append)
    assert seen == []
    assert same(read_weights(cut), read_weights(whole))
    made, expected = (
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("cut", "whole")
    )
    assert [{**line, "seconds": 0} for line in made] == [{**line, "seconds": 0} for line in expected]
    assert "ndcg@10" in made[-1]


def stop_at_once(*_):
    raise StopError


def test_float16_is_for_a_gpu(world, tmp_path):
    with pytest.raises(ConfigError, match=r'precision is "float16".*device is "cpu"; use "bfloat16"'):
        train(config_for(world, tmp_path / "out", run={"precision": "float16"}))


@pytest.mark.parametrize("schedule", ["schedule_free", "linear"])
def test_scaled_gradients_make_the_same_step_and_those_that_overflow_none(schedule):
    """What float16 does on a GPU; the scaler is the same on a CPU."""

    def stepped(scaler: torch.amp.GradScaler, *gradients: float) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.ones(3))
        optimizer = Optimizer(OptimizerConfig(schedule=schedule, learning_rate=0.1, warmup_steps=0), [weight], 9)
        for gradient in gradients:
            # Larger than the limit that gradients are clipped at: clipped before they are unscaled, they would be tiny.
            scaler.scale((weight * gradient).sum()).backward()
            optimizer.step(scaler)
        return weight.detach()

    plain = stepped(torch.amp.GradScaler("cpu", enabled=False), 5.0, -3.0)
    scaled = stepped(torch.amp.GradScaler("cpu", init_scale=1024.0), 5.0, -3.0)
    torch.testing.assert_close(scaled, plain)
    assert not torch.equal(plain, torch.ones(3))
    overflowing = torch.amp.GradScaler("cpu", init_scale=1024.0)
    assert torch.equal(stepped(overflowing, float("inf")), torch.ones(3))
    assert overflowing.get_scale() == 512.0


def gradients_and_scores(student, queries, passages, precision):
    """Of a KL loss towards falling scores."""
    student.zero_grad()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        scores, _ = student(queries, passages)
    teacher = torch.linspace(1, 0, scores.shape[1]).repeat(len(queries), 1)
    loss_of(LossConfig(), scores, teacher).backward()
    gradients = [p.grad.flatten() for p in student.parameters() if p.grad is not None]
    return torch.cat(gradients), scores.detach()


def test_near_passages_have_different_scores_in_bfloat16(world):
    """Eight passages that differ in one character; MaxSim in 16 bits would make some of their scores equal."""
    config = config_for(world, world / "unused")
    student = Student(with_rules(load_checkpoint(config.model.checkpoint), config.model)).eval()
    queries = student.tokenize_queries(["水火木金土上下"])
    passages = student.tokenize_passages([f"日本東京大学山川田{last}" for last in SPELLED[-8:]])
    exact, expected = gradients_and_scores(student, queries, passages, torch.float32)
    near, scores = gradients_and_scores(student, queries, passages, torch.bfloat16)
    assert scores.dtype == torch.float32
    assert len(set(scores[0].tolist())) == 8
    assert torch.allclose(scores, expected, rtol=2e-2)
    assert torch.nn.functional.cosine_similarity(near, exact, dim=0) > 0.95


def test_a_training_of_an_earlier_version_is_not_begun_again_silently(world, tmp_path):
    (tmp_path / "out" / "state").mkdir(parents=True)
    config = config_for(world, tmp_path / "out", run={"steps": 1})
    with pytest.raises(ResumeError, match=r"by an earlier version.*--no-resume"):
        train(config)
    train(config, resume=False)
    train(config)  # its own state is there now


def test_accumulated_passes_make_one_step(world, tmp_path):
    sections = {"run": {"steps": 2}, "model": {"dropout": 0.0}}
    train(config_for(world, tmp_path / "one", optimizer={"schedule": "linear"}, **sections))
    train(config_for(world, tmp_path / "four", optimizer={"schedule": "linear", "accumulate": 4}, **sections))
    assert losses(tmp_path / "one") == pytest.approx(losses(tmp_path / "four"), rel=1e-3)


def test_what_saves_memory_may_change_in_the_middle(world, tmp_path):
    sections = {"model": {"dropout": 0.0}}
    whole = train(config_for(world, tmp_path / "whole", **sections))
    with pytest.raises(StopError):
        train(config_for(world, tmp_path / "cut", run={"save_every": 3}, **sections), on_step=stop_at(5))
    saving = {"recompute": True, "tokens_at_once": 100, "attention": "eager"}
    cut = train(config_for(world, tmp_path / "cut", run=saving, **sections))
    for name, weight in read_weights(cut).items():
        torch.testing.assert_close(weight, read_weights(whole)[name], rtol=0, atol=2e-2)
    assert losses(tmp_path / "cut") == pytest.approx(losses(tmp_path / "whole"), rel=1e-2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch.compile's own
def test_a_compiled_backbone_trains_the_same(world, tmp_path):
    sections = {"model": {"dropout": 0.0}}
    train(config_for(world, tmp_path / "plain", run={"steps": 2}, **sections))
    notes = []
    train(config_for(world, tmp_path / "out", run={"steps": 2, "compile": True}, **sections), note=notes.append)
    assert losses(tmp_path / "out") == pytest.approx(losses(tmp_path / "plain"), rel=1e-3)
    assert any("a step takes about" in note for note in notes)


def plain_encoder(world: Path) -> Path:
    """The backbone and tokenizer of the world's checkpoint, as transformers writes them."""
    folder = world / "encoder"
    if not folder.exists():
        load_checkpoint(world / "start").backbone.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
            if (world / "start" / name).exists():
                shutil.copy(world / "start" / name, folder)
    return folder


def test_a_plain_encoder_gets_a_new_projection(world, tmp_path):
    sections = {"model": {"checkpoint": str(plain_encoder(world)), "projection": 12}, "run": {"steps": 40}}
    sections["optimizer"] = {"learning_rate": 4e-3, "batch_size": 32}
    folder = train(config_for(world, tmp_path / "out", **sections))
    made = losses(tmp_path / "out")
    assert np.mean(made[-5:]) < np.mean(made[:5])
    assert read_weights(folder)["projection.weight"].shape == (12, 32)
    save_average(config_for(world, tmp_path / "out", **sections), [folder], tmp_path / "mean", "stanford")
    loaded = load_checkpoint(tmp_path / "mean")
    assert (loaded.dim, loaded.query.marker, loaded.document.marker) == (12, "[unused0]", "[unused1]")
    assert "!" in loaded.document.skiplist


def test_the_new_projection_is_that_of_the_seed(world):
    config = ModelConfig(checkpoint=str(plain_encoder(world)), projection=12, markers=[])
    first, again, other = (load_start(config, seed) for seed in (1, 1, 2))
    weights = [checkpoint.projection.state_dict()["weight"] for checkpoint in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert first.query.marker is None
    with pytest.raises(InputError, match=r"no token '\[X\]'; set model\.markers"):
        load_start(config.model_copy(update={"markers": ["[X]", "[D]"]}), 1)


def test_what_is_no_checkpoint_names_the_keys(world, tmp_path):
    with pytest.raises(CheckpointError, match=r"not a ColBERT checkpoint.*model\.checkpoint.*set model\.projection"):
        load_start(ModelConfig(checkpoint=str(plain_encoder(world))), 1)


def test_dropout_is_as_asked_for(world, tmp_path):
    def first_loss(name, **model):
        train(config_for(world, tmp_path / name, run={"steps": 1}, model=model))
        return losses(tmp_path / name)[0]

    # The backbone's own is 0.1, of attention weights alone.
    assert len({first_loss("own"), first_loss("none", dropout=0.0), first_loss("much", dropout=0.5)}) == 3
    assert first_loss("again", dropout=0.5) == first_loss("and_again", dropout=0.5)


@pytest.mark.slow
def test_two_ranks_share_every_batch(world, tmp_path):
    """Two processes over gloo: each takes half of the groups, and both end with the same weights."""
    script = (
        "import sys, torch\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from tests.training.test_training import config_for\n"
        "from tansaku.training.run.trainer import train\n"
        "from pathlib import Path\n"
        "torch.set_num_threads(1)\n"
        "train(config_for(Path(sys.argv[2]), Path(sys.argv[3]), run={'steps': 3, 'evaluation': sys.argv[4]}))\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", script, root, str(world), str(tmp_path / "two"), str(world / "held")]
    ranks = [subprocess.Popen(command, env={**environment, "RANK": str(r)}) for r in (0, 1)]
    assert [process.wait(600) for process in ranks] == [0, 0]
    one = train(config_for(world, tmp_path / "one", run={"steps": 3}))
    assert read_weights(tmp_path / "two" / "checkpoint-3").keys() == read_weights(one).keys()
    # Dropout differs; the groups of each step do not.
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=0.2)
    measured = json.loads((tmp_path / "two" / "log.jsonl").read_text().splitlines()[-1])
    assert 0 < measured["mrr@10"] <= 1


@pytest.mark.parametrize(
    "loss",
    [
        {"kind": "margin_mse"},
        {"normalize_student": False},
        {"normalize_teacher": False},
        {"in_batch_negatives": True},
    ],
)
def test_every_loss_can_be_trained_with(world, tmp_path, loss):
    train(config_for(world, tmp_path / "out", loss=loss, run={"steps": 2}))
    assert all(0 < value < 1e4 for value in losses(tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", ["none", "fixed", "paper"])
def test_the_trained_model_can_be_exported_in_both_formats(world, tmp_path, augmentation):
    config = config_for(
        world,
        tmp_path / "out",
        model={"augmentation": augmentation, "query_length": 16},
        run={"steps": 1, "formats": ["stanford", "pylate"]},
        optimizer={"learning_rate": 1e-2},
    )
    folder = train(config)
    weights = read_weights(folder)
    for form in ("stanford", "pylate"):
        loaded = load_checkpoint(tmp_path / "out" / form)
        assert torch.equal(loaded.projection.state_dict().popitem()[1], weights["projection.weight"])
        assert torch.equal(
            loaded.backbone.state_dict()["encoder.layer.0.output.dense.weight"],
            weights["backbone.encoder.layer.0.output.dense.weight"],
        )
        assert loaded.document.max_length == 24


def test_only_the_upper_layers_change_if_only_they_are_trained(world, tmp_path):
    config = config_for(world, tmp_path / "out", optimizer={"trained_layers": 1}, run={"steps": 2})
    start = load_checkpoint(config.model.checkpoint).backbone.state_dict()
    weights = read_weights(train(config))
    changed = {name for name in start if not torch.equal(start[name], weights[f"backbone.{name}"])}
    assert changed
    assert all(name.startswith("encoder.layer.1.") for name in changed)
    with pytest.raises(InputError, match="trained_layers is 3; the model has 2"):
        train(config_for(world, tmp_path / "more", optimizer={"trained_layers": 3}))


def test_token_similarities_come_near_the_layers_and_resuming_keeps_their_teacher(world, tmp_path):
    sections = {"loss": {"kind": "tokens"}, "optimizer": {"trained_layers": 1}, "run": {"steps": 20, "save_every": 6}}
    whole = train(config_for(world, tmp_path / "whole", **sections))
    made = losses(tmp_path / "whole")
    assert np.mean(made[-5:]) < 0.7 * np.mean(made[:5])
    with pytest.raises(StopError):
        train(config_for(world, tmp_path / "cut", **sections), on_step=stop_at(13))
    assert same(read_weights(train(config_for(world, tmp_path / "cut", **sections))), read_weights(whole))


def test_what_frozen_layers_give_is_computed_once(world, tmp_path, monkeypatch):
    settings = {"trained_layers": 1, "activations": str(tmp_path / "kept")}
    sections = {"optimizer": settings, "run": {"save_every": 3}}
    first = read_weights(train(config_for(world, tmp_path / "first", **sections)))
    plain = read_weights(train(config_for(world, tmp_path / "plain", optimizer={"trained_layers": 1})))
    for name, weight in first.items():  # fewer texts fill each other up where some are known
        torch.testing.assert_close(weight, plain[name], rtol=0, atol=1e-3)
    monkeypatch.setattr(SplitBackbone, "_run_lower", forbidden)
    monkeypatch.setattr(SplitBackbone, "check", lambda *_: None)
    again = read_weights(train(config_for(world, tmp_path / "again", **sections)))
    assert same(first, again)


def forbidden(*_):
    raise AssertionError


def test_neighbours_share_their_passages(world, tmp_path, monkeypatch):
    """Every passage of a batch is encoded once, with the loss of encoding it for each group."""
    config = config_for(world, tmp_path / "out", data={"block": 4}, run={"steps": 1})
    student = Student(with_rules(load_checkpoint(config.model.checkpoint), config.model)).eval()
    queries = student.tokenize_queries(["水火", "木金", "土"])
    texts = ["日本東京", "大学", "山川田中国", "日本東京", "山川田中国", "人"]
    passages = student.tokenize_passages(texts)
    seen = []
    inputs = student.inputs
    monkeypatch.setattr(student, "inputs", lambda some: seen.extend(some) or inputs(some))
    with torch.no_grad():
        scores, pairs = student(queries, passages, all_pairs=True)
        assert len(seen) == 3 + 4
        of_one = [[float(student([query], [passage])[0]) for passage in passages] for query in queries]
    for i, alone in enumerate(of_one):
        assert scores[i].tolist() == pytest.approx(alone[2 * i : 2 * i + 2], abs=1e-5)
        # The second and the third group have the same first passage, which is no negative for either.
        own = [score if {i, j} != {1, 2} else -np.inf for j, score in enumerate(alone[::2])]
        assert pairs[i].tolist() == pytest.approx(own, abs=1e-5)
    train(config)
    assert len(losses(tmp_path / "out")) == 1


class TestAveraging:
    def test_is_the_mean_of_every_weight(self, world, tmp_path):
        train(config_for(world, tmp_path / "out", run={"save_every": 2, "steps": 4}))
        folders = [tmp_path / "out" / f"checkpoint-{step}" for step in (2, 4)]
        two, four = map(read_weights, folders)
        mean = average_weights([*folders, folders[1]])
        name = "projection.weight"
        assert torch.allclose(mean[name], (two[name] + 2 * four[name]) / 3, atol=1e-7)

    def test_bad_folders_are_named(self, world, tmp_path):
        with pytest.raises(InputError, match="no checkpoints"):
            average_weights([])
        with pytest.raises(CheckpointError, match="nowhere"):
            average_weights([tmp_path / "nowhere"])

    def test_one_of_another_model_is_named(self, world, tmp_path):
        config = config_for(world, tmp_path / "out", run={"steps": 1})
        folder = train(config)
        weights = read_weights(folder)
        del weights["projection.weight"]
        other = tmp_path / "other"
        other.mkdir()
        save_file(weights, other / "weights.safetensors")
        with pytest.raises(CheckpointError, match="not of the same model"):
            average_weights([folder, other])
        with pytest.raises(CheckpointError, match="not of the model"):
            save_average(config, [other], tmp_path / "mean", "pylate")
        with pytest.raises(InputError, match="unknown format 'onnx'; use stanford or pylate"):
            save_average(config, [folder], tmp_path / "mean", "onnx")


def configuration(world: Path, folder: Path, **run: object) -> Path:
    """A file of a small training."""
    names = {"groups": "groups", "queries": "queries", "collection": "corpus"}
    data = "\n".join(f'{key} = ["{world / name}.jsonl"]' for key, name in names.items())
    keys = "\n".join(f"{name} = {json.dumps(value)}" for name, value in run.items())
    path = folder / "train.toml"
    path.write_text(
        f'[model]\ncheckpoint = "{world / "start"}"\nquery_length = 16\ndocument_length = 24\n'
        f"[data]\n{data}\nnway = {NWAY}\n"
        f'[optimizer]\nbatch_size = 8\n[run]\noutput = "out"\ndevice = "cpu"\n{keys}\n',
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize(
    ("save_every", "said"),
    [
        (2, "interrupted; step 2 is saved in .*out. The same command continues"),
        (9, "there is nothing to continue from"),
    ],
)
def test_ctrl_c_says_how_to_go_on(world, tmp_path, monkeypatch, save_every, said):
    path = configuration(world, tmp_path, steps=9, save_every=save_every)
    step = Optimizer.step
    done = []

    def interrupt_in_the_third(self, scaler):
        done.append(1)
        if len(done) == 3:
            raise KeyboardInterrupt
        step(self, scaler)

    monkeypatch.setattr(Optimizer, "step", interrupt_in_the_third)
    ended = CliRunner().invoke(app, ["train", str(path)])
    assert ended.exit_code == 130
    assert re.search(said, " ".join(ended.output.split()))


def test_the_commands_train_and_average(world, tmp_path):
    path = configuration(world, tmp_path, steps=4, save_every=2)
    done = CliRunner().invoke(app, ["train", str(path)])
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "out" / "checkpoint-4") in done.output
    assert "step 4 of 4: loss" in done.output
    folders = [str(tmp_path / "out" / f"checkpoint-{step}") for step in (2, 4)]
    done = CliRunner().invoke(app, ["average", str(path), str(tmp_path / "mean"), *folders])
    assert done.exit_code == 0, done.output
    mean = load_checkpoint(tmp_path / "mean").projection.state_dict().popitem()[1]
    assert torch.allclose(mean, average_weights(folders)["projection.weight"])
