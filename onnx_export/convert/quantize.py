"""Float32 graph → int8 graph, quantized so that a text's vectors do not depend on its batch.

Every matrix product with a constant weight becomes an integer product. Weights are int8 with one scale per output
channel; activations are uint8 with one scale **per token**, from that token's largest magnitude. (ONNX Runtime's own
dynamic quantization takes one scale per batch: then a text's vectors depend on the other texts, and one outlier token
costs the others precision.) Embedding tables become int8 with one scale per row. Attention scores, normalization and
activation functions stay in float32.

Weights use 7 of their 8 bits: processors without VNNI add two products of bytes in 16 bits, and 2 · 255 · 64 is the
most that fits. With all 8 bits their results would be wrong, without an error.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_MICROSOFT_DOMAIN = "com.microsoft"
_ZERO_POINT = 128  # of the unsigned activations: VNNI multiplies unsigned by signed bytes
_MAX_WEIGHT = 64
_MAX_EMBEDDING = 127  # all 8 bits: embedding rows are not multiplied as bytes
_MIN_EMBEDDING_ROWS = 1024  # smaller tables stay in float32


def quantize(model: onnx.ModelProto) -> onnx.ModelProto:
    """Quantize a float32 graph; benchmarks.encode.int8 measures what that costs.

    Args:
        model: the graph, as `trace` gives it.

    Returns:
        A copy with int8 matrix products and embedding tables.
    """
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    _Quantizer(quantized.graph).run()
    if all(entry.domain != _MICROSOFT_DOMAIN for entry in quantized.opset_import):
        quantized.opset_import.append(helper.make_opsetid(_MICROSOFT_DOMAIN, 1))
    return quantized


def embedding_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantize an embedding table, float32 (rows, hidden): int8 (rows, hidden), and their scales, float32 (rows, 1)."""
    return _quantized(table, axis=1, limit=_MAX_EMBEDDING)


class _Quantizer:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.activations: dict[str, tuple[str, str]] = {}  # float value → (its bytes, its scales)
        self.tables: set[str] = set()

    def run(self) -> None:
        self.constant("q8_zero_point", np.array(_ZERO_POINT, np.uint8))
        self.constant("q8_one", np.array(1, np.float32))
        self.constant("q8_last_axis", np.array([-1], np.int64))
        # The largest magnitude maps to 127; a token of zeros gets the smallest scale instead of 0.
        self.constant("q8_steps", np.array(1 / 127, np.float32))
        self.constant("q8_tiny", np.array(1e-12, np.float32))
        for node in list(self.graph.node):
            weight = self.weights.get(node.input[1]) if node.op_type == "MatMul" else None
            table = self.weights.get(node.input[0]) if node.op_type == "Gather" else None
            if weight is not None and weight.ndim == 2 and weight.dtype == np.float32:
                self.matmul(node, weight)
            elif table is not None and _is_embedding(node, table):
                self.embedding(node, table)
            else:
                self.nodes.append(node)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        self.drop_unused()

    def constant(self, name: str, value: np.ndarray) -> str:
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def node(self, op: str, inputs: list[str], output: str, domain: str = "", **attributes: int) -> str:
        made = helper.make_node(op, inputs, [output], name=f"{output}_{op}", domain=domain)
        made.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(made)
        return output

    def matmul(self, node: onnx.NodeProto, weight: np.ndarray) -> None:
        name = node.input[1]
        if name not in self.tables:
            self.tables.add(name)
            quantized, scale = _quantized(weight, axis=0, limit=_MAX_WEIGHT)
            self.constant(f"{name}_q8", quantized)
            self.constant(f"{name}_q8_scale", scale[0])
        tokens, token_scale = self.activation(node.input[0])
        product = self.node(
            "MatMulIntegerToFloat",
            [tokens, f"{name}_q8", "q8_one", f"{name}_q8_scale", "q8_zero_point"],
            f"{node.output[0]}_q8",
            _MICROSOFT_DOMAIN,
        )
        self.node("Mul", [product, token_scale], node.output[0])

    def activation(self, value: str) -> tuple[str, str]:
        """Quantize ``value`` (…, channels) on its last axis, once for all products that share it."""
        if value not in self.activations:
            magnitude = self.node("Abs", [value], f"{value}_abs")
            largest = self.node("ReduceMax", [magnitude, "q8_last_axis"], f"{value}_max", keepdims=1)
            step = self.node("Mul", [largest, "q8_steps"], f"{value}_step")
            scale = self.node("Max", [step, "q8_tiny"], f"{value}_scale")
            scaled = self.node("Div", [value, scale], f"{value}_scaled")
            tokens = self.node("QuantizeLinear", [scaled, "q8_one", "q8_zero_point"], f"{value}_u8")
            self.activations[value] = tokens, scale
        return self.activations[value]

    def embedding(self, node: onnx.NodeProto, table: np.ndarray) -> None:
        name, ids = node.input[0], node.input[1]
        if f"{name}_rows" not in self.tables:
            self.tables.add(f"{name}_rows")
            quantized, scale = embedding_rows(table)
            self.constant(f"{name}_rows", quantized)
            self.constant(f"{name}_rows_scale", scale)
        rows = self.node("Gather", [f"{name}_rows", ids], f"{node.output[0]}_q8")
        scales = self.node("Gather", [f"{name}_rows_scale", ids], f"{node.output[0]}_q8_scale")
        floats = self.node("Cast", [rows], f"{node.output[0]}_f32", to=TensorProto.FLOAT)
        self.node("Mul", [floats, scales], node.output[0])

    def drop_unused(self) -> None:
        used = {name for node in self.nodes for name in _inputs(node)}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)


def _quantized(values: np.ndarray, axis: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """``values`` (rows, columns) as int8 within ±``limit``, and their float32 scales, of length 1 on ``axis``."""
    scale = np.maximum(np.abs(values).max(axis=axis, keepdims=True) / limit, 1e-12).astype(np.float32)
    return np.round(values / scale).astype(np.int8), scale


def _inputs(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the values that ``node`` and its branches read."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _inputs(inner)


def _is_embedding(node: onnx.NodeProto, table: np.ndarray) -> bool:
    by_rows = all(attribute.name != "axis" or attribute.i == 0 for attribute in node.attribute)
    return by_rows and table.ndim == 2 and table.dtype == np.float32 and len(table) >= _MIN_EMBEDDING_ROWS
