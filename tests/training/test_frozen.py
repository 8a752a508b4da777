"""Training of the upper layers alone: a backbone cut in two, and what its lower part gives kept on disk."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel

from tansaku import InputError, TokenizedText
from tansaku.onnx_export.encode.encoder import graph_inputs
from tansaku.training.model.frozen import HiddenStates, SplitBackbone

from ..onnx_export.test_backbones import CONFIGS

LAYERS = 3
DEPTH = {"num_hidden_layers", "n_layers"}


def text(*ids: int) -> TokenizedText:
    return TokenizedText(np.array(ids), np.ones(len(ids), np.int64), np.ones(len(ids), bool), truncated=False)


TEXTS = [text(2, 7, 9, 3), text(2, 11, 3), text(2, 8, 7, 5, 12, 6, 3)]


def inputs(texts):
    return {name: torch.from_numpy(array) for name, array in graph_inputs(texts).items()}


def backbone(kind: str = "bert", **more) -> torch.nn.Module:
    torch.manual_seed(1)
    deeper = {name: LAYERS for name in CONFIGS[kind] if name in DEPTH}
    config = AutoConfig.for_model(kind, **{"vocab_size": 40, **CONFIGS[kind], **deeper, **more})
    return AutoModel.from_config(config).eval()


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("trained", [0, 1, LAYERS])
def test_both_parts_give_what_the_whole_gives(kind, trained):
    model = backbone(kind)
    there = inputs(TEXTS)["attention_mask"].bool()
    with torch.no_grad():
        whole = model(**inputs(TEXTS)).last_hidden_state[there]
        split = SplitBackbone(model, trained)
        split.check(inputs(TEXTS))
        parts = split.upper(split.lower(TEXTS, inputs(TEXTS)), inputs(TEXTS))[there]
        torch.testing.assert_close(parts, whole, rtol=0.02, atol=0.05)  # bfloat16 between them
        torch.testing.assert_close(model(**inputs(TEXTS)).last_hidden_state[there], whole)  # left as it was
    assert sum(p.requires_grad for p in model.parameters()) == sum(
        p.requires_grad for layer in list(split._upper) for p in layer.parameters()
    )


def test_the_lower_part_runs_without_dropout_and_the_upper_with():
    model = backbone(hidden_dropout_prob=0.5).train()
    split = SplitBackbone(model, 1)
    lower = split.lower(TEXTS, inputs(TEXTS))
    assert torch.equal(lower, split.lower(TEXTS, inputs(TEXTS)))
    assert not torch.equal(split.upper(lower, inputs(TEXTS)), split.upper(lower, inputs(TEXTS)))
    assert model.training


def test_more_layers_than_there_are():
    with pytest.raises(InputError, match="trained_layers is 4; the model has 3 layers"):
        SplitBackbone(backbone(), LAYERS + 1)


def test_a_backbone_that_is_not_made_of_layers():
    with pytest.raises(InputError, match="layers of this backbone were not found"):
        SplitBackbone(torch.nn.Linear(2, 2), 1)


class AddsItsFirstLayer(torch.nn.Module):
    """What its first layer gives is needed above the others too."""

    def __init__(self):
        super().__init__()
        self.embeddings = torch.nn.Embedding(40, 4)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(LAYERS))

    def forward(self, input_ids, attention_mask):
        states = [self.embeddings(input_ids)]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return SimpleNamespace(last_hidden_state=states[-1] + states[1])


def test_a_backbone_that_cannot_be_cut():
    split = SplitBackbone(AddsItsFirstLayer(), 1)
    with pytest.raises(InputError, match="AddsItsFirstLayer cannot be cut at a layer"):
        split.check(inputs(TEXTS))


class TestHiddenStates:
    @settings(deadline=None, max_examples=30)
    @given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), cut=st.integers(0, 400))
    def test_what_is_whole_is_found_again_after_a_kill(self, tmp_path_factory, lengths, cut):
        folder = tmp_path_factory.mktemp("kept")
        store = HiddenStates(folder, 4)
        texts = [text(i, *range(length - 1)) for i, length in enumerate(lengths)]
        states = [torch.randn(length, 4).to(torch.bfloat16) for length in lengths]
        for one, state in zip(texts, states, strict=True):
            store.put(one, state)
            store.put(one, state)
        assert len(store) == len(lengths)
        files = folder / "hidden.bin", folder / "index.bin"
        for path in files:
            content = path.read_bytes()
            path.write_bytes(content[: max(0, len(content) - cut)])
        again = HiddenStates(folder, 4)
        kept = [i for i, one in enumerate(texts) if again.get(one) is not None]
        assert kept == list(range(len(kept)))  # the first ones, and all if nothing was cut
        assert cut or len(kept) == len(texts)
        for one, state in zip(texts, states, strict=True):
            again.put(one, state)
        for one, state in zip(texts, states, strict=True):
            found = again.get(one)
            assert found is not None
            assert torch.equal(found, state)
        assert HiddenStates(folder, 4).get(text(99)) is None

    def test_two_that_write_into_one_folder(self, tmp_path):
        first, second = HiddenStates(tmp_path, 4), HiddenStates(tmp_path, 4)
        first.put(text(1), torch.ones(1, 4, dtype=torch.bfloat16))
        with pytest.raises(InputError, match="another training writes here"):
            second.put(text(2), torch.ones(1, 4, dtype=torch.bfloat16))

    def test_are_used_instead_of_running_the_lower_part(self, tmp_path, monkeypatch):
        split = SplitBackbone(backbone(), 1)
        split.kept = HiddenStates(tmp_path, 32)
        first = split.lower(TEXTS[:2], inputs(TEXTS[:2]))
        monkeypatch.setattr(split, "_run_lower", lambda given: pytest.fail("ran"))
        assert torch.equal(split.lower(TEXTS[:2], inputs(TEXTS[:2])), first)

    def test_belong_to_the_frozen_weights_alone(self):
        model = backbone()
        before = SplitBackbone(model, 1, torch.float32).fingerprint()
        with torch.no_grad():
            model.get_parameter(f"encoder.layer.{LAYERS - 1}.output.dense.weight").add_(1)
        assert SplitBackbone(model, 1, torch.float32).fingerprint() == before
        assert SplitBackbone(model, 2, torch.float32).fingerprint() != before
        assert SplitBackbone(model, 1, torch.bfloat16).fingerprint() != before
        with torch.no_grad():
            model.get_parameter("encoder.layer.0.output.dense.weight").add_(1)
        assert SplitBackbone(model, 1, torch.float32).fingerprint() != before
