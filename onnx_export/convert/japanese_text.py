"""The text rules for Japanese: what people do not see, or write in two ways, is made equal before a text is tokenized.

The rules are a normalizer of `tokenizers`, and so a part of a bundle's tokenizer file: a bundle keeps the rules that it
was made with, and the positions of tokens in a text are those in the text as it was given. In this order:

1. Characters that nobody sees are removed: NUL and other controls, Unicode's default-ignorable characters (variation
   selectors, soft hyphens, zero-width spaces and joiners, byte order marks).
2. White space becomes one space. A line break within a sentence becomes nothing where the characters on both sides are
   Japanese, and so do spaces between Japanese characters that come thick and fast, as from OCR and PDF files.
3. Compatibility forms become the plain ones (NFKC): half and full width, ligatures, circled numbers. A base character
   and its combining marks become one character.
4. Iteration marks of kana become the kana that they repeat.
5. Variant characters become the usual form, by the table ``variants_1.tsv``.
"""

from __future__ import annotations

import dataclasses
import functools
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer, normalizers

from ..encode.japanese_patterns import LINE_BREAK, SPACED_OUT, SPACES, UNSEEN
from ..encode.segmenter import MECAB_AFTER_NORMALIZER
from .charsmap import charsmap

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

VERSION = 1
VARIANTS_FILE = Path(__file__).with_name("variants_1.tsv")

# A table of replacements sees a character and its combining marks together, if they have at most five bytes. So
# iteration marks become combining marks for a moment; these two of N'Ko are not to be expected in a Japanese text.
_REPEATED, _REPEATED_VOICED = "\u07f2", "\u07f3"


def japanese_text() -> normalizers.Normalizer:
    r"""The rules as a normalizer of `tokenizers`; it comes before those of a tokenizer.

    Example:
        >>> japanese_text().normalize_str("髙\ufe00橋 國 男\n㈱ﾊﾟｿｺﾝ 学\u3000校 ICカード new model")
        '高橋国男(株)パソコン学校ICカード new model'
    """
    return normalizers.Sequence(
        [
            normalizers.Replace(Regex(UNSEEN), ""),
            normalizers.Replace(Regex(LINE_BREAK), ""),
            normalizers.Replace(Regex(SPACES), " "),
            normalizers.Replace(Regex(SPACED_OUT), ""),
            # Alone, the voicing marks would become a space and a mark by NFKC.
            normalizers.Replace("\u309b", "\u3099"),
            normalizers.Replace("\u309c", "\u309a"),
            normalizers.NFKC(),
            normalizers.Replace(Regex("[\u309d\u30fd]"), _REPEATED),
            normalizers.Replace(Regex("[\u309e\u30fe]"), _REPEATED_VOICED),
            normalizers.Precompiled(_replacements()),
        ]
    )


def with_japanese_text(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint whose texts go through the rules first; the libraries of its format read texts without them.

    Args:
        checkpoint: the checkpoint, which stays as it is.
    """
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer.to_str())
    steps = [japanese_text()] if tokenizer.normalizer is None else [japanese_text(), tokenizer.normalizer]
    tokenizer.normalizer = normalizers.Sequence(steps)
    return dataclasses.replace(
        checkpoint,
        tokenizer=tokenizer,
        segmenter=None if checkpoint.segmenter is None else MECAB_AFTER_NORMALIZER,
        origin={**checkpoint.origin, "text_rules": f"japanese {VERSION}"},
    )


def variants() -> dict[str, str]:
    """Variant character → its usual form."""
    lines = VARIANTS_FILE.read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t")[:2] for line in lines if not line.startswith("#"))


@functools.cache
def _replacements() -> bytes:
    return charsmap({**variants(), **_iteration_marks()})


def _iteration_marks() -> dict[str, str]:
    """ゝ after か or が is か, ゞ is が; in katakana ヽ and ヾ."""
    replacements = {_REPEATED: "\u309d", _REPEATED_VOICED: "\u309e"}  # where there is nothing to repeat
    for code in [*range(0x3041, 0x3097), *range(0x30A1, 0x30FB)]:
        kana = chr(code)
        plain = unicodedata.normalize("NFD", kana)[0]
        voiced = unicodedata.normalize("NFC", f"{plain}\u3099")
        replacements[kana + _REPEATED] = kana + plain
        replacements[kana + _REPEATED_VOICED] = kana + (voiced if len(voiced) == 1 else plain)
    return replacements
