"""A ColBERT checkpoint in memory: what the export needs to know of a model, whatever files it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from .bundle import TextRules

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Checkpoint:
    """A token encoder: backbone, projection, tokenizer and text rules.

    Attributes:
        name: the model's name.
        backbone: a transformers encoder without a head, in evaluation mode, in float32.
        projection: float32 (dim, hidden); a token vector is ``projection @ hidden_state``, brought to unit length.
        tokenizer: adds the sequence start and end tokens itself and has padding switched off.
        query: rules for queries.
        document: rules for documents.
        origin: where the weights come from, for the bundle's JSON.
    """

    name: str
    backbone: PreTrainedModel
    projection: torch.Tensor
    tokenizer: Tokenizer
    query: TextRules
    document: TextRules
    origin: dict[str, Any] = field(default_factory=dict)
