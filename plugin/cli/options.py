"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..search.plan import Recall, SourceName

Db = Annotated[str, typer.Option("--db", help="Folder or URI of the LanceDB database.")]
TableName = Annotated[str, typer.Option("--table", help="Name of the table.")]
Model = Annotated[
    Path | None, typer.Option("--model", help="Folder of an encoder bundle; by default the one that ships inside.")
]
Threads = Annotated[int | None, typer.Option("--threads", help="Threads for encoding; by default all cores.")]
StorageOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--storage-option", help="KEY=VALUE for an object store, as LanceDB names them; better in the environment."
    ),
]
RecallOption = Annotated[Recall, typer.Option(help="exact scores every document, the others the likely ones.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SourceOption = Annotated[
    SourceName, typer.Option("--source", help="Candidates from inverted lists, full text, or both.")
]
Bm25Weight = Annotated[float, typer.Option(help="Of BM25 beside MaxSim, for --source fused or text.")]
PhraseWeight = Annotated[
    float | None, typer.Option(help="Of a token's neighbours; 0 is MaxSim alone, by default what the model says.")
]
