"""Models on disk in the formats that others read, each read back and compared before it takes its place."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...onnx_export.convert.checkpoint import Checkpoint
from ...onnx_export.convert.formats.dense import dense_layers, dense_settings
from ...onnx_export.convert.load import load_checkpoint
from ...onnx_export.convert.tokenization import check_copy, check_source
from ...onnx_export.errors import CheckpointError
from ...onnx_export.files import atomic_folder
from ..config import Format
from .formats import WRITERS


def save_model(checkpoint: Checkpoint, folder: Path, form: Format, facts: dict[str, Any] | None = None) -> None:
    """Write a model to a folder, which takes the place of one that is there.

    What is written is read back first: weights, text rules, and the token ids, masks and kept rows of 1,000 sentences
    must be those of ``checkpoint``, and its token ids those of its own tokenizer in transformers.

    Args:
        checkpoint: the model.
        folder: the folder to write; folders above it are made.
        form: the format, "stanford" or "pylate"; `tansaku export` reads both.
        facts: facts about the training, for the format's own record of them.

    Raises:
        InputError: the format cannot hold the model. The message names the part that it has no place for.
        CheckpointError: what was written is not what was to be written; the message names the first difference.
        OSError: the folder cannot be written; an earlier one stays as it was.
    """
    check_source(checkpoint)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as making:
        WRITERS[form](checkpoint, making, facts or {})
        _check_written(checkpoint, making, folder)


def try_saving(checkpoint: Checkpoint, folder: Path, forms: Sequence[Format]) -> None:
    """Write a model in every format and read it back, before a training whose result is to be saved so.

    Args:
        checkpoint: the model.
        folder: where the result will go; nothing is left there.
        forms: the formats.

    Raises:
        InputError: a format cannot hold the model, see `save_model`.
        CheckpointError: a format does not give the model back, see `save_model`.
        OSError: ``folder`` cannot be written, or has no room for the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for form in forms:
        with tempfile.TemporaryDirectory(prefix=f".try-{form}-", dir=folder) as place:
            save_model(checkpoint, Path(place) / form, form)


def _check_written(checkpoint: Checkpoint, written: Path, folder: Path) -> None:
    read = load_checkpoint(written)
    check_copy(checkpoint, read, folder)
    for part, ours, theirs in (
        ("backbone", checkpoint.backbone.state_dict(), read.backbone.state_dict()),
        ("projection", _projection(checkpoint), _projection(read)),
    ):
        for name, weight in ours.items():
            # The pooler is often not there, and nothing here uses it.
            if "pooler." not in name and not _equal(weight, theirs.get(name)):
                raise CheckpointError(f"{folder}: {name} of the {part} is not kept; use another format, or report this")


def _projection(checkpoint: Checkpoint) -> dict[str, Any]:
    layers = dense_layers(checkpoint.projection, checkpoint.backbone.config.hidden_size) or []
    parts: dict[str, Any] = {}
    for number, layer in enumerate(layers):
        parts |= {f"layer {number}": dense_settings(layer)}
        parts |= {f"{number}.{name}": weight for name, weight in layer.state_dict().items()}
    return parts


def _equal(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor):
        return torch.equal(ours.detach().float().cpu(), theirs.float())
    return ours == theirs
