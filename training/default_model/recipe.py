"""A default model from the base model by the recipe, in three steps.

python -m tansaku.training.default_model data WORK --data FOLDER     # queries and passages
python -m tansaku.training.default_model neighbours WORK             # groups of them, or `tansaku mine` with teachers
python -m tansaku.training.default_model build OUT --config CONFIG.toml --data FOLDER --card CARD.md

The projection and the vocabulary are fitted to the corpora first, see `base_model`.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from ...indexer.errors import SourceError
from ...onnx_export.convert.checkpoint import Checkpoint
from ...onnx_export.convert.export import export_checkpoint
from ...onnx_export.errors import InputError
from ...onnx_export.files import read_lines, write_atomically
from ...plugin.evaluation.judgements import read_passages, read_qrels, read_queries, read_records
from ..config import read_config
from ..data.groups import write_groups
from ..data.neighbours import neighbour_groups
from ..errors import TrainingDataError
from ..model.student import Student
from ..run.averaging import average_weights
from ..run.trainer import StepReport, train
from .base_model import base_model

NAME = "tansaku-ja-small"
LAYERS, DIM = 12, 128
PHRASE_WEIGHT = 0.1  # measured, see the model card
CORPORA = ("jaquad", "msdocs-ja", "kyoto-wiki-ja")
_SEED = 20240729
_BLOCKS = (160, 160, 160)

Data = Annotated[Path, typer.Option(help="Folder with the corpora " + ", ".join(CORPORA) + " and queries-ja.")]


def write_data(
    work: Annotated[Path, typer.Argument(help="Folder for the queries, passages and judgements.")],
    data: Data,
    limit: Annotated[
        int | None, typer.Option(help="Largest number of passages of a corpus, about; by default all.")
    ] = None,
) -> None:
    """Write queries, passages and judgements for training, without anything that is evaluated on.

    Relevant passages are always among them. With a limit the others are whole pages, drawn at random.
    """
    judged = {name: read_qrels(data / name / "qrels" / "train.tsv") for name in ("jaquad", "msdocs-ja")}
    relevant = {name: {passage for found in judged[name].values() for passage in found} for name in judged}
    passages = {name: _records(data / name / "corpus.jsonl") for name in CORPORA}
    overlap = set(read_lines(data / "kyoto-wiki-ja" / "eval_overlap_ids.txt"))
    passages["jaquad"] = [record for record in passages["jaquad"] if record["_id"] in relevant["jaquad"]]
    passages["kyoto-wiki-ja"] = [record for record in passages["kyoto-wiki-ja"] if record["_id"] not in overlap]
    for name, records in passages.items():
        asked = _records(data / ("queries-ja" if name == "kyoto-wiki-ja" else name) / "queries.jsonl")
        if name in judged:
            asked = [record for record in asked if record["_id"] in judged[name]]
        _write(work / name, asked, _limited(records, limit, relevant.get(name, set())))
    for name in judged:
        (work / name / "qrels.tsv").write_bytes((data / name / "qrels" / "train.tsv").read_bytes())


def write_neighbours(
    work: Annotated[Path, typer.Argument(help="The folder that `data` wrote.")],
    nway: Annotated[int, typer.Option(help="Number of neighbouring passages of a group.")] = 16,
    queries: Annotated[
        int, typer.Option(help="Number of questions and sentences that ask for a block of neighbours.")
    ] = 32,
    blocks: Annotated[
        tuple[int, int, int], typer.Option(help="Numbers of blocks of " + ", ".join(CORPORA) + ".")
    ] = _BLOCKS,
) -> None:
    """Write groups of neighbouring passages, asked for by questions and by sentences of the passages."""
    for name, most in zip(CORPORA, blocks, strict=True):
        folder = work / name
        qrels = folder / "qrels.tsv"
        questions: dict[str, list[str]] = {}
        asked = read_queries(folder / "queries.jsonl")
        for question, found in read_qrels(qrels).items() if qrels.exists() else ():
            for passage in found if question in asked else ():
                questions.setdefault(passage, []).append(question)
        passages = read_passages(folder / "corpus.jsonl")
        try:
            groups, sentences = neighbour_groups(
                passages, questions, nway=nway, queries=queries, blocks=most, seed=_SEED
            )
        except TrainingDataError as error:
            raise TrainingDataError(f"{folder}: {error}") from error
        write_groups(folder / "neighbours.jsonl", groups)
        _write_records(folder / "sentences.jsonl", [{"_id": query, "text": text} for query, text in sentences.items()])
        typer.echo(f"{folder}: {len(groups):,} groups, {len(sentences):,} of them asked by a sentence")


def build(
    out: Annotated[Path, typer.Argument(help="Folder for the bundle.")],
    config: Annotated[Path, typer.Option(help="Configuration of the training, a TOML file.")],
    data: Data,
    card: Annotated[Path, typer.Option(help="Model card, a Markdown file.")],
    layers: Annotated[int, typer.Option(help="Number of transformer layers to keep.")] = LAYERS,
    dim: Annotated[int, typer.Option(help="Length of a token vector.")] = DIM,
    average: Annotated[
        list[int] | None, typer.Option(help="Step whose checkpoint is averaged; may be repeated.")
    ] = None,
) -> None:
    """Train the base model by a configuration, average checkpoints, and export the result at int8."""
    settings = read_config(config)
    start = base_model(data, layers=layers, dim=dim)

    def show(step: StepReport) -> None:
        if step.evaluation or step.step % max(1, step.steps // 100) == 0:
            typer.echo(step)

    last = train(settings, start, on_step=show)
    folders = [last.with_name(f"checkpoint-{step}") for step in average] if average else [last]
    checkpoint = trained(start, folders)
    facts = {
        "made_by": "python -m tansaku.training.default_model",
        "trained_on": list(CORPORA),
        "averaged": [folder.name for folder in folders],
    }
    checkpoint = dataclasses.replace(checkpoint, origin={**checkpoint.origin, **facts})
    bundle = export_checkpoint(
        checkpoint, out, precision="int8", card=card.read_text(encoding="utf-8"), phrase_weight=PHRASE_WEIGHT
    )
    size = sum(file.stat().st_size for file in out.iterdir())
    typer.echo(f"{out}: {size / 1e6:.1f} MB, parity {bundle.parity}")


def trained(start: Checkpoint, folders: list[Path]) -> Checkpoint:
    """``start`` with the mean of the weights in ``folders``, and its own rules for texts, not those of the training."""
    student = Student(start)
    student.load_state_dict(average_weights(folders))
    return dataclasses.replace(student.eval().checkpoint, name=NAME)


def _limited(records: list[dict[str, Any]], limit: int | None, relevant: Collection[str]) -> list[dict[str, Any]]:
    """The relevant passages and those of pages drawn at random until there are about ``limit``, in their order."""
    if limit is None:
        return records
    pages: dict[str, list[str]] = {}
    for record in records:
        pages.setdefault(record.get("title", ""), []).append(record["_id"])
    titles = list(pages)
    random.Random(_SEED).shuffle(titles)  # noqa: S311
    chosen = set(relevant)
    for title in titles:
        if len(chosen) >= limit:
            break
        chosen.update(pages[title])
    return [record for record in records if record["_id"] in chosen]


def _write(folder: Path, queries: list[dict[str, Any]], passages: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in (("queries.jsonl", queries), ("corpus.jsonl", passages)):
        if not records:
            raise InputError(f"{folder / name}: nothing is left to train on; raise --limit or check the corpora")
        _write_records(folder / name, records)
    typer.echo(f"{folder}: {len(queries):,} queries, {len(passages):,} passages")


def _write_records(path: Path, records: Iterable[dict[str, Any]]) -> None:
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    write_atomically(path, "".join(lines))


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        return [record for _, record in read_records(path)]
    except SourceError as error:
        raise SourceError(f"{error}; --data is the folder with the corpora") from error
