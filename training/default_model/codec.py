"""The step `codec`: the codec that ships with the model inside, for indexes too small to train their own."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import typer

from ...indexer.codec.codec_file import add_codec, train_on_texts
from ...indexer.read.documents import DocumentReader
from ...indexer.read.sources import Source
from ...onnx_export.encode.encoder import Encoder

CORPORA = ("jaquad", "kyoto-wiki-ja", "msdocs-ja")  # those that the model was trained on; no evaluation set

_SEED = 28


def write_codec(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle, which is changed.")],
    data: Annotated[Path, typer.Option(help="Folder with corpora: DATA/NAME/corpus.jsonl.")],
    documents: Annotated[int, typer.Option(help="Number of documents of each corpus; all of a smaller one.")] = 2500,
) -> None:
    """Train a codec on documents of the corpora that the model was trained on, and put it into the bundle."""
    draw = random.Random(_SEED)  # noqa: S311  a sample of texts
    texts: list[str] = []
    for corpus in CORPORA:
        every = [document.encoded_text for document in DocumentReader(Source(data / corpus / "corpus.jsonl"))]
        texts += draw.sample(every, min(documents, len(every)))
        typer.echo(f"{corpus}: {min(documents, len(every)):,} of {len(every):,} documents")
    draw.shuffle(texts)
    codec = train_on_texts(Encoder.load(bundle), texts)
    add_codec(bundle, codec)
    typer.echo(
        f"{bundle}: codec {codec.codec_id}, {len(codec.centroids):,} centroids, {codec.stored_bytes / 1e6:.1f} MB"
    )
