"""What a checkpoint's format alone does not say: BGE-M3's head, prompts, lower case, tokenizers in doubt."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, normalizers

from tansaku import CheckpointError, InputError, export_checkpoint, load_checkpoint
from tansaku.onnx_export.convert.checkpoint import Checkpoint
from tansaku.onnx_export.convert.sentences import first_difference, sentences
from tansaku.onnx_export.convert.tokenization import check_source
from tansaku.onnx_export.encode.segmenter import load_segmenter
from tansaku.onnx_export.encode.tokenize import TextTokenizer

from ..support import backbones, checkpoints

pytestmark = pytest.mark.integration

HIDDEN, DIM, POSITIONS = backbones.HIDDEN, checkpoints.DIM, backbones.POSITIONS


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory):
    """Tokenizer → the folder of a checkpoint, made once. Not to be changed."""
    parent = tmp_path_factory.mktemp("sources")

    @lru_cache
    def make(tokenizer: str) -> Path:
        return backbones.make(parent / tokenizer, "bert", tokenizer)

    return make


def edit(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**content, **values}, ensure_ascii=False), encoding="utf-8")


def read(checkpoint: Checkpoint, role: str, text: str):
    segmenter = load_segmenter(checkpoint.segmenter, checkpoint.tokenizer)
    (tokenized,) = TextTokenizer(checkpoint.tokenizer, getattr(checkpoint, role), segmenter)([text])
    return tokenized


def tokens(checkpoint: Checkpoint, role: str, text: str) -> list[str | None]:
    return [checkpoint.tokenizer.id_to_token(i) for i in read(checkpoint, role, text).ids.tolist()]


# The sentences


def test_sentences_are_a_thousand_and_most_are_of_the_sample():
    with checkpoints.CORPUS.open(encoding="utf-8") as lines:
        corpus = "\n".join(json.loads(line)["text"] for line in lines)
    with checkpoints.CORPUS.with_name("queries.jsonl").open(encoding="utf-8") as lines:
        questions = {json.loads(line)["text"] for line in lines}
    assert len(set(sentences())) == len(sentences()) == 1000
    assert all(text.strip() for text in sentences())
    assert sum(text in corpus or text in questions for text in sentences()) > 900


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        ([1, 2], [1, 2], None),
        ([1, 2], [1, 3], "token 1: 2 by a, but 3 by b"),
        ([1], [1, 3], "token 1: none by a, but 3 by b"),
    ],
)
def test_the_first_difference_is_named(left, right, said):
    found = first_difference(["x", "y"], [[0], left], [[0], right], "a", "b")
    assert found == (said and f"sentence 1 'y', {said}")


# Tokenizers in doubt


@pytest.mark.parametrize("tokenizer", backbones.TOKENIZERS)
def test_every_kind_of_tokenizer_is_read_as_transformers_reads_it(sources, tokenizer):
    check_source(load_checkpoint(sources(tokenizer)))


def test_a_tokenizer_that_transformers_does_not_read_as_it_stands_is_refused(tmp_path):
    # Every release of transformers 5 rebuilds this class, and drops the normalizer of the file in silence.
    folder = backbones.make(tmp_path / "checkpoint", "xlm-roberta", "unigram")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(folder)
    said = str(raised.value)
    assert said.startswith(f"{folder / 'tokenizer.json'}: transformers {transformers.__version__} does not read")
    assert "by transformers, but " in said
    assert "another version of transformers" in said
    # The remedy in the message.
    edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    checkpoint = load_checkpoint(folder)
    check_source(checkpoint)
    assert tokens(checkpoint, "document", "ＡＢＣ") == tokens(checkpoint, "document", "ABC")


def test_settings_of_the_case_come_before_the_file(tmp_path):
    folder = backbones.make(tmp_path / "checkpoint", "bert", "bert")
    edit(folder / "tokenizer_config.json", do_lower_case=False)
    checkpoint = load_checkpoint(folder)
    check_source(checkpoint)
    assert tokens(checkpoint, "document", "A") != tokens(checkpoint, "document", "a")


def test_a_bundle_says_how_many_sentences_were_compared_and_other_tokens_are_refused(sources, tmp_path):
    import dataclasses

    checkpoint = load_checkpoint(sources("bert"))
    assert export_checkpoint(checkpoint, tmp_path / "bundle", precision="float32").parity["sentences"] == 1000
    changed = Tokenizer.from_str(checkpoint.tokenizer.to_str())
    changed.normalizer = normalizers.Sequence([normalizers.Replace("。", "、"), checkpoint.tokenizer.normalizer])
    with pytest.raises(CheckpointError, match=r"not read texts as the checkpoint's own tokenizer does: sentence \d"):
        export_checkpoint(dataclasses.replace(checkpoint, tokenizer=changed), tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


# Lower case, prompts, no projection


def test_lower_case_of_the_module_is_done_by_the_tokenizer(tmp_path):
    folder = backbones.make(tmp_path / "checkpoint", "modernbert", "bpe")
    before = load_checkpoint(folder)
    edit(folder / "sentence_bert_config.json", do_lower_case=True)
    checkpoint = load_checkpoint(folder)
    assert tokens(before, "document", "Tokyo") != tokens(before, "document", "tokyo")
    assert tokens(checkpoint, "document", "TOKYO ＡＢＣ") == tokens(before, "document", "tokyo ａｂｃ")
    check_source(checkpoint)


def test_prompts_of_a_pylate_model_are_put_before_texts(tmp_path):
    folder = backbones.make(tmp_path / "checkpoint", config={"prompts": {"query": "検索: ", "passage": "文書: "}})
    checkpoint = load_checkpoint(folder)
    assert (checkpoint.query.prefix, checkpoint.document.prefix) == ("検索: ", "文書: ")
    plain = load_checkpoint(folder, query_prefix="", document_prefix="題: ")
    assert (plain.query.prefix, plain.document.prefix) == ("", "題: ")
    assert len(tokens(checkpoint, "document", "梅雨")) > len(tokens(plain, "document", "梅雨")[:-2])


def test_a_multi_vector_encoder_without_a_dense_keeps_the_hidden_states(tmp_path):
    folder = checkpoints.multi_vector_encoder(tmp_path / "checkpoint", dense=())
    checkpoint = load_checkpoint(folder)
    assert checkpoint.dim == HIDDEN
    vector = torch.randn(3, HIDDEN)
    assert torch.equal(checkpoint.projection(vector), vector)


# Lengths and prefixes of the user's choice


def test_lengths_are_the_users_choice(sources):
    folder = sources("japanese")
    fixed = load_checkpoint(folder, query_length=24, document_length=20)
    assert len(read(fixed, "query", "梅雨").ids) == 24
    assert len(read(fixed, "document", "梅雨" * 40).ids) == 20
    paper = load_checkpoint(folder, query_expansion="paper", query_length=40).query
    assert paper.expansion is not None
    assert (paper.expansion.length, paper.max_length) == (32, 40)


@pytest.mark.parametrize("name", ["query_length", "document_length"])
@pytest.mark.parametrize("length", [3, POSITIONS + 1])
def test_a_length_that_cannot_be_is_named(sources, name, length):
    with pytest.raises(InputError, match=rf"{name} is {length}; it must be from 4 to {POSITIONS}"):
        load_checkpoint(sources("japanese"), **{name: length})


# BGE-M3


@pytest.fixture
def bge_m3(tmp_path) -> Path:
    """As its repository is: weights of torch, a modules.json for its dense vectors, and the head beside."""
    folder = backbones.make(tmp_path / "bge-m3", "xlm-roberta", "unigram")
    pooling = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([modules[0], pooling]))
    (folder / "config_sentence_transformers.json").unlink()
    torch.manual_seed(3)
    torch.save(torch.nn.Linear(HIDDEN, DIM).state_dict(), folder / "colbert_linear.pt")
    return folder


def test_bge_m3_has_no_markers_and_no_vector_for_the_start_token(bge_m3):
    checkpoint = load_checkpoint(bge_m3)
    head = torch.load(bge_m3 / "colbert_linear.pt", weights_only=True)
    vector = torch.randn(2, HIDDEN)
    np.testing.assert_allclose(checkpoint.projection(vector), vector @ head["weight"].T + head["bias"], atol=1e-6)
    assert (checkpoint.origin["format"], checkpoint.dim) == ("bge-m3", DIM)
    for role in ("query", "document"):
        one = read(checkpoint, role, "梅雨とは")
        assert tokens(checkpoint, role, "梅雨とは")[0] == "<s>"
        assert one.keep.tolist() == [False, *[True] * (len(one.ids) - 1)]
    assert checkpoint.document.max_length == POSITIONS
    check_source(checkpoint)


@pytest.mark.parametrize(
    "head",
    [{}, {"weight": torch.zeros(4, 5)}, {"weight": torch.zeros(4, HIDDEN), "bias": torch.zeros(5)}],
    ids=["empty", "weight", "bias"],
)
def test_a_head_of_another_shape_is_named(bge_m3, head):
    torch.save(head, bge_m3 / "colbert_linear.pt")
    with pytest.raises(CheckpointError, match=r"colbert_linear.pt: has .*expected a weight"):
        load_checkpoint(bge_m3)


def test_a_head_that_is_code_does_not_run(bge_m3, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"weight": Evil()}, bge_m3 / "colbert_linear.pt")
    with pytest.raises(CheckpointError, match="more than tensors"):
        load_checkpoint(bge_m3)
    assert not (tmp_path / "ran").exists()
