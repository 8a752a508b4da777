"""Averaging checkpoints, the last step of the recipe: the mean of every weight (JaColBERTv2.5, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..onnx_export import CheckpointError, InputError

WEIGHTS_FILE = "weights.safetensors"


def average_weights(folders: Sequence[str | Path]) -> dict[str, torch.Tensor]:
    """The mean of the weights in several checkpoints of one model: float32.

    Args:
        folders: checkpoints that training wrote (`weights.safetensors`); one that is named twice counts twice.

    Raises InputError for no folder, and CheckpointError for one that cannot be read or is of another model.
    """
    if not folders:
        raise InputError("no checkpoints to average; name at least one")
    total: dict[str, torch.Tensor] = {}
    for folder in folders:
        weights = read_weights(folder)
        if not total:
            total = {name: tensor.double() for name, tensor in weights.items()}
            continue
        if {n: t.shape for n, t in weights.items()} != {n: t.shape for n, t in total.items()}:
            raise CheckpointError(f"{folder}: not of the same model as {folders[0]}: other weights or other shapes")
        for name, tensor in weights.items():
            total[name] += tensor.double()
    return {name: (tensor / len(folders)).float() for name, tensor in total.items()}


def read_weights(folder: str | Path) -> dict[str, torch.Tensor]:
    """The weights of one checkpoint; raises CheckpointError if they cannot be read."""
    path = Path(folder) / WEIGHTS_FILE
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); name folders that training wrote") from error
