"""The Japanese part of a multilingual Unigram vocabulary, and the tokenizer that reads it.

A vocabulary for a hundred languages is most of a small model's size. The pieces that Japanese text uses are kept, and
single characters that a Japanese reader may meet.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from itertools import islice

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

_SPACE = "▁"  # SentencePiece's sign for a space
NEVER = -1e4  # the score of a piece that no text may match
_REMOVED = Regex("[\u0001-\u0008\u000b\u000e-\u001f\u007f\u008f\u009f]")
_SPACES = Regex("[\t\n\u000c\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]")


def build_tokenizer(
    pieces: list[str], scores: np.ndarray, *, start: str = "<s>", end: str = "</s>", unknown: str = "<unk>"
) -> Tokenizer:
    """A Unigram tokenizer of `tokenizers` with the normalisation of XLM-R.

    Control characters are removed, white space becomes single spaces, and the full-width tilde, which Japanese input
    methods produce for the wave dash, becomes the wave dash; the rest is NFKC. No text gives a special token, not even
    one that spells it, as long as the vocabulary has its letters.

    Args:
        pieces: the vocabulary, in the order of ids.
        scores: score of each piece, float32 (pieces,).
        start: piece put before a text.
        end: piece put after a text.
        unknown: piece for what no piece covers.
    """
    ids = {piece: i for i, piece in enumerate(pieces)}
    special = {piece for piece in pieces if piece.startswith("<") and piece.endswith(">") and len(piece) > 2}
    special |= {start, end, unknown}
    vocabulary = [(p, NEVER if p in special else float(s)) for p, s in zip(pieces, scores, strict=True)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=ids[unknown], byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(_REMOVED, ""),
            normalizers.Replace(_SPACES, " "),
            normalizers.Replace("\uff5e", "\u301c"),
            normalizers.NFKC(),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, ids[start]), (end, ids[end])]
    )
    return tokenizer


def count_pieces(tokenizer: Tokenizer, texts: Iterable[str], *, batch: int = 2000) -> np.ndarray:
    """Number of times that each piece of ``tokenizer`` occurs in ``texts``: int64 (pieces,)."""
    counts = np.zeros(tokenizer.get_vocab_size(), np.int64)
    remaining = iter(texts)
    while chunk := list(islice(remaining, batch)):
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(chunk, add_special_tokens=False)]
        counts += np.bincount(np.concatenate([np.array(i, np.int64) for i in ids]), minlength=len(counts))
    return counts


def choose_pieces(pieces: list[str], counts: np.ndarray, special: Iterable[int]) -> np.ndarray:
    """The pieces to keep.

    These are: the ``special`` pieces; every piece that occurs at least twice in the counted texts; and of the pieces
    whose characters are all ASCII, Latin script or JIS X 0213 (which includes JIS X 0208): single characters, pieces
    with kana, and pieces with kanji that occur at all.

    Args:
        pieces: the vocabulary, in the order of ids.
        counts: number of times that each piece occurs, int64 (pieces,).
        special: ids of the special pieces.

    Returns:
        Ids, ascending, int64.
    """
    kept = set(special)
    for i, piece in enumerate(pieces):
        characters = piece.replace(_SPACE, "")
        if all(map(_is_japanese, characters)):
            single = len(characters) <= 1
            used = counts[i] > 0 and any(map(_is_kanji, characters))
            if single or used or any(map(_is_kana, characters)):
                kept.add(i)
        if counts[i] >= 2:
            kept.add(i)
    return np.array(sorted(kept))


def pieces_of(pieces: list[str], characters: str) -> list[str]:
    """The pieces that have no other characters than ``characters``, with or without a space before them; also "▁"."""
    allowed = set(characters)
    return [piece for piece in pieces if set(piece.replace(_SPACE, "")) <= allowed and piece]


def jis_kanji(codec: str) -> list[str]:
    """The kanji that ``codec`` can write: "iso2022_jp" for JIS X 0208, "shift_jis_2004" for JIS X 0213."""
    planes = [*range(0x3400, 0xA000), *range(0xF900, 0xFB00), *range(0x20000, 0x2FA20)]
    return [chr(c) for c in planes if _is_kanji(chr(c)) and _encodable(chr(c), codec)]


def _is_japanese(character: str) -> bool:
    return _encodable(character, "shift_jis_2004") or _name(character).startswith("LATIN")


def _is_kana(character: str) -> bool:
    return "HIRAGANA" in _name(character) or "KATAKANA" in _name(character)


def _is_kanji(character: str) -> bool:
    return _name(character).startswith("CJK")


def _name(character: str) -> str:
    return unicodedata.name(character, "")


def _encodable(character: str, codec: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True
