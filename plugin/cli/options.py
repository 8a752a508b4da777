"""Options and arguments that several commands take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from ...onnx_export.errors import InputError
from ..search.choices import LEAST_RECALL, Recall, RecallName, SourceName
from ..serving.access import TOKEN_VARIABLE
from . import display

if TYPE_CHECKING:
    from ...indexer.read.sources import Source
    from ...indexer.table.model import Models
    from ...indexer.table.table import IndexTable
    from ...onnx_export.encode.encoder import Encoder

# Where an index is, and the model.
Db = Annotated[str, typer.Option("--db", help="Folder or URI of the LanceDB database.")]
TableName = Annotated[str, typer.Option("--table", help="Name of the table.")]
StorageOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--storage-option",
        metavar="KEY=VALUE",
        help="Option for an object store, in LanceDB's names; may be repeated. Credentials are safer in the "
        "environment.",
    ),
]
Model = Annotated[
    Path | None,
    typer.Option(
        "--model", help="Folder of an encoder bundle; by default the model of the index, or that inside tansaku."
    ),
]
Threads = Annotated[
    int | None, typer.Option("--threads", help="Number of threads for encoding; by default one per usable core.")
]

# Which fields of documents are read.
IdField = Annotated[str | None, typer.Option("--id-field", help="Name of the id field; by default _id or id.")]
TextField = Annotated[
    list[str] | None,
    typer.Option(
        "--text-field",
        help="Name of the text field, by default text; may be repeated: the texts are joined by line ends.",
    ),
]
TitleField = Annotated[str, typer.Option("--title-field", help="Name of the title field; documents may lack it.")]
GenerateIds = Annotated[
    bool, typer.Option("--generate-ids", help="Generation of ids from titles and texts; no id field is read.")
]

# A server.
Token = Annotated[
    str | None,
    typer.Option("--token", envvar=TOKEN_VARIABLE, help="Token that clients must send; safer in the environment."),
]


def _recall(given: str) -> Recall | str:
    """A number as a number; `SearchOptions` refuses what cannot be used."""
    try:
        return float(given)
    except ValueError:
        return given


# What a search is given: the fields of `tansaku.SearchOptions`, with their defaults.
K = Annotated[int, typer.Option("-k", help="Number of hits.")]
RecallOption = Annotated[
    Any,  # Recall; typer has no options of two types
    typer.Option(
        "--recall",
        parser=_recall,
        metavar=f"[{'|'.join(get_args(RecallName))}|{LEAST_RECALL}..1]",
        autocompletion=lambda: list(get_args(RecallName)),
        help="Thoroughness: exact scores every document; balanced and fast only the likely ones. Or a number: share of "
        "the ten best that is expected among the hits.",
    ),
]
Where = Annotated[
    str | None,
    typer.Option("--where", help="Condition over the columns, such as 'year < 1950'; only matches are searched."),
]
Ids = Annotated[
    list[str] | None, typer.Option("--id", help="Id of a document or passage to search among; may be repeated.")
]
Passages = Annotated[
    bool,
    typer.Option(
        "--passages",
        help="Hits for single passages, if documents are divided into them; by default one for each document.",
    ),
]
SourceOption = Annotated[
    SourceName,
    typer.Option("--source", help="Source of candidates: inverted lists, full text search (text), or both (fused)."),
]
Bm25Weight = Annotated[
    float,
    typer.Option(
        "--bm25-weight", help="Weight of BM25 added to MaxSim (0 = none); needs --source text or --source fused."
    ),
]
PhraseWeight = Annotated[
    float | None,
    typer.Option(
        "--phrase-weight",
        help="Weight given to the similarity of neighbouring tokens (0 = plain MaxSim); by default the model's.",
    ),
]
Nprobe = Annotated[
    int | None,
    typer.Option("--nprobe", help="Number of centroids probed for each query token; by default set by --recall."),
]
Candidates = Annotated[
    int | None,
    typer.Option("--candidates", help="Number of candidates scored by their codes; by default set by --recall."),
]

# How a command works and prints.
Resume = Annotated[
    bool,
    typer.Option("--resume/--no-resume", help="Continue what an interrupted run left, or discard that and start over."),
]
AllowMissing = Annotated[
    bool,
    typer.Option("--allow-missing", help="Measures even if most judged documents are not there to be found."),
]


def _be_quiet(quiet: bool) -> bool:
    if quiet:
        display.be_quiet()
    return quiet


Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Errors and results only: no progress, warnings or reports.", callback=_be_quiet
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def storage_options(given: Sequence[str] | None) -> dict[str, str] | None:
    """What `--storage-option` was given, as a mapping; None if nothing was.

    Raises:
        InputError: an option is not KEY=VALUE. The message leaves the option out, which may be a credential.
    """
    return pairs(given, "--storage-option", "KEY=VALUE") or None


def pairs(given: Sequence[str] | None, option: str, form: str) -> dict[str, str]:
    """What an option of the form KEY=VALUE was given, as a mapping.

    Raises:
        InputError: a value has another form. The message leaves it out, as it may be a credential.
    """
    found: dict[str, str] = {}
    for value in given or ():
        key, separator, rest = value.partition("=")
        if not separator or not key:
            raise InputError(f"{option}: expected {form}")
        found[key] = rest
    return found


def load_models(model: Path | None, threads: int | None) -> Models:
    """The model of `--model` for every table, or each table's own.

    Args:
        model: Folder of a bundle; None finds the model of a table when that is opened.
        threads: Number of threads for encoding.

    Raises:
        TansakuError: The model cannot be loaded.
    """
    from ...indexer.table.model import Models
    from ...onnx_export.encode.encoder import Encoder

    return Models(None if model is None else Encoder.load(model, threads=threads), threads=threads)


def model_of_vectors(documents: Source, models: Models, vectors_only: bool) -> Encoder | None:
    """The model that made the vectors of documents; None if their file names it, or it is none of tansaku's.

    Args:
        documents: Documents with vectors.
        models: What `--model` names.
        vectors_only: Whether tansaku has no bundle of the model.

    Raises:
        InputError: Nothing names the model, or it is named and ``vectors_only`` is given.
    """
    from ...indexer.table.given_vectors import named_model

    named = named_model(documents)
    if vectors_only:
        if models.given is not None or named is not None:
            raise InputError("--vectors-only: the model is known, by --model or by the file; leave it out")
        return None
    if models.given is None and named is None:
        raise InputError(
            f"{documents.path}: does not say which model made its vectors; name the model's bundle with --model, or, "
            "if tansaku has none, give --vectors-only"
        )
    return models.given


def open_table(db: str, table: str, storage_options: Mapping[str, str] | None) -> IndexTable:
    """The table of an index.

    Args:
        db: Database of the table.
        table: Name of the table.
        storage_options: Options for the object store.

    Raises:
        TansakuError: The table cannot be opened.
    """
    from ...indexer.table.database import connect
    from ...indexer.table.table import open_index_table

    return open_index_table(connect(db, storage_options=storage_options), table)
