"""The demonstration: the sample corpus indexed, three questions answered."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from ...indexer.index import Index
from ...indexer.read.sources import Source
from ..search.searcher import Searcher
from . import display as console

SAMPLE = Path(__file__).parents[1] / "sample"

QUESTIONS = (
    "梅雨がない地方はどこですか？",
    "マーラーが生まれた日は？",
    "活版印刷を広めた人は誰？",
)

_TABLE = "sample"


def run_demo(folder: Path | None = None) -> None:
    """Index the sample corpus into ``folder``, or a temporary one, and print what three questions find."""
    if folder is not None:
        _demonstrate(folder)
        return
    with tempfile.TemporaryDirectory(prefix="tansaku-demo-") as scratch:
        _demonstrate(Path(scratch))


def _demonstrate(folder: Path) -> None:
    console.out.print("Indexing the sample corpus: paragraphs of the Japanese Wikipedia (JSQuAD, CC BY-SA 4.0)")
    started = time.perf_counter()
    with console.ProgressDisplay() as progress:
        index = Index.create(folder, _TABLE, Source(SAMPLE / "corpus.jsonl"), overwrite=True, progress=progress)
    if index.last_build:
        console.show_build(index.last_build, time.perf_counter() - started)
    console.show_info(index.info())

    searcher = Searcher.open(folder, _TABLE, encoder=index.encoder)
    for question in QUESTIONS:
        started = time.perf_counter()
        hits = searcher.search(question, k=3)
        milliseconds = (time.perf_counter() - started) * 1000
        console.show_hits(question, hits)
        console.out.print(f"[dim]     {milliseconds:.0f} ms, query encoding included[/dim]")
