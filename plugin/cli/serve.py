"""The command `tansaku serve`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ...onnx_export.errors import InputError
from ...onnx_export.extras import require_extra
from ..search.choices import ScoreMode
from ..serving.access import WRITE_TOKEN_VARIABLE, checked_token, is_loopback
from .options import Model, PhraseWeight, StorageOptions, Threads, Token, storage_options

Where = Literal["local", "ray"]

if TYPE_CHECKING:
    from ...indexer.table.database import Database
    from ..service.settings import Settings


def serve(
    db: Annotated[str | None, typer.Option("--db", help="Folder or URI of the LanceDB database.")] = None,
    table: Annotated[
        list[str] | None,
        typer.Option(
            "--table",
            help="Name of a table to serve, by default all of the database; may be repeated. The first is the default.",
        ),
    ] = None,
    index: Annotated[
        list[str] | None,
        typer.Option("--index", metavar="NAME=DB/TABLE", help="Name and place of an index elsewhere; may be repeated."),
    ] = None,
    model: Model = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 means every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 means any free one.")] = 8080,
    token: Token = None,
    write: Annotated[
        bool, typer.Option("--write", help="Management of the indexes over HTTP: documents, jobs.")
    ] = False,
    write_token: Annotated[
        str | None,
        typer.Option(
            "--write-token",
            envvar=WRITE_TOKEN_VARIABLE,
            help="Token that clients must send to write; safer in the environment.",
        ),
    ] = None,
    allow_write_without_token: Annotated[
        bool,
        typer.Option(
            "--allow-write-without-token", help="Writing without a token, on an address of this machine only."
        ),
    ] = False,
    work_folder: Annotated[
        Path | None, typer.Option(help="Folder for jobs and uploads; by default one in the database.")
    ] = None,
    writers: Annotated[int, typer.Option(help="Number of writing jobs at a time; an index has one at a time.")] = 2,
    max_jobs: Annotated[int, typer.Option(help="Maximum number of jobs that have not ended.")] = 100,
    max_upload: Annotated[float, typer.Option(help="Maximum size of a job's documents, in MiB.")] = 1024.0,
    max_uploads: Annotated[float, typer.Option(help="Maximum size of all uploads, in MiB.")] = 8192.0,
    max_upload_documents: Annotated[int, typer.Option(help="Maximum number of documents of a job.")] = 1_000_000,
    score: Annotated[
        ScoreMode,
        typer.Option(help="Scale of scores: mean MaxSim per query token, raw sum, or logit, the log-odds of the mean."),
    ] = "mean",
    phrase_weight: PhraseWeight = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Number of requests worked on at a time; by default one per usable core.")
    ] = None,
    queue: Annotated[int, typer.Option(help="Number of requests that may wait; more are refused with 429.")] = 64,
    deadline: Annotated[float, typer.Option(help="Time limit of a request, in seconds.")] = 30.0,
    max_body: Annotated[float, typer.Option(help="Maximum size of a request's body, in MiB.")] = 8.0,
    max_documents: Annotated[int, typer.Option(help="Maximum number of documents in a rerank request.")] = 1000,
    max_text: Annotated[int, typer.Option(help="Maximum characters of a text; longer ones are cut off.")] = 8192,
    refresh_seconds: Annotated[
        float, typer.Option(help="Seconds between looks for new versions of the tables; 0 means never.")
    ] = 5.0,
    drain_seconds: Annotated[
        float, typer.Option(help="Seconds between the signal to stop and the end, in which /ready answers 503.")
    ] = 0.0,
    on: Annotated[
        Where, typer.Option(help="Place of the search: local, this process; or ray, the shards of a Ray cluster.")
    ] = "local",
    shards: Annotated[int | None, typer.Option(help="Number of shards of each index; needs --on ray.")] = None,
    replicas: Annotated[int | None, typer.Option(help="Number of replicas of each shard; by default 1.")] = None,
    shard_cpus: Annotated[
        float | None, typer.Option(help="Number of CPUs of the cluster that a replica takes; by default 1.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Address of the Ray cluster; by default RAY_ADDRESS, or Ray on this machine.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option("--cors-origin", help="Web page that may ask, such as https://example.org; may be repeated."),
    ] = None,
    log_text: Annotated[
        bool, typer.Option("--log-text", help="Messages of unexpected errors in the log, which may hold users' text.")
    ] = False,
    threads: Threads = None,
    storage_option: StorageOptions = None,
) -> None:
    """Serve search, reranking and token vectors over HTTP, with the APIs of Cohere, Jina, TEI and Weaviate.

    Without an index, only texts in the requests are ranked. Needs the extra `serve`.

    Example: `tansaku serve --db ./db --table docs`
    """
    require_extra("serve")
    from ..service.settings import Settings

    if not 0 < max_body <= 1024:
        raise InputError(f"max-body is {max_body}; it must be more than 0 and at most 1,024 MiB")
    ray_alone = {"--shards": shards, "--replicas": replicas, "--shard-cpus": shard_cpus, "--address": address}
    for name, value in ray_alone.items():
        if on != "ray" and value is not None:
            raise InputError(f"{name} is for shards on a Ray cluster; add --on ray, or leave it out")
    if on == "ray":
        require_extra("ray")
    if not drain_seconds >= 0:
        raise InputError(f"drain-seconds is {drain_seconds}; it must not be negative")
    for name, size in (("max-upload", max_upload), ("max-uploads", max_uploads)):
        if not 0 < size <= 2**24:
            raise InputError(f"{name} is {size}; it must be more than 0 and at most 16,777,216 MiB")
    if allow_write_without_token and not is_loopback(host):
        raise InputError(
            f"--allow-write-without-token is for an address of this machine; at --host {host} everybody could write: "
            "give --write-token, or --host 127.0.0.1"
        )
    settings = Settings(
        indexes=_indexes(db, table, index),
        database=None if table else db,
        write=write,
        write_token=checked_token(write_token, WRITE_TOKEN_VARIABLE),
        allow_write_without_token=allow_write_without_token,
        work_folder=work_folder,
        writers=writers,
        max_jobs=max_jobs,
        max_upload_bytes=int(max_upload * 2**20),
        max_uploads_bytes=int(max_uploads * 2**20),
        max_upload_documents=max_upload_documents,
        model=model,
        threads=threads,
        score=score,
        phrase_weight=phrase_weight,
        token=checked_token(token),
        max_body_bytes=int(max_body * 2**20),
        max_documents=max_documents,
        max_text_chars=max_text,
        concurrency=concurrency,
        queue=queue,
        deadline_seconds=deadline,
        refresh_seconds=refresh_seconds,
        shards=(1 if shards is None else shards) if on == "ray" else None,
        replicas=1 if replicas is None else replicas,
        shard_cpus=1.0 if shard_cpus is None else shard_cpus,
        ray_address=address,
        cors_origins=tuple(cors_origin or ()),
        log_text=log_text,
        storage_options=storage_options(storage_option),
    )
    run(settings, host=host, port=port, drain_seconds=drain_seconds)


def run(settings: Settings, *, host: str, port: int, drain_seconds: float = 0.0) -> None:
    """Serve until a signal to stop, then answer the requests under way.

    Raises:
        TansakuError: the model or an index cannot be loaded.
    """
    # These need the extra `serve`, which other commands do not.
    from ..service.app import create_app
    from ..service.observability import json_lines, log_json_lines
    from ..service.server import DrainingServer, config_of
    from ..serving.ports import check_port

    check_port(host, port)
    log_json_lines()
    if settings.token is None and not is_loopback(host):
        json_lines().warning(
            "no token",
            host=host,
            remedy="anyone who reaches the port can search; set TANSAKU_TOKEN, or --host 127.0.0.1",
        )
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


def _indexes(
    db: str | None, tables: Sequence[str] | None, others: Sequence[str] | None
) -> dict[str, tuple[Database, str]]:
    """Name → database and table of each index."""
    if db is None and tables:
        raise InputError("--table needs --db, the database of the tables; give both, or --db alone for all its indexes")
    named: list[tuple[str, str, str]] = [(table, str(db), table) for table in tables or ()]
    for other in others or ():
        name, _, place = other.partition("=")
        folder, _, table = place.rstrip("/").rpartition("/")
        if not name or not folder or not table:
            raise InputError(f"--index {other}: expected NAME=DB/TABLE")
        named.append((name, folder, table))
    found: dict[str, tuple[Database, str]] = {}
    for name, folder, table in named:
        if name in found:
            raise InputError(f"two indexes are called {name!r}; give one of them another name by --index NAME=DB/TABLE")
        found[name] = folder, table
    return found
