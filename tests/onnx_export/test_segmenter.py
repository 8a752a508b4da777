"""Words before pieces: the run-time tokenizers give the very ids of transformers' own, without transformers.

Two checkpoints: one with a BertJapaneseTokenizer, which needs MeCab, and one with a BertTokenizer, which does not.
"""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from transformers import AutoTokenizer

from tansaku import Bundle, BundleError, Encoder, Expansion, MissingExtraError, TextRules
from tansaku.onnx_export.convert.formats.tokenizer import LoadedTokenizer, load_tokenizer
from tansaku.onnx_export.encode.bundle import write_bundle
from tansaku.onnx_export.encode.segmenter import MECAB_UNIDIC_LITE, MecabSegmenter, load_segmenter, nfkc_origins
from tansaku.onnx_export.encode.tokenize import TextTokenizer

from ..support.checkpoints import pylate, stanford

pytestmark = pytest.mark.integration

SAMPLE = Path(__file__).parents[2] / "plugin" / "sample"
SENTENCES = [
    json.loads(line)["text"]
    for name in ("corpus.jsonl", "queries.jsonl")
    for line in (SAMPLE / name).read_text(encoding="utf-8").splitlines()
]
FAMILY = "👩\u200d👩\u200d👧\u200d👧"
CONTROLS = ["\x00", "\x01", "\x1b", "\x7f", "\u200b", "\u200d", "\ufeff", "\ufffd", "\u00ad"]
SPACES = ["\t", "\n", "\r\n", "\v", "\f", "\x1c", "\x1f", "\u0085", "\u2028", "\u2029"]
SPACES += ["\u3000", "\u00a0", "\u1680", "\u180e", "\u2007", "\u202f", "\u205f"]
NASTY = [
    # Nothing visible
    *(*CONTROLS, "\u2060", "\u202e", "\ufff9x\ufffb", "\x00\x01\x02"),
    # Inside a text
    *(f"検{character}索 a{character}b" for character in [*CONTROLS, *SPACES]),
    *("\n\n 文書 \n\n", "  東 京  都 ", "\u3000東京\u3000\u3000", "a" + " " * 1000 + "b"),
    # Widths, composition, characters that few have
    *("ｹﾝｻｸ ｶﾞｷﾞ ﾊﾟ", "Ｔｏｋｙｏ２０２４", "㍿①㌔ﷺ", "か\u3099", "e\u0301 ñ İI ß ﬁ", "\u0301", "\u3099"),
    *("e" + "\u0301" * 200, "😀", FAMILY, f"探索{FAMILY}探索", "🇯🇵🏽", "𠮷野家で𩸽を", "\U0010ffff"),
    *("\ue000\uf8ff探索", "葛\U000e0100城", "한국어 ไทย हिन्दी"),
    # What spells tokens
    *("[MASK]", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[CLS]検索[SEP]", "検索[MASK]検索", "[MASK][MASK]", "a[MASK]b"),
    *(" [MASK] ", "[MASK] [MASK]", "[ MASK ]", "[MASK", "MASK]", "[mask]", "[[MASK]]", "[MA[MASK]SK]"),
    *("[MASK]\u3099", "［ＭＡＳＫ］", "［ＣＬＳ］検索", "検索［ＭＡＳＫ］検索", "[ＭＡＳＫ]", "[MAS\u200bK]"),
    *("[unused0]", "[unused1]検索", "##索", "＃＃索", "<s></s>"),
    *("EOS", "EOS\nEOS", "BOS/EOS", "a\tb,c,*", "%m\\n", "\"\\'`", "*,*,*"),
    # Long words
    *("x" * 99, "x" * 100, "x" * 101, "ああ" * 60, "ー" * 300, "。" * 1000, "1" * 500, "ｘ" * 101),
    *(f"{'w' * 150} 検索", "w" * 10_000, "。、" * 5_000),
]
# MeCab's time grows with the square of a run of letters or of punctuation: none of these is one.
LONG = ["探索" * 50_000, " " * 99_999 + "a", "検 索 " * 25_000, "a。\n" * 34_000, FAMILY * 15_000, "\x00" * 100_000]


# The same ids


def run_time(loaded: LoadedTokenizer, max_length: int = 1_000_000) -> Callable[[list[str]], list[list[int]]]:
    """Ids of texts, as an encoder makes them."""
    segment = load_segmenter(loaded.segmenter, loaded.tokenizer)
    tokenize = TextTokenizer(loaded.tokenizer, TextRules("", None, max_length), segment)
    return lambda texts: [text.ids.tolist() for text in tokenize(texts)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    parent = tmp_path_factory.mktemp("tokenizers")
    return {
        "japanese": stanford(parent / "japanese"),
        "bert": stanford(parent / "bert", tokenizer="bert"),
        "added": pylate(parent / "added"),
    }


@pytest.fixture(scope="module", params=["japanese", "bert", "added"])
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


@pytest.fixture(scope="module")
def expected(folder: Path) -> Callable[[str], list[int]]:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True  # said already
    return lambda text: tokenizer(text)["input_ids"]


@pytest.fixture(scope="module")
def actual(folder: Path) -> Callable[[list[str]], list[list[int]]]:
    return run_time(load_tokenizer(folder))


def test_ids_of_hundreds_of_sentences_are_those_of_transformers(expected, actual):
    assert len(SENTENCES) == 600
    different = [text for text, ids in zip(SENTENCES, actual(SENTENCES), strict=True) if ids != expected(text)]
    assert different == []


def test_ids_of_nasty_texts_are_those_of_transformers(expected, actual):
    texts = [text for text in NASTY if text.strip()]
    assert len(texts) == len(NASTY) > 100
    different = [ascii(text) for text, ids in zip(texts, actual(texts), strict=True) if ids != expected(text)]
    assert different == []


@pytest.mark.parametrize("number", range(len(LONG)))
def test_ids_of_a_hundred_thousand_characters_are_those_of_transformers(expected, actual, number):
    assert len(LONG[number]) >= 100_000
    (ids,) = actual([LONG[number]])
    assert ids == expected(LONG[number])


def test_ids_of_every_character_in_common_planes_are_those_of_transformers(folder, expected, actual):
    # 100 to a text: each at the start, at the end and inside of a word.
    codes = [*range(1, 0xD800, 3), *range(0xE000, 0x10000), *range(0x1F000, 0x1FB00), *range(0xE0100, 0xE01F0)]
    texts = [
        "".join(f"検{chr(code)}索{chr(code)} a{chr(code)} " for code in codes[start : start + 100])
        for start in range(0, len(codes), 100)
    ]
    different = [ascii(text[:9]) for text, ids in zip(texts, actual(texts), strict=True) if ids != expected(text)]
    assert different == []


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8"), max_size=5)
        | st.sampled_from(
            [*(text for text in NASTY if len(text) < 300), "[Q] ", "[D] ", "[Q]", "検索", "質問", "Tokyo"]
        ),
        max_size=8,
    )
    .map("".join)
    .filter(str.strip)
)
def test_ids_of_any_text_are_those_of_transformers(expected, actual, text):
    assert actual([text]) == [expected(text)]


@pytest.mark.parametrize(
    "text", ["[Q] 検索", "検索[Q] 検索", "[Q] [D] ", "[Q]検索", "[Q] \u3000検索", "［Ｑ］ 検索", " [D]  [Q]  "]
)
def test_added_tokens_that_hold_a_space_are_those_of_transformers(folders, text):
    loaded = load_tokenizer(folders["added"])
    reference: Any = AutoTokenizer.from_pretrained(folders["added"])
    assert run_time(loaded)([text]) == [reference(text)["input_ids"]]
    ids = [loaded.tokenizer.token_to_id(token) for token in ("[Q] ", "[D] ")]
    assert None not in ids


# Texts that are no text


@pytest.mark.parametrize("text", ["\ud800", "検\udfff索", "\ud83d\ude00", "[MASK\udc00]"], ids=ascii)
def test_lone_surrogates_are_read_as_question_marks(actual, text):
    plain = "".join("?" if "\ud800" <= character <= "\udfff" else character for character in text)
    assert actual([text]) == actual([plain])


@pytest.mark.parametrize("kind", ["japanese", "bert"])
@pytest.mark.parametrize("number", range(len(LONG)))
def test_long_text_is_cut(folders, kind, number):
    loaded = load_tokenizer(folders[kind])
    (ids,) = run_time(loaded, 300)([LONG[number]])
    assert len(ids) <= 300
    assert ids[0] == loaded.tokenizer.token_to_id("[CLS]")
    assert ids[-1] == loaded.tokenizer.token_to_id("[SEP]")


# Where tokens stand


@pytest.mark.parametrize(
    "text", ["ﾄｳｷｮｳ ﾀﾜｰの高さ", "ＩＢＭの２０２４年", "㍿①の㌔数", "ガクセイ", "東京都に行く", "か\u3099き[MASK]ｶﾞ"]
)
def test_a_span_is_what_its_token_was_normalised_from(folders, text):
    loaded = load_tokenizer(folders["japanese"])
    tokenizer = loaded.tokenizer
    rules = TextRules("", None, 100)
    tokenize = TextTokenizer(tokenizer, rules, load_segmenter(loaded.segmenter, tokenizer))
    (tokenized,) = tokenize([text])
    spans = tokenize.spans(text)
    assert spans[0] is spans[-1] is None
    assert None not in spans[1:-1]
    for token_id, span in zip(tokenized.ids.tolist()[1:-1], spans[1:-1], strict=True):
        assert span is not None
        piece = str(tokenizer.id_to_token(token_id)).removeprefix("##")
        assert piece == "[UNK]" or piece in unicodedata.normalize("NFKC", text[slice(*span)])


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.text(st.sampled_from("検索かガｶﾞﾊﾟｰＡ１①㍿㌔e\u0301\u3099\u309a\U0010ffff 葛\U000e0100"), max_size=12))
def test_every_normalised_character_has_its_origin(text):
    normal, origins = nfkc_origins(text)
    assert normal == unicodedata.normalize("NFKC", text)
    assert origins == sorted(origins)
    assert [start for start, end in origins if not start < end] == []
    for character, (start, end) in zip(normal, origins, strict=True):
        assert character in unicodedata.normalize("NFKC", text[start:end])


# The words themselves


@pytest.fixture(scope="module")
def words() -> MecabSegmenter:
    return MecabSegmenter(["[MASK]", "[CLS]", "[MASK]s"])


@pytest.mark.parametrize(
    ("text", "expected_words"),
    [
        ("東京都に行く", ["東京", "都", "に", "行く"]),
        ("ﾄｳｷｮｳ ﾀﾜｰ", ["トウキョウ", "タワー"]),
        ("東京\u3000 \n大阪", ["東京", "大阪"]),
        ("東京[MASK]大阪", ["東京", "[MASK]", "大阪"]),
        ("[CLS][MASK]", ["[CLS]", "[MASK]"]),
        ("[MASK]s", ["[MASK]s"]),  # the longest that fits
        ("", []),
        (" \u3000\n", []),
    ],
    ids=ascii,
)
def test_text_is_cut_into_words_around_added_tokens(words, text, expected_words):
    assert words(text) == expected_words


def test_full_width_spelling_is_no_added_token(words):
    assert "[MASK]" not in words("検索［ＭＡＳＫ］検索")
    assert "".join(words("検索［ＭＡＳＫ］検索")) == "検索[MASK]検索"


def test_no_word_holds_white_space(words):
    for text in SENTENCES[:100] + NASTY:
        assert not [word for word in words(text) if word.split() != [word]], ascii(text)


@pytest.mark.parametrize("tokens", [[], [""], iter(())])
def test_without_added_tokens_all_is_cut(tokens):
    assert "".join(MecabSegmenter(tokens)("東京[MASK]")) == "東京[MASK]"
    assert len(MecabSegmenter([])("東京[MASK]")) > 2


def test_added_tokens_are_no_patterns():
    assert MecabSegmenter(["a.c", "(", "[Q] "])("東京a.c(") == ["東京", "a.c", "("]
    assert MecabSegmenter(["東.都"])("東京都") == ["東京", "都"]
    assert MecabSegmenter(["[Q] "])("東京[Q] 東京") == ["東京", "[Q] ", "東京"]


def test_several_threads_at_once_get_the_words_of_one(words):
    texts = SENTENCES * 3
    alone = [words(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(words, texts)) == alone


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_many_segmenters_map_the_dictionary_once():
    """fugashi never frees a tagger: a process that loads models again and again would map it each time."""

    def mapped() -> int:
        return Path("/proc/self/maps").read_text(encoding="utf-8").count("unidic_lite/dicdir/sys.dic")

    MecabSegmenter([])
    before = mapped()
    for _ in range(3):
        assert MecabSegmenter(["[MASK]"])("東京都")
    assert mapped() == before


# Refusals


@pytest.mark.parametrize("name", ["", "mecab", "MECAB-UNIDIC-LITE", "sudachi"])
def test_unknown_segmenter_is_refused_with_the_known_ones_named(name):
    with pytest.raises(BundleError, match=f"unknown segmenter '{name}'; .*'{MECAB_UNIDIC_LITE}' and .* only: update"):
        load_segmenter(name, Tokenizer(WordPiece()))


@pytest.mark.parametrize("package", ["fugashi", "unidic_lite"])
def test_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}: pip install 'tansaku\[japanese\]'"):
        load_segmenter(MECAB_UNIDIC_LITE, Tokenizer(WordPiece()))


# In a bundle


@pytest.fixture(scope="module")
def bundle(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a segmenter; its graph looks a token's vector up and does nothing else."""
    folder = tmp_path_factory.mktemp("segmenting") / "bundle"
    folder.mkdir()
    tokenizer = load_tokenizer(folders["japanese"]).tokenizer
    tokenizer.save(str(folder / "tokenizer.json"))
    onnx.save(lookup(tokenizer.get_vocab_size()), folder / "model.onnx")
    query = TextRules("", "[unused0]", 32, expansion=Expansion("[MASK]", "fixed", 32))
    document = TextRules("", "[unused1]", 300, ("。", "、"), strip=True)
    write_bundle(folder, Bundle("words", 4, "float32", query, document, segmenter=MECAB_UNIDIC_LITE))
    return folder


def lookup(rows: int) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["column", "zero"], ["nothing"]),
        helper.make_node("Add", ["rows", "nothing"], ["token_vectors"]),
    ]
    shape = ["batch", "length"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("token_vectors", TensorProto.FLOAT, [*shape, 4])]
    table = np.random.default_rng(15).normal(size=(rows, 4)).astype(np.float32)
    constants = {"table": table, "last": np.array([-1]), "zero": np.array(0, np.float32)}
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = helper.make_graph(nodes, "lookup", inputs, outputs, initializers)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_bundle_with_a_segmenter_tokenizes_as_transformers_does(bundle, folders):
    encoder = Encoder.load(bundle, threads=1)
    reference: Any = AutoTokenizer.from_pretrained(folders["japanese"])
    marker = reference.convert_tokens_to_ids("[unused1]")
    texts = [text for text in SENTENCES if len(text) < 200]
    assert len(texts) > 400
    for text, tokenized in zip(texts, encoder.tokenize_documents(texts), strict=True):
        start, *body = reference(text.strip())["input_ids"]
        assert tokenized.ids.tolist() == [start, marker, *body]


def test_bundle_with_a_segmenter_encodes_texts_of_every_kind(bundle):
    encoder = Encoder.load(bundle, threads=1)
    texts = [*NASTY, LONG[0], "\ud800"]
    for encode in (encoder.encode_queries, encoder.encode_documents):
        for text, vectors in zip(texts, encode(texts), strict=True):
            assert vectors.shape[1] == 4, ascii(text)
            assert len(vectors) >= 3, ascii(text)
            assert np.isfinite(vectors).all(), ascii(text)
    assert {len(vectors) for vectors in encoder.encode_queries(texts)} == {32}


def test_bundle_with_an_unknown_segmenter_is_refused(bundle, tmp_path):
    content = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    for name in content["files"]:
        (tmp_path / name).write_bytes((bundle / name).read_bytes())
    (tmp_path / "bundle.json").write_text(json.dumps({**content, "segmenter": "sudachi"}), encoding="utf-8")
    with pytest.raises(BundleError, match="unknown segmenter 'sudachi'"):
        Encoder.load(tmp_path)


def run_program(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_bundle_with_a_segmenter_loads_neither_torch_nor_transformers(bundle):
    program = (
        "import sys\n"
        "from tansaku import Encoder\n"
        "(vectors,) = Encoder.load(sys.argv[1], threads=1).encode_documents(['東京都に行く。'])\n"
        "print(len(vectors), *sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    count, *modules = run_program(program, str(bundle)).split()
    assert int(count) > 5  # start, marker, three words or more, end
    assert {"fugashi", "onnxruntime"} <= set(modules)
    assert not {"torch", "transformers", "onnx", "onnxscript", "safetensors"} & set(modules)


def test_bundle_with_a_segmenter_says_which_extra_it_needs(bundle):
    program = (
        "import sys\n"
        "sys.modules['fugashi'] = None\n"
        "from tansaku import Encoder, MissingExtraError\n"
        "try:\n"
        "    Encoder.load(sys.argv[1])\n"
        "except MissingExtraError as error:\n"
        "    print(error)\n"
    )
    assert run_program(program, str(bundle)) == "this needs the package fugashi: pip install 'tansaku[japanese]'"


def test_encoder_without_a_segmenter_does_not_load_mecab():
    program = "import sys, tansaku.onnx_export; print(*{'fugashi', 'unidic_lite'} & set(sys.modules))"
    assert run_program(program) == ""
