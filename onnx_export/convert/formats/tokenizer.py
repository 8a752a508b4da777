"""A checkpoint's tokenizer as one that runs without transformers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from tokenizers import AddedToken, Tokenizer, models, normalizers, processors
from transformers import AutoTokenizer
from transformers import __version__ as transformers_version

from ...encode.segmenter import MECAB_UNIDIC_LITE, load_segmenter
from ...errors import CheckpointError, MissingExtraError
from ..sentences import first_difference, sentences
from .backbone import ModelConfig
from .files import read_settings

_VOCABULARY_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
)
# What transformers reads a tokenizer from.
_FILES = (
    *_VOCABULARY_FILES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "config.json",
)
# Settings of tokenizer_config.json that every version of transformers puts before those of tokenizer.json.
_NORMALIZER_SETTINGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
_JAPANESE_SETTINGS: dict[str, Any] = {
    "do_lower_case": False,
    "do_word_tokenize": True,
    "do_subword_tokenize": True,
    "word_tokenizer_type": "mecab",
    "subword_tokenizer_type": "wordpiece",
    "mecab_kwargs": {"mecab_dic": "unidic_lite"},
}


class _TokenizerConfig(BaseModel):
    """tokenizer_config.json; `_check_japanese` reads further fields of it."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    auto_map: Any = None
    tokenizer_class: Any = None
    model_max_length: Annotated[float, Field(ge=1)] | None = None  # 1e30 where there is no limit


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer and what the formats need of it.

    Attributes:
        tokenizer: adds start and end tokens, does not pad or cut.
        segmenter: name of the word segmenter that runs first, or None.
        mask: name of the mask token, or None.
        unknown: name of the unknown token, or None.
        max_length: the longest text in tokens by its configuration; a huge number if that gives no limit.
        files: what it was read from, filename → content.
        lower_case: whether it was made to take texts in lower case, which its files do not say.
    """

    tokenizer: Tokenizer
    segmenter: str | None
    mask: str | None
    unknown: str | None
    max_length: int
    files: Mapping[str, bytes]
    lower_case: bool = False

    def has(self, token: str) -> bool:
        """Whether ``token`` is in the vocabulary."""
        return self.tokenizer.token_to_id(token) is not None

    def first_tokens(self, texts: Iterable[str]) -> list[str]:
        """The first token of each text, not counting the start token; texts without a token are left out."""
        segmenter = load_segmenter(self.segmenter, self.tokenizer)
        cut = [segmenter(text) if segmenter else text for text in texts]
        encodings = self.tokenizer.encode_batch(cut, is_pretokenized=segmenter is not None, add_special_tokens=False)
        return [encoding.tokens[0] for encoding in encodings if encoding.tokens]

    def in_lower_case(self) -> LoadedTokenizer:
        """The tokenizer after a step that makes texts lower case, as sentence-transformers adds one."""
        lowered = Tokenizer.from_str(self.tokenizer.to_str())
        normalizer = self.tokenizer.normalizer
        lowered.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([normalizer] if normalizer else [])])
        return dataclasses.replace(self, tokenizer=lowered, lower_case=True)


def load_tokenizer(folder: Path) -> LoadedTokenizer:
    """The tokenizer in ``folder``.

    Raises:
        CheckpointError: it cannot be read, has no form that runs without transformers, or this version of transformers
            reads its tokenizer.json otherwise than it says.
        MissingExtraError: it is a BertJapaneseTokenizer and MeCab is not installed.
    """
    _check_files(folder)
    try:
        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ModuleNotFoundError as error:
        # transformers' own message does not give the name of the module.
        raise MissingExtraError("fugashi with unidic-lite", "japanese") from error
    except Exception as error:  # transformers raises whatever its parts raise
        raise CheckpointError(f"{folder}: transformers cannot load the tokenizer ({error})") from error
    kind = type(loaded).__name__
    if kind == "BertJapaneseTokenizer":
        tokenizer, segmenter = _japanese_wordpiece(loaded, folder), MECAB_UNIDIC_LITE
    elif loaded.is_fast:
        tokenizer, segmenter = Tokenizer.from_str(loaded.backend_tokenizer.to_str()), None
    else:
        raise CheckpointError(
            f"{folder}: {kind} has no form that runs without transformers; save a fast tokenizer (tokenizer.json)"
        )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if segmenter is None:
        _check_reading(folder, tokenizer)
    special = tokenizer.encode("a").special_tokens_mask
    if special[0] != 1 or special[-1] != 1:
        raise CheckpointError(f"{folder}: {kind} adds no start token or no end token; tansaku needs both")
    files = {name: (folder / name).read_bytes() for name in _FILES if (folder / name).is_file()}
    return LoadedTokenizer(
        tokenizer, segmenter, loaded.mask_token, loaded.unk_token, int(loaded.model_max_length), files
    )


def _check_reading(folder: Path, read: Tokenizer) -> None:
    """Refuse what transformers has read otherwise than tokenizer.json says, as some of its versions do in silence."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return
    found, said = (
        [encoding.ids for encoding in tokenizer.encode_batch(list(sentences()))]
        for tokenizer in (read, _said(path, folder / "tokenizer_config.json"))
    )
    if difference := first_difference(sentences(), found, said, "transformers", "the file"):
        raise CheckpointError(
            f"{path}: transformers {transformers_version} does not read this tokenizer as it stands: {difference}; "
            "install another version of transformers, or, if the file is right, set tokenizer_class to "
            '"PreTrainedTokenizerFast" in tokenizer_config.json beside it'
        )


def _said(path: Path, settings: Path) -> Tokenizer:
    """The tokenizer in a tokenizer.json, with what tokenizer_config.json changes in it by design."""
    content = json.loads(path.read_bytes())
    changed = json.loads(settings.read_bytes()) if settings.is_file() else {}
    normalizer = content.get("normalizer")
    if normalizer and normalizer.get("type") == "BertNormalizer":
        normalizer |= {ours: changed[name] for name, ours in _NORMALIZER_SETTINGS.items() if name in changed}
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _japanese_wordpiece(loaded: Any, folder: Path) -> Tokenizer:
    """The part of a BertJapaneseTokenizer that comes after MeCab, as a `tokenizers` file can hold it."""
    _check_japanese({name: getattr(loaded, name) for name in _JAPANESE_SETTINGS}, folder)
    tokenizer = Tokenizer(
        models.WordPiece(dict(loaded.vocab), unk_token=loaded.unk_token, max_input_chars_per_word=100)
    )
    for token_id, token in sorted(loaded.added_tokens_decoder.items()):
        if token.lstrip or token.rstrip or token.single_word:
            raise CheckpointError(
                f"{folder}: added token {token.content!r} takes the space beside it too, which is not supported"
            )
        plain = AddedToken(token.content, special=token.special, normalized=False)
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([plain])
        if tokenizer.token_to_id(token.content) != token_id:
            raise CheckpointError(f"{folder}: added token {token.content!r} has the id {token_id}, which leaves a gap")
    start, end = loaded.cls_token, loaded.sep_token
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} $B:1 {end}:1",
        special_tokens=[(start, loaded.cls_token_id), (end, loaded.sep_token_id)],
    )
    return tokenizer


def _check_files(folder: Path) -> None:
    """Refuse what transformers would load in another way, or would refuse with a misleading message."""
    if not any((folder / name).is_file() for name in _VOCABULARY_FILES):
        raise CheckpointError(
            f"{folder}: no tokenizer here; one of these files is needed: {', '.join(_VOCABULARY_FILES)}"
        )
    path = folder / "tokenizer_config.json"
    config = read_settings(path, _TokenizerConfig)
    if config.auto_map is not None:
        raise CheckpointError(
            f"{path}: this tokenizer has code of its own ({config.auto_map}); tansaku does not run it"
        )
    of_model = read_settings(folder / "config.json", ModelConfig).tokenizer_class
    if "BertJapaneseTokenizer" in (config.tokenizer_class, of_model):
        _check_japanese(config.model_extra or {}, folder)


def _check_japanese(settings: dict[str, Any], folder: Path) -> None:
    for name, known in _JAPANESE_SETTINGS.items():
        found = settings.get(name, known)
        if isinstance(known, dict) and isinstance(found, (dict, type(None))):
            found = known | (found or {})
        if found != known:
            raise CheckpointError(
                f"{folder}: BertJapaneseTokenizer with {name} {found!r}; tansaku supports {known!r} only"
            )
