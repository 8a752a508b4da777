"""Averaging checkpoints, the last step of the recipe: the mean of every weight (JaColBERTv2.5, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ...onnx_export.errors import CheckpointError, InputError
from ..config import Format, TrainingConfig
from ..model.start import load_start
from ..model.student import Student, for_search, with_rules
from .saving import save_model

WEIGHTS_FILE = "weights.safetensors"


def average_weights(folders: Sequence[str | Path]) -> dict[str, torch.Tensor]:
    """The mean of the weights in several checkpoints of one model.

    Args:
        folders: checkpoint folders that training wrote; one that is named twice counts twice.

    Returns:
        Name of each weight → float32 tensor.

    Raises:
        InputError: there are no folders.
        CheckpointError: a checkpoint cannot be read or is of another model.
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
            raise CheckpointError(
                f"{folder}: not of the same model as {folders[0]}: the names or shapes of the weights differ"
            )
        for name, tensor in weights.items():
            total[name] += tensor.double()
    return {name: (tensor / len(folders)).float() for name, tensor in total.items()}


def save_average(config: TrainingConfig, folders: Sequence[str | Path], out: str | Path, form: str) -> None:
    """Write a model with the mean of the weights in several checkpoints of one training.

    Args:
        config: the configuration of the training.
        folders: its checkpoint folders.
        out: folder to write.
        form: "stanford" or "pylate", see `save_model`.

    Raises:
        InputError: an unknown format, or what `average_weights` raises.
        CheckpointError: the checkpoints are not of the model that the configuration names, or what was written is not
            what was to be written.
    """
    if form not in get_args(Format):
        raise InputError(f"unknown format {form!r}; use {' or '.join(get_args(Format))}")
    start = load_start(config.model, config.run.seed)
    student = Student(with_rules(start, config.model))
    weights = average_weights(folders)
    try:
        student.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{folders[0]}: not of the model {config.model.checkpoint} ({error})") from error
    facts = {"averaged": [str(folder) for folder in folders]}
    save_model(for_search(student.checkpoint, start), Path(out), form, facts)  # pyright: ignore[reportArgumentType]


def read_weights(folder: str | Path) -> dict[str, torch.Tensor]:
    """The weights of one checkpoint folder.

    Raises:
        CheckpointError: they cannot be read.
    """
    path = Path(folder) / WEIGHTS_FILE
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}); give checkpoint folders that training wrote"
        ) from error
