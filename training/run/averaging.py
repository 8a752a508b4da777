"""Averaging checkpoints, the last step of the recipe: the mean of every weight (JaColBERTv2.5, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ...onnx_export.convert.load import load_checkpoint
from ...onnx_export.errors import CheckpointError, InputError
from ..config import Format, TrainingConfig
from ..model.student import Student, with_rules
from .saving import save_model

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


def save_average(config: TrainingConfig, folders: Sequence[str | Path], out: str | Path, form: str) -> None:
    """Write the mean of checkpoints that a configuration's training has written as a model; see `save_model`.

    Raises InputError for a format that is none, and what `average_weights` raises.
    """
    if form not in get_args(Format):
        raise InputError(f"format is {form!r}; it must be one of {', '.join(get_args(Format))}")
    student = Student(with_rules(load_checkpoint(config.model.checkpoint), config.model))
    weights = average_weights(folders)
    try:
        student.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{folders[0]}: not of the model {config.model.checkpoint} ({error})") from error
    facts = {"averaged": [str(folder) for folder in folders]}
    save_model(student.checkpoint, Path(out), form, facts)  # pyright: ignore[reportArgumentType]


def read_weights(folder: str | Path) -> dict[str, torch.Tensor]:
    """The weights of one checkpoint; raises CheckpointError if they cannot be read."""
    path = Path(folder) / WEIGHTS_FILE
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); name folders that training wrote") from error
