"""Which regular expressions a tokenizer may have: those that take a time in proportion to the text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from tansaku import Bundle, BundleError, Encoder
from tansaku.onnx_export.encode.bundle import write_bundle
from tansaku.onnx_export.encode.find_bundle import DEFAULT_BUNDLE
from tansaku.onnx_export.encode.patterns import problem, slow_alternative

from .test_encoder import DIM, DOCUMENT, QUERY, make_bundle

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{ENDINGS}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize(
    "expression",
    [GPT2, LLAMA3, O200K, " {2,}", r"\s+", r"\n|\r|\t", "[0-9]", r"\p{Han}", "''|``", r"\d{3}", "(?:ab|c)", "x*", ""],
)
def test_those_of_real_tokenizers_are_allowed(expression):
    assert slow_alternative(expression) is None


@pytest.mark.parametrize(
    "expression",
    [
        "(a+)+$",
        "(a|a)*b",
        "(a|ab)+",
        "(?:a?){30}",
        "a?" * 30 + "a" * 30,
        r"\s*\s*x",
        r"\s+x",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+",
        "a{1,100000}",
        "a{500}",
        "(?=.)",
        "(?<=a*)b",
        r"(a)\1",
        ".*?b",
        "a+b|c",
        "[a[b]]+",
        "a++",
        "(?>a+)b",
        r"\G",
        r"\X+y",
        "(",
        "x" * 3_000,
        "((a))+",
    ],
)
def test_those_that_may_take_long_or_are_not_known_are_not(expression):
    assert slow_alternative(expression) is not None
    assert slow_alternative(rf"\d|{expression}") is not None


@settings(derandomize=True, deadline=2_000, max_examples=150)
@given(
    st.lists(st.sampled_from(["a", "b", ".", "(", ")", "|", "*", "+", "?", "{2,}", "[ab]", "(?:", r"\w"]), max_size=9),
    st.sampled_from(["a", "b", "ab", "aab"]),
)
def test_what_is_allowed_takes_no_time(parts, piece):
    expression = "".join(parts)
    try:
        split = pre_tokenizers.Split(Regex(expression), "isolated")
    except Exception:  # not a regular expression of Oniguruma
        return
    if slow_alternative(expression) is None:
        split.pre_tokenize_str(piece * 2_000 + "!")


@pytest.mark.parametrize("part", ["normalizer", "pre_tokenizer"])
def test_a_bundle_with_a_slow_one_is_refused_before_it_runs(tmp_path, part):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}))
    if part == "normalizer":
        tokenizer.normalizer = normalizers.Replace(Regex("(x+x+)+y"), "")
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(x+x+)+y"), "isolated")
    folder = make_bundle(tmp_path / "bundle")
    changed = json.loads((folder / "tokenizer.json").read_bytes())
    changed[part] = json.loads(tokenizer.to_str())[part]
    (folder / "tokenizer.json").write_text(json.dumps(changed), encoding="utf-8")
    write_bundle(folder, Bundle("mean", DIM, "float32", QUERY, DOCUMENT))
    with pytest.raises(BundleError, match=r"tokenizer\.json: its pattern '\(x\+x\+\)\+y' may take very long"):
        Encoder.load(folder, threads=1)


@pytest.mark.parametrize(
    ("name", "value"), [("max_input_chars_per_word", 10**9), ("continuing_subword_prefix", "#" * 10_000)]
)
def test_word_piece_has_a_longest_word(name, value):
    content = json.loads(Tokenizer(models.WordPiece({"[UNK]": 0})).to_str())
    assert problem(content) == ""
    content["model"][name] = value
    assert name in problem(content)


def test_the_models_inside_and_of_others_have_none():
    assert problem(json.loads((DEFAULT_BUNDLE / "tokenizer.json").read_bytes())) == ""
