"""The text rules for Japanese in checkpoints of one's own, with MeCab and without."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, normalizers

from tansaku import BundleError, load_checkpoint
from tansaku.onnx_export.convert.japanese_text import with_japanese_text
from tansaku.onnx_export.encode.segmenter import (
    MECAB_AFTER_NORMALIZER,
    MECAB_UNIDIC_LITE,
    MecabSegmenter,
    load_segmenter,
)
from tansaku.onnx_export.encode.tokenize import TextTokenizer

from ..support import checkpoints

PAIRS = [
    ("東 京 都 の 図 書 館", "東京都の図書館"),
    ("圖書\ufe00館", "図書館"),
    ("髙橋\u200bさん", "高橋さん"),
    ("検\n索", "検索"),
]


@pytest.fixture(scope="module")
def mecab(tmp_path_factory):
    return load_checkpoint(checkpoints.stanford(tmp_path_factory.mktemp("mecab") / "model"))


def tokenizer_of(checkpoint) -> TextTokenizer:
    return TextTokenizer(
        checkpoint.tokenizer, checkpoint.document, load_segmenter(checkpoint.segmenter, checkpoint.tokenizer)
    )


def ids(checkpoint, text):
    return tokenizer_of(checkpoint)([text])[0].ids.tolist()


@pytest.mark.parametrize(("text", "clean"), PAIRS, ids=ascii)
def test_the_rules_run_before_mecab(mecab, text, clean):
    assert mecab.segmenter == MECAB_UNIDIC_LITE
    assert with_japanese_text(mecab).segmenter == MECAB_AFTER_NORMALIZER
    assert ids(mecab, text) != ids(mecab, clean)
    assert ids(with_japanese_text(mecab), text) == ids(mecab, clean)


@pytest.mark.parametrize(("text", "clean"), PAIRS, ids=ascii)
def test_the_rules_run_before_the_normalizer_of_a_tokenizer(tmp_path, text, clean):
    checkpoint = load_checkpoint(checkpoints.stanford(tmp_path / "bert", tokenizer="bert"))
    ruled = with_japanese_text(checkpoint)
    assert ruled.segmenter is None
    assert ids(ruled, text) == ids(checkpoint, clean)
    assert ruled.origin["text_rules"] == "japanese 1"
    assert "text_rules" not in checkpoint.origin


def test_spans_are_those_of_the_text_as_it_was_given(mecab):
    text = "検 索 の 文\u200b書"
    tokenizer = tokenizer_of(with_japanese_text(mecab))
    found = [text[start:end] for start, end in filter(None, tokenizer.spans(text))]
    assert found == ["検 索", "の", "文", "書"]


def test_origins_are_found_through_the_rules():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace("x", ""), normalizers.Replace("国", "くに")])
    normal, origins = MecabSegmenter([], tokenizer).origins("ax国ｂ\n")
    assert normal == "aくにb\n"
    assert origins == [(0, 1), (2, 3), (2, 3), (3, 4), (4, 5)]


def test_rules_that_are_not_there_are_named():
    with pytest.raises(BundleError, match="after the normalizer' needs a normalizer, and the tokenizer has none"):
        load_segmenter(MECAB_AFTER_NORMALIZER, Tokenizer(models.BPE()))
