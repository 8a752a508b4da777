"""Checkpoint folders and hub names → `Checkpoint`, and what is wrong with a checkpoint, by name; `tansaku export`.

That the vectors are right is in test_references.py.
"""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.numpy import load_file, save_file

from tansaku import Bundle, CheckpointError, Coder, Encoder, Expansion, InputError, MissingExtraError, TextRules
from tansaku.indexer.codec import codec_file
from tansaku.onnx_export.convert import export as export_module
from tansaku.onnx_export.convert import load as load_module
from tansaku.onnx_export.convert.load import load_checkpoint
from tansaku.plugin.cli import display
from tansaku.plugin.cli import main as cli
from tansaku.plugin.rows import fit_row_vectors

from ..support import checkpoints
from ..support.checkpoints import ABSENT, DIM, HIDDEN, POSITIONS

pytestmark = pytest.mark.integration

MAKERS = ("stanford", "pylate", "multi_vector_encoder")
METADATA = "artifact.metadata"
SETTINGS = "config_sentence_transformers.json"
SAFETENSORS, TORCH = "model.safetensors", "pytorch_model.bin"
ROWS = len(checkpoints.pieces())
QUERY_WEIGHT = "encoder.layer.1.attention.self.query.weight"


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Maker and options → a checkpoint in a folder of this test's own; the bert tokenizer, as it loads faster."""

    def make(maker: str, **options: Any) -> Path:
        return checkpoints.make(tmp_path / maker, maker, {"tokenizer": "bert", **options})

    return make


def refused(source: Path | str, *named: str | Path) -> str:
    """The message with which a checkpoint is refused; ``named`` has to be in it."""
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(source)
    message = str(raised.value)
    assert [name for name in map(str, named) if name not in message] == [], message
    return message


def edit(path: Path, **changes: Any) -> None:
    """Change values of a JSON file; ABSENT takes one away."""
    values = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    values = {name: value for name, value in values.items() if value != ABSENT}
    path.write_text(json.dumps(values), encoding="utf-8")


def edit_tensors(folder: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    tensors = load_file(folder / SAFETENSORS)
    change(tensors)
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / SAFETENSORS)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in module.state_dict().items() if "position_ids" not in name}


# What a folder or a name stands for


@pytest.mark.parametrize("maker", MAKERS)
def test_checkpoint_has_the_name_of_its_folder(make, monkeypatch, maker):
    folder = make(maker)
    assert load_checkpoint(folder).name == maker
    assert load_checkpoint(f"{folder}/").name == maker
    monkeypatch.chdir(folder)
    assert load_checkpoint(".").name == maker
    monkeypatch.chdir(folder.parent)
    assert load_checkpoint(f"./{maker}").name == maker


@pytest.mark.parametrize("maker", MAKERS)
def test_checkpoint_says_its_format_and_its_dimensions(make, maker):
    checkpoint = load_checkpoint(make(maker))
    assert checkpoint.origin["format"] == {"multi_vector_encoder": "MultiVectorEncoder"}.get(maker, maker)
    assert checkpoint.dim == DIM
    assert checkpoint.segmenter is None
    assert not checkpoint.backbone.training


@pytest.mark.parametrize("source", ["nowhere", "/nowhere/at/all", "a/b/c", "owner/na me", "../owner", "./mine"])
def test_name_that_is_neither_a_folder_nor_a_repository_is_refused_without_a_download(monkeypatch, source):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    refused(source, source, "neither a folder nor the name of a hub repository")


def test_file_is_refused(make):
    path = make("stanford") / SAFETENSORS
    refused(path, path, "neither a folder nor")


def test_empty_folder_is_refused(tmp_path):
    refused(tmp_path, tmp_path)


@pytest.mark.parametrize("weights", [True, False])
def test_plain_transformer_is_no_colbert_checkpoint(make, weights):
    folder = make("stanford")
    (folder / METADATA).unlink()
    edit_tensors(folder, lambda tensors: tensors.pop("linear.weight"))
    if not weights:
        (folder / SAFETENSORS).unlink()
    message = refused(folder, folder)
    if weights:
        assert "not a ColBERT checkpoint" in message
        assert METADATA in message
        assert "linear.weight" in message
        assert "modules.json" in message


def test_stanford_checkpoint_is_told_by_its_projection_where_the_metadata_is_missing(make):
    folder = make("stanford")
    (folder / METADATA).unlink()
    checkpoint = load_checkpoint(folder)
    assert checkpoint.origin["format"] == "stanford"
    assert checkpoint.document.max_length == 220


def test_folder_with_both_formats_is_stanfords_if_the_projection_lies_at_the_root(make, tmp_path):
    pylate, stanford = make("pylate"), make("stanford")
    shutil.copy(stanford / METADATA, pylate)
    assert load_checkpoint(pylate).origin["format"] == "pylate"
    shutil.copy(pylate / "modules.json", stanford)
    assert load_checkpoint(stanford).origin["format"] == "stanford"


@pytest.mark.parametrize("expansion", ["Paper", "dynamic", "", 32, True])
def test_unknown_query_expansion_is_refused_by_name(make, expansion):
    message = f"unknown query expansion {expansion!r}; use one of paper, shipped, fixed, none"
    with pytest.raises(InputError, match=message):
        load_checkpoint(make("stanford"), query_expansion=expansion)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("attend", [False, True])
def test_query_expansion_of_the_users_choice(make, maker, attend):
    length = {"query_maxlen": 24, "attend_to_mask_tokens": attend}
    options = {
        "stanford": {"metadata": length},
        "pylate": {"config": {"query_length": 24, "attend_to_expansion_tokens": attend}},
        "multi_vector_encoder": {"query_expansion": {"strategy": "fixed", "length": 24, "attend": attend}},
    }
    folder = make(maker, **options[maker])
    loaded = {choice: load_checkpoint(folder, query_expansion=choice) for choice in (None, "fixed", "paper", "none")}
    loaded["shipped"] = load_checkpoint(folder, query_expansion="shipped")
    rules = {choice: (checkpoint.query.expansion, checkpoint.query.max_length) for choice, checkpoint in loaded.items()}
    assert rules == {
        None: rules["paper" if maker == "stanford" else "fixed"],
        "paper": (Expansion("[MASK]", "paper", 32, attend), POSITIONS),
        "shipped": (Expansion("[MASK]", "shipped", 32, attend), POSITIONS),
        "fixed": (Expansion("[MASK]", "fixed", 24, attend), 24),
        "none": (None, 24),
    }
    # Nothing else changes.
    assert len({checkpoint.document for checkpoint in loaded.values()}) == 1
    assert len({checkpoint.query.marker for checkpoint in loaded.values()}) == 1


@pytest.mark.parametrize("maker", ["pylate", "multi_vector_encoder"])
@pytest.mark.parametrize("rule", ["fixed", "paper", "shipped"])
def test_masks_can_be_asked_of_a_checkpoint_that_has_none(make, maker, rule):
    no_masks = {"config": {"do_query_expansion": False}} if maker == "pylate" else {"transformer": {"query_length": 32}}
    folder = make(maker, **no_masks)
    assert load_checkpoint(folder).query.expansion is None
    assert load_checkpoint(folder, query_expansion=rule).query.expansion == Expansion("[MASK]", rule, 32, False)


@pytest.mark.parametrize("rule", [None, "fixed", "paper", "shipped"])
def test_masks_need_a_mask_token(make, rule):
    folder = make("stanford")
    edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", mask_token=ABSENT)
    edit(folder / "special_tokens_map.json", mask_token=ABSENT)
    with pytest.raises(CheckpointError, match="needs a mask token; use 'none'"):
        load_checkpoint(folder, query_expansion=rule)
    assert load_checkpoint(folder, query_expansion="none").query.expansion is None


# The model hub


class Hub:
    """Stands for the model hub: one repository, of which the files asked for are copied to a cache."""

    def __init__(self, repository: Path, cache: Path) -> None:
        self.repository = repository
        self.cache = cache
        self.calls: list[SimpleNamespace] = []

    def __call__(
        self, name: str, *, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]
    ) -> str:
        names = [str(path.relative_to(self.repository)) for path in self.repository.rglob("*") if path.is_file()]
        chosen = list(filter_repo_objects(names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns))
        self.calls.append(SimpleNamespace(name=name, revision=revision, files=set(chosen)))
        for chosen_name in chosen:
            (self.cache / chosen_name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.repository / chosen_name, self.cache / chosen_name)
        return str(self.cache)


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Callable[[Path], Hub]:
    def hub(repository: Path) -> Hub:
        fake = Hub(repository, tmp_path / "hub" / "snapshots" / "0123abcd")
        monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
        return fake

    return hub


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("revision", [None, "refs/pr/2"])
def test_hub_repository_is_loaded_at_its_revision_and_named_as_there(make, hub, maker, revision):
    repository = make(maker)
    unwanted = ("onnx/model.safetensors", "checkpoint-500/model.safetensors", "model.gguf", TORCH)
    for name in unwanted:
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_bytes(b"not to be loaded")
    fake = hub(repository)
    checkpoint = load_checkpoint("owner/Tiny.ColBERT-v1", revision=revision)
    assert checkpoint.name == "owner/Tiny.ColBERT-v1"
    assert (checkpoint.origin["hub"], checkpoint.origin["commit"]) == ("owner/Tiny.ColBERT-v1", "0123abcd")
    assert checkpoint.dim == DIM
    (call,) = fake.calls
    assert (call.name, call.revision) == ("owner/Tiny.ColBERT-v1", revision)
    assert SAFETENSORS in call.files
    assert not call.files & set(unwanted)


@pytest.mark.parametrize("maker", ["stanford", "pylate"])
def test_torch_weights_are_fetched_where_the_hub_has_no_safetensors(make, hub, maker):
    repository = make(maker, safetensors=False)
    fake = hub(repository)
    checkpoint = load_checkpoint("owner/old", revision="main")
    assert [call.revision for call in fake.calls] == ["main", "main"]
    assert [TORCH in call.files for call in fake.calls] == [False, True]
    safe = load_checkpoint(checkpoints.make(repository.parent / "safe", maker, {"tokenizer": "bert"}))
    for part in ("backbone", "projection"):
        torch.testing.assert_close(state(getattr(checkpoint, part)), state(getattr(safe, part)), atol=0, rtol=0)


def test_dense_layer_is_fetched_where_it_alone_is_no_safetensors(make, hub):
    repository = make("pylate")
    dense = repository / "1_Dense"
    torch.save({"linear.weight": torch.ones(DIM, HIDDEN)}, dense / TORCH)
    (dense / SAFETENSORS).unlink()
    hub(repository)
    assert load_checkpoint("owner/mixed").projection.state_dict()["0.linear.weight"].eq(1).all()


class ProxyError(Exception):
    """As httpx's: of none of the kinds that huggingface_hub lists as its own."""


@pytest.mark.parametrize(
    "error",
    [
        OSError("no route to host"),
        huggingface_hub.errors.LocalEntryNotFoundError("cannot find the requested files in the cache"),
        huggingface_hub.errors.OfflineModeIsEnabled("HF_HUB_OFFLINE=1"),
        huggingface_hub.errors.HFValidationError("Repo id must use alphanumeric chars"),
        ProxyError("407 proxy authentication required"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_download_that_fails_says_why_and_what_to_do_without_a_network(monkeypatch, error):
    def fail(*_args: Any, **_options: Any) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    message = refused("owner/name", type(error).__name__, str(error))
    assert "owner/name: not a folder here" in message
    assert "Without a network, copy" in message
    assert METADATA in message


def test_hub_is_not_asked_for_a_folder_of_that_name(make, monkeypatch):
    folder = make("stanford")
    (folder.parent / "owner").mkdir()
    folder.rename(folder.parent / "owner" / "name")
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    assert load_checkpoint("owner/name").name == "name"


# Weights


@pytest.mark.parametrize("kind", [np.float16, "bfloat16"])
@pytest.mark.parametrize("maker", ["stanford", "pylate"])
def test_half_precision_weights_are_widened(make, maker, kind):
    folder = make(maker)
    whole = load_checkpoint(folder)
    half = torch.float16 if kind is np.float16 else torch.bfloat16
    for path in folder.rglob(SAFETENSORS):
        from safetensors import torch as safetensors_torch

        tensors = {name: tensor.to(half) for name, tensor in safetensors_torch.load_file(path).items()}
        safetensors_torch.save_file(tensors, path, metadata={"format": "pt"})
    edit(folder / "config.json", torch_dtype=str(half).removeprefix("torch."))
    loaded = load_checkpoint(folder)
    for part in ("backbone", "projection"):
        ours, theirs = state(getattr(loaded, part)), state(getattr(whole, part))
        assert {tensor.dtype for tensor in ours.values()} == {torch.float32}
        torch.testing.assert_close(ours, {name: t.to(half).float() for name, t in theirs.items()}, atol=0, rtol=0)


@pytest.mark.parametrize("maker", ["stanford", "pylate"])
@pytest.mark.parametrize("safetensors", [True, False])
def test_old_names_of_layer_norms_are_known(make, tmp_path, maker, safetensors):
    new = load_checkpoint(make(maker))
    options = {"tokenizer": "bert", "old_norm_names": True, "safetensors": safetensors}
    old = load_checkpoint(checkpoints.make(tmp_path / "old", maker, options))
    torch.testing.assert_close(state(old.backbone), state(new.backbone), atol=0, rtol=0)


@pytest.mark.parametrize("safetensors", [True, False])
@pytest.mark.parametrize("maker", ["stanford", "pylate"])
def test_weights_in_several_files_are_read_by_their_index(make, maker, safetensors):
    folder = make(maker)
    whole = load_checkpoint(folder)
    shard(folder, safetensors)
    loaded = load_checkpoint(folder)
    for part in ("backbone", "projection"):
        torch.testing.assert_close(state(getattr(loaded, part)), state(getattr(whole, part)), atol=0, rtol=0)


def shard(folder: Path, safetensors: bool = True) -> list[Path]:
    """Split the root's weights in two, as transformers does with large ones."""
    tensors = load_file(folder / SAFETENSORS)
    (folder / SAFETENSORS).unlink()
    stem, end = ("model", "safetensors") if safetensors else ("pytorch_model", "bin")
    shards = [f"{stem}-0000{number}-of-00002.{end}" for number in (1, 2)]
    where = {name: shards[number % 2] for number, name in enumerate(sorted(tensors))}
    for name in shards:
        part = {key: value for key, value in tensors.items() if where[key] == name}
        if safetensors:
            save_file(part, folder / name, metadata={"format": "pt"})
        else:
            torch.save({key: torch.from_numpy(value) for key, value in part.items()}, folder / name)
    index = {"metadata": {"total_size": sum(value.nbytes for value in tensors.values())}, "weight_map": where}
    (folder / f"{stem}.{end}.index.json").write_text(json.dumps(index), encoding="utf-8")
    return [folder / name for name in shards]


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("maker", ["stanford", "pylate"])
def test_missing_part_of_the_weights_is_named(make, maker, number):
    path = shard(make(maker))[number]
    path.unlink()
    refused(path.parent, path.name)


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"linear.weight": 5}}', "{"])
@pytest.mark.parametrize("maker", ["stanford", "pylate"])
def test_index_that_is_none_is_refused(make, maker, content):
    folder = make(maker)
    shard(folder)
    (folder / f"{SAFETENSORS}.index.json").write_text(content, encoding="utf-8")
    refused(folder, folder)


def test_missing_projection_is_named(make):
    folder = make("stanford")
    edit_tensors(folder, lambda tensors: tensors.pop("linear.weight"))
    refused(folder, folder, "linear.weight", "the projection is missing")


@pytest.mark.parametrize(
    ("maker", "prefix"), [("stanford", "bert."), ("pylate", ""), ("multi_vector_encoder", "")], ids=MAKERS
)
def test_missing_weight_of_the_backbone_is_named(make, maker, prefix):
    folder = make(maker)
    edit_tensors(folder, lambda tensors: tensors.pop(prefix + QUERY_WEIGHT))
    refused(folder, folder, QUERY_WEIGHT, "1 weights are missing")


def test_missing_pooler_is_not_missed(make):
    folder = make("stanford")
    whole = load_checkpoint(folder)
    edit_tensors(folder, lambda tensors: [tensors.pop(f"bert.pooler.dense.{part}") for part in ("weight", "bias")])
    loaded = load_checkpoint(folder)
    ids = torch.arange(20, 40)[None]
    with torch.inference_mode():
        ours, theirs = (model.backbone(input_ids=ids).last_hidden_state for model in (loaded, whole))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("changed", ["config", "weights"])
def test_weight_of_another_shape_than_the_configuration_says_is_named(make, changed):
    folder = make("stanford")
    if changed == "config":
        edit(folder / "config.json", intermediate_size=48)
        refused(folder, folder, "intermediate.dense", "of another shape than config.json says")
    else:
        edit_tensors(folder, lambda tensors: tensors.update({f"bert.{QUERY_WEIGHT}": np.ones((HIDDEN, 8), np.float32)}))
        refused(folder, folder, QUERY_WEIGHT, "of another shape than config.json says")


@pytest.mark.parametrize("shape", [(DIM, 24), (DIM,), (1, DIM, HIDDEN)], ids=str)
def test_projection_that_does_not_fit_the_backbone_is_refused(make, shape):
    folder = make("stanford", metadata={"dim": ABSENT})
    edit_tensors(folder, lambda tensors: tensors.update({"linear.weight": np.ones(shape, np.float32)}))
    refused(folder, folder, "linear.weight", str(HIDDEN))


# Where a checkpoint's weights lie.
PLACES = [("stanford", ""), ("pylate", ""), ("pylate", "1_Dense")]


@pytest.mark.parametrize(("maker", "where"), [*PLACES, ("multi_vector_encoder", "1_Dense")])
def test_weights_file_that_is_cut_off_is_named(make, maker, where):
    path = make(maker) / where / SAFETENSORS
    cut(path)
    refused(path.parents[1] if where else path.parent, path.parent)


@pytest.mark.parametrize(("maker", "where"), PLACES)
@pytest.mark.parametrize("left", [0, 100, None])
def test_torch_weights_that_are_cut_off_are_named(make, maker, where, left):
    path = make(maker, safetensors=False) / where / TORCH
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 if left is None else left])
    refused(path.parents[1] if where else path.parent, path.parent)


class Touch:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(("maker", "where"), PLACES)
@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_that_runs_code_is_refused_and_does_not_run(make, tmp_path, maker, where, zipped):
    path = make(maker, safetensors=False) / where / TORCH
    trace = tmp_path / "it ran"
    evil = {**torch.load(path, weights_only=True), "evil": Touch(trace)}
    if zipped:
        torch.save(evil, path)
    else:
        path.write_bytes(pickle.dumps(evil, protocol=2))
    refused(path.parents[1] if where else path.parent, path.parent)
    assert not trace.exists()
    torch.load(path, weights_only=False) if zipped else pickle.loads(path.read_bytes())
    assert trace.exists()  # so that this test tests something


@pytest.mark.parametrize(
    "content", [[1, 2], torch.ones(3), {"linear.weight": "text"}, {"linear.weight": None}, {"linear.weight": {}}]
)
@pytest.mark.parametrize("maker", ["stanford", "pylate"])
def test_torch_file_without_tensors_is_refused(make, maker, content):
    path = make(maker, safetensors=False) / ("1_Dense" if maker == "pylate" else "") / TORCH
    torch.save(content, path)
    refused(path.parents[1] if maker == "pylate" else path.parent, path.parent)


@pytest.mark.parametrize("maker", MAKERS)
def test_folder_without_weights_is_refused(make, maker):
    folder = make(maker)
    (folder / SAFETENSORS).unlink()
    refused(folder, folder, SAFETENSORS)


# config.json

NO_OBJECT = {
    "nothing": b"",
    "half": b'{"model_type":',
    "list": b"[5]",
    "text": b'"bert"',
    "null": b"null",
    "deep": b"[" * 100_000,
    "bytes": b"\xff\xfe",
}


@pytest.mark.parametrize("maker", MAKERS)
def test_missing_configuration_is_named(make, maker):
    path = make(maker) / "config.json"
    path.unlink()
    refused(path.parent, path, "missing")


@pytest.mark.parametrize("content", NO_OBJECT.values(), ids=list(NO_OBJECT))
@pytest.mark.parametrize(
    ("maker", "name"),
    [
        ("stanford", "config.json"),
        ("stanford", METADATA),
        ("pylate", "config.json"),
        ("pylate", "modules.json"),
        ("pylate", SETTINGS),
        ("pylate", "sentence_bert_config.json"),
        ("pylate", "1_Dense/config.json"),
        ("multi_vector_encoder", "2_MultiVectorMask/config.json"),
    ],
)
def test_file_that_holds_no_json_object_is_named(make, maker, name, content):
    path = make(maker) / name
    path.write_bytes(content)
    refused(path.parents[name.count("/")], path)


@pytest.mark.parametrize("kind", ["llama", "t5", None, 5, ["bert"]])
@pytest.mark.parametrize("maker", ["stanford", "pylate"])
def test_unknown_model_type_is_refused_by_name(make, maker, kind):
    folder = make(maker)
    edit(folder / "config.json", model_type=kind)
    refused(folder, folder / "config.json", repr(kind), "modernbert")


@pytest.mark.parametrize("maker", MAKERS)
def test_model_with_code_of_its_own_is_refused_and_does_not_run(make, tmp_path, maker):
    folder = make(maker)
    trace = tmp_path / "it ran"
    (folder / "modeling.py").write_text(f"open({str(trace)!r}, 'w')\n", encoding="utf-8")
    edit(folder / "config.json", auto_map={"AutoModel": "modeling.Model"})
    refused(folder, folder / "config.json", "modeling.Model", "does not run")
    assert not trace.exists()


@pytest.mark.parametrize("maker", MAKERS)
def test_code_of_the_tokenizers_own_does_not_run(make, tmp_path, maker):
    folder = make(maker)
    trace = tmp_path / "it ran"
    (folder / "tokenization.py").write_text(f"open({str(trace)!r}, 'w')\n", encoding="utf-8")
    edit(
        folder / "tokenizer_config.json",
        auto_map={"AutoTokenizer": [None, "tokenization.Tokenizer"]},
        tokenizer_class="Tokenizer",
    )
    # It is not loaded without that code either: transformers would take another tokenizer for it.
    refused(folder, folder, "tokenization.Tokenizer")
    assert not trace.exists()


@pytest.mark.parametrize("name", ["hidden_size", "num_attention_heads", "vocab_size", "max_position_embeddings"])
@pytest.mark.parametrize("value", ["many", 0, None])
def test_wrong_size_in_the_configuration_is_refused(make, name, value):
    folder = make("stanford")
    edit(folder / "config.json", **{name: value})
    refused(folder, folder)


# artifact.metadata


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("query_maxlen", "32"),
        ("query_maxlen", 32.5),
        ("query_maxlen", True),
        ("doc_maxlen", 0),
        ("doc_maxlen", -1),
        ("doc_maxlen", [300]),
        ("attend_to_mask_tokens", "yes"),
        ("attend_to_mask_tokens", 1),
        ("mask_punctuation", "true"),
        ("similarity", 1),
        ("dim", "16"),
        ("query_token_id", 5),
        ("doc_token_id", ["[unused1]"]),
    ],
)
def test_setting_of_a_wrong_type_is_named(make, name, value):
    folder = make("stanford", metadata={name: value})
    refused(folder, folder / METADATA, name, repr(value))


def test_similarity_other_than_cosine_is_refused(make):
    folder = make("stanford", metadata={"similarity": "l2"})
    refused(folder, folder / METADATA, "similarity", "'l2'", "cosine")


def test_dimensions_that_are_not_the_projections_are_refused(make):
    folder = make("stanford", metadata={"dim": 128})
    refused(folder, folder / METADATA, "dim is 128", "linear.weight", str(DIM))


@pytest.mark.parametrize(("name", "token"), [("query_token_id", "[Q]"), ("doc_token_id", "[質問s]")])
def test_the_unknown_token_stands_for_a_marker_that_the_vocabulary_lacks(make, name, token):
    # As in colbert-ai, which looks the id up: CamemBERT has no [unused0].
    checkpoint = load_checkpoint(make("stanford", metadata={name: token}))
    markers = {"query_token_id": checkpoint.query.marker, "doc_token_id": checkpoint.document.marker}
    assert markers == {"query_token_id": "[unused0]", "doc_token_id": "[unused1]", name: "[UNK]"}


def test_null_and_empty_settings_have_the_defaults(make):
    names = ("query_maxlen", "doc_maxlen", "attend_to_mask_tokens", "mask_punctuation", "similarity", "dim")
    folder = make("stanford", metadata={**dict.fromkeys(names), "query_token_id": "", "doc_token_id": None})
    checkpoint = load_checkpoint(folder, query_expansion="fixed")
    assert (checkpoint.query.marker, checkpoint.query.max_length) == ("[unused0]", 32)
    assert (checkpoint.document.marker, checkpoint.document.max_length) == ("[unused1]", 220)
    assert len(checkpoint.document.skiplist) == 32


# PyLate


def write_modules(folder: Path, *types: str) -> None:
    modules = [
        {"idx": number, "name": str(number), "path": f"{number}_Dense" if number else "", "type": kind}
        for number, kind in enumerate(types)
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")


TRANSFORMER, DENSE = "sentence_transformers.models.Transformer", "pylate.models.Dense.Dense"


def test_model_with_pooling_is_refused(make):
    folder = make("pylate")
    write_modules(folder, TRANSFORMER, "sentence_transformers.models.Pooling")
    refused(folder, folder / "modules.json", "sentence_transformers.models.Pooling", "pooling")


@pytest.mark.parametrize("types", [[], [TRANSFORMER], [DENSE], [TRANSFORMER, TRANSFORMER, DENSE]], ids=str)
def test_modules_other_than_a_transformer_and_dense_layers_are_refused(make, types):
    folder = make("pylate")
    write_modules(folder, *types)
    refused(folder, folder / "modules.json", "one Transformer and a Dense")


@pytest.mark.parametrize(
    "modules",
    [
        {"0": {}},
        ["Transformer"],
        [{"path": ""}],
        [{"type": TRANSFORMER}],
        [{"type": 5, "path": ""}],
        [{"type": TRANSFORMER, "path": None}, {"type": DENSE, "path": "1_Dense"}],
        [{"type": TRANSFORMER, "path": ""}, {"type": DENSE, "path": 1}],
    ],
    ids=str,
)
def test_modules_file_of_another_form_is_named(make, modules):
    folder = make("pylate")
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    refused(folder, folder / "modules.json")


@pytest.mark.parametrize("name", ["in_features", "out_features"])
def test_dense_layer_without_its_size_is_refused(make, name):
    folder = make("pylate")
    edit(folder / "1_Dense" / "config.json", **{name: ABSENT})
    refused(folder, folder / "1_Dense" / "config.json")


def test_missing_dense_folder_is_named(make):
    folder = make("pylate")
    shutil.rmtree(folder / "1_Dense")
    refused(folder, folder / "1_Dense")


@pytest.mark.parametrize("maker", ["pylate", "multi_vector_encoder"])
def test_dense_layers_that_do_not_chain_are_refused(make, maker):
    folder = make(maker, dense=[{"out": 24}, {"out": 16}])
    save_file({"linear.weight": np.ones((24, 40), np.float32)}, folder / "1_Dense" / SAFETENSORS)
    edit(folder / "1_Dense" / "config.json", in_features=40)
    refused(folder, folder / "1_Dense" / "config.json", "in_features is 40", str(HIDDEN))
    shutil.copytree(folder / "2_Dense", folder / "1_Dense", dirs_exist_ok=True)
    refused(folder, folder / "1_Dense" / "config.json", "in_features is 24", str(HIDDEN))


@pytest.mark.parametrize("activation", ["torch.nn.modules.activation.PReLU", "os.system", "Identity", 5, ["Tanh"]])
@pytest.mark.parametrize("maker", ["pylate", "multi_vector_encoder"])
def test_unknown_activation_is_refused_by_name(make, maker, activation):
    folder = make(maker, dense=[{"activation": activation}])
    refused(folder, folder / "1_Dense" / "config.json", "activation_function", repr(activation))


@pytest.mark.parametrize("name", ["linear.weight", "linear.bias", "residual.weight"])
def test_missing_tensor_of_a_dense_layer_is_named(make, name):
    folder = make("pylate", dense=[{"bias": True, "residual": True}])
    edit_tensors(folder / "1_Dense", lambda tensors: tensors.pop(name))
    refused(folder, folder / "1_Dense", name)


@pytest.mark.parametrize("name", ["linear.weight", "linear.bias", "residual.weight"])
def test_tensor_of_another_shape_than_its_layers_is_named(make, name):
    folder = make("pylate", dense=[{"bias": True, "residual": True}])
    edit_tensors(folder / "1_Dense", lambda tensors: tensors.update({name: np.ones((3, 5), np.float32)}))
    refused(folder, folder / "1_Dense", name, "(3, 5)")


@pytest.mark.parametrize(("name", "value"), [("in_features", "32"), ("out_features", 0), ("bias", 1)])
def test_dense_setting_of_a_wrong_type_is_named(make, name, value):
    folder = make("pylate")
    edit(folder / "1_Dense" / "config.json", **{name: value})
    refused(folder, folder / "1_Dense" / "config.json", name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("query_length", "32"),
        ("document_length", 0),
        ("do_query_expansion", "yes"),
        ("attend_to_expansion_tokens", 1),
        ("skiplist_words", "。、"),
        ("skiplist_words", [1, 2]),
        ("query_prefix", 5),
        ("document_prefix", ["[D] "]),
        ("prompts", ["query"]),
        ("default_prompt_name", ["query"]),
    ],
)
def test_pylate_setting_of_a_wrong_type_is_named(make, name, value):
    folder = make("pylate")
    edit(folder / SETTINGS, **{name: value})
    refused(folder, folder / SETTINGS, name)


@pytest.mark.parametrize("name", ["query_prefix", "document_prefix"])
def test_pylate_prefix_that_the_vocabulary_lacks_is_named(make, name):
    folder = make("pylate")
    edit(folder / SETTINGS, **{name: "[X] "})
    refused(folder, folder / SETTINGS, name, "'[X] '", "vocabulary")


def test_lower_casing_before_mecab_is_refused(make):
    folder = make("pylate", tokenizer="japanese")
    edit(folder / "sentence_bert_config.json", do_lower_case=True)
    refused(folder, folder / "sentence_bert_config.json", "do_lower_case", "mecab")


# MultiVectorEncoder


def test_vectors_that_are_not_normalized_are_refused(make):
    folder = make("multi_vector_encoder", normalize=False)
    refused(folder, folder / "modules.json", "Normalize", "cosines")


@pytest.mark.parametrize(
    "expansion",
    [
        {"strategy": "max", "length": 32},
        {"strategy": "fixed"},
        {"length": 32},
        {"strategy": ["fixed"], "length": 32},
        {"strategy": "fixed", "length": "32"},
        {"strategy": "min", "length": "32"},
        {"strategy": "fixed", "length": 0},
        {"strategy": "min", "length": -1},
        {"strategy": "min", "length": True},
        {"strategy": "fixed", "length": None},
        {"strategy": "fixed", "length": 32, "token": 4},
        {"strategy": "fixed", "length": 32, "token": "[MASKE]"},
        {"strategy": "fixed", "length": 32, "attend": "no"},
        "fixed",
        32,
        ["fixed", 32],
    ],
    ids=str,
)
def test_query_expansion_that_cannot_be_read_is_refused(make, expansion):
    folder = make("multi_vector_encoder")
    edit(folder / "sentence_bert_config.json", query_expansion=expansion)
    refused(folder, folder / "sentence_bert_config.json", "query_expansion")


@pytest.mark.parametrize(
    ("mask", "named"),
    [
        ({"keep_only_token_ids": [5, 6]}, "keep_only_token_ids"),
        ({"skiplist_words": "。、"}, "skiplist_words"),
        ({"skiplist_words": [1, 2]}, "skiplist_words"),
        ({"skiplist_tasks": 5}, "skiplist_tasks"),
    ],
    ids=str,
)
def test_mask_setting_that_is_not_known_is_named(make, mask, named):
    folder = make("multi_vector_encoder", mask=mask)
    refused(folder, folder, "MultiVectorMask", named)


@pytest.mark.parametrize(
    ("tasks", "skipped"),
    [
        (None, (0, 2)),
        (ABSENT, (0, 2)),
        ([], (0, 0)),
        (["document"], (0, 2)),
        (["query"], (2, 0)),
        (["query", "document"], (2, 2)),
    ],
    ids=str,
)
def test_tokens_are_skipped_in_the_tasks_that_the_mask_names(make, tasks, skipped):
    folder = make("multi_vector_encoder", mask={"skiplist_words": ["。", "、", "龘龘"], "skiplist_tasks": tasks})
    checkpoint = load_checkpoint(folder)
    assert (len(checkpoint.query.skiplist), len(checkpoint.document.skiplist)) == skipped


@pytest.mark.parametrize(
    ("prompts", "default"),
    [(["query"], None), ({"query": 5}, None), ({"query": ["a"]}, None), ({"query": "a"}, ["query"]), ("検索: ", None)],
    ids=str,
)
def test_prompts_of_a_wrong_type_are_named(make, prompts, default):
    folder = make("multi_vector_encoder")
    edit(folder / SETTINGS, prompts=prompts, default_prompt_name=default)
    refused(folder, folder / SETTINGS, "prompt")


@pytest.mark.parametrize(("name", "value"), [("query_length", "32"), ("document_length", 0), ("do_lower_case", "no")])
def test_native_setting_of_a_wrong_type_is_named(make, name, value):
    folder = make("multi_vector_encoder")
    edit(folder / "sentence_bert_config.json", **{name: value})
    refused(folder, folder / "sentence_bert_config.json", name, repr(value))


# Tokenizers


@pytest.mark.parametrize("module", ["fugashi", "unidic_lite"])
@pytest.mark.parametrize("maker", MAKERS)
def test_japanese_tokenizer_without_mecab_names_the_extra(make, monkeypatch, maker, module):
    folder = make(maker, tokenizer="japanese")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tansaku\[japanese\]'"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"word_tokenizer_type": "sudachi"}, "'sudachi'"),
        ({"word_tokenizer_type": "jumanpp"}, "'jumanpp'"),
        ({"word_tokenizer_type": "basic"}, "'basic'"),
        ({"subword_tokenizer_type": "character"}, "'character'"),
        ({"subword_tokenizer_type": "sentencepiece"}, "'sentencepiece'"),
        ({"mecab_kwargs": {"mecab_dic": "ipadic"}}, "ipadic"),
        ({"mecab_kwargs": {"mecab_dic": "unidic"}}, "unidic"),
        ({"mecab_kwargs": {"mecab_dic": "unidic_lite", "mecab_option": "-F%m"}}, "mecab_option"),
        ({"mecab_kwargs": {"mecab_dic": "unidic_lite", "normalize_text": False}}, "normalize_text"),
        ({"mecab_kwargs": "unidic_lite"}, "mecab_kwargs"),
        ({"do_lower_case": True}, "do_lower_case"),
        ({"do_word_tokenize": False}, "do_word_tokenize"),
        ({"do_subword_tokenize": False}, "do_subword_tokenize"),
    ],
    ids=str,
)
def test_japanese_tokenizer_of_another_kind_is_refused_by_name(make, changes, named):
    # Whether or not what it needs is installed.
    folder = make("stanford", tokenizer="japanese")
    edit(folder / "tokenizer_config.json", **changes)
    refused(folder, folder, named)


@pytest.mark.parametrize("configured", [True, False])
@pytest.mark.parametrize("maker", MAKERS)
def test_folder_without_a_vocabulary_is_refused(make, maker, configured):
    # transformers makes a tokenizer of the special tokens alone: every word would be unknown.
    folder = make(maker)
    for name in ("tokenizer.json", "vocab.txt", *([] if configured else ["tokenizer_config.json"])):
        (folder / name).unlink(missing_ok=True)
    message = refused(folder, folder, "tokenizer.json")
    assert "marker" not in message
    assert "prefix" not in message


def test_japanese_tokenizer_without_its_vocabulary_is_refused(make):
    folder = make("stanford", tokenizer="japanese")
    (folder / "vocab.txt").unlink()
    refused(folder, folder, "vocab")


def test_japanese_tokenizer_is_known_by_config_json_too(make):
    folder = make("stanford", tokenizer="japanese")
    edit(folder / "tokenizer_config.json", tokenizer_class=ABSENT)
    edit(folder / "config.json", tokenizer_class="BertJapaneseTokenizer")
    assert load_checkpoint(folder).segmenter == "mecab-unidic-lite"


@pytest.mark.parametrize("value", ["many", 0, -1])
def test_longest_text_of_the_tokenizer_that_is_no_length_is_refused(make, value):
    folder = make("multi_vector_encoder")
    edit(folder / "tokenizer_config.json", model_max_length=value)
    refused(folder, folder)


def test_tokenizer_that_is_cut_off_is_refused(make):
    folder = make("pylate")
    cut(folder / "tokenizer.json")
    refused(folder, folder, "tokenizer")


def test_vocabulary_of_more_tokens_than_the_backbone_has_rows_is_refused(make):
    folder = make("stanford")
    rows = ROWS - 20
    name = "bert.embeddings.word_embeddings.weight"
    edit_tensors(folder, lambda tensors: tensors.update({name: tensors[name][:rows]}))
    edit(folder / "config.json", vocab_size=rows)
    refused(folder, folder, str(ROWS), str(rows))


def test_loading_leaves_the_settings_of_transformers_as_they_were(make):
    import transformers

    before = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    load_checkpoint(make("stanford"))
    assert (transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()) == before
    transformers.logging.disable_progress_bar()
    try:
        load_checkpoint(make("pylate"))
        assert not transformers.logging.is_progress_bar_enabled()
    finally:
        transformers.logging.enable_progress_bar()


def test_loading_prints_nothing(make, capfd):
    load_checkpoint(make("stanford"))
    load_checkpoint(make("pylate"))
    assert capfd.readouterr() == ("", "")


# The command line


@pytest.fixture
def tansaku(monkeypatch, capsys) -> Callable[..., SimpleNamespace]:
    """`tansaku` in this process: exit status and what it printed."""

    def tansaku(*arguments: str | Path) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["tansaku", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as raised:
            cli.main()
        printed = capsys.readouterr()
        return SimpleNamespace(status=raised.value.code, out=printed.out, err=printed.err)

    return tansaku


@pytest.mark.slow
def test_export_writes_a_bundle_and_prints_it_as_json(make, tansaku, tmp_path):
    out = tmp_path / "new" / "bundle"
    folder = make("pylate", tokenizer="japanese")
    done = tansaku("export", folder, out, "--precision", "int8", "--query-expansion", "shipped", "--json")
    assert (done.status, done.err) == (0, "")
    printed = json.loads(done.out)
    assert (printed["bundle"], printed["precision"], printed["dim"]) == (str(out), "int8", DIM)
    assert printed["bytes"] == sum(path.stat().st_size for path in out.iterdir())
    assert (printed["name"], printed["segmenter"]) == ("pylate", "mecab-unidic-lite")
    assert printed["query"]["expansion"] == {"token": "[MASK]", "rule": "shipped", "length": 32, "attend": False}
    assert printed["parity"]["mean_cosine"] >= 0.99
    (vectors,) = Encoder.load(out, threads=1).encode_queries(["1 2 3"])
    assert vectors.shape == (6 + 8, DIM)


@pytest.mark.slow
def test_export_learns_a_codec_and_row_vectors_from_texts(make, tansaku, tmp_path, monkeypatch):
    for name, value in (("ANCHORS", 200), ("COMPONENTS", 16), ("DIMS", (16, 8, 200))):
        monkeypatch.setattr(fit_row_vectors, name, value)
    monkeypatch.setattr(codec_file, "CENTROIDS", 64)
    out = tmp_path / "bundle"
    done = tansaku("export", make("pylate", tokenizer="japanese"), out, "--codec-texts", checkpoints.CORPUS, "--json")
    assert done.status == 0, done.err
    printed = json.loads(done.out)
    assert (printed["codec"], printed["row_vectors"]) == ("codec.npz", "row_vectors.npz")
    coder = Coder(Encoder.load(out, threads=1))
    assert coder.row_dim == 16
    coded = coder.encode_documents(["東京は日本の首都である。", "2024 is the year"])
    query = coder.encode_query("1 2 3")
    assert {one.row_vector.shape for one in coded} == {query.row_vector.shape} == {(16,)}
    assert np.isfinite(coder.score(query, [one.codes for one in coded])).all()


@pytest.fixture
def stubs(monkeypatch) -> dict[str, Any]:
    """What loading and exporting are called with; neither is done."""
    called: dict[str, Any] = {}

    def load(source: str, **options: Any) -> str:
        called.update(source=source, **options)
        return "checkpoint"

    def export(checkpoint: str, folder: Path, **options: Any) -> Bundle:
        called.update(checkpoint=checkpoint, folder=folder, **options)
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"12345")
        query = TextRules("", "[Q] ", 40, expansion=Expansion("[MASK]", "paper", 32))
        document = TextRules("文書: ", None, 300, ("、", "。"))
        return Bundle("tiny", 16, "float32", query, document, origin={"format": "pylate"}, parity={"min_cosine": 0.99})

    monkeypatch.setattr(load_module, "load_checkpoint", load)
    monkeypatch.setattr(export_module, "export_checkpoint", export)
    return called


def test_export_passes_on_what_it_is_asked(tansaku, stubs, tmp_path):
    out = tmp_path / "out"
    options = [
        "--query-expansion",
        "none",
        "--revision",
        "refs/pr/5",
        "--precision",
        "float32",
        "--json",
        "--phrase-weight",
        "0.1",
        *("--query-length", "48", "--document-length", "200", "--query-prefix", "query: ", "--document-prefix", ""),
    ]
    done = tansaku("export", "owner/name", out, *options)
    assert (done.status, json.loads(done.out)["bytes"]) == (0, 5)
    assert stubs == {
        "source": "owner/name",
        "revision": "refs/pr/5",
        "query_expansion": "none",
        "query_length": 48,
        "document_length": 200,
        "query_prefix": "query: ",
        "document_prefix": "",
        "checkpoint": "checkpoint",
        "folder": out,
        "precision": "float32",
        "phrase_weight": 0.1,
    }


def test_the_old_flag_for_int8_still_works_and_warns(tansaku, stubs, tmp_path):
    done = tansaku("export", "owner/name", tmp_path / "out", "--int8", "--precision", "float32", "--json")
    assert (done.status, stubs["precision"]) == (0, "int8")
    assert "--int8 is deprecated" in done.err


def test_export_leaves_the_defaults_to_the_loader(tansaku, stubs, tmp_path):
    done = tansaku("export", "owner/name", tmp_path / "out")
    assert done.status == 0
    assert (stubs["revision"], stubs["query_expansion"], stubs["precision"]) == (None, None, "int8")
    assert stubs["phrase_weight"] == 0
    assert [stubs[f"{role}_{what}"] for role in ("query", "document") for what in ("length", "prefix")] == [None] * 4


def test_export_shows_people_what_was_made(tansaku, stubs, monkeypatch, tmp_path):
    monkeypatch.setattr(display.out, "width", 200)
    done = tansaku("export", "owner/name", tmp_path / "out")
    shown = dict(line.strip().split(maxsplit=1) for line in done.out.splitlines())
    assert shown == {
        "bundle": f"{tmp_path / 'out'}, float32, 0.0 MB",
        "model": "tiny (format pylate)",
        "dimensions": "16",
        "queries": "at most 40 tokens, marker '[Q] ', [MASK] by the paper rule to 32, not attended",
        "documents": "at most 300 tokens, prefix '文書: ', 2 tokens skipped",
        "parity": "min cosine 0.99",
    }


def test_export_of_something_else_ends_with_status_2_and_one_line(tansaku, tmp_path):
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", tmp_path / "missing"):
        done = tansaku("export", source, tmp_path / "out")
        assert (done.status, done.out) == (2, "")
        assert done.err.startswith(f"error: {source}: ")
        assert done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_export_over_a_folder_of_the_users_ends_with_status_2(make, tansaku):
    folder = make("stanford")
    before = sorted(folder.iterdir())
    done = tansaku("export", folder, folder)
    assert (done.status, done.out) == (2, "")
    assert "not empty and not an encoder bundle" in done.err
    assert sorted(folder.iterdir()) == before


def test_export_with_an_unknown_query_expansion_ends_with_status_2_and_names_the_known_ones(tansaku, stubs, tmp_path):
    done = tansaku("export", "owner/name", tmp_path / "out", "--query-expansion", "dynamic")
    assert (done.status, stubs) == (2, {})
    for name in ("dynamic", "paper", "shipped", "fixed", "none"):
        assert name in done.err


def test_export_without_its_extra_ends_with_status_2_and_names_it():
    program = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "sys.argv = ['tansaku', 'export', 'owner/name', 'out']\n"
        "from tansaku.plugin.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip() == "error: this needs the package torch: pip install 'tansaku[export]'"
