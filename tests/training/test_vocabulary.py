"""The Japanese vocabulary: how text is normalised and split, which pieces are kept."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tansaku.training.default_model.vocabulary import build_tokenizer, choose_pieces, count_pieces, jis_kanji, pieces_of

from ..support.vocabulary import ASCII, KANA, vocabulary

PIECES = vocabulary("〜", "ー", *ASCII, *KANA, *"東京都", "東京", "▁東京")
SCORES = np.full(len(PIECES), -5, np.float32)
SPECIAL = {"<s>", "<pad>", "</s>", "<mask>"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build_tokenizer(PIECES, SCORES)


def split(tokenizer: Tokenizer, text: str) -> list[str]:
    """The pieces between start and end."""
    start, *body, end = tokenizer.encode(text).tokens
    assert (start, end) == ("<s>", "</s>")
    return body


# build_tokenizer


def test_ids_are_the_positions_of_the_pieces(tokenizer):
    assert [tokenizer.token_to_id(piece) for piece in PIECES] == list(range(len(PIECES)))


def test_likelier_pieces_win():
    pieces = ["<s>", "</s>", "<unk>", "▁", "東", "京", "東京", "都", "京都"]
    scores = np.array([0, 0, 0, -1, -9, -9, -3, -9, -4], np.float32)
    assert split(build_tokenizer(pieces, scores), "東京都") == ["▁", "東京", "都"]
    scores[[6, 8]] = scores[[8, 6]] - 1
    assert split(build_tokenizer(pieces, scores), "東京都") == ["▁", "東", "京都"]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Ｔｏｋｙｏ２０２４", "Tokyo2024"),
        ("ﾄｳｷｮｳ", "トウキョウ"),
        ("ｶﾞｷﾞ", "ガギ"),
        ("か\u3099", "が"),
        ("①㍿", "1株式会社"),
        ("東\u3000京", "東 京"),
        ("東\u00a0\t\r\n 京", "東 京"),
        ("東\u200b京", "東 京"),
        ("  東京  ", "東京"),
        ("9～10時", "9〜10時"),
        ("9〜10時", "9〜10時"),
        ("東\x01\x0b\x1b\x7f\x8f\x9f京", "東京"),
    ],
    ids=ascii,
)
def test_text_is_normalised(tokenizer, text, normal):
    assert tokenizer.normalizer.normalize_str(text) == normal


def test_wave_dash_and_full_width_tilde_are_one_piece(tokenizer):
    assert split(tokenizer, "あ～ん") == split(tokenizer, "あ〜ん") == ["▁", "あ", "〜", "ん"]


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.text(st.characters(exclude_categories=("Cs", "Cn", "Co"), exclude_characters="～")))
def test_compatibility_forms_of_a_text_give_the_same_tokens(tokenizer, text):
    normal = unicodedata.normalize("NFKC", text)
    assert tokenizer.encode(text).ids == tokenizer.encode(normal).ids


@pytest.mark.parametrize("special", ["<s>", "</s>", "<pad>", "<mask>", "＜ｓ＞", "<\u0001s>"], ids=ascii)
@pytest.mark.parametrize("frame", ["{}", "東京{}", "{}東京", "東{}京", "{0}{0}"])
def test_text_that_spells_a_special_token_is_read_letter_by_letter(tokenizer, special, frame):
    body = split(tokenizer, frame.format(special))
    assert not SPECIAL & set(body)
    assert "<" in body


def test_text_that_spells_the_unknown_token_is_read_letter_by_letter(tokenizer):
    assert split(tokenizer, "<unk>") == ["▁", "<", "u", "n", "k", ">"]


def test_special_token_of_one_letter_is_read_letter_by_letter_too():
    pieces = ["<s>", "</s>", "<unk>", "▁", "<", "q", ">", "<q>"]
    assert split(build_tokenizer(pieces, np.zeros(len(pieces))), "<q>") == ["▁", "<", "q", ">"]


def test_tokenizer_adds_start_and_end_once_per_text(tokenizer):
    for encoding in tokenizer.encode_batch(["東京", "", "</s>"]):
        assert encoding.ids.count(PIECES.index("<s>")) == 1
        assert encoding.ids.count(PIECES.index("</s>")) == 1


def test_tokenizer_neither_pads_nor_cuts(tokenizer):
    short, long = tokenizer.encode_batch(["あ", "あ" * 5000])
    assert len(short.ids) == 4
    assert len(long.ids) == 5003


def test_saved_tokenizer_gives_the_same_tokens(tokenizer, tmp_path):
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    read = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ["東京都〜ｱｲｳ <s></s>", "東\x7f京\ufeff", "漢字 and ASCII"]:
        assert read.encode(text).ids == tokenizer.encode(text).ids


def test_other_names_for_start_end_and_unknown():
    tokenizer = build_tokenizer(
        ["[CLS]", "[SEP]", "[UNK]", "▁", "あ"], np.zeros(5), start="[CLS]", end="[SEP]", unknown="[UNK]"
    )
    assert tokenizer.encode("あ漢").ids == [0, 3, 4, 2, 1]


# count_pieces


def test_pieces_are_counted_without_start_and_end(tokenizer):
    counts = count_pieces(tokenizer, ["東京都", "東京", "あ あ"])
    found = {PIECES[i]: int(counts[i]) for i in np.flatnonzero(counts)}
    assert found == {"▁東京": 2, "都": 1, "▁": 2, "あ": 2}
    assert counts.dtype == np.int64
    assert len(counts) == len(PIECES)


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_counts_do_not_depend_on_the_batch(tokenizer, batch):
    texts = ["東京", "", "都都", "あいう", "x"]
    np.testing.assert_array_equal(count_pieces(tokenizer, iter(texts), batch=batch), count_pieces(tokenizer, texts))


@pytest.mark.parametrize("texts", [[], [""], ["", "\u200b"]], ids=["none", "empty", "blank"])
def test_nothing_to_count_gives_zeros(tokenizer, texts):
    counts = count_pieces(tokenizer, texts)
    assert len(counts) == len(PIECES)
    assert not counts.any()


# choose_pieces


@pytest.mark.parametrize(
    ("piece", "count", "kept"),
    [
        # Single characters a Japanese reader may meet are kept unseen.
        ("a", 0, True),
        ("~", 0, True),
        ("▁a", 0, True),
        ("é", 0, True),
        ("▁", 0, True),
        ("。", 0, True),
        ("①", 0, True),
        ("々", 0, True),
        ("Ж", 0, True),  # JIS X 0208 holds Cyrillic and Greek letters
        ("亜", 0, True),
        ("𠮟", 0, True),  # JIS X 0213, second plane of Unicode
        ("한", 0, False),
        ("ไ", 0, False),
        ("😀", 0, False),
        ("她", 0, False),  # in JIS X 0212 alone, which no Japanese text needs
        ("她", 1, False),
        # With kana: kept unseen.
        ("です", 0, True),
        ("▁ている", 0, True),
        ("コーヒー", 0, True),
        ("食べる", 0, True),
        ("ｱｲ", 0, True),
        ("她の", 0, False),
        ("한の", 0, False),
        # With kanji but no kana: kept if seen once.
        ("東京", 0, False),
        ("東京", 1, True),
        ("▁第1回", 0, False),
        ("▁第1回", 1, True),
        ("她們", 1, False),
        # Anything else: kept if seen twice.
        ("the", 0, False),
        ("the", 1, False),
        ("the", 2, True),
        ("20", 1, False),
        ("20", 2, True),
        ("한국", 1, False),
        ("한국", 2, True),
        ("😀", 1, False),
        ("😀", 2, True),
        ("她", 2, True),
    ],
)
def test_piece_is_kept_by_its_script_and_its_count(piece, count, kept):
    chosen = choose_pieces(["<s>", piece], np.array([0, count]), special=[0])
    assert chosen.tolist() == ([0, 1] if kept else [0])


@pytest.mark.parametrize("character", ASCII)
def test_every_ascii_character_is_kept_unseen(character):
    assert choose_pieces([character], np.array([0]), special=[]).tolist() == [0]


def test_special_pieces_are_kept_and_others_like_them_are_not():
    pieces = ["<s>", "</s>", "<unk>", "<mask>"]
    assert choose_pieces(pieces, np.zeros(4, np.int64), special=[3, 0]).tolist() == [0, 3]


def test_chosen_ids_ascend_without_repeats():
    pieces = ["<s>", "あ", "x", "東京", "</s>"]
    chosen = choose_pieces(pieces, np.array([9, 9, 9, 9, 9]), special=[4, 0, 1])
    assert chosen.tolist() == [0, 1, 2, 3, 4]
    assert np.issubdtype(chosen.dtype, np.integer)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 3), min_size=8, max_size=8), st.integers(0, 7))
def test_higher_counts_never_drop_a_piece(counts, more):
    pieces = ["<s>", "the", "東京", "한국", "です", "ไทย", "①②", "жи"]
    before = choose_pieces(pieces, np.array(counts), special=[0])
    counts[more] += 1
    after = choose_pieces(pieces, np.array(counts), special=[0])
    assert set(before.tolist()) <= set(after.tolist())


# pieces_of


def test_pieces_of_nothing_but_the_characters_are_found_with_or_without_a_space():
    pieces = ["<s>", "", "▁", "。", "▁。", "。。", "。、", "▁▁", "あ。", "。あ", "▁あ", "、", "▁.", "."]
    assert pieces_of(pieces, "。、") == ["▁", "。", "▁。", "。。", "。、", "▁▁", "、"]


def test_pieces_of_no_characters_are_spaces():
    assert pieces_of(["あ", "▁", "", "。"], "") == ["▁"]


# jis_kanji


def test_jis_x_0208_holds_6355_kanji_in_its_kanji_rows():
    kanji = jis_kanji("iso2022_jp")
    rows = [character.encode("iso2022_jp")[3] - 0x20 for character in kanji]
    assert sum(16 <= row <= 47 for row in rows) == 2965  # level 1
    assert sum(48 <= row <= 84 for row in rows) == 3390  # level 2
    # 仝 stands among the symbols, though Unicode counts it among the kanji.
    assert [character for character, row in zip(kanji, rows, strict=True) if row < 16] == ["仝"]


def test_jis_x_0213_holds_all_kanji_of_jis_x_0208_and_thousands_more():
    smaller, larger = set(jis_kanji("iso2022_jp")), set(jis_kanji("shift_jis_2004"))
    assert smaller < larger
    assert len(larger) == 10_050 + len("仝")  # the standard's number is that of its kanji rows
    assert "𠮟" in larger - smaller


def test_kanji_of_jis_x_0212_alone_are_none_of_jis_x_0213():
    # Python's euc_jis_2004 writes JIS X 0212 too, in its third code set.
    assert "她" in jis_kanji("euc_jis_2004")
    assert "她" not in jis_kanji("shift_jis_2004")


@pytest.mark.parametrize("character", ["あ", "ア", "。", "々", "a", "한"])
def test_other_characters_are_no_kanji(character):
    assert character not in jis_kanji("shift_jis_2004")
