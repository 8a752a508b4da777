"""The characters that the default model's vocabulary lacks, and the table of variants; Unicode's files in small."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tansaku import MissingExtraError
from tansaku.training.default_model import characters, variants
from tansaku.training.default_model.characters import initial_rows, new_characters, normalizer
from tansaku.training.default_model.e5_weights import E5Weights

from ..support.vocabulary import vocabulary

PIECES = vocabulary("▁sardine", "▁fish", *"魚鯨木林国鷗한ع")
HIDDEN = 32
RADICALS = {"魚": "195.0", "鯨": "195.8", "鰯": "195.10", "鮒": "195.5", "木": "75.0", "林": "75.4", "栂": "75.5"}
UNIHAN = {
    ("RadicalStrokeCounts", "kRSUnicode"): list(RADICALS.items()),
    ("Readings", "kDefinition"): [("鰯", "sardine"), ("鮒", "fish")],
}
FILES = {"emoji/emoji-data.txt": ["# emoji", "0030..0039 ; Emoji", "1F600..1F601  ; Emoji # faces", "1F600 ; Other"]}


@pytest.fixture(autouse=True)
def unicode_files(monkeypatch):
    def unihan(file, field):
        return UNIHAN.get((file, field), [])

    monkeypatch.setattr(characters, "unihan", unihan)
    monkeypatch.setattr(characters, "unicode_file", FILES.__getitem__)


@pytest.fixture(scope="module")
def weights() -> E5Weights:
    table = np.random.default_rng(0).standard_normal((len(PIECES), HIDDEN)).astype(np.float32)
    scores = np.full(len(PIECES), -5, np.float32)
    return E5Weights(HIDDEN, 1, 1, 1, 64, 1e-5, {"emb.word": table}, PIECES, scores, 0, 2, 1, 3)


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_what_the_base_model_has_is_taken_over_and_the_rest_is_made(weights):
    taken, made = new_characters(weights, known={"魚", "木", "国", "鯨", "林"})
    assert taken == ["한"]
    assert {"鰯", "鮒", "栂", "😀", "鴎", "≒", "é"} <= set(made)
    # Variants and compatibility forms become other characters; Arabic becomes its bytes.
    assert not {"髙", "國", "①", "ｱ", "ع", "魚", "鷗", "\u3000"} & {*taken, *made}


def test_made_embeddings_are_as_long_as_those_of_kanji_and_all_differ(weights):
    rows, octets = initial_rows(["鰯", "鮒", "栂", "😀"], weights)
    every = np.concatenate([rows, octets])
    kanji = weights.tensors["emb.word"][7:13]
    assert np.linalg.norm(every, axis=1).mean() == pytest.approx(np.linalg.norm(kanji, axis=1).mean(), rel=0.2)
    similar = [cosine(a, b) for i, a in enumerate(every) for b in every[:i]]
    assert max(similar) < 0.95
    again, _ = initial_rows(["鰯", "鮒", "栂", "😀"], weights)
    np.testing.assert_array_equal(rows, again)


def test_a_made_embedding_leans_on_variants_or_else_on_definition_and_radical(weights):
    table = dict(zip(PIECES, weights.tensors["emb.word"], strict=True))
    kanji = [table[piece] for piece in "魚鯨木林国鷗"]
    mean = np.mean(kanji, axis=0)
    (gull, sardine, hemlock), _ = initial_rows(["鴎", "鰯", "栂"], weights)
    assert cosine(gull - mean, table["鷗"] - mean) > 0.6
    fish, trees = (np.mean([table[piece] for piece in pieces], axis=0) - mean for pieces in ("魚鯨", "木林"))
    assert cosine(sardine - mean, fish) > cosine(hemlock - mean, fish)
    assert cosine(hemlock - mean, trees) > cosine(sardine - mean, trees)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("9～10時", "9〜10時"),
        ("東\u2581京\ufffd都", "東 京 都"),
        ("  東京  ", "東京"),
        ("東\n\n京", "東京"),
        ("a \u3000 b", "a b"),
    ],
)
def test_the_default_models_rules_are_those_for_japanese_and_those_of_its_base(text, normal):
    assert normalizer().normalize_str(text) == normal


def test_a_table_of_variants_has_roots_that_are_no_variants(monkeypatch):
    packages = {
        "kyujipy": SimpleNamespace(
            BasicConverter=lambda: SimpleNamespace(kyujitai_to_shinjitai_database={"圖": "図", "辨": "辧"})
        ),
        "ja_itaiji": SimpleNamespace(
            Itaiji=SimpleNamespace(dictionary={"㕞": ["㕞", "刷"], "佘": ["佘", "余", "蛇"], "柿": ["柿", "木"]})
        ),
    }
    fields = {
        "kJinmeiyoKanji": [("峯", "2010:U+5CF0"), ("峰", "2010")],
        "kSemanticVariant": [("㕞", "U+5237<kMatthews"), ("佘", "U+4F59 U+86C7"), ("柿", "U+6728"), ("〡", "U+4E00")],
    }
    monkeypatch.setattr(variants, "_package", packages.__getitem__)
    monkeypatch.setattr(variants, "unihan", lambda _, field: fields[field])
    monkeypatch.setattr(
        variants, "unicode_file", {"EquivalentUnifiedIdeograph.txt": ["2E85 ; 4EBB", "# 2E80"]}.__getitem__
    )
    table = variants.table()
    assert table["圖"] == ("図", "kyujipy")
    assert table["辨"][0] == table["辧"][0] == "弁"
    assert table["峯"][0] == "峰"
    assert table["㕞"] == ("刷", "ja-itaiji, Unihan")
    assert table["⺅"] == ("亻", "Unicode EquivalentUnifiedIdeograph")
    assert not {"佘", "柿", "〡", "峰"} & table.keys()
    assert not table.keys() & {usual for usual, _ in table.values()}


def test_a_missing_package_is_named():
    with pytest.raises(MissingExtraError, match=r"no_such_package: pip install 'tansaku\[base-model\]'"):
        variants._package("no_such_package")
