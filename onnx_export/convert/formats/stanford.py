"""Stanford ColBERT checkpoints: JaColBERT, colbertv2.0, answerai-colbert.

Recognized by their files, a ``linear.weight`` among the model's weights or an ``artifact.metadata``, never by
``config.json``: that of JaColBERTv2.4 names the architecture BertModel.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

from pydantic import PositiveInt, model_validator

from ...encode.rules import Expansion, TextRules
from ...errors import CheckpointError
from ..checkpoint import Checkpoint, linear_projection
from .backbone import load_backbone, positions
from .files import METADATA_FILE, MODULES_FILE, Settings, read_settings, read_tensors
from .own_rules import read_own_rules
from .queries import QueryExpansion, query_rules
from .tokenizer import LoadedTokenizer, load_tokenizer

PROJECTION = "linear.weight"


class _Metadata(Settings):
    """artifact.metadata, with Stanford's defaults; some versions put the settings below "config"."""

    similarity: str = "cosine"
    dim: PositiveInt | None = None
    query_maxlen: PositiveInt = 32
    doc_maxlen: PositiveInt = 220
    query_token_id: str = ""
    doc_token_id: str = ""
    attend_to_mask_tokens: bool = False
    mask_punctuation: bool = True

    @model_validator(mode="before")
    @classmethod
    def _nested(cls, content: Any) -> Any:
        nested = content.get("config") if isinstance(content, dict) else None
        return nested if isinstance(nested, dict) else content


def is_stanford(folder: Path) -> bool:
    """Whether ``folder`` holds a checkpoint of this format."""
    stanford, modules = (folder / METADATA_FILE).is_file(), (folder / MODULES_FILE).is_file()
    if stanford != modules:
        return stanford
    # Both or neither: the weights decide.
    return PROJECTION in read_tensors(folder, PROJECTION)


def load_stanford(folder: Path, name: str, query_expansion: QueryExpansion | None) -> Checkpoint:
    """Read a checkpoint in Stanford's format.

    Settings that ``artifact.metadata`` lacks have Stanford's defaults: query_maxlen 32, doc_maxlen 220, markers
    [unused0] and [unused1], mask_punctuation, cosine similarity.

    Args:
        folder: where it is.
        name: the model's name.
        query_expansion: which mask tokens queries get; None means the checkpoint's own where tansaku wrote it, and else
            the paper's dynamic query length.

    Raises:
        CheckpointError: a file is missing or wrong, or the model is of a kind that tansaku does not support.
        MissingExtraError: the tokenizer needs the extra ``japanese``.
    """
    path = folder / METADATA_FILE
    metadata = read_settings(path, _Metadata)
    if metadata.similarity != "cosine":
        raise CheckpointError(f"{path}: similarity is {metadata.similarity!r}; tansaku supports 'cosine' only")

    backbone = load_backbone(folder)
    hidden = backbone.config.hidden_size
    weights = read_tensors(folder, PROJECTION)
    if PROJECTION not in weights:
        raise CheckpointError(f"{folder}: the weights have no {PROJECTION}: the projection is missing")
    projection = weights[PROJECTION]
    if projection.ndim != 2 or projection.shape[1] != hidden:
        raise CheckpointError(
            f"{folder}: {PROJECTION} has shape {tuple(projection.shape)}, expected (dimensions, {hidden}); "
            "copy the checkpoint again"
        )
    if metadata.dim not in (None, len(projection)):
        raise CheckpointError(
            f"{path}: dim is {metadata.dim}, but {PROJECTION} has {len(projection)} rows; copy the checkpoint again"
        )
    tokenizer = load_tokenizer(folder)

    if own := read_own_rules(path):
        query, document = own
    else:
        query, document = _rules(metadata, tokenizer, path)
        query_expansion = query_expansion or "paper"
    query = query_rules(query_expansion, query, tokenizer.mask, positions(backbone.config), folder)
    return Checkpoint(
        name=name,
        backbone=backbone,
        projection=linear_projection(projection),
        tokenizer=tokenizer.tokenizer,
        segmenter=tokenizer.segmenter,
        query=query,
        document=document,
        origin={"format": "stanford"},
        tokenizer_files=tokenizer.files,
    )


def _rules(metadata: _Metadata, tokenizer: LoadedTokenizer, path: Path) -> tuple[TextRules, TextRules]:
    length, attend = metadata.query_maxlen, metadata.attend_to_mask_tokens
    query = TextRules(
        prefix="",
        marker=_marker(metadata.query_token_id or "[unused0]", tokenizer, path),
        max_length=length,
        expansion=Expansion(tokenizer.mask, "fixed", length, attend) if tokenizer.mask else None,
    )
    document = TextRules(
        prefix="",
        marker=_marker(metadata.doc_token_id or "[unused1]", tokenizer, path),
        max_length=metadata.doc_maxlen,
        skiplist=punctuation(tokenizer) if metadata.mask_punctuation else (),
    )
    return query, document


def _marker(token: str, tokenizer: LoadedTokenizer, path: Path) -> str:
    # Stanford looks the marker's id up, and gets that of the unknown token for what the vocabulary lacks.
    if tokenizer.has(token):
        return token
    if tokenizer.unknown is None:
        raise CheckpointError(
            f"{path}: the marker {token!r} is not in the tokenizer's vocabulary, and there is no unknown token to "
            "stand for it; name a token of the vocabulary"
        )
    return tokenizer.unknown


def punctuation(tokenizer: LoadedTokenizer) -> tuple[str, ...]:
    """The tokens whose vectors Stanford's mask_punctuation leaves out."""
    # Stanford takes the first token of each symbol; for a symbol that the vocabulary lacks, that is the unknown token.
    return tuple(dict.fromkeys(tokenizer.first_tokens(string.punctuation)))
