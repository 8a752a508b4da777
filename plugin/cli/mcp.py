"""The command `tansaku mcp`."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from ...onnx_export.encode.encoder import Encoder
from .options import Db, Model

_MOST_BYTES = 1 << 20  # of an HTTP request


def mcp(
    db: Db,
    tables: Annotated[list[str], typer.Option("--table", help="Name of a table; may be repeated.")],
    http: Annotated[
        int | None,
        typer.Option(help="Serve streamable HTTP at this port of 127.0.0.1, path /mcp.", min=1, max=65535),
    ] = None,
    model: Model = None,
) -> None:
    """Serve indexes to agents over MCP: to search, to read documents, to see the columns. By default over stdio.

    Needs the extra `mcp`.

    Example: `tansaku mcp --db ./db --table docs`
    """
    from ..mcp.server import make_server  # brings the SDK, which no other command needs

    server = make_server(db, tables, encoder=Encoder.load(model))
    if http is not None:
        server.run(
            "streamable-http",
            host="127.0.0.1",
            port=http,
            json_response=True,
            stateless_http=True,
            max_request_body_size=_MOST_BYTES,
        )
        return
    if sys.stdin.isatty():
        typer.echo("An agent starts this command and talks to it over stdin; see --http for a server.", err=True)
    # The SDK reads stdin in a thread that an interrupt does not end; there is nothing to be saved.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    server.run("stdio")
