"""What training reads, and its small functions: configurations, groups, losses, the order of groups."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors import safe_open
from safetensors.torch import save_file

from tansaku.training.config import LossConfig, OptimizerConfig, read_config
from tansaku.training.data.groups import normalized
from tansaku.training.errors import ConfigError, TrainingDataError
from tansaku.training.model.losses import in_batch, loss_of, min_max
from tansaku.training.model.optimizer import warmup_steps
from tansaku.training.model.student import maxsim
from tansaku.training.run.order import batch_of_step
from tansaku.training.run.state import load_state, save_state

WHOLE = """
[model]
checkpoint = "start"
[data]
groups = ["groups.jsonl"]
queries = ["q.tsv"]
collection = ["c.jsonl"]
[run]
output = "out"
"""


class TestConfig:
    def read(self, tmp_path, text):
        (tmp_path / "train.toml").write_text(text, encoding="utf-8")
        return read_config(tmp_path / "train.toml")

    def test_defaults_are_the_paper_s(self, tmp_path):
        config = self.read(tmp_path, WHOLE)
        assert (config.data.nway, config.model.query_length, config.model.document_length) == (32, 32, 300)
        assert (config.loss.kind, config.loss.normalize_student, config.loss.in_batch_negatives) == ("kl", True, False)
        assert (config.optimizer.schedule, config.optimizer.learning_rate) == ("schedule_free", 3e-5)
        assert warmup_steps(config.optimizer, 50_000) == 2_500
        assert warmup_steps(OptimizerConfig(warmup_steps=0), 50_000) == 0

    def test_paths_are_relative_to_the_file(self, tmp_path):
        (tmp_path / "start").mkdir()
        config = self.read(tmp_path, WHOLE)
        assert config.data.groups == [str(tmp_path / "groups.jsonl")]
        assert config.model.checkpoint == str(tmp_path / "start")
        assert config.run.output == str(tmp_path / "out")

    def test_a_name_that_is_no_folder_is_a_hub_s(self, tmp_path):
        assert self.read(tmp_path, WHOLE).model.checkpoint == "start"

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            (("[run]", "[run]\nsedd = 1"), "unknown key run.sedd; the nearest known key is 'seed'"),
            (("[run]", "[runs]\na = 1\n[run]"), "unknown key runs; the nearest known key is 'run'"),
            (('output = "out"', ""), "the key run.output is missing"),
            (("[run]", "[run]\nsteps = 1.5"), "run.steps is 1.5; it must be an integer"),
            (("[run]", "[run]\nsteps = true"), "run.steps is True; it must be an integer"),
            (("[run]", "[run]\nsteps = 0"), "run.steps is 0; it must be 1 or more"),
            (("[run]", '[run]\nprecision = "half"'), "run.precision is 'half'; it must be 'float32', 'bfloat16'"),
            (("[run]", '[run]\nformats = ["onnx"]'), "run.formats is 'onnx'; it must be 'stanford' or 'pylate'"),
            (
                ('groups = ["groups.jsonl"]', "groups = []"),
                "data.groups is \\[\\]; it must be a list that is not empty",
            ),
            (('groups = ["groups.jsonl"]', 'groups = "a"'), "data.groups is 'a'; it must be a list"),
            (('collection = ["c.jsonl"]', ""), "data.queries and data.collection belong together"),
            (("[data]", "[data]\nmax_left_out = 2.0"), "data.max_left_out is 2.0; it must be 1 or less"),
            (
                ("[run]", "[optimizer]\ntrained_layers = 2\n[run]\ncompile = true"),
                "run.compile is true; leave out optimizer.trained_layers",
            ),
            (("[data]", 'markers = ["[Q]", "[D]"]\n[data]'), "model.markers is .*; it is for a new model.projection"),
            (("[data]", "[data]\nnway = 1"), "data.nway is 1; it must be 2 or more"),
            (
                ('checkpoint = "start"', 'checkpoint = "start"\ndropout = 1'),
                "model.dropout is 1; it must be below 1",
            ),
            (("[run]", "[loss]\ndistillation_alpha = 0\n[run]"), "distillation_alpha is 0; it must be above 0"),
            (
                ("[run]", '[loss]\nkind = "tokens"\n[run]'),
                'kind is "tokens"; set optimizer.trained_layers to 1 or more',
            ),
            (("[run]", "[loss]\nteacher_layers = 2\n[run]"), 'teacher_layers is 2; it is for loss.kind = "tokens"'),
            (
                ("[run]", '[loss]\nkind = "tokens"\nteacher_layers = 4\n[optimizer]\ntrained_layers = 2\n[run]'),
                "teacher_layers is 4; .* at most one more than optimizer.trained_layers",
            ),
            (("[run]", "[loss]\nin_batch_scale = 0\n[run]"), "loss.in_batch_scale is 0; it must be above 0"),
            (
                ("[run]", "[loss]\nin_batch_weight = 0.5\n[run]"),
                "loss.in_batch_weight is 0.5 but has no effect, as loss.in_batch_negatives is false",
            ),
            (
                ("[run]", '[loss]\nkind = "tokens"\nnormalize_teacher = false\n[optimizer]\ntrained_layers = 2\n[run]'),
                'normalize_teacher is False but has no effect, as loss.kind = "tokens" takes no scores of a teacher',
            ),
            (("[run]", "[optimizer]\nlearning_rate = 0\n[run]"), "learning_rate is 0; it must be above 0"),
            (
                ("[run]", "[optimizer]\nbatch_size = 10\naccumulate = 4\n[run]"),
                "batch_size is 10; it must be a multiple of optimizer.accumulate, 4",
            ),
            (("[run]", "[run\n"), "cannot be read"),
            (("[model]", "model = 3\n[models]"), "model is 3; it must be a section \\[model\\]"),
        ],
    )
    def test_a_mistake_is_named(self, tmp_path, changed, said):
        text = WHOLE.replace(*changed)
        if changed[0] == "[model]":
            text = "model = 3\n" + WHOLE.replace('[model]\ncheckpoint = "start"', "")
        with pytest.raises(ConfigError, match=said):
            self.read(tmp_path, text)

    def test_the_recipe_page_s_is_one(self, tmp_path):
        page = (Path(__file__).parents[2] / "docs" / "how-to" / "training.md").read_text(encoding="utf-8")
        (block,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
        assert self.read(tmp_path, block).run.formats == ["stanford", "pylate"]

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
            read_config(tmp_path / "none.toml")


SCORES = arrays.arrays(np.float32, (3, 4), elements=st.floats(-50, 50, width=32))


class TestLosses:
    @settings(deadline=None)
    @given(scores=SCORES)
    def test_scores_are_brought_between_0_and_1(self, scores):
        brought = min_max(torch.from_numpy(scores)).numpy()
        assert (brought >= 0).all()
        assert (brought <= 1).all()
        expected = np.stack([normalized(row) for row in scores])
        spread = scores.max(axis=1) - scores.min(axis=1)
        assert np.allclose(brought[spread > 1e-3], expected[spread > 1e-3], atol=1e-4)

    def test_divergence_is_the_plain_formula(self):
        student, teacher = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[0.0, 5.0, 10.0]])
        s, t = ([np.exp(x) for x in row] for row in ((0, 1 / 3, 1), (0, 0.5, 1)))
        p, q = np.array(t) / sum(t), np.array(s) / sum(s)
        assert float(loss_of(LossConfig(), student, teacher)) == pytest.approx(
            float((p * np.log(p / q)).sum()), abs=1e-6
        )

    def test_margin_mse_is_the_plain_formula(self):
        config = LossConfig(kind="margin_mse", normalize_student=False, normalize_teacher=False)
        loss = loss_of(config, torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([[5.0, 4.0, 1.0]]))
        assert float(loss) == pytest.approx(((2 - 1) ** 2 + (3 - 4) ** 2) / 2)

    def test_agreement_costs_nothing(self):
        scores = torch.tensor([[3.0, 1.0, 0.5], [0.1, 0.9, 0.3]])
        assert float(loss_of(LossConfig(), scores, 7 * scores + 2)) == pytest.approx(0, abs=1e-6)

    def test_alpha_sharpens_the_teacher(self):
        student, teacher = torch.tensor([[9.0, 8.0, 6.5]]), torch.tensor([[7.0, 3.0, 2.0]])
        sharp = LossConfig(normalize_student=False, distillation_alpha=5.0)
        t, s = (np.exp(np.array(x)) for x in ((5, 1, 0), (9, 8, 6.5)))
        p, q = t / t.sum(), s / s.sum()
        assert float(loss_of(sharp, student, teacher)) == pytest.approx(float((p * np.log(p / q)).sum()), abs=1e-6)

    def test_in_batch_wants_each_query_s_own(self):
        good, bad, own = torch.eye(4) * 9, 9 - torch.eye(4) * 9, torch.arange(4)
        assert float(in_batch(LossConfig(), good, own)) < 0.01 < float(in_batch(LossConfig(), bad, own))
        soft = LossConfig(in_batch_weight=0.5, in_batch_scale=1 / 9)
        assert float(in_batch(soft, good, own)) == pytest.approx(0.5 * np.log(1 + 3 / np.e), abs=1e-6)


@settings(deadline=None)
@given(
    groups=st.integers(1, 40),
    batch=st.sampled_from([1, 2, 4, 8]),
    ranks=st.sampled_from([1, 2, 4]),
    block=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_every_group_comes_once_before_any_comes_again(groups, batch, ranks, block, seed):
    ranks = min(ranks, batch)
    steps = -(-3 * groups // batch)
    seen = []
    for step in range(steps):
        parts = [
            batch_of_step(step, groups=groups, batch_size=batch, seed=seed, block=block, rank=r, ranks=ranks)
            for r in range(ranks)
        ]
        assert {len(part) for part in parts} == {batch // ranks}
        seen += np.concatenate(parts).tolist()
    for start in range(0, len(seen) - groups + 1, groups):
        one_pass = seen[start : start + groups]
        assert sorted(one_pass) == list(range(groups))
        places = {group: place for place, group in enumerate(one_pass)}
        assert all(places[g + 1] == places[g] + 1 for g in range(groups - 1) if (g + 1) % block)


def test_maxsim_leaves_out_what_is_not_kept():
    generator = torch.Generator().manual_seed(1)
    queries = torch.randn(2, 3, 4, generator=generator)
    passages = torch.randn(2, 5, 4, generator=generator)
    kept, passage_kept = (
        torch.tensor([[1, 1, 0], [1, 1, 1]]).bool(),
        torch.tensor([[1, 0, 1, 1, 1], [1, 1, 0, 0, 0]]).bool(),
    )
    scores = maxsim(queries, kept, passages, passage_kept)
    for i in range(2):
        plain = (queries[i][kept[i]] @ passages[i][passage_kept[i]].T).amax(dim=1).sum()
        assert float(scores[i]) == pytest.approx(float(plain), abs=1e-5)


STATE = {"a": [1, (2.5, None)], "t": {3: torch.arange(4), "x": [torch.ones(2, 2)]}, "s": "文"}


class TestState:
    def test_comes_back_as_it_was(self, tmp_path):
        save_state(tmp_path / "state.safetensors", STATE)
        back = load_state(tmp_path / "state.safetensors")
        assert back["a"] == [1, (2.5, None)]
        assert torch.equal(back["t"][3], torch.arange(4))
        assert torch.equal(back["t"]["x"][0], torch.ones(2, 2))
        assert back["s"] == "文"

    def test_nothing_saved_is_none(self, tmp_path):
        assert load_state(tmp_path / "state") is None

    def test_a_failed_write_leaves_the_last_state(self, tmp_path, monkeypatch):
        path = tmp_path / "state.safetensors"
        save_state(path, {"n": 1})

        def fail(tensors, making, metadata):
            making.write_bytes(b"half")
            raise OSError("no space left")

        monkeypatch.setattr("tansaku.training.run.state.save_file", fail)
        with pytest.raises(OSError, match="no space left"):
            save_state(path, {"n": 2})
        assert load_state(path) == {"n": 1}
        assert list(tmp_path.iterdir()) == [path]

    def test_damage_is_named(self, tmp_path):
        path = tmp_path / "state.safetensors"
        save_state(path, STATE)
        path.write_bytes(path.read_bytes()[:20])
        with pytest.raises(TrainingDataError, match="damaged"):
            load_state(path)
        save_file({"a": torch.ones(2)}, path)  # whole, but not a state
        with pytest.raises(TrainingDataError, match="damaged"):
            load_state(path)

    def test_is_tensors_and_json_without_pickle(self, tmp_path):
        save_state(tmp_path / "state.safetensors", STATE)
        with safe_open(tmp_path / "state.safetensors", "pt") as file:
            json.loads(file.metadata()["state"])
