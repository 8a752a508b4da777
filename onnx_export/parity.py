"""How far a graph's vectors are from the checkpoint's, over padded batches of mixed lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from tokenizers import Tokenizer

# Short, long and mixed-script, so that one batch holds much padding.
_TEXTS = (
    "探索",
    "梅雨がないのはどこですか。",
    "ＣｏｌＢＥＲＴは、文書をトークンごとのベクトルで表す。 Late interaction keeps one vector per token.",
    "京都市は、日本の京都府の南部に位置する市で、同府の府庁所在地である。" * 4,
    "データベースのインデックスを再構築するには、次の手順を実行します。①設定を開く ②「再構築」を選ぶ。" * 8,
    "雪舟（せっしゅう、1420年 - 1506年）は、15世紀後半室町時代に活躍した水墨画家・禅僧で、画聖とも称えられる。" * 12,
)


def measure_parity(graph: Path, module: torch.nn.Module, tokenizer: Tokenizer, max_length: int) -> dict[str, float]:
    """Compare token vectors of ``graph`` with those of ``module`` on one padded batch.

    Returns the largest absolute difference, and the mean and smallest cosine over all tokens that are not padding.
    """
    encodings = [encoding.ids[:max_length] for encoding in tokenizer.encode_batch(list(_TEXTS))]
    length = max(map(len, encodings))
    ids = np.zeros((len(encodings), length), np.int64)
    mask = np.zeros((len(encodings), length), np.int64)
    for row, token_ids in enumerate(encodings):
        ids[row, : len(token_ids)] = token_ids
        mask[row, : len(token_ids)] = 1
    with torch.inference_mode():
        expected = module(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()[mask.astype(bool)]
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
    actual = np.asarray(output)[mask.astype(bool)]
    cosines = (expected * actual).sum(axis=1, dtype=np.float64)
    return {
        "tokens": len(cosines),
        "max_abs_difference": round(float(np.abs(expected - actual).max()), 7),
        "mean_cosine": round(float(cosines.mean()), 6),
        "min_cosine": round(float(cosines.min()), 6),
    }
