"""`tansaku encode` and `tansaku index --vectors`: one command encodes, another indexes."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tansaku import Index, Searcher

from .test_cli import TWO, succeeds, tansaku

pytestmark = pytest.mark.integration


@pytest.fixture
def documents(tmp_path):
    path = tmp_path / "docs.jsonl"
    path.write_text("\n".join(map(json.dumps, TWO)), encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path):
    return ("--db", tmp_path / "db", "--table", "t")


@pytest.fixture
def encoded(tmp_path, documents):
    path = tmp_path / "docs.parquet"
    assert "2 documents" in succeeds("encode", documents, path)
    return path


@pytest.fixture
def unnamed(encoded, tmp_path):
    """The same vectors in a file that does not say whose they are."""
    path = tmp_path / "unnamed.parquet"
    pq.write_table(pq.read_table(encoded).replace_schema_metadata(None), path)
    return path


def test_encoded_texts_are_indexed_and_searched(encoded, table, tmp_path):
    succeeds("index", encoded, *table, "--vectors", "vectors")
    assert Searcher.open(tmp_path / "db", "t").search("塩辛いのは？", 1)[0].id == "sea"
    assert "2 documents" in succeeds("index", encoded, *table, "--vectors", "vectors", "--mode", "upsert")


def test_a_model_must_be_named(unnamed, table, tmp_path):
    ended = tansaku("index", unnamed, *table, "--vectors", "vectors")
    assert ended.returncode == 2
    assert "does not say which model made its vectors" in " ".join(ended.stderr.split())
    succeeds("index", unnamed, *table, "--vectors", "vectors", "--vectors-only")
    assert Index.open(tmp_path / "db", "t").info().model == "given vectors"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--vectors", "vector"], "no field 'vector' here (fields: id, title, text, year, vectors)"),
        (["--vectors", "vectors", "--passage-tokens", "100"], "cannot be divided into passages"),
        (["--vectors", "vectors", "--vectors-only"], "the model is known"),
        (["--vectors-only"], "name the field"),
    ],
)
def test_options_that_do_not_fit(encoded, table, options, said):
    ended = tansaku("index", encoded, *table, *options)
    assert (ended.returncode, said in " ".join(ended.stderr.split())) == (2, True), ended.stderr


def test_a_row_that_cannot_be_used_is_rejected(encoded, table, tmp_path):
    rows = pq.read_table(encoded).to_pylist()
    rows[1]["vectors"][0][0] = float("nan")
    schema = pq.read_schema(encoded)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), encoded)
    ended = tansaku("index", encoded, *table, "--vectors", "vectors")
    assert "docs.parquet row 1: document 'sea' has vectors that are not finite" in " ".join(ended.stderr.split())
    rejects = tmp_path / "rejects.jsonl"
    shown = succeeds("index", encoded, *table, "--vectors", "vectors", "--on-error", "reject", "--rejects", rejects)
    assert "1 record rejected" in shown
