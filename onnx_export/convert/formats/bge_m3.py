"""BGE-M3: a transformer whose ColBERT head lies beside it in ``colbert_linear.pt``, as FlagEmbedding reads it.

Its modules.json describes the dense vectors of the same model, so the head is looked for first.
"""

from __future__ import annotations

from pathlib import Path

from ...encode.rules import TextRules
from ...errors import CheckpointError
from ..checkpoint import Checkpoint, linear_projection
from .backbone import load_backbone, positions
from .files import HEAD_FILE, read_weight_file
from .queries import QueryExpansion, query_rules
from .tokenizer import load_tokenizer


def is_bge_m3(folder: Path) -> bool:
    """Whether ``folder`` holds a checkpoint of this format."""
    return (folder / HEAD_FILE).is_file()


def load_bge_m3(folder: Path, name: str, query_expansion: QueryExpansion | None) -> Checkpoint:
    """Read a checkpoint in BGE-M3's format: no markers and no masks, and the start token gives no vector.

    Args:
        folder: where it is.
        name: the model's name.
        query_expansion: which mask tokens queries get; None means none.

    Raises:
        CheckpointError: a file is missing or wrong, or the model is of a kind that tansaku does not support.
        MissingExtraError: the tokenizer needs the extra ``japanese``.
    """
    backbone = load_backbone(folder)
    tokenizer = load_tokenizer(folder)
    hidden = backbone.config.hidden_size
    head = read_weight_file(folder / HEAD_FILE)
    weight, bias = head.get("weight"), head.get("bias")
    if weight is None or weight.shape[1:] != (hidden,) or (bias is not None and bias.shape != weight.shape[:1]):
        raise CheckpointError(
            f"{folder / HEAD_FILE}: has {', '.join(f'{key} {tuple(value.shape)}' for key, value in head.items())}; "
            f"expected a weight (dimensions, {hidden}) and a bias (dimensions,): copy the checkpoint again"
        )
    longest = min(positions(backbone.config), tokenizer.max_length)
    start = tokenizer.tokenizer.encode("a").tokens[0]
    rules = TextRules(prefix="", marker=None, max_length=longest, skiplist=(start,))
    return Checkpoint(
        name=name,
        backbone=backbone,
        projection=linear_projection(weight, bias),
        tokenizer=tokenizer.tokenizer,
        segmenter=tokenizer.segmenter,
        query=query_rules(query_expansion, rules, tokenizer.mask, longest, folder),
        document=rules,
        origin={"format": "bge-m3"},
        tokenizer_files=tokenizer.files,
    )
