"""Give the default model the characters that its vocabulary lacks, and the text rules for Japanese.

    python -m tansaku.training.default_model characters BUNDLE

Without this, all characters that the vocabulary lacks are one unknown token. The new tokens are

- the single characters that multilingual-e5-small has, but that its Japanese part left out, with their own embeddings;
- the kanji, kana and signs of JIS X 0208, JIS X 0213 and Windows code page 932, and emoji. Their embeddings are made,
  see `initial_rows`; nothing is trained;
- the 256 bytes, for all other characters: such a character becomes the tokens of its bytes in UTF-8.

The graph's other weights stay as they are, and so do the vectors of texts that the new tokens and rules do not touch.
"""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from tokenizers import Regex, Tokenizer, normalizers

from ...onnx_export.convert.japanese_text import VERSION, japanese_text, variants
from ...onnx_export.convert.more_tokens import add_tokens
from .e5_weights import E5Weights, packaged_weights, read_e5_weights
from .variants import unicode_file, unihan
from .vocabulary import NEVER, build_tokenizer

# Of the base model's single characters, those of these scripts are not taken over; they become their bytes.
_LEFT_OUT = tuple(
    "ARABIC ARMENIAN BENGALI CHAM DEVANAGARI ETHIOPIC GEORGIAN GUJARATI GURMUKHI HEBREW KANNADA KHMER LAO MALAYALAM "
    "MONGOLIAN MYANMAR ORIYA SINHALA SYRIAC TAMIL TELUGU THAANA THAI TIBETAN".split(" ")
)
_CODECS = ("iso2022_jp", "cp932", "shift_jis_2004")
_SEED = 20251130
# How much of a made embedding's direction is random, and how much comes from variants, else from the definition and the
# radical. With these, benchmarks.quality.characters tells all characters apart.
_RANDOM, _NEAR, _MEANING, _RADICAL = 1.0, 1.5, 0.6, 0.5


def write_characters(bundle: Annotated[Path, typer.Argument(help="Folder of the bundle, which is changed.")]) -> None:
    """Add the characters and the text rules to a bundle of the default model."""
    weights = read_e5_weights(packaged_weights())
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    known = set(tokenizer.get_vocab())
    taken, made = new_characters(weights, known)
    base = {piece: i for i, piece in enumerate(weights.pieces)}
    table = weights.tensors["emb.word"]
    made_rows = initial_rows(made, weights)
    rows = np.concatenate([table[[base[character] for character in taken]], *made_rows])
    # No other piece has these characters, so how likely they are changes nothing.
    score = float(weights.scores.min())
    pieces = dict.fromkeys([*taken, *made], score) | {f"<0x{byte:02X}>": NEVER for byte in range(256)}
    tokenizer.normalizer = normalizer()
    done = add_tokens(
        bundle,
        pieces,
        rows,
        normalizer=json.loads(tokenizer.to_str())["normalizer"],
        byte_fallback=True,
        origin={
            "pieces": len(known) + len(pieces),
            "text_rules": f"japanese {VERSION}",
            "characters_taken": len(taken),
            "characters_made": len(made),
        },
    )
    typer.echo(
        f"{bundle}: {len(taken):,} characters of the base model, {len(made):,} made, 256 bytes; {done.fingerprint}"
    )


def normalizer() -> normalizers.Normalizer:
    """The text rules for Japanese, and what multilingual-e5-small does besides."""
    return normalizers.Sequence(
        [
            # The full-width tilde, which Japanese input methods produce for the wave dash.
            normalizers.Replace("\uff5e", "\u301c"),
            japanese_text(),
            normalizers.Replace(Regex("[\u2581\ufffd]"), " "),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(),
        ]
    )


def new_characters(weights: E5Weights, known: set[str]) -> tuple[list[str], list[str]]:
    """The characters to add, each as the text rules leave it.

    Args:
        weights: the base model.
        known: the pieces of the vocabulary.

    Returns:
        Those that the base model has a piece for, and those whose embeddings are to be made; both ascending.
    """
    base = {piece for piece in weights.pieces if len(piece) == 1}
    names = {character: unicodedata.name(character, "") for character in base}
    taken = {character for character, name in names.items() if name and not name.startswith(_LEFT_OUT)}
    wanted = {chr(code) for code in range(0x80, 0x30000) if _written(chr(code))} | _emoji() | set(variants().values())
    rules = normalizer()
    # Each alone between letters: at an end the rules may take it for space.
    plain = {c for character in wanted | taken for c in rules.normalize_str(f"a{character}a")[1:-1]}
    plain = {c for c in plain - known if not c.isspace() and unicodedata.category(c) not in ("Cc", "Co", "Cs")}
    return sorted(plain & base), sorted(plain - base)


def initial_rows(characters: list[str], weights: E5Weights) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings for characters without one, and for the 256 bytes.

    A character's embedding is the mean of all kanji's, and a direction: that of a variant, of the words of its English
    definition in Unihan, of the kanji with its radical, as far as there are any, and a random one, which sets it apart
    from all others. Its length is that of kanji of the base model.

    Args:
        characters: the characters.
        weights: the base model.

    Returns:
        float32 (characters, hidden) and float32 (256, hidden).
    """
    table, ids = weights.tensors["emb.word"], {piece: i for i, piece in enumerate(weights.pieces)}
    kanji = [c for c in ids if len(c) == 1 and unicodedata.name(c, "").startswith("CJK UNIFIED")]
    rows = table[[ids[c] for c in kanji]]
    mean, spread = rows.mean(axis=0), float(np.linalg.norm(rows - rows.mean(axis=0), axis=1).mean())
    random = np.random.default_rng(_SEED)
    radicals: dict[str, list[np.ndarray]] = {}
    radical_of = {c: value.split(".")[0] for c, value in unihan("RadicalStrokeCounts", "kRSUnicode")}
    for character in kanji:
        radicals.setdefault(radical_of.get(character, ""), []).append(table[ids[character]] - mean)
    definitions = dict(unihan("Readings", "kDefinition"))
    words = build_tokenizer(weights.pieces, weights.scores)
    near, centre = _near(set(ids)), table.mean(axis=0)

    def direction(vector: np.ndarray) -> np.ndarray:
        return vector / max(float(np.linalg.norm(vector)), 1e-9)

    made = []
    for character in characters:
        mix = _RANDOM * direction(random.standard_normal(len(mean)))
        if others := near.get(character):
            mix += _NEAR * direction(table[[ids[other] for other in others]].mean(axis=0) - mean)
        else:
            name = "" if character in radical_of else unicodedata.name(character, "").lower()
            if found := words.encode(definitions.get(character, name), add_special_tokens=False).ids:
                mix += _MEANING * direction(table[found].mean(axis=0) - centre)
            if same := radicals.get(radical_of.get(character, "")):
                mix += _RADICAL * direction(np.mean(same, axis=0))
        made.append(mean + spread * direction(mix))
    octets = mean + spread * np.stack([direction(random.standard_normal(len(mean))) for _ in range(256)])
    return np.array(made, np.float32), octets.astype(np.float32)


def _near(known: set[str]) -> dict[str, list[str]]:
    """Forms of a character that the base model knows, by the table of the text rules and by Unihan."""
    near: dict[str, list[str]] = {}
    for variant, usual in variants().items():
        if variant in known:
            near.setdefault(usual, []).append(variant)
    for field in ("kTraditionalVariant", "kSimplifiedVariant", "kZVariant"):
        for character, value in unihan("Variants", field):
            others = [chr(int(code, 16)) for code in re.findall(r"U\+([0-9A-F]+)", value)]
            near.setdefault(character, []).extend(other for other in others if other in known and other != character)
    return {character: others for character, others in near.items() if others}


def _written(character: str) -> bool:
    for codec in _CODECS:
        try:
            character.encode(codec)
        except UnicodeEncodeError:
            continue
        return True
    return False


def _emoji() -> set[str]:
    """The characters that are emoji or parts of them, such as the letters of flags."""
    found: set[str] = set()
    for line in unicode_file("emoji/emoji-data.txt"):
        if match := re.match(r"([0-9A-F]+)(?:\.\.([0-9A-F]+))? *; *Emoji", line):
            found |= {chr(code) for code in range(int(match[1], 16), int(match[2] or match[1], 16) + 1)}
    return found
