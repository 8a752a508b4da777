"""Checkpoint → encoder bundle: trace, fuse, quantize, measure, write. Needs the extra ``export``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from ..encode.bundle import BUNDLE_FILE, Bundle, write_bundle
from ..errors import CheckpointError, InputError, MissingExtraError
from ..files import atomic_folder
from .card import bundle_card

try:
    import onnx

    from .checkpoint import Checkpoint
    from .formats.backbone import positions
    from .parity import measure_parity
    from .quantize import quantize
    from .trace import OPSET, token_vectors_module, trace
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "torch", "export") from error

Precision = Literal["float32", "int8"]

# A float32 graph computes the same sums in another order; an int8 graph is held to its mean cosine.
_MAX_DIFFERENCE_FLOAT32 = 1e-4
_MIN_MEAN_COSINE_INT8 = 0.99
_MAX_WEIGHT_BYTES = 2**31 - 2**26  # of the float32 weights in one protobuf message, with room for the rest


def export_checkpoint(
    checkpoint: Checkpoint,
    folder: str | os.PathLike[str],
    *,
    precision: Precision = "int8",
    card: str | None = None,
    phrase_weight: float = 0.0,
) -> Bundle:
    """Write ``checkpoint`` as an encoder bundle to ``folder``, replacing a bundle that is there.

    Args:
        checkpoint: the model.
        folder: where the bundle goes; written beside it first and moved there when complete.
        precision: "int8" (see `quantize`) or "float32".
        card: the model card, Markdown, written as README.md; by default one that says what the bundle's JSON does.
        phrase_weight: see `Bundle`.

    Raises:
        InputError: ``precision`` is neither, the weight is none, or ``folder`` holds something else than a bundle.
        CheckpointError: the rules allow longer texts than the backbone reads, or the graph's vectors are too far
            from the checkpoint's.
        MissingExtraError: (on import) the extra ``export`` is not installed.
    """
    if precision not in ("float32", "int8"):
        raise InputError(f'precision is {precision!r}; it must be "float32" or "int8"')
    folder = Path(folder).resolve()
    _check_target(folder)
    _check_size(checkpoint)
    _check_lengths(checkpoint)
    bundle = Bundle(
        name=checkpoint.name,
        dim=checkpoint.dim,
        precision=precision,
        segmenter=checkpoint.segmenter,
        phrase_weight=float(phrase_weight),
        opset=OPSET,
        query=checkpoint.query,
        document=checkpoint.document,
        origin=checkpoint.origin,
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as staging:
        graph = trace(checkpoint)
        onnx.save(quantize(graph) if precision == "int8" else graph, staging / bundle.graph)
        checkpoint.tokenizer.save(str(staging / bundle.tokenizer), pretty=False)
        bundle.parity.update(_checked_parity(checkpoint, staging / bundle.graph, precision))
        (staging / "README.md").write_text(bundle_card(bundle) if card is None else card, encoding="utf-8")
        return write_bundle(staging, bundle)


def _check_target(folder: Path) -> None:
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / BUNDLE_FILE).exists()):
        raise InputError(f"{folder}: not empty and not an encoder bundle; it would be replaced: name another folder")


def _check_size(checkpoint: Checkpoint) -> None:
    size = 4 * sum(parameter.numel() for parameter in checkpoint.backbone.parameters())
    if size > _MAX_WEIGHT_BYTES:
        raise CheckpointError(f"{checkpoint.name}: {size / 2**30:.1f} GiB of weights, but an ONNX file holds 2 at most")


def _check_lengths(checkpoint: Checkpoint) -> None:
    longest = max(checkpoint.query.max_length, checkpoint.document.max_length)
    most = positions(checkpoint.backbone.config)
    if longest > most:
        raise CheckpointError(
            f"{checkpoint.name}: texts of {longest} tokens are allowed, but the backbone has {most} positions; "
            "lower max_length"
        )


def _checked_parity(checkpoint: Checkpoint, graph: Path, precision: Precision) -> dict[str, float]:
    parity = measure_parity(graph, token_vectors_module(checkpoint), checkpoint)
    # The comparisons are written so that NaN, which compares false, fails them.
    if precision == "float32" and not parity["max_abs_difference"] <= _MAX_DIFFERENCE_FLOAT32:
        raise CheckpointError(
            f"{checkpoint.name}: the float32 graph is {parity['max_abs_difference']} away from the checkpoint "
            f"(at most {_MAX_DIFFERENCE_FLOAT32} is allowed): this backbone does not export correctly"
        )
    if precision == "int8" and not parity["mean_cosine"] >= _MIN_MEAN_COSINE_INT8:
        raise CheckpointError(
            f"{checkpoint.name}: the int8 graph's mean cosine with the checkpoint is {parity['mean_cosine']} "
            f"(at least {_MIN_MEAN_COSINE_INT8} is needed): export it in float32"
        )
    return parity
