"""The text rules for Japanese, the table of variants, and tables of replacements for `tokenizers`."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers

from tansaku.onnx_export.convert.charsmap import charsmap
from tansaku.onnx_export.convert.japanese_text import japanese_text, variants
from tansaku.onnx_export.encode.growth import growth

# Without those that join their neighbours, as combining marks and letters of Hangul do.
CHARACTERS = st.characters(min_codepoint=0x3041, max_codepoint=0x9FFF, categories=["Lo", "So", "Po"])
TABLE = {"國": "国", "學": "学", "𠮷": "吉", "㍿": "株式会社", "é": "e", "か\u0308": "かか"}


@pytest.fixture(scope="module")
def rules() -> normalizers.Normalizer:
    return japanese_text()


# charsmap


def test_characters_of_a_table_are_replaced():
    table = normalizers.Precompiled(charsmap(TABLE))
    assert table.normalize_str("國立學校、𠮷野家㍿のcafé。か\u0308") == "国立学校、吉野家株式会社のcafe。かか"


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    st.dictionaries(CHARACTERS, st.sampled_from("国学々ab𠮷"), min_size=1),
    st.text(CHARACTERS),
)
def test_a_table_replaces_as_translate_does(table, text):
    text += "".join(table)
    assert normalizers.Precompiled(charsmap(table)).normalize_str(text) == text.translate(str.maketrans(table))


@pytest.mark.parametrize("table", [{}, {"": "a"}, {"a": ""}, {"a": "\0"}, {"\0": "a"}])
def test_a_table_that_cannot_be_written_is_refused(table):
    with pytest.raises(ValueError, match="neither empty nor NUL"):
        charsmap(table)


# variants


def test_the_usual_form_of_a_variant_is_no_variant_itself():
    table = variants()
    assert not table.keys() & set(table.values())
    for variant, usual in table.items():
        assert len(variant) == len(usual) == 1
        assert unicodedata.normalize("NFKC", variant) == variant
        assert unicodedata.normalize("NFKC", usual) == usual


@pytest.mark.parametrize(
    "pair",
    "髙高 﨑崎 鷗鴎 德徳 𠮟叱 𠮷吉 邊辺 邉辺 嶋島 齋斎 齊斉 澤沢 濱浜 濵浜 廣広 國国 龍竜 眞真 辨弁 瓣弁 塡填".split(),
)
def test_variants_are_folded_into_the_form_of_jis_x_0208(pair):
    assert variants()[pair[0]] == pair[1]


@pytest.mark.parametrize("pair", ["斉斎", "鰯鮒", "栂椙", "櫂棹", "蜑蛋", "崎埼", "沢択", "浜兵", "叶協"])
def test_characters_with_meanings_of_their_own_stay_apart(pair):
    table = variants()
    assert table.get(pair[0], pair[0]) != table.get(pair[1], pair[1])


def test_every_variant_becomes_its_usual_form(rules):
    text = "、".join(variants())
    assert rules.normalize_str(text) == "、".join(variants().values())


# japanese_text


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("日\ufe00本\U000e0100の\u200b首\u00ad都\0は\u2060東\u200d京\ufeff", "日本の首都は東京"),
        ("日 本 の 首 都", "日本の首都"),
        ("日\u3000本\u00a0の\t首\u2003都", "日本の首都"),
        ("東 京", "東京"),
        ("升 日本の単位", "升 日本の単位"),
        ("日 本の 首都", "日本の首都"),
        ("は、「 京 都 」（ き ょ う ） 。", "は、「京都」(きょう)。"),
        ("日本の首\n都は東\r\n\u3000京", "日本の首都は東京"),
        ("ﾊﾟｿｺﾝＡＢＣ１２３㈱①", "パソコンABC123(株)1"),
        ("か\u3099は\u309aウ\u3099", "がぱヴ"),
        ("か゛は゜", "がぱ"),
        ("すゞめ、かゝし、つゞく、づゝ、バナヽ、ミスヾ", "すずめ、かかし、つづく、づつ、バナナ、ミスズ"),
        ("ゝ国ゝ", "ゝ国ゝ"),
        ("髙橋國男", "高橋国男"),
        ("⾼⻘\U0001b002", "高青あ"),
        ("👨\u200d👩\u200d👧❤\ufe0f", "👨👩👧❤"),
    ],
    ids=ascii,
)
def test_what_is_not_seen_or_written_in_two_ways_becomes_equal(rules, text, normal):
    assert rules.normalize_str(text) == normal


@pytest.mark.parametrize(
    "text",
    [
        "京都 京都は794年から都だった。",
        "山田 太郎が来た。",
        "Azure の仮想マシン",
        "A B C",
        "1 9 6 4",
        "new model",
        "終わった。 次の文",
        "人々、民主主義、ここ、ただ",
        "斉藤と斎藤",
        "e\u0323",
    ],
)
def test_clean_text_stays_as_it_is(rules, text):
    assert rules.normalize_str(text) == unicodedata.normalize("NFC", text)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.text(st.sampled_from("日本ゝゞかが゛ﾞ髙國 \n\u3000\u3099\u0301\u200b\ufe00a①ｶ。𠮷👨⺅")))
def test_the_rules_never_fail_and_leave_no_character_that_is_not_seen(rules, text):
    normal = rules.normalize_str(text)
    assert not set(normal) & set("\n\u3000\u200b\ufe00ｶﾞ髙國𠮷")


def test_the_rules_make_no_text_much_longer(rules):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = rules
    assert growth(json.loads(tokenizer.to_str())) == 1.0
