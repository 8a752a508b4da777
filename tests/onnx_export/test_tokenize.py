"""Text → token ids by a bundle's rules: markers, prefixes, cuts, masks, skipped tokens, and texts of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, processors

from tansaku import BundleError, Expansion, InputError, TextRules
from tansaku.onnx_export.encode.tokenize import TextTokenizer
from tansaku.training.default_model.vocabulary import build_tokenizer

from ..support.vocabulary import ASCII, KANA, vocabulary

PIECES = vocabulary("。", "、", "ー", *ASCII, *KANA, *"検索質問文書", "<query>", "検索")
ID = {piece: i for i, piece in enumerate(PIECES)}
START, PAD, END, UNKNOWN, SPACE = range(5)
MARKER = ID["<query>"]
MASK = ID["<mask>"]
RULES = ["fixed", "minimum", "paper", "shipped"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build_tokenizer(PIECES, np.full(len(PIECES), -5, np.float32))


def ids(*pieces: str) -> list[int]:
    return [ID[piece] for piece in pieces]


def tokenize(
    tokenizer: Tokenizer, text: str, prefix: str = "", marker: str | None = None, length=64, skiplist=(), **more
):
    (tokenized,) = TextTokenizer(tokenizer, TextRules(prefix, marker, length, skiplist, **more))([text])
    return tokenized


# The rules


def test_text_stands_between_start_and_end(tokenizer):
    tokenized = tokenize(tokenizer, "検索、")
    assert tokenized.ids.tolist() == [START, SPACE, *ids("検索", "、"), END]
    assert tokenized.ids.dtype == np.int64
    assert tokenized.attention.tolist() == [1] * 5
    assert tokenized.attention.dtype == np.int64
    assert tokenized.keep.dtype == bool
    assert tokenized.keep.all()
    assert tokenized.truncated is False


@pytest.mark.parametrize(("text", "unread"), [("検索", False), ("検索鰯", True), ("鰯", True), ("\u200b \u200d", True)])
def test_text_that_the_tokenizer_does_not_know_is_said_to_be_unread(tokenizer, text, unread):
    assert tokenize(tokenizer, text).unread is unread


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
    assert len(tokenized.keep) == len(tokenized.attention) == length
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
        np.testing.assert_array_equal(tokenized.attention, alone.attention)
        np.testing.assert_array_equal(tokenized.keep, alone.keep)
        assert tokenized.truncated == alone.truncated


def test_no_texts_give_no_tokens(tokenizer):
    assert TextTokenizer(tokenizer, TextRules("", None, 8))([]) == []


@pytest.mark.parametrize("marker", [None, "<query>"])
@pytest.mark.parametrize("prefix", ["", "質問:"])
def test_count_includes_start_marker_prefix_and_end_but_no_masks_and_no_cut(tokenizer, marker, prefix):
    rules = TextRules(prefix, marker, 8, ("。",), Expansion("<mask>", "fixed", 30, False))
    counted = TextTokenizer(tokenizer, rules).count(["検索。", "文" * 100])
    fixed = 3 + len(prefix) + (marker is not None)  # start, space and end
    assert counted == [fixed + 2, fixed + 100]


def test_count_of_no_texts_is_nothing(tokenizer):
    assert TextTokenizer(tokenizer, TextRules("", None, 8)).count([]) == []


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    text=st.text(min_size=1).filter(str.strip),
    prefix=st.sampled_from(["", "質問:"]),
    marker=st.sampled_from([None, "<query>"]),
    length=st.integers(5, 24),
    strip=st.booleans(),
)
def test_a_text_is_cut_where_its_count_is_more_than_the_longest_length(tokenizer, text, prefix, marker, length, strip):
    made = TextTokenizer(tokenizer, TextRules(prefix, marker, length, strip=strip))
    (count,) = made.count([text])
    (tokenized,) = made([text])
    assert tokenized.truncated == (count > length)
    assert len(tokenized.ids) == min(count, length)


@pytest.mark.parametrize(
    ("texts", "message"), [(["文", " "], "text 1 is empty"), ([""], "text 0 is empty"), (["文", 3], "text 1 is int")]
)
def test_count_refuses_what_a_call_refuses(tokenizer, texts, message):
    made = TextTokenizer(tokenizer, TextRules("", None, 8))
    for refused in (made, made.count):
        with pytest.raises(InputError, match=message):
            refused(texts)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    text=st.text(min_size=1).filter(str.strip),
    marker=st.sampled_from([None, "<query>"]),
    length=st.integers(3, 24),
    expansion=st.none()
    | st.builds(Expansion, st.just("<mask>"), st.sampled_from(RULES), st.integers(1, 24), st.booleans()),
)
def test_every_text_keeps_to_the_rules(tokenizer, text, marker, length, expansion):
    skiplist = ("▁", "。", "!", "<mask>")
    tokenized = tokenize(tokenizer, text, marker=marker, length=length, skiplist=skiplist, expansion=expansion)
    uncut = tokenize(tokenizer, text, marker=marker, length=10_000, skiplist=skiplist)
    head = 1 if marker is None else 2
    tokens = min(length, len(uncut.ids))
    body, masks = tokenized.ids[:tokens], tokenized.ids[tokens:]
    assert body[:head].tolist() == [START, MARKER][:head]
    assert body[-1] == END
    assert not set(body[head:-1].tolist()) & {START, PAD, END, MARKER, MASK}
    assert tokenized.truncated == (len(uncut.ids) > length)
    assert body[~tokenized.keep[:tokens]].tolist() == [token for token in body.tolist() if PIECES[token] in skiplist]
    assert tokenized.attention[:tokens].all()
    # Masks
    assert len(masks) == (min(expansion.masks(tokens), length - tokens) if expansion else 0)
    assert (masks == MASK).all()
    assert tokenized.keep[tokens:].all()
    assert (tokenized.attention[tokens:] == int(bool(expansion and expansion.attend))).all()
    assert len(tokenized.ids) == len(tokenized.attention) == len(tokenized.keep) <= length
    assert tokenized.ids.dtype == tokenized.attention.dtype == np.int64
    assert tokenized.keep.dtype == bool


# Masks


@pytest.mark.parametrize("attend", [False, True])
def test_masks_stand_behind_the_end_and_are_attended_to_if_the_rules_say_so(tokenizer, attend):
    tokenized = tokenize(tokenizer, "検索、", expansion=Expansion("<mask>", "fixed", 8, attend))
    assert tokenized.ids.tolist() == [START, SPACE, *ids("検索", "、"), END, MASK, MASK, MASK]
    assert tokenized.attention.tolist() == [1, 1, 1, 1, 1, *[int(attend)] * 3]
    assert tokenized.keep.all()
    assert tokenized.truncated is False
    assert tokenized.ids.dtype == tokenized.attention.dtype == np.int64
    assert tokenized.keep.dtype == bool


@pytest.mark.parametrize(
    ("rule", "length", "masks"), [("paper", 32, 27), ("shipped", 32, 8), ("fixed", 7, 2), ("minimum", 5, 0)]
)
def test_rule_decides_the_number_of_masks(tokenizer, rule, length, masks):
    tokenized = tokenize(tokenizer, "検索、", expansion=Expansion("<mask>", rule, length))
    assert tokenized.ids.tolist() == [START, SPACE, *ids("検索", "、"), END, *[MASK] * masks]
    assert len(tokenized.keep) == len(tokenized.attention) == 5 + masks


def test_marker_counts_among_the_tokens_that_the_rule_sees(tokenizer):
    without, with_marker = (
        tokenize(tokenizer, "文" * 20, marker=marker, expansion=Expansion("<mask>", "paper"))
        for marker in (None, "<query>")
    )
    assert (without.ids == MASK).sum() == 32 - 23
    assert (with_marker.ids == MASK).sum() == 32 - 24
    longer = tokenize(tokenizer, "文" * 21, marker="<query>", expansion=Expansion("<mask>", "paper"))
    assert (longer.ids == MASK).sum() == 8


def test_skiplist_drops_no_mask(tokenizer):
    tokenized = tokenize(
        tokenizer, "検索。", skiplist=("<mask>", "。", "</s>"), expansion=Expansion("<mask>", "fixed", 8)
    )
    assert tokenized.ids.tolist() == [START, SPACE, *ids("検索", "。"), END, MASK, MASK, MASK]
    assert tokenized.keep.tolist() == [True, True, True, False, False, True, True, True]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("characters", "longest"), [(1, 4), (2, 8), (5, 9), (5, 12), (9, 12), (10, 12), (60, 12)])
def test_text_and_masks_together_are_no_longer_than_the_longest_length(tokenizer, rule, characters, longest):
    tokenized = tokenize(tokenizer, "文" * characters, length=longest, expansion=Expansion("<mask>", rule, 64))
    tokens = min(characters + 3, longest)
    assert tokenized.ids[:tokens].tolist() == [START, SPACE, *ids("文") * (tokens - 3), END]
    masks = min(8, longest - tokens) if rule == "shipped" else longest - tokens
    assert tokenized.ids[tokens:].tolist() == [MASK] * masks
    assert len(tokenized.keep) == len(tokenized.attention) == tokens + masks
    assert tokenized.truncated == (characters + 3 > longest)


@pytest.mark.parametrize("characters", [1, 12, 13, 14, 100])
def test_fixed_length_fills_up_and_cuts(tokenizer, characters):
    tokenized = tokenize(tokenizer, "文" * characters, length=16, expansion=Expansion("<mask>", "fixed", 16))
    assert len(tokenized.ids) == 16
    assert tokenized.ids[:2].tolist() == [START, SPACE]
    assert tokenized.ids.tolist().index(END) == min(characters + 2, 15)
    assert tokenized.truncated == (characters > 13)


@pytest.mark.parametrize("rule", ["paper", "shipped", "minimum"])
@pytest.mark.parametrize("characters", [1, 29, 30, 61, 200, 497, 508, 509])
def test_other_rules_cut_nothing_up_to_the_longest_length(tokenizer, rule, characters):
    tokenized = tokenize(tokenizer, "文" * characters, length=512, expansion=Expansion("<mask>", rule, 32))
    assert tokenized.ids[: characters + 3].tolist() == [START, SPACE, *ids("文") * characters, END]
    assert (tokenized.ids[characters + 3 :] == MASK).all()
    assert len(tokenized.ids) <= 512
    assert not tokenized.truncated


def test_each_text_of_a_batch_has_its_own_masks(tokenizer):
    texts = ["文" * n for n in (1, 20, 40)]
    rules = TextRules("", None, 512, expansion=Expansion("<mask>", "paper"))
    assert [len(text.ids) for text in TextTokenizer(tokenizer, rules)(texts)] == [32, 32, 64]


def test_marker_prefix_and_masks_go_together(tokenizer):
    tokenized = tokenize(
        tokenizer,
        "\u3000文書。\n",
        prefix="質問:",
        marker="<query>",
        length=14,
        skiplist=("。",),
        expansion=Expansion("<mask>", "fixed", 14),
        strip=True,
    )
    body = [START, MARKER, SPACE, *ids("質", "問", ":", "文", "書", "。"), END]
    assert tokenized.ids.tolist() == [*body, *[MASK] * 4]
    assert tokenized.attention.tolist() == [1] * 10 + [0] * 4
    assert tokenized.keep.tolist() == [True] * 8 + [False] + [True] * 5


def test_text_that_spells_the_mask_gets_no_mask_for_it(tokenizer):
    tokenized = tokenize(tokenizer, "<mask>検索", expansion=Expansion("<mask>", "minimum", 4))
    assert MASK not in tokenized.ids


# White space around a text


@pytest.mark.parametrize("space", [" ", "\n", "\t\r\n ", "\u3000", "\u00a0\u2003", "\x1c", "\u0085"], ids=ascii)
def test_white_space_around_a_text_is_taken_off_if_the_rules_say_so(space):
    seen = []

    def segment(text):
        seen.append(text)
        return ["検"]

    text = f"{space}検{space}索{space}"
    for strip in (True, False):
        TextTokenizer(wordpiece(), TextRules("> ", None, 8, strip=strip), segment)([text])
    assert seen == [f"> 検{space}索", f"> {text}"]


# Words first


def wordpiece() -> Tokenizer:
    """A tokenizer for words: it splits them into pieces of its own, never at white space."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[Q]", "検索", "検", "##索", "文書", "##を", "a", "##b"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token=pieces[1]))
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def words(text: str, rules: TextRules | None = None) -> list[str]:
    """The tokens of a text that is cut at full stops."""
    tokenizer = wordpiece()
    (tokenized,) = TextTokenizer(tokenizer, rules or TextRules("", None, 64), lambda text: text.split("。"))([text])
    assert len(tokenized.ids) == len(tokenized.keep) == len(tokenized.attention)
    return [str(tokenizer.id_to_token(token)) for token in tokenized.ids.tolist()]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("検索。文書", ["検索", "文書"]),
        ("検。索", ["検", "[UNK]"]),
        ("検索。文書を。ab", ["検索", "文書", "##を", "a", "##b"]),
        ("[MASK]。検", ["[MASK]", "検"]),
        ("検索 文書", ["[UNK]"]),  # one word, whatever white space it holds
    ],
)
def test_segmenter_decides_where_words_begin(text, pieces):
    assert words(text) == ["[CLS]", *pieces, "[SEP]"]


def test_text_without_words_leaves_start_and_end():
    (tokenized,) = TextTokenizer(wordpiece(), TextRules("", None, 8), lambda text: [])(["\x01"])
    assert tokenized.ids.tolist() == [2, 3]


def test_rules_apply_to_words_too():
    rules = TextRules("ab。", "[Q]", 10, ("[UNK]",), Expansion("[MASK]", "fixed", 10), strip=True)
    assert words(" 検索。文書を\n", rules) == [
        *("[CLS]", "[Q]", "a", "##b", "検索", "文書", "##を", "[SEP]"),
        *("[MASK]", "[MASK]"),
    ]
    assert words("検。" * 20, rules) == ["[CLS]", "[Q]", "a", "##b", *["検"] * 5, "[SEP]"]


def test_segmenter_gets_each_text_once_without_lone_surrogates():
    seen = []

    def segment(text):
        seen.append(text)
        return [text]

    TextTokenizer(wordpiece(), TextRules("", None, 8), segment)(["検\ud800索", "文書", "検\udfff"])
    assert seen == ["検?索", "文書", "検?"]


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
        (TextRules("", None, 8, expansion=Expansion("[MASK]", "paper")), "[MASK]"),
    ],
    ids=["marker", "skiplist", "empty", "mask"],
)
def test_token_that_the_vocabulary_lacks_is_refused_by_name(tokenizer, rules, token):
    with pytest.raises(BundleError, match=r"name the token .*, which the tokenizer") as raised:
        TextTokenizer(tokenizer, rules)
    assert token in str(raised.value)
