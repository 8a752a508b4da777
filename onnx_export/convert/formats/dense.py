"""The Dense modules of a checkpoint with a modules.json: its projection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt

from ...errors import CheckpointError
from .files import Settings, read_settings, read_tensors

_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": torch.nn.Identity,
    "torch.nn.modules.activation.GELU": torch.nn.GELU,
    "torch.nn.modules.activation.ReLU": torch.nn.ReLU,
    "torch.nn.modules.activation.SiLU": torch.nn.SiLU,
    "torch.nn.modules.activation.Sigmoid": torch.nn.Sigmoid,
    "torch.nn.modules.activation.Tanh": torch.nn.Tanh,
}


class _DenseConfig(Settings):
    in_features: PositiveInt
    out_features: PositiveInt
    bias: bool = True
    activation_function: str = ""
    use_residual: bool = False


class DenseLayer(torch.nn.Module):
    """One Dense module: activation(linear(x)), and residual(x) added to it where there is one.

    Args:
        linear: the matrix, perhaps with a bias.
        activation: what comes after it.
        residual: `torch.nn.Identity`, a matrix without a bias, or None.
    """

    def __init__(self, linear: torch.nn.Linear, activation: torch.nn.Module, residual: torch.nn.Module | None) -> None:
        super().__init__()
        self.linear = linear
        self.activation = activation
        self.residual = residual

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Project vectors: float32 (…, in_features) → float32 (…, out_features)."""
        projected = self.activation(self.linear(vectors))
        return projected if self.residual is None else projected + self.residual(vectors)


def dense_layers(projection: torch.nn.Module, hidden: int) -> list[DenseLayer] | None:
    """A projection as Dense modules, one after the other.

    Args:
        projection: a checkpoint's. One without layers becomes the identity matrix.
        hidden: length of the backbone's vectors.

    Returns:
        The modules, which share the projection's weights; None if it is of another kind.
    """
    layers = list(projection) if isinstance(projection, torch.nn.Sequential) else [projection]
    if not layers:
        identity = torch.nn.Linear(hidden, hidden, bias=False)
        torch.nn.init.eye_(identity.weight)
        layers = [identity]
    layers = [DenseLayer(one, torch.nn.Identity(), None) if type(one) is torch.nn.Linear else one for one in layers]
    known = all(isinstance(one, DenseLayer) and type(one.activation) in _ACTIVATIONS.values() for one in layers)
    return layers if known else None  # pyright: ignore[reportReturnType]


def dense_settings(layer: DenseLayer) -> dict[str, Any]:
    """config.json of a Dense module, as PyLate writes it."""
    names = {kind: name for name, kind in _ACTIVATIONS.items()}
    return {
        "in_features": layer.linear.in_features,
        "out_features": layer.linear.out_features,
        "bias": layer.linear.bias is not None,
        "activation_function": names[type(layer.activation)],
        "use_residual": layer.residual is not None,
    }


def load_projection(folder: Path, names: list[str], hidden: int, native: bool) -> torch.nn.Module:
    """The Dense modules of a checkpoint, one after the other: float32 (…, hidden) → float32 (…, dim).

    Without any, the projection leaves the vectors as they are.

    Args:
        folder: the checkpoint.
        names: the modules' folders in it.
        hidden: length of the backbone's vectors.
        native: which library's default a missing activation has: True for sentence-transformers' (Tanh), False for
            PyLate's (no activation).

    Raises:
        CheckpointError: a configuration or weights are missing or wrong, or the modules do not fit one another.
    """
    layers = torch.nn.Sequential()
    width = hidden
    for name in names:
        path = folder / name / "config.json"
        layer = _dense(folder / name, read_settings(path, _DenseConfig), path, native)
        if layer.linear.in_features != width:
            raise CheckpointError(
                f"{path}: in_features is {layer.linear.in_features}, but the vectors it gets have {width} dimensions; "
                "copy the checkpoint again"
            )
        width = layer.linear.out_features
        layers.append(layer)
    return layers.eval()


def _dense(folder: Path, config: _DenseConfig, path: Path, native: bool) -> DenseLayer:
    tensors = read_tensors(folder)
    default = "activation.Tanh" if native else "linear.Identity"
    activation = config.activation_function or f"torch.nn.modules.{default}"
    if activation not in _ACTIVATIONS:
        raise CheckpointError(
            f"{path}: unknown activation_function {activation!r}; use one of {', '.join(_ACTIVATIONS)}"
        )
    shape = config.out_features, config.in_features
    linear = _linear(tensors, "linear", shape, config.bias, path)
    residual = None
    if config.use_residual:
        same = shape[0] == shape[1]
        residual = torch.nn.Identity() if same else _linear(tensors, "residual", shape, False, path)
    return DenseLayer(linear, _ACTIVATIONS[activation](), residual)


def _linear(
    tensors: dict[str, torch.Tensor], name: str, shape: tuple[int, int], bias: bool, path: Path
) -> torch.nn.Linear:
    for part, expected in ((f"{name}.weight", shape), (f"{name}.bias", shape[:1])):
        if part.endswith("bias") and not bias:
            continue
        if part not in tensors:
            raise CheckpointError(f"{path.parent}: the weights have no {part}; copy the checkpoint again")
        if tuple(tensors[part].shape) != expected:
            raise CheckpointError(
                f"{path}: {part} has shape {tuple(tensors[part].shape)}, expected {expected}; copy the checkpoint again"
            )
    linear = torch.nn.Linear(shape[1], shape[0], bias=bias)
    linear.load_state_dict({key: tensors[f"{name}.{key}"] for key in ("weight", "bias")[: 1 + bias]})
    return linear
