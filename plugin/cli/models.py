"""`tansaku models`: the models that are known here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import display
from .options import AsJson


def models(
    copy_to: Annotated[
        Path | None,
        typer.Option(help="Folder of models that gets a copy of the model inside tansaku, for use after an upgrade."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the models that indexes are opened with: the one inside tansaku, and those in the folders of TANSAKU_MODELS.

    Example: `tansaku models --copy-to ~/tansaku-models`
    """
    from ...onnx_export.encode.find_bundle import keep_bundle, known_bundles

    if copy_to is not None:
        kept = keep_bundle(copy_to.expanduser())
        typer.echo(f"the model inside tansaku is in {kept}; after an upgrade set TANSAKU_MODELS={kept.parent}")
        return
    found = [
        {"name": bundle.name, "fingerprint": bundle.fingerprint, "dim": bundle.dim, "folder": str(folder)}
        for folder, bundle in known_bundles()
    ]
    if as_json:
        display.show_json({"models": found})
        return
    for model in found:
        typer.echo(f"{model['name']}  {model['fingerprint']}  {model['dim']} dimensions  {model['folder']}")
