"""How the default model is made: what it is trained on, and a bundle from a training's checkpoints, in small."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tansaku import Encoder, InputError, TansakuError
from tansaku.onnx_export.convert.load import load_checkpoint
from tansaku.plugin.evaluation.judgements import read_passages, read_queries
from tansaku.training.data.groups import Group, raw_groups, write_groups
from tansaku.training.default_model import recipe as default_model
from tansaku.training.default_model.__main__ import app
from tansaku.training.errors import TrainingDataError
from tansaku.training.run.averaging import average_weights

from ..support import checkpoints

pytestmark = pytest.mark.integration

TEXTS = ["東京は日本の首都です。", "京都は昔の首都です。", "大阪は商人の町です。", "川の水は山から来る。"]


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def judge(path, pairs):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{p}\t1\n" for q, p in pairs), encoding="utf-8")


@pytest.fixture
def data(tmp_path):
    """The corpora in small: their passages 0 and 1 belong to the training, 2 and 3 to what is judged."""
    folder = tmp_path / "data"
    for name in ("jaquad", "msdocs-ja", "kyoto-wiki-ja"):
        write(folder / name / "corpus.jsonl", [{"_id": f"{name}-{i}", "text": text} for i, text in enumerate(TEXTS)])
    for name in ("jaquad", "msdocs-ja"):
        write(folder / name / "queries.jsonl", [{"_id": f"{name}-q{i}", "text": f"問い{i}"} for i in range(4)])
        judge(folder / name / "qrels" / "train.tsv", [(f"{name}-q{i}", f"{name}-{i}") for i in range(2)])
    judge(folder / "jaquad" / "qrels" / "dev.tsv", [("jaquad-q2", "jaquad-2")])
    write(folder / "queries-ja" / "queries.jsonl", [{"_id": "m1", "text": "首都はどこ"}])
    (folder / "kyoto-wiki-ja" / "eval_overlap_ids.txt").write_text("kyoto-wiki-ja-2\nkyoto-wiki-ja-3\n")
    return folder


def run(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(done.exception, TansakuError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def ids(path):
    return [json.loads(line)["_id"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_nothing_that_is_judged_is_trained_on(data, tmp_path):
    said = run("data", tmp_path / "work", "--data", data)
    work = tmp_path / "work"
    assert ids(work / "jaquad" / "queries.jsonl") == ["jaquad-q0", "jaquad-q1"]
    assert ids(work / "jaquad" / "corpus.jsonl") == ["jaquad-0", "jaquad-1"]
    assert ids(work / "msdocs-ja" / "queries.jsonl") == ["msdocs-ja-q0", "msdocs-ja-q1"]
    assert len(ids(work / "msdocs-ja" / "corpus.jsonl")) == 4
    assert ids(work / "kyoto-wiki-ja" / "corpus.jsonl") == ["kyoto-wiki-ja-0", "kyoto-wiki-ja-1"]
    assert ids(work / "kyoto-wiki-ja" / "queries.jsonl") == ["m1"]
    assert "jaquad: 2 queries, 2 passages" in said
    assert (work / "jaquad" / "qrels.tsv").read_text() == (data / "jaquad" / "qrels" / "train.tsv").read_text()


def test_a_limit_takes_whole_pages_and_keeps_what_is_relevant(data, tmp_path):
    pages = [{"_id": f"k{page}-{i}", "title": f"題{page}", "text": "文。"} for page in range(6) for i in range(3)]
    write(data / "kyoto-wiki-ja" / "corpus.jsonl", pages)
    run("data", tmp_path / "work", "--data", data, "--limit", "5")
    kept = ids(tmp_path / "work" / "kyoto-wiki-ja" / "corpus.jsonl")
    assert kept == [record["_id"] for record in pages if record["_id"] in set(kept)]
    assert len(kept) == 6
    assert len({name.partition("-")[0] for name in kept}) == 2
    run("data", tmp_path / "least", "--data", data, "--limit", "1")
    assert ids(tmp_path / "least" / "msdocs-ja" / "corpus.jsonl") == ["msdocs-ja-0", "msdocs-ja-1"]


def test_neighbours_are_asked_by_their_questions_and_by_sentences(data, tmp_path):
    for name in default_model.CORPORA:
        longer = [{"_id": f"{name}-{i}", "text": text + "次の文も同じ文章です。"} for i, text in enumerate(TEXTS)]
        write(data / name / "corpus.jsonl", longer)
    run("data", tmp_path / "work", "--data", data)
    said = run("neighbours", tmp_path / "work", "--nway", "2", "--queries", "3", "--blocks", "1", "1", "1")
    assert "jaquad: 3 groups, 1 of them asked by a sentence" in said
    assert "kyoto-wiki-ja: 3 groups, 3 of them asked by a sentence" in said
    folder = tmp_path / "work" / "jaquad"
    texts = read_queries([folder / "queries.jsonl", folder / "sentences.jsonl"])
    passages = read_passages(folder / "corpus.jsonl")
    groups = list(raw_groups([folder / "neighbours.jsonl"]))
    assert all(group.query in texts and set(group.passages) <= passages.keys() for group in groups)
    assert {group.query: group.passages[0] for group in groups}["jaquad-q1"] == "jaquad-1"
    with pytest.raises(TrainingDataError, match=r"work/jaquad: no 3 neighbours have 3 questions"):
        run("neighbours", tmp_path / "work", "--nway", "3", "--queries", "3")


def test_a_corpus_that_is_not_there_is_named(data, tmp_path):
    (data / "kyoto-wiki-ja" / "corpus.jsonl").unlink()
    with pytest.raises(InputError, match=r"kyoto-wiki-ja/corpus\.jsonl: no such file; --data"):
        run("data", tmp_path / "work", "--data", data)


@pytest.mark.slow
def test_the_bundle_has_the_mean_of_the_checkpoints_and_the_base_models_rules(data, tmp_path, monkeypatch):
    start = load_checkpoint(checkpoints.stanford(tmp_path / "start", tokenizer="bert"))
    monkeypatch.setattr(default_model, "base_model", lambda *_, **__: start)
    groups = [Group(f"jaquad-q{i}", ("jaquad-0", "jaquad-1"), np.array([1 - i, i], np.float32)) for i in (0, 1)]
    write_groups(tmp_path / "groups.jsonl", groups)
    config = tmp_path / "train.toml"
    config.write_text(
        f"""
        [model]
        checkpoint = "base"
        augmentation = "none"
        query_length = 8
        document_length = 12
        [data]
        groups = ["groups.jsonl"]
        queries = ["{data}/jaquad/queries.jsonl"]
        collection = ["{data}/jaquad/corpus.jsonl"]
        nway = 2
        [optimizer]
        batch_size = 2
        learning_rate = 1e-2
        [run]
        output = "run"
        steps = 4
        save_every = 2
        """
    )
    (tmp_path / "card.md").write_text("# A card\n")
    options = ["--config", config, "--data", data, "--card", tmp_path / "card.md", "--average", "2", "--average", "4"]
    said = run("build", tmp_path / "out", *options)
    assert "step 4 of 4" in said
    encoder = Encoder.load(tmp_path / "out")
    assert encoder.bundle.query == start.query
    assert encoder.bundle.document == start.document
    assert encoder.bundle.origin["averaged"] == ["checkpoint-2", "checkpoint-4"]
    mean = average_weights([tmp_path / "run" / "checkpoint-2", tmp_path / "run" / "checkpoint-4"])
    assert torch.equal(start.projection.state_dict()["weight"], mean["projection.weight"])
    assert (tmp_path / "out" / "README.md").read_text() == "# A card\n"
