"""Checkpoints with a modules.json: PyLate, sentence-transformers up to 5, and its MultiVectorEncoder from 6 on.

The two differ in where the settings lie and how a marker comes in: PyLate inserts a token, MultiVectorEncoder
writes a prompt before the text.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

from ...encode.rules import Expansion, ExpansionRule, TextRules, checked
from ...errors import CheckpointError
from ..checkpoint import Checkpoint
from .backbone import load_backbone, positions
from .dense import load_projection
from .files import MODULES_FILE, read_json, setting, texts_setting
from .queries import QueryExpansion, query_rules
from .tokenizer import LoadedTokenizer, load_tokenizer

_SETTINGS_FILE = "config_sentence_transformers.json"
_MASK_MODULE = "MultiVectorMask"


def load_modules(folder: Path, name: str, query_expansion: QueryExpansion | None) -> Checkpoint:
    """Read the checkpoint in ``folder``; its own query expansion by default.

    Settings that are missing have the defaults of the library that wrote the format.
    """
    modules = _read_modules(folder)
    settings = read_json(folder / _SETTINGS_FILE)
    native = settings.get("model_type") == "MultiVectorEncoder" or _MASK_MODULE in modules
    transformer = folder / modules["Transformer"][0]
    backbone = load_backbone(transformer)
    tokenizer = load_tokenizer(transformer)
    _check_case(transformer, tokenizer)
    projection = load_projection(folder, modules.get("Dense", []), backbone.config.hidden_size, native)
    longest = positions(backbone.config)
    if native:
        if "Normalize" not in modules:
            raise CheckpointError(f"{folder / MODULES_FILE}: no Normalize; tansaku's MaxSim is over cosines only")
        masking = read_json(folder / modules[_MASK_MODULE][0] / "config.json") if _MASK_MODULE in modules else {}
        query, document = _native_rules(folder, settings, transformer, masking, tokenizer, longest)
    else:
        query, document = _pylate_rules(folder, settings, tokenizer)
    return Checkpoint(
        name=name,
        backbone=backbone,
        projection=projection,
        tokenizer=tokenizer.tokenizer,
        segmenter=tokenizer.segmenter,
        query=query_rules(query_expansion, query, tokenizer.mask, longest, folder),
        document=document,
        origin={"format": "MultiVectorEncoder" if native else "pylate"},
    )


def _read_modules(folder: Path) -> dict[str, list[str]]:
    """Class name → sub-folders, in their order."""
    path = folder / MODULES_FILE
    known = ("Transformer", "Dense", _MASK_MODULE, "Normalize")
    found: dict[str, list[str]] = {}
    try:
        for module in json.loads(path.read_text(encoding="utf-8")):
            if not isinstance(module["path"], str):
                raise TypeError(f"path {module['path']!r}")
            kind = module["type"].rpartition(".")[2]
            if kind not in known:
                raise CheckpointError(
                    f"{path}: module {module['type']!r} is not one of {', '.join(known)}; a model "
                    "with pooling gives one vector per text and is no ColBERT checkpoint"
                )
            found.setdefault(kind, []).append(module["path"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error!r})") from error
    if len(found.get("Transformer", [])) != 1 or "Dense" not in found:
        raise CheckpointError(f"{path}: names {', '.join(found)}; a ColBERT checkpoint has one Transformer and a Dense")
    return found


def _check_case(folder: Path, tokenizer: LoadedTokenizer) -> None:
    path = folder / "sentence_bert_config.json"
    if not setting(read_json(path), "do_lower_case", bool, False, path):
        return
    if tokenizer.first_tokens("A") != tokenizer.first_tokens("a"):
        raise CheckpointError(f"{path}: do_lower_case is set, but the tokenizer keeps the case; set it there instead")


def _pylate_rules(folder: Path, settings: dict[str, Any], tokenizer: LoadedTokenizer) -> tuple[TextRules, TextRules]:
    path = folder / _SETTINGS_FILE
    query_length = setting(settings, "query_length", int, 32, path)
    attend = setting(settings, "attend_to_expansion_tokens", bool, False, path)
    expansion = None
    if setting(settings, "do_query_expansion", bool, True, path):
        if tokenizer.mask is None:
            raise CheckpointError(f"{folder}: do_query_expansion is set, but the tokenizer has no mask token")
        expansion = Expansion(tokenizer.mask, "fixed", query_length, attend)
    prompt = _prompt(settings, setting(settings, "default_prompt_name", str, None, path), path)
    words = texts_setting(settings, "skiplist_words", list(string.punctuation), path)
    # A word that the vocabulary lacks stands for the unknown token, which is then skipped too, as in PyLate.
    skiplist = [word if tokenizer.has(word) else tokenizer.unknown for word in words]
    query = TextRules(
        prefix=prompt,
        marker=_inserted(settings, "query_prefix", "[Q] ", tokenizer, path),
        max_length=query_length,
        expansion=expansion,
        strip=True,
    )
    document = TextRules(
        prefix=prompt,
        marker=_inserted(settings, "document_prefix", "[D] ", tokenizer, path),
        max_length=setting(settings, "document_length", int, 180, path),
        skiplist=tuple(dict.fromkeys(word for word in skiplist if word is not None)),
        strip=True,
    )
    return query, document


def _inserted(settings: dict[str, Any], name: str, default: str, tokenizer: LoadedTokenizer, path: Path) -> str | None:
    marker = setting(settings, name, str, default, path)
    if marker and not tokenizer.has(marker):
        raise CheckpointError(f"{path}: {name} {marker!r} is not in the tokenizer's vocabulary")
    return marker or None


def _native_rules(
    folder: Path,
    settings: dict[str, Any],
    transformer: Path,
    masking: dict[str, Any],
    tokenizer: LoadedTokenizer,
    longest: int,
) -> tuple[TextRules, TextRules]:
    path = folder / _SETTINGS_FILE
    lengths_path = transformer / "sentence_bert_config.json"
    lengths = read_json(lengths_path)
    longest = min(longest, tokenizer.max_length, setting(lengths, "max_seq_length", int, longest, lengths_path))
    prompts = setting(settings, "prompts", dict, {}, path)
    default = setting(settings, "default_prompt_name", str, None, path)
    document_prompt = next((name for name in ("document", "passage", "corpus") if name in prompts), default)
    query_length = setting(lengths, "query_length", int, longest, lengths_path)
    expansion = _native_expansion(lengths.get("query_expansion"), tokenizer, lengths_path)
    if expansion:
        query_length = expansion.length if expansion.rule == "fixed" else max(query_length, expansion.length)
    if masking.get("keep_only_token_ids"):
        raise CheckpointError(f"{folder}: {_MASK_MODULE} has keep_only_token_ids, which tansaku does not know")
    words = texts_setting(masking, "skiplist_words", [], folder / _MASK_MODULE)
    skiplist = tuple(dict.fromkeys(word for word in words if tokenizer.has(word)))
    tasks = texts_setting(masking, "skiplist_tasks", ["document"], folder / _MASK_MODULE)
    query = TextRules(
        prefix=_prompt(settings, "query" if "query" in prompts else default, path),
        marker=None,
        max_length=query_length,
        skiplist=skiplist if "query" in tasks else (),
        expansion=expansion,
    )
    document = TextRules(
        prefix=_prompt(settings, document_prompt, path),
        marker=None,
        max_length=setting(lengths, "document_length", int, longest, lengths_path),
        skiplist=skiplist if "document" in tasks else (),
    )
    return query, document


def _native_expansion(content: Any, tokenizer: LoadedTokenizer, path: Path) -> Expansion | None:
    if content is None:
        return None
    rules: dict[str, ExpansionRule] = {"fixed": "fixed", "min": "minimum"}
    try:
        token = content.get("token") or tokenizer.mask
        if token is None or not tokenizer.has(token):
            raise CheckpointError(f"{path}: query_expansion's token {token!r} is not in the tokenizer's vocabulary")
        length = checked({"length": content["length"]}, int)["length"]
        attend = checked({"attend": content.get("attend") or False}, bool)["attend"]
        return Expansion(token, rules[content["strategy"]], length, attend)
    except (KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path}: query_expansion {content!r} cannot be read ({error!r})") from error


def _prompt(settings: dict[str, Any], name: Any, path: Path) -> str:
    prompt = setting(settings, "prompts", dict, {}, path).get(name) or ""
    if not isinstance(prompt, str):
        raise CheckpointError(f"{path}: prompt {name!r} is {prompt!r}; expected a text")
    return prompt
