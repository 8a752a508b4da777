"""What a table's schema says of an index, and what of that is believed."""

from __future__ import annotations

import dataclasses
import json

import lancedb
import pyarrow as pa
import pytest

from tansaku import Index, ModelMismatchError, NotAnIndexError
from tansaku.indexer.read.documents import PASSAGE_FIELDS, RESERVED_FIELDS
from tansaku.indexer.table.schema import (
    CODE_FIELDS,
    FORMAT_VERSION,
    IndexHeader,
    build_column,
    document_schema,
    read_header,
    reserved_fields,
    user_fields,
)

from ..support.fakes import FakeEncoder

HEADER = IndexHeader("model", "0123456789abcdef", "fedcba9876543210", 17, pool=2, passage_tokens=100)
FIELDS = [pa.field("year", pa.int64()), pa.field("tags", pa.list_(pa.string()))]


def changed(schema, **metadata):
    """``schema`` with other metadata; None leaves a key out."""
    kept = {**schema.metadata, **{f"tansaku.{name}".encode(): value for name, value in metadata.items()}}
    return schema.with_metadata({key: value for key, value in kept.items() if value is not None})


def header_json(**changes):
    content = {**dataclasses.asdict(HEADER), **changes}
    return json.dumps({name: value for name, value in content.items() if value is not ...}).encode()


class TestDocumentSchema:
    @pytest.mark.parametrize("passage_tokens", [None, 100])
    def test_a_header_comes_back(self, passage_tokens):
        header = dataclasses.replace(HEADER, passage_tokens=passage_tokens)
        assert read_header(document_schema(FIELDS, header), "table 't'") == header

    @pytest.mark.parametrize(("passage_tokens", "names"), [(None, []), (100, ["parent_id", "passage"])])
    def test_columns_for_passages_are_there_only_for_passages(self, passage_tokens, names):
        schema = document_schema(FIELDS, dataclasses.replace(HEADER, passage_tokens=passage_tokens))
        assert schema.names == ["id", "title", "text", *names, "year", "tags", *CODE_FIELDS, "build_11"]

    def test_the_id_is_the_primary_key(self):
        schema = document_schema([], HEADER)
        assert schema.field("id").metadata == {b"lance-schema:unenforced-primary-key": b"true"}
        assert not any(field.metadata for field in schema if field.name != "id")

    @pytest.mark.parametrize("passage_tokens", [None, 100])
    def test_only_the_callers_columns_may_be_null_and_all_others_are_reserved(self, passage_tokens):
        header = dataclasses.replace(HEADER, passage_tokens=passage_tokens)
        schema = document_schema(FIELDS, header)
        assert user_fields(schema, header) == FIELDS
        assert [field for field in schema if field.nullable] == [*FIELDS, pa.field(build_column(header), pa.null())]
        assert {field.name for field in schema if not field.nullable} == set(reserved_fields(header))
        assert user_fields(document_schema([], header), header) == []

    def test_names_that_only_passages_need_are_the_callers_otherwise(self):
        header = dataclasses.replace(HEADER, passage_tokens=None)
        fields = [pa.field(name, pa.string()) for name in PASSAGE_FIELDS]
        assert user_fields(document_schema(fields, header), header) == fields
        assert reserved_fields(header) == RESERVED_FIELDS


class TestReadHeader:
    SCHEMA = document_schema(FIELDS, HEADER)

    @pytest.mark.parametrize("metadata", [None, {}, {b"pandas": b"{}"}])
    def test_a_table_without_our_metadata_is_not_ours(self, metadata):
        with pytest.raises(NotAnIndexError, match="table 't' was not made by tansaku"):
            read_header(self.SCHEMA.with_metadata(metadata), "table 't'")

    @pytest.mark.parametrize("version", [1, FORMAT_VERSION + 1, "2.0", "x"])
    def test_another_format_is_refused_naming_both(self, version):
        schema = changed(self.SCHEMA, format=str(version).encode())
        with pytest.raises(NotAnIndexError, match=f"index format {version}, .* reads format {FORMAT_VERSION}"):
            read_header(schema, "table 't'")

    def test_the_metadata_of_format_1_is_refused(self):
        old = {
            b"tansaku.format": b"1",
            b"tansaku.model": b"model",
            b"tansaku.fingerprint": b"0123456789abcdef",
            b"tansaku.codec": b"fedcba9876543210",
        }
        columns = ("id", "title", "text", "token_count", "centroid_ids", "residuals")
        schema = pa.schema([self.SCHEMA.field(name) for name in columns], old)
        with pytest.raises(NotAnIndexError, match=r"index format 1, .* index the documents again"):
            read_header(schema, "table 't'")

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param(None, id="missing"),
            pytest.param(b"", id="empty"),
            pytest.param(b'{"model": ', id="cut off"),
            pytest.param(b"\xff\xfe", id="no text"),
            pytest.param(b"[]", id="a list"),
            pytest.param(b"null", id="null"),
            pytest.param(header_json(codec_id=...), id="a field less"),
            pytest.param(header_json(flavour="x"), id="a field more"),
            *(
                pytest.param(header_json(**{name: value}), id=f"{name} {value!r}")
                for name, value in [
                    *((name, value) for name in ("model", "fingerprint", "codec_id") for value in (None, 1, [])),
                    *((name, value) for name in ("build_id", "pool", "fulltext") for value in (None, "x", [], 1.5)),
                    *(("passage_tokens", value) for value in ("x", [], 0, -1, True)),
                    ("pool", 0),
                ]
            ),
        ],
    )
    def test_damaged_metadata_is_refused_naming_the_table(self, content):
        with pytest.raises(NotAnIndexError, match="table 't': its schema metadata is damaged"):
            read_header(changed(self.SCHEMA, index=content), "table 't'")

    @pytest.mark.parametrize("name", [*RESERVED_FIELDS, *PASSAGE_FIELDS])
    def test_a_missing_column_is_named(self, name):
        schema = self.SCHEMA.remove(self.SCHEMA.get_field_index(name))
        with pytest.raises(NotAnIndexError, match=f"table 't' lacks the columns {name}; "):
            read_header(schema, "table 't'")


class TestCheckModel:
    def test_the_fingerprint_decides(self):
        encoder = FakeEncoder()
        header = IndexHeader("another name", encoder.bundle.fingerprint, "c", 1)
        header.check_model(encoder.bundle, "table 't'")
        other = dataclasses.replace(header, fingerprint="0" * 16)
        with pytest.raises(ModelMismatchError, match=r"table 't' was made with the model 'another name' \(0+\)"):
            other.check_model(encoder.bundle, "table 't'")


class TestTables:
    """The same through LanceDB, which may keep metadata and columns in ways of its own."""

    @pytest.fixture
    def db(self, tmp_path):
        Index.create(tmp_path / "db", "t", [{"id": "a", "text": "寺"}], encoder=FakeEncoder())
        return tmp_path / "db"

    @staticmethod
    def rewrite(db, change):
        database = lancedb.connect(str(db))
        table = change(database.open_table("t").to_arrow())
        database.create_table("t", table, mode="overwrite")

    @pytest.mark.parametrize(
        ("metadata", "message"),
        [
            ({b"tansaku.format": b"1"}, "index format 1"),
            ({b"tansaku.index": b"{}"}, "schema metadata is damaged"),
        ],
    )
    def test_changed_metadata_is_refused_by_every_way_in(self, db, metadata, message):
        self.rewrite(db, lambda table: table.replace_schema_metadata({**table.schema.metadata, **metadata}))
        with pytest.raises(NotAnIndexError, match=message):
            Index.open(db, "t", encoder=FakeEncoder())

    def test_a_dropped_column_is_refused(self, db):
        self.rewrite(db, lambda table: table.drop_columns(["write_id"]))
        with pytest.raises(NotAnIndexError, match="lacks the columns write_id"):
            Index.open(db, "t", encoder=FakeEncoder())

    @pytest.mark.parametrize("metadata", [{b"tansaku.format": b"1"}, {b"tansaku.index": b"{}"}])
    def test_a_table_of_another_format_or_damaged_is_overwritten_on_purpose(self, db, metadata):
        self.rewrite(db, lambda table: table.replace_schema_metadata({**table.schema.metadata, **metadata}))
        made = Index.create(db, "t", [{"id": "b", "text": "海"}], encoder=FakeEncoder(), overwrite=True)
        assert len(made) == 1
