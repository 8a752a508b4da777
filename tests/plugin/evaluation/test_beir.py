"""Whole BEIR folders: what is read, the three ways to rank, and MTEB's own functions on the same runs."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores, make_score_dict
from mteb.results import TaskResult
from typer.testing import CliRunner

from tansaku import Encoder, InputError, MissingExtraError, SourceError
from tansaku.plugin.cli.demo import SAMPLE
from tansaku.plugin.cli.main import app
from tansaku.plugin.evaluation import beir as module
from tansaku.plugin.evaluation.beir import (
    BEIR_MEASURES,
    Beir,
    BeirResult,
    bm25,
    evaluate_beir,
    exhaustive,
    mteb_result,
    through_index,
)
from tansaku.plugin.evaluation.bm25 import Bm25
from tansaku.plugin.evaluation.judgements import Corpus

from ...support.fakes import FakeEncoder, corpus

DOCS = [{"_id": d["id"], "title": "", "text": d["text"], "metadata": {"url": "x"}} for d in corpus(40)]
QUERIES = {f"q{i}": text for i, text in enumerate(["3a9f", "b07", "99c1d", "e1", "0f0f"])}
QRELS = {"q0": {"d1": 1, "d7": 2}, "q1": {"d3": 1}, "q2": {"d2": 1, "d9": 1}, "q3": {"d30": 1}, "q4": {"d39": 1}}
FAKE = cast(Encoder, FakeEncoder())


def write_beir(folder: Path, docs=DOCS, queries=QUERIES, qrels=QRELS, split: str = "dev") -> Path:
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, records in (("corpus", docs), ("queries", [{"_id": k, "text": v} for k, v in queries.items()])):
        lines = [record if isinstance(record, str) else json.dumps(record, ensure_ascii=False) for record in records]
        (folder / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    lines = [f"{query}\t{doc}\t{grade}" for query, grades in qrels.items() for doc, grade in grades.items()]
    text = "\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n"
    (folder / "qrels" / f"{split}.tsv").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_beir(tmp_path / "made")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A third of the sample corpus as a BEIR folder."""
    docs, asked = ([json.loads(line) for line in lines_of(name)[:100]] for name in ("corpus.jsonl", "queries.jsonl"))
    qrels = {
        query: {doc: int(grade)} for query, doc, grade in (line.split("\t") for line in lines_of("qrels.tsv")[1:101])
    }
    return write_beir(tmp_path_factory.mktemp("beir") / "sample", docs, {q["_id"]: q["text"] for q in asked}, qrels)


def lines_of(name: str) -> list[str]:
    return (SAMPLE / name).read_text(encoding="utf-8").splitlines()


def scored(run, query: str) -> list[tuple[str, float]]:
    return list(run[query].items())


def by_plain_maxsim(query: str, docs=DOCS) -> list[tuple[str, float]]:
    vectors = FakeEncoder().vectors(query)
    scores = {}
    for doc in docs:
        text = f"{doc['title']} {doc['text']}" if doc["title"] else doc["text"]
        scores[doc["_id"]] = float((vectors @ FakeEncoder().vectors(text).T).max(axis=1).sum())
    return sorted(scores.items(), key=lambda item: -item[1])


class TestReading:
    def test_what_is_there_is_counted(self, folder):
        beir = Beir.read(folder)
        assert (beir.name, beir.split, beir.n_documents, beir.empty, beir.missing) == ("made", "dev", 40, 0, ())
        assert (beir.queries, beir.qrels) == (QUERIES, QRELS)

    def test_only_judged_queries_are_asked(self, folder):
        write_beir(folder, qrels={"q3": QRELS["q3"]}, split="test")
        beir = Beir.read(folder, "test")
        assert (beir.queries, beir.qrels) == ({"q3": QUERIES["q3"]}, {"q3": QRELS["q3"]})

    def test_packed_files_and_integers_for_ids(self, tmp_path):
        folder = write_beir(tmp_path / "packed", [{"_id": 7, "text": "abc"}], {"q": "a"}, {"q": {"7": 1}})
        (folder / "corpus.jsonl.gz").write_bytes(gzip.compress((folder / "corpus.jsonl").read_bytes()))
        (folder / "corpus.jsonl").unlink()
        assert list(exhaustive(Beir.read(folder), FAKE)["q"]) == ["7"]

    def test_titles_stand_before_texts(self, tmp_path):
        docs = [
            {"_id": "both", "title": "京", "text": "都"},
            {"_id": "title", "title": "奈良", "text": " "},
            {"_id": "text", "title": None, "text": "海"},
        ]
        encoder = FakeEncoder()
        beir = Beir.read(write_beir(tmp_path / "x", docs, {"q": "京"}, {"q": {"both": 1}}))
        exhaustive(beir, cast(Encoder, encoder))
        assert encoder.encoded == ["京 都", "奈良", "海"]
        encoder.encoded.clear()
        through_index(beir, cast(Encoder, encoder))
        assert set(encoder.encoded) == {"京 都", "奈良", "海"}

    def test_empty_passages_are_counted_and_left_out(self, tmp_path):
        docs = [*DOCS, {"_id": "e1", "title": "", "text": " \u3000"}, {"_id": "e2", "text": ""}]
        beir = Beir.read(write_beir(tmp_path / "x", docs, qrels=QRELS | {"q4": {"e1": 1, "d39": 1}}))
        assert (beir.n_documents, beir.empty, beir.missing) == (40, 2, ())
        for run in (bm25(beir), exhaustive(beir, FAKE), through_index(beir, FAKE)):
            assert not {"e1", "e2"} & set(run["q4"])

    def test_judged_documents_that_are_not_there_are_counted(self, folder):
        write_beir(folder, qrels={**QRELS, "q4": {"gone": 1, "away": 1, "d39": 1}, "q0": {"gone": 1, "d1": 1}})
        assert Beir.read(folder).missing == ("gone", "away")
        assert Beir.read(folder, questions=2).missing == ("gone",)

    def test_the_revision_is_of_all_that_is_read(self, folder, tmp_path):
        def revision(**parts):
            return Beir.read(write_beir(tmp_path / "other", **parts)).revision

        assert revision() == Beir.read(folder).revision
        others = {
            revision(docs=DOCS[::-1]),
            revision(queries=QUERIES | {"q0": "3a9e"}),
            revision(qrels=QRELS | {"q3": {"d30": 2}}),
            Beir.read(folder, questions=3).revision,
        }
        assert len(others | {revision()}) == 5

    @settings(
        max_examples=20, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.integers(1, 12), st.integers(1, 12))
    def test_questions_are_spread_evenly(self, tmp_path, total, wanted):
        queries = {f"q{i}": "a" for i in range(total)}
        folder = write_beir(tmp_path / "x", DOCS[:2], queries, {name: {"d1": 1} for name in queries})
        chosen = [int(name[1:]) for name in Beir.read(folder, questions=wanted).queries]
        assert len(chosen) == min(total, wanted)
        assert set(np.diff(chosen)) <= {max(1, total // wanted)}
        assert chosen[0] == 0

    @pytest.mark.parametrize(
        ("parts", "offender"),
        [
            ({"docs": [{"_id": "d1"}]}, r"corpus.jsonl:1: no field 'text'"),
            ({"docs": [{"text": "x"}]}, r"corpus.jsonl:1: no field 'id'"),
            ({"docs": [DOCS[1], '{"_id": ']}, r"corpus.jsonl:2: not valid JSON"),
            ({"docs": [DOCS[1], DOCS[1]]}, r"corpus.jsonl:2: id 'd1' occurs twice"),
            ({"docs": [{"_id": "d1", "text": ["x"]}]}, r"corpus.jsonl:1: field 'text' of 'd1' must be a string"),
            ({"docs": [{"_id": "d1", "text": ""}]}, r"corpus.jsonl: all passages are empty"),
            ({"queries": {"q0": " "}}, r"queries.jsonl:1: the text of 'q0' is empty"),
            ({"queries": {"q0": "x"}}, r"4 of 5 judged queries are not among the queries, such as 'q1'"),
            ({"qrels": {}}, r"dev.tsv: no judgements"),
            ({"qrels": {"q0": {"d1": "high"}}}, r"dev.tsv:2: the grade 'high'"),
            ({"qrels": {"q0": {"x": 1, "y": 1}}}, r"2 of 2 judged documents .*, such as 'x'; give"),
        ],
    )
    def test_what_cannot_be_used_is_named(self, tmp_path, parts, offender):
        with pytest.raises(InputError, match=offender):
            Beir.read(write_beir(tmp_path / "bad", **parts))

    @pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
    def test_missing_files_are_named(self, folder, name):
        (folder / name).unlink()
        with pytest.raises(SourceError, match=f"made: no {name} in it; a BEIR folder has"):
            Beir.read(folder)

    def test_missing_folders_and_splits_are_named(self, folder, tmp_path):
        with pytest.raises(SourceError, match=r"nothing: no such folder; a BEIR folder has"):
            Beir.read(tmp_path / "nothing")
        write_beir(folder, split="test")
        with pytest.raises(SourceError, match=r"train.tsv: no such file; the splits in this folder: dev, test"):
            Beir.read(folder, "train")
        shutil.rmtree(folder / "qrels")
        with pytest.raises(SourceError, match=r"the splits in this folder: none"):
            Beir.read(folder)


class TestRanking:
    def test_exhaustive_is_plain_maxsim(self, folder):
        run = exhaustive(Beir.read(folder), FAKE, k=7)
        for query, text in QUERIES.items():
            expected = by_plain_maxsim(text)[:7]
            assert [doc_id for doc_id, _ in scored(run, query)] == [doc_id for doc_id, _ in expected]
            assert list(run[query].values()) == pytest.approx([score for _, score in expected], abs=1e-5)

    @settings(
        max_examples=25, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        st.lists(st.text("あいう", min_size=1, max_size=3), min_size=1, max_size=12),
        st.integers(1, 5),
        st.integers(1, 13),
    )
    def test_chunks_change_nothing(self, tmp_path, texts, together, k):
        docs = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(texts)]
        beir = Beir.read(write_beir(tmp_path / "x", docs, {"q": "あう"}, {"q": {"d0": 1}}))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_DOCUMENTS_PER_BATCH", together)
            run = exhaustive(beir, FAKE, k)
        expected = by_plain_maxsim("あう", docs)  # sorting is stable: of equal texts the earlier first
        assert list(run["q"].values()) == pytest.approx([score for _, score in expected[:k]], abs=1e-5)
        same = {doc["_id"]: doc["text"] for doc in docs}
        assert [same[doc_id] for doc_id in run["q"]] == [same[doc_id] for doc_id, _ in expected[:k]]

    def test_a_document_without_vectors_is_named(self, folder):
        encoder = FakeEncoder()
        encoder.vectors = lambda text: np.empty((0, encoder.dim), np.float32)
        with pytest.raises(InputError, match=r"corpus.jsonl:1: document 'd0': the model gives no vectors"):
            exhaustive(Beir.read(folder), cast(Encoder, encoder))

    def test_an_index_with_exact_recall_is_near_that(self, folder):
        beir = Beir.read(folder)
        exact, found = exhaustive(beir, FAKE, 40), through_index(beir, FAKE, 10, nbits=4, recall="exact")
        for query in QUERIES:
            assert len(found[query]) == 10
            for doc_id, score in found[query].items():
                assert score == pytest.approx(exact[query][doc_id], abs=0.2)

    def test_bm25_is_that_of_title_and_text(self, sample):
        beir = Beir.read(sample, questions=20)
        docs = [json.loads(line) for line in lines_of("corpus.jsonl")[:100]]
        index = Bm25((doc["_id"], f"{doc['title']} {doc['text']}") for doc in docs)
        assert bm25(beir, 10) == {query_id: index.best(text, 10) for query_id, text in beir.queries.items()}

    def test_the_temporary_folders_are_gone(self, folder, monkeypatch, tmp_path):
        (tmp_path / "scratch").mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
        list(evaluate_beir(folder, models={"fake": FAKE}))
        assert list((tmp_path / "scratch").iterdir()) == []


class TestEvaluating:
    def test_a_result_for_each_way_and_model(self, folder):
        other = cast(Encoder, FakeEncoder("other"))
        stages = []
        results = list(
            evaluate_beir(
                folder, models={"one": FAKE, "two": other}, k=100, progress=lambda stage, *counts: stages.append(stage)
            )
        )
        ways = ["BM25", "one exhaustive", "one index", "two exhaustive", "two index"]
        assert [result.way for result in results] == ways
        assert all(result.seconds > 0 and result.run.keys() == QUERIES.keys() for result in results)
        assert all(list(result.measures) == list(BEIR_MEASURES) for result in results)
        assert results[1].measures["recall@100"] == 1.0
        assert results[1].measures == results[3].measures
        assert {stage.split(": ")[0] for stage in stages} == set(ways)

    def test_measures_that_look_farther_are_left_out(self, folder):
        (result,) = evaluate_beir(folder, models={}, ways=["bm25"], k=5)
        assert list(result.measures) == ["hit@1", "hit@3", "hit@5"]

    @pytest.mark.parametrize(
        ("options", "offender"),
        [
            ({"k": 0}, "k is 0; it must be a whole number of 1 or more"),
            ({"questions": 0}, "questions is 0; it must be a whole number of 1 or more"),
            ({"nbits": 3}, "nbits is 3"),
            ({"recall": "all"}, "unknown recall 'all'"),
            ({"ways": ()}, r"ways are \[\]; use some of bm25, exhaustive, index"),
            ({"ways": ["bm25", "bm52"]}, "ways are .*bm52"),
            ({"models": {}}, "there are no models"),
        ],
    )
    def test_bad_arguments_are_refused_at_once(self, folder, options: dict[str, Any], offender):
        encoder = FakeEncoder()
        with pytest.raises(InputError, match=offender):
            evaluate_beir(folder, **{"models": {"fake": cast(Encoder, encoder)}, **options})
        assert encoder.encoded == []

    def test_the_extra_is_asked_for_at_once(self, folder, monkeypatch):
        encoder = FakeEncoder()
        for package in ("bm25s", "ir_measures"):  # ir_measures before a result is asked for
            monkeypatch.setitem(sys.modules, package, None)
            with pytest.raises(MissingExtraError, match=r"tansaku\[evaluate\]"):
                next(evaluate_beir(folder, models={"fake": cast(Encoder, encoder)}))
        assert encoder.encoded == []


def made_result(run, qrels, k: int = 100) -> BeirResult:
    beir = Beir("made", "test", Corpus(Path("x")), dict.fromkeys(qrels, "x"), qrels, 9, 0, (), "0123")
    return BeirResult(beir, "BM25", k, {}, 1.5, run)


def by_mteb(run, qrels, cutoffs) -> dict[str, Any]:
    scores = calculate_retrieval_scores(run, qrels, cutoffs)
    return make_score_dict(
        ndcg=scores.ndcg,
        _map=scores.map,
        recall=scores.recall,
        precision=scores.precision,
        mrr=scores.mrr,
        naucs={},
        naucs_mrr={},
        hit_rate=scores.hit_rate,
        task_scores={},
    )


documents = st.sampled_from([f"d{i}" for i in range(14)])
# Few different scores, so that many are equal.
runs = st.dictionaries(documents, st.sampled_from([0.5, 1.0, 1.5, 2.25]), max_size=14)
judgements = st.dictionaries(documents, st.integers(0, 3), min_size=1, max_size=5)


@pytest.mark.integration
class TestMteb:
    @settings(max_examples=60, derandomize=True, deadline=None)
    @given(st.lists(st.tuples(runs, judgements), min_size=1, max_size=5))
    def test_scores_are_those_of_mteb(self, pairs):
        run = {f"q{i}": scores for i, (scores, _) in enumerate(pairs)}
        qrels = {f"q{i}": grades for i, (_, grades) in enumerate(pairs)}
        written = mteb_result(made_result(run, qrels))["scores"]["test"][0]
        expected = by_mteb(run, qrels, [1, 3, 5, 10, 20, 100])
        assert set(written) == {*expected, "main_score", "hf_subset", "languages"}
        for name, value in expected.items():
            assert written[name] == pytest.approx(value, abs=1.1e-6), name  # all but MRR are rounded to five digits

    def test_mteb_loads_what_is_written(self, folder, tmp_path):
        (result,) = evaluate_beir(folder, models={"fake": FAKE}, ways=["exhaustive"], k=20)
        path = tmp_path / "made.json"
        path.write_text(json.dumps(mteb_result(result)), encoding="utf-8")
        for loaded in (TaskResult.from_dict(mteb_result(result)), TaskResult.from_disk(path)):
            assert (loaded.task_name, loaded.dataset_revision) == ("made", result.beir.revision)
            assert loaded.evaluation_time == result.seconds
            assert (loaded.eval_splits, loaded.hf_subsets, loaded.languages) == (["dev"], ["default"], ["jpn"])
            assert loaded.get_score() == pytest.approx(result.measures["ndcg@10"], abs=1e-5)
            (scores,) = loaded.scores["dev"]
            assert scores["mrr_at_10"] == pytest.approx(result.measures["mrr@10"], abs=1e-6)
            assert scores["hit_rate_at_3"] == pytest.approx(result.measures["hit@3"], abs=1e-5)
        loaded.to_disk(tmp_path / "again.json")
        assert json.loads((tmp_path / "again.json").read_bytes()).keys() == json.loads(path.read_bytes()).keys()

    def test_scores_go_as_far_as_was_ranked(self):
        run, qrels = {"q": {"d1": 1.0}}, {"q": {"d1": 1}}
        (scores,) = mteb_result(made_result(run, qrels, k=1000), task="Named")["scores"]["test"]
        assert [name for name in scores if name.startswith("ndcg")] == [
            f"ndcg_at_{k}" for k in (1, 3, 5, 10, 20, 100, 1000)
        ]
        assert "ndcg_at_20" not in mteb_result(made_result(run, qrels, k=19))["scores"]["test"][0]
        assert mteb_result(made_result(run, qrels), task="Named")["task_name"] == "Named"
        with pytest.raises(InputError, match="k is 9; MTEB's main score is nDCG@10"):
            mteb_result(made_result(run, qrels, k=9))


@pytest.mark.slow
@pytest.mark.integration
def test_japanese_text_end_to_end(sample: Path, default_encoder: Encoder):
    results = {r.way: r for r in evaluate_beir(sample, models={"m": default_encoder}, questions=30, nbits=4)}
    assert list(results) == ["BM25", "m exhaustive", "m index"]
    for result in results.values():
        assert (len(result.beir.queries), result.beir.n_documents) == (30, 100)
        assert all(len(found) <= 100 for found in result.run.values())
        assert 0.85 <= result.measures["hit@1"] <= result.measures["hit@10"] <= result.measures["recall@100"] <= 1
    exact, indexed = results["m exhaustive"].run, results["m index"].run
    shared = [len(set(list(exact[q])[:10]) & set(list(indexed[q])[:10])) for q in exact]
    assert np.mean(shared) >= 9


class TestCommand:
    @staticmethod
    def run(*arguments: Any):
        return CliRunner().invoke(app, ["beir", *map(str, arguments)])

    @pytest.fixture(autouse=True)
    def _fake(self, monkeypatch):
        """Bundles named for their folders' last names."""

        def load(path=None, threads=None):
            return FakeEncoder(Path(path).name if path else "inside")

        monkeypatch.setattr(Encoder, "load", load)

    def test_prints_a_row_for_each_way(self, folder):
        write_beir(folder, [*DOCS, {"_id": "e", "text": ""}], qrels=QRELS | {"q0": {"d1": 1, "gone": 1}})
        result = self.run(folder)
        assert result.exit_code == 0, result.output
        shown = result.stdout.splitlines()
        assert shown[0] == "made, dev: 5 questions, 40 documents"
        assert "1 empty document left out" in shown[1]
        assert "1 judged documents are not in the corpus and cannot be found, such as 'gone'" in shown[2]
        assert shown[3].split() == [*BEIR_MEASURES, "seconds"]
        assert [line[:17].strip() for line in shown[4:]] == ["BM25", "inside exhaustive", "inside index"]
        assert len({len(line) for line in shown[3:]}) == 1

    def test_prints_json_and_writes_files_for_mteb(self, folder, tmp_path):
        models = ("--model", tmp_path / "a" / "same", "--model", tmp_path / "b" / "same", "--model", tmp_path / "x")
        made = tmp_path / "mteb"
        result = self.run(folder, *models, "--no-bm25", "--no-index", "-k", 10, "--json", "--mteb", made)
        assert result.exit_code == 0, result.output
        printed = json.loads(result.stdout)
        assert (printed["name"], printed["questions"], printed["documents"], printed["k"]) == ("made", 5, 40, 10)
        assert (printed["empty"], printed["missing"]) == (0, 0)
        ways = [f"{tmp_path}/a/same exhaustive", f"{tmp_path}/b/same exhaustive", "x exhaustive"]
        assert [row["way"] for row in printed["results"]] == ways
        loaded = TaskResult.from_disk(made / "x_exhaustive" / "made.json")
        assert loaded.get_score() == pytest.approx(printed["results"][2]["metrics"]["ndcg@10"], abs=1e-5)
        assert len(list(made.glob("*/made.json"))) == 3

    def test_errors_name_the_option(self, folder, tmp_path):
        (tmp_path / "file").write_text("")
        for arguments, offender in (
            (("-k", 5, "--mteb", tmp_path / "m"), "--mteb needs 10 or more"),
            (("--mteb", tmp_path / "file"), "choose another folder by --mteb"),
            (("--split", "train"), "the splits in this folder: dev"),
            (("--no-bm25", "--no-exhaustive", "--no-index"), "use some of bm25"),
        ):
            error = self.run(folder, *arguments).exception
            assert isinstance(error, InputError)
            assert offender in str(error)
