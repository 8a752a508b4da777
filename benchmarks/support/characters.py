"""Documents that differ in one character, and names that people write in two ways."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Sequence

import numpy as np

from tansaku import Encoder
from tansaku.onnx_export.convert.japanese_text import variants

# A document and the question about it; {} is the character.
TEMPLATES = (
    ("{}という字の読み方と意味を辞書で調べた。", "{}の読み方"),
    ("昔、庭に{}があり、子供たちがよく集まった。", "庭にあった{}"),
    ("株式会社{}田商店の本社は東京にある。", "{}田商店の本社はどこ"),
    ("市場で{}を三つ買うと五百円だった", "{}はいくらか"),
    ("{}", "{}"),
)
# The same name in two forms, and another name that looks like it.
NAMES = (
    ("髙橋", "高橋", "高梨"), ("山﨑", "山崎", "山形"), ("森鷗外", "森鴎外", "森有礼"), ("𠮷野家", "吉野家", "吉川家"),
    ("德永", "徳永", "福永"), ("渡邊", "渡辺", "渡部"), ("渡邉", "渡辺", "渡会"), ("齋藤", "斎藤", "遠藤"),
    ("齊藤", "斉藤", "佐藤"), ("濵田", "浜田", "原田"), ("嶋田", "島田", "高田"), ("櫻井", "桜井", "松井"),
    ("廣瀨", "広瀬", "岩瀬"), ("眞鍋", "真鍋", "田辺"), ("澤村", "沢村", "木村"), ("桒原", "桑原", "萩原"),
    ("栁沢", "柳沢", "滝沢"), ("舘野", "館野", "矢野"), ("冨永", "富永", "松永"), ("邨田", "村田", "町田"),
    ("曾我", "曽我", "加賀"), ("國分", "国分", "五分"), ("黑田", "黒田", "白田"), ("惠比壽", "恵比寿", "代官山"),
    ("龍馬", "竜馬", "対馬"), ("瀧川", "滝川", "早川"), ("藪内", "薮内", "竹内"), ("圡屋", "土屋", "古屋"),
)  # fmt: skip


def told_apart(encoder: Encoder, characters: Sequence[str], template: tuple[str, str], *, apart: int = 1) -> float:
    """Part of the characters whose question finds its document before that of another character of ``characters``.

    Args:
        encoder: encodes.
        characters: the characters; each is compared with the one ``apart`` places after it.
        template: of document and question.
        apart: distance of the compared characters. In the order of Unicode, neighbours mostly share their radical.
    """
    document, question = template
    documents = encoder.encode_documents([document.format(character) for character in characters])
    questions = encoder.encode_queries([question.format(character) for character in characters])
    others = documents[apart:] + documents[:apart]
    triples = zip(questions, documents, others, strict=True)
    return float(np.mean([maxsim(question, right) > maxsim(question, wrong) for question, right, wrong in triples]))


def variants_found(encoder: Encoder, pairs: Sequence[tuple[str, str, str]], template: tuple[str, str]) -> float:
    """Part of the pairs where the question with one form finds the document with the other, before a third one's.

    Both directions count.
    """
    document, question = template
    found: list[bool] = []
    for asked, written in ((0, 1), (1, 0)):
        questions = encoder.encode_queries([question.format(pair[asked]) for pair in pairs])
        right = encoder.encode_documents([document.format(pair[written]) for pair in pairs])
        wrong = encoder.encode_documents([document.format(pair[2]) for pair in pairs])
        found += [maxsim(q, a) > maxsim(q, b) for q, a, b in zip(questions, right, wrong, strict=True)]
    return float(np.mean(found))


def maxsim(query: np.ndarray, document: np.ndarray) -> float:
    return float((query @ document.T).max(axis=1).sum())


def written(codec: str, *, first: int = 0x80) -> list[str]:
    """The characters that ``codec`` can write, as text rules leave them: without variants of others."""
    folded, found = variants(), set[str]()
    for character in map(chr, [*range(first, 0xD800), *range(0xF900, 0x30000)]):
        try:
            character.encode(codec)
        except UnicodeEncodeError:
            continue
        if unicodedata.normalize("NFKC", character) == character and character not in folded:
            found.add(character)
    return sorted(c for c in found if unicodedata.category(c)[0] in "LS")


def variant_pairs() -> list[tuple[str, str, str]]:
    """Every kanji of the table of variants, its usual form, and another kanji."""
    pairs = [(variant, usual) for variant, usual in variants().items() if "\u3400" <= usual <= "\u9fff"]
    others = random.Random(0).sample(pairs, len(pairs))
    return [
        (variant, usual, other) for (variant, usual), (_, other) in zip(pairs, others, strict=True) if other != usual
    ]
