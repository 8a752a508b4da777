"""Stanford ColBERT checkpoints: JaColBERT, colbertv2.0, answerai-colbert.

Told by their files, a ``linear.weight`` among the model's weights or an ``artifact.metadata``, never by
``config.json``: JaColBERTv2.4's names the architecture BertModel.
"""

from __future__ import annotations

import string
from pathlib import Path

from ...encode.rules import Expansion, TextRules
from ...errors import CheckpointError
from ..checkpoint import Checkpoint, linear_projection
from .backbone import load_backbone, positions
from .files import METADATA_FILE, MODULES_FILE, read_json, read_tensors, setting
from .queries import QueryExpansion, query_rules
from .tokenizer import LoadedTokenizer, load_tokenizer

_PROJECTION = "linear.weight"


def is_stanford(folder: Path) -> bool:
    """Whether ``folder`` holds a checkpoint of this format."""
    stanford, modules = (folder / METADATA_FILE).is_file(), (folder / MODULES_FILE).is_file()
    if stanford != modules:
        return stanford
    # Both or neither: the weights tell.
    return _PROJECTION in read_tensors(folder, _PROJECTION)


def load_stanford(folder: Path, name: str, query_expansion: QueryExpansion | None) -> Checkpoint:
    """Read the checkpoint in ``folder``; the paper's dynamic query length by default.

    Settings that ``artifact.metadata`` lacks have Stanford's defaults: query_maxlen 32, doc_maxlen 220, markers
    [unused0] and [unused1], mask_punctuation, cosine similarity.
    """
    path = folder / METADATA_FILE
    metadata = read_json(path)
    if isinstance(metadata.get("config"), dict):
        metadata = metadata["config"]
    similarity = setting(metadata, "similarity", str, "cosine", path)
    if similarity != "cosine":
        raise CheckpointError(f"{path}: similarity {similarity!r}; tansaku's MaxSim is over cosines only")

    backbone = load_backbone(folder)
    hidden = backbone.config.hidden_size
    weights = read_tensors(folder, _PROJECTION)
    if _PROJECTION not in weights:
        raise CheckpointError(f"{folder}: the weights hold no {_PROJECTION}, so the projection is missing")
    projection = weights[_PROJECTION]
    if projection.ndim != 2 or projection.shape[1] != hidden:
        raise CheckpointError(f"{folder}: {_PROJECTION} is {tuple(projection.shape)}; expected (dimensions, {hidden})")
    dim = setting(metadata, "dim", int, len(projection), path)
    if dim != len(projection):
        raise CheckpointError(f"{path}: dim is {dim}, but {_PROJECTION} has {len(projection)} rows")
    tokenizer = load_tokenizer(folder)

    query_length = setting(metadata, "query_maxlen", int, 32, path)
    attend = setting(metadata, "attend_to_mask_tokens", bool, False, path)
    query = query_rules(
        query_expansion or "paper",
        TextRules(
            prefix="",
            marker=_marker(setting(metadata, "query_token_id", str, "", path) or "[unused0]", tokenizer, path),
            max_length=query_length,
            expansion=Expansion(tokenizer.mask, "fixed", query_length, attend) if tokenizer.mask else None,
        ),
        tokenizer.mask,
        positions(backbone.config),
        folder,
    )
    document = TextRules(
        prefix="",
        marker=_marker(setting(metadata, "doc_token_id", str, "", path) or "[unused1]", tokenizer, path),
        max_length=setting(metadata, "doc_maxlen", int, 220, path),
        skiplist=_punctuation(tokenizer) if setting(metadata, "mask_punctuation", bool, True, path) else (),
    )
    return Checkpoint(
        name=name,
        backbone=backbone,
        projection=linear_projection(projection),
        tokenizer=tokenizer.tokenizer,
        segmenter=tokenizer.segmenter,
        query=query,
        document=document,
        origin={"format": "stanford"},
    )


def _marker(token: str, tokenizer: LoadedTokenizer, path: Path) -> str:
    if not tokenizer.has(token):
        raise CheckpointError(f"{path}: the marker {token!r} is not in the tokenizer's vocabulary")
    return token


def _punctuation(tokenizer: LoadedTokenizer) -> tuple[str, ...]:
    # Stanford takes the first token of each symbol, the unknown token too where a symbol has none of its own.
    return tuple(dict.fromkeys(tokenizer.first_tokens(string.punctuation)))
