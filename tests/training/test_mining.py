"""The miner: the groups it makes of what engines found, and going on after an interruption."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from tansaku import InputError, ResumeError
from tansaku.onnx_export.encode.find_bundle import DEFAULT_BUNDLE
from tansaku.plugin.cli.main import app
from tansaku.plugin.evaluation.bm25 import Bm25
from tansaku.training.data import teachers
from tansaku.training.data.clusters import cluster_passages, shared_candidates
from tansaku.training.data.groups import raw_groups
from tansaku.training.data.mining import MiningPlan, mine
from tansaku.training.data.teachers import (
    Bm25Teacher,
    DenseTeacher,
    LabelTeacher,
    MaxSimTeacher,
    TokenVectors,
    dense_vectors,
    ensemble,
    teacher_named,
)
from tansaku.training.errors import TrainingDataError

from ..support import backbones
from ..support.fakes import FakeEncoder

COLLECTION = {f"p{i}": f"{i:04d}番の文章。" + "長い" * (i % 5) for i in range(60)}
QUERIES = {f"q{i}": f"{i:04d}番" for i in range(8)}
FOUND = {q: [f"p{(7 * n + j) % 60}" for j in range(20)] for n, q in enumerate(QUERIES)}
OTHER = {q: [f"p{(3 * n + 2 * j) % 60}" for j in range(20)] for n, q in enumerate(QUERIES)}
POSITIVES = {q: [f"p{n}"] for n, q in enumerate(QUERIES)}
PLAN = MiningPlan(nway=6, depth=15, seed=1)


class Length:
    def __init__(self, sign=1):
        self.sign = sign

    def scores(self, query, passages):
        return np.array([self.sign * len(text) for text in passages.values()])


class Digits:
    """Counts how often it is asked."""

    asked = 0

    def scores(self, query, passages):
        self.asked += 1
        return np.array([float(text[:4]) for text in passages.values()])


def mined(tmp_path, **changes):
    arguments = {
        "queries": QUERIES,
        "collection": COLLECTION,
        "candidates": [FOUND, OTHER],
        "teachers": [Digits()],
        "positives": POSITIVES,
        "plan": PLAN,
        **changes,
    }
    report = mine(tmp_path / "groups.jsonl", **arguments)
    lines = [json.loads(line) for line in (tmp_path / "groups.jsonl").read_text().split("\n")[:-1]]
    return report, lines


def test_a_positive_comes_first_and_the_others_are_what_engines_found(tmp_path):
    report, lines = mined(tmp_path)
    assert (report.written, report.too_few, report.constant) == (8, (), ())
    for query, *pairs in lines:
        ids = [doc_id for doc_id, _ in pairs]
        assert ids[0] == POSITIVES[query][0]
        assert len(ids) == len(set(ids)) == 6
        assert set(ids[1:]) <= set(FOUND[query][:15]) | set(OTHER[query][:15])
    groups = list(raw_groups([tmp_path / "groups.jsonl"]))
    assert all(min(group.scores or ()) == 0 and max(group.scores or ()) == 1 for group in groups)


def test_without_positives_the_teachers_best_comes_first(tmp_path):
    _, lines = mined(tmp_path, positives=None)
    for _, *pairs in lines:
        scores = [score for _, score in pairs]
        assert scores == sorted(scores, reverse=True)


def test_every_positive_has_a_group(tmp_path):
    report, lines = mined(tmp_path, positives={**POSITIVES, "q0": ["p0", "p1"]})
    assert report.written == 9
    assert [pairs[0][0] for query, *pairs in lines if query == "q0"] == ["p0", "p1"]
    assert all("p1" not in [p for p, _ in pairs[1:]] for query, *pairs in lines if query == "q0")


def test_the_same_seed_gives_the_same_groups(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert mined(tmp_path / "a") == mined(tmp_path / "b")
    (tmp_path / "c").mkdir()
    assert mined(tmp_path / "c", plan=MiningPlan(nway=6, depth=15, seed=2))[1] != mined(tmp_path / "a")[1]


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_an_interrupted_run_goes_on(tmp_path, cut):
    whole, lines = mined(tmp_path)
    path = tmp_path / "groups.jsonl"
    content = path.read_bytes()
    kept = content.splitlines(keepends=True)
    path.write_bytes(b"".join(kept[:4]) + kept[4][:cut])
    teacher = Digits()
    report, again = mined(tmp_path, teachers=[teacher])
    assert (report, again) == (whole, lines)
    assert teacher.asked == 5  # the last whole one is made again: it might have had more groups


def test_an_interrupted_run_goes_on_whatever_the_ids_hold(tmp_path):
    odd = {f"{query}\u2028{query}\x85": text for query, text in QUERIES.items()}
    found = dict(zip(odd, FOUND.values(), strict=True))
    whole, lines = mined(tmp_path, queries=odd, candidates=[found], positives={})
    content = (tmp_path / "groups.jsonl").read_bytes()
    first, second, *_ = content.split(b"\n")
    (tmp_path / "groups.jsonl").write_bytes(first + b"\n" + second[:9])
    assert mined(tmp_path, queries=odd, candidates=[found], positives={}) == (whole, lines)
    groups = raw_groups([tmp_path / "groups.jsonl"])
    assert [group.query for group in groups] == list(odd)


def test_other_data_are_refused(tmp_path):
    mined(tmp_path)
    with pytest.raises(ResumeError, match="was made with other plan"):
        mined(tmp_path, plan=MiningPlan(nway=5))
    with pytest.raises(ResumeError, match="was made with other queries"):
        mined(tmp_path, queries={**QUERIES, "q9": "新しい"})


def test_without_resuming_a_file_is_made_again(tmp_path):
    whole = mined(tmp_path)
    teacher = Digits()
    assert mined(tmp_path, teachers=[teacher], resume=False) == whole
    assert teacher.asked == 8
    assert mined(tmp_path, plan=MiningPlan(nway=5), resume=False)[0].written == 8


def test_a_file_of_someone_else_is_left_alone(tmp_path):
    path = tmp_path / "groups.jsonl"
    path.write_text("mine\n")
    with pytest.raises(ResumeError, match=r"no groups\.jsonl\.plan\.json beside it"):
        mined(tmp_path)
    assert path.read_text() == "mine\n"


def test_another_model_is_another_teacher(tmp_path):
    def teachers(seed):
        vectors = TokenVectors(FakeEncoder(f"model {seed}"))
        return [MaxSimTeacher(vectors), DenseTeacher(vectors)]

    first = mined(tmp_path, teachers=teachers(1))
    assert mined(tmp_path, teachers=teachers(1)) == first
    with pytest.raises(ResumeError, match="was made with other teachers"):
        mined(tmp_path, teachers=teachers(2))
    with pytest.raises(ResumeError, match="was made with other teachers"):
        mined(tmp_path, teachers=teachers(1)[::-1])


def test_progress_counts_queries(tmp_path):
    seen = []
    mined(tmp_path, progress=lambda *counts: seen.append(counts))
    assert seen == [("mine", number, 8, 0) for number in range(1, 9)]


def test_what_makes_no_group_is_counted(tmp_path):
    few = {**FOUND, "q2": ["p2", "p9"]}
    report, lines = mined(tmp_path, candidates=[few])
    assert (report.written, report.too_few) == (7, ("q2",))
    assert "q2" not in {line[0] for line in lines}
    (tmp_path / "flat").mkdir()
    flat = dict.fromkeys(COLLECTION, "同じ")
    report, lines = mined(tmp_path / "flat", collection=flat, teachers=[Length()])
    assert (report.written, len(report.constant), lines) == (0, 8, [])


def test_unknown_passages_are_named(tmp_path):
    with pytest.raises(TrainingDataError, match="query 'q1': the passage 'zz' is not"):
        mined(tmp_path, positives={"q1": ["zz"]})


class TestTeachers:
    PASSAGES = {"a": "x" * 2, "b": "x" * 6, "c": "x" * 10}  # noqa: RUF012

    def test_an_ensemble_is_the_weighted_mean_of_normalised_scores(self):
        scores = ensemble([Length(), Length(-1)], [3, 1], "q", self.PASSAGES)
        assert scores.tolist() == pytest.approx([0.25, 0.5, 0.75])

    @pytest.mark.parametrize("given", [[1.0], [1.0, np.nan, 2.0], [[1.0], [2.0], [3.0]]])
    def test_a_teacher_without_a_number_for_each_passage_is_named(self, given):
        class Broken:
            def scores(self, query, passages):
                return np.array(given)

        with pytest.raises(InputError, match="Broken gave no number"):
            ensemble([Broken()], [1], "q", self.PASSAGES)
        with pytest.raises(InputError, match="1 teachers and 2 weights"):
            ensemble([Broken()], [1, 1], "q", self.PASSAGES)

    def test_all_know_the_right_passage(self):
        vectors = TokenVectors(FakeEncoder())
        labels = LabelTeacher({"0017番": {"p17"}})
        for teacher in (MaxSimTeacher(vectors), DenseTeacher(vectors), Bm25Teacher(Bm25(COLLECTION.items())), labels):
            scores = teacher.scores("0017番", {key: COLLECTION[key] for key in ("p16", "p17", "p23")})
            assert scores.argmax() == 1

    def test_maxsim_and_dense_are_what_they_are_called(self):
        encoder = FakeEncoder()
        (query,) = encoder.encode_queries(["0017番"])
        documents = encoder.encode_documents(self.PASSAGES.values())
        vectors = TokenVectors(encoder)
        exact = [(query @ document.T).max(axis=1).sum() for document in documents]
        assert MaxSimTeacher(vectors).scores("0017番", self.PASSAGES) == pytest.approx(exact, abs=1e-2)
        means = [document.mean(axis=0) for document in documents]
        cosines = [mean @ query.mean(axis=0) / np.linalg.norm(mean) for mean in means]
        assert DenseTeacher(vectors).scores("0017番", self.PASSAGES) == pytest.approx(cosines, abs=1e-2)

    def test_a_passage_is_encoded_once_as_long_as_it_is_kept(self):
        encoder = FakeEncoder()
        vectors = TokenVectors(encoder, kept=2)
        vectors.of_passages(["a", "b", "a"])
        vectors.of_passages(["b", "a"])
        assert sorted(encoder.encoded) == ["a", "b"]
        vectors.of_passages(["c", "d"])
        vectors.of_passages(["a"])
        assert sorted(encoder.encoded) == ["a", "a", "b", "c", "d"]

    @pytest.mark.integration
    def test_a_cross_encoder_gives_logits(self, tmp_path):
        """Not probabilities, of which those of hard negatives are all near 0."""
        folder = backbones.cross_encoder(tmp_path / "teacher")
        passages = dict(list(COLLECTION.items())[:8])
        teacher, _ = teacher_named(f"cross-encoder:{folder}")
        scores = teacher.scores("0003番", passages)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        with torch.no_grad():
            pairs = tokenizer(["0003番"] * 8, list(passages.values()), padding=True, return_tensors="pt")
            expected = model(**pairs).logits[:, 0].tolist()
        assert scores.tolist() == pytest.approx(expected, abs=1e-4)
        assert scores.min() < 0 or scores.max() > 1
        # So that mining which an earlier version began, with probabilities, is not continued.
        assert "logits" in getattr(teacher, "name", "")

    def test_names(self):
        bm25 = Bm25(COLLECTION.items())
        assert isinstance(teacher_named("2*labels", positives={"q": ["p1"]})[0], LabelTeacher)
        (dense, weight), (maxsim, _) = teacher_named("0.5*dense:"), teacher_named("maxsim")
        assert isinstance(dense, DenseTeacher)
        assert isinstance(maxsim, MaxSimTeacher)
        assert (weight, dense._vectors) == (0.5, maxsim._vectors)  # the model is loaded once
        assert isinstance(teacher_named("bm25", bm25)[0], Bm25Teacher)
        with pytest.raises(InputError, match="needs judgements; give --qrels"):
            teacher_named("labels")
        for name in ("bm26", "-1*bm25", "x*bm25", "bm25:x", "cross-encoder"):
            with pytest.raises(InputError, match="unknown teacher"):
                teacher_named(name, bm25)


class TestClusters:
    @given(passages=st.integers(1, 40), size=st.integers(1, 9), seed=st.integers(0, 9))
    def test_all_but_the_last_are_full(self, passages, size, seed):
        vectors = np.random.default_rng(seed).normal(size=(passages, 3)).astype(np.float32)
        counts = np.bincount(cluster_passages(vectors, size, seed))
        assert counts.sum() == passages
        assert (counts[:-1] == size).all()
        assert 1 <= counts[-1] <= size

    def test_near_passages_are_together(self):
        angles = np.array([0.0, 3.0, 0.1, 3.1, 0.2, 2.9])
        clusters = cluster_passages(np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32), 3, 0)
        assert len(set(clusters[[0, 2, 4]])) == len(set(clusters[[1, 3, 5]])) == 1
        assert clusters[0] != clusters[1]

    def test_a_query_belongs_to_its_positive_or_else_to_the_best_that_was_found(self):
        found = {"a": ["p2"], "b": ["p0", "p3"], "c": []}
        shared = shared_candidates(
            ["a", "b", "c", "d"], ["p0", "p1", "p2", "p3"], np.array([0, 0, 1, 1]), [found], {"d": ["p1"]}
        )
        assert list(shared.items()) == [("b", ["p0", "p1"]), ("d", ["p0", "p1"]), ("a", ["p2", "p3"])]

    def test_a_candidate_that_is_no_passage_is_named(self):
        with pytest.raises(TrainingDataError, match="query 'a': the passage 'gone' is not in the collection"):
            shared_candidates(["a"], ["p0", "p1"], np.array([0, 0]), [{"a": ["gone"]}], {})

    def test_of_equally_near_passages_the_earlier_are_taken(self):
        clusters = cluster_passages(np.ones((7, 2), np.float32), 3, 0)
        first = np.random.default_rng(0).permutation(7)[0]
        earlier = [number for number in range(7) if number != first][:2]
        assert set(np.flatnonzero(clusters == clusters[first])) == {first, *earlier}

    def test_of_the_passages_a_batch_is_held_at_a_time(self, monkeypatch):
        encoder, ahead = FakeEncoder(), []

        class Texts(list):
            def __iter__(self):
                for number, text in enumerate(super().__iter__()):
                    ahead.append(number - len(encoder.encoded))
                    yield text

        monkeypatch.setattr(teachers, "_token_vectors", lambda *_: TokenVectors(encoder))
        monkeypatch.setattr(teachers, "_PASSAGES_PER_BATCH", 4)
        texts = [f"{number:02d}番" for number in range(10)]
        vectors = dense_vectors(None, Texts(texts))
        assert max(ahead) < 4
        assert vectors.tolist() == TokenVectors(encoder).means_of_passages(texts).tolist()


class TestCommand:
    def run(self, tmp_path, *options):
        (tmp_path / "q.tsv").write_text("".join(f"{q}\t{text}\n" for q, text in QUERIES.items()), encoding="utf-8")
        (tmp_path / "c.tsv").write_text("".join(f"{p}\t{text}\n" for p, text in COLLECTION.items()), encoding="utf-8")
        judged = "query-id\tcorpus-id\tscore\nq0\tp0\t1\nq1\tp1\t0\n"
        (tmp_path / "qrels.tsv").write_text(judged, encoding="utf-8")
        data = ["--queries", str(tmp_path / "q.tsv"), "--collection", str(tmp_path / "c.tsv"), "--nway", "4"]
        return CliRunner().invoke(app, ["mine", str(tmp_path / "g.jsonl"), *data, *options])

    def test_writes_groups(self, tmp_path):
        lines = [f"q{n} Q0 p{(n + j) % 60} {j} {9 - j} x" for n in range(8) for j in range(6)]
        (tmp_path / "run.trec").write_text("\n".join(lines))
        options = ["--run", str(tmp_path / "run.trec"), "--bm25", "--qrels", str(tmp_path / "qrels.tsv")]
        done = self.run(tmp_path, *options, "--teacher", "bm25", "--teacher", "0.5*bm25")
        assert done.exit_code == 0, done.output
        assert "8 groups" in done.output
        groups = list(raw_groups([tmp_path / "g.jsonl"]))
        assert groups[0].passages[0] == "p0"
        again = [*options, "--teacher", "bm25"]
        assert isinstance(self.run(tmp_path, *again).exception, ResumeError)
        done = self.run(tmp_path, *again, "--no-resume")
        assert done.exit_code == 0, done.output

    def test_ctrl_c_says_how_to_go_on(self, tmp_path, monkeypatch):
        scores = Bm25Teacher.scores
        asked = []

        def interrupt_the_fourth(teacher, query, passages):
            asked.append(query)
            if len(asked) == 4:
                raise KeyboardInterrupt
            return scores(teacher, query, passages)

        monkeypatch.setattr(Bm25Teacher, "scores", interrupt_the_fourth)
        ended = self.run(tmp_path, "--bm25", "--teacher", "bm25")
        assert ended.exit_code == 130
        assert "interrupted; 3 groups in" in (said := " ".join(ended.output.split()))
        assert "The same command continues from there" in said
        assert self.run(tmp_path, "--bm25", "--teacher", "bm25").exit_code == 0

    def test_takes_judgements_of_trec(self, tmp_path):
        (tmp_path / "trec.qrels").write_text("q0 0 p0 1\nq1 0 p1 0\n", encoding="utf-8")
        done = self.run(tmp_path, "--bm25", "--teacher", "bm25", "--qrels", str(tmp_path / "trec.qrels"))
        assert done.exit_code == 0, done.output
        assert next(raw_groups([tmp_path / "g.jsonl"])).passages[0] == "p0"

    def test_texts_that_cannot_be_used_are_counted_and_limited(self, tmp_path):
        (tmp_path / "more.tsv").write_text("p0\tまた\npx\t \n", encoding="utf-8")
        options = ["--bm25", "--teacher", "bm25", "--collection", str(tmp_path / "more.tsv")]
        done = self.run(tmp_path, *options)
        assert isinstance(done.exception, TrainingDataError)
        said = "left out 2 of 62 passages: 1 without text .*more.tsv:2.*; 1 with an id that came before .p0."
        assert re.search(f"{said}.*--max-left-out", str(done.exception))
        done = self.run(tmp_path, *options, "--max-left-out", "0.05")
        assert done.exit_code == 0, done.output
        assert re.search(said, " ".join(done.output.split()))
        assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []

    def test_judgements_that_cannot_be_used_are_counted(self, tmp_path):
        (tmp_path / "more.tsv").write_text("q0\tp0\t1\nq1\tgone\t1\nunasked\tp1\t1\n", encoding="utf-8")
        done = self.run(tmp_path, "--bm25", "--teacher", "bm25", "--qrels", str(tmp_path / "more.tsv"))
        assert done.exit_code == 0, done.output
        said = " ".join(done.output.split())
        assert "1 of 3 judged queries are not among the queries and are left out, such as 'unasked'" in said
        assert "the collection: 1 of 3 judged documents (1 of 3 relevant ones) are not here" in said

    def test_queries_of_a_cluster_share_its_passages(self, tmp_path):
        judged = ["--qrels", str(tmp_path / "qrels.tsv")]
        done = self.run(tmp_path, "--clusters", str(DEFAULT_BUNDLE), "--bm25", *judged, "--teacher", "bm25")
        assert done.exit_code == 0, done.output
        groups = list(raw_groups([tmp_path / "g.jsonl"]))
        shared = {frozenset(group.passages) for group in groups}
        assert len(groups) == 8
        assert all(not one & other for one in shared for other in shared if one != other)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--teacher", "bm25"], "there are no candidates"),
            (["--bm25", "--teacher", "bert"], "unknown teacher 'bert'; use cross-encoder:MODEL"),
            (["--bm25", "--teacher", "x*bm25"], "unknown teacher 'x*bm25'"),
            (["--bm25", "--teacher", "cross-encoder:"], "unknown teacher"),
            (["--bm25", "--teacher", "bm25", "--depth", "0"], "depth 1 or more"),
        ],
    )
    def test_what_cannot_be_asked_is_named(self, tmp_path, options, said):
        done = self.run(tmp_path, *options)
        assert isinstance(done.exception, InputError)
        assert said in str(done.exception)
