"""Give a bundle more tokens: rows behind those of its embedding table, and pieces behind those of its vocabulary.

The graph is amended, not exported again, so that the vectors of texts without the new tokens stay the same to the last
bit. Needs the extra ``export``.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..encode.bundle import Bundle, read_bundle, write_bundle
from ..errors import BundleError, InputError, MissingExtraError
from ..files import write_atomically

try:
    import onnx
    from onnx import numpy_helper

    from .quantize import embedding_rows
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "onnx", "export") from error


def add_tokens(
    folder: str | os.PathLike[str],
    pieces: Mapping[str, float],
    rows: np.ndarray,
    *,
    normalizer: Mapping[str, Any] | None = None,
    byte_fallback: bool = False,
    origin: Mapping[str, Any] | None = None,
) -> Bundle:
    """Put tokens into a bundle of `quantize`d weights with a Unigram vocabulary.

    Args:
        folder: the bundle's folder.
        pieces: piece → its score in the vocabulary, all new.
        rows: their embeddings, float32 (pieces, hidden).
        normalizer: takes the place of the normalizer in the tokenizer's file, if given.
        byte_fallback: whether a character without a piece becomes the pieces of its bytes, "<0x00>" to "<0xFF>".
        origin: more about where the bundle comes from.

    Returns:
        The bundle with its new tokens.

    Raises:
        BundleError: there is no complete bundle in ``folder``, its vocabulary is not Unigram, or its graph has no int8
            embedding table of the vocabulary's size.
        InputError: a piece is there already, or ``rows`` has another shape or numbers that are not finite.
    """
    folder = Path(folder)
    bundle = read_bundle(folder)
    tokenizer = json.loads((folder / bundle.tokenizer).read_text(encoding="utf-8"))
    if tokenizer["model"]["type"] != "Unigram":
        raise BundleError(f"{folder}: the vocabulary is {tokenizer['model']['type']}, not Unigram; use another bundle")
    vocabulary = tokenizer["model"]["vocab"]
    known = {piece for piece, _ in vocabulary}
    if double := sorted(known & set(pieces)):
        raise InputError(f"the vocabulary of {folder} has {double[0]!r} already; leave it out")
    model = onnx.load(str(folder / bundle.graph))
    _append_rows(model.graph, rows, len(vocabulary), len(pieces), folder)
    tokenizer["model"]["vocab"] = vocabulary + [[piece, float(score)] for piece, score in pieces.items()]
    tokenizer["model"]["byte_fallback"] = byte_fallback
    if normalizer is not None:
        tokenizer["normalizer"] = normalizer
    write_atomically(folder / bundle.graph, model.SerializeToString())
    write_atomically(folder / bundle.tokenizer, json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")) + "\n")
    return write_bundle(folder, dataclasses.replace(bundle, origin={**bundle.origin, **(origin or {})}))


def _append_rows(graph: onnx.GraphProto, rows: np.ndarray, old: int, new: int, folder: Path) -> None:
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    names = [name for name, tensor in tensors.items() if f"{name}_scale" in tensors and tensor.dims[0] == old]
    if len(names) != 1:
        raise BundleError(f"{folder}: the graph has no int8 embedding table of {old:,} rows; export at int8")
    table, scales = tensors[names[0]], tensors[f"{names[0]}_scale"]
    if rows.shape != (new, table.dims[1]) or not np.isfinite(rows).all():
        raise InputError(f"rows has shape {rows.shape}, expected {(new, table.dims[1])} and finite numbers")
    for tensor, more in zip((table, scales), embedding_rows(np.asarray(rows, np.float32)), strict=True):
        whole = np.concatenate([numpy_helper.to_array(tensor), more])
        tensor.CopyFrom(numpy_helper.from_array(whole, tensor.name))
