"""The command `tansaku serve`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ...onnx_export.errors import InputError
from ..search.scores import ScoreMode
from ..service.settings import Settings
from .options import Model, PhraseWeight, Threads


def serve(
    db: Annotated[str | None, typer.Option("--db", help="Folder or URI of the LanceDB database.")] = None,
    table: Annotated[
        list[str] | None,
        typer.Option("--table", help="Name of a table to serve; may be repeated. The first is default."),
    ] = None,
    index: Annotated[
        list[str] | None,
        typer.Option("--index", help="NAME=DB/TABLE, an index of another database; may be repeated."),
    ] = None,
    model: Model = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 is any that is free.")] = 8080,
    token: Annotated[
        str | None,
        typer.Option(
            "--token", envvar="TANSAKU_TOKEN", help="Token that clients must send; better in the environment."
        ),
    ] = None,
    score: Annotated[
        ScoreMode, typer.Option(help="What scores mean: MaxSim per query token, its sum, or the log-odds of the first.")
    ] = "mean",
    phrase_weight: PhraseWeight = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests at work at a time; by default all cores.")] = None,
    queue: Annotated[int, typer.Option(help="Requests that may wait; further ones are refused with 429.")] = 64,
    deadline: Annotated[float, typer.Option(help="Seconds after which a request is given up.")] = 30.0,
    max_body: Annotated[float, typer.Option(help="Longest body of a request, in MiB.")] = 8.0,
    max_documents: Annotated[int, typer.Option(help="Most documents of a rerank request.")] = 1000,
    max_text: Annotated[int, typer.Option(help="Characters after which a text is cut.")] = 8192,
    refresh_seconds: Annotated[
        float, typer.Option(help="How often to look for later versions of the tables; 0 is never.")
    ] = 5.0,
    drain_seconds: Annotated[
        float, typer.Option(help="How long to stay at work, but not ready, after the signal to stop.")
    ] = 0.0,
    log_text: Annotated[
        bool, typer.Option("--log-text", help="Also log queries and messages of unexpected errors.")
    ] = False,
    threads: Threads = None,
) -> None:
    """Serve reranking, token vectors and search over HTTP, in the dialects that other stacks speak.

    Without an index, documents are ranked by their texts alone. Needs the extra `serve`.

    Example: `tansaku serve --db ./db --table docs`
    """
    if not 0 < max_body <= 1024:
        raise InputError(f"max-body is {max_body}; it must be more than 0 and at most 1,024 MiB")
    if not drain_seconds >= 0:
        raise InputError(f"drain-seconds is {drain_seconds}; it must not be negative")
    settings = Settings(
        indexes=_indexes(db, table, index),
        model=model,
        threads=threads,
        score=score,
        phrase_weight=phrase_weight,
        token=token,
        max_body_bytes=int(max_body * 2**20),
        max_documents=max_documents,
        max_text_chars=max_text,
        concurrency=concurrency,
        queue=queue,
        deadline_seconds=deadline,
        refresh_seconds=refresh_seconds,
        log_text=log_text,
    )
    run(settings, host=host, port=port, drain_seconds=drain_seconds)


def run(settings: Settings, *, host: str, port: int, drain_seconds: float = 0.0) -> None:
    """Serve until a signal comes, then answer what is under way; raises what kept the service from loading."""
    # These need the extra, which other commands do not.
    from ..service.app import create_app
    from ..service.observability import all_as_json_lines
    from ..service.server import DrainingServer, config_of

    all_as_json_lines()
    failures: list[Exception] = []

    def on_failure(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    app = create_app(settings, on_failure=on_failure)
    config = config_of(app, host=host, port=port, seconds=settings.deadline_seconds)
    server = DrainingServer(config, app.state.service, drain_seconds)
    server.run()
    if failures:
        raise failures[0]


def _indexes(db: str | None, tables: list[str] | None, others: list[str] | None) -> dict[str, tuple[Any, str]]:
    """Name → database and table."""
    if (db is None) != (not tables):
        raise InputError("--db and --table go together; give both, or neither to rank texts alone")
    found: dict[str, tuple[Any, str]] = {}
    named = [(table, str(db), table) for table in tables or ()]
    for other in others or ():
        name, _, place = other.partition("=")
        folder, _, table = place.rstrip("/").rpartition("/")
        if not name or not folder or not table:
            raise InputError(f"--index {other}: expected NAME=DB/TABLE")
        named.append((name, folder, table))
    for name, folder, table in named:
        if name in found:
            raise InputError(f"two indexes are called {name!r}; name one of them by --index NAME=DB/TABLE")
        found[name] = folder, table
    return found
