"""Checkpoints with a modules.json: PyLate's, and those of sentence-transformers' MultiVectorEncoder (from version 6).

The two differ in where the settings are and how a marker is added: PyLate inserts a token, MultiVectorEncoder writes a
prompt before the text.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, RootModel

from ...encode.rules import Expansion, ExpansionRule, TextRules
from ...errors import CheckpointError
from ..checkpoint import Checkpoint
from .backbone import load_backbone, positions
from .dense import load_projection
from .files import MODULES_FILE, Settings, read_settings
from .own_rules import read_own_rules
from .queries import QueryExpansion, query_rules
from .tokenizer import LoadedTokenizer, load_tokenizer

SETTINGS_FILE = "config_sentence_transformers.json"
TRANSFORMER_FILE = "sentence_bert_config.json"
_MASK_MODULE = "MultiVectorMask"
_MODULES = ("Transformer", "Dense", _MASK_MODULE, "Normalize")


class _Module(Settings):
    path: str
    type: str


class _Modules(RootModel[list[_Module]]):
    pass


class _Prompts(Settings):
    """config_sentence_transformers.json of both libraries."""

    model_type: Any = None
    prompts: dict[str, str | None] = Field(default_factory=dict)
    default_prompt_name: str | None = None

    def prompt_of(self, *names: str) -> str:
        """The prompt of the first of these names that there is, or else the default one."""
        name = next((name for name in names if name in self.prompts), self.default_prompt_name)
        return (self.prompts.get(name) if name is not None else None) or ""


class _PyLateConfig(_Prompts):
    """config_sentence_transformers.json of PyLate, with its defaults."""

    query_prefix: str = "[Q] "
    document_prefix: str = "[D] "
    query_length: PositiveInt = 32
    document_length: PositiveInt = 180
    do_query_expansion: bool = True
    attend_to_expansion_tokens: bool = False
    skiplist_words: list[str] = Field(default_factory=lambda: list(string.punctuation))


class _NativeExpansion(Settings):
    strategy: Literal["fixed", "min"]
    length: PositiveInt
    token: str = ""
    attend: bool = False


class _TransformerConfig(Settings):
    """sentence_bert_config.json of both libraries."""

    do_lower_case: bool = False


class _NativeTransformerConfig(_TransformerConfig):
    """sentence_bert_config.json of a MultiVectorEncoder."""

    max_seq_length: PositiveInt | None = None
    query_length: PositiveInt | None = None
    document_length: PositiveInt | None = None
    query_expansion: _NativeExpansion | None = None


class _MaskConfig(Settings):
    """config.json of a MultiVectorEncoder's mask module."""

    skiplist_words: list[str] = Field(default_factory=list)
    skiplist_tasks: list[str] = Field(default_factory=lambda: ["document"])
    keep_only_token_ids: Any = None


def load_modules(folder: Path, name: str, query_expansion: QueryExpansion | None) -> Checkpoint:
    """Read a checkpoint that has a modules.json. Missing settings have the defaults of the library that wrote it.

    Args:
        folder: where it is.
        name: the model's name.
        query_expansion: which mask tokens queries get; None means the checkpoint's own.

    Raises:
        CheckpointError: a file is missing or wrong, or the model is of a kind that tansaku does not support.
        MissingExtraError: the tokenizer needs the extra ``japanese``.
    """
    modules = _read_modules(folder)
    model_type = read_settings(folder / SETTINGS_FILE, _Prompts).model_type
    native = model_type == "MultiVectorEncoder" or _MASK_MODULE in modules
    transformer = folder / modules["Transformer"][0]
    backbone = load_backbone(transformer)
    tokenizer = _in_case(transformer, load_tokenizer(transformer))
    projection = load_projection(folder, modules.get("Dense", []), backbone.config.hidden_size, native)
    longest = positions(backbone.config)
    if native:
        if "Normalize" not in modules:
            raise CheckpointError(
                f"{folder / MODULES_FILE}: no Normalize module; tansaku supports MaxSim of cosines only"
            )
        mask_folder = folder / modules[_MASK_MODULE][0] if _MASK_MODULE in modules else None
        query, document = _native_rules(folder, transformer, mask_folder, tokenizer, longest)
    else:
        query, document = read_own_rules(folder / SETTINGS_FILE) or _pylate_rules(folder, tokenizer)
    return Checkpoint(
        name=name,
        backbone=backbone,
        projection=projection,
        tokenizer=tokenizer.tokenizer,
        segmenter=tokenizer.segmenter,
        query=query_rules(query_expansion, query, tokenizer.mask, longest, folder),
        document=document,
        origin={"format": "MultiVectorEncoder" if native else "pylate"},
        lower_case=tokenizer.lower_case,
        tokenizer_files=tokenizer.files,
    )


def _read_modules(folder: Path) -> dict[str, list[str]]:
    """Class name → sub-folders, in their order."""
    path = folder / MODULES_FILE
    found: dict[str, list[str]] = {}
    for module in read_settings(path, _Modules).root:
        kind = module.type.rpartition(".")[2]
        if kind not in _MODULES:
            raise CheckpointError(
                f"{path}: unknown module {module.type!r}; tansaku supports {', '.join(_MODULES)}. A model with pooling "
                "gives one vector per text and is not a ColBERT checkpoint"
            )
        found.setdefault(kind, []).append(module.path)
    # PyLate draws a Dense at random where there is none; for a MultiVectorEncoder it is one possible module of several.
    if len(found.get("Transformer", [])) != 1 or not {"Dense", _MASK_MODULE} & found.keys():
        raise CheckpointError(
            f"{path}: lists {', '.join(found) or 'nothing'}; a ColBERT checkpoint has one Transformer and a Dense or a "
            f"{_MASK_MODULE}"
        )
    return found


def _in_case(folder: Path, tokenizer: LoadedTokenizer) -> LoadedTokenizer:
    path = folder / TRANSFORMER_FILE
    if not read_settings(path, _TransformerConfig).do_lower_case:
        return tokenizer
    if tokenizer.segmenter is not None:
        raise CheckpointError(
            f"{path}: do_lower_case is set beside {tokenizer.segmenter}, which tansaku does not support; switch it off"
        )
    return tokenizer.in_lower_case()


def _pylate_rules(folder: Path, tokenizer: LoadedTokenizer) -> tuple[TextRules, TextRules]:
    path = folder / SETTINGS_FILE
    config = read_settings(path, _PyLateConfig)
    expansion = None
    if config.do_query_expansion:
        if tokenizer.mask is None:
            raise CheckpointError(
                f"{path}: do_query_expansion is set, but the tokenizer has no mask token; switch it off"
            )
        expansion = Expansion(tokenizer.mask, "fixed", config.query_length, config.attend_to_expansion_tokens)
    # A word that the vocabulary lacks stands for the unknown token, which is then skipped too, as in PyLate.
    skiplist = [word if tokenizer.has(word) else tokenizer.unknown for word in config.skiplist_words]
    query = TextRules(
        prefix=config.prompt_of("query"),
        marker=_inserted("query_prefix", config.query_prefix, tokenizer, path),
        max_length=config.query_length,
        expansion=expansion,
        strip=True,
    )
    document = TextRules(
        prefix=config.prompt_of("document", "passage", "corpus"),
        marker=_inserted("document_prefix", config.document_prefix, tokenizer, path),
        max_length=config.document_length,
        skiplist=tuple(dict.fromkeys(word for word in skiplist if word is not None)),
        strip=True,
    )
    return query, document


def _inserted(name: str, marker: str, tokenizer: LoadedTokenizer, path: Path) -> str | None:
    if marker and not tokenizer.has(marker):
        raise CheckpointError(f'{path}: {name} {marker!r} is not in the tokenizer\'s vocabulary; add it, or use ""')
    return marker or None


def _native_rules(
    folder: Path, transformer: Path, mask_folder: Path | None, tokenizer: LoadedTokenizer, longest: int
) -> tuple[TextRules, TextRules]:
    settings = read_settings(folder / SETTINGS_FILE, _Prompts)
    lengths = read_settings(transformer / TRANSFORMER_FILE, _NativeTransformerConfig)
    masking = _MaskConfig() if mask_folder is None else read_settings(mask_folder / "config.json", _MaskConfig)
    if masking.keep_only_token_ids:
        raise CheckpointError(f"{folder}: {_MASK_MODULE} has keep_only_token_ids, which tansaku does not support")
    longest = min(longest, tokenizer.max_length, lengths.max_seq_length or longest)
    query_length = lengths.query_length or longest
    expansion = _native_expansion(lengths.query_expansion, tokenizer, transformer / TRANSFORMER_FILE)
    if expansion:
        query_length = expansion.length if expansion.rule == "fixed" else max(query_length, expansion.length)
    skiplist = tuple(dict.fromkeys(word for word in masking.skiplist_words if tokenizer.has(word)))
    query = TextRules(
        prefix=settings.prompt_of("query"),
        marker=None,
        max_length=query_length,
        skiplist=skiplist if "query" in masking.skiplist_tasks else (),
        expansion=expansion,
    )
    document = TextRules(
        prefix=settings.prompt_of("document", "passage", "corpus"),
        marker=None,
        max_length=lengths.document_length or longest,
        skiplist=skiplist if "document" in masking.skiplist_tasks else (),
    )
    return query, document


def _native_expansion(config: _NativeExpansion | None, tokenizer: LoadedTokenizer, path: Path) -> Expansion | None:
    if config is None:
        return None
    token = config.token or tokenizer.mask
    if token is None or not tokenizer.has(token):
        raise CheckpointError(f"{path}: query_expansion's token {token!r} is not in the tokenizer's vocabulary")
    rules: dict[str, ExpansionRule] = {"fixed": "fixed", "min": "minimum"}
    return Expansion(token, rules[config.strategy], config.length, config.attend)
