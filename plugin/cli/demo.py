"""The command `tansaku demo`."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from ...onnx_export.errors import InputError
from . import display
from .hits import show_hits
from .messages import said

SAMPLE = Path(__file__).parents[1] / "sample"

QUESTIONS = (
    "梅雨がない地方はどこですか？",
    "マーラーが生まれた日は？",
    "活版印刷を広めた人は誰？",
)

_TABLE = "sample"
# What the files of the sample are called in a copy: as the documentation calls those of a user.
_COPIES = {"corpus.jsonl": "docs.jsonl", "queries.jsonl": "queries.jsonl", "qrels.tsv": "qrels.tsv"}


def demo(
    db: Annotated[
        Path | None, typer.Option("--db", help="Folder to keep the database in; by default a temporary one.")
    ] = None,
    copy_to: Annotated[
        Path | None,
        typer.Option(help="Folder that gets a copy of the sample to try on: docs.jsonl, queries.jsonl, qrels.tsv."),
    ] = None,
) -> None:
    """Index the sample corpus inside tansaku and answer three questions.

    Example: `tansaku demo`
    """
    if copy_to is not None:
        _copy_sample(copy_to.expanduser())
        return
    if db is not None:
        _demonstrate(db)
        return
    with tempfile.TemporaryDirectory(prefix="tansaku-demo-") as scratch:
        _demonstrate(Path(scratch))


def _copy_sample(folder: Path) -> None:
    there = [name for name in _COPIES.values() if (folder / name).exists()]
    if there:
        raise InputError(f"{folder} has {', '.join(there)} already; choose another folder, or move the files away")
    folder.mkdir(parents=True, exist_ok=True)
    for name, copy in _COPIES.items():
        shutil.copyfile(SAMPLE / name, folder / copy)
    line = (
        f"wrote {', '.join(_COPIES.values())} to {folder}: 300 paragraphs of the Japanese Wikipedia, a question on "
        "each, and which paragraph answers it (JSQuAD, CC BY-SA 4.0)"
    )
    display.out.print(display.shown(said(line)))


def _demonstrate(folder: Path) -> None:
    from ...indexer.index import Index
    from ...indexer.read.sources import Source
    from ..search.searcher import Searcher

    display.out.print(said("Indexing the sample corpus: paragraphs of the Japanese Wikipedia (JSQuAD, CC BY-SA 4.0)"))
    started = time.perf_counter()
    with display.ProgressDisplay() as progress:
        index = Index.create(folder, _TABLE, Source(SAMPLE / "corpus.jsonl"), overwrite=True, progress=progress)
    if index.last_build:
        display.show_build(index.last_build, time.perf_counter() - started)
    display.show_info(index.info())

    searcher = Searcher.open(folder, _TABLE, encoder=index.encoder)
    with display.NotesOfWaiting():
        searcher.search(QUESTIONS[0], k=1)  # so that the times below are those of later searches
    for question in QUESTIONS:
        started = time.perf_counter()
        hits = searcher.search(question, k=3)
        milliseconds = (time.perf_counter() - started) * 1000
        show_hits(question, hits, snippets=searcher.snippets(question, [hit.id for hit in hits]))
        time_line = said(f"{milliseconds:.0f} ms, including the encoding of the question")
        display.out.print(f"[dim]     {time_line}[/dim]")
