"""The bundle folder: what is written is read back, and what is not whole is refused by name."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tansaku import Bundle, BundleError, Expansion, InputError, TextRules, read_bundle
from tansaku.onnx_export.encode.bundle import write_bundle

from ..support.strategies import rules, texts

QUERY = TextRules(prefix="質問: ", marker="<query>", max_length=32, expansion=Expansion("[MASK]", "paper"))
DOCUMENT = TextRules(prefix="", marker=None, max_length=512, skiplist=("。", "、"))
BUNDLE = Bundle(
    name="小さなモデル",
    dim=16,
    precision="int8",
    query=QUERY,
    document=DOCUMENT,
    segmenter="mecab-unidic-lite",
    opset=20,
    origin={"licence": "MIT", "layers": 2},
    parity={"mean_cosine": 0.998},
)
GRAPH, TOKENIZER, CARD = b"graph bytes", b"tokenizer bytes", b"# card"


def make_bundle(
    folder: Path,
    bundle: Bundle = BUNDLE,
    *,
    graph: bytes = GRAPH,
    tokenizer: bytes = TOKENIZER,
    card: bytes = CARD,
) -> Bundle:
    folder.mkdir(exist_ok=True)
    (folder / bundle.graph).write_bytes(graph)
    (folder / bundle.tokenizer).write_bytes(tokenizer)
    (folder / "README.md").write_bytes(card)
    return write_bundle(folder, bundle)


@pytest.fixture
def folder(tmp_path):
    make_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def edit_json(folder: Path, change) -> None:
    path = folder / "bundle.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


# Round trip


def test_bundle_that_is_read_equals_the_one_written(tmp_path):
    written = make_bundle(tmp_path / "bundle")
    assert read_bundle(tmp_path / "bundle") == written
    assert dataclasses.replace(written, files={}) == BUNDLE


def test_every_file_but_bundle_json_is_listed_with_its_sha256(folder):
    write_bundle(folder, BUNDLE)  # a second time, with bundle.json there
    files = read_bundle(folder).files
    assert sorted(files) == ["README.md", "model.onnx", "tokenizer.json"]
    # sha256sum of the bytes "graph bytes"
    assert files["model.onnx"] == "26d0900dac51fc6d16dfda2b932b2eeb10c2b3c1517d6e6365e224d05c23fcc3"


def test_folder_may_be_given_as_str(folder):
    assert read_bundle(str(folder)) == read_bundle(folder)


def test_japanese_is_readable_in_the_json(folder):
    assert "小さなモデル" in (folder / "bundle.json").read_text(encoding="utf-8")


def test_other_file_names_for_graph_and_tokenizer_are_kept(tmp_path):
    bundle = dataclasses.replace(BUNDLE, graph="encoder.onnx", tokenizer="unigram.json")
    written = make_bundle(tmp_path / "bundle", bundle)
    read = read_bundle(tmp_path / "bundle")
    assert (read.graph, read.tokenizer) == ("encoder.onnx", "unigram.json")
    assert read.fingerprint == written.fingerprint


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    name=texts,
    query=rules,
    document=rules,
    dim=st.integers(1, 4096),
    segmenter=st.none() | texts,
    opset=st.none() | st.integers(1, 30),
)
def test_any_rules_survive_the_round_trip(name, query, document, dim, segmenter, opset):
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Bundle(name, dim, "float32", query, document, segmenter=segmenter, opset=opset)
        written = make_bundle(Path(scratch), bundle)
        read = read_bundle(Path(scratch))
    assert read == written
    assert read.fingerprint == written.fingerprint


# Frozen


def test_bundle_cannot_be_changed():
    facts = {"licence": "MIT"}
    bundle = dataclasses.replace(BUNDLE, origin=facts)
    facts["licence"] = "other"
    assert bundle.origin == {"licence": "MIT"}
    for change in (lambda: bundle.origin.update(a=1), lambda: bundle.files.pop("a", 1), lambda: bundle.parity.clear()):  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(TypeError, match="cannot be changed"):
            change()
    with pytest.raises(TypeError, match="cannot be changed"):
        bundle.origin["licence"] = "other"  # pyright: ignore[reportIndexIssue]
    with pytest.raises(dataclasses.FrozenInstanceError):
        bundle.dim = 3  # pyright: ignore[reportAttributeAccessIssue]


def pickled(bundle: Bundle) -> Bundle:
    return pickle.loads(pickle.dumps(bundle))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, pickled])
def test_copies_of_a_bundle_are_equal_and_frozen_too(duplicate):
    again = duplicate(BUNDLE)
    assert again == BUNDLE
    with pytest.raises(TypeError, match="cannot be changed"):
        again.origin["licence"] = "other"


@pytest.mark.parametrize(
    ("field", "value"), [("dim", 0), ("opset", -1), ("phrase_weight", -1), ("phrase_weight", float("nan"))]
)
def test_value_out_of_range_is_refused_when_a_bundle_is_made(field, value):
    with pytest.raises(InputError, match=f"{field} is {value}; it must be"):
        dataclasses.replace(BUNDLE, **{field: value})


# Fingerprint


def test_fingerprint_does_not_change_between_releases(folder):
    # Indexes hold it: a release that computes it differently makes every index unreadable.
    bundle = read_bundle(folder)
    assert bundle.scoring_fingerprint == "819bf4f56fbf0fc3"  # of indexes made before 0.1.0
    assert bundle.fingerprint == "b4f519bef9a45dc4"
    assert bundle.made(bundle.fingerprint)
    assert bundle.made("819bf4f56fbf0fc3")
    assert not bundle.made("819bf4f56fbf0fc4")


@pytest.mark.parametrize(
    "change",
    [
        {"query": dataclasses.replace(QUERY, prefix="")},
        {"query": dataclasses.replace(QUERY, marker=None)},
        {"query": dataclasses.replace(QUERY, max_length=33)},
        {"query": dataclasses.replace(QUERY, skiplist=("。",))},
        {"query": dataclasses.replace(QUERY, strip=True)},
        {"query": dataclasses.replace(QUERY, expansion=None)},
        {"query": dataclasses.replace(QUERY, expansion=Expansion("<mask>", "paper"))},
        {"query": dataclasses.replace(QUERY, expansion=Expansion("[MASK]", "shipped"))},
        {"query": dataclasses.replace(QUERY, expansion=Expansion("[MASK]", "paper", length=31))},
        {"query": dataclasses.replace(QUERY, expansion=Expansion("[MASK]", "paper", attend=True))},
        {"document": dataclasses.replace(DOCUMENT, prefix="文書: ")},
        {"document": dataclasses.replace(DOCUMENT, marker="<document>")},
        {"document": dataclasses.replace(DOCUMENT, max_length=511)},
        {"document": dataclasses.replace(DOCUMENT, skiplist=("。",))},
        {"query": DOCUMENT, "document": QUERY},
        {"segmenter": None},
        {"segmenter": "sudachi"},
    ],
    ids=lambda change: "-".join(change),
)
def test_fingerprints_change_with_the_text_rules(tmp_path, change):
    before = make_bundle(tmp_path / "before")
    after = make_bundle(tmp_path / "after", dataclasses.replace(BUNDLE, **change))
    assert after.scoring_fingerprint != before.scoring_fingerprint
    # Rules of queries alone leave the vectors of documents, and so the indexes, as they are.
    assert (after.fingerprint == before.fingerprint) == ({*change} == {"query"})


@pytest.mark.parametrize("files", [{"graph": b"other"}, {"tokenizer": b"other"}], ids=str)
def test_fingerprint_changes_with_graph_and_tokenizer(tmp_path, files):
    before = make_bundle(tmp_path / "before")
    after = make_bundle(tmp_path / "after", **files)
    assert after.fingerprint != before.fingerprint


def test_fingerprint_changes_when_graph_and_tokenizer_swap_their_bytes(tmp_path):
    before = make_bundle(tmp_path / "before")
    after = make_bundle(tmp_path / "after", graph=TOKENIZER, tokenizer=GRAPH)
    assert after.fingerprint != before.fingerprint


def test_fingerprint_stays_when_name_opset_origin_parity_card_or_weights_change(tmp_path):
    before = make_bundle(tmp_path / "before")
    changed = {"opset": None, "origin": {}, "parity": {"mean_cosine": 0.5}, "query_weights": "README.md"}
    renamed = dataclasses.replace(BUNDLE, name="別名", **changed)
    after = make_bundle(tmp_path / "after", renamed, card=b"# longer card")
    assert after.fingerprint == before.fingerprint
    assert after.files["README.md"] != before.files["README.md"]


# Refusals: bundle.json


def test_folder_without_bundle_json_is_refused_by_name(tmp_path):
    with pytest.raises(BundleError, match=r"no bundle\.json here") as raised:
        read_bundle(tmp_path)
    assert str(tmp_path) in str(raised.value)


def test_folder_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(BundleError, match="nothing: no such folder"):
        read_bundle(tmp_path / "nothing")


def test_file_in_place_of_the_folder_is_refused_by_name(tmp_path):
    (tmp_path / "model").write_bytes(b"")
    with pytest.raises(BundleError) as raised:
        read_bundle(tmp_path / "model")
    assert str(tmp_path / "model") in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"format": "tansaku-bundle", ', b"\xff\xfe\x00", '{"name": "探索"'.encode("euc_jp"), b"[" * 200_000],
    ids=["empty", "open-brace", "cut-off", "binary", "other-encoding", "deep"],
)
def test_broken_json_is_refused_by_name(folder, content):
    (folder / "bundle.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"bundle\.json: cannot be read"):
        read_bundle(folder)


@pytest.mark.parametrize("content", ["[]", "null", "{}", '"tansaku-bundle"', '{"format": "other"}'])
def test_json_of_another_format_is_refused(folder, content):
    (folder / "bundle.json").write_text(content, encoding="utf-8")
    with pytest.raises(BundleError, match=r'bundle\.json: "format" is not "tansaku-bundle"'):
        read_bundle(folder)


@pytest.mark.parametrize("version", [1, 3, 0, None, "2"])
def test_other_format_version_is_refused_with_both_versions_named(folder, version):
    edit_json(folder, lambda content: content.update(format_version=version))
    with pytest.raises(BundleError, match=rf"bundle\.json: bundle format {version}, .* reads format 2"):
        read_bundle(folder)


@pytest.mark.parametrize("field", ["name", "dim", "precision", "query", "document"])
def test_missing_field_is_refused_by_name(folder, field):
    edit_json(folder, lambda content: content.pop(field))
    with pytest.raises(BundleError, match=rf"bundle\.json: {field} is missing; export the checkpoint again"):
        read_bundle(folder)


@pytest.mark.parametrize("kind", ["query", "document"])
@pytest.mark.parametrize("field", ["prefix", "marker", "max_length"])
def test_missing_text_rule_is_refused_by_name(folder, kind, field):
    edit_json(folder, lambda content: content[kind].pop(field))
    with pytest.raises(BundleError, match=rf"bundle\.json: {kind}\.{field} is missing"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("kind", "field", "default"),
    [("document", "skiplist", ()), ("query", "expansion", None), ("query", "strip", False)],
)
def test_text_rule_with_a_default_may_be_missing_and_the_fingerprint_tells(folder, kind, field, default):
    before = read_bundle(folder)
    edit_json(folder, lambda content: content[kind].pop(field))
    after = read_bundle(folder)
    assert getattr(after, kind) == dataclasses.replace(getattr(before, kind), **{field: default})
    assert (after.scoring_fingerprint == before.scoring_fingerprint) == (getattr(before, kind) == getattr(after, kind))


@pytest.mark.parametrize("field", ["segmenter", "opset"])
def test_field_with_a_default_may_be_missing(folder, field):
    edit_json(folder, lambda content: content.pop(field))
    assert getattr(read_bundle(folder), field) is None


@pytest.mark.parametrize("field", ["token", "rule"])
def test_missing_field_of_an_expansion_is_refused_by_name(folder, field):
    edit_json(folder, lambda content: content["query"]["expansion"].pop(field))
    with pytest.raises(BundleError, match=rf"bundle\.json: query\.expansion\.{field} is missing"):
        read_bundle(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(pooling="mean"),
        lambda content: content["query"].update(pooling="mean"),
        lambda content: content["query"]["expansion"].update(pooling="mean"),
    ],
    ids=["top", "rules", "expansion"],
)
def test_unknown_field_is_refused_by_name(folder, change):
    edit_json(folder, change)
    with pytest.raises(BundleError, match=r"bundle\.json: [a-z.]*pooling is not a known field"):
        read_bundle(folder)


@pytest.mark.parametrize("value", [None, 3, "marker", []])
def test_text_rules_of_another_shape_are_refused(folder, value):
    edit_json(folder, lambda content: content.update(document=value))
    with pytest.raises(BundleError, match=r"bundle\.json: document is .*; it must be an object"):
        read_bundle(folder)


@pytest.mark.parametrize("kind", ["query", "document"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prefix", None),
        ("prefix", 3),
        ("marker", 0),
        ("marker", False),
        ("max_length", 0),
        ("max_length", -1),
        ("max_length", "32"),
        ("max_length", 32.0),
        ("max_length", True),
        ("max_length", None),
        ("skiplist", "。、"),
        ("skiplist", {"。": 1}),
        ("skiplist", None),
        ("strip", None),
        ("strip", 1),
        ("strip", "true"),
        ("expansion", False),
        ("expansion", []),
        ("expansion", "paper"),
    ],
)
def test_text_rule_of_a_wrong_type_is_refused_by_name(folder, kind, field, value):
    edit_json(folder, lambda content: content[kind].update({field: value}))
    with pytest.raises(BundleError, match=rf"bundle\.json: {kind}(\.|: ){field} is .*; it must be "):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", None),
        ("dim", "4"),
        ("dim", 0),
        ("dim", 16.0),
        ("dim", None),
        ("precision", 8),
        ("precision", "int4"),
        ("graph", None),
        ("tokenizer", ["tokenizer.json"]),
        ("segmenter", False),
        ("segmenter", ["mecab-unidic-lite"]),
        ("phrase_weight", "0.1"),
        ("phrase_weight", None),
        ("opset", "20"),
        ("opset", 0),
        ("opset", True),
        ("origin", "MIT"),
        ("parity", [0.998]),
        ("files", ["model.onnx", "tokenizer.json"]),
        ("files", None),
    ],
)
def test_field_of_a_wrong_type_is_refused_by_name(folder, field, value):
    edit_json(folder, lambda content: content.update({field: value}))
    with pytest.raises(BundleError, match=rf"bundle\.json: {field} is .*; it must be "):
        read_bundle(folder)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_phrase_weight_that_is_negative_or_not_finite_is_refused(folder, value):
    edit_json(folder, lambda content: content.update(phrase_weight=value))
    with pytest.raises(BundleError, match=r"bundle\.json: .*phrase_weight is .*; it must be from 0 to 1000"):
        read_bundle(folder)


def test_phrases_count_nothing_where_the_bundle_does_not_say(folder):
    edit_json(folder, lambda content: content.pop("phrase_weight"))
    assert read_bundle(folder).phrase_weight == 0


def test_phrase_weight_changes_no_vectors(folder):
    before = read_bundle(folder)
    edit_json(folder, lambda content: content.update(phrase_weight=0.5))
    assert (read_bundle(folder).phrase_weight, read_bundle(folder).fingerprint) == (0.5, before.fingerprint)


@pytest.mark.parametrize(
    ("field", "value"),
    [("token", None), ("token", 4), ("length", 0), ("length", -32), ("length", 32.0), ("length", True), ("attend", 1)],
)
def test_field_of_an_expansion_of_a_wrong_type_is_refused_by_name(folder, field, value):
    edit_json(folder, lambda content: content["query"]["expansion"].update({field: value}))
    with pytest.raises(BundleError, match=rf"bundle\.json: query\.expansion(\.|: ){field} is .*; it must be "):
        read_bundle(folder)


def test_unknown_expansion_rule_is_refused_with_the_known_ones_named(folder):
    edit_json(folder, lambda content: content["query"]["expansion"].update(rule="longest"))
    with pytest.raises(BundleError, match=r"'longest'; it must be 'fixed', 'minimum', 'paper' or 'shipped'"):
        read_bundle(folder)


@pytest.mark.parametrize("sha256", [None, 1, ["26d0"]])
def test_sha256_of_a_wrong_type_is_refused_by_file(folder, sha256):
    edit_json(folder, lambda content: content["files"].update({"model.onnx": sha256}))
    with pytest.raises(BundleError, match=r"bundle\.json: files\.model\.onnx is .*; it must be a valid string"):
        read_bundle(folder)


def test_skipped_token_that_is_no_str_is_refused(folder):
    edit_json(folder, lambda content: content["document"].update(skiplist=["。", None]))
    with pytest.raises(BundleError, match=r"bundle\.json: document\.skiplist\[1\] is None; it must be"):
        read_bundle(folder)


# Refusals: the other files


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "README.md"])
def test_missing_file_is_refused_by_name(folder, name):
    (folder / name).unlink()
    with pytest.raises(BundleError, match=rf"{name}: missing from the bundle"):
        read_bundle(folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "README.md"])
def test_cut_off_file_is_refused_by_name(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(BundleError, match=rf"{name}: sha256 is .* cut off or was changed"):
        read_bundle(folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "README.md"])
def test_altered_file_is_refused_by_name(folder, name):
    altered = bytearray((folder / name).read_bytes())
    altered[0] ^= 1
    (folder / name).write_bytes(altered)
    with pytest.raises(BundleError, match=rf"{name}: sha256 is"):
        read_bundle(folder)


def test_folder_in_place_of_a_file_is_refused_by_name(folder):
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()
    with pytest.raises(BundleError, match=r"model\.onnx: missing"):
        read_bundle(folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_file_that_files_does_not_list_is_refused_by_name(folder, name):
    edit_json(folder, lambda content: content["files"].pop(name))
    with pytest.raises(BundleError, match=rf'bundle\.json: "files" does not list {name}'):
        read_bundle(folder)


@pytest.mark.parametrize("path", ["../x", "sub/x", "/etc/hostname", "./model.onnx", ".."])
def test_path_among_the_files_is_refused_by_name(folder, path):
    # A sha256 that fits must not help: nothing outside the folder belongs to a bundle.
    sha256 = read_bundle(folder).files["model.onnx"]
    (folder.parent / "x").write_bytes(GRAPH)
    (folder / "sub").mkdir()
    (folder / "sub" / "x").write_bytes(GRAPH)
    edit_json(folder, lambda content: content["files"].update({path: sha256}))
    with pytest.raises(BundleError) as raised:
        read_bundle(folder)
    assert path in str(raised.value)


def test_graph_outside_the_folder_is_refused(folder):
    (folder.parent / "x.onnx").write_bytes(GRAPH)
    sha256 = read_bundle(folder).files["model.onnx"]

    def point_outside(content):
        content["graph"] = "../x.onnx"
        content["files"]["../x.onnx"] = sha256

    edit_json(folder, point_outside)
    with pytest.raises(BundleError, match=r"\.\./x\.onnx"):
        read_bundle(folder)


def test_file_that_is_not_listed_is_let_be(folder):
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    assert read_bundle(folder).name == "小さなモデル"
