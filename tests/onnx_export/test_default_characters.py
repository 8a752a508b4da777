"""The model inside tells characters apart, knows their variants, and does not mind disfigured text."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tansaku import Encoder

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
TEXT = "髙橋さんは、東京の「図書館」（とうきょう）で１９６４年に、バナナと人々のことをABCと学んだ。"


@pytest.fixture
def cases(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.support.characters")


@pytest.fixture
def noises(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.support.noise").NOISES


@pytest.mark.parametrize(("text", "unread"), [("鰯と𠮷野家と\ue000", False), ("\u200b\u200d\ufe0f", True)])
def test_only_text_without_any_visible_character_is_unread(default_encoder, text, unread):
    (tokenized,) = default_encoder.tokenize_documents([text])
    assert tokenized.unread is unread
    assert default_encoder.encode_documents([text])[0].shape[0] > 0


def same(encoder: Encoder, a: str, b: str) -> bool:
    first, second = encoder.tokenize_documents([a, b])
    return np.array_equal(first.ids, second.ids)


@pytest.mark.parametrize(
    "characters",
    [
        "鰯鮒鯵鱚鱈鰹鱸",
        "栂椙栃杣榊樒橲",
        "😀😢🎌🗾🍣🍱🐟",
        "𠀋𡈽𡚴𣏕𥔎𥶡𧄍",
        "가갸거겨고교구",
        "ꦏꦐꦑꦒꦓꦔꦕ",
        "\ue000\ue001\ue002\ue003",
    ],
    ids=ascii,
)
def test_documents_that_differ_in_one_character_are_told_apart(default_encoder, cases, characters):
    for template in cases.TEMPLATES:
        assert cases.told_apart(default_encoder, list(characters), template) == 1


def test_a_name_is_found_in_its_other_form(default_encoder, cases):
    for template in cases.TEMPLATES:
        assert cases.variants_found(default_encoder, cases.NAMES, template) == 1


def test_no_character_of_the_jis_standards_is_unknown(default_encoder, cases):
    characters = {c for codec in ("iso2022_jp", "shift_jis_2004", "cp932") for c in cases.written(codec)}
    unknown = 3
    for character, tokens in zip(characters, default_encoder.tokenize_documents(list(characters)), strict=True):
        assert unknown not in tokens.ids, character
        # start, the sign for a space, one token, end; a leading mark may join the sign for a space
        assert len(tokens.ids) <= 4, character


@pytest.mark.parametrize(
    "noise",
    [
        "variation selectors", "variation selectors of emoji", "zero-width spaces",
        "zero-width joiners, byte order marks", "soft hyphens", "NUL", "spaces between all characters",
        "full-width spaces between all",
        "line breaks, a tenth of the places", "line breaks and indents", "full width", "half width", "decomposed (NFD)",
        "old forms of kanji",
    ],
)  # fmt: skip
def test_disfigured_text_has_the_tokens_of_clean_text(default_encoder, noises, noise):
    assert noises[noise](TEXT) != TEXT
    assert same(default_encoder, noises[noise](TEXT), TEXT)


def test_iteration_marks_of_kana_are_read(default_encoder):
    assert same(default_encoder, "こゝろとすゞめ、バナヽ", "こころとすずめ、バナナ")


@pytest.mark.parametrize(
    "text",
    ["ꦏ", "\ud800\udfff", "\ue000" * 300, "か" + "\u0301" * 10_000, "\u3099" * 10_000, "\u200b\ufe0f", "\0", "\ufffd"],
    ids=ascii,
)
def test_no_text_fails_or_has_no_vectors(default_encoder, text):
    for vectors in (*default_encoder.encode_documents([text]), *default_encoder.encode_queries([text])):
        assert len(vectors)
        assert np.isfinite(vectors).all()


def test_tokens_stand_where_they_stand_in_the_text_as_given(default_encoder):
    text = "髙\ufe00橋 國 男"
    assert [text[start:end] for start, end in filter(None, default_encoder.document_spans(text))] == list("髙橋國男")
