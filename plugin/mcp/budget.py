"""How much of an agent's context a text takes."""

from __future__ import annotations

_ASCII_PER_TOKEN = 3  # of English the tokenizers of large models make fewer tokens, of Japanese fewer than characters


def tokens_of(text: str) -> int:
    """An estimate of the tokens of a text, on the high side: the agent's tokenizer is not known.

    Args:
        text: the text.

    Example:
        >>> tokens_of("金閣寺"), tokens_of("temple")
        (3, 2)
    """
    ascii_signs = sum(sign.isascii() for sign in text)
    return len(text) - ascii_signs + -(-ascii_signs // _ASCII_PER_TOKEN)
