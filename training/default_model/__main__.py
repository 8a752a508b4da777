"""`python -m tansaku.training.default_model STEP`: the steps in which the model inside was made, a command each.

`make model` takes them all. They need the extras ``base-model``, ``train`` and ``evaluate``.
"""

from __future__ import annotations

import sys

import typer

from ...onnx_export.errors import TansakuError
from .base_model import write_base_model
from .characters import write_characters
from .codec import write_codec
from .recipe import build, write_data, write_neighbours
from .rows import write_row_vectors
from .variants import write_variants

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
app.command("data")(write_data)
app.command("neighbours")(write_neighbours)
app.command("build")(build)
app.command("base-model")(write_base_model)
app.command("variants")(write_variants)
app.command("characters")(write_characters)
app.command("codec")(write_codec)
app.command("row-vectors")(write_row_vectors)


def main() -> None:
    """Entry point; an error of tansaku is printed and ends the command with status 2."""
    try:
        app()
    except TansakuError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
