"""The command `tansaku export`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import typer

from ...onnx_export.errors import InputError
from ...onnx_export.extras import require_extra
from ...onnx_export.files import check_output_folder
from . import display
from .options import AsJson

Precision = Literal["int8", "float32"]
QueryExpansion = Literal["paper", "shipped", "fixed", "none"]


def export(
    checkpoint: Annotated[str, typer.Argument(help="ColBERT checkpoint: a folder, or OWNER/NAME on the model hub.")],
    out: Annotated[Path, typer.Argument(help="Folder for the bundle.")],
    precision: Annotated[
        Precision, typer.Option(help="Number format of the weights; int8 takes a quarter of the space of float32.")
    ] = "int8",
    int8: Annotated[bool, typer.Option("--int8", hidden=True, help="Deprecated: int8 is the default.")] = False,
    query_expansion: Annotated[
        QueryExpansion | None,
        typer.Option(help="Rule for mask tokens of queries; by default the checkpoint's, or paper for Stanford's."),
    ] = None,
    query_length: Annotated[
        int | None, typer.Option(help="Longest query in tokens, with its masks; by default the checkpoint's.")
    ] = None,
    document_length: Annotated[
        int | None, typer.Option(help="Longest document in tokens; by default the checkpoint's.")
    ] = None,
    query_prefix: Annotated[
        str | None, typer.Option(help="String before each query, such as 'query: '; by default the checkpoint's.")
    ] = None,
    document_prefix: Annotated[
        str | None, typer.Option(help="String before each document; by default the checkpoint's.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the model hub.")] = None,
    phrase_weight: Annotated[
        float,
        typer.Option(
            help="Weight given to the similarity of neighbouring tokens, for searches that do not set one "
            "(0 = plain MaxSim)."
        ),
    ] = 0.0,
    japanese_text: Annotated[
        bool,
        typer.Option(
            "--japanese-text",
            help="Rules for texts as in the model inside: variant characters, spaces of OCR, width. "
            "The checkpoint's own library has none.",
        ),
    ] = False,
    codec_texts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File of texts of many kinds, two thousand or more, to train a codec and row vectors on. Small "
            "indexes adapt the codec, which is good for texts that are added later; both are needed to keep "
            "documents in a database's own rows.",
        ),
    ] = None,
    row_queries: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File of questions or other queries, a thousand or more, for the row vectors; by default sentences of "
            "--codec-texts stand in for them.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn a ColBERT checkpoint into an encoder bundle, and measure how near its vectors are to the checkpoint's.

    Needs the extra `export`, and `japanese` for tokenizers that use MeCab.

    Example: `tansaku export answerdotai/JaColBERTv2.5 ./jacolbert`
    """
    require_extra("export")
    check_output_folder(out)
    if row_queries is not None and codec_texts is None:
        raise InputError("--row-queries needs --codec-texts: row vectors are learned from texts, too")
    # These bring torch and transformers, which no other command needs.
    from ...indexer.codec.codec_file import add_codec, train_on_texts
    from ...indexer.read.documents import DocumentReader
    from ...indexer.read.sources import Source
    from ...onnx_export.convert.export import export_checkpoint
    from ...onnx_export.convert.japanese_text import with_japanese_text
    from ...onnx_export.convert.load import load_checkpoint
    from ...onnx_export.encode.encoder import Encoder
    from ..evaluation.judgements import read_queries
    from ..rows.fit_row_vectors import fit_row_vectors, sentences
    from ..rows.row_vectors import add_row_vectors

    if int8:
        display.show_warning("--int8 is deprecated and will be removed: int8 is the default (see --precision)")
    loaded = load_checkpoint(
        checkpoint,
        revision=revision,
        query_expansion=query_expansion,
        query_length=query_length,
        document_length=document_length,
        query_prefix=query_prefix,
        document_prefix=document_prefix,
    )
    if japanese_text:
        loaded = with_japanese_text(loaded)
    bundle = export_checkpoint(loaded, out, precision="int8" if int8 else precision, phrase_weight=phrase_weight)
    if codec_texts is not None:
        with display.ProgressDisplay() as progress:
            texts = [document.encoded_text for document in DocumentReader(Source(codec_texts))]
            asked = list(sentences(texts) if row_queries is None else read_queries(row_queries).values())
            encoder = Encoder.load(out)
            add_codec(out, train_on_texts(encoder, texts, progress=progress))
            bundle = add_row_vectors(out, fit_row_vectors(encoder, asked, texts, progress=progress))
    size = sum(file.stat().st_size for file in out.iterdir())
    if as_json:
        display.show_json({"bundle": str(out), "bytes": size, **dataclasses.asdict(bundle)})
    else:
        display.show_bundle(out, bundle, size)
