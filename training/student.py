"""The model that is trained: token vectors of texts, and MaxSim of queries with passages, differentiable."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch.nn import functional

from ..onnx_export import Expansion, InputError, TextRules, TokenizedText
from ..onnx_export.checkpoint import Checkpoint
from ..onnx_export.encoder import graph_inputs
from ..onnx_export.segment import load_segmenter
from ..onnx_export.tokenize import TextTokenizer
from .config import ModelConfig

_MASKED = -1e4  # less than any cosine, and a number in 16 bits too


class Student(torch.nn.Module):
    """A checkpoint's backbone and projection; tokenizes as the exported bundle will."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.backbone = checkpoint.backbone
        self.projection = checkpoint.projection.requires_grad_(True)
        pooler = getattr(self.backbone, "pooler", None)
        if pooler is not None:  # not on the way to token vectors
            pooler.requires_grad_(False)
        segment = load_segmenter(checkpoint.segmenter, checkpoint.tokenizer)
        self.tokenize_queries = TextTokenizer(checkpoint.tokenizer, checkpoint.query, segment)
        self.tokenize_passages = TextTokenizer(checkpoint.tokenizer, checkpoint.document, segment)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    def vectors(self, texts: Sequence[TokenizedText]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token vectors of unit length, (texts, tokens, dim), and which are kept, bool (texts, tokens)."""
        inputs = {name: torch.from_numpy(array).to(self.device) for name, array in graph_inputs(texts).items()}
        hidden = self.backbone(**inputs).last_hidden_state
        keep = np.zeros(inputs["input_ids"].shape, bool)
        for row, text in enumerate(texts):
            keep[row, : len(text.keep)] = text.keep
        return functional.normalize(self.projection(hidden).float(), dim=-1), torch.from_numpy(keep).to(self.device)

    def forward(
        self, queries: Sequence[TokenizedText], passages: Sequence[TokenizedText], *, all_pairs: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Scores of each query's passages, float32 (queries, nway).

        Args:
            queries: one for each group.
            passages: nway for each group, one group after the other.
            all_pairs: return the scores of every query with every group's first passage too, (queries, queries).
        """
        asked, asked_kept = self.vectors(queries)
        found, found_kept = self.vectors(passages)
        nway = len(passages) // len(queries)
        grouped = found.unflatten(0, (len(queries), nway))
        scores = maxsim(asked[:, None], asked_kept[:, None], grouped, found_kept.unflatten(0, (len(queries), nway)))
        if not all_pairs:
            return scores, None
        first, first_kept = grouped[:, 0], found_kept[::nway]
        return scores, maxsim(asked[:, None], asked_kept[:, None], first[None], first_kept[None])


def maxsim(
    queries: torch.Tensor, query_kept: torch.Tensor, passages: torch.Tensor, passage_kept: torch.Tensor
) -> torch.Tensor:
    """MaxSim: for each kept query token the largest cosine with a kept passage token, summed.

    Args:
        queries: float32 (…, query tokens, dim).
        query_kept: bool (…, query tokens).
        passages: float32 (…, passage tokens, dim); leading dimensions are broadcast.
        passage_kept: bool (…, passage tokens).
    """
    similarities = queries @ passages.transpose(-1, -2)
    similarities = similarities.masked_fill(~passage_kept[..., None, :], _MASKED)
    return (similarities.amax(dim=-1) * query_kept).sum(dim=-1)


def with_rules(checkpoint: Checkpoint, config: ModelConfig) -> Checkpoint:
    """The checkpoint with the lengths and the query augmentation of a configuration.

    Raises InputError if mask tokens are wanted and the vocabulary has none.
    """
    query = dataclasses.replace(checkpoint.query, max_length=config.query_length, expansion=None)
    if config.augmentation != "none":
        token = _mask_token(checkpoint)
        length = config.query_length
        expansion = Expansion(token, "fixed" if config.augmentation == "fixed" else "paper", length)
        longest = length if config.augmentation == "fixed" else checkpoint.query.max_length
        query = dataclasses.replace(query, max_length=longest, expansion=expansion)
    document: TextRules = dataclasses.replace(checkpoint.document, max_length=config.document_length)
    return dataclasses.replace(checkpoint, query=query, document=document)


def _mask_token(checkpoint: Checkpoint) -> str:
    if checkpoint.query.expansion is not None:
        return checkpoint.query.expansion.token
    for token in ("[MASK]", "<mask>"):
        if checkpoint.tokenizer.token_to_id(token) is not None:
            return token
    raise InputError(f"{checkpoint.name}: the vocabulary has no mask token; set model.augmentation to none")


def trained_parameters(student: Student, layers: int | None) -> Iterable[torch.nn.Parameter]:
    """The parameters that are trained: all, or those of the ``layers`` uppermost layers and the projection.

    The others are frozen. Raises InputError for more layers than there are, and a backbone whose layers are not known.
    """
    if layers is not None:
        student.backbone.requires_grad_(False)
        stack = _layers(student.backbone)
        if layers > len(stack):
            raise InputError(f"optimizer.trained_layers is {layers}; {student.checkpoint.name} has {len(stack)} layers")
        for layer in list(stack)[len(stack) - layers :]:
            layer.requires_grad_(True)
    return [parameter for parameter in student.parameters() if parameter.requires_grad]


def _layers(backbone: torch.nn.Module) -> torch.nn.ModuleList:
    stacks = [m for m in backbone.modules() if isinstance(m, torch.nn.ModuleList) and len(m) > 1]
    if not stacks:
        raise InputError("this backbone's layers are not known; leave out optimizer.trained_layers")
    return max(stacks, key=len)
