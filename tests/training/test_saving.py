"""What is written is what was loaded: every backbone, tokenizer and format, read back by us and by transformers."""

from __future__ import annotations

import dataclasses
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer

from tansaku import CheckpointError, Expansion, InputError, TextRules, load_checkpoint
from tansaku.onnx_export.convert.checkpoint import Checkpoint
from tansaku.onnx_export.convert.formats.backbone import BACKBONES
from tansaku.onnx_export.convert.sentences import sentences
from tansaku.onnx_export.convert.trace import token_vectors_module
from tansaku.onnx_export.encode.encoder import graph_inputs
from tansaku.onnx_export.encode.segmenter import load_segmenter
from tansaku.onnx_export.encode.tokenize import TextTokenizer
from tansaku.training.config import ModelConfig
from tansaku.training.model.student import for_search, with_rules
from tansaku.training.run.saving import save_model, try_saving

from ..support import backbones, checkpoints
from ..support.checkpoints import Layer

pytestmark = pytest.mark.integration

FORMATS = ("stanford", "pylate")
# The name that transformers keeps each backbone under, and colbert-ai with it.
PREFIXES = {
    "bert": "bert",
    "camembert": "roberta",
    "deberta-v2": "deberta",
    "distilbert": "distilbert",
    "electra": "electra",
    "modernbert": "model",
    "mpnet": "mpnet",
    "roberta": "roberta",
    "xlm-roberta": "roberta",
}
PUBLISHED = [("bert", "japanese"), ("bert", "bert"), ("modernbert", "bpe"), ("xlm-roberta", "unigram")]
UNREADABLE = ("modernbert", "japanese")  # transformers wants a tokenizer.json beside a ModernBERT
OTHERS = [
    (kind, name)
    for kind in BACKBONES
    for name in backbones.TOKENIZERS
    if (kind, name) not in PUBLISHED and (kind, name) != UNREADABLE
]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory):
    """Backbone, tokenizer → the folder of a checkpoint, made once."""
    parent = tmp_path_factory.mktemp("sources")

    @lru_cache
    def make(kind: str, tokenizer: str) -> Path:
        return backbones.make(parent / f"{kind}-{tokenizer}", kind, tokenizer)

    return make


@pytest.fixture(autouse=True)
def _few_sentences(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the sentences is enough for what does not depend on the tokenizer."""
    if "published" not in request.node.name:
        few = sentences()[::10]
        monkeypatch.setattr("tansaku.onnx_export.convert.tokenization.sentences", lambda: few)
        monkeypatch.setattr("tansaku.onnx_export.convert.formats.tokenizer.sentences", lambda: few)


def vectors(checkpoint: Checkpoint) -> list[np.ndarray]:
    """Kept vectors of some sentences as queries and as documents."""
    segmenter, found = load_segmenter(checkpoint.segmenter, checkpoint.tokenizer), []
    module = token_vectors_module(checkpoint)
    for rules in (checkpoint.query, checkpoint.document):
        texts = TextTokenizer(checkpoint.tokenizer, rules, segmenter)(sentences()[:60:6])
        with torch.inference_mode():
            output = module(*map(torch.from_numpy, graph_inputs(texts).values())).numpy()
        found += [row[: len(text.ids)][text.keep] for row, text in zip(output, texts, strict=True)]
    return found


def assert_kept(folder: Path, form: Any, out: Path) -> Checkpoint:
    loaded = load_checkpoint(folder)
    save_model(loaded, out, form)
    saved = load_checkpoint(out)
    assert (saved.query, saved.document) == (loaded.query, loaded.document)
    for before, after in zip(vectors(loaded), vectors(saved), strict=True):
        np.testing.assert_array_equal(after, before)
    source, written = (AutoTokenizer.from_pretrained(place) for place in (folder, out))
    for text in sentences()[::5]:
        assert written(text)["input_ids"] == source(text)["input_ids"], text
    return saved


def json_of(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def tensor_names(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("kind", "tokenizer"), PUBLISHED)
def test_the_published_kinds_are_written_as_they_were_loaded(make, tmp_path, kind, tokenizer, form):
    assert_kept(make(kind, tokenizer), form, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("kind", "tokenizer"), OTHERS)
def test_every_backbone_with_every_tokenizer_is_written_as_it_was_loaded(make, tmp_path, kind, tokenizer, form):
    assert_kept(make(kind, tokenizer), form, tmp_path / "out")


def test_what_transformers_cannot_read_is_refused(make):
    with pytest.raises(CheckpointError, match="transformers cannot load the tokenizer"):
        load_checkpoint(make(*UNREADABLE))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("maker", ["stanford", "pylate", "multi_vector_encoder"])
def test_every_format_is_written_from_every_other(tmp_path, maker, form):
    options = {"query_expansion": {"strategy": "fixed", "length": 32}} if maker == "multi_vector_encoder" else {}
    folder = checkpoints.make(tmp_path / "source", maker, options)
    if (maker, form) == ("multi_vector_encoder", "stanford"):  # which writes prompts before texts
        with pytest.raises(InputError, match="needs a marker"):
            save_model(load_checkpoint(folder), tmp_path / "out", form)
        return
    assert_kept(folder, form, tmp_path / "out")


@pytest.mark.parametrize("kind", BACKBONES)
def test_stanfords_tensors_have_the_name_of_their_backbone(make, tmp_path, kind):
    save_model(load_checkpoint(make(kind, "bert")), tmp_path / "out", "stanford")
    names = tensor_names(tmp_path / "out")
    assert {name.split(".")[0] for name in names} == {PREFIXES[kind], "linear"}
    assert json_of(tmp_path / "out" / "config.json")["architectures"] == ["HF_ColBERT"]


@pytest.mark.parametrize("form", FORMATS)
def test_mecab_is_kept(make, tmp_path, form):
    source = make("bert", "japanese")
    save_model(load_checkpoint(source), tmp_path / "out", form)
    settings = json_of(tmp_path / "out" / "tokenizer_config.json")
    assert settings["tokenizer_class"] == "BertJapaneseTokenizer"
    assert (settings["word_tokenizer_type"], settings["mecab_kwargs"]) == ("mecab", {"mecab_dic": "unidic_lite"})
    assert (tmp_path / "out" / "vocab.txt").read_bytes() == (source / "vocab.txt").read_bytes()
    assert load_checkpoint(tmp_path / "out").segmenter == "mecab-unidic-lite"


@pytest.mark.parametrize("form", FORMATS)
def test_transformers_4_knows_the_words_of_the_tokenizers_settings(make, tmp_path, form):
    save_model(load_checkpoint(make("modernbert", "bpe")), tmp_path / "out", form)
    settings = json_of(tmp_path / "out" / "tokenizer_config.json")
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert settings["additional_special_tokens"] == ["<mask>"]
    assert "extra_special_tokens" not in settings


@pytest.mark.parametrize("tokenizer", ["japanese", "bert"])
def test_padding_and_masks_are_two_tokens_in_stanfords_format(make, tmp_path, tokenizer):
    # PyLate names [MASK] as the padding token; colbert-ai gives padding no vectors.
    source = make("bert", tokenizer)
    assert AutoTokenizer.from_pretrained(source).pad_token == "[MASK]"  # noqa: S105
    save_model(load_checkpoint(source), tmp_path / "out", "stanford")
    saved = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (saved.pad_token, saved.mask_token) == ("[PAD]", "[MASK]")


# Text rules

RULES = {
    "paper": {"expansion": Expansion("[MASK]", "paper", 32), "max_length": 80},
    "shipped": {"expansion": Expansion("[MASK]", "shipped", 16), "max_length": 80},
    "minimum": {"expansion": Expansion("[MASK]", "minimum", 12), "max_length": 20},
    "attended": {"expansion": Expansion("[MASK]", "fixed", 24, attend=True), "max_length": 24},
    "none": {"expansion": None},
    "other mask": {"expansion": Expansion("[unused5]", "fixed", 32)},
    "skiplist": {"skiplist": ("。", "の")},
    "prefix": {"prefix": "検索: "},
    "strip": {"strip": False},
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("rule", RULES)
def test_rules_that_a_format_has_no_word_for_are_kept(make, tmp_path, form, rule):
    loaded = load_checkpoint(make("bert", "japanese"))
    query = dataclasses.replace(loaded.query, **RULES[rule])
    document = dataclasses.replace(loaded.document, max_length=50, skiplist=("、", "!"), prefix="文書: ")
    save_model(dataclasses.replace(loaded, query=query, document=document), tmp_path / "out", form)
    read = load_checkpoint(tmp_path / "out")
    assert (read.query, read.document) == (query, document)


def test_the_users_choice_of_masks_comes_before_the_models_own(make, tmp_path):
    loaded = load_checkpoint(make("bert", "japanese"), query_expansion="paper")
    save_model(loaded, tmp_path / "out", "pylate")
    fixed = load_checkpoint(tmp_path / "out", query_expansion="fixed").query
    assert fixed.expansion is not None
    assert (fixed.expansion.rule, fixed.expansion.length, fixed.max_length) == ("fixed", 32, 32)


@pytest.mark.parametrize(
    ("form", "file", "field"),
    [
        ("stanford", "artifact.metadata", "doc_maxlen"),
        ("pylate", "config_sentence_transformers.json", "document_length"),
    ],
)
def test_a_field_that_is_changed_beside_the_models_own_rules_is_named(make, tmp_path, form, file, field):
    save_model(load_checkpoint(make("bert", "bert")), tmp_path / "out", form)
    path = tmp_path / "out" / file
    content = json_of(path)
    path.write_text(json.dumps({**content, field: 20}))
    with pytest.raises(CheckpointError, match=rf"{field} is 20, but was 64 .* remove that field"):
        load_checkpoint(tmp_path / "out")
    del content["tansaku"]
    path.write_text(json.dumps({**content, field: 20}))
    assert load_checkpoint(tmp_path / "out").document.max_length == 20


def test_own_rules_that_cannot_be_read_are_named(make, tmp_path):
    save_model(load_checkpoint(make("bert", "bert")), tmp_path / "out", "pylate")
    path = tmp_path / "out" / "config_sentence_transformers.json"
    content = json_of(path)
    content["tansaku"]["query"]["max_length"] = "32"
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"tansaku: query.max_length is '32'"):
        load_checkpoint(tmp_path / "out")


@pytest.mark.parametrize(
    ("augmentation", "start", "searched"),
    [
        ("fixed", "paper", ("paper", 16, 80)),
        ("fixed", "shipped", ("shipped", 16, 80)),
        ("fixed", "fixed", ("fixed", 16, 16)),
        ("paper", "fixed", ("paper", 16, 80)),
        ("none", "paper", None),
    ],
)
def test_a_model_searches_with_the_dynamic_length_of_its_start(make, augmentation, start, searched):
    loaded = load_checkpoint(make("bert", "japanese"), query_expansion=start)
    config = ModelConfig(checkpoint="", augmentation=augmentation, query_length=16, document_length=24)
    trained = with_rules(loaded, config)
    query = for_search(trained, loaded).query
    found = query.expansion and (query.expansion.rule, query.expansion.length, query.max_length)
    assert found == searched
    assert for_search(trained, loaded).backbone is loaded.backbone
    if augmentation == "fixed":
        assert trained.query.max_length == 16


def test_masks_that_are_attended_to_stay_so_in_training(tmp_path):
    folder = backbones.make(tmp_path / "source", config={"attend_to_expansion_tokens": True})
    for augmentation in ("fixed", "paper"):
        query = with_rules(
            load_checkpoint(folder), ModelConfig(checkpoint="", augmentation=augmentation, document_length=64)
        ).query
        assert query.expansion is not None
        assert query.expansion.attend


@pytest.mark.parametrize("name", ["query_length", "document_length"])
def test_a_length_beyond_the_backbone_is_named_before_training(make, name):
    lengths: Any = {"query_length": 32, "document_length": 64, name: 81}
    config = ModelConfig(checkpoint="", **lengths)
    with pytest.raises(InputError, match=rf"model.{name} is 81; the backbone has 80 positions"):
        with_rules(load_checkpoint(make("bert", "japanese")), config)


# Projections

RICH = (
    Layer(24, bias=True, activation="torch.nn.modules.activation.Tanh", residual=True),
    Layer(16, bias=True, activation="torch.nn.modules.activation.GELU"),
    Layer(16, residual=True),
)


@pytest.mark.parametrize(
    ("dense", "named"),
    [
        (RICH, "3 layers and a bias and the activation Tanh and a residual"),
        ((Layer(bias=True),), "a bias"),
        ((Layer(activation="torch.nn.modules.activation.GELU"),), "the activation GELU"),
        ((Layer(32, residual=True),), "a residual"),
    ],
)
def test_projections_of_several_parts_are_kept_in_pylates_format_and_refused_in_stanfords(tmp_path, dense, named):
    folder = checkpoints.pylate(tmp_path / "source", dense=dense)
    assert_kept(folder, "pylate", tmp_path / "out")
    with pytest.raises(InputError, match=f"has {named}; Stanford's format holds one matrix only"):
        save_model(load_checkpoint(folder), tmp_path / "stanford", "stanford")
    assert not (tmp_path / "stanford").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_a_model_without_a_projection_gets_the_identity(make, tmp_path, form):
    loaded = dataclasses.replace(load_checkpoint(make("bert", "bert")), projection=torch.nn.Sequential())
    save_model(loaded, tmp_path / "out", form)
    saved = load_checkpoint(tmp_path / "out")
    assert saved.dim == loaded.dim == checkpoints.HIDDEN
    for before, after in zip(vectors(loaded), vectors(saved), strict=True):
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("form", FORMATS)
def test_a_projection_of_an_unknown_kind_is_named(make, tmp_path, form):
    loaded = dataclasses.replace(
        load_checkpoint(make("bert", "bert")), projection=torch.nn.LayerNorm(checkpoints.HIDDEN)
    )
    with pytest.raises(InputError, match="the projection is a LayerNorm"):
        save_model(loaded, tmp_path / "out", form)


# Failing before harm is done


def other_tokenizer(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with a tokenizer that reads full stops otherwise than that of its files."""
    changed = Tokenizer.from_str(checkpoint.tokenizer.to_str())
    changed.normalizer = normalizers.Sequence([normalizers.Replace("。", "、"), checkpoint.tokenizer.normalizer])
    return dataclasses.replace(checkpoint, tokenizer=changed)


@pytest.mark.parametrize("form", FORMATS)
def test_the_first_sentence_with_other_tokens_is_named(make, tmp_path, form):
    wrong = other_tokenizer(load_checkpoint(make("bert", "bert")))
    with pytest.raises(CheckpointError, match=r"sentence \d+ '.*。.*', token \d+: \d+ by tansaku, but \d+ by transf"):
        save_model(wrong, tmp_path / "out", form)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_was_written_otherwise_is_refused_and_leaves_nothing(make, tmp_path, monkeypatch):
    loaded = load_checkpoint(make("bert", "bert"))
    # As if the writer had forgotten the tokenizer's own settings: nothing to compare with but the copy itself.
    bare = dataclasses.replace(other_tokenizer(loaded), tokenizer_files={})
    monkeypatch.setattr(
        "tansaku.training.run.formats.save_tokenizer",
        lambda _, folder: [(folder / name).write_bytes(content) for name, content in loaded.tokenizer_files.items()],
    )
    with pytest.raises(CheckpointError, match=r"the token ids of query texts are not kept: sentence \d+ '.*。"):
        save_model(bare, tmp_path / "out", "pylate")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_saved_is_known_before_training(make, tmp_path):
    loaded = load_checkpoint(make("bert", "bert"))
    try_saving(loaded, tmp_path / "run", FORMATS)
    assert list((tmp_path / "run").iterdir()) == []
    unmarked = dataclasses.replace(loaded, query=TextRules("", None, 32))
    with pytest.raises(InputError, match="needs a marker"):
        try_saving(unmarked, tmp_path / "run", FORMATS)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_segmenter_without_its_files_is_refused(make, tmp_path):
    loaded = dataclasses.replace(load_checkpoint(make("bert", "japanese")), tokenizer_files={})
    with pytest.raises(InputError, match="mecab-unidic-lite, and the tokenizer was not read from files"):
        save_model(loaded, tmp_path / "out", "pylate")
