"""Recall that is promised: what is measured of an index, which step a number takes, and what the hits say."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tansaku import Index, InputError, Searcher, Source
from tansaku.indexer.read.documents import DocumentReader
from tansaku.plugin.cli.demo import SAMPLE
from tansaku.plugin.evaluation.judgements import read_queries
from tansaku.plugin.search import calibrator, plan
from tansaku.plugin.search.calibration import LEVELS, Calibration, CalibrationStep, Fitted
from tansaku.plugin.search.calibrator import FILE, lower_bound

from ...support.fakes import FakeEncoder, corpus

QUERY = "02468ace"
RECALLS = st.floats(0, 1)


def calibration(recalls) -> Calibration:
    steps = tuple(CalibrationStep(level, 1, 1, 0.0, recall) for level, recall in zip(LEVELS, recalls, strict=True))
    return Calibration(steps, 64, 0, True, 100, 1000, Fitted(1, "c", None, 0.0))


class TestLadder:
    @given(st.lists(RECALLS, min_size=len(LEVELS), max_size=len(LEVELS)), RECALLS, RECALLS)
    def test_a_higher_number_never_takes_a_cheaper_step(self, recalls, one, other):
        measured = calibration(recalls)
        low, high = (measured.cheapest(number) for number in sorted((one, other)))
        assert low is None or low.recall >= min(one, other)
        if high is not None:
            assert low is not None
            assert low.level <= high.level
        if low is None:
            assert max(recalls) < max(one, other)

    def test_each_step_has_its_recall(self):
        measured = calibration([0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.955])
        assert [measured.at(level) for level in LEVELS] == [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.955]
        assert measured.cheapest(0.75) == measured.steps[3]
        assert measured.cheapest(0.96) is None

    @pytest.mark.parametrize("recall", [-0.1, 1.1, np.nan])
    def test_a_recall_is_a_share(self, recall):
        with pytest.raises(ValueError, match="from 0 to 1"):
            calibration([recall] * len(LEVELS))


class TestLowerBound:
    @given(RECALLS, st.integers(1, 10_000))
    def test_lies_below_the_share_and_not_below_zero(self, share, trials):
        assert 0 <= lower_bound(share, trials) <= share + 1e-12

    @given(st.lists(RECALLS, min_size=2, max_size=9), st.integers(1, 10_000))
    def test_is_in_the_order_of_the_shares(self, shares, trials):
        for lower, higher in pairwise(sorted(shares)):
            assert lower_bound(lower, trials) <= lower_bound(higher, trials) + 1e-12

    def test_comes_closer_with_more_trials_and_never_promises_all(self):
        bounds = [lower_bound(1.0, trials) for trials in (10, 640, 10_000)]
        assert bounds == pytest.approx([0.7881, 0.9958, 0.99973], abs=1e-4)
        assert lower_bound(0.95, 640) == pytest.approx(0.9339, abs=1e-4)


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibration")
    Index.create(folder, "t", corpus(700), encoder=FakeEncoder())
    return folder


@pytest.fixture(autouse=True)
def few_queries(monkeypatch):
    monkeypatch.setattr(calibrator, "_QUERIES", 6)


def opened(db, **options):
    return Searcher.open(db, "t", encoder=FakeEncoder(), **options)


def file_of(db):
    return db / "t.tansaku" / "arrays" / FILE


@pytest.fixture
def searcher(db):
    file_of(db).unlink(missing_ok=True)
    return opened(db)


def measured_now(caplog) -> int:
    count = caplog.text.count("measuring what searches find")
    caplog.clear()
    return count


@pytest.fixture(autouse=True)
def informed(caplog):
    caplog.set_level(logging.INFO, "tansaku.plugin.search.calibrator")


class TestSearch:
    def test_a_number_takes_the_step_that_reaches_it(self, searcher, monkeypatch):
        steps = calibration([0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.965]).steps
        measured = dataclasses.replace(searcher.calibrate(), steps=steps)
        searcher._opened.calibrator.known = measured
        taken = []
        monkeypatch.setattr(
            "tansaku.plugin.search.pipeline.make_plan",
            lambda *args, level, **more: taken.append(level) or plan.make_plan(*args, level=level, **more),
        )
        hits = searcher.search(QUERY, recall=0.935)
        assert (taken, hits.recall, len(hits)) == ([1.0], 0.94, 10)
        rows, _ = searcher.rank_vectors(FakeEncoder().vectors(QUERY), recall=0.9)
        assert (taken[1:], len(rows)) == ([-0.5], 10)
        (many,) = searcher.search_many([QUERY], recall=0.955)
        assert (taken[2:], many.recall) == ([2.0], 0.96)
        beyond = searcher.search_vectors(FakeEncoder().vectors(QUERY), recall=0.97)
        assert (taken[3:], beyond.recall, beyond.scored) == ([None], 1.0, 700)

    def test_all_is_scored_for_1(self, searcher, caplog):
        hits = searcher.search(QUERY, recall=1)
        assert (hits, hits.recall) == (searcher.search(QUERY, recall="exact"), 1.0)
        assert measured_now(caplog) == 0

    def test_what_is_known_of_names_is_said(self, searcher):
        assert searcher.search(QUERY).recall is None
        assert searcher.search(QUERY, recall="exact").recall == 1.0
        assert searcher.search(QUERY, ids=["d1", "d2"]).recall == 1.0  # all of them were scored
        measured = searcher.calibrate()
        for name, level in (("fast", 0.0), ("balanced", 1.0)):
            assert searcher.search(QUERY, recall=name).recall in (measured.at(level), 1.0)
        assert searcher.search(QUERY, nprobe=1, candidates=20).recall is None

    def test_is_a_share(self, searcher):
        assert all(0 <= step.recall <= 1 for step in searcher.calibrate().steps)

    def test_threads_measure_once(self, searcher, caplog):
        threads = [threading.Thread(target=searcher.search, args=(QUERY,), kwargs={"recall": 0.9}) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert measured_now(caplog) == 1

    def test_a_small_index_needs_none(self, tmp_path, caplog):
        Index.create(tmp_path, "t", corpus(12), encoder=FakeEncoder())
        searcher = opened(tmp_path)
        hits = searcher.search(QUERY, recall=0.95)
        assert (hits.recall, hits.scored, searcher.calibrate(), measured_now(caplog)) == (1.0, 12, None, 0)
        assert not file_of(tmp_path).exists()

    def test_pooled_vectors_keep_no_promise_of_all(self, tmp_path):
        pytest.importorskip("scipy")
        Index.create(tmp_path, "t", corpus(12), encoder=FakeEncoder(), pool=2)
        searcher = opened(tmp_path)
        with pytest.raises(InputError, match=r"table 't' has pooled vectors, .*: give recall 'exact' .* below 1"):
            searcher.search(QUERY, recall=1.0)
        assert len(searcher.search(QUERY, recall=0.95)) == 10

    def test_own_queries_count_and_stored_documents_make_up_what_they_lack(self, searcher):
        measured = searcher.calibrate([QUERY, "d"])
        assert (measured.queries, measured.own_queries, measured.exhaustive) == (6, 2, True)
        assert searcher.calibrate(["d"] * 7).queries == 7
        for wrong, said in ((" ", "empty"), ("d", "one string")):
            with pytest.raises(InputError, match=said):
                searcher.calibrate(wrong if wrong == "d" else [wrong])

    def test_a_large_index_is_measured_by_a_wide_search(self, searcher, monkeypatch):
        exhaustive = searcher.calibrate()
        monkeypatch.setattr(calibrator, "_EXHAUSTIVE_UP_TO", 0)
        wide = searcher.calibrate()
        assert (exhaustive.exhaustive, wide.exhaustive) == (True, False)
        assert wide.steps == exhaustive.steps


class TestKept:
    def test_the_next_process_does_not_measure(self, searcher, db, caplog):
        searcher.search(QUERY, recall=0.9)
        assert measured_now(caplog) == 1
        again = opened(db)
        assert again.search(QUERY, recall=0.9).recall == searcher.search(QUERY, recall=0.9).recall
        assert again._opened.calibrator.known == searcher._opened.calibrator.known
        assert measured_now(caplog) == 0

    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: content[:-20],
            lambda content: "[" * 100_000,
            lambda content: content.replace('"recall": 0', '"recall": 1', 1),
            lambda content: content.replace('"queries": 6', '"queries": "6"'),
            lambda content: content.replace('"queries": 6', '"queries": 6, "more": 1'),
            lambda content: content.replace('"recall": 0', '"recall": NaN, "x": 0', 1),
            lambda content: json.dumps({**json.loads(content), "steps": json.loads(content)["steps"][1:]}),
            lambda content: content.replace('"nprobe": ', '"nprobe": 1', 1),
            lambda content: content.replace('"codec_id": "', '"codec_id": "0'),
            lambda content: content.replace('"routing": null', '"routing": [7, 7]'),
            lambda content: content.replace('"phrase_weight": 0.0', '"phrase_weight": 0.5'),
        ],
    )
    def test_what_is_damaged_or_of_another_index_is_measured_again(self, searcher, db, caplog, damage):
        searcher.calibrate()
        measured_now(caplog)
        content = file_of(db).read_text()
        damaged = damage(content)
        assert damaged != content
        file_of(db).write_text(damaged)
        opened(db).search(QUERY, recall=0.9)
        assert measured_now(caplog) == 1
        assert file_of(db).read_text() == content

    def test_a_link_in_its_place_is_not_followed(self, searcher, db, tmp_path):
        measured = searcher.calibrate()
        file_of(db).rename(tmp_path / "elsewhere")
        file_of(db).symlink_to(tmp_path / "elsewhere")
        assert calibrator.Calibrator(searcher._codes, file_of(db).parent).known is None
        file_of(db).unlink()
        (tmp_path / "elsewhere").rename(file_of(db))
        assert calibrator.Calibrator(searcher._codes, file_of(db).parent).known == measured

    @pytest.mark.integration
    @pytest.mark.parametrize(("added", "holds"), [(300, True), (400, False)])
    def test_holds_until_the_index_has_grown_by_half(self, tmp_path, caplog, added, holds):
        index = Index.create(tmp_path, "t", corpus(700), encoder=FakeEncoder())
        searcher = opened(tmp_path)
        before = searcher.calibrate()
        measured_now(caplog)
        index.add(corpus(added, "more"))
        searcher.refresh()
        searcher.search(QUERY, recall=0.9)
        assert measured_now(caplog) == (not holds)
        assert (searcher._opened.calibrator.known == before) is holds

    @pytest.mark.integration
    @pytest.mark.parametrize("derived", [False, True])
    def test_without_a_folder_it_is_kept_in_memory(self, tmp_path, caplog, monkeypatch, derived):
        index = Index.create(tmp_path, "t", corpus(600), encoder=FakeEncoder())
        if derived:
            monkeypatch.setattr(calibrator, "write_atomically", lambda *_: (_ for _ in ()).throw(OSError("read-only")))
        searcher = opened(tmp_path, derived=derived)
        measured = searcher.calibrate()
        assert measured is not None
        assert measured.exhaustive is derived  # residuals in the table are read for candidates only
        index.add(corpus(1, "more"))
        searcher.refresh()
        searcher.search(QUERY, recall=0.9)
        assert measured_now(caplog) == 1
        assert not file_of(tmp_path).exists()

    @settings(derandomize=True, max_examples=50)
    @given(st.lists(RECALLS, min_size=len(LEVELS), max_size=len(LEVELS)))
    def test_is_read_as_it_was_written(self, recalls):
        measured = calibration(recalls)
        assert Calibration.from_json(measured.as_json().encode()) == measured


@pytest.mark.integration
@pytest.mark.slow
def test_the_promise_is_kept_for_questions_about_real_texts(tmp_path, default_encoder):
    documents = list(DocumentReader(Source(SAMPLE / "corpus.jsonl")))[:120]
    records = [{"id": document.id, "text": document.text} for document in documents]
    Index.create(tmp_path, "t", records, encoder=default_encoder, passage_tokens=16)
    searcher = Searcher.open(tmp_path, "t", encoder=default_encoder)
    assert len(searcher) > 1000
    questions = default_encoder.encode_queries(list(read_queries(SAMPLE / "queries.jsonl").values())[:100])
    best = [searcher.rank_vectors(question, recall="exact", passages=True)[1] for question in questions]
    scored = []
    for recall in (0.9, 0.95, 0.99):
        hits = [searcher.search_vectors(q, recall=recall, passages=True, fields=[]) for q in questions]
        found = [np.mean([hit.score >= exact[-1] for hit in some]) for some, exact in zip(hits, best, strict=True)]
        assert np.mean(found) >= recall - 0.02
        assert all(some.recall is not None and recall <= some.recall <= 1 for some in hits)
        scored.append(sum(some.scored for some in hits))
    assert scored == sorted(scored)
    assert scored[0] < 0.5 * len(questions) * len(searcher)
