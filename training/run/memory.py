"""How much memory a step takes, before the first one is done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...onnx_export.encode.tokenize import TokenizedText
from ..config import TrainingConfig
from ..model.student import Student, distinct_texts, runs_of
from .batches import Pass

_FLOAT = 4  # bytes
_STATES = 2  # tensors of the optimizer for each weight
_BACKWARD = 1.25  # gradients of activations in flight, by measurement
_OF_PRODUCTS = 3  # the products of MaxSim, masked, and their gradient


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a step takes, about.

    Attributes:
        model: weights, gradients, and what the optimizer keeps.
        activations: what the forward passes keep for the backward pass.
        maxsim: token vectors and their products.
        tokens: number of tokens, with padding, that ``activations`` are of.
    """

    model: int
    activations: int
    maxsim: int
    tokens: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.model + self.activations + self.maxsim

    def __str__(self) -> str:
        return (
            f"a step takes about {_gib(self.total)}: {_gib(self.model)} for the model and its optimizer, "
            f"{_gib(self.activations)} for the activations of {self.tokens:,} tokens, {_gib(self.maxsim)} for MaxSim"
        )


def estimate_memory(
    student: Student, config: TrainingConfig, some: Sequence[Pass], precision: torch.dtype
) -> MemoryEstimate:
    """Estimate the memory of a step.

    Two texts are run through the model, as far as the backward pass, and the tensors that are kept for it counted. So
    the estimate holds for every backbone, precision and attention. It is of the largest of the passes that are given.

    Args:
        student: the model, on the device of the training.
        config: the configuration.
        some: passes of the training.
        precision: number format of the backbone.
    """
    weights = [parameter.numel() for parameter in student.parameters()]
    trained = sum(parameter.numel() for parameter in student.parameters() if parameter.requires_grad)
    model = _FLOAT * (sum(weights) + (1 + _STATES) * trained)
    if precision != torch.float32:  # autocast keeps the weights in 16 bits for as long as it is on
        model += 2 * sum(weights)
    model += 2 * _FLOAT * max(weights)  # its gradient comes whole from each run before it is added to the others
    longest = max((text for part in some for text in part.passages), key=lambda text: len(text.ids))
    one, two = (_kept_bytes(student, [longest] * count, precision) for count in (1, 2))
    of_token = _BACKWARD * max(0, two - one) / len(longest.ids)
    activations, maxsim, tokens = max(_of_pass(student, config, part, of_token) for part in some)
    return MemoryEstimate(model, activations, maxsim, tokens)


def memory_of(device: torch.device) -> int | None:
    """Bytes of memory that a device has; None if that is not known."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def said_of_memory(estimate: MemoryEstimate, device: torch.device) -> str:
    """The estimate for people, with what to do if the device has less."""
    there = memory_of(device)
    if there is None or estimate.total <= there:
        return str(estimate)
    return (
        f"warning: {estimate}, and {device} has {_gib(there)}; set run.recompute = true, a smaller run.tokens_at_once "
        "with it, or a larger optimizer.accumulate"
    )


def _of_pass(student: Student, config: TrainingConfig, some: Pass, of_token: float) -> tuple[int, int, int]:
    """Bytes of activations, bytes of MaxSim, and tokens of the activations."""
    passages, _ = distinct_texts(some.passages)
    sizes = [
        len(run) * max(len(texts[number].ids) for number in run)
        for texts in (some.queries, passages)
        for run in runs_of(texts, config.run.tokens_at_once)
    ]
    tokens = max(sizes) if config.run.recompute else sum(sizes)
    dim = student.checkpoint.dim
    asked, found = (max(len(text.ids) for text in texts) for texts in (some.queries, passages))
    vectors = 2 * (len(passages) + len(some.passages)) * found * dim
    products = len(some.passages) * asked * found
    if config.loss.in_batch_negatives:
        products += len(some.queries) ** 2 * asked * found
    return round(of_token * tokens), _FLOAT * (vectors + _OF_PRODUCTS * products), tokens


def _kept_bytes(student: Student, texts: Sequence[TokenizedText], precision: torch.dtype) -> int:
    """Bytes of the tensors that the forward pass of some texts keeps, without the weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in student.parameters()}
    kept: dict[int, tuple[torch.Tensor, int]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = tensor, storage.nbytes()  # the tensor, so that no other takes its place
        return tensor

    enabled = precision != torch.float32
    recompute, student.recompute = student.recompute, False
    training = student.training
    student.train()
    try:
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast(student.device.type, precision, enabled=enabled),
        ):
            student.vectors(texts)
    finally:
        student.recompute = recompute
        student.train(training)
    return sum(size for _, size in kept.values())


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size < 10 * 2**30 else f"{size / 2**30:.0f} GiB"
