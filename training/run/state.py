"""What an interrupted training goes on from: weights, optimizer and step, as tensors and JSON, never pickled."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..errors import TrainingDataError

_TENSORS = "state.safetensors"
_REST = "state.json"


def save_state(folder: Path, state: Any) -> None:
    """Write nested dicts and lists of tensors and plain values; never half: made beside ``folder`` and renamed."""
    making, old = folder.with_name(f".{folder.name}.part"), folder.with_name(f".{folder.name}.old")
    for left_over in (making, old):
        shutil.rmtree(left_over, ignore_errors=True)
    making.mkdir(parents=True)
    tensors: dict[str, torch.Tensor] = {}
    rest = _without_tensors(state, "", tensors)
    save_file(tensors, making / _TENSORS)
    (making / _REST).write_text(json.dumps(rest), encoding="utf-8")
    if folder.exists():
        folder.rename(old)
    making.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path) -> Any:
    """What `save_state` wrote last; None if there is nothing. Raises TrainingDataError if it is damaged."""
    old = folder.with_name(f".{folder.name}.old")
    if not folder.exists() and old.exists():  # killed between the two renamings
        old.rename(folder)
    if not folder.exists():
        return None
    try:
        tensors = load_file(folder / _TENSORS)
        return _with_tensors(json.loads((folder / _REST).read_text(encoding="utf-8")), tensors)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise TrainingDataError(f"{folder}: damaged ({error}); remove it to train from the beginning") from error


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


def _with_tensors(content: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    ((kind, value),) = content.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: _with_tensors(item, tensors) for key, item in value}
    if kind in ("list", "tuple"):
        items = [_with_tensors(item, tensors) for item in value]
        return tuple(items) if kind == "tuple" else items
    return value
