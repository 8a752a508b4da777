"""The command `tansaku mcp`."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from ...onnx_export.extras import require_extra
from .options import Db, Model, StorageOptions, Threads, load_models, storage_options


def mcp(
    db: Db,
    tables: Annotated[list[str], typer.Option("--table", help="Name of a table to serve; may be repeated.")],
    http: Annotated[
        int | None,
        typer.Option(
            help="Port of 127.0.0.1 for streamable HTTP, path /mcp; by default the server talks over stdio.",
            min=1,
            max=65535,
        ),
    ] = None,
    model: Model = None,
    threads: Threads = None,
    deadline: Annotated[float, typer.Option(help="Time limit of a call, in seconds.")] = 30.0,
    storage_option: StorageOptions = None,
) -> None:
    """Serve indexes to agents over MCP, with tools that search, read documents and describe the columns.

    Needs the extra `mcp`.

    Example: `tansaku mcp --db ./db --table docs`
    """
    require_extra("mcp")
    from ..mcp.server import make_server
    from ..mcp.transports import MAX_MESSAGE_BYTES

    models, options = load_models(model, threads), storage_options(storage_option)
    server = make_server(db, tables, encoder=models, deadline_seconds=deadline, storage_options=options)
    if http is not None:
        server.run(
            "streamable-http",
            host="127.0.0.1",
            port=http,
            json_response=True,
            stateless_http=True,
            max_request_body_size=MAX_MESSAGE_BYTES,
        )
        return
    if sys.stdin.isatty():
        typer.echo("An agent starts this command and talks to it over stdin; for a server see --http.", err=True)
    # The SDK reads stdin in a thread that an interrupt does not end; there is nothing to be saved.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    server.run("stdio")
