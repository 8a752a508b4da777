"""Rows in Milvus Lite, the engine that runs within a process; a server is asked in the same way."""

from __future__ import annotations

import contextlib
import logging

import numpy as np
import pytest

from tansaku import CodedRow, Coder, CodesError, HostError, InputError
from tansaku.plugin.hosts.rows._codes_text import codes_to_text
from tansaku.plugin.hosts.rows.conformance import DOCUMENTS, RowStoreTests, shared_coder

from ....support.codecs import other_codec

pymilvus = pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

from tansaku.plugin.hosts.rows.milvus import MilvusRows  # noqa: E402  needs pymilvus

pytestmark = pytest.mark.engine
MilvusClient, DataType = pymilvus.MilvusClient, pymilvus.DataType
CODES, VECTOR = "tansaku_codes", "tansaku_vector"


@pytest.fixture(autouse=True)
def quiet():
    """The client writes each refusal to its log, with a trace."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def client(tmp_path):
    with contextlib.closing(MilvusClient(str(tmp_path / "own.db"))) as opened:
        yield opened


@pytest.fixture
def coder():
    return shared_coder()


class TestFlat(RowStoreTests[MilvusRows]):
    index_type = "FLAT"

    @pytest.fixture(autouse=True)
    def clients(self):
        with contextlib.ExitStack() as self.opened:
            yield

    def make_store(self, coder, folder, **options):
        client = self.opened.enter_context(contextlib.closing(MilvusClient(str(folder / "milvus.db"))))
        return MilvusRows.create(coder, client, "docs", index_type=self.index_type, **options)

    def year_is(self, year):
        return f"year == {year}"

    def reopen(self, store):
        return MilvusRows(store.coder, store.client, "docs", fields=["year", "note"])

    def write_uncoded(self, store, records):
        zeros = [0.0] * store.coder.row_dim
        store.client.insert("docs", [{**record, VECTOR: zeros, CODES: None} for record in records])

    def write_codes(self, store, row_id, codes):
        store.client.upsert("docs", [{"id": row_id, CODES: codes_to_text(codes)}], partial_update=True)


class TestHnsw(TestFlat):
    """Its index loses rows under a filter."""

    index_type = "HNSW"


class TestIds:
    def test_whole_numbers(self, client, coder):
        store = MilvusRows.create(coder, client, "docs", id_type="INT64")
        store.add([{"id": i, "text": record["text"]} for i, record in enumerate(DOCUMENTS, -1)])
        assert store.search("昔の首都はどこ？", k=1)[0].id == -1
        assert [row.id for rows in store.coded_rows(2) for row in rows] == [-1, 0, 1, 2, 3]
        assert store.delete([-1, 99]) == 1
        with pytest.raises(InputError, match=r"INT64.*'dog'"):
            store.add([{"id": "dog", "text": "犬"}])

    def test_a_whole_number_among_strings(self, client, coder):
        store = MilvusRows.create(coder, client, "docs")
        with pytest.raises(InputError, match=r"VARCHAR.*7"):
            store.upsert([{"id": 7, "text": "犬"}])

    def test_an_id_that_is_too_long(self, client, coder):
        store = MilvusRows.create(coder, client, "docs")
        with pytest.raises(HostError, match="512"):
            store.add([{"id": "x" * 600, "text": "犬"}])
        assert store.count() == 0


class TestErrors:
    def test_codes_that_are_too_long(self, client, coder):
        """The row is named, with its tokens; nothing of the batch is written."""
        store = MilvusRows.create(coder, client, "docs")
        vectors = np.ones((1500, coder.codec.dim), np.float32) / np.sqrt(coder.codec.dim)
        coded = coder.code_vectors([vectors])[0]
        short = coder.encode_documents(["犬"])[0]
        rows = [CodedRow(name, one.row_vector, one.codes, {"text": "犬"}) for name, one in (("a", short), ("b", coded))]
        with pytest.raises(InputError, match=r"'b'.*1,500 tokens.*65,535.*divide"):
            store.write_coded(rows)
        assert store.count() == 0

    def test_a_collection_that_is_not_there(self, client, coder):
        with pytest.raises(HostError, match=r"'docs'.*MilvusRows\.create"):
            MilvusRows(coder, client, "docs")

    def test_a_collection_that_is_there(self, client, coder):
        MilvusRows.create(coder, client, "docs")
        with pytest.raises(HostError, match="there already"):
            MilvusRows.create(coder, client, "docs")

    @pytest.mark.parametrize(
        ("dim", "metric", "codes", "named"),
        [
            (4, "IP", DataType.VARCHAR, "dimensions"),
            (None, "COSINE", DataType.VARCHAR, "COSINE"),
            (None, "IP", DataType.INT64, "INT64"),
        ],
    )
    def test_fields_of_another_kind(self, client, coder, dim, metric, codes, named):
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dim or coder.row_dim)
        schema.add_field(CODES, codes, **({"max_length": 100} if codes == DataType.VARCHAR else {}))
        index = client.prepare_index_params()
        index.add_index(VECTOR, index_type="FLAT", metric_type=metric)
        client.create_collection("docs", schema=schema, index_params=index)
        with pytest.raises(InputError, match=named):
            MilvusRows(coder, client, "docs")

    def test_a_field_that_is_not_there(self, client, coder):
        MilvusRows.create(coder, client, "docs")
        with pytest.raises(HostError, match=r"'own'.*tansaku_vector"):
            MilvusRows(coder, client, "docs", vector_column="own")

    @pytest.mark.parametrize("where", ["year ===== 3", "year == ", "no such words"])
    def test_a_filter_that_does_not_parse(self, client, coder, where):
        store = MilvusRows.create(coder, client, "docs")
        store.add([{"id": "kyoto", "text": "京都"}])
        for call in (store.count, lambda where: store.search("京都", where=where), lambda it: store.delete(where=it)):
            with pytest.raises(HostError, match="'docs'"):
                call(where)
        assert store.count() == 1

    @pytest.mark.parametrize("where", ["", " ", {"year": 1}])
    def test_what_is_no_filter(self, client, coder, where):
        """Above all, an empty one deletes nothing."""
        store = MilvusRows.create(coder, client, "docs")
        store.add([{"id": "kyoto", "text": "京都"}])
        for call in (lambda: store.search("京都", where=where), lambda: store.delete(where=where)):
            with pytest.raises(InputError, match="expression"):
                call()
        assert store.count() == 1

    def test_names_that_no_expression_has(self, client, coder):
        with pytest.raises(InputError, match="'my codes'"):
            MilvusRows(coder, client, "docs", codes_column="my codes")

    def test_codes_of_another_codec(self, client, coder):
        MilvusRows.create(coder, client, "docs").add([{"id": "kyoto", "text": "京都"}])
        with pytest.raises(CodesError, match=rf"kyoto.*{coder.codec_id}"):
            MilvusRows(Coder(coder.encoder, codec=other_codec(coder.codec)), client, "docs")

    def test_a_database_that_is_closed(self, coder, tmp_path):
        client = MilvusClient(str(tmp_path / "closed.db"))
        store = MilvusRows.create(coder, client, "docs")
        client.close()
        for call in (lambda: store.search("京都"), store.count, lambda: store.upsert([{"id": "x", "text": "京都"}])):
            with pytest.raises(HostError, match="'docs'"):
                call()

    def test_a_database_that_is_opened_again(self, coder, tmp_path):
        for n in range(2):
            with contextlib.closing(MilvusClient(str(tmp_path / "again.db"))) as client:
                if n:
                    store = MilvusRows(coder, client, "docs")
                    assert store.search("都", k=1)[0].id == "kyoto"
                else:
                    MilvusRows.create(coder, client, "docs").add([{"id": "kyoto", "text": "京都は都だった。"}])


def test_a_collection_of_a_user(client, coder):
    """Its fields and the vectors of another model stay."""
    schema = client.create_schema(auto_id=False)
    schema.add_field("key", DataType.INT64, is_primary=True)
    schema.add_field("title", DataType.VARCHAR, max_length=100)
    schema.add_field("own", DataType.FLOAT_VECTOR, dim=2)
    schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=coder.row_dim)
    schema.add_field(CODES, DataType.VARCHAR, max_length=65535, nullable=True)
    index = client.prepare_index_params()
    for name in ("own", VECTOR):
        index.add_index(name, index_type="FLAT", metric_type="IP")
    client.create_collection("docs", schema=schema, index_params=index)
    zeros = [0.0] * coder.row_dim
    rows = [
        {"key": i, "title": record["text"], "own": [1.0, float(i)], VECTOR: zeros} for i, record in enumerate(DOCUMENTS)
    ]
    client.insert("docs", rows)
    store = MilvusRows(coder, client, "docs", id_column="key", text_columns=["title"])
    assert store.fill(batch=2).written == len(DOCUMENTS)
    assert store.search("昔の首都はどこ？", k=1)[0].id == 0
    assert store.upsert([{"key": 3, "title": "鯨は海に住む。"}]).written == 1
    found = client.query("docs", filter="key == 3", output_fields=["own", "title"])[0]
    assert (found["own"], found["title"]) == ([1.0, 3.0], "鯨は海に住む。")
