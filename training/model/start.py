"""What a training starts from: a ColBERT checkpoint, or a plain encoder that gets a new projection."""

from __future__ import annotations

import string
from pathlib import Path

import torch

from ...onnx_export.convert.checkpoint import Checkpoint, linear_projection
from ...onnx_export.convert.formats.backbone import load_backbone, positions
from ...onnx_export.convert.formats.files import find_folder
from ...onnx_export.convert.formats.queries import query_rules
from ...onnx_export.convert.formats.tokenizer import LoadedTokenizer, load_tokenizer
from ...onnx_export.convert.load import load_checkpoint
from ...onnx_export.encode.rules import TextRules
from ...onnx_export.errors import CheckpointError, InputError
from ..config import ModelConfig

_MARKERS = ("[unused0]", "[unused1]")  # the paper's, which BERT's and ModernBERT's vocabularies have


def load_start(config: ModelConfig, seed: int) -> Checkpoint:
    """The checkpoint that a configuration names, or an encoder with the projection that it asks for.

    Args:
        config: the section [model].
        seed: seed of a new projection.

    Raises:
        CheckpointError: there is no such checkpoint or encoder, or it cannot be read; names the key to set.
        InputError: the vocabulary does not have the mask token or the markers that the configuration asks for.
    """
    if config.projection is not None:
        return _plain_encoder(config, config.projection, seed)
    try:
        return load_checkpoint(config.checkpoint)
    except CheckpointError as error:
        try:
            without_masks = load_checkpoint(config.checkpoint, query_expansion="none")
        except CheckpointError:
            raise CheckpointError(
                f"{error}; model.checkpoint names it. For a new projection on a plain encoder, set model.projection"
            ) from error
        if config.augmentation != "none":
            raise InputError(
                f"{config.checkpoint}: the vocabulary has no mask token; set model.augmentation to none"
            ) from error
        return without_masks


def _plain_encoder(config: ModelConfig, dim: int, seed: int) -> Checkpoint:
    folder = find_folder(config.checkpoint)
    backbone, tokenizer = load_backbone(folder), load_tokenizer(folder)
    query, document = _markers(config, tokenizer)
    spread = getattr(backbone.config, "initializer_range", 0.02)
    new = torch.randn(dim, backbone.config.hidden_size, generator=torch.Generator().manual_seed(seed)) * spread
    # As Stanford's: the first token of each symbol of ASCII. Here no other text is skipped with an unknown symbol.
    skipped = [token for token in tokenizer.first_tokens(string.punctuation) if token != tokenizer.unknown]
    longest = positions(backbone.config)
    rules = TextRules("", query, longest)
    return Checkpoint(
        name=folder.resolve().name if Path(config.checkpoint).is_dir() else config.checkpoint,
        backbone=backbone,
        projection=linear_projection(new),
        tokenizer=tokenizer.tokenizer,
        segmenter=tokenizer.segmenter,
        query=query_rules("paper" if tokenizer.mask else None, rules, tokenizer.mask, longest, folder),
        document=TextRules("", document, longest, skiplist=tuple(dict.fromkeys(skipped))),
        origin={"format": "encoder", "projection": f"new, seed {seed}"},
        tokenizer_files=tokenizer.files,
    )


def _markers(config: ModelConfig, tokenizer: LoadedTokenizer) -> tuple[str | None, str | None]:
    wanted = _MARKERS if config.markers is None else tuple(config.markers)
    if not wanted:
        return None, None
    missing = [token for token in wanted if not tokenizer.has(token)]
    if missing:
        raise InputError(
            f"{config.checkpoint}: the vocabulary has no token {missing[0]!r}; set model.markers to two of its tokens "
            "that no text has, one for queries and one for passages, or to [] for none"
        )
    return wanted[0], wanted[1]
