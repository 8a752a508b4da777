"""Text → token ids by a bundle's rules: markers, prefixes, cuts, skipped tokens, and texts of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tansaku.onnx_export import BundleError, InputError, TextRules
from tansaku.onnx_export.tokenize import TextTokenizer
from tansaku.training.vocabulary import build_tokenizer

ASCII = [chr(code) for code in range(0x21, 0x7F)]
KANA = [chr(code) for code in [*range(0x3041, 0x3097), *range(0x30A1, 0x30F7)]]
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "。", "、", "ー", *ASCII, *KANA, *"検索質問文書", "<query>", "検索"]
ID = {piece: i for i, piece in enumerate(PIECES)}
START, PAD, END, UNKNOWN, SPACE = range(5)
MARKER = ID["<query>"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build_tokenizer(PIECES, np.full(len(PIECES), -5, np.float32))


def ids(*pieces: str) -> list[int]:
    return [ID[piece] for piece in pieces]


def tokenize(tokenizer: Tokenizer, text: str, prefix: str = "", marker: str | None = None, length=64, skiplist=()):
    (tokenized,) = TextTokenizer(tokenizer, TextRules(prefix, marker, length, skiplist))([text])
    return tokenized


# The rules


def test_text_stands_between_start_and_end(tokenizer):
    tokenized = tokenize(tokenizer, "検索、")
    assert tokenized.ids.tolist() == [START, SPACE, *ids("検索", "、"), END]
    assert tokenized.ids.dtype == np.int64
    assert tokenized.keep.dtype == bool
    assert tokenized.keep.all()
    assert tokenized.truncated is False


def test_marker_comes_right_after_the_start(tokenizer):
    tokenized = tokenize(tokenizer, "検索", marker="<query>")
    assert tokenized.ids.tolist() == [START, MARKER, SPACE, *ids("検索"), END]
    assert len(tokenized.keep) == 5


def test_prefix_comes_before_the_text_and_after_the_marker(tokenizer):
    tokenized = tokenize(tokenizer, "文書", prefix="質問:", marker="<query>")
    assert tokenized.ids.tolist() == [START, MARKER, SPACE, *ids("質", "問", ":", "文", "書"), END]


def test_vectors_of_skipped_tokens_are_not_kept_wherever_they_stand(tokenizer):
    tokenized = tokenize(tokenizer, "、検索。文。", skiplist=("。", "、", "▁"))
    assert tokenized.ids.tolist() == [START, SPACE, *ids("、", "検索", "。", "文", "。"), END]
    assert tokenized.keep.tolist() == [True, False, False, True, False, True, False, True]


def test_marker_can_be_skipped_too(tokenizer):
    tokenized = tokenize(tokenizer, "文", marker="<query>", skiplist=("<query>",))
    assert tokenized.keep.tolist() == [True, False, True, True, True]


@pytest.mark.parametrize("marker", [None, "<query>"])
def test_text_of_just_the_longest_length_is_not_cut(tokenizer, marker):
    fixed = 3 if marker is None else 4  # start, space and end, and the marker
    tokenized = tokenize(tokenizer, "文" * (10 - fixed), marker=marker, length=10)
    assert len(tokenized.ids) == 10
    assert not tokenized.truncated


@pytest.mark.parametrize("marker", [None, "<query>"])
@pytest.mark.parametrize("length", [4, 5, 10, 63])
def test_longer_text_is_cut_to_the_longest_length_and_keeps_its_end(tokenizer, marker, length):
    tokenized = tokenize(tokenizer, "文" * 62, marker=marker, length=length)
    head = [START, SPACE] if marker is None else [START, MARKER, SPACE]
    assert tokenized.ids.tolist() == [*head, *ids("文") * (length - len(head) - 1), END]
    assert len(tokenized.keep) == length
    assert tokenized.truncated is True


def test_skipped_tokens_after_a_cut_are_those_of_the_cut_text(tokenizer):
    tokenized = tokenize(tokenizer, "文。" * 20, length=7, skiplist=("。",))
    assert tokenized.ids.tolist() == [START, SPACE, *ids("文", "。", "文", "。"), END]
    assert tokenized.keep.tolist() == [True, True, True, False, True, False, True]


def test_texts_come_back_in_order_each_as_if_alone(tokenizer):
    texts = ["検索", "文" * 100, "。", "し つ も ん"]
    together = TextTokenizer(tokenizer, TextRules("", "<query>", 16, ("。",)))(texts)
    for text, tokenized in zip(texts, together, strict=True):
        alone = tokenize(tokenizer, text, marker="<query>", length=16, skiplist=("。",))
        np.testing.assert_array_equal(tokenized.ids, alone.ids)
        np.testing.assert_array_equal(tokenized.keep, alone.keep)
        assert tokenized.truncated == alone.truncated


def test_no_texts_give_no_tokens(tokenizer):
    assert TextTokenizer(tokenizer, TextRules("", None, 8))([]) == []


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    text=st.text(min_size=1).filter(str.strip),
    marker=st.sampled_from([None, "<query>"]),
    length=st.integers(3, 24),
)
def test_every_text_keeps_to_the_rules(tokenizer, text, marker, length):
    skiplist = ("▁", "。", "!")
    tokenized = tokenize(tokenizer, text, marker=marker, length=length, skiplist=skiplist)
    uncut = tokenize(tokenizer, text, marker=marker, length=10_000, skiplist=skiplist)
    head = 1 if marker is None else 2
    assert tokenized.ids[:head].tolist() == [START, MARKER][:head]
    assert tokenized.ids[-1] == END
    assert not set(tokenized.ids[head:-1].tolist()) & {START, PAD, END, MARKER}
    assert len(tokenized.ids) == min(length, len(uncut.ids))
    assert tokenized.truncated == (len(uncut.ids) > length)
    assert tokenized.ids[~tokenized.keep].tolist() == [
        token for token in tokenized.ids.tolist() if PIECES[token] in skiplist
    ]


# Texts that cannot be used


@pytest.mark.parametrize("empty", ["", " ", "\n\t ", "\u3000", "\u00a0\u2003"], ids=ascii)
def test_empty_text_is_refused_by_its_position(tokenizer, empty):
    with pytest.raises(InputError, match="text 1 is empty"):
        TextTokenizer(tokenizer, TextRules("", None, 8))(["検索", empty, ""])


def test_empty_text_is_refused_even_if_there_is_a_prefix(tokenizer):
    with pytest.raises(InputError, match="text 0 is empty"):
        tokenize(tokenizer, " ", prefix="質問:")


@pytest.mark.parametrize(
    ("value", "kind"), [(None, "NoneType"), (3, "int"), (b"abc", "bytes"), (["a"], "list"), (float("nan"), "float")]
)
def test_what_is_no_str_is_refused_by_position_and_type(tokenizer, value, kind):
    with pytest.raises(InputError, match=f"text 2 is {kind}, not str"):
        TextTokenizer(tokenizer, TextRules("", None, 8))(["検索", "文書", value])


# Texts of every kind


@pytest.mark.parametrize("code", [0xD800, 0xDCFF, 0xDFFF], ids=hex)
def test_lone_surrogate_is_read_as_a_question_mark(tokenizer, code):
    assert tokenize(tokenizer, f"検{chr(code)}索").ids.tolist() == [START, SPACE, *ids("検", "?", "索"), END]


@pytest.mark.parametrize("text", ["索", "\ude00索"], ids=ascii)
def test_lone_surrogate_in_a_prefix_is_read_as_a_question_mark(tokenizer, text):
    # The second text holds the other half of the pair: two halves do not make a character either.
    body = tokenize(tokenizer, text, prefix="検\ud83d").ids.tolist()[1:-1]
    assert body == [SPACE, *ids("検", *"?" * len(text), "索")]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("ｹﾝｻｸ", ["ケ", "ン", "サ", "ク"]),
        ("ﾊﾞﾍﾟ", ["バ", "ペ"]),
        ("Ｔａｎ１", ["T", "a", "n", "1"]),
        ("㌔", ["キ", "ロ"]),
        ("か\u3099", ["が"]),
    ],
    ids=ascii,
)
def test_width_and_composition_make_no_difference(tokenizer, text, pieces):
    assert tokenize(tokenizer, text).ids.tolist() == [START, SPACE, *ids(*pieces), END]


def test_control_characters_inside_a_text_leave_no_trace(tokenizer):
    assert tokenize(tokenizer, "検\x01\x1f\x7f索").ids.tolist() == tokenize(tokenizer, "検索").ids.tolist()


@pytest.mark.parametrize("text", ["😀", "👩‍👩‍👧‍👧", "\U0010ffff", "\x00", "한국어"], ids=ascii)
def test_characters_outside_the_vocabulary_become_the_unknown_token(tokenizer, text):
    body = tokenize(tokenizer, text).ids.tolist()[1:-1]
    assert UNKNOWN in body
    assert set(body) <= {SPACE, UNKNOWN}


@pytest.mark.parametrize("text", ["\x01", "\u200b", "\ufeff", "▁"], ids=ascii)
def test_text_that_normalises_to_nothing_leaves_start_and_end(tokenizer, text):
    assert tokenize(tokenizer, text).ids.tolist() == [START, END]


@pytest.mark.parametrize("unit", ["", "検索", "あ ", "x", "漢"])
def test_text_of_a_hundred_thousand_characters_is_cut(tokenizer, unit):
    # "あ。" after each: unknown characters in a row are one token.
    tokenized = tokenize(tokenizer, f"{unit}あ。" * (100_000 // (len(unit) + 2)), length=512)
    assert len(tokenized.ids) == 512
    assert tokenized.ids[-1] == END
    assert tokenized.truncated


# Rules that the tokenizer cannot follow


@pytest.mark.parametrize(
    ("rules", "token"),
    [
        (TextRules("", "<document>", 8), "<document>"),
        (TextRules("", "検", 8, ("。", "！")), "！"),
        (TextRules("", None, 8, ("",)), "''"),
    ],
    ids=["marker", "skiplist", "empty"],
)
def test_token_that_the_vocabulary_lacks_is_refused_by_name(tokenizer, rules, token):
    with pytest.raises(BundleError, match=r"bundle\.json names the token .*, which tokenizer\.json") as raised:
        TextTokenizer(tokenizer, rules)
    assert token in str(raised.value)
