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
    from .formats.backbone import positions
    from .formats.bge_m3 import is_bge_m3, load_bge_m3
    from .formats.files import HEAD_FILE, METADATA_FILE, MODULES_FILE, find_folder
    from .formats.modules import load_modules
    from .formats.queries import QueryExpansion, with_query_length
    from .formats.stanford import is_stanford, load_stanford
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "torch", "export") from error


_FEWEST_TOKENS = 4  # start, marker, one of the text, end


def load_checkpoint(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    query_expansion: QueryExpansion | None = None,
    query_length: int | None = None,
    document_length: int | None = None,
    query_prefix: str | None = None,
    document_prefix: str | None = None,
) -> Checkpoint:
    """Read a ColBERT checkpoint.

    The formats are Stanford's, PyLate's, that of sentence-transformers' MultiVectorEncoder, and BGE-M3's. No code of
    the checkpoint runs, and nothing but tensors is unpickled.

    Args:
        source: a folder, or the name of a hub repository such as "answerdotai/JaColBERTv2.5", which is downloaded.
        revision: branch, tag or commit of a hub repository.
        query_expansion: which mask tokens queries get: "paper" (the JaColBERTv2.5 paper's dynamic query length, the
            default for Stanford checkpoints), "shipped" (the rule that its author released), "fixed" (the checkpoint's
            own length) or "none"; None takes what tansaku wrote into the checkpoint, or else the format's default. See
            `Expansion`.
        query_length: longest query in tokens, with markers and masks. Fixed masks reach up to it. None takes the
            checkpoint's.
        document_length: longest document in tokens; the rest is cut. None takes the checkpoint's.
        query_prefix: string before each query, such as "query: "; "" for none, None for the checkpoint's.
        document_prefix: the same for documents.

    Returns:
        The checkpoint, for `export_checkpoint`.

    Raises:
        CheckpointError: the source is not found, is not a ColBERT checkpoint, is incomplete, or is of a kind that
            tansaku does not support. The message names file, field and remedy.
        InputError: ``query_expansion`` is unknown, or a length is below 4 or more than the backbone reads.
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
    _check_tokens(checkpoint, folder)
    query, document = checkpoint.query, checkpoint.document
    if query_length is not None:
        query = with_query_length(query, _checked_length("query_length", query_length, checkpoint))
    if document_length is not None:
        length = _checked_length("document_length", document_length, checkpoint)
        document = dataclasses.replace(document, max_length=length)
    if query_prefix is not None:
        query = dataclasses.replace(query, prefix=query_prefix)
    if document_prefix is not None:
        document = dataclasses.replace(document, prefix=document_prefix)
    checkpoint = dataclasses.replace(checkpoint, query=query, document=document)
    if local:
        return checkpoint
    # huggingface_hub names the folder of a download by its commit.
    return dataclasses.replace(checkpoint, origin={**checkpoint.origin, "hub": name, "commit": folder.name})


def _reader(folder: Path) -> Callable[[Path, str, QueryExpansion | None], Checkpoint]:
    if is_bge_m3(folder) and not (folder / METADATA_FILE).is_file():
        return load_bge_m3
    if is_stanford(folder):
        return load_stanford
    if (folder / MODULES_FILE).is_file():
        return load_modules
    raise CheckpointError(
        f"{folder}: not a ColBERT checkpoint: no {METADATA_FILE} and no linear.weight (Stanford), no "
        f"{MODULES_FILE} (PyLate, sentence-transformers), and no {HEAD_FILE} (BGE-M3)"
    )


def _checked_length(name: str, length: int, checkpoint: Checkpoint) -> int:
    most = positions(checkpoint.backbone.config)
    if not _FEWEST_TOKENS <= length <= most:
        raise InputError(f"{name} is {length}; it must be from {_FEWEST_TOKENS} to {most}, the backbone's positions")
    return length


def _check_tokens(checkpoint: Checkpoint, folder: Path) -> None:
    tokens = 1 + max(checkpoint.tokenizer.get_vocab().values())
    rows = checkpoint.backbone.config.vocab_size
    if tokens > rows:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokens} tokens, but the backbone {rows}: they do not belong to one model"
        )
    for rules in (checkpoint.query, checkpoint.document):
        for token in (rules.marker, rules.expansion and rules.expansion.token, *rules.skiplist):
            if token is not None and checkpoint.tokenizer.token_to_id(token) is None:
                raise CheckpointError(
                    f"{folder}: the rules name the token {token!r}, which the tokenizer does not have; copy the "
                    "checkpoint again"
                )
