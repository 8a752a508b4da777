"""Vocabularies of the kind of XLM-R's, as small as a test needs them."""

from __future__ import annotations

ASCII = [chr(code) for code in range(0x21, 0x7F)]
KANA = [chr(code) for code in [*range(0x3041, 0x3097), *range(0x30A1, 0x30F7)]]


def vocabulary(*pieces: str) -> list[str]:
    """The special pieces and the sign for a space, whose ids are 0 to 4; then ``pieces``, and the mask last."""
    return ["<s>", "<pad>", "</s>", "<unk>", "▁", *pieces, "<mask>"]
