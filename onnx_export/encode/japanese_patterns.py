"""The regular expressions of the text rules for Japanese (`convert.japanese_text`).

Each takes a time that grows with the text: what it repeats is bounded, or starts behind one character only. So bundles
that have them are read, though `patterns` could not tell that by itself.
"""

from __future__ import annotations

# Unicode 15's Default_Ignorable_Code_Point, and control characters that are no white space.
_UNSEEN = (
    "\\x00-\\x08\\x0e-\\x1b\\x7f-\\x{84}\\x{86}-\\x{9f}\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff"
)
_SPACES = " \t\n\u000b\u000c\r\u001c-\u001f\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# Kanji, kana, and their signs: what has no spaces around it. Full-width letters and digits are treated as plain ones.
_JAPANESE = (
    "\\p{Han}\\p{Hiragana}\\p{Katakana}\u3001-\u3020\u3030-\u303f\u30a0\u30fb\u30fc\u3200-\u33ff"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff9f"
)
LINE_BREAK = f"(?<=[{_JAPANESE}&&[^。！？]])[ \t\u3000]*\r?\n[ \t\u3000]*(?=[{_JAPANESE}])"
# A space between Japanese characters with another such space a few characters before or after it, or between the two
# characters of a text of two. Other spaces divide: a title from its text, a name from a name.
_NEAR = 5
_BEFORE = "|".join(f"[{_JAPANESE}] {f'[{_JAPANESE}]' * n}" for n in range(1, _NEAR + 1))
SPACED_OUT = (
    f"(?:(?<={_BEFORE}) (?=[{_JAPANESE}])|(?<=[{_JAPANESE}]) (?=[{_JAPANESE}]{{1,{_NEAR}}} [{_JAPANESE}])"
    f"|(?<=\\A[{_JAPANESE}]) (?=[{_JAPANESE}]\\z))"
)

UNSEEN, SPACES = f"[{_UNSEEN}]", f"[{_SPACES}]+"
KNOWN = frozenset({UNSEEN, SPACES, LINE_BREAK, SPACED_OUT})
