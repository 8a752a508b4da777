"""Builds by other engines: the rows are those of `Index`, and no commit takes what it must not."""

from __future__ import annotations

import pickle
from functools import partial

import pyarrow as pa
import pytest

from tansaku import (
    Index,
    InputError,
    TableExistsError,
    TableNotFoundError,
    WriteConflictError,
    commit_rows,
    encode_rows,
    plan_rows,
    write_rows,
)
from tansaku.indexer.table.fragments import append_fragments
from tansaku.indexer.write import bulk

from ..support.fakes import FakeEncoder, comparable, corpus, rows_by_id, stored, texts_by_id

pytestmark = pytest.mark.integration

DOCS = corpus(30, year=lambda i: 1900 + i)


class PortableEncoder(FakeEncoder):
    def elsewhere(self, threads):
        return partial(PortableEncoder)


plan_of = partial(plan_rows, encoder=PortableEncoder())


def batches(documents, size=7):
    return pa.Table.from_pylist(documents).to_batches(max_chunksize=size)


def written(plan, documents):
    """Each batch by a task of its own, which gets the plan as bytes."""
    tasks = [(pickle.loads(pickle.dumps(plan)), batch) for batch in batches(documents)]
    return [name for own, batch in tasks for name in write_rows(own, [encode_rows(own, batch).rows])]


@pytest.mark.parametrize("options", [{}, {"passage_tokens": 5}, {"fulltext": True, "nbits": 4}], ids=str)
def test_rows_are_those_of_an_index(tmp_path, options):
    plan = plan_of(tmp_path / "db", "t", DOCS, **options)
    rows = commit_rows(plan, written(plan, DOCS))
    Index.create(tmp_path / "here", "t", DOCS, encoder=FakeEncoder(), **options)
    assert comparable(stored(tmp_path / "db")) == comparable(stored(tmp_path / "here"))
    index = Index.open(tmp_path / "db", "t", encoder=FakeEncoder())
    assert index.info().documents == len(DOCS) <= rows
    assert index.optimize().fragments_after == 1


def test_append_and_overwrite(tmp_path):
    index = Index.create(tmp_path / "db", "t", DOCS[:10], encoder=FakeEncoder())
    plan = plan_of(tmp_path / "db", "t", mode="append")
    assert commit_rows(plan, written(plan, DOCS[10:])) == 20
    index.add(corpus(2, "n", year=lambda i: i))
    assert len(rows_by_id(tmp_path / "db")) == 32
    plan = plan_of(tmp_path / "db", "t", DOCS[:5], mode="overwrite")
    commit_rows(plan, written(plan, DOCS[:5]))
    assert texts_by_id(tmp_path / "db") == {document["id"]: document["text"] for document in DOCS[:5]}


@pytest.mark.parametrize("mode", ["overwrite", "append"])
def test_a_commit_that_is_repeated_commits_once(tmp_path, mode):
    Index.create(tmp_path / "db", "t", DOCS[:10], encoder=FakeEncoder())
    plan = plan_of(tmp_path / "db", "t", DOCS, mode=mode)
    names = written(plan, DOCS[10:])
    for _ in range(2):
        assert commit_rows(plan, names) == 20
    assert len(rows_by_id(tmp_path / "db")) == (30 if mode == "append" else 20)


def test_what_is_there_twice_is_refused(tmp_path):
    plan = plan_of(tmp_path / "db", "t", DOCS)
    names = written(plan, DOCS)
    with pytest.raises(InputError, match="a fragment is there twice"):
        commit_rows(plan, [*names, names[0]])
    with pytest.raises(InputError, match="id 'd3' occurs twice"):
        commit_rows(plan, [*names, *written(plan, DOCS[3:4])])
    with pytest.raises(InputError, match="no rows to commit"):
        commit_rows(plan, [])
    assert commit_rows(plan, names) == 30
    later = plan_of(tmp_path / "db", "t", mode="append")
    with pytest.raises(InputError, match="document 'd3' is in the index already"):
        commit_rows(later, written(later, DOCS[3:4]))
    assert len(rows_by_id(tmp_path / "db")) == 30


def test_another_writer_adds_the_same_ids_during_the_commit(tmp_path, monkeypatch):
    index = Index.create(tmp_path / "db", "t", DOCS[:10], encoder=FakeEncoder())
    plan = plan_of(tmp_path / "db", "t", mode="append")
    names = written(plan, DOCS[10:])
    original = append_fragments

    def append(*given, **how):
        index.add(DOCS[12:13])
        return original(*given, **how)

    monkeypatch.setattr(bulk, "append_fragments", append)
    with pytest.raises(WriteConflictError, match="another writer added 1 of these documents"):
        commit_rows(plan, names)
    assert len(rows_by_id(tmp_path / "db")) == 11


def test_an_index_that_was_made_again_is_not_appended_to(tmp_path):
    Index.create(tmp_path / "db", "t", DOCS[:10], encoder=FakeEncoder())
    plan = plan_of(tmp_path / "db", "t", mode="append")
    names = written(plan, DOCS[10:])
    Index.create(tmp_path / "db", "t", DOCS[:10], encoder=FakeEncoder(), overwrite=True)
    with pytest.raises(InputError, match="was made again after the rows were planned"):
        commit_rows(plan, names)


def test_rejects_and_counts(tmp_path):
    plan = plan_of(tmp_path / "db", "t", DOCS)
    given = [{"id": "a", "text": ""}, {"id": "b", "text": "0123456789abcdef", "year": 1}, {"id": "b", "text": "c"}]
    done = encode_rows(plan, pa.RecordBatch.from_pylist(given))
    assert done.rows["id"].to_pylist() == ["b"]
    assert [each["place"] for each in done.rejected] == ["row 0", "row 2"]
    assert (done.report.rows, done.report.truncated, done.report.rejected) == (1, 1, 2)
    assert len(encode_rows(plan, pa.RecordBatch.from_pylist(given[:1])).rows) == 0
    with pytest.raises(InputError, match="column 'place' is not in the plan"):
        encode_rows(plan, pa.RecordBatch.from_pylist([{"id": "a", "text": "b", "place": "c"}]))


def test_plans_that_cannot_be(tmp_path):
    Index.create(tmp_path / "db", "t", DOCS, encoder=FakeEncoder())
    with pytest.raises(TableExistsError):
        plan_of(tmp_path / "db", "t", DOCS)
    with pytest.raises(TableNotFoundError):
        plan_of(tmp_path / "db", "u", mode="append")
    with pytest.raises(InputError, match="no documents"):
        plan_of(tmp_path / "db", "u")
    with pytest.raises(InputError, match="use 'create', 'append' or 'overwrite'"):
        plan_of(tmp_path / "db", "u", DOCS, mode="upsert")  # pyright: ignore[reportArgumentType]
