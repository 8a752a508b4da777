"""Models on disk in the formats that others read: Stanford ColBERT's and PyLate's."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from ...onnx_export.convert.checkpoint import Checkpoint
from ...onnx_export.errors import InputError
from ...onnx_export.files import atomic_folder
from ..config import Format

# What the special tokens are called in BERT's vocabularies and in XLM-R's.
_SPECIAL = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}


def save_model(checkpoint: Checkpoint, folder: Path, form: Format, facts: dict[str, Any] | None = None) -> None:
    """Write a model to a folder, which takes the place of one that is there.

    Args:
        checkpoint: the model.
        folder: the folder to write; folders above it are made.
        form: the format, "stanford" or "pylate"; `tansaku export` reads both.
        facts: facts about the training, for the format's own record of them.

    Raises:
        InputError: the model has rules for texts that the format cannot express.
        OSError: the folder cannot be written; an earlier one stays as it was.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as making:
        (_stanford if form == "stanford" else _pylate)(checkpoint, making, facts or {})


def _stanford(checkpoint: Checkpoint, folder: Path, facts: dict[str, Any]) -> None:
    query, document = checkpoint.query, checkpoint.document
    if query.marker is None or document.marker is None or query.prefix or document.prefix or query.skiplist:
        raise InputError(
            f"{checkpoint.name}: Stanford's format needs markers and has no prefixes and no query skiplist"
        )
    if checkpoint.segmenter is not None:
        raise InputError(f"{checkpoint.name}: its words are cut by {checkpoint.segmenter}; save it in PyLate's format")
    state = {f"bert.{name}": tensor for name, tensor in _tensors(checkpoint.backbone).items()}
    save_file(state | {"linear.weight": _linear(checkpoint)}, folder / "model.safetensors", {"format": "pt"})
    config = copy.deepcopy(checkpoint.backbone.config)
    config.architectures = ["HF_ColBERT"]
    config.save_pretrained(folder)
    _save_tokenizer(checkpoint, folder)
    metadata = {
        **facts,
        "query_token_id": query.marker,
        "doc_token_id": document.marker,
        "query_maxlen": query.expansion.length if query.expansion else query.max_length,
        "doc_maxlen": document.max_length,
        "dim": checkpoint.dim,
        "similarity": "cosine",
        "attend_to_mask_tokens": bool(query.expansion and query.expansion.attend),
        "mask_punctuation": bool(document.skiplist),
    }
    _write(folder / "artifact.metadata", metadata)


def _pylate(checkpoint: Checkpoint, folder: Path, facts: dict[str, Any]) -> None:
    query, document = checkpoint.query, checkpoint.document
    if query.prefix != document.prefix or query.skiplist:
        raise InputError(
            f"{checkpoint.name}: PyLate's format has one prefix for queries and documents, and no query skiplist"
        )
    checkpoint.backbone.save_pretrained(folder)
    _save_tokenizer(checkpoint, folder)
    weight = _linear(checkpoint)
    (folder / "1_Dense").mkdir()
    save_file({"linear.weight": weight}, folder / "1_Dense" / "model.safetensors", {"format": "pt"})
    dense = {
        "in_features": weight.shape[1],
        "out_features": weight.shape[0],
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
        "use_residual": False,
    }
    _write(folder / "1_Dense" / "config.json", dense)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2), encoding="utf-8")
    longest = max(query.max_length, document.max_length)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": longest, "do_lower_case": False})
    settings = {
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        "query_prefix": query.marker or "",
        "document_prefix": document.marker or "",
        "query_length": query.expansion.length if query.expansion else query.max_length,
        "document_length": document.max_length,
        "attend_to_expansion_tokens": bool(query.expansion and query.expansion.attend),
        "skiplist_words": list(document.skiplist),
        "do_query_expansion": query.expansion is not None,
        "training": facts,
    }
    _write(folder / "config_sentence_transformers.json", settings)


def _linear(checkpoint: Checkpoint) -> torch.Tensor:
    """The projection's matrix, the only part of it that both formats can hold."""
    linears = [module for module in checkpoint.projection.modules() if isinstance(module, torch.nn.Linear)]
    if len(linears) != 1 or linears[0].bias is not None:
        raise InputError(f"{checkpoint.name}: the projection is not a single matrix, which both formats need")
    return linears[0].weight.detach().float().cpu().contiguous()


def _tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().float().cpu().contiguous() for name, tensor in module.state_dict().items()}


def _save_tokenizer(checkpoint: Checkpoint, folder: Path) -> None:
    known = {name: [token for token in tokens if checkpoint.tokenizer.token_to_id(token) is not None]
             for name, tokens in _SPECIAL.items()}  # fmt: skip
    special = {name: tokens[0] for name, tokens in known.items() if tokens}
    PreTrainedTokenizerFast(tokenizer_object=checkpoint.tokenizer, **special).save_pretrained(folder)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
