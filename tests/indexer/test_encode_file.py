"""Texts to a Parquet file of token vectors: it gives the index of the texts, and continues after an interruption."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow.parquet as pq
import pytest

from tansaku import Index, InputError, ResumeError, Searcher
from tansaku.indexer.read.vectors import FINGERPRINT_KEY
from tansaku.indexer.write import parquet_parts
from tansaku.indexer.write.encode_file import encode_file
from tansaku.indexer.write.options import WriteOptions

from ..support.fakes import DIM, FakeEncoder, KilledError, comparable, corpus, small_chunks, stored

DOCS = [{**d, "year": i, "day": datetime.date(2024, 1, 1 + i)} for i, d in enumerate(corpus(20))]


def encode(path, documents=DOCS, encoder=None, *, resume=True, **given):
    return encode_file(documents, path, encoder or FakeEncoder(), options=WriteOptions(resume=resume), **given)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "docs.parquet"


def test_indexing_the_file_is_indexing_the_texts(tmp_path, path):
    report = encode(path, floats="float32")
    assert (report.rows, report.documents, report.resumed) == (20, 20, 0)
    Index.create(tmp_path / "db", "texts", DOCS, encoder=FakeEncoder())
    made = Index.create_from_vectors(tmp_path / "db", "t", path, "vectors", encoder=FakeEncoder())
    assert comparable(stored(tmp_path / "db")) == comparable(stored(tmp_path / "db", "texts"))
    assert made.last_build
    assert made.last_build.tokens == report.tokens
    assert Searcher.open(tmp_path / "db", "t", encoder=FakeEncoder()).search("3a9f", 1)


def test_the_file_has_the_columns_the_vectors_and_the_model(path):
    encode(path)
    table = pq.read_table(path)
    assert table.column_names == ["id", "title", "text", "year", "day", "vectors"]
    assert str(table.schema.field("vectors").type.value_type.value_type) == "halffloat"
    assert table["day"][3].as_py() == datetime.date(2024, 1, 4)
    first = np.array(table["vectors"][0].as_py(), np.float32)
    assert first.shape[1] == DIM
    assert np.allclose(first, FakeEncoder().vectors(DOCS[0]["text"]), atol=1e-3)
    assert (pq.read_schema(path).metadata or {})[FINGERPRINT_KEY].decode() == FakeEncoder().bundle.fingerprint


def test_an_interrupted_call_continues(path, tmp_path, monkeypatch):
    small_chunks(monkeypatch)
    encode(tmp_path / "whole.parquet")
    encoder, calls = FakeEncoder(), []

    def before(texts):
        calls.append(texts)
        if len(calls) == 3:
            raise KilledError

    encoder.before_encoding = before
    with pytest.raises(KilledError):
        encode(path, encoder=encoder)
    assert not path.exists()
    with pytest.raises(ResumeError, match="the documents changed"):
        encode(path, DOCS[:-1])
    with pytest.raises(ResumeError, match="the model changed"):
        encode(path, encoder=FakeEncoder("other"))
    again = FakeEncoder()
    report = encode(path, encoder=again)
    assert 0 < report.resumed < 20
    assert len(again.encoded) == 20 - report.resumed
    assert pq.read_table(path).equals(pq.read_table(tmp_path / "whole.parquet"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["docs.parquet", "whole.parquet"]


def test_without_resume_it_starts_over(path, monkeypatch):
    small_chunks(monkeypatch)
    monkeypatch.setattr(parquet_parts.ParquetParts, "finish", lambda *_: (_ for _ in ()).throw(KilledError))
    with pytest.raises(KilledError):
        encode(path)
    monkeypatch.undo()
    encoder = FakeEncoder("other")
    assert encode(path, encoder=encoder, resume=False).resumed == 0
    assert len(encoder.encoded) == 20


def test_a_file_that_is_there_is_replaced_only_on_request(path):
    encode(path, DOCS[:3])
    with pytest.raises(InputError, match="exists already"):
        encode(path)
    assert pq.read_metadata(path).num_rows == 3
    encode(path, overwrite=True)
    assert pq.read_metadata(path).num_rows == 20


@pytest.mark.parametrize(
    ("documents", "named"),
    [
        ([], "no documents"),
        ([{"id": "a", "text": ""}], "document 0: field 'text' of 'a' is empty"),
        ([{"id": "a", "text": "b", "vectors": 1}], "the field name 'vectors' is taken"),
    ],
)
def test_what_cannot_be_encoded_is_named(path, tmp_path, documents, named):
    with pytest.raises(InputError, match=named):
        encode(path, documents)
    assert not [*tmp_path.iterdir()]


def test_there_is_no_such_folder(tmp_path):
    with pytest.raises(InputError, match="a folder that exists"):
        encode(tmp_path / "no" / "docs.parquet")
