"""The step `row-vectors`: one vector of a document, for databases that search such vectors."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import typer

from ...indexer.read.documents import DocumentReader
from ...indexer.read.sources import Source
from ...onnx_export.encode.encoder import Encoder
from ...plugin.evaluation.judgements import judged_queries, read_qrels, read_queries
from ...plugin.rows.fit_row_vectors import fit_row_vectors
from ...plugin.rows.row_vectors import add_row_vectors

QUESTIONS = {"jaquad": 3000, "queries-ja": 5000, "msdocs-ja": 1500}
DOCUMENTS = {"jaquad": 6000, "msdocs-ja": 2000}  # kyoto-wiki-ja is kept to measure on

_SEED = 29


def write_row_vectors(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle, which is changed.")],
    data: Annotated[Path, typer.Option(help="Folder with corpora: DATA/NAME/corpus.jsonl, DATA/NAME/queries.jsonl.")],
) -> None:
    """Learn row vectors from training questions and documents, and put them into the bundle."""
    maps = fit_row_vectors(Encoder.load(bundle), *questions_and_texts(data))
    add_row_vectors(bundle, maps)
    typer.echo(f"{bundle}: row vectors of {', '.join(map(str, maps.dims))} dimensions")


def questions_and_texts(data: Path) -> tuple[list[str], list[str]]:
    """What is learned from; of `jaquad` the training split alone.

    Args:
        data: folder with corpora.

    Returns:
        Questions and documents.
    """
    draw = random.Random(_SEED)  # noqa: S311  a sample of texts
    qrels = {name: read_qrels(data / name / "qrels" / "train.tsv") for name in DOCUMENTS}
    questions: list[str] = []
    for name, number in QUESTIONS.items():
        found = read_queries(data / name / "queries.jsonl")
        every = list((judged_queries(found, qrels[name]) if name in qrels else found).values())
        questions += draw.sample(every, min(number, len(every)))
    texts: list[str] = []
    for name, number in DOCUMENTS.items():
        asked = {doc_id for judged in qrels[name].values() for doc_id in judged}
        read = DocumentReader(Source(data / name / "corpus.jsonl"))
        every = [document.encoded_text for document in read if name != "jaquad" or document.id in asked]
        texts += draw.sample(every, min(number, len(every)))
    return questions, texts
