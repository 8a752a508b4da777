"""Weights of query tokens: in a bundle, in a search, and learned from judgements."""

from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tansaku import BundleError, Encoder, Index, InputError, Searcher, read_bundle
from tansaku.onnx_export.convert.query_weights_graph import QUERY_WEIGHTS_FILE, add_query_weights
from tansaku.onnx_export.encode.find_bundle import DEFAULT_BUNDLE
from tansaku.onnx_export.encode.query_weights import QueryWeights
from tansaku.plugin.cli.main import app
from tansaku.training.errors import TrainingDataError
from tansaku.training.query_weights import WeightsPlan, _Similarities, fit_query_weights

from ..support.fakes import FakeEncoder

pytestmark = pytest.mark.integration

UNITS = 5
QUERY = "梅雨がないのはどこですか"


def draws(seed):
    return random.Random(seed)  # noqa: S311


def some_arrays(dim, seed=0):
    random = np.random.default_rng(seed)
    hidden = random.standard_normal((UNITS, dim)).astype(np.float32)
    bias, out = (random.standard_normal(UNITS).astype(np.float32) for _ in range(2))
    return hidden, bias, out, 0.5


def weights_by_hand(vectors, hidden, bias, out, out_bias):
    from scipy.special import erf

    units = vectors.astype(np.float64) @ hidden.T + bias
    units *= 0.5 * (1 + erf(units / np.sqrt(2)))
    weights = np.log1p(np.exp(units @ out + out_bias))
    return weights / weights.mean()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The bundle inside, with the weights of `some_arrays`."""
    folder = tmp_path_factory.mktemp("weights") / "bundle"
    shutil.copytree(DEFAULT_BUNDLE, folder)
    add_query_weights(folder, *some_arrays(read_bundle(folder).dim))
    return folder


@pytest.fixture(scope="module")
def encoder(folder):
    return Encoder.load(folder, threads=1)


def test_query_vectors_are_as_long_as_the_formula_weighs_them(encoder):
    pytest.importorskip("scipy")
    unweighted = encoder.encode_tokens(encoder.tokenize_queries([QUERY, "海"]))
    for weighted, vectors in zip(encoder.encode_queries([QUERY, "海"]), unweighted, strict=True):
        weights = weights_by_hand(vectors, *some_arrays(encoder.dim))
        np.testing.assert_allclose(weighted, vectors * weights[:, None], atol=1e-5)
        assert np.linalg.norm(weighted, axis=1).mean() == pytest.approx(1, abs=1e-5)


def test_weights_of_less_strength_are_nearer_to_1(folder, tmp_path):
    whole = Encoder.load(folder).encode_queries([QUERY])[0]
    lengths = np.linalg.norm(whole, axis=1, keepdims=True)
    for strength in (0.0, 0.25):
        half = shutil.copytree(folder, tmp_path / str(strength))
        add_query_weights(half, *some_arrays(128), strength)
        expected = whole / lengths * (1 - strength + strength * lengths)
        np.testing.assert_allclose(Encoder.load(half).encode_queries([QUERY])[0], expected, atol=1e-5)
    with pytest.raises(InputError, match=r"strength is 1\.5; it must be from 0 to 1"):
        add_query_weights(half, *some_arrays(128), 1.5)


def test_documents_are_not_weighed_and_indexes_stay_readable(encoder):
    (vectors,) = encoder.encode_documents([QUERY])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert encoder.bundle.fingerprint == read_bundle(DEFAULT_BUNDLE).fingerprint


def test_weights_take_the_place_of_those_before(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "bundle")
    before = Encoder.load(copied).encode_queries([QUERY])[0]
    add_query_weights(copied, *some_arrays(read_bundle(copied).dim, seed=1))
    after = Encoder.load(copied).encode_queries([QUERY])[0]
    assert np.abs(after - before).max() > 0.01


def test_a_query_without_tokens_has_no_weights(folder):
    weights = QueryWeights.load(folder / QUERY_WEIGHTS_FILE, 128)
    assert weights(np.empty((0, 128), np.float32)).shape == (0, 128)


def test_arrays_that_do_not_fit_are_refused(folder):
    hidden, bias, out, out_bias = some_arrays(128)
    with pytest.raises(InputError, match=r"hidden has shape \(127, 5\), expected \(128, 5\)"):
        add_query_weights(folder, hidden[:, 1:], bias, out, out_bias)
    with pytest.raises(InputError, match=r"out has shape .* finite numbers"):
        add_query_weights(folder, hidden, bias, out * np.nan, out_bias)


def test_a_graph_that_does_not_weigh_is_refused(folder, tmp_path):
    with pytest.raises(BundleError, match=r"expected token_vectors of 64 dimensions and weights"):
        QueryWeights.load(folder / QUERY_WEIGHTS_FILE, 64)
    (tmp_path / "cut.onnx").write_bytes((folder / QUERY_WEIGHTS_FILE).read_bytes()[:100])
    with pytest.raises(BundleError, match=r"cut\.onnx: the query weights cannot be loaded"):
        QueryWeights.load(tmp_path / "cut.onnx", 128)


def test_a_bundle_that_lacks_its_weights_is_refused(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "bundle")
    (copied / QUERY_WEIGHTS_FILE).unlink()
    with pytest.raises(BundleError, match=r"query_weights\.onnx: missing"):
        Encoder.load(copied)
    content = json.loads((copied / "bundle.json").read_text(encoding="utf-8"))
    del content["files"][QUERY_WEIGHTS_FILE]
    (copied / "bundle.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BundleError, match=r"does not list query_weights\.onnx"):
        Encoder.load(copied)


@pytest.fixture(scope="module")
def searcher(tmp_path_factory):
    db = tmp_path_factory.mktemp("search")
    letters = draws(1)
    texts = ["".join(letters.choices("abcdefghijklmnop", k=9)) for _ in range(700)]
    documents = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
    Index.create(db, "t", documents, encoder=FakeEncoder(), nbits=4)
    return Searcher.open(db, "t", encoder=FakeEncoder())


@settings(max_examples=20, deadline=None)
@given(weights=st.lists(st.floats(0.01, 8), min_size=5, max_size=5), recall=st.sampled_from(["balanced", "exact"]))
def test_a_search_takes_the_weighted_sum(searcher, weights, recall):
    (query,) = FakeEncoder().encode_queries(["fdbac"])
    weighted = query * np.array(weights, np.float32)[:, None]
    of_tokens = [
        {hit.id: hit.score for hit in searcher.search_vectors(token[None], 700, recall="exact")} for token in query
    ]
    expected = {
        doc_id: sum(w * scores[doc_id] for w, scores in zip(weights, of_tokens, strict=True)) for doc_id in of_tokens[0]
    }
    hits = searcher.search_vectors(weighted, 5, recall=recall)
    assert [hit.score for hit in hits] == pytest.approx([expected[hit.id] for hit in hits], abs=1e-3)
    best = sorted(expected.values(), reverse=True)[:5]
    if recall == "exact":
        assert [hit.score for hit in hits] == pytest.approx(best, abs=1e-3)


def test_an_explanation_tells_weights_and_cosines(encoder, tmp_path):
    Index.create(tmp_path, "t", [{"id": "dog", "text": "犬は嗅覚が鋭い。"}], encoder=encoder)
    searcher = Searcher.open(tmp_path, "t", encoder=encoder)
    explanation = searcher.explain("嗅覚が鋭いのは", "dog")
    weights = [match.weight for match in explanation.matches]
    assert max(weights) > 1.05 > 0.95 > min(weights)
    assert max(match.similarity for match in explanation.matches) <= 1
    assert explanation.score == pytest.approx(searcher.search("嗅覚が鋭いのは", 1)[0].score, abs=1e-4)


def spelled(count, seed=3):
    """Passages of letters, and questions with three letters of a passage among digits that say nothing."""
    drawn = draws(seed)
    passages, queries, judged = {}, {}, {}
    for i in range(count):
        letters = drawn.sample("abcdefghijklmnopqrstuvwxyz", 5)
        passages[f"p{i}"] = "".join(letters) + "".join(drawn.choices("0123456789", k=5))
        queries[f"q{i}"] = "".join(drawn.sample(letters, 3)) + "".join(drawn.choices("0123456789", k=5))
        judged[f"q{i}"] = {f"p{i}": 1}
    return queries, passages, judged


def test_what_says_nothing_weighs_less():
    queries, passages, judged = spelled(400)
    plan = WeightsPlan(pool=200, negatives=30, units=16, epochs=12, learning_rate=1e-2)
    said, done = [], []
    fitted = fit_query_weights(
        FakeEncoder(), queries, passages, judged, plan=plan, progress=lambda *of: done.append(of), note=said.append
    )
    assert said[0] == "200 questions among 200 passages"
    assert done[0] == ("weigh", 64, 400, 0)
    assert done[-1] == ("weigh", 400, 400, 0)
    assert fitted.questions + fitted.held_out == 400
    assert fitted.after > fitted.before + 0.1
    hidden, bias, out, out_bias, strength = fitted.arrays()
    assert strength == plan.strength == 0.5
    assert (hidden.shape, bias.shape, out.shape) == ((16, 16), (16,), (16,))
    pytest.importorskip("scipy")
    (letters, digits) = FakeEncoder().encode_queries(["abcdefghijkl", "0123456789"])
    weights = weights_by_hand(np.concatenate([letters, digits]), hidden, bias, out, out_bias)
    assert weights[: len(letters)].mean() > 2 * weights[len(letters) :].mean()


def test_what_is_measured_is_what_the_bundle_applies(tmp_path):
    queries, passages, judged = spelled(60)
    plan = WeightsPlan(pool=60, negatives=59, units=8, epochs=3, learning_rate=1e-2, strength=0.7)
    fitted = fit_query_weights(FakeEncoder(), queries, passages, judged, plan=plan)
    vectors = FakeEncoder().encode_queries(["abc012"])[0]
    data = _Similarities(torch.from_numpy(vectors), torch.ones(len(vectors), 2), torch.tensor([len(vectors)]))
    applied = data.applied(fitted.network, plan.strength)[:, 0]
    *network, strength = fitted.arrays()
    pytest.importorskip("scipy")
    expected = 1 - strength + strength * weights_by_hand(vectors, *network)
    np.testing.assert_allclose(applied.detach(), expected, atol=1e-5)


@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=8), data=st.data())
def test_similarities_of_some_queries_are_theirs(lengths, data):
    numbers = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8))
    vectors = torch.arange(sum(lengths), dtype=torch.float32)[:, None]
    some = _Similarities(vectors, vectors * 2, torch.tensor(lengths)).of(torch.tensor(numbers))
    parts = vectors.split(lengths)
    assert some.vectors.tolist() == torch.cat([parts[n] for n in numbers]).tolist()
    assert some.scores()[:, 0].tolist() == [2 * parts[n].sum().item() for n in numbers]


def test_the_same_seed_learns_the_same():
    data = spelled(120)
    plan = WeightsPlan(pool=120, negatives=20, units=8, epochs=2, learning_rate=1e-2)
    first, again = (fit_query_weights(FakeEncoder(), *data, plan=plan).arrays() for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])


def test_another_relevant_passage_is_no_negative():
    queries, passages, judged = spelled(60)
    twins = {f"{p}-again": text for p, text in passages.items()}
    judged = {q: {**found, **{f"{p}-again": 1 for p in found}} for q, found in judged.items()}
    plan = WeightsPlan(pool=120, negatives=118, epochs=1)
    fitted = fit_query_weights(FakeEncoder(), queries, passages | twins, judged, plan=plan)
    assert fitted.before > 0.3
    too_many = WeightsPlan(pool=120, negatives=119)
    with pytest.raises(TrainingDataError, match="120 passages are too few: a query needs 119 that are not relevant"):
        fit_query_weights(FakeEncoder(), queries, passages | twins, judged, plan=too_many)


def test_too_little_to_learn_from_is_an_error():
    queries, passages, judged = spelled(40)
    plan = WeightsPlan(negatives=8)
    with pytest.raises(TrainingDataError, match="no judged query has its relevant passage in the collection"):
        fit_query_weights(FakeEncoder(), queries, passages, {"q1": {"elsewhere": 1}, "q9": {"p9": 0}}, plan=plan)
    with pytest.raises(TrainingDataError, match="1 judged queries are too few"):
        fit_query_weights(FakeEncoder(), queries, passages, {"q1": judged["q1"]}, plan=plan)


def test_the_command_gives_a_bundle_weights(tmp_path):
    bundle = shutil.copytree(DEFAULT_BUNDLE, tmp_path / "bundle")
    drawn = draws(2)
    passages = {
        f"p{i}": "".join(drawn.sample("日本東京大学山川田中国人年月水火木金土", 9)) + "である。" for i in range(90)
    }
    write = {
        "c.jsonl": [{"_id": p, "text": text} for p, text in passages.items()],
        "q.jsonl": [{"_id": f"q{p}", "text": f"{text[2:6]}とは何ですか"} for p, text in passages.items()],
    }
    for name, records in write.items():
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        (tmp_path / name).write_text("".join(lines), encoding="utf-8")
    (tmp_path / "qrels.tsv").write_text("".join(f"q{p}\t{p}\t1\n" for p in passages))
    files = ["--queries", tmp_path / "q.jsonl", "--collection", tmp_path / "c.jsonl", "--qrels", tmp_path / "qrels.tsv"]
    done = CliRunner().invoke(app, ["weigh", str(bundle), *map(str, files), "--strength", "1"])
    assert done.exit_code == 0, done.output
    assert "weights from 81 queries; hit@1 of 9 held-out queries" in done.output
    lengths = np.linalg.norm(Encoder.load(bundle).encode_queries(["日本東京とは何ですか"])[0], axis=1)
    assert lengths.mean() == pytest.approx(1, abs=1e-5)
    assert np.ptp(lengths) > 0.01
