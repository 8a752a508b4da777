"""Checkpoint → encoder bundle: trace, fuse, quantize, measure parity, write. Needs the extra ``export``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

from ..encode.bundle import BUNDLE_FILE, GRAPH_FILE, TOKENIZER_FILE, Bundle, Precision, check_weight, write_bundle
from ..errors import CheckpointError, InputError, MissingExtraError
from ..files import atomic_folder
from .card import bundle_card

try:
    import onnx
    from tokenizers import Tokenizer

    from .checkpoint import Checkpoint
    from .formats.backbone import positions
    from .parity import measure_parity
    from .quantize import quantize
    from .tokenization import TextReader, check_copy, check_source
    from .trace import OPSET, token_vectors_module, trace
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "torch", "export") from error

# A float32 graph computes the same sums in another order. An int8 graph is judged by its mean cosine.
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
    """Write ``checkpoint`` as an encoder bundle to ``folder``, in place of a bundle that is there.

    Args:
        checkpoint: the model, from `load_checkpoint`.
        folder: where the bundle goes. It is written next to ``folder`` first, and renamed when it is complete.
        precision: "int8" (a quarter of the size, and faster on a CPU) or "float32".
        card: the model card, Markdown, written as README.md; None writes one from the bundle's JSON.
        phrase_weight: weight of the similarity of neighbouring tokens in a score, 0 or more; see `Bundle`.

    Returns:
        The bundle, with the parity of its graph, how far its vectors are from the checkpoint's, and with the number of
        ``sentences`` whose token ids, masks and kept rows were found equal.

    Raises:
        InputError: ``precision`` is unknown, ``phrase_weight`` is negative or not finite, or ``folder`` has something
            else in it than a bundle.
        CheckpointError: the model is larger than an ONNX file can be, its rules allow longer texts than the backbone
            reads, the graph's vectors are too far from the checkpoint's, or one of 1,000 sentences does not get the
            token ids of the checkpoint's own tokenizer in transformers.
        MissingExtraError: (on import) the extra ``export`` is not installed.

    Example:
        >>> from tansaku import export_checkpoint, load_checkpoint
        >>> checkpoint = load_checkpoint("answerdotai/JaColBERTv2.5")  # doctest: +SKIP
        >>> export_checkpoint(checkpoint, "jacolbert", precision="int8").dim  # doctest: +SKIP
        128
    """
    if precision not in get_args(Precision):
        raise InputError(f'unknown precision {precision!r}; use "int8" or "float32"')
    folder = Path(folder).resolve()
    _check_target(folder)
    _check_size(checkpoint)
    _check_lengths(checkpoint)
    phrase_weight = check_weight("phrase_weight", float(phrase_weight))
    check_source(checkpoint)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as staging:
        graph = trace(checkpoint)
        onnx.save(quantize(graph) if precision == "int8" else graph, staging / GRAPH_FILE)
        checkpoint.tokenizer.save(str(staging / TOKENIZER_FILE), pretty=False)
        written = Tokenizer.from_file(str(staging / TOKENIZER_FILE))
        reader = TextReader(written, checkpoint.segmenter, checkpoint.query, checkpoint.document)
        equal = check_copy(checkpoint, reader, folder / TOKENIZER_FILE)
        bundle = Bundle(
            name=checkpoint.name,
            dim=checkpoint.dim,
            precision=precision,
            query=checkpoint.query,
            document=checkpoint.document,
            segmenter=checkpoint.segmenter,
            phrase_weight=phrase_weight,
            opset=OPSET,
            origin=checkpoint.origin,
            parity={**_checked_parity(checkpoint, staging / GRAPH_FILE, precision), "sentences": equal},
        )
        (staging / "README.md").write_text(bundle_card(bundle) if card is None else card, encoding="utf-8")
        return write_bundle(staging, bundle)


def _check_target(folder: Path) -> None:
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / BUNDLE_FILE).exists()):
        raise InputError(f"{folder}: not empty and not an encoder bundle, so it is not replaced; use another folder")


def _check_size(checkpoint: Checkpoint) -> None:
    size = 4 * sum(parameter.numel() for parameter in checkpoint.backbone.parameters())
    if size > _MAX_WEIGHT_BYTES:
        raise CheckpointError(f"{checkpoint.name}: {size / 2**30:.1f} GiB of weights, but an ONNX file has room for 2")


def _check_lengths(checkpoint: Checkpoint) -> None:
    most = positions(checkpoint.backbone.config)
    for role in ("query", "document"):
        longest = getattr(checkpoint, role).max_length
        if longest > most:
            raise CheckpointError(
                f"{checkpoint.name}: a {role} may have {longest} tokens, but the backbone has {most} positions; give "
                f"--{role}-length {most} (in Python {role}_length of load_checkpoint)"
            )


def _checked_parity(checkpoint: Checkpoint, graph: Path, precision: Precision) -> dict[str, float]:
    parity = measure_parity(graph, token_vectors_module(checkpoint), checkpoint)
    # The comparisons are written so that NaN, which compares false, fails them.
    if precision == "float32" and not parity["max_abs_difference"] <= _MAX_DIFFERENCE_FLOAT32:
        raise CheckpointError(
            f"{checkpoint.name}: the float32 graph differs by {parity['max_abs_difference']} from the checkpoint "
            f"(at most {_MAX_DIFFERENCE_FLOAT32} is allowed): this backbone is not exported correctly"
        )
    if precision == "int8" and not parity["mean_cosine"] >= _MIN_MEAN_COSINE_INT8:
        raise CheckpointError(
            f"{checkpoint.name}: the int8 graph's mean cosine with the checkpoint is {parity['mean_cosine']} "
            f"(at least {_MIN_MEAN_COSINE_INT8} is needed): export it in float32"
        )
    return parity
