"""Put query weights into a bundle: a small network, as a second ONNX graph. Needs the extra ``export``."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

from ..encode.bundle import Bundle, read_bundle, write_bundle
from ..errors import InputError, MissingExtraError
from ..files import write_atomically

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from .trace import OPSET
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "onnx", "export") from error

QUERY_WEIGHTS_FILE = "query_weights.onnx"


def add_query_weights(
    folder: str | os.PathLike[str],
    hidden: np.ndarray,
    hidden_bias: np.ndarray,
    out: np.ndarray,
    out_bias: float,
    strength: float = 1.0,
) -> Bundle:
    """Put query weights into a bundle, in place of those that it has.

    The learned weight of a token with the vector v is w = softplus(out · gelu(hidden v + hidden_bias) + out_bias),
    divided by its mean over the query's tokens. The applied weight is 1 - strength + strength · w.

    Args:
        folder: the bundle's folder.
        hidden: float32 (units, dim).
        hidden_bias: float32 (units,).
        out: float32 (units,).
        out_bias: a number.
        strength: from 0 (equal weights) to 1 (the learned weights).

    Returns:
        The bundle with its query weights.

    Raises:
        BundleError: there is no complete bundle in ``folder``.
        InputError: an array has another shape or numbers that are not finite, or ``strength`` is out of range.
    """
    folder = Path(folder)
    bundle = read_bundle(folder)
    arrays = {"hidden": hidden.T, "hidden_bias": hidden_bias, "out": out[:, None], "out_bias": np.array([out_bias])}
    units = len(hidden_bias)
    shapes = {"hidden": (bundle.dim, units), "hidden_bias": (units,), "out": (units, 1), "out_bias": (1,)}
    for name, array in arrays.items():
        if array.shape != shapes[name] or not np.isfinite(array).all():
            raise InputError(f"{name} has shape {array.shape}, expected {shapes[name]} and finite numbers")
    if not 0 <= strength <= 1:
        raise InputError(f"strength is {strength}; it must be from 0 to 1")
    model = _graph({**arrays, "strength": np.array(strength), "rest": np.array(1 - strength)}, bundle.dim)
    write_atomically(folder / QUERY_WEIGHTS_FILE, model.SerializeToString())
    return write_bundle(folder, dataclasses.replace(bundle, query_weights=QUERY_WEIGHTS_FILE))


def _graph(arrays: dict[str, np.ndarray], dim: int) -> onnx.ModelProto:
    steps = [
        ("MatMul", ["token_vectors", "hidden"], "projected"),
        ("Add", ["projected", "hidden_bias"], "shifted"),
        ("Gelu", ["shifted"], "units"),
        ("MatMul", ["units", "out"], "summed"),
        ("Add", ["summed", "out_bias"], "raw"),
        ("Softplus", ["raw"], "positive"),
        ("ReduceMean", ["positive"], "mean"),
        ("Div", ["positive", "mean"], "learned"),
        ("Mul", ["learned", "strength"], "applied"),
        ("Add", ["applied", "rest"], "weights"),
    ]
    graph = helper.make_graph(
        [helper.make_node(op, inputs, [output], name=output) for op, inputs, output in steps],
        "query_weights",
        [helper.make_tensor_value_info("token_vectors", TensorProto.FLOAT, ["tokens", dim])],
        [helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["tokens", 1])],
        [numpy_helper.from_array(np.ascontiguousarray(a, np.float32), name) for name, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
