"""A ColBERT checkpoint in memory: what the export needs of a model, in whatever format its files were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer

from ..encode.rules import TextRules
from ..frozen_dict import FrozenDict

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Checkpoint:
    """A token encoder: backbone, projection, tokenizer and text rules.

    A checkpoint cannot be changed; `dataclasses.replace` makes another one, which shares the backbone's weights.

    Attributes:
        name: the model's name.
        backbone: a transformers encoder without a head, in evaluation mode, in float32.
        projection: float32 (…, hidden) → float32 (…, dim). A token vector is the projected hidden state at unit length.
        tokenizer: adds the sequence start and end tokens itself, and does not pad.
        query: rules for queries.
        document: rules for documents.
        segmenter: name of the word segmenter that runs before the tokenizer, or None; see `Bundle`.
        origin: where the weights come from, for the bundle's JSON.
        lower_case: whether texts become lower case before the tokenizer of ``tokenizer_files`` reads them;
            ``tokenizer`` does it itself.
        tokenizer_files: the files that ``tokenizer`` was read from, filename → content, with ``config.json``: from them
            other programs read the same tokenizer. Empty for a checkpoint that was not read from files.
    """

    name: str
    backbone: PreTrainedModel
    projection: torch.nn.Module
    tokenizer: Tokenizer
    query: TextRules
    document: TextRules
    segmenter: str | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    lower_case: bool = False
    tokenizer_files: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in ("origin", "tokenizer_files"):
            object.__setattr__(self, name, FrozenDict(getattr(self, name)))

    @property
    def dim(self) -> int:
        """Length of a token vector."""
        with torch.inference_mode():
            return self.projection(torch.zeros(1, self.backbone.config.hidden_size)).shape[-1]


def linear_projection(weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.nn.Linear:
    """A projection by one matrix.

    Args:
        weight: float32 (dim, hidden).
        bias: float32 (dim,), or None.
    """
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
    return linear.requires_grad_(False)
