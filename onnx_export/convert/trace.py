"""Checkpoint → float32 ONNX graph, with the transformer's inner steps fused into operators of ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import onnx
import torch
from onnxscript import ir
from onnxscript.optimizer import optimize
from onnxscript.rewriter.ort_fusions import shape_optimization
from onnxscript.rewriter.ort_fusions.bias_gelu import fuse_bias_gelu
from onnxscript.rewriter.ort_fusions.erfgelu import fuse_erfgelu
from onnxscript.rewriter.ort_fusions.gelu import fuse_gelu
from onnxscript.rewriter.ort_fusions.mha import fuse_mha1, fuse_mha2
from onnxscript.rewriter.ort_fusions.mha_bias import fuse_mha_bias
from onnxscript.rewriter.ort_fusions.mha_scale import fuse_mha_scale
from onnxscript.rewriter.ort_fusions.sdpa import fuse_sdpa
from onnxscript.rewriter.ort_fusions.sdpa_via_mha import replace_sdpa_by_mha

from .attention import skip_empty_masks
from .checkpoint import Checkpoint
from .formats.backbone import attention_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OPSET = 20


class _TokenVectors(torch.nn.Module):
    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.backbone = checkpoint.backbone
        self.projection = checkpoint.projection

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return torch.nn.functional.normalize(self.projection(hidden), dim=-1)


def token_vectors_module(checkpoint: Checkpoint) -> torch.nn.Module:
    """The graph's computation as a torch module: (input_ids, attention_mask) → unit token vectors."""
    return _TokenVectors(checkpoint).eval()


def trace(checkpoint: Checkpoint) -> onnx.ModelProto:
    """Export ``checkpoint`` to one float32 graph.

    Returns:
        The graph. Inputs ``input_ids`` and ``attention_mask``: int64 (batch, length), both dimensions free. Output
        ``token_vectors``: float32 (batch, length, dim), unit length.
    """
    ids = torch.full((2, 16), 5)
    mask = torch.ones((2, 16), dtype=torch.long)
    mask[1, 10:] = 0
    longest = max(checkpoint.query.max_length, checkpoint.document.max_length)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=longest)}
    # The exporter prints its progress, logs that torchvision is missing and warns of its own internals.
    with (
        _eager_attention(checkpoint.backbone),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        _silenced("torch.onnx", "onnxscript"),
    ):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            token_vectors_module(checkpoint),
            (ids, mask),
            dynamo=True,
            dynamic_shapes=(axes, axes),
            input_names=["input_ids", "attention_mask"],
            output_names=["token_vectors"],
            opset_version=OPSET,
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned no program")
        model = program.model
        _fuse(model)
    return skip_empty_masks(_as_proto(model), longest)


def _fuse(model: ir.Model) -> None:
    # onnxscript's own `optimize_for_ort` goes one step further, to the Attention operator, whose packed
    # query-key-value weights could not be quantized; MultiHeadAttention leaves the matrix products visible.
    optimize(model)
    shape_optimization.rules.apply_to_model(model)
    optimize(model)
    fuse_erfgelu(model)
    fuse_sdpa(model, apply_shape_inference=True)
    fuse_mha1(model)
    fuse_mha2(model)
    fuse_mha_scale(model)
    fuse_mha_bias(model)
    fuse_gelu(model)
    fuse_bias_gelu(model)
    replace_sdpa_by_mha(model)  # attention that the rules above found no further pattern around: ModernBERT's
    optimize(model)


def _as_proto(model: ir.Model) -> onnx.ModelProto:
    for node in model.graph.all_nodes():
        node.metadata_props.clear()  # the exporter's stack traces: paths of the exporting machine
        node.doc_string = None
    for value in model.graph.initializers.values():
        value.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    return ir.to_proto(model)


@contextlib.contextmanager
def _eager_attention(backbone: PreTrainedModel) -> Iterator[None]:
    """Eager attention traces to the plain pattern that the fusions know; the backbone's own comes back afterwards."""
    before = attention_of(backbone)
    backbone.set_attn_implementation("eager")
    try:
        yield
    finally:
        backbone.set_attn_implementation(before)


@contextlib.contextmanager
def _silenced(*names: str) -> Iterator[None]:
    logs = [logging.getLogger(name) for name in names]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
