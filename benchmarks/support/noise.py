"""Ways in which Japanese text is disfigured on its way into an index: functions of the text, all deterministic."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable

from tansaku.onnx_export.convert.japanese_text import variants

_JAPANESE = "\u3005\u3041-\u3096\u30a1-\u30fc\u3400-\u9fff。、「」『』（）・！？"
_KANJI = "[\u3400-\u9fff]"
_HALF = {}
for _code in range(0xFF61, 0xFFA0):
    _HALF.setdefault(unicodedata.normalize("NFKC", chr(_code)), chr(_code))
for _kana in map(chr, range(0x30A1, 0x30FB)):
    _plain = unicodedata.normalize("NFD", _kana)
    if len(_plain) == 2 and _plain[0] in _HALF:
        _HALF[_kana] = _HALF[_plain[0]] + ("\uff9e" if _plain[1] == "\u3099" else "\uff9f")
_FULL = {chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)}
_OLD = {usual: variant for variant, usual in variants().items() if "\u3400" <= variant <= "\u9fff"}


def _between(text: str, what: str, part: float = 1.0) -> str:
    """``what`` between two Japanese characters, in a part of the places."""
    chosen = random.Random(text)
    gap = re.compile(f"(?<=[{_JAPANESE}])(?=[{_JAPANESE}])")
    return gap.sub(lambda _: what if chosen.random() < part else "", text)


def _repeat(text: str) -> str:
    text = re.sub("([\u3041-\u3096])\\1", "\\1\u309d", re.sub("([\u30a1-\u30fa])\\1", "\\1\u30fd", text))
    return re.sub(f"({_KANJI})\\1", "\\1々", text)


NOISES: dict[str, Callable[[str], str]] = {
    "variation selectors": lambda text: re.sub(f"({_KANJI})", "\\1\U000e0100", text),
    "variation selectors of emoji": lambda text: re.sub(f"({_KANJI})", "\\1\ufe0e", text),
    "zero-width spaces": lambda text: "\u200b".join(text),
    "zero-width joiners, byte order marks": lambda text: "\ufeff" + "\u200d".join(text),
    "soft hyphens": lambda text: "\u00ad".join(text),
    "NUL": lambda text: "\0".join(text),
    "spaces between all characters": lambda text: _between(text, " "),
    "full-width spaces between all": lambda text: _between(text, "\u3000"),
    "spaces between half of them": lambda text: _between(text, " ", 0.5),
    "spaces between a fifth of them": lambda text: _between(text, " ", 0.2),
    "line breaks, a tenth of the places": lambda text: _between(text, "\n", 0.1),
    "line breaks and indents": lambda text: _between(text, "\r\n\u3000", 0.1),
    "full width": lambda text: text.translate(str.maketrans(_FULL)),
    "half width": lambda text: text.translate(str.maketrans(_HALF)),
    "decomposed (NFD)": lambda text: unicodedata.normalize("NFD", text),
    "iteration marks": _repeat,
    "no iteration marks": lambda text: re.sub("(.)々", "\\1\\1", text),
    "old forms of kanji": lambda text: text.translate(str.maketrans(_OLD)),
}
