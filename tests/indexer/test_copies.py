"""Copies of an index, other names for it, and its earlier versions."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tansaku import (
    Index,
    InputError,
    ResumeError,
    Searcher,
    StorageError,
    TableExistsError,
    TableNotFoundError,
    WriteConflictError,
)
from tansaku.indexer.table import contents, table
from tansaku.indexer.write import copying
from tansaku.indexer.write.staging import LeftWork

from ..support.fakes import FakeEncoder, corpus


def documents(index: Index) -> dict[str, tuple[str, int]]:
    return {document["id"]: (document["text"], document["year"]) for document in index.documents()}


def hits(db, table: str, query: str = "0123") -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in Searcher.open(db, table, encoder=FakeEncoder()).search(query, 50)]


@pytest.fixture
def index(tmp_path):
    index = Index.create(tmp_path / "db", "t", corpus(30, year=lambda i: i), encoder=FakeEncoder(), fulltext=True)
    index.delete(["d3"])
    index.upsert([{"id": "d4", "text": "0123", "year": 5}])
    return index


def test_a_copy_has_the_same_documents_and_finds_the_same(tmp_path, index):
    seen = []
    copy = index.copy(tmp_path / "other", "u", progress=lambda *call: seen.append(call))
    assert documents(copy) == documents(index)
    assert hits(tmp_path / "other", "u") == hits(tmp_path / "db", "t")
    assert seen[-1] == ("copy", 29, 29, 0)
    assert len(copy.versions()) <= 2  # with the one of the full text index
    fulltext = Searcher.open(tmp_path / "other", "u", encoder=FakeEncoder()).search("0123", source="text", candidates=5)
    assert fulltext[0].id == "d4"
    copy.add([{"id": "new", "text": "abcd", "year": 1}])
    assert (len(copy), len(index)) == (30, 29)


def test_a_copy_whose_rows_differ_is_an_error(tmp_path, index, monkeypatch):
    create = table.create_index_table

    def damaging(database, name, schema, codec, fit, batches, **options):
        def damaged():
            field = schema.field("residuals")
            for batch in batches:
                turned = pa.array([codes.as_py()[::-1] for codes in batch["residuals"]], field.type)
                yield batch.set_column(schema.get_field_index("residuals"), field, turned)

        create(database, name, schema, codec, fit, damaged(), **options)

    monkeypatch.setattr(copying, "create_index_table", damaging)
    with pytest.raises(StorageError, match=r"differs from .*checksum"):
        index.copy(tmp_path / "other", "u")


def test_a_copy_replaces_a_table_only_if_it_may(tmp_path, index):
    index.copy(to_table="u")
    index.delete(["d5"])
    with pytest.raises(TableExistsError, match=r"'u' exists already; choose another name, or .*--overwrite\)$"):
        index.copy(to_table="u")
    with pytest.raises(TableExistsError, match=r"'u' exists already; choose another name, or .*`tansaku drop`\)$"):
        Index.rename(tmp_path / "db", "t", "u")
    assert len(index.copy(to_table="u", overwrite=True)) == 28
    for same in ({}, {"to_table": "t"}, {"to_db": tmp_path / "db"}):
        with pytest.raises(InputError, match="copied onto itself"):
            index.copy(**same, overwrite=True)


def test_a_renamed_index_is_there_once(tmp_path, index):
    kept = documents(index)
    Index.rename(tmp_path / "db", "t", "u")
    assert Index.names(tmp_path / "db") == ["u"]
    assert documents(Index.open(tmp_path / "db", "u", encoder=FakeEncoder())) == kept
    with pytest.raises(TableNotFoundError):
        Index.rename(tmp_path / "db", "t", "v")
    with pytest.raises(InputError, match="copied onto itself"):
        Index.rename(tmp_path / "db", "u", "u")


def test_nothing_is_lost_when_a_table_changes_while_it_is_renamed(tmp_path, index, monkeypatch):
    def drop(database, name, *, version):
        index.delete(["d6"])
        contents.drop_index(database, name, version=version)

    monkeypatch.setattr(copying, "drop_index", drop)
    with pytest.raises(WriteConflictError, match="changed meanwhile"):
        Index.rename(tmp_path / "db", "t", "u")
    assert Index.names(tmp_path / "db") == ["t", "u"]


def test_an_interrupted_write_is_not_lost_by_renaming(tmp_path, index, monkeypatch):
    monkeypatch.setattr(copying, "left_work", lambda folder: LeftWork(folder, 512))
    with pytest.raises(ResumeError, match="would be lost"):
        Index.rename(tmp_path / "db", "t", "u")


@pytest.mark.parametrize("derived", [True, False])
def test_an_earlier_version_is_searched_again(tmp_path, derived):
    index = Index.create(tmp_path, "t", corpus(600, year=lambda i: i), encoder=FakeEncoder())
    searcher = Searcher.open(tmp_path, "t", encoder=FakeEncoder(), derived=derived)
    first = [(hit.id, hit.score) for hit in searcher.search("0123", 600, recall="exact")]
    before, kept = index.versions()[-1], documents(index)
    index.delete([f"d{i}" for i in range(0, 600, 2)])
    index.upsert([{"id": "d1", "text": "0123", "year": 5}, {"id": "e", "text": "0123", "year": 5}])
    searcher.refresh()
    changed = [(hit.id, hit.score) for hit in searcher.search("0123", 600, recall="exact")]
    assert changed != first
    assert [version.rows for version in index.versions()][-3:][0] == 600
    latest = index.versions()[-1].version
    index.restore(before.version)
    assert documents(index) == kept
    searcher.refresh()
    assert [(hit.id, hit.score) for hit in searcher.search("0123", 600, recall="exact")] == first
    index.restore(latest)
    searcher.refresh()
    assert [(hit.id, hit.score) for hit in searcher.search("0123", 600, recall="exact")] == changed
    assert index.check().rows == 301


def test_a_version_that_is_not_kept_is_refused_with_those_that_are(index):
    with pytest.raises(InputError, match=r"does not keep version 99; use one of 1, 2"):
        index.restore(99)


def test_a_version_before_a_rebuild_is_restored_with_its_codec(tmp_path, index):
    version, kept = index.versions()[-1].version, hits(tmp_path / "db", "t")
    index.rebuild(nbits=4)
    index.restore(version)
    assert index.info().nbits == 2
    assert hits(tmp_path / "db", "t") == kept
