"""How far a graph's vectors are from the checkpoint's, on padded batches of mixed lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch

from ..encode.encoder import SLOW_FUSIONS, graph_inputs
from ..encode.segmenter import load_segmenter
from ..encode.tokenize import TextTokenizer, TokenizedText
from .checkpoint import Checkpoint

# Short, long, mixed-script and English.
_PARITY_TEXTS = (
    "探索",
    "What is late interaction?",
    "梅雨がないのはどこですか。",
    "ＣｏｌＢＥＲＴは、文書をトークンごとのベクトルで表す。 Late interaction keeps one vector per token.",
    "京都市は、日本の京都府の南部に位置する市で、同府の府庁所在地である。" * 4,
    "A retrieval model scores a document by its best matching token for each token of the query. " * 6,
    "データベースのインデックスを再構築するには、次の手順を実行します。①設定を開く ②「再構築」を選ぶ。" * 8,
    "雪舟（せっしゅう、1420年 - 1506年）は、15世紀後半室町時代に活躍した水墨画家・禅僧で、画聖とも称えられる。" * 12,
)


def measure_parity(graph: Path, module: torch.nn.Module, checkpoint: Checkpoint) -> dict[str, float]:
    """Compare token vectors of a graph with those of a torch module.

    The texts above run as documents, as queries with their mask tokens, and both together: three padded batches.

    Args:
        graph: an ONNX file.
        module: (input_ids, attention_mask) → unit token vectors, see `token_vectors_module`.
        checkpoint: its tokenizer and rules make the inputs.

    Returns:
        ``vectors``, the number of vectors compared, without those of padding; ``max_abs_difference``, the largest
        difference of one component; ``mean_cosine`` and ``min_cosine`` of the pairs of vectors.
    """
    segmenter = load_segmenter(checkpoint.segmenter, checkpoint.tokenizer)
    documents = TextTokenizer(checkpoint.tokenizer, checkpoint.document, segmenter)(_PARITY_TEXTS)
    queries = TextTokenizer(checkpoint.tokenizer, checkpoint.query, segmenter)(_PARITY_TEXTS)
    session = onnxruntime.InferenceSession(
        str(graph), providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
    )
    pairs = [_both(session, module, batch) for batch in (documents, queries, documents[:4] + queries[4:])]
    expected, actual = (np.concatenate(vectors) for vectors in zip(*pairs, strict=True))
    cosines = (expected * actual).sum(axis=1, dtype=np.float64)
    return {
        "vectors": len(cosines),
        "max_abs_difference": round(float(np.abs(expected - actual).max()), 7),
        "mean_cosine": round(float(cosines.mean()), 6),
        "min_cosine": round(float(cosines.min()), 6),
    }


def _both(
    session: onnxruntime.InferenceSession, module: torch.nn.Module, batch: list[TokenizedText]
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of ``module`` and of ``session``: float32 (tokens without padding, dim) each."""
    inputs = graph_inputs(batch)
    with torch.inference_mode():
        expected = module(*(torch.from_numpy(inputs[name]) for name in ("input_ids", "attention_mask"))).numpy()
    (output,) = session.run(None, inputs)
    actual = np.asarray(output)
    rows = [(row, len(text.ids)) for row, text in enumerate(batch)]
    return (
        np.concatenate([expected[row, :length] for row, length in rows]),
        np.concatenate([actual[row, :length] for row, length in rows]),
    )
