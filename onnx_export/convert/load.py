"""A folder or hub repository in any of the supported formats → `Checkpoint`. Needs the extra ``export``."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from ..errors import CheckpointError, InputError, MissingExtraError

try:
    from .checkpoint import Checkpoint
    from .formats.files import METADATA_FILE, MODULES_FILE, find_folder
    from .formats.modules import load_modules
    from .formats.queries import QueryExpansion
    from .formats.stanford import is_stanford, load_stanford
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "torch", "export") from error


def load_checkpoint(
    source: str | os.PathLike[str], *, revision: str | None = None, query_expansion: QueryExpansion | None = None
) -> Checkpoint:
    """Read a ColBERT checkpoint: Stanford's format, PyLate's, or that of sentence-transformers' MultiVectorEncoder.

    No code of the checkpoint runs, and nothing but tensors is unpickled.

    Args:
        source: a folder, or the name of a hub repository such as "answerdotai/JaColBERTv2.5", which is downloaded.
        revision: branch, tag or commit of a hub repository.
        query_expansion: which mask tokens queries get: "paper" (the JaColBERTv2.5 paper's dynamic query length, the
            default for Stanford checkpoints), "shipped" (the rule that its author released), "fixed" (the checkpoint's
            own length) or "none"; None takes the format's default. See `Expansion`.

    Returns:
        The checkpoint, for `export_checkpoint`.

    Raises:
        CheckpointError: the source is not found, is not a ColBERT checkpoint, is incomplete, or is of a kind that
            tansaku does not support. The message names file, field and remedy.
        InputError: ``query_expansion`` is unknown.
        MissingExtraError: the tokenizer needs the extra ``japanese``, or (on import) ``export`` is not installed.

    Example:
        >>> from tansaku import load_checkpoint
        >>> checkpoint = load_checkpoint("answerdotai/JaColBERTv2.5")  # doctest: +SKIP
        >>> checkpoint.dim, checkpoint.document.max_length  # doctest: +SKIP
        (128, 300)
    """
    if query_expansion is not None and query_expansion not in get_args(QueryExpansion):
        raise InputError(
            f"unknown query expansion {query_expansion!r}; use one of {', '.join(get_args(QueryExpansion))}"
        )
    folder = find_folder(os.fspath(source), revision)
    local = os.path.isdir(source)
    name = folder.resolve().name if local else os.fspath(source)
    checkpoint = _reader(folder)(folder, name, query_expansion)
    _check_vocabulary(checkpoint, folder)
    if local:
        return checkpoint
    # huggingface_hub names the folder of a download by its commit.
    return dataclasses.replace(checkpoint, origin={**checkpoint.origin, "hub": name, "commit": folder.name})


def _reader(folder: Path) -> Callable[[Path, str, QueryExpansion | None], Checkpoint]:
    if is_stanford(folder):
        return load_stanford
    if (folder / MODULES_FILE).is_file():
        return load_modules
    raise CheckpointError(
        f"{folder}: not a ColBERT checkpoint: no {METADATA_FILE} and no linear.weight (Stanford), and no "
        f"{MODULES_FILE} (PyLate, sentence-transformers)"
    )


def _check_vocabulary(checkpoint: Checkpoint, folder: Path) -> None:
    tokens = 1 + max(checkpoint.tokenizer.get_vocab().values())
    rows = checkpoint.backbone.config.vocab_size
    if tokens > rows:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokens} tokens, but the backbone {rows}: they do not belong to one model"
        )
