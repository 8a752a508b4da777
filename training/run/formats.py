"""The formats that models are written in: Stanford ColBERT's and PyLate's.

The words of each format say as much as they can, for other libraries. What they cannot say (dynamic query length, a
skiplist of the model's own, …) is in a field `tansaku` beside them, which `load_checkpoint` reads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ...onnx_export.convert.checkpoint import Checkpoint
from ...onnx_export.convert.formats.dense import DenseLayer, dense_layers, dense_settings
from ...onnx_export.convert.formats.files import METADATA_FILE, MODULES_FILE
from ...onnx_export.convert.formats.modules import SETTINGS_FILE, TRANSFORMER_FILE
from ...onnx_export.convert.formats.own_rules import with_own_rules
from ...onnx_export.convert.formats.stanford import PROJECTION, punctuation
from ...onnx_export.convert.formats.tokenizer import load_tokenizer
from ...onnx_export.encode.rules import TextRules
from ...onnx_export.errors import InputError
from ..config import Format
from .tokenizer_files import name_padding, save_config, save_tokenizer, write_json


def _stanford(checkpoint: Checkpoint, folder: Path, facts: dict[str, Any]) -> None:
    query, document = checkpoint.query, checkpoint.document
    if query.marker is None or document.marker is None:
        raise InputError(
            f"{checkpoint.name}: Stanford's format needs a marker for queries and one for documents; use pylate"
        )
    if checkpoint.lower_case:
        raise InputError(
            f"{checkpoint.name}: its texts become lower case before the tokenizer, which Stanford's format cannot say; "
            "use pylate"
        )
    # colbert-ai keeps the transformer under the name that transformers has for its kind.
    prefix = checkpoint.backbone.base_model_prefix
    tensors = {f"{prefix}.{name}": tensor for name, tensor in checkpoint.backbone.state_dict().items()}
    tensors[PROJECTION] = _matrix(checkpoint)
    _save_tensors(tensors, folder)
    save_config(checkpoint, folder, "HF_ColBERT")
    save_tokenizer(checkpoint, folder)
    name_padding(checkpoint, folder)
    settings = {
        "query_token_id": query.marker,
        "doc_token_id": document.marker,
        "query_maxlen": _query_length(query),
        "doc_maxlen": document.max_length,
        "dim": checkpoint.dim,
        "similarity": "cosine",
        "attend_to_mask_tokens": bool(query.expansion and query.expansion.attend),
        "mask_punctuation": set(punctuation(load_tokenizer(folder))) <= set(document.skiplist),
    }
    write_json(folder / METADATA_FILE, {**facts, **with_own_rules(settings, query, document)})


def _pylate(checkpoint: Checkpoint, folder: Path, facts: dict[str, Any]) -> None:
    query, document = checkpoint.query, checkpoint.document
    _save_tensors(checkpoint.backbone.state_dict(), folder)
    save_config(checkpoint, folder, type(checkpoint.backbone).__name__)
    save_tokenizer(checkpoint, folder)
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for number, layer in enumerate(_layers(checkpoint), start=1):
        place = folder / f"{number}_Dense"
        place.mkdir()
        _save_tensors(layer.state_dict(), place)
        write_json(place / "config.json", dense_settings(layer))
        modules.append({"idx": number, "name": str(number), "path": place.name, "type": "pylate.models.Dense.Dense"})
    write_json(folder / MODULES_FILE, modules)
    longest = max(query.max_length, document.max_length)
    write_json(folder / TRANSFORMER_FILE, {"max_seq_length": longest, "do_lower_case": checkpoint.lower_case})
    settings = {
        "prompts": {"query": query.prefix, "document": document.prefix},
        "query_prefix": query.marker or "",
        "document_prefix": document.marker or "",
        "query_length": _query_length(query),
        "document_length": document.max_length,
        "attend_to_expansion_tokens": bool(query.expansion and query.expansion.attend),
        "skiplist_words": list(document.skiplist),
        "do_query_expansion": query.expansion is not None,
    }
    content = {
        "model_type": "ColBERT",
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        **with_own_rules(settings, query, document),
        "training": facts,
    }
    write_json(folder / SETTINGS_FILE, content)


WRITERS: dict[Format, Callable[[Checkpoint, Path, dict[str, Any]], None]] = {"stanford": _stanford, "pylate": _pylate}


def _query_length(rules: TextRules) -> int:
    """The length that a format without dynamic lengths fills queries to."""
    return rules.expansion.length if rules.expansion else rules.max_length


def _layers(checkpoint: Checkpoint) -> list[DenseLayer]:
    layers = dense_layers(checkpoint.projection, checkpoint.backbone.config.hidden_size)
    if layers is None:
        raise InputError(
            f"{checkpoint.name}: the projection is a {type(checkpoint.projection).__name__}, which no format can hold; "
            "use matrices with known activations (`tansaku.onnx_export.convert.formats.dense`)"
        )
    return layers


def _matrix(checkpoint: Checkpoint) -> torch.Tensor:
    layers = _layers(checkpoint)
    faults = {
        f"{len(layers)} layers": len(layers) > 1,
        "a bias": layers[0].linear.bias is not None,
        f"the activation {type(layers[0].activation).__name__}": not isinstance(
            layers[0].activation, torch.nn.Identity
        ),
        "a residual": layers[0].residual is not None,
    }
    found = [name for name, there in faults.items() if there]
    if found:
        raise InputError(
            f"{checkpoint.name}: the projection has {' and '.join(found)}; Stanford's format holds one matrix only: "
            "use pylate"
        )
    return layers[0].linear.weight


def _save_tensors(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    plain = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, folder / "model.safetensors", {"format": "pt"})
