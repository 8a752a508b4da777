"""The recipe from its first command to its last, from every kind of start, on the sample corpus.

Mine with two teachers, one of them a cross-encoder; distil (killed and taken up again); train further on that, with the
scores in a file of their own; average, export, index, evaluate: by the commands as they are documented. What comes out
must read texts as the tokenizer of the start does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from tansaku import Encoder, load_checkpoint
from tansaku.onnx_export.convert.sentences import sentences
from tansaku.plugin.evaluation.judgements import read_passages, read_qrels, read_queries
from tansaku.training.model.student import Student
from tansaku.training.run.evaluation import Evaluation

from ..support import backbones, checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.integration]

SAMPLE = checkpoints.CORPUS.parent
QUESTIONS = 60  # that are asked; the sample has 300
# Several threads wait for each other more than they compute on models of this size.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
STARTS = ("jacolbert", "pylate-modernbert", "pylate-xlm-roberta", "encoder")


def make_start(folder: Path, start: str) -> tuple[Path, str]:
    """A checkpoint, and the lines of [model] that it needs beside the lengths."""
    if start == "jacolbert":
        return checkpoints.stanford(folder / "start"), ""
    if start == "encoder":
        checkpoints.stanford(folder / "start")
        (folder / "start" / "artifact.metadata").unlink()
        backbones.backbone("bert", len(checkpoints.pieces())).save_pretrained(folder / "start")
        return folder / "start", "projection = 16\n"
    kind, tokenizer = {"pylate-modernbert": ("modernbert", "bpe"), "pylate-xlm-roberta": ("xlm-roberta", "unigram")}[
        start
    ]
    return backbones.make(folder / "start", kind, tokenizer), ""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tansaku", *map(str, arguments)]


def run(*arguments: object) -> str:
    done = subprocess.run(command(*arguments), env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def divide_scores(groups: Path) -> None:
    """Write groups without scores and a run with the scores, as the paper's data have them."""
    lines = [json.loads(line) for line in groups.read_text(encoding="utf-8").splitlines()]
    bare = [[query, *(passage for passage, _ in pairs)] for query, *pairs in lines]
    groups.with_name("bare.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in bare), encoding="utf-8")
    scored = [f"{query}\t{passage}\t{score}\n" for query, *pairs in lines for passage, score in pairs]
    groups.with_name("scores.tsv").write_text("".join(scored), encoding="utf-8")


def write_config(path: Path, start: Path, extra: str, steps: int, data: str = 'groups = ["groups.jsonl"]') -> Path:
    """A configuration; the model is written to the folder ``path`` without its suffix."""
    path.write_text(
        f"""
[model]
checkpoint = "{start}"
query_length = 16
document_length = 60
{extra}
[data]
{data}
queries = ["queries.jsonl"]
collection = ["{SAMPLE / "corpus.jsonl"}"]
nway = 4
[optimizer]
learning_rate = 1e-3
batch_size = 8
[run]
output = "{path.stem}"
formats = ["stanford", "pylate"]
steps = {steps}
save_every = 2
device = "cpu"
""",
        encoding="utf-8",
    )
    return path


def kill_when_saved(config: Path) -> None:
    """Start a training, and kill it once there is something to continue from."""
    quiet = subprocess.DEVNULL
    started = subprocess.Popen(command("train", config), env=ENVIRONMENT, stdout=quiet, stderr=quiet)
    saved = config.with_suffix("") / "state.safetensors"
    while started.poll() is None and not saved.exists():
        time.sleep(0.02)
    started.send_signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL


def ndcg(queries: list[np.ndarray], documents: list[np.ndarray], evaluation: Evaluation) -> float:
    """nDCG@10 of exact MaxSim."""
    ids, gains = np.array(list(evaluation.passages)), []
    for query_id, query in zip(evaluation.queries, queries, strict=True):
        scores = [float((query @ document.T).max(axis=1).sum()) for document in documents]
        grades = evaluation.qrels[query_id]
        found = [grades.get(doc_id, 0) for doc_id in ids[np.argsort(scores)[::-1][:10]]]
        ideal = sorted(grades.values(), reverse=True)[:10]
        discounts = 1 / np.log2(np.arange(2, 12))
        gains.append((found * discounts).sum() / (ideal * discounts[: len(ideal)]).sum())
    return float(np.mean(gains))


def assert_reads_like(encoder: Encoder, start: Path) -> None:
    """The bundle's token ids are those of the start's own tokenizer, but for the marker and the cut."""
    source = AutoTokenizer.from_pretrained(start)
    longest = encoder.bundle.document.max_length
    for text, read in zip(sentences(), encoder.tokenize_documents(sentences()), strict=True):
        # PyLate strips texts before its tokenizer reads them.
        ids = source(text.strip() if encoder.bundle.document.strip else text, verbose=False)["input_ids"]
        marked = [ids[0], read.ids[1], *ids[1:]]
        assert read.ids.tolist() == (marked if len(marked) <= longest else [*marked[: longest - 1], ids[-1]]), text


@pytest.mark.parametrize("start", STARTS)
def test_the_recipe_ends_in_a_model_that_works(tmp_path, start):
    folder, extra = make_start(tmp_path, start)
    lines = (SAMPLE / "queries.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:QUESTIONS]
    (tmp_path / "queries.jsonl").write_text("".join(lines), encoding="utf-8")
    asked = {json.loads(line)["_id"] for line in lines}
    judged = (SAMPLE / "qrels.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [judged[0], *(line for line in judged[1:] if line.split("\t")[0] in asked)]
    (tmp_path / "qrels.tsv").write_text("".join(kept), encoding="utf-8")
    texts = ("--queries", tmp_path / "queries.jsonl", "--collection", SAMPLE / "corpus.jsonl")
    teacher = f"0.2*cross-encoder:{backbones.cross_encoder(tmp_path / 'teacher')}"
    teachers = ("--teacher", "bm25", "--teacher", teacher, "--nway", 4, "--depth", 20)
    run("mine", tmp_path / "groups.jsonl", *texts, "--qrels", tmp_path / "qrels.tsv", "--bm25", *teachers)

    first = write_config(tmp_path / "first.toml", folder, extra, steps=14)
    kill_when_saved(first)
    run("train", first)
    form = "stanford" if start == "jacolbert" else "pylate"
    divide_scores(tmp_path / "groups.jsonl")
    data = 'groups = ["bare.jsonl"]\nscores = ["scores.tsv"]'
    second = write_config(tmp_path / "second.toml", tmp_path / "first" / form, "", 4, data)
    run("train", second)
    steps = [tmp_path / "second" / f"checkpoint-{step}" for step in (2, 4, 4)]
    run("average", second, tmp_path / "mean", *steps)
    run("export", tmp_path / "mean", tmp_path / "bundle", "--precision", "float32")
    run("index", SAMPLE / "corpus.jsonl", "--db", tmp_path / "db", "--table", "docs", "--model", tmp_path / "bundle")
    measured = ("--queries", tmp_path / "queries.jsonl", "--qrels", tmp_path / "qrels.tsv", "--json")
    place = ("--db", tmp_path / "db", "--table", "docs", "--model", tmp_path / "bundle")
    assert json.loads(run("evaluate", *place, *measured))["metrics"]["ndcg@10"] > 0

    encoder = Encoder.load(tmp_path / "bundle", threads=1)
    assert_reads_like(encoder, folder)
    expansion = encoder.bundle.query.expansion
    assert expansion is not None
    assert expansion.rule == ("fixed" if start.startswith("pylate") else "paper")
    queries, passages = read_queries(tmp_path / "queries.jsonl"), read_passages(SAMPLE / "corpus.jsonl")
    evaluation = Evaluation(dict(queries), dict(passages), read_qrels(tmp_path / "qrels.tsv"))
    in_torch = evaluation.measure(Student(load_checkpoint(tmp_path / "mean")).eval())["ndcg@10"]
    asked_vectors = encoder.encode_queries(evaluation.queries.values())
    found_vectors = encoder.encode_documents(evaluation.passages.values())
    assert ndcg(asked_vectors, found_vectors, evaluation) == pytest.approx(in_torch, abs=1e-3)
