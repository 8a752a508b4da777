"""MTEB: its own evaluation over our encoder and over our index, on tasks that lie in memory."""

from __future__ import annotations

import importlib
import itertools
import json
import logging
import math
import sys
from typing import Any, cast

import mteb
import numpy as np
import pytest
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.types import EncodeKwargs

from tansaku import InputError, MissingExtraError, Searcher
from tansaku.plugin.cli.demo import SAMPLE
from tansaku.plugin.hosts.mteb import TansakuIndexModel, TansakuModel

from ...support.fakes import FakeEncoder, corpus

pytestmark = pytest.mark.integration

DOCS = {d["id"]: d["text"] for d in corpus(40)}
QUERIES = {f"q{i}": text for i, text in enumerate(["3a9f", "b07", "99c1d"])}


def by_plain_maxsim(query, doc_ids=tuple(DOCS)):
    vectors = FakeEncoder().vectors(QUERIES[query])
    matrices = {doc_id: FakeEncoder().vectors(DOCS[doc_id]) for doc_id in doc_ids}
    scores = {doc_id: float((vectors @ matrix.T).max(axis=1).sum()) for doc_id, matrix in matrices.items()}
    return sorted(scores, key=lambda doc_id: -scores[doc_id])


# Documents that plain MaxSim finds at these places: what MTEB counts depends on all of them.
PLACES = {"q0": (1, 4), "q1": (0,), "q2": (2, 5, 12)}
RELEVANT = {query: [by_plain_maxsim(query)[i] for i in places] for query, places in PLACES.items()}


def made_task(kind, docs=DOCS, queries=QUERIES, relevant=RELEVANT, top_ranked=None, titles=None):
    class Made(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=f"Made{kind}",
            description="made for this test",
            dataset={"path": "NA", "revision": "NA"},
            type=kind,
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["jpn-Jpan"],
            main_score="ndcg_at_10",
        )

        def load_data(self, num_proc=None, *, timer=None, **options):
            titled = [{"id": k, "text": v, "title": (titles or {}).get(k, "")} for k, v in docs.items()]
            split = {
                "corpus": Dataset.from_list(titled),
                "queries": Dataset.from_list([{"id": k, "text": v} for k, v in queries.items()]),
                "relevant_docs": {k: dict.fromkeys(v, 1) for k, v in relevant.items()},
                "top_ranked": top_ranked,
            }
            self.dataset = cast("Any", {"default": {"test": split}})  # MTEB declares another shape than it reads
            self.data_loaded = True

    return Made()


@pytest.fixture
def encoder():
    return FakeEncoder()


def run(model, task, **options):
    options = {"cache": None, "co2_tracker": False, "show_progress_bar": False, **options}
    quiet = cast("EncodeKwargs", {"show_progress_bar": False})
    (result,) = mteb.evaluate(model, task, encode_kwargs=quiet, **options).task_results
    return result.scores["test"][0]


def mean_ndcg(rankings):
    values = []
    for query, ranking in rankings.items():
        wanted = RELEVANT[query]
        gain = sum(1 / math.log2(i + 2) for i, doc_id in enumerate(ranking[:10]) if doc_id in wanted)
        values.append(gain / sum(1 / math.log2(i + 2) for i in range(len(wanted))))
    return float(np.mean(values))


class TestEncoder:
    def test_retrieval_is_that_of_plain_maxsim(self, encoder):
        expected = mean_ndcg({query: by_plain_maxsim(query) for query in QUERIES})
        assert 0 < expected < 1
        assert run(TansakuModel(encoder), made_task("Retrieval"))["ndcg_at_10"] == pytest.approx(expected, abs=1e-4)

    def test_reranking_is_that_of_plain_maxsim(self, encoder):
        few = {query: [f"d{i}" for i in range(30, -1, -3 - n)] + RELEVANT[query] for n, query in enumerate(QUERIES)}
        expected = mean_ndcg({query: by_plain_maxsim(query, few[query]) for query in QUERIES})
        scores = run(TansakuModel(encoder), made_task("Reranking", top_ranked=few))
        assert scores["ndcg_at_10"] == pytest.approx(expected, abs=1e-4)

    def test_titles_are_encoded_before_texts(self, encoder):
        run(TansakuModel(encoder), made_task("Retrieval", titles={"d1": "京"}))
        assert f"京 {DOCS['d1']}" in encoder.encoded

    def test_texts_without_a_word_score_nothing(self, encoder):
        docs = {"empty": " ", "same": "3a9f"}
        task = made_task("Retrieval", docs, {"q0": "3a9f", "q1": " "}, {"q0": ["same"], "q1": ["same"]})
        assert run(TansakuModel(encoder), task)["recall_at_3"] == 1.0

    def test_similarities_are_maxsim(self, encoder):
        model = TansakuModel(encoder)
        queries, docs = [encoder.vectors("ab"), encoder.vectors("cde")], [encoder.vectors("xa"), encoder.vectors("b")]
        expected = [[float((q @ d.T).max(axis=1).sum()) for d in docs] for q in queries]
        assert model.similarity(queries, docs).numpy() == pytest.approx(np.array(expected), abs=1e-5)
        assert model.similarity(queries[0], docs).numpy() == pytest.approx(np.array(expected[:1]), abs=1e-5)

    def test_the_model_says_what_it_is(self, encoder):
        meta = TansakuModel(encoder).mteb_model_meta
        assert (meta.name, meta.revision, meta.embed_dim) == ("tansaku/fake", encoder.bundle.scoring_fingerprint, 16)
        assert isinstance(TansakuModel(encoder), mteb.SearchProtocol)

    def test_options_that_would_change_nothing_are_refused(self, encoder):
        given = cast("EncodeKwargs", {"precision": "int8"})
        for model in (TansakuModel(encoder), TansakuIndexModel(encoder)):
            with pytest.raises(InputError, match="unknown argument 'precision'"):
                mteb.evaluate(model, made_task("Retrieval"), encode_kwargs=given, cache=None)
            with pytest.raises(InputError, match="unknown argument 'recall'"):
                model.search(QUERIES, recall="exact")
            with pytest.raises(InputError, match="unknown argument 'nbits'"):
                model.index([{"id": "d", "text": "abc"}], nbits=4)


class TestIndex:
    def test_retrieval_is_near_that_of_plain_maxsim(self, encoder):
        exact = run(TansakuModel(encoder), made_task("Retrieval"))["ndcg_at_10"]
        indexed = run(TansakuIndexModel(encoder, nbits=4, recall="exact"), made_task("Retrieval"))
        assert indexed["ndcg_at_10"] == pytest.approx(exact, abs=0.05)

    def test_reranking_looks_only_at_what_is_given(self, encoder):
        few = {query: [*by_plain_maxsim(query)[-3:], *wanted] for query, wanted in RELEVANT.items()}
        scores = run(TansakuIndexModel(encoder), made_task("Reranking", top_ranked=few))
        assert (scores["recall_at_10"], scores["ndcg_at_10"]) == (1.0, pytest.approx(1.0))

    def test_documents_without_a_word_are_reported(self, encoder, caplog):
        with caplog.at_level(logging.WARNING):
            run(TansakuIndexModel(encoder), made_task("Retrieval", DOCS | {"d1": " "}))
        assert "1 of 40 documents are empty" in caplog.text
        few = {query: [RELEVANT[query][0]] for query in QUERIES}
        emptied = DOCS | {RELEVANT["q1"][0]: ""}
        scores = run(TansakuIndexModel(encoder), made_task("Reranking", emptied, top_ranked=few))
        assert scores["ndcg_at_1"] == 1.0
        with pytest.raises(InputError, match="all 2 documents"):
            run(TansakuIndexModel(encoder), made_task("Retrieval", {"d1": "", "d2": " "}))

    def test_the_folder_is_gone_afterwards(self, encoder, monkeypatch, tmp_path):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        model = TansakuIndexModel(encoder)
        run(model, made_task("Retrieval"))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "options", [{"phrase_weight": 0.5}, {"nprobe": 1, "recall": "fast"}, {"recall": 0.95}, {"candidates": 3}]
    )
    def test_the_options_of_a_search_reach_it(self, encoder, monkeypatch, options):
        seen = []
        search_vectors = Searcher.search_vectors

        def spy(self, query_vectors, **given):
            seen.append({name: given[name] for name in options})
            return search_vectors(self, query_vectors, **given)

        monkeypatch.setattr(Searcher, "search_vectors", spy)
        model = TansakuIndexModel(encoder, **options)
        run(model, made_task("Retrieval"))
        assert seen == [options] * len(QUERIES)
        assert model.mteb_model_meta.experiment_kwargs == {"nbits": 2, "pool": 1, "recall": "balanced"} | options

    def test_results_of_another_index_are_not_taken_for_its_own(self, encoder, tmp_path):
        cache = mteb.ResultCache(tmp_path)
        for model in (TansakuModel(encoder), TansakuIndexModel(encoder), TansakuIndexModel(encoder, nbits=1)):
            run(model, made_task("Retrieval"), cache=cache)
        assert len(list(tmp_path.rglob("MadeRetrieval.json"))) == 3

    @pytest.mark.parametrize("arguments", [{"recall": "perfect"}, {"nbits": 3}, {"pool": 0}, {"nprobe": 0}])
    def test_options_that_are_none_are_refused(self, encoder, arguments):
        with pytest.raises(InputError, match=next(iter(arguments))):
            run(TansakuIndexModel(encoder, **arguments), made_task("Retrieval"))


def test_the_real_model_finds_real_japanese(default_encoder):
    with (SAMPLE / "corpus.jsonl").open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in itertools.islice(lines, 24)]
    documents = {str(record.get("id", record.get("_id"))): record["text"] for record in records}
    chosen = list(documents)[::6]
    queries = {f"q-{doc_id}": documents[doc_id][:40] for doc_id in chosen}
    task = made_task("Retrieval", documents, queries, {f"q-{doc_id}": [doc_id] for doc_id in chosen})
    assert run(TansakuIndexModel(default_encoder), task)["ndcg_at_10"] > 0.9


def test_without_mteb_the_extra_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "tansaku.plugin.hosts.mteb")
    monkeypatch.setitem(sys.modules, "mteb.models", None)
    with pytest.raises(MissingExtraError, match=r"mteb: pip install 'tansaku\[mteb\]'"):
        importlib.import_module("tansaku.plugin.hosts.mteb")
