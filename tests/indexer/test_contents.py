"""What a database holds, read again; removing an index."""

from __future__ import annotations

from operator import itemgetter

import lancedb
import pytest

from tansaku import Condition, Index, InputError, NotAnIndexError, TableNotFoundError
from tansaku.indexer.table import contents

from ..support.fakes import FakeEncoder, comparable, corpus, stored

DOCS = corpus(7, year=lambda i: 1900 + i)


@pytest.fixture
def index(tmp_path):
    return Index.create(tmp_path, "t", DOCS, encoder=FakeEncoder())


def test_indexes_are_listed_without_other_tables(index, tmp_path):
    lancedb.connect(tmp_path).create_table("other", [{"a": 1}])
    Index.create(tmp_path, "s", DOCS, encoder=FakeEncoder())
    assert Index.names(tmp_path) == ["s", "t"]


def test_documents_make_the_same_index_again(index, tmp_path):
    documents = list(index.documents())
    assert sorted(documents, key=lambda document: document["id"]) == [{"title": "", **document} for document in DOCS]
    Index.create(tmp_path, "again", documents, encoder=FakeEncoder())
    schema, rows = comparable(stored(tmp_path, "again"), in_order=False)
    assert (schema, rows) == comparable(stored(tmp_path), in_order=False)


def test_documents_are_chosen_by_a_condition(index):
    assert {document["year"] for document in index.documents(where=Condition("year < $y", y=1902))} == {1900, 1901}
    with pytest.raises(InputError, match="yaer"):
        list(index.documents(where="yaer < 3"))


def test_passages_have_their_places(tmp_path):
    text = "一つ目の文です。二つ目の文です。"
    index = Index.create(tmp_path, "t", [{"id": "a", "text": text}], encoder=FakeEncoder(), passage_tokens=8)
    found = sorted(index.documents(), key=lambda document: document["passage"])
    assert [(document["parent_id"], document["passage"]) for document in found] == [("a", 0), ("a", 1)]
    assert "".join(document["text"] for document in found) == text


def test_whole_documents_of_passages_make_the_same_index_again(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "_ROWS", 3)  # a document may lie in two reads
    texts = {
        "a": "一つ目の文です。二つ目の文です。",
        "b": "短い文。",
        "c": "三つ目の文です。四つ目の文です。五つ目の文です。",
    }
    documents = [{"id": key, "title": f"題{key}", "text": text, "year": 1} for key, text in texts.items()]
    index = Index.create(tmp_path, "t", documents, encoder=FakeEncoder(), passage_tokens=12)
    index.upsert([documents[0]])
    whole = list(index.documents(whole=True))
    assert [{**document, "text": document["text"].replace("\n", "")} for document in whole] == documents
    again = Index.create(tmp_path, "again", whole, encoder=FakeEncoder(), passage_tokens=12)
    key = itemgetter("id")
    assert sorted(again.documents(), key=key) == sorted(index.documents(), key=key)
    assert [document["id"] for document in index.documents(where="text LIKE '%四つ%'", whole=True)] == ["c"]
    with pytest.raises(InputError, match="no column 'yaer'"):
        list(index.documents(where="yaer < 3", whole=True))


def test_whole_documents_are_the_rows_where_there_are_no_passages(index):
    assert list(index.documents(where="year < 1902", whole=True)) == list(index.documents(where="year < 1902"))


def test_a_dry_run_counts_and_deletes_nothing(index):
    assert index.delete(where="year < 1903", dry_run=True).rows == 3
    report = index.delete([DOCS[0]["id"], "none"], dry_run=True)
    assert (report.rows, report.missing, len(index)) == (1, ["none"], len(DOCS))


def test_a_dropped_index_is_gone_with_all_that_lay_beside_it(index, tmp_path):
    Index.drop(tmp_path, "t")
    assert Index.names(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == []
    with pytest.raises(TableNotFoundError):
        Index.drop(tmp_path, "t")


def test_another_table_is_not_dropped(tmp_path):
    lancedb.connect(tmp_path).create_table("other", [{"a": 1}])
    with pytest.raises(NotAnIndexError):
        Index.drop(tmp_path, "other")
    assert lancedb.connect(tmp_path).open_table("other").count_rows() == 1
