"""Attention without a mask where nothing is masked, which ONNX Runtime runs in blocks that stay in the cache.

`MultiHeadAttention` takes its flash path only without an attention bias. The traced graph always computes a bias, which
is zero where no position is padded or hidden. So each attention is put into an `If` that leaves out a bias of zeros.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

_BIAS_INPUT = 5  # of MultiHeadAttention: query, key, value, bias, key padding mask, attention bias
_PROBED_LENGTHS = (1, 7, 300, 2048)  # in tokens, of the texts that the bias is computed for


def skip_empty_masks(model: onnx.ModelProto, longest: int) -> onnx.ModelProto:
    """Make attention run without a bias when ``attention_mask`` is all ones.

    That changes only attentions whose bias is then zero for texts of several lengths. Local attention (ModernBERT)
    hides positions without any padding, and keeps its bias.

    Args:
        model: the graph.
        longest: the longest text that it takes, in tokens.

    Returns:
        A changed copy of ``model``.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    biases = {bias for node in graph.node if (bias := _bias(node))}
    idle = {bias for bias in biases if _is_zero_without_mask(model, bias, longest)}
    if not idle:
        return changed
    nodes = [
        helper.make_node("ReduceMin", ["attention_mask"], ["least_attention"], keepdims=0),
        helper.make_node("Cast", ["least_attention"], ["nothing_masked"], to=TensorProto.BOOL),
    ]
    nodes += [_either(node) if _bias(node) in idle else node for node in graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return changed


def _bias(node: onnx.NodeProto) -> str:
    """Name of an attention's bias; "" if ``node`` is not an attention, or one without a bias."""
    has_bias = node.op_type == "MultiHeadAttention" and len(node.input) > _BIAS_INPUT
    return node.input[_BIAS_INPUT] if has_bias else ""


def _either(node: onnx.NodeProto) -> onnx.NodeProto:
    """``node`` as the two branches of an `If`, without and with its bias."""
    branches = {}
    for name, count in (("then_branch", _BIAS_INPUT - 1), ("else_branch", len(node.input))):
        branch = onnx.NodeProto()
        branch.CopyFrom(node)
        output = f"{node.output[0]}_{name}"
        del branch.input[count:]
        branch.output[0] = output
        values = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
        branches[name] = helper.make_graph([branch], output, [], values)
    return helper.make_node("If", ["nothing_masked"], list(node.output), name=f"{node.output[0]}_If", **branches)


def _is_zero_without_mask(model: onnx.ModelProto, bias: str, longest: int) -> bool:
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.append(helper.make_tensor_value_info(bias, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    for length in sorted({min(length, longest) for length in _PROBED_LENGTHS}):
        ones = np.ones((2, length), np.int64)
        (values,) = session.run(None, dict.fromkeys(names, ones))
        if np.asarray(values).any():
            return False
    return True
