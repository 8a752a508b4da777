"""Fused attention in training: its memory grows with the length of the texts, not with the square of it."""

from __future__ import annotations

import logging

import torch
from transformers import PreTrainedModel

from ...onnx_export.convert.formats.backbone import attention_of
from ...onnx_export.encode.tokenize import TokenizedText
from .student import Student

_TOLERANCE = 1e-4


def use_sdpa(student: Student, texts: list[TokenizedText]) -> bool:
    """Compute attention by torch's `scaled_dot_product_attention` if the backbone can, with the same token vectors.

    Args:
        student: the model, whose backbone is changed.
        texts: texts of different lengths, to compare the vectors by.

    Returns:
        Whether it is used; otherwise the backbone is as before.
    """
    backbone = student.backbone
    before = attention_of(backbone)
    training = student.training
    student.eval()
    with torch.no_grad():
        expected, kept = student.vectors(texts)
        _set(backbone, "sdpa")
        found, _ = student.vectors(texts)
    student.train(training)
    same = torch.allclose(expected[kept], found[kept], rtol=_TOLERANCE, atol=_TOLERANCE)
    if not same:
        _set(backbone, before)
    return attention_of(backbone) == "sdpa"


def _set(backbone: PreTrainedModel, implementation: str) -> None:
    # It logs a warning where a backbone has only one implementation, and then changes nothing.
    logger = logging.getLogger("transformers.modeling_utils")
    before, logger.disabled = logger.disabled, True
    try:
        backbone.set_attn_implementation(implementation)
    finally:
        logger.disabled = before
