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

import unicodedata
from pathlib import Path

from tokenizers import Regex, normalizers

from .charsmap import charsmap

VERSION = 1
VARIANTS_FILE = Path(__file__).with_name("variants_1.tsv")

# Unicode 15's Default_Ignorable_Code_Point, and control characters that are no white space.
_UNSEEN = (
    "\\x00-\\x08\\x0e-\\x1b\\x7f-\\x{84}\\x{86}-\\x{9f}\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff"
)
_SPACES = " \t\n\u000b\u000c\r\u001c-\u001f\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# Kanji, kana, their punctuation and full-width signs: what has no spaces around it.
_JAPANESE = "\\p{Han}\\p{Hiragana}\\p{Katakana}\u3001-\u3020\u3030-\u303f\u30a0\u30fb\u30fc\u3200-\u33ff\uff01-\uff9f"
_LINE_BREAK = f"(?<=[{_JAPANESE}&&[^。！？]])[ \t\u3000]*\r?\n[ \t\u3000]*(?=[{_JAPANESE}])"
# A space between Japanese characters with another such space a few characters before or after it, or with a single
# character between it and the text's start or end. Other spaces divide: a title from its text, a name from a name.
_NEAR = 5
_BEFORE = "|".join(f"[{_JAPANESE}] {f'[{_JAPANESE}]' * n}" for n in range(1, _NEAR + 1))
_SPACED_OUT = (
    f"(?:(?<={_BEFORE}|\\A[{_JAPANESE}]) (?=[{_JAPANESE}])"
    f"|(?<=[{_JAPANESE}]) (?=[{_JAPANESE}]{{1,{_NEAR}}} [{_JAPANESE}]|[{_JAPANESE}]\\z))"
)

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
            normalizers.Replace(Regex(f"[{_UNSEEN}]"), ""),
            normalizers.Replace(Regex(_LINE_BREAK), ""),
            normalizers.Replace(Regex(f"[{_SPACES}]+"), " "),
            normalizers.Replace(Regex(_SPACED_OUT), ""),
            # Alone, the voicing marks would become a space and a mark by NFKC.
            normalizers.Replace("\u309b", "\u3099"),
            normalizers.Replace("\u309c", "\u309a"),
            normalizers.NFKC(),
            normalizers.Replace(Regex("[\u309d\u30fd]"), _REPEATED),
            normalizers.Replace(Regex("[\u309e\u30fe]"), _REPEATED_VOICED),
            normalizers.Precompiled(charsmap({**variants(), **_iteration_marks()})),
        ]
    )


def variants() -> dict[str, str]:
    """Variant character → its usual form."""
    lines = VARIANTS_FILE.read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t")[:2] for line in lines if not line.startswith("#"))


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
