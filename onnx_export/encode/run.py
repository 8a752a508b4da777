"""Run a graph of a bundle, and check what it returns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime

from ..errors import BundleError


def run_graph(
    session: onnxruntime.InferenceSession, name: str, inputs: Mapping[str, np.ndarray], shape: tuple[int, ...]
) -> np.ndarray:
    """Run a graph that has one output.

    Args:
        session: the graph.
        name: what it is called in errors.
        inputs: its inputs by name.
        shape: shape of the output.

    Returns:
        The output, float32, of that shape and without NaN or infinity.

    Raises:
        BundleError: the graph cannot be run, or its output is not like this.
    """
    try:
        outputs = session.run(None, dict(inputs))
    except Exception as error:  # onnxruntime raises bare exceptions of its own
        raise BundleError(f"{name}: the graph cannot be run ({error}); export the checkpoint again") from error
    output = outputs[0] if len(outputs) == 1 else None
    if not isinstance(output, np.ndarray) or output.dtype != np.float32 or output.shape != shape:
        given = [f"{getattr(o, 'dtype', type(o).__name__)} {getattr(o, 'shape', '')}".rstrip() for o in outputs]
        raise BundleError(
            f"{name}: the graph returns {', '.join(given)}, not float32 {shape}; export the checkpoint again"
        )
    if not np.isfinite(output).all():
        raise BundleError(f"{name}: the graph returns NaN or infinity; export the checkpoint again")
    return output
