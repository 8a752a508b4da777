"""What an interrupted training continues from: weights, optimizer and step, as tensors and JSON, never pickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ...onnx_export.files import atomic_path
from ..errors import TrainingDataError

STATE_FILE = "state.safetensors"  # in the folder that a training writes
_KEY = "state"  # of the file's metadata


def save_state(path: Path, state: Any) -> None:
    """Write nested dicts and lists of tensors and plain values to one file, which takes the place of an earlier one.

    Args:
        path: a safetensors file; its folder must exist. The values that are not tensors are JSON in its metadata.
        state: what `load_state` gives back, tensors on the CPU.

    Raises:
        OSError: the file cannot be written; an earlier one stays as it was.
    """
    tensors: dict[str, torch.Tensor] = {}
    rest = _without_tensors(state, "", tensors)
    with atomic_path(path) as making:
        save_file(tensors, making, {_KEY: json.dumps(rest)})


def load_state(path: Path) -> Any:
    """What `save_state` wrote last; None if there is no file.

    Raises:
        TrainingDataError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
            return _with_tensors(json.loads(file.metadata()[_KEY]), tensors)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise TrainingDataError(f"{path}: damaged ({error}); remove it to train from the beginning") from error


def saved_step(path: Path) -> int:
    """The step that `save_state` wrote last, without reading its tensors; 0 if there is none."""
    try:
        with safe_open(path, "pt") as file:
            return int(_with_tensors(json.loads(file.metadata()[_KEY]), None)["step"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return 0


def _without_tensors(value: Any, place: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[place] = value.detach().cpu().contiguous().clone()
        return {"tensor": place}
    if isinstance(value, dict):
        return {"dict": [[key, _without_tensors(item, f"{place}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_without_tensors(item, f"{place}/{i}", tensors) for i, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    return {"value": value}


def _with_tensors(content: dict[str, Any], tensors: dict[str, torch.Tensor] | None) -> Any:
    ((kind, value),) = content.items()
    if kind == "tensor":
        return None if tensors is None else tensors[value]
    if kind == "dict":
        return {key: _with_tensors(item, tensors) for key, item in value}
    if kind in ("list", "tuple"):
        items = [_with_tensors(item, tensors) for item in value]
        return tuple(items) if kind == "tuple" else items
    return value
