"""A ColBERT checkpoint in memory: what the export needs to know of a model, whatever files it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer

from ..encode.rules import TextRules

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Checkpoint:
    """A token encoder: backbone, projection, tokenizer and text rules.

    Attributes:
        name: the model's name.
        backbone: a transformers encoder without a head, in evaluation mode, in float32.
        projection: float32 (…, hidden) → (…, dim); a token vector is the projected hidden state at unit length.
        tokenizer: adds the sequence start and end tokens itself and has padding switched off.
        query: rules for queries.
        document: rules for documents.
        segmenter: what cuts a text into words before the tokenizer; see `Bundle`.
        origin: where the weights come from, for the bundle's JSON.
    """

    name: str
    backbone: PreTrainedModel
    projection: torch.nn.Module
    tokenizer: Tokenizer
    query: TextRules
    document: TextRules
    segmenter: str | None = None
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        """Length of a token vector."""
        with torch.inference_mode():
            return self.projection(torch.zeros(1, self.backbone.config.hidden_size)).shape[-1]


def linear_projection(weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.nn.Linear:
    """A projection by one matrix: ``weight`` float32 (dim, hidden), ``bias`` (dim,)."""
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
    return linear.requires_grad_(False)
