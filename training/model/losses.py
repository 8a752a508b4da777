"""Losses: how far the student's scores of a group are from the teacher's.

The formulas are those of JaColBERTv2.5 (arXiv 2407.20750, section 3); MarginMSE is Hofstätter et al.'s (2020).
"""

from __future__ import annotations

import torch
from torch.nn import functional

from ..config import LossConfig

_LEAST_SPREAD = 1e-8


def loss_of(config: LossConfig, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The loss of a batch.

    Args:
        config: the section [loss], of the kind "kl" or "margin_mse".
        student: scores by the student, float32 (groups, nway).
        teacher: scores by the teacher, float32 (groups, nway).

    Returns:
        A scalar.
    """
    if config.normalize_student:
        student = min_max(student)
    if config.normalize_teacher:
        teacher = min_max(teacher)
    teacher = config.distillation_alpha * teacher
    return divergence(student, teacher) if config.kind == "kl" else margin_mse(student, teacher)


def min_max(scores: torch.Tensor) -> torch.Tensor:
    """The scores of each group scaled to [0, 1]: float32 (groups, nway)."""
    low, high = scores.amin(dim=1, keepdim=True), scores.amax(dim=1, keepdim=True)
    return (scores - low) / (high - low + _LEAST_SPREAD)


def divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL divergence of the student's softmax over each group from the teacher's, the mean over groups.

    Args:
        student: float32 (groups, nway).
        teacher: the same.

    Returns:
        A scalar.
    """
    return functional.kl_div(
        functional.log_softmax(student, dim=1),
        functional.log_softmax(teacher, dim=1),
        reduction="batchmean",
        log_target=True,
    )


def margin_mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of the margins between each group's first passage and its others.

    Args:
        student: float32 (groups, nway).
        teacher: the same.

    Returns:
        A scalar.
    """
    return functional.mse_loss(student[:, :1] - student[:, 1:], teacher[:, :1] - teacher[:, 1:])


def in_batch(config: LossConfig, scores: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Weighted cross-entropy of each query's own passage among all passages of the batch.

    Args:
        config: the section [loss].
        scores: MaxSim of each query with each passage, float32 (groups, passages).
        own: number of each query's own passage, int64 (groups,).

    Returns:
        A scalar.
    """
    return config.in_batch_weight * functional.cross_entropy(config.in_batch_scale * scores, own)
