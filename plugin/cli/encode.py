"""The command `tansaku encode`: texts to a Parquet file of token vectors."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from . import display
from .options import GenerateIds, IdField, Model, Quiet, Resume, TextField, Threads, TitleField, load_models

Floats = Literal["float16", "float32"]


def encode(
    source: Annotated[list[str], typer.Argument(help="Documents, as `tansaku index` takes them.")],
    out: Annotated[Path, typer.Argument(help="Parquet file for the documents with their token vectors.")],
    id_field: IdField = None,
    text_field: TextField = None,
    title_field: TitleField = "title",
    generate_ids: GenerateIds = False,
    floats: Annotated[
        Floats, typer.Option(help="Number format of the vectors; float16 takes half the space of float32.")
    ] = "float16",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replacement of a file with that name.")] = False,
    resume: Resume = True,
    quiet: Quiet = False,
    model: Model = None,
    threads: Threads = None,
) -> None:
    """Encode documents into a Parquet file of token vectors, which `tansaku index --vectors vectors` reads.

    One machine can then encode and another can index. The file says its model.

    Example: `tansaku encode docs.jsonl docs.parquet`
    """
    from ...indexer.read.documents import FieldNames
    from ...indexer.read.sources import Source
    from ...indexer.write.encode_file import encode_file
    from ...indexer.write.options import WriteOptions

    names = FieldNames(id_field, tuple(text_field or ["text"]), title_field, generate_ids=generate_ids)
    started = time.perf_counter()
    with display.LoggedWarnings(), display.ProgressDisplay() as progress:
        report = encode_file(
            Source(source),
            out,
            load_models(model, threads).default(),
            floats=floats,
            overwrite=overwrite,
            options=WriteOptions(names, resume=resume, progress=progress),
        )
    if not quiet:
        display.show_build(report, time.perf_counter() - started)
