"""A file of queries in, a file of hits out."""

from __future__ import annotations

from functools import partial

import pyarrow.parquet as pq
import pytest

from tansaku import Index, InputError, OnProcesses, Searcher, WorkerError
from tansaku.plugin.evaluation import bulk_search
from tansaku.plugin.evaluation.bulk_search import BulkReport, search_file
from tansaku.plugin.evaluation.search_part import SCHEMA

from ...support.fakes import FakeEncoder, MortalEncoder, corpus

QUERIES = {f"q{i}": text for i, text in enumerate(["京都", "東京の雨", "犬", "山の寺", "海"] * 3)}


@pytest.fixture(scope="module")
def searcher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bulk")
    encoder = FakeEncoder()
    Index.create(folder, "t", corpus(60), encoder=encoder)
    return Searcher.open(folder, "t", encoder=encoder)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(bulk_search, "QUERIES_PER_PART", 4)


def expected(searcher, k=3):
    return [
        (query_id, rank, hit.id, pytest.approx(hit.score, rel=1e-6))
        for query_id, text in QUERIES.items()
        for rank, hit in enumerate(searcher.search(text, k), 1)
    ]


def rows(path):
    table = pq.read_table(path)
    assert table.schema.equals(SCHEMA)
    return [tuple(row.values()) for row in table.to_pylist()]


def test_parquet_has_the_hits_of_each_query(searcher, tmp_path):
    out = tmp_path / "hits.parquet"
    assert search_file(searcher, QUERIES, out, k=3) == BulkReport(15, 45, 0, 0)
    assert rows(out) == expected(searcher)
    assert [path.name for path in tmp_path.iterdir()] == ["hits.parquet"]


def test_a_run_has_them_too(searcher, tmp_path):
    out = tmp_path / "hits.run"
    search_file(searcher, QUERIES, out, k=3)
    fields = [line.split(" ") for line in out.read_text().splitlines()]
    assert [(q, int(rank), doc) for q, _, doc, rank, _, _ in fields] == [one[:3] for one in expected(searcher)]


def test_interrupted_work_continues(searcher, tmp_path, monkeypatch):
    out = tmp_path / "hits.parquet"

    def stop_after_two_parts(stage, done, total, tokens, /):
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search_file(searcher, QUERIES, out, k=3, progress=stop_after_two_parts)
    assert not out.exists()
    asked = []
    search = searcher.search_many
    monkeypatch.setattr(searcher, "search_many", lambda texts, *a, **b: asked.extend(texts) or search(texts, *a, **b))
    report = search_file(searcher, QUERIES, out, k=3)
    assert report.resumed >= 4
    assert len(asked) == len(QUERIES) - report.resumed
    assert rows(out) == expected(searcher)


def test_parts_of_other_work_are_refused(searcher, tmp_path):
    out = tmp_path / "hits.parquet"

    def stop(stage, done, total, tokens, /):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search_file(searcher, QUERIES, out, k=3, progress=stop)
    with pytest.raises(InputError, match=r"other k; give the same again.*--no-resume"):
        search_file(searcher, QUERIES, out, k=4)
    assert search_file(searcher, QUERIES, out, k=4, resume=False).hits == 60


def test_queries_without_hits_are_counted(searcher, tmp_path):
    report = search_file(searcher, QUERIES, tmp_path / "hits.run", where="id = 'nobody'")
    assert (report.hits, report.without_hits) == (0, 15)
    assert (tmp_path / "hits.run").read_text() == ""


@pytest.mark.parametrize(("name", "said"), [("hits.csv", "ending"), ("nowhere/hits.run", "cannot be written")])
def test_bad_places(searcher, tmp_path, name, said):
    with pytest.raises(InputError, match=said):
        search_file(searcher, QUERIES, tmp_path / name)


class MortalAtQueries(MortalEncoder):
    """It may also end its process at a query."""

    def elsewhere(self, threads):
        return partial(MortalAtQueries, self.log, self.deadly, self.once, is_elsewhere=True)

    def encode_query_tokens(self, tokenized):
        return self.encode_tokens(tokenized)


@pytest.fixture
def mortal(tmp_path):
    """A searcher whose encoder other processes can load."""
    (tmp_path / "once").touch()
    encoder = MortalAtQueries(tmp_path / "log", deadly="!", once=tmp_path / "once")
    Index.create(tmp_path / "db", "t", corpus(60), encoder=FakeEncoder())
    return Searcher.open(tmp_path / "db", "t", encoder=encoder)


@pytest.mark.integration
def test_several_processes_write_the_same_bytes(mortal, tmp_path):
    """Also if one of them ends: its part is searched again."""
    options = {"k": 3, "where": "id != 'd1'", "recall": "exact"}
    elsewhere, here = tmp_path / "elsewhere.parquet", tmp_path / "here.parquet"
    report = search_file(mortal, QUERIES, elsewhere, on=OnProcesses(2), **options)
    assert not mortal.encoder.once.exists(), "no process has ended"
    assert report == search_file(mortal, QUERIES, here, **options)
    assert elsewhere.read_bytes() == here.read_bytes()


@pytest.mark.integration
@pytest.mark.slow
def test_parts_that_are_done_are_kept_when_processes_end(mortal, tmp_path):
    asked = {**QUERIES, "q14": "a!b"}
    with pytest.raises(WorkerError, match="3 workers ended while they searched the queries from 'q12' to 'q14'"):
        search_file(mortal, asked, tmp_path / "hits.run", on=OnProcesses(1))
    assert search_file(mortal, asked, tmp_path / "hits.run").resumed == 12  # in this process nothing is deadly
