"""Long texts cut into passages: by hand, for all texts under cheap counts, and with the model inside."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tansaku import Document, InputError
from tansaku.indexer.read.passages import _Job, _split, check_room, split_documents
from tansaku.onnx_export.encode.find_bundle import DEFAULT_BUNDLE
from tansaku.plugin.cli.demo import SAMPLE

deterministic = settings(deadline=None, derandomize=True, max_examples=150)


# Cheap counts. A real tokenizer's count of a text is near the sum over its parts, not equal to it.


def per_character(texts):
    return [len(text) for text in texts]


def per_pair(texts):
    """Less for a text than for its parts together."""
    return [(len(text) + 1) // 2 for text in texts]


def growing(texts):
    """More for a text than for its parts together."""
    return [len(text) + max(0, len(text) - 12) for text in texts]


def by_kind(texts):
    """None for white space, three for what is beyond the BMP, and one for the text as such."""
    return [1 + sum(0 if c.isspace() else 3 if c > "\uffff" else 1 for c in text) for text in texts]


def split_text(text, room, count):
    """The pieces of a text with their white space, which passages are without."""
    return _split([_Job(text, "", room, room)], count)[0]


counts = st.sampled_from([per_character, per_pair, growing, by_kind])
texts = st.text(
    st.sampled_from('あ漢ｶaZ9。．！？!?.、，,・」）")( \n\t　か\u3099\u309aﾞe\u0301\ufe0f\u200d👩💻👍\U0001f3fd'),
    max_size=80,
)
rooms = st.integers(1, 40)
full = pytest.mark.parametrize("count", [per_character, per_pair, growing, by_kind])


def attached(text, position):
    """Whether text[position] belongs to the character before it."""
    character = text[position]
    return (
        unicodedata.category(character).startswith("M")
        or unicodedata.name(character, "") == "ZERO WIDTH JOINER"
        or unicodedata.name(character, "").startswith(("EMOJI MODIFIER", "HALFWIDTH KATAKANA VOICED"))
        or unicodedata.name(text[position - 1], "") == "ZERO WIDTH JOINER"
    )


def has_place_to_cut(piece):
    """Whether there is a visible character, not the first one, that belongs to none before it."""
    first = len(piece) - len(piece.lstrip())
    return any(not piece[i].isspace() and not attached(piece, i) for i in range(first + 1, len(piece)))


class TestSentences:
    @pytest.mark.parametrize(
        ("text", "room", "pieces"),
        [
            ("短い文。長くない。", 9, ["短い文。長くない。"]),
            ("一つ目。二つ目。三つ目。", 8, ["一つ目。二つ目。", "三つ目。"]),
            ("一つ目。二つ目。三つ目。", 7, ["一つ目。", "二つ目。", "三つ目。"]),
            ("ほんと！？はい！そう?いや!", 9, ["ほんと！？はい！", "そう?いや!"]),
            ("「行く。」と言う。（了。）終", 6, ["「行く。」", "と言う。", "（了。）終"]),
            ("見出し\n\n本文は続く\n次", 6, ["見出し\n\n", "本文は続く\n", "次"]),
            ("見出し\n\n本文は続く\n次", 8, ["見出し\n\n", "本文は続く\n次"]),
            ("One two. Three. Four", 16, ["One two. Three. ", "Four"]),
            ('He said "no." Then left.', 20, ['He said "no." ', "Then left."]),
            ("次だ．値は３．１４だ．", 9, ["次だ．", "値は３．１４だ．"]),
            ("次。版は3.14です。", 10, ["次。", "版は3.14です。"]),
            ("次。ex.jp/?q=1 です。", 15, ["次。", "ex.jp/?q=1 です。"]),
            ("\n\n\n\n一つ目。", 6, ["\n\n\n\n一", "つ目。"]),
        ],
    )
    def test_cut(self, text, room, pieces):
        assert split_text(text, room, per_character) == pieces

    @pytest.mark.parametrize(
        "end", ["。", "．", "！", "？", "!", "?", "｡", "\n", "\r\n", "。」", "！』）", '?"', "。　"]
    )
    def test_an_end_belongs_to_its_sentence(self, end):
        assert split_text(f"前の文{end}後の文", 6, per_character) == [f"前の文{end}", "後の文"]

    @deterministic
    @given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(10, 30))
    def test_as_many_sentences_as_fit(self, lengths, room):
        sentences = ["文" * length + "。" for length in lengths]
        expected = [""]
        for sentence in sentences:
            if len(expected[-1] + sentence) > room:
                expected.append("")
            expected[-1] += sentence
        assert split_text("".join(sentences), room, per_character) == expected

    def test_what_the_counter_adds_to_each_text_is_not_added_for_each_sentence(self):
        assert split_text("一つ目。二つ目。三つ目。", 9, by_kind) == ["一つ目。二つ目。", "三つ目。"]

    def test_pieces_are_counted_whole_though_their_sentences_seem_to_fit(self):
        # 8 characters are 8 tokens, 16 are 20, 24 are 36: by sentences and pairs, three would seem to have 32.
        assert split_text("八文字の文です。" * 3, 33, growing) == ["八文字の文です。", "八文字の文です。" * 2]


class TestLongSentences:
    @pytest.mark.parametrize(
        ("text", "room", "pieces"),
        [
            ("赤い、青い、白い花。次。", 6, ["赤い、青い、", "白い花。次。"]),
            ("赤い，青い,黒い・白い", 6, ["赤い，青い,", "黒い・白い"]),
            ("one two three", 8, ["one two ", "three"]),
            ("値は約1,000,000円だ", 12, ["値は約1,00", "0,000円だ"]),
        ],
    )
    def test_are_cut_at_commas_and_white_space(self, text, room, pieces):
        assert split_text(text, room, per_character) == pieces

    def test_and_else_between_characters_into_even_parts(self):
        assert split_text("短い。" + "あ" * 25 + "、終。", 10, per_character) == [
            "短い。",
            "あ" * 8,
            "あ" * 9,
            "あ" * 8 + "、",
            "終。",
        ]

    @pytest.mark.parametrize(
        "whole", ["か\u3099", "は\u309a", "ｶﾞ", "e\u0301\u0323", "葛\U000e0100", "❤\ufe0f", "👩\u200d💻", "👍\U0001f3fd"]
    )
    def test_never_within_what_is_one_character_to_the_reader(self, whole):
        assert set(split_text(whole * 9, len(whole), per_character)) == {whole}
        assert split_text(whole * 9, 1, per_character) == [whole] * 9

    def test_a_sentence_end_with_a_mark_upon_it_is_no_place_to_cut(self):
        assert split_text("ああ。\u3099いい", 4, per_character)[0] == "ああ。\u3099"


class TestAllTexts:
    @deterministic
    @given(texts, rooms, counts)
    def test_the_pieces_make_up_the_text(self, text, room, count):
        assert "".join(split_text(text, room, count)) == text

    @deterministic
    @given(texts, rooms, counts)
    def test_pieces_that_have_too_many_tokens_cannot_be_cut(self, text, room, count):
        for piece in split_text(text, room, count):
            assert count([piece]) <= [room] or not has_place_to_cut(piece)

    @deterministic
    @given(texts.filter(str.strip), rooms, counts)
    def test_no_piece_is_blank_or_begins_within_a_character(self, text, room, count):
        pieces = split_text(text, room, count)
        assert all(piece.strip() for piece in pieces)
        start = 0
        for piece in pieces[:-1]:
            start += len(piece)
            assert not attached(text, start)
            assert not text[start].isspace()

    @deterministic
    @given(texts, rooms, counts)
    def test_a_text_that_fits_is_one_piece(self, text, room, count):
        fits = count([text]) <= [room]
        if fits or not text.strip():
            assert split_text(text, room, count) == [text]
        elif has_place_to_cut(text):
            assert len(split_text(text, room, count)) > 1

    @deterministic
    @given(st.lists(texts.filter(str.strip), max_size=5), rooms, counts)
    def test_a_document_is_cut_the_same_alone_and_beside_others(self, many, room, count):
        documents = [Document(str(i), text, "題" * (i % 3)) for i, text in enumerate(many)]
        alone = [passage for document in documents for passage in split_documents([document], room, count)]
        assert split_documents(documents, room, count) == alone


class TestSize:
    @full
    @pytest.mark.parametrize(
        "unit", ["あ", "a", "漢字、", "word ", "文。", "\n", "か\u3099", "\u3099", "」", ".", "?a", " x"]
    )
    def test_what_is_counted_grows_with_the_length_and_not_its_square(self, unit, count):
        asked = []

        def watched(texts):
            asked.extend(map(len, texts))
            return count(texts)

        text = "あ" + unit * (100_000 // len(unit)) + "い"
        pieces = split_text(text, 300, watched)
        assert "".join(pieces) == text
        # In rounds: sentences, phrases, halves; each looks at a text twice or three times.
        assert sum(asked) < 20 * len(text)

    def test_the_counter_gets_no_more_than_a_stretch_of_a_long_text(self):
        longest = 0

        def watched(texts):
            nonlocal longest
            longest = max(longest, *map(len, texts))
            return per_pair(texts)

        pieces = split_text("あ" * 300_000, 500, watched)
        assert longest <= 16_000
        assert 300 <= len(pieces) <= 340

    def test_the_counter_gets_many_texts_at_once(self):
        calls = []

        def watched(texts):
            calls.append(len(texts))
            return per_character(texts)

        documents = [Document(str(i), "短くない文だ。" * 40) for i in range(50)]
        assert len(split_documents(documents, 20, watched)) == 50 * 20
        assert len(calls) <= 6


class TestDocuments:
    def test_passages_have_an_id_a_place_and_all_of_the_document(self):
        document = Document("d1", " 一つ目。\n二つ目。 三つ目。\n", "題", {"year": 794})
        assert split_documents([document], 12, per_character) == [
            Document("d1#0", "一つ目。\n二つ目。", "題", {"year": 794}, parent_id="d1", passage=0),
            Document("d1#1", "三つ目。", "題", {"year": 794}, parent_id="d1", passage=1),
        ]

    def test_a_document_that_fits_is_one_passage(self):
        assert split_documents([Document("d1", "短い。")], 9, per_character) == [
            Document("d1#0", "短い。", parent_id="d1", passage=0)
        ]

    def test_the_counter_is_asked_for_no_blank_text(self):
        def strict(texts):
            assert all(text.strip() for text in texts)
            return per_character(texts)

        documents = [Document("d1", "\n一つ目。\n \n二つ目。\n", " "), Document("d2", "短い。")]
        assert [p.text for p in split_documents(documents, 10, strict)] == ["一つ目。", "二つ目。", "短い。"]
        assert split_text(" \n", 1, strict) == [" \n"]

    def test_none_of_none(self):
        assert split_documents([], 9, per_character) == []

    @deterministic
    @given(
        st.text("文。、 ", min_size=1, max_size=60).filter(str.strip), st.text("題", max_size=30), st.integers(9, 40)
    )
    def test_the_title_takes_its_part_of_the_room_up_to_two_thirds(self, text, title, room):
        third = -(-room // 3)
        for passage in split_documents([Document("d1", text, title)], room, per_character):
            if len(title) + 1 <= room - third:
                assert len(passage.encoded_text) <= room
            else:
                assert len(passage.text) <= third

    def test_a_title_that_leaves_less_than_a_third_leaves_a_third(self):
        document = Document("d1", "一つ目。二つ目。三つ目。", "題" * 100)
        assert [passage.text for passage in split_documents([document], 24, per_character)] == [
            "一つ目。二つ目。",
            "三つ目。",
        ]

    @pytest.mark.parametrize("room", [0, -1])
    def test_no_room_is_refused(self, room):
        with pytest.raises(InputError, match=f"passage_tokens is {room}; it must be a whole number of 1 or more"):
            split_documents([Document("d1", "文。")], room, per_character)
        with pytest.raises(InputError, match=f"passage_tokens is {room}; it must be a whole number of 1 or more"):
            split_documents([Document("d1", "文。")], room, per_character)

    def test_more_room_than_the_model_reads_is_refused(self):
        check_room(512, 512)
        with pytest.raises(InputError, match="room for 513 tokens; the model reads no more than 512"):
            check_room(513, 512)


# As the model inside reads them


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = Tokenizer.from_file(str(DEFAULT_BUNDLE / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@pytest.fixture(scope="module")
def count(tokenizer):
    return lambda texts: [len(e.ids) for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


@pytest.fixture(scope="module")
def long_documents():
    """The sample's paragraphs, 50 in one."""
    lines = (SAMPLE / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    paragraphs = [json.loads(line) for line in lines]
    return [
        Document(
            str(start), between.join(p["text"] for p in paragraphs[start : start + 50]), paragraphs[start]["title"]
        )
        for start, between in [(0, "\n"), (50, ""), (100, "\n\n"), (150, " ")]
    ]


class TestModelInside:
    def test_no_passage_is_cut_and_few_have_much_room_left(self, default_encoder, tokenizer, count, long_documents):
        max_length = default_encoder.bundle.document.max_length
        made = split_documents(long_documents, max_length - tokenizer.num_special_tokens_to_add(is_pair=False), count)
        read = default_encoder.tokenize_documents([passage.encoded_text for passage in made])
        assert not any(text.truncated for text in read)
        last = {passage.parent_id: i for i, passage in enumerate(made)}.values()
        lengths = [len(text.ids) for i, text in enumerate(read) if i not in last]
        assert sum(lengths) / len(lengths) > 0.9 * max_length

    def test_a_count_that_includes_start_and_end_does_as_well(self, default_encoder, tokenizer, long_documents):
        def count(texts):
            return [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]

        made = split_documents(long_documents, 128, count)
        lengths = [len(text.ids) for text in default_encoder.tokenize_documents([p.encoded_text for p in made])]
        assert max(lengths) in range(126, 129)

    def test_all_of_the_text_is_in_the_passages_in_order(self, count, long_documents):
        made = split_documents(long_documents, 200, count)
        for document in long_documents:
            texts = [passage.text for passage in made if passage.parent_id == document.id]
            assert "".join("".join(texts).split()) == "".join(document.text.split())

    def test_passages_end_where_sentences_end(self, count, long_documents):
        made = split_documents(long_documents, 200, count)
        assert sum(passage.text.endswith(("。", "」", "）", "！", "？")) for passage in made) > 0.9 * len(made)

    def test_without_punctuation_none_is_cut_either(self, default_encoder, count, long_documents):
        text = "".join(c for document in long_documents for c in document.text if c.isalnum())
        made = split_documents([Document("d1", text, "題")], 510, count)
        read = default_encoder.tokenize_documents([passage.encoded_text for passage in made])
        assert not any(tokenized.truncated for tokenized in read)
        assert "".join(passage.text for passage in made) == text
