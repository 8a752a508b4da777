"""The Dense modules of a checkpoint with a modules.json: its projection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...errors import CheckpointError
from .files import read_json, read_tensors, setting

_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": torch.nn.Identity,
    "torch.nn.modules.activation.GELU": torch.nn.GELU,
    "torch.nn.modules.activation.ReLU": torch.nn.ReLU,
    "torch.nn.modules.activation.SiLU": torch.nn.SiLU,
    "torch.nn.modules.activation.Sigmoid": torch.nn.Sigmoid,
    "torch.nn.modules.activation.Tanh": torch.nn.Tanh,
}


class _Dense(torch.nn.Module):
    def __init__(self, linear: torch.nn.Linear, activation: torch.nn.Module, residual: torch.nn.Module | None) -> None:
        super().__init__()
        self.linear = linear
        self.activation = activation
        self.residual = residual

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        projected = self.activation(self.linear(vectors))
        return projected if self.residual is None else projected + self.residual(vectors)


def load_projection(folder: Path, names: list[str], hidden: int, native: bool) -> torch.nn.Module:
    """The modules ``names`` of the checkpoint in ``folder``, one after the other: (…, hidden) → (…, dim).

    ``native`` says which library's default a missing activation has: Tanh in sentence-transformers, none in PyLate.
    """
    layers = torch.nn.Sequential()
    width = hidden
    for name in names:
        path = folder / name / "config.json"
        layer = _dense(folder / name, read_json(path), path, native)
        if layer.linear.in_features != width:
            raise CheckpointError(f"{path}: in_features is {layer.linear.in_features}, but vectors of {width} come in")
        width = layer.linear.out_features
        layers.append(layer)
    return layers.eval()


def _dense(folder: Path, config: dict[str, Any], path: Path, native: bool) -> _Dense:
    tensors = read_tensors(folder)
    default = "activation.Tanh" if native else "linear.Identity"
    activation = setting(config, "activation_function", str, f"torch.nn.modules.{default}", path)
    if activation not in _ACTIVATIONS:
        raise CheckpointError(f"{path}: activation_function {activation!r} is not one of {', '.join(_ACTIVATIONS)}")
    shape = tuple(setting(config, side, int, None, path) for side in ("out_features", "in_features"))
    linear = _linear(tensors, "linear", shape, setting(config, "bias", bool, True, path), path)
    residual = None
    if setting(config, "use_residual", bool, False, path):
        same = shape[0] == shape[1]
        residual = torch.nn.Identity() if same else _linear(tensors, "residual", shape, False, path)
    return _Dense(linear, _ACTIVATIONS[activation](), residual)


def _linear(tensors: dict[str, torch.Tensor], name: str, shape: tuple, bias: bool, path: Path) -> torch.nn.Linear:
    for part, expected in ((f"{name}.weight", shape), (f"{name}.bias", shape[:1])):
        if part.endswith("bias") and not bias:
            continue
        if part not in tensors:
            raise CheckpointError(f"{path.parent}: the weights hold no {part}")
        if tuple(tensors[part].shape) != expected:
            raise CheckpointError(f"{path}: {part} is {tuple(tensors[part].shape)}, expected {expected}")
    linear = torch.nn.Linear(shape[1], shape[0], bias=bias)
    linear.load_state_dict({key: tensors[f"{name}.{key}"] for key in ("weight", "bias")[: 1 + bias]})
    return linear
