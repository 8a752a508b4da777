"""Whether a checkpoint, and what is written of it, reads texts as the tokenizer that it comes with does.

A wrong tokenizer shows in no loss and in no parity of vectors: both sides get the same wrong tokens. So token ids are
compared with those that transformers makes from the checkpoint's own files, at every save and at every export.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer
from transformers import AutoTokenizer
from transformers import __version__ as transformers_version

from ..encode.rules import TextRules
from ..encode.segmenter import load_segmenter
from ..encode.tokenize import TextTokenizer
from ..errors import CheckpointError
from .checkpoint import Checkpoint
from .sentences import first_difference, sentences

_ROLES = ("query", "document")
_NO_LIMIT = 1 << 20  # tokens of a text
_PARTS = {"ids": "the token ids", "attention": "the masks", "keep": "the kept rows"}
_REMEDY = "use another format, or report this with the name of the checkpoint"


class ReadsTexts(Protocol):
    """What reads texts: a checkpoint, or a bundle with its tokenizer."""

    @property
    def tokenizer(self) -> Tokenizer: ...  # noqa: D102
    @property
    def segmenter(self) -> str | None: ...  # noqa: D102
    @property
    def query(self) -> TextRules: ...  # noqa: D102
    @property
    def document(self) -> TextRules: ...  # noqa: D102


@dataclasses.dataclass(frozen=True)
class TextReader:
    """A tokenizer with its rules, as `check_copy` takes it.

    Attributes:
        tokenizer: adds start and end tokens.
        segmenter: name of the word segmenter, or None.
        query: rules for queries.
        document: rules for documents.
    """

    tokenizer: Tokenizer
    segmenter: str | None
    query: TextRules
    document: TextRules


def check_source(checkpoint: Checkpoint) -> None:
    """Compare the token ids of a checkpoint with those of transformers' tokenizer, made from the same files.

    A checkpoint that was not read from files has nothing to be compared with, and passes.

    Args:
        checkpoint: the checkpoint.

    Raises:
        CheckpointError: the ids of a sentence, or of a token that the rules name, differ. The message has the first.
    """
    if not checkpoint.tokenizer_files:
        return
    source = _source_tokenizer(checkpoint)
    rules = (checkpoint.query, checkpoint.document)
    for prefix, strip in {(one.prefix, one.strip) for one in rules}:
        texts = [prefix + (text.strip() if strip else text) for text in sentences()]
        given = [text.lower() for text in texts] if checkpoint.lower_case else texts
        theirs = [source(text, verbose=False)["input_ids"] for text in given]
        ours = [read.ids for read in _reader(checkpoint, TextRules(prefix, None, _NO_LIMIT, strip=strip))(sentences())]
        _compare(checkpoint, texts, ours, theirs)
    named = [name for one in rules for name in (one.marker, one.expansion and one.expansion.token, *one.skiplist)]
    tokens = [name for name in dict.fromkeys(named) if name]
    ours = [[checkpoint.tokenizer.token_to_id(token)] for token in tokens]
    theirs = [[source.convert_tokens_to_ids(token)] for token in tokens]
    _compare(checkpoint, tokens, ours, theirs)


def _compare(checkpoint: Checkpoint, texts: list[str], ours: list[Any], theirs: list[Any]) -> None:
    difference = first_difference(texts, ours, theirs, "tansaku", f"transformers {transformers_version}")
    if difference is not None:
        raise CheckpointError(
            f"{checkpoint.name}: tansaku does not read texts as the checkpoint's own tokenizer does: {difference}; "
            "install another version of transformers, or save the checkpoint with a fast tokenizer (tokenizer.json)"
        )


def check_copy(checkpoint: Checkpoint, copy: ReadsTexts, where: Path) -> int:
    """Compare token ids, masks, kept rows and rules of a checkpoint with those of what was written of it.

    Args:
        checkpoint: the checkpoint.
        copy: what was read back.
        where: the file or folder that it was read from, for the error.

    Returns:
        Number of sentences that were compared, each as a query and as a document.

    Raises:
        CheckpointError: something differs. The message names the first difference.
    """
    for role in _ROLES:
        expected, actual = getattr(checkpoint, role), getattr(copy, role)
        if actual != expected:
            changed = [
                f"{field.name} is {getattr(actual, field.name)!r}, not {getattr(expected, field.name)!r}"
                for field in dataclasses.fields(TextRules)
                if getattr(actual, field.name) != getattr(expected, field.name)
            ]
            raise CheckpointError(f"{where}: the rules for {role} texts are not kept: {changed[0]}; {_REMEDY}")
        ours, theirs = (_reader(reader, expected)(sentences()) for reader in (checkpoint, copy))
        for part, called in _PARTS.items():
            left, right = ([getattr(text, part).tolist() for text in texts] for texts in (ours, theirs))
            difference = first_difference(sentences(), left, right, "the model", "the copy")
            if difference is not None:
                raise CheckpointError(f"{where}: {called} of {role} texts are not kept: {difference}; {_REMEDY}")
    return len(sentences())


def _reader(reader: ReadsTexts, rules: TextRules) -> TextTokenizer:
    return TextTokenizer(reader.tokenizer, rules, load_segmenter(reader.segmenter, reader.tokenizer))


def _source_tokenizer(checkpoint: Checkpoint) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in checkpoint.tokenizer_files.items():
            Path(folder, name).write_bytes(content)
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
