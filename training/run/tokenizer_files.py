"""The tokenizer and the config.json of a saved model: those that were loaded, readable by transformers 4 and 5."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from ...onnx_export.convert.checkpoint import Checkpoint
from ...onnx_export.errors import InputError

# What the special tokens are called in BERT's vocabularies and in XLM-R's.
_SPECIAL = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}
_CONFIG_FILE = "config.json"
_SETTINGS_FILE = "tokenizer_config.json"


def save_tokenizer(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the files of a checkpoint's tokenizer: those that it was loaded from, if it was.

    Args:
        checkpoint: the checkpoint.
        folder: where they go.

    Raises:
        InputError: the checkpoint has a word segmenter, but no files that name it.
    """
    files = {name: content for name, content in checkpoint.tokenizer_files.items() if name != _CONFIG_FILE}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    if not files:
        if checkpoint.segmenter is not None:
            raise InputError(
                f"{checkpoint.name}: its words are cut by {checkpoint.segmenter}, and the tokenizer was not read from "
                "files that say so; load it with load_checkpoint"
            )
        known = {name: [token for token in tokens if checkpoint.tokenizer.token_to_id(token) is not None]
                 for name, tokens in _SPECIAL.items()}  # fmt: skip
        special = {name: tokens[0] for name, tokens in known.items() if tokens}
        PreTrainedTokenizerFast(tokenizer_object=checkpoint.tokenizer, **special).save_pretrained(folder)
    _for_transformers_4(folder / _SETTINGS_FILE)


def name_padding(checkpoint: Checkpoint, folder: Path) -> None:
    """Give a written tokenizer a padding token of its own.

    PyLate pads with the mask token, and names it so in its files. colbert-ai drops the vectors of padding, which would
    then be those of the masks.

    Args:
        checkpoint: the checkpoint.
        folder: where its tokenizer has been written.
    """
    mask = checkpoint.query.expansion and checkpoint.query.expansion.token
    known = [token for token in _SPECIAL["pad_token"] if checkpoint.tokenizer.token_to_id(token) is not None]
    for name in (_SETTINGS_FILE, "special_tokens_map.json"):
        path = folder / name
        content: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        named = content.get("pad_token")
        if known and mask is not None and mask in (named, named.get("content") if isinstance(named, dict) else None):
            write_json(path, {**content, "pad_token": known[0]})


def save_config(checkpoint: Checkpoint, folder: Path, architecture: str) -> None:
    """Write config.json: the one that was loaded, if one was, with the architecture changed.

    Args:
        checkpoint: the checkpoint.
        folder: where it goes.
        architecture: name of the class that other libraries find in the weights.
    """
    checkpoint.backbone.config.save_pretrained(folder)
    path = folder / _CONFIG_FILE
    written = json.loads(path.read_bytes())
    loaded = json.loads(checkpoint.tokenizer_files.get(_CONFIG_FILE, b"{}"))
    # Keys of transformers 4 are kept beside those of 5, which version 4 does not know (the theta of ModernBERT's RoPE).
    content = {**written, **loaded, "architectures": [architecture], "vocab_size": written["vocab_size"]}
    write_json(path, {name: value for name, value in content.items() if name not in ("torch_dtype", "dtype")})


def _for_transformers_4(path: Path) -> None:
    """Take out of tokenizer_config.json what only transformers 5 knows."""
    content: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    changed = dict(content)
    if content.get("tokenizer_class") == "TokenizersBackend":
        changed["tokenizer_class"] = "PreTrainedTokenizerFast"
    extra = content.get("extra_special_tokens")
    if isinstance(extra, list):
        del changed["extra_special_tokens"]
        changed["additional_special_tokens"] = extra
    if changed != content:
        write_json(path, changed)


def write_json(path: Path, content: Any) -> None:
    """Write a file of JSON as other libraries do, for people to read.

    Args:
        path: the file.
        content: what goes in it.

    Raises:
        OSError: it cannot be written.
    """
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
