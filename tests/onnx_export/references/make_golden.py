"""Golden vectors: what a reference library makes of the tiny checkpoints of ``tests/support/checkpoints.py``.

Run in that library's own environment (README.md here says how to make it):

    python tests/onnx_export/references/make_golden.py pylate|colbert|sentence-transformers OUT.npz

The file that comes out is described in README.md.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))
import checkpoints  # pyright: ignore[reportMissingImports] (this file runs in environments without tansaku)

PACKAGES = {"pylate": "pylate", "colbert": "colbert-ai", "sentence-transformers": "sentence-transformers"}
# Vectors are rounded to this, so that the files compress.
STEP = 2.0**-18

SHORT = {"document_length": 48}
RICH = [
    {"out": 24, "bias": True, "activation": "torch.nn.modules.activation.Tanh", "residual": True},
    {"out": 16, "bias": True, "activation": "torch.nn.modules.activation.GELU", "residual": False},
]
TWO = [{"out": 24}, {"out": 16}]
FIXED = {"strategy": "fixed", "length": 32}
ABSENT = checkpoints.ABSENT


def stanford(metadata: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return {"maker": "stanford", "options": {"metadata": {"doc_maxlen": 48, **(metadata or {})}, **options}}


def pylate(config: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return {"maker": "pylate", "options": {"config": {**SHORT, **(config or {})}, **options}}


def native(transformer: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    transformer = {**SHORT, **(transformer or {})}
    return {"maker": "multi_vector_encoder", "options": {"transformer": transformer, **options}}


HF_COLBERT: dict[str, Any] = {"architectures": ["HF_ColBERT"]}
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "colbert": {
        "japanese": stanford(),
        "attend": stanford({"attend_to_mask_tokens": True}),
        "bert": stanford(tokenizer="bert"),
        "nested": stanford(nested_metadata=True),
        "bin": stanford(safetensors=False),
        "keep-punctuation": stanford({"mask_punctuation": False}),
        "missing-punctuation": stanford(missing_punctuation=True),
        "missing-punctuation-bert": stanford(missing_punctuation=True, tokenizer="bert"),
        "query-48-document-300": stanford({"query_maxlen": 48, "doc_maxlen": 300}),
        "other-markers": stanford({"query_token_id": "[unused7]", "doc_token_id": "[unused8]"}),
        "absent-keys": stanford(dict.fromkeys(sorted(checkpoints.METADATA.keys() - {"dim"}), ABSENT)),
        "full-length-search": {**stanford(), "encode": {"full_length_search": True}},
    },
    "pylate": {
        "japanese": pylate(),
        "attend": pylate({"attend_to_expansion_tokens": True}),
        "no-expansion": pylate({"do_query_expansion": False}),
        "bert": pylate(tokenizer="bert"),
        "transformers-4": pylate(transformers=4, safetensors=False),
        "skiplist": pylate({"skiplist_words": ["。", "、", "の", "[D] "]}),
        "missing-punctuation": pylate(missing_punctuation=True),
        "two-layers": pylate(dense=TWO),
        "rich-layers": pylate(dense=RICH),
        "no-prefixes": pylate({"query_prefix": "", "document_prefix": ""}),
        "absent-keys": pylate(dict.fromkeys(sorted({*checkpoints.PYLATE, "skiplist_words"} - {"model_type"}), ABSENT)),
        "stanford": stanford(**HF_COLBERT),
        "stanford-attend": stanford({"attend_to_mask_tokens": True}, **HF_COLBERT),
        "stanford-bert": stanford(tokenizer="bert", **HF_COLBERT),
    },
    "sentence-transformers": {
        "fixed": native(query_expansion=FIXED),
        "attend": native(query_expansion={**FIXED, "attend": True}),
        "token": native(query_expansion={**FIXED, "token": "[unused3]"}),
        "min": native(query_expansion={"strategy": "min", "length": 16}),
        "min-attend-capped": native({"query_length": 40}, query_expansion={**FIXED, "strategy": "min", "attend": True}),
        "none": native({"query_length": 24}),
        "bert": native(query_expansion=FIXED, tokenizer="bert"),
        "added-markers": native(query_expansion=FIXED, markers="added"),
        "added-markers-bert": native(query_expansion=FIXED, markers="added", tokenizer="bert"),
        "text-prompts": native(markers="none", prompts={"query": "検索: ", "document": "文書: "}),
        "no-prompts": native(markers="none"),
        "skiplist-both": native(mask={"skiplist_words": ["。", "、", "の"], "skiplist_tasks": ["query", "document"]}),
        "missing-punctuation": native(query_expansion=FIXED, missing_punctuation=True),
        "rich-layers": native(query_expansion=FIXED, dense=RICH),
        "pylate": pylate(),
        "pylate-bert": pylate(tokenizer="bert"),
        "pylate-no-expansion": pylate({"do_query_expansion": False}),
        "stanford": stanford(**HF_COLBERT),
        "stanford-bert": stanford(tokenizer="bert", **HF_COLBERT),
    },
}


def texts() -> list[str]:
    """Texts of all kinds; none holds a special token. Two are from the sample corpus."""
    with checkpoints.CORPUS.open(encoding="utf-8") as lines:
        corpus = {row["_id"]: row["text"] for row in map(json.loads, lines)}
    return [
        "梅雨",
        "日本で梅雨がないのは北海道とどこか。",
        "「入梅」は、何の目安の時期ですか？",
        corpus["jsquad-a10336p0"],
        next(text for text in corpus.values() if "Gustav Mahler" in text),
        "ﾊﾝｶｸｶﾅと全角ＡＢＣ１２３（テスト）！？",
        "5月18日・7,000円（約50%）〜 #1",
        "What is the capital of Japan? It's Tokyo -- isn't it?",
        "猫😀と犬🐕‍🦺、𠮷野家と龘。",
        "AIとDNAの検索search、Googleで。",
        "a^b | c~d `x` \\y",
        "すもももももももものうち　ｶﾞｷﾞ ㍻ ① ½ が café",
        "改行\nとタブ\tの  ある文 ",
        " ".join("1234567890" * 3)[:-2],  # 29 tokens: with [CLS], marker and [SEP] just 32
        "",
    ]


class Encoded(NamedTuple):
    """One text: the token ids of its own positions, which of them give a vector, and these vectors."""

    ids: np.ndarray
    kept: np.ndarray
    vectors: np.ndarray


def trimmed(ids: Any, attention: Any, kept: Any, vectors: Sequence[Any]) -> list[Encoded]:
    """Drop the padding of the batch: positions that are neither attended to nor kept."""
    rows = []
    for row_ids, row_attention, row_kept, row_vectors in zip(ids, attention, kept, vectors, strict=True):
        mask = np.asarray(row_kept, bool)
        own = np.asarray(row_attention, bool) | mask
        rows.append(Encoded(np.asarray(row_ids)[own], mask[own], np.asarray(row_vectors)))
    return rows


Encode = Callable[[str, list[str], dict[str, Any]], dict[str, list[Encoded]]]


def with_pylate(folder: str, batch: list[str], _: dict[str, Any]) -> dict[str, list[Encoded]]:
    from pylate import models

    model = models.ColBERT(folder, device="cpu")
    encoded = {}
    for role in ("query", "document"):
        vectors: Any = model.encode(batch, is_query=role == "query", show_progress_bar=False)
        parts: Any = model.encode(batch, is_query=role == "query", show_progress_bar=False, output_value=None)
        encoded[role] = trimmed(parts["input_ids"], parts["attention_mask"], parts["masks"], vectors)
    return encoded


def with_colbert(folder: str, batch: list[str], how: dict[str, Any]) -> dict[str, list[Encoded]]:
    # Not in the environment of the tests.
    from colbert.infra import ColBERTConfig  # pyright: ignore[reportMissingImports]
    from colbert.modeling.checkpoint import Checkpoint  # pyright: ignore[reportMissingImports]

    model = Checkpoint(folder, colbert_config=ColBERTConfig.load_from_checkpoint(folder), verbose=0)
    if not model.colbert_config.mask_punctuation:
        model.skiplist = {}  # the library itself fails without one

    queries = []
    for part in [[text] for text in batch] if how else [batch]:
        ids, attention = model.query_tokenizer.tensorize(part, **how)
        queries += trimmed(ids, attention, model.mask(ids, skiplist=[]), model.queryFromText(part, **how))
    ids, attention = model.doc_tokenizer.tensorize(batch)
    vectors = model.docFromText(batch, keep_dims=False)
    return {"query": queries, "document": trimmed(ids, attention, model.mask(ids, model.skiplist), vectors)}


def with_sentence_transformers(folder: str, batch: list[str], _: dict[str, Any]) -> dict[str, list[Encoded]]:
    from sentence_transformers import MultiVectorEncoder

    model = MultiVectorEncoder(folder, device="cpu", local_files_only=True)
    encoded = {}
    for role, encode in (("query", model.encode_query), ("document", model.encode_document)):
        vectors: Any = encode(batch, convert_to_numpy=True, show_progress_bar=False)
        features = model.preprocess(batch, prompt=model.prompts.get(role), task=role)
        ids, attention = features["input_ids"].clone(), features["attention_mask"].clone()
        kept = model(features, task=role)["attention_mask"]
        encoded[role] = trimmed(ids, attention, kept, vectors)
    return encoded


ENCODERS: dict[str, Encode] = {
    "pylate": with_pylate,
    "colbert": with_colbert,
    "sentence-transformers": with_sentence_transformers,
}


def versions(reference: str) -> dict[str, str]:
    names = [PACKAGES[reference], "transformers", "tokenizers", "torch", "numpy", "fugashi", "unidic-lite"]
    if reference == "pylate":
        names.append("sentence-transformers")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def main(reference: str, out: str) -> None:
    import torch

    torch.set_num_threads(1)
    batch = texts()
    about = {"versions": versions(reference), "texts": batch, "cases": CASES[reference]}
    arrays: dict[str, Any] = {"about": np.array(json.dumps(about, ensure_ascii=False))}
    for name, case in CASES[reference].items():
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = checkpoints.make(Path(folder) / "checkpoint", case["maker"], case["options"])
            encoded = ENCODERS[reference](str(checkpoint), batch, case.get("encode", {}))
        for role, rows in encoded.items():
            for row in rows:
                if (
                    row.vectors.dtype != np.float32
                    or len(row.ids) != len(row.kept)
                    or row.kept.sum() != len(row.vectors)
                ):
                    raise ValueError(f"{name}, {role}: {row}")
            at = f"{name}/{role}/"
            arrays[at + "lengths"] = np.array([len(row.ids) for row in rows], np.int32)
            arrays[at + "ids"] = np.concatenate([row.ids for row in rows]).astype(np.int32)
            arrays[at + "kept"] = np.concatenate([row.kept for row in rows])
            vectors = np.concatenate([row.vectors for row in rows])
            arrays[at + "vectors"] = (np.round(vectors / STEP) * STEP).astype(np.float32)
    np.savez_compressed(out, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
