"""The command `tansaku mcp`."""

from __future__ import annotations

import functools
import signal
import sys
from typing import Annotated

import typer

from ...onnx_export.errors import InputError
from ...onnx_export.extras import require_extra
from ..serving.access import TOKEN_VARIABLE, checked_token, is_loopback
from .options import Db, Model, StorageOptions, Threads, Token, load_models, storage_options


def mcp(
    db: Db,
    tables: Annotated[list[str], typer.Option("--table", help="Name of a table to serve; may be repeated.")],
    http: Annotated[
        int | None,
        typer.Option(
            help="Port for streamable HTTP, path /mcp; by default the server talks over stdio.",
            min=1,
            max=65535,
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; 0.0.0.0 means every one. By default 127.0.0.1.")
    ] = None,
    token: Token = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:PORT]",
            help="Name that clients reach the server by, such as host.docker.internal; may be repeated.",
        ),
    ] = None,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Web page that may ask, such as https://example.org; may be repeated."),
    ] = None,
    model: Model = None,
    threads: Threads = None,
    deadline: Annotated[float, typer.Option(help="Time limit of a call, in seconds.")] = 30.0,
    storage_option: StorageOptions = None,
) -> None:
    """Serve indexes to agents over MCP, with tools that search, read and explain documents and describe the columns.

    Needs the extra `mcp`.

    Over HTTP, the headers Host and Origin must name this machine, or what is allowed.

    Example: `tansaku mcp --db ./db --table docs`
    """
    require_extra("mcp")
    import anyio

    from ..mcp.server import make_server
    from ..mcp.transports import MAX_MESSAGE_BYTES
    from ..serving.ports import check_port

    given = {"--host": host, "--allowed-host": allowed_host, "--allowed-origin": allowed_origin}
    for name, value in given.items():
        if value and http is None:
            raise InputError(f"{name} is for HTTP, but the server would talk over stdio; add --http PORT")
    if http is not None:
        token = checked_token(token)
        check_port(host or "127.0.0.1", http, "--http")
    models, options = load_models(model, threads), storage_options(storage_option)
    server = make_server(db, tables, encoder=models, deadline_seconds=deadline, storage_options=options)
    if http is not None:
        if token is None and not is_loopback(host or "127.0.0.1"):
            typer.echo(f"Anyone who reaches {host} can search; set {TOKEN_VARIABLE}, or --host 127.0.0.1.", err=True)
        serve_http = functools.partial(
            server.run_streamable_http_async,
            host=host or "127.0.0.1",
            port=http,
            token=token,
            allowed_hosts=allowed_host or [],
            allowed_origins=allowed_origin or [],
            json_response=True,
            stateless_http=True,
            max_request_body_size=MAX_MESSAGE_BYTES,
        )
        anyio.run(serve_http)
        return
    if sys.stdin.isatty():
        typer.echo("An agent starts this command and talks to it over stdin; for a server see --http.", err=True)
    # The SDK reads stdin in a thread that an interrupt does not end; there is nothing to be saved.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    server.run("stdio")
