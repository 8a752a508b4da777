"""Making, opening and extending an index: a real LanceDB in a folder, the encoder that ships inside."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import json
import shutil
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from tansaku import (
    BuildReport,
    Document,
    Encoder,
    FieldNames,
    Index,
    InputError,
    ModelMismatchError,
    NotAnIndexError,
    ResumeError,
    Searcher,
    Source,
    SourceError,
    TableExistsError,
    TableNotFoundError,
)
from tansaku.indexer.codec.pooling import pool_tokens
from tansaku.indexer.table.database import connect
from tansaku.indexer.table.table import open_index_table
from tansaku.indexer.write import build_steps

from ..support.fakes import FakeEncoder, built, comparable, corpus, noted_in, small_chunks

TEMPLES = [
    {"id": "kinkaku", "title": "金閣寺", "text": "金箔を貼った舎利殿で知られる、京都の禅寺。", "year": 1397},
    {"id": "horyu", "title": "法隆寺", "text": "世界最古の木造建築が残る、奈良県斑鳩町の寺院である。", "year": 607},
    {"id": "todai", "title": "東大寺", "text": "奈良の大仏を本尊とする。大仏殿は巨大な木造建築だ。", "year": 728},
]
OTHERS = [
    {"id": "udon", "text": "讃岐うどんは香川県の名物で、強いコシが特徴です。"},
    {"id": "fuji", "text": "富士山は日本で最も高い山で、標高は三七七六メートルある。"},
    {"id": "bonito", "text": "鰹節は燻製にした鰹を削ったもので、出汁を取るのに使う。"},
    {"id": "rail", "text": "新幹線は東京と新大阪の間を二時間半ほどで結んでいる。"},
    {"id": "frog", "text": "古池や蛙飛びこむ水の音、と芭蕉は詠んだ。"},
    {"id": "snow", "text": "国境の長いトンネルを抜けると雪国であった。"},
    {"id": "cat", "text": "吾輩は猫である。名前はまだ無い。"},
    {"id": "tea", "text": "宇治の抹茶は茶道にも菓子にも使われる。"},
    {"id": "go", "text": "囲碁は黒と白の石で陣地の広さを競う。"},
]
CORPUS = [*TEMPLES, *OTHERS]
TOUR = {"id": "tour", "title": "寺巡り", "text": "京都の寺を見た。奈良の寺も見た。" * 12, "year": 2024}


class EncoderBrokeError(Exception):
    """No error that tansaku, LanceDB or pyarrow knows of."""


@pytest.fixture(scope="module")
def encoder():
    return Encoder.load(threads=2)


@pytest.fixture
def db(tmp_path):
    return tmp_path / "db"


@pytest.fixture(scope="module")
def made_once(tmp_path_factory, encoder):
    folder = tmp_path_factory.mktemp("made_once")
    Index.create(folder, "t", TEMPLES, encoder=encoder)
    return folder


@pytest.fixture
def index(db, made_once, encoder):
    """A small index in table "t", the test's own copy."""
    shutil.copytree(made_once, db)
    return Index.open(db, "t", encoder=encoder)


def rows(db, table="t"):
    """The table as plain LanceDB reads it, over a connection of its own."""
    return lancedb.connect(str(db)).open_table(table).to_arrow()


def tables(db):
    return sorted(lancedb.connect(str(db)).list_tables().tables)


def files(folder):
    return {path.relative_to(folder): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def encoded_texts(corpus):
    return [f"{row['title']} {row['text']}" if row.get("title") else row["text"] for row in corpus]


def decoded(db, table="t"):
    """The stored vectors, one matrix per row."""
    opened = open_index_table(connect(db), table)
    codec = opened.codec
    return [
        codec.decode(
            np.frombuffer(row["centroid_ids"], codec.id_dtype),
            np.frombuffer(row["residuals"], np.uint8).reshape(-1, codec.residual_bytes),
        )
        for row in opened.table.to_arrow().to_pylist()
    ]


def mean_cosine(stored, vectors):
    return np.mean(np.sum(np.concatenate(stored) * np.concatenate(vectors), axis=1))


def through_the_codec(db, vectors, table="t"):
    """What the index would hold for ``vectors``."""
    codec = open_index_table(connect(db), table).codec
    return [codec.decode(*codec.encode(matrix)) for matrix in vectors]


def other_model(encoder, **changes):
    """The same encoder, by a bundle that says something else."""
    other = copy.copy(encoder)
    other.bundle = dataclasses.replace(encoder.bundle, **changes)
    return other


class TestCreate:
    def test_writes_one_row_per_document_in_order(self, db, encoder):
        index = Index.create(db, "t", CORPUS, encoder=encoder)
        stored = rows(db)
        assert len(index) == len(stored) == len(CORPUS)
        assert stored["id"].to_pylist() == [row["id"] for row in CORPUS]
        assert stored["title"].to_pylist() == [row.get("title", "") for row in CORPUS]
        assert stored["text"].to_pylist() == [row["text"] for row in CORPUS]
        assert stored["year"].to_pylist() == [row.get("year") for row in CORPUS]

    def test_keeps_values_and_types_of_the_callers_fields(self, db, encoder):
        fields = {
            "year": 1397,
            "height": 12.5,
            "open": True,
            "place": "京都",
            "tags": ["寺", "世界遺産"],
            "at": {"lat": 35.03, "lon": 135.72},
            "seen": dt.datetime(2024, 1, 2, 3, 4, 5),
            "founded": dt.date(1397, 4, 16),
            "raw": b"\x00\xff",
            "nothing": None,
        }
        Index.create(db, "t", [{"id": "a", "text": "金閣寺", **fields}, {"id": "b", "text": "銀閣寺"}], encoder=encoder)
        stored = rows(db)
        first, second = stored.select(list(fields)).to_pylist()
        assert first == fields
        assert second == dict.fromkeys(fields)
        assert {name: str(stored.schema.field(name).type) for name in fields} == {
            "year": "int64",
            "height": "double",
            "open": "bool",
            "place": "string",
            "tags": "list<item: string>",
            "at": "struct<lat: double, lon: double>",
            "seen": "timestamp[us]",
            "founded": "date32[day]",
            "raw": "binary",
            "nothing": "string",
        }

    @pytest.mark.parametrize("nbits", [1, 2, 4])
    def test_a_row_holds_as_many_codes_as_its_text_has_token_vectors(self, db, encoder, nbits):
        Index.create(db, "t", CORPUS, encoder=encoder, nbits=nbits)
        expected = [len(matrix) for matrix in encoder.encode_documents(encoded_texts(CORPUS))]
        stored = rows(db)
        assert stored["token_count"].to_pylist() == expected
        assert [len(ids) for ids in stored["centroid_ids"].to_pylist()] == [2 * n for n in expected]
        assert [len(codes) for codes in stored["residuals"].to_pylist()] == [
            n * encoder.dim * nbits // 8 for n in expected
        ]

    def test_stored_vectors_are_near_the_encoders(self, db, encoder):
        Index.create(db, "t", CORPUS, encoder=encoder)
        assert mean_cosine(decoded(db), encoder.encode_documents(encoded_texts(CORPUS))) > 0.9

    def test_documents_outside_the_sample_get_their_own_vectors(self, db, encoder, monkeypatch):
        monkeypatch.setattr(build_steps, "_SAMPLE_ROWS", 3)
        small_chunks(monkeypatch, 2)
        Index.create(db, "t", CORPUS, encoder=encoder, nbits=4)
        expected = encoder.encode_documents(encoded_texts(CORPUS))
        stored = decoded(db)
        assert [len(matrix) for matrix in stored] == [len(matrix) for matrix in expected]
        # The codec saw three documents only, so it is far from the others; but each must be as near as it can be.
        best = through_the_codec(db, expected)
        assert min(mean_cosine([a], [b]) for a, b in zip(stored, best, strict=True)) > 0.95

    def test_the_same_documents_give_the_same_codes(self, db, encoder):
        for table in ("one", "two"):
            Index.create(db, table, iter(CORPUS), encoder=encoder)
        assert comparable(rows(db, "one")) == comparable(rows(db, "two"))

    def test_reports_what_it_wrote(self, db, encoder):
        index = Index.create(db, "t", TEMPLES, encoder=encoder)
        tokens = sum(map(len, encoder.encode_documents(encoded_texts(TEMPLES))))
        assert index.last_build == BuildReport(rows=3, tokens=tokens, truncated=0)

    def test_counts_documents_that_are_longer_than_the_model_reads(self, db, encoder):
        long = {"id": "long", "text": "京都の寺と奈良の寺を歩いた。" * 200}
        index = Index.create(db, "t", [*TEMPLES, long], encoder=encoder)
        assert built(index).truncated == 1
        assert 100 < rows(db)["token_count"].to_pylist()[-1] <= encoder.bundle.document.max_length
        assert rows(db)["text"].to_pylist()[-1] == long["text"]

    def test_tells_of_its_progress(self, db, encoder):
        calls = []
        Index.create(db, "t", TEMPLES, encoder=encoder, progress=lambda *call: calls.append(call))
        tokens = sum(rows(db)["token_count"].to_pylist())
        ends = {call[0]: call for call in calls}  # the last of each stage
        assert list(ends.values()) == [
            ("read", 3, 3, 0),
            ("sample", 3, 3, tokens),
            ("encode", 3, 3, tokens),
            ("commit", 3, 3, 0),
        ]
        moved = [done for stage, done, *_ in calls if stage == "sample"]
        assert moved == sorted(moved)
        assert moved[0] < 3, "it moves before a chunk is done"

    def test_reads_fields_under_other_names(self, db, encoder):
        records = [{"番号": 7, "題": "金閣寺", "本文": "京都の禅寺。"}]
        Index.create(db, "t", records, encoder=encoder, names=FieldNames(id="番号", text="本文", title="題"))
        (row,) = rows(db).select(["id", "title", "text"]).to_pylist()
        assert row == {"id": "7", "title": "金閣寺", "text": "京都の禅寺。"}

    def test_takes_documents_and_iterators_alike(self, db, encoder):
        documents = (Document(row["id"], row["text"], row["title"], {"year": row["year"]}) for row in TEMPLES)
        Index.create(db, "objects", documents, encoder=encoder)
        Index.create(db, "mappings", TEMPLES, encoder=encoder)
        assert comparable(rows(db, "objects")) == comparable(rows(db, "mappings"))

    def test_takes_a_file(self, db, tmp_path, encoder):
        path = tmp_path / "docs.tsv"
        path.write_text("id\ttitle\ttext\tyear\n1\t金閣寺\t京都の禅寺。\t1397\n", encoding="utf-8")
        Index.create(db, "t", Source(path), encoder=encoder)
        (row,) = rows(db).select(["id", "title", "text", "year"]).to_pylist()
        assert row == {"id": "1", "title": "金閣寺", "text": "京都の禅寺。", "year": 1397}

    @pytest.mark.parametrize(
        ("name", "content", "error"),
        [
            ("docs.jsonl", '{"id": 1, "text": "金閣寺"}\n{"id": 1, "text": "寺"}', InputError),
            ("docs.jsonl", '{"id": 1, "text": "金閣寺"}\n{"id": 2', InputError),
            ("docs.csv", 'id,text\n1,"金閣寺\n2,銀閣寺\n', SourceError),
        ],
    )
    def test_names_file_and_line_of_what_is_wrong(self, db, tmp_path, encoder, name, content, error):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        with pytest.raises(error) as caught:
            Index.create(db, "t", Source(path), encoder=encoder)
        assert str(caught.value).startswith(f"{path}:2: ")

    def test_one_document_is_enough(self, db, encoder):
        Index.create(db, "t", [{"id": 1, "text": "。"}], encoder=encoder)
        assert mean_cosine(decoded(db), encoder.encode_documents(["。"])) > 0.99

    def test_takes_the_encoder_that_ships_inside_by_default(self, db):
        Index.create(db, "t", TEMPLES)
        assert Index.open(db, "t").encoder.bundle.name == Encoder.load().bundle.name

    @pytest.mark.parametrize("name", ["t", "T-1_a.b", "2024"])
    def test_takes_table_names_of_letters_digits_and_some_marks(self, db, encoder, name):
        Index.create(db, name, TEMPLES, encoder=encoder)
        assert tables(db) == [name, f"{name}.codec"]

    def test_works_in_a_database_that_is_no_local_folder(self, encoder):
        database = lancedb.connect("memory://")
        index = Index.create(database, "t", TEMPLES, encoder=encoder)
        index.add(OTHERS)
        assert len(Index.open(database, "t", encoder=encoder)) == len(CORPUS)


class TestPooled:
    def test_a_row_holds_the_pooled_vectors_of_its_text(self, db, encoder):
        Index.create(db, "t", CORPUS, encoder=encoder, nbits=4, pool=2)
        pooled = [pool_tokens(matrix, 2) for matrix in encoder.encode_documents(encoded_texts(CORPUS))]
        assert rows(db)["token_count"].to_pylist() == [len(matrix) for matrix in pooled]
        assert mean_cosine(decoded(db), pooled) > 0.95

    def test_documents_added_later_are_pooled_too(self, db, encoder):
        index = Index.create(db, "t", TEMPLES, encoder=encoder, pool=3)
        index.add(OTHERS)
        expected = [len(pool_tokens(matrix, 3)) for matrix in encoder.encode_documents(encoded_texts(OTHERS))]
        assert rows(db)["token_count"].to_pylist()[3:] == expected
        assert index.info().pool == 3


class TestPassages:
    def test_a_long_document_becomes_rows_with_its_id_and_fields(self, db, encoder):
        index = Index.create(db, "t", [*TEMPLES, TOUR], encoder=encoder, passage_tokens=60)
        found = rows(db).select(["id", "parent_id", "passage", "title", "text", "year", "token_count"]).to_pylist()
        parents = [row["parent_id"] for row in found]
        assert list(dict.fromkeys(parents)) == ["kinkaku", "horyu", "todai", "tour"]
        tour = [row for row in found if row["parent_id"] == "tour"]
        assert len(tour) > 2
        assert [row["id"] for row in tour] == [f"tour#{n}" for n in range(len(tour))]
        assert [row["passage"] for row in tour] == list(range(len(tour)))
        assert "".join(row["text"] for row in tour) == TOUR["text"]
        assert {(row["title"], row["year"]) for row in tour} == {("寺巡り", 2024)}
        assert max(row["token_count"] for row in found) <= 60
        assert index.last_build == BuildReport(rows=len(found), tokens=sum(row["token_count"] for row in found))
        info = index.info()
        assert (info.documents, info.rows, info.passage_tokens) == (4, len(found), 60)

    def test_documents_added_later_are_divided_too(self, db, encoder):
        index = Index.create(db, "t", TEMPLES, encoder=encoder, passage_tokens=60)
        assert index.add([TOUR]).rows > 2
        with pytest.raises(InputError, match="document 'tour' is in the index already"):
            index.add([TOUR])

    @pytest.mark.parametrize("name", ["parent_id", "passage"])
    def test_their_columns_are_taken_in_such_an_index_only(self, db, encoder, name):
        records = [{"id": "a", "text": "寺", name: "x"}]
        with pytest.raises(InputError, match=f"the field name '{name}' is taken"):
            Index.create(db, "t", records, encoder=encoder, passage_tokens=60)
        Index.create(db, "t", records, encoder=encoder)
        assert rows(db)[name].to_pylist() == ["x"]


class TestRejects:
    def test_what_is_left_out_is_counted_and_written_down_and_the_rest_indexed(self, db, rejects, encoder):
        bad = [{"id": "x"}, {"id": "cat", "text": "寺"}, {"id": "y", "text": "寺", "year": "千年前"}, 7]
        corpus = [bad[0], *CORPUS, *bad[1:]]
        index = Index.create(db, "t", corpus, encoder=encoder, rejects=rejects)
        assert rows(db)["id"].to_pylist() == [row["id"] for row in CORPUS]
        assert (built(index).rows, built(index).rejected) == (len(CORPUS), len(bad))
        lines = noted_in(rejects)
        places = [corpus.index(record) for record in bad]
        assert sorted(line["place"] for line in lines) == sorted(f"document {place}" for place in places)
        for line in lines:
            assert line["place"] in line["reason"] or "field 'year'" in line["reason"]
        assert [line["record"] for line in lines if line["place"] == "document 0"] == [{"id": "x"}]

    def test_an_id_that_is_there_already_is_left_out_of_what_is_added(self, db, rejects, index):
        report = index.add([OTHERS[0], {**TEMPLES[0], "text": "別の文章"}, OTHERS[1]], rejects=rejects)
        assert (report.rows, report.rejected) == (2, 1)
        assert rows(db)["id"].to_pylist() == ["kinkaku", "horyu", "todai", "udon", "fuji"]
        assert rows(db)["text"].to_pylist()[0] == TEMPLES[0]["text"]
        assert noted_in(rejects)[0]["place"] == "document 1"

    def test_documents_that_are_left_out_give_no_columns_and_no_types(self, db, rejects, encoder):
        corpus = [
            {"id": "a", "text": "寺", "year": 794},
            {"id": "b", "text": "寺", "era": 1, "year": "千年前"},
            {"id": "c", "text": "寺", "era": "平安"},
        ]
        report = built(Index.create(db, "t", corpus, encoder=encoder, rejects=rejects))
        assert (report.rows, report.rejected) == (2, 1)
        assert rows(db).select(["id", "year", "era"]).to_pylist() == [
            {"id": "a", "year": 794, "era": None},
            {"id": "c", "year": None, "era": "平安"},
        ]

    def test_one_file_takes_what_several_calls_leave_out(self, rejects, index):
        assert index.add([OTHERS[0], {"id": "x"}], rejects=rejects).rejected == 1
        report = index.add([OTHERS[1], {"id": "y"}], rejects=rejects)
        assert (report.rows, report.rejected) == (1, 1)
        assert [line["record"] for line in noted_in(rejects)] == [{"id": "x"}, {"id": "y"}]

    def test_all_of_a_document_is_written_down_though_its_passages_were_looked_at(self, db, rejects, encoder):
        long = {**TOUR, "year": "今年"}
        Index.create(db, "t", [*TEMPLES, long], encoder=encoder, passage_tokens=60, rejects=rejects)
        assert [line["record"] for line in noted_in(rejects)] == [long]


class TestCreateWhereATableIs:
    def test_is_refused_and_leaves_the_table_as_it_was(self, db, index, encoder):
        before, files_before = rows(db), files(db)
        with pytest.raises(TableExistsError, match="table 't' exists already"):
            Index.create(db, "t", OTHERS, encoder=encoder)
        assert rows(db).equals(before)
        assert files(db) == files_before

    def test_is_refused_for_a_table_that_is_not_ours_too(self, db, encoder):
        lancedb.connect(str(db)).create_table("t", pa.table({"x": [1]}))
        with pytest.raises(TableExistsError, match="table 't' exists already"):
            Index.create(db, "t", OTHERS, encoder=encoder)
        assert rows(db).to_pydict() == {"x": [1]}

    def test_is_refused_before_a_document_is_read(self, db, index, encoder):
        class Unread:
            def __iter__(self):
                pytest.fail("the documents were read")

        with pytest.raises(TableExistsError, match="table 't' exists already"):
            Index.create(db, "t", Unread(), encoder=encoder)

    @pytest.mark.parametrize(
        ("then_fail", "error", "message"),
        [(False, TableExistsError, "table 't' exists already"), (True, EncoderBrokeError, "broken")],
    )
    def test_a_table_that_another_process_makes_meanwhile_is_kept(self, db, encoder, then_fail, error, message):
        def progress(stage, done, total, tokens):
            if stage == "encode":
                lancedb.connect(str(db)).create_table("t", pa.table({"x": [1]}))
                if then_fail:
                    raise EncoderBrokeError("broken")

        with pytest.raises(error, match=message):
            Index.create(db, "t", TEMPLES, encoder=encoder, progress=progress)
        assert rows(db).to_pydict() == {"x": [1]}

    def test_replaces_it_when_told_to_overwrite(self, db, index, encoder):
        made = Index.create(db, "t", OTHERS, encoder=encoder, nbits=4, overwrite=True)
        assert len(made) == len(OTHERS)
        assert rows(db)["id"].to_pylist() == [row["id"] for row in OTHERS]
        assert "year" not in rows(db).column_names
        assert Index.open(db, "t", encoder=encoder).info().nbits == 4
        assert mean_cosine(decoded(db), encoder.encode_documents(encoded_texts(OTHERS))) > 0.9
        assert tables(db) == ["t", "t.codec"]

    def test_overwrite_needs_no_table_to_be_there(self, db, encoder):
        assert len(Index.create(db, "t", TEMPLES, encoder=encoder, overwrite=True)) == 3

    @pytest.mark.parametrize("resume", [True, False])
    def test_a_table_that_tansaku_did_not_make_is_not_replaced(self, db, encoder, resume):
        theirs = lancedb.connect(str(db)).create_table("t", [{"id": "a", "vector": [1.0, 2.0]}])
        with pytest.raises(NotAnIndexError, match="'t' was not made by tansaku and is not replaced; choose"):
            Index.create(db, "t", TEMPLES, encoder=encoder, overwrite=True, resume=resume)
        theirs.checkout_latest()
        assert theirs.count_rows() == 1
        assert theirs.version == 1

    def test_overwrite_leaves_other_tables_alone(self, db, index, encoder):
        Index.create(db, "u", OTHERS, encoder=encoder)
        before = rows(db, "u")
        Index.create(db, "t", OTHERS, encoder=encoder, overwrite=True)
        assert rows(db, "u").equals(before)
        assert len(decoded(db, "u")) == len(OTHERS)


class TestRefusedArguments:
    @pytest.mark.parametrize("nbits", [0, 3, 8])
    def test_another_number_of_bits_is_refused_before_anything_is_made(self, db, encoder, nbits):
        with pytest.raises(InputError, match=f"nbits is {nbits}"):
            Index.create(db, "t", TEMPLES, encoder=encoder, nbits=nbits)
        assert not db.exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"pool": 0}, "pool is 0"),
            ({"pool": -2}, "pool is -2"),
            ({"passage_tokens": 0}, "passage_tokens is 0"),
            ({"passage_tokens": 100_000}, "room for 100000 tokens; the model reads no more than"),
        ],
    )
    def test_pooling_and_passages_of_impossible_sizes_are_refused_before_anything_is_made(
        self, db, encoder, arguments, message
    ):
        with pytest.raises(InputError, match=message):
            Index.create(db, "t", TEMPLES, encoder=encoder, **arguments)
        assert not db.exists()

    @pytest.mark.parametrize("overwrite", [False, True])
    @pytest.mark.parametrize(
        ("name", "message"),
        [
            *(
                (name, "use 1 to 100 letters")
                for name in ("my table", "寺院", "", "a/b", "../t", "..", "t\n", "x" * 101)
            ),
            *((name, "names that end in '.codec' are reserved for codecs") for name in ("t.codec",)),
        ],
    )
    def test_a_name_that_no_table_may_have_is_refused_naming_it(self, tmp_path, encoder, name, message, overwrite):
        with pytest.raises(InputError) as caught:
            Index.create(tmp_path / "db", name, TEMPLES, encoder=encoder, overwrite=overwrite)
        assert str(caught.value).startswith(f"table name {name!r}: {message}")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_no_documents_are_refused(self, db, encoder, overwrite):
        with pytest.raises(InputError, match="no documents to index"):
            Index.create(db, "t", [], encoder=encoder, overwrite=overwrite)
        assert not db.exists()

    def test_a_database_that_is_a_file_is_refused_naming_it(self, tmp_path, encoder):
        path = tmp_path / "db"
        path.write_text("no folder")
        for refused in (
            lambda: Index.create(path, "t", TEMPLES, encoder=encoder),
            lambda: Index.open(path, "t", encoder=encoder),
        ):
            with pytest.raises(InputError, match="a LanceDB database is a folder") as caught:
                refused()
            assert str(path) in str(caught.value)
        assert path.read_text() == "no folder"


# Documents of which the last cannot be used, and what the message says of it.
UNUSABLE = [
    pytest.param({"id": "udon"}, "no field 'text'", id="no text"),
    pytest.param({"id": "udon", "text": " "}, "field 'text' of 'udon' is empty", id="empty text"),
    pytest.param({"id": 1.5, "text": "寺"}, "document 2: field 'id'", id="float id"),
    pytest.param({"id": "cat", "text": "寺"}, "id 'cat' occurs twice", id="duplicate"),
    pytest.param({"id": "udon", "text": "寺", "residuals": 1}, "field name 'residuals' is taken", id="taken field"),
    pytest.param({"id": "udon", "text": "寺", "year": "千年前"}, "field 'year'", id="misfit"),
    pytest.param({"id": "udon\ud800", "text": "寺"}, "document 2: field 'id'", id="lone surrogate in id"),
    pytest.param({"id": "udon", "text": "寺\ud800"}, "field 'text' of 'udon'", id="lone surrogate in text"),
    pytest.param({"id": "udon", "text": "寺", "a.b": 1}, "document 2: .* field name 'a.b'", id="dot in a field name"),
    pytest.param({"id": "udon", "text": "寺", "year": 2**63}, "field 'year'", id="integer beyond 64 bits"),
]


class TestADocumentThatCannotBeUsed:
    """Found late, it leaves nothing behind."""

    @staticmethod
    def corpus(last):
        return [{"id": "cat", "text": "吾輩は猫である。", "year": 1905}, {"id": "go", "text": "囲碁"}, last]

    @pytest.mark.parametrize(("last", "message"), UNUSABLE)
    def test_create_makes_no_database(self, db, encoder, last, message):
        with pytest.raises(InputError, match=message):
            Index.create(db, "t", self.corpus(last), encoder=encoder)
        assert not db.exists()

    @pytest.mark.parametrize(("last", "message"), UNUSABLE)
    def test_overwrite_keeps_the_old_rows(self, db, index, encoder, last, message):
        before = rows(db)
        with pytest.raises(InputError, match=message):
            Index.create(db, "t", self.corpus(last), encoder=encoder, overwrite=True)
        assert rows(db).equals(before)

    @pytest.mark.parametrize(("last", "message"), UNUSABLE)
    def test_add_adds_none_of_the_documents(self, db, index, last, message):
        before = rows(db)
        with pytest.raises(InputError, match=message):
            index.add(self.corpus(last))
        assert rows(db).equals(before)
        assert len(index) == len(TEMPLES)

    @pytest.mark.parametrize(("last", "message"), UNUSABLE)
    def test_is_found_before_any_text_is_encoded(self, db, encoder, monkeypatch, last, message):
        monkeypatch.setattr(encoder, "encode_tokens", lambda texts, note=None: pytest.fail("a text was encoded"))
        with pytest.raises(InputError, match=message):
            Index.create(db, "t", self.corpus(last), encoder=encoder)


class TestAFailureHalfWay:
    """The encoder fails, or the user interrupts, when the first rows are staged already."""

    MANY = tuple({"id": f"m{i}", "text": "寺"} for i in range(30))

    @pytest.fixture(params=[EncoderBrokeError, KeyboardInterrupt])
    def half_way(self, request, encoder, monkeypatch):
        """Arguments that make a chunk fail when one has been staged, and the error that must come out."""
        (vectors,) = encoder.encode_documents(["寺"])
        written = []
        small_chunks(monkeypatch, 4)
        monkeypatch.setattr(build_steps, "_SAMPLE_ROWS", 3)

        def breaking(tokenized, note=None):
            if written:
                raise request.param("half way")
            return [vectors] * len(tokenized)

        def progress(stage, done, total, tokens):
            if stage == "encode":
                written.append(done)

        monkeypatch.setattr(encoder, "encode_tokens", breaking)
        yield request.param, progress
        assert len(written) == 1
        assert 0 < written[0] < len(self.MANY)

    @pytest.mark.parametrize("resume", [True, False])
    def test_create_leaves_only_what_the_same_call_goes_on_with(self, db, encoder, half_way, resume):
        error, progress = half_way
        with pytest.raises(error, match="half way"):
            Index.create(db, "t", self.MANY, encoder=encoder, progress=progress, resume=resume)
        assert tables(db) == []
        assert {path.parent for path in files(db)} == {Path("t.tansaku/build")}

    def test_create_can_be_repeated(self, db, encoder, half_way, monkeypatch):
        error, progress = half_way
        with pytest.raises(error):
            Index.create(db, "t", self.MANY, encoder=encoder, progress=progress)
        monkeypatch.undo()
        with pytest.raises(ResumeError, match="the documents have changed"):
            Index.create(db, "t", TEMPLES, encoder=encoder)
        assert len(Index.create(db, "t", TEMPLES, encoder=encoder, resume=False)) == 3
        assert {path.parts[0] for path in files(db)} == {"t.lance", "t.codec.lance"}

    def test_what_failed_before_anything_was_encoded_blocks_no_other_call(self, db, encoder, monkeypatch):
        def broken(tokenized, note=None):
            raise EncoderBrokeError("at once")

        monkeypatch.setattr(encoder, "encode_tokens", broken)
        with pytest.raises(EncoderBrokeError):
            Index.create(db, "t", self.MANY, encoder=encoder)
        assert files(db) == {}
        monkeypatch.undo()
        assert len(Index.create(db, "t", TEMPLES, encoder=encoder, nbits=4)) == 3

    def test_overwrite_leaves_the_old_index(self, db, index, encoder, half_way):
        error, progress = half_way
        before, decoded_before = rows(db), decoded(db)
        with pytest.raises(error, match="half way"):
            Index.create(db, "t", self.MANY, encoder=encoder, overwrite=True, progress=progress)
        assert rows(db).equals(before)
        assert rows(db).schema.metadata == before.schema.metadata
        np.testing.assert_array_equal(np.concatenate(decoded(db)), np.concatenate(decoded_before))

    def test_add_adds_nothing(self, db, index, half_way):
        error, progress = half_way
        before = rows(db)
        with pytest.raises(error, match="half way"):
            index.add(self.MANY, progress=progress)
        assert rows(db).equals(before)
        assert len(index) == len(TEMPLES)
        assert index.last_build is None


class TestOpen:
    def test_finds_what_was_written(self, db, encoder):
        index = Index.create(db, "t", TEMPLES, encoder=encoder)
        opened = Index.open(str(db), "t", encoder=encoder)
        assert len(opened) == len(TEMPLES)
        assert opened.info() == index.info()
        assert opened.last_build is None

    def test_takes_a_connection(self, db, index, encoder):
        assert len(Index.open(lancedb.connect(str(db)), "t", encoder=encoder)) == len(TEMPLES)

    def test_reads_the_codec_that_was_trained_bit_by_bit(self, db, index):
        opened = open_index_table(connect(db), "t")
        # The id is a hash of all the codec's numbers.
        assert opened.codec.codec_id == opened.header.codec_id

    def test_the_metadata_of_the_table_names_format_model_and_codec(self, db, index, encoder):
        metadata = rows(db).schema.metadata
        assert metadata[b"tansaku.format"] == b"2"
        header = json.loads(metadata[b"tansaku.index"])
        assert header["model"] == encoder.bundle.name
        assert header["fingerprint"] == encoder.bundle.fingerprint
        assert rows(db, "t.codec")["codec_id"].to_pylist() == [header["codec_id"]]
        assert set(rows(db)["write_id"].to_pylist()) == {header["build_id"]}
        assert (header["pool"], header["passage_tokens"]) == (1, None)

    def test_an_unknown_table_is_reported_with_the_indexes_there_are(self, db, encoder):
        database = lancedb.connect(str(db))
        names = [f"table{i}" for i in range(12)]  # more than LanceDB once gave on a page
        for name in names:
            database.create_table(name, pa.table({"x": [1]}))
            database.create_table(f"{name}.codec", pa.table({"x": [1]}))
        with pytest.raises(TableNotFoundError, match=r"table 'missing'.*\(tables: .*\)") as caught:
            Index.open(db, "missing", encoder=encoder)
        listed = str(caught.value).partition("(tables: ")[2].partition(")")[0]
        assert sorted(listed.split(", ")) == sorted(names)

    def test_an_unknown_table_in_an_empty_database_says_that_there_are_none(self, db, encoder):
        db.mkdir()
        with pytest.raises(TableNotFoundError, match=r"table 't'.*\(tables: none\)"):
            Index.open(db, "t", encoder=encoder)

    def test_an_unknown_folder_is_reported_and_not_made(self, db, encoder):
        with pytest.raises(TableNotFoundError, match="no such folder") as caught:
            Index.open(db, "t", encoder=encoder)
        assert str(db) in str(caught.value)
        assert not db.exists()

    def test_a_table_that_tansaku_did_not_make_is_refused(self, db, encoder):
        lancedb.connect(str(db)).create_table("t", pa.table({"id": ["a"], "text": ["寺"]}))
        with pytest.raises(NotAnIndexError, match="table 't' was not made by tansaku"):
            Index.open(db, "t", encoder=encoder)

    @pytest.mark.parametrize("version", [1, 99])
    def test_another_format_version_is_refused_naming_it(self, db, index, encoder, version):
        metadata = {**rows(db).schema.metadata, b"tansaku.format": str(version).encode()}
        lancedb.connect(str(db)).create_table("t", rows(db).replace_schema_metadata(metadata), mode="overwrite")
        with pytest.raises(NotAnIndexError, match=rf"table 't' has index format {version}.* reads format 2"):
            Index.open(db, "t", encoder=encoder)

    def test_a_missing_codec_table_is_reported(self, db, index, encoder):
        lancedb.connect(str(db)).drop_table("t.codec")
        with pytest.raises(NotAnIndexError, match=r"table 't': its codec .* is not in table 't\.codec'"):
            Index.open(db, "t", encoder=encoder)

    def test_a_codec_table_without_the_codec_is_reported(self, db, index, encoder):
        lancedb.connect(str(db)).open_table("t.codec").delete("true")
        with pytest.raises(NotAnIndexError, match=r"table 't': its codec .* is not in table 't\.codec'"):
            Index.open(db, "t", encoder=encoder)

    def test_another_model_is_refused_naming_both(self, db, index, encoder):
        rules = dataclasses.replace(encoder.bundle.document, max_length=99)
        other = other_model(encoder, name="別のモデル", document=rules)
        with pytest.raises(ModelMismatchError, match="table 't'") as caught:
            Index.open(db, "t", encoder=other)
        for bundle in (encoder.bundle, other.bundle):
            assert bundle.name in str(caught.value)
            assert bundle.fingerprint in str(caught.value)

    def test_the_same_model_under_another_name_is_accepted(self, db, index, encoder):
        assert len(Index.open(db, "t", encoder=other_model(encoder, name="別の名前"))) == len(TEMPLES)


class TestAdd:
    def test_appends_rows_with_null_where_a_field_is_absent(self, db, index):
        before = rows(db)
        report = index.add([{**OTHERS[0], "year": 9}, *OTHERS[1:]])
        after = rows(db)
        assert len(index) == len(after) == len(CORPUS)
        assert after.slice(0, 3).equals(before)
        assert after["id"].to_pylist() == [row["id"] for row in CORPUS]
        assert after["year"].to_pylist()[3:] == [9] + [None] * (len(OTHERS) - 1)
        assert report == index.last_build
        assert (report.rows, report.tokens) == (len(OTHERS), sum(after["token_count"].to_pylist()[3:]))

    def test_adds_vectors_that_the_stored_codec_can_read(self, db, encoder):
        Index.create(db, "t", OTHERS, encoder=encoder, nbits=4)
        Index.open(db, "t", encoder=encoder).add(
            {name: row[name] for name in ("id", "title", "text")} for row in TEMPLES
        )
        stored = decoded(db)[len(OTHERS) :]
        expected = encoder.encode_documents(encoded_texts(TEMPLES))
        assert [len(matrix) for matrix in stored] == [len(matrix) for matrix in expected]
        best = through_the_codec(db, expected)
        assert min(mean_cosine([a], [b]) for a, b in zip(stored, best, strict=True)) > 0.95

    def test_can_be_repeated(self, db, index, encoder):
        for row in OTHERS:
            index.add([row])
        assert len(Index.open(db, "t", encoder=encoder)) == len(CORPUS)
        assert rows(db)["id"].to_pylist() == [row["id"] for row in CORPUS]

    def test_rows_of_several_chunks_keep_the_order_of_their_documents(self, db, monkeypatch):
        small_chunks(monkeypatch, 4)
        index = Index.create(db, "t", corpus(3), encoder=FakeEncoder())
        index.add(corpus(80, "e"))
        assert rows(db)["id"].to_pylist() == [row["id"] for row in (*corpus(3), *corpus(80, "e"))]

    def test_is_seen_by_an_index_opened_later_and_keeps_the_metadata(self, db, index, encoder):
        metadata = rows(db).schema.metadata
        index.add(OTHERS)
        assert rows(db).schema.metadata == metadata
        assert Index.open(db, "t", encoder=encoder).info().documents == len(CORPUS)

    def test_counts_truncated_documents(self, index):
        assert index.add([{"id": "long", "text": "長い文章。" * 400}, OTHERS[0]]).truncated == 1

    def test_tells_of_its_progress(self, index):
        calls = []
        index.add(OTHERS, progress=lambda *call: calls.append(call))
        n, tokens = len(OTHERS), built(index).tokens
        ends = {call[0]: call for call in calls}
        assert list(ends.values()) == [("read", n, n, 0), ("encode", n, n, tokens), ("commit", n, n, 0)]

    def test_reads_fields_under_other_names(self, db, index):
        index.add([{"key": "new", "body": "新しい寺"}], names=FieldNames(id="key", text="body"))
        assert rows(db).select(["id", "text"]).to_pylist()[-1] == {"id": "new", "text": "新しい寺"}

    def test_keeps_nested_columns(self, db, encoder):
        fields = {"tags": ["寺"], "at": {"lat": 35.0}, "seen": dt.datetime(2024, 1, 1)}
        index = Index.create(db, "t", [{"id": "a", "text": "金閣寺", **fields}], encoder=encoder)
        index.add([{"id": "b", "text": "銀閣寺", **fields}, {"id": "c", "text": "清水寺"}])
        assert rows(db).select(list(fields)).to_pylist() == [fields, fields, dict.fromkeys(fields)]

    def test_an_id_that_is_there_already_is_refused_and_nothing_added(self, db, encoder):
        index = Index.create(db, "t", CORPUS, encoder=encoder)
        before = rows(db)
        for row in (CORPUS[0], CORPUS[-1]):
            with pytest.raises(InputError, match=f"document '{row['id']}' is in the index already"):
                index.add([{"id": "new", "text": "新しい寺"}, {"id": row["id"], "text": "別の文章"}])
        assert rows(db).equals(before)

    def test_an_id_added_before_is_refused(self, index):
        index.add(OTHERS[:1])
        with pytest.raises(InputError, match="document 'udon' is in the index already"):
            index.add(OTHERS[:1])
        assert len(index) == 4

    def test_an_id_added_through_another_object_is_refused(self, db, index, encoder):
        Index.open(db, "t", encoder=encoder).add(OTHERS[:1])
        with pytest.raises(InputError, match="document 'udon' is in the index already"):
            index.add(OTHERS[:1])
        assert len(index) == 4

    def test_uses_the_codec_of_a_table_made_anew_since(self, db, index, encoder):
        Index.create(db, "t", OTHERS[1:], encoder=encoder, nbits=4, overwrite=True)
        index.add(OTHERS[:1])
        expected = encoder.encode_documents(encoded_texts(OTHERS[:1]))
        assert mean_cosine(decoded(db)[-1:], through_the_codec(db, expected)) > 0.95

    def test_a_table_made_anew_with_another_model_is_refused(self, db, index, encoder):
        rules = dataclasses.replace(encoder.bundle.document, max_length=99)
        Index.create(db, "t", TEMPLES, encoder=other_model(encoder, document=rules), overwrite=True)
        with pytest.raises(ModelMismatchError, match="table 't' was made with the model"):
            index.add(OTHERS)
        assert len(rows(db)) == len(TEMPLES)

    def test_no_documents_are_refused(self, index):
        with pytest.raises(InputError, match="no documents to index"):
            index.add([])


class TestInfo:
    def test_says_what_the_index_is(self, db, encoder):
        info = Index.create(db, "t", CORPUS, encoder=encoder, nbits=4).info()
        stored = rows(db)
        assert info.table == "t"
        assert info.documents == info.rows == len(CORPUS)
        assert (info.version, info.versions) == (lancedb.connect(str(db)).open_table("t").version, 1)
        assert (info.pool, info.passage_tokens) == (1, None)
        assert info.tokens == sum(stored["token_count"].to_pylist())
        assert (info.model, info.fingerprint) == (encoder.bundle.name, encoder.bundle.fingerprint)
        assert (info.dim, info.nbits) == (encoder.dim, 4)
        assert info.centroids == len(open_index_table(connect(db), "t").codec.centroids)
        names = ["id", "title", "text", "year"]
        assert info.columns == {name: str(stored.schema.field(name).type) for name in names}

    def test_the_bytes_of_its_parts_are_those_that_the_tables_hold(self, db, index):
        stored = rows(db)
        (codec,) = rows(db, "t.codec").to_pylist()
        assert index.info().bytes_by_part == {
            "centroid_ids": sum(map(len, stored["centroid_ids"].to_pylist())),
            "residuals": sum(map(len, stored["residuals"].to_pylist())),
            "codec": sum(len(codec[part]) for part in ("centroids", "groups", "codewords")),
        }

    def test_the_parts_are_joined_by_the_derived_arrays_once_they_are_there(self, db, index, encoder):
        before = index.info()
        assert before.derived_bytes == 0
        Searcher.open(db, "t", encoder=encoder)
        info = index.info()
        arrays = {path.stem: size for path, size in files(db / "t.tansaku" / "arrays").items() if path.suffix == ".npy"}
        assert info.derived_bytes == sum(arrays.values())
        assert info.bytes_by_part == {
            **before.bytes_by_part,
            "lists": arrays["list_offsets"] + arrays["postings"],
            "keys": arrays["row_ids"] + arrays["write_ids"] + arrays["offsets"],
            "ids": arrays["id_text"] + arrays["id_offsets"],
        }
        assert info.searched_bytes_per_token == pytest.approx(sum(info.bytes_by_part.values()) / info.tokens)
        assert info.bytes_on_disk == before.bytes_on_disk

    def test_there_is_no_drift_before_anything_is_added(self, db, index, encoder):
        drift = index.info().drift
        codec = open_index_table(connect(db), "t").codec
        _, similarities = codec.nearest(np.concatenate(encoder.encode_documents(encoded_texts(TEMPLES))))
        assert drift.trained_cosine == pytest.approx(similarities.mean(), abs=1e-5)
        assert (drift.rows, drift.cosine, drift.strange) == (0, None, None)

    def test_drift_is_that_of_the_rows_added(self, db, index, encoder):
        index.add(OTHERS)
        drift = index.info().drift
        codec = open_index_table(connect(db), "t").codec
        cosines = [codec.nearest(matrix)[1] for matrix in encoder.encode_documents(encoded_texts(OTHERS))]
        assert drift.rows == len(OTHERS)
        assert drift.cosine == pytest.approx(np.concatenate(cosines).mean(), abs=1e-5)
        means = [matrix.mean() for matrix in cosines]
        assert drift.strange == np.mean([mean < open_index_table(connect(db), "t").fit.low for mean in means])
        assert drift.cosine < drift.trained_cosine

    def test_its_bytes_on_disk_are_all_files_of_both_tables(self, db, index, encoder):
        Index.create(db, "another", OTHERS, encoder=encoder)
        index.add(OTHERS)  # so there is an old version too
        info = index.info()
        on_disk = sum(size for path, size in files(db).items() if path.parts[0] in ("t.lance", "t.codec.lance"))
        assert info.bytes_on_disk == on_disk
        assert info.bytes_per_token == pytest.approx(on_disk / info.tokens)

    def test_grows_with_what_is_added(self, index):
        before = index.info()
        report = index.add(OTHERS)
        after = index.info()
        assert after.documents == before.documents + report.rows
        assert after.tokens == before.tokens + report.tokens
        assert after.version > before.version
        assert after.bytes_on_disk > before.bytes_on_disk

    def test_counts_the_parts_alone_where_the_database_is_no_folder(self, encoder):
        info = Index.create(lancedb.connect("memory://"), "t", TEMPLES, encoder=encoder).info()
        assert info.bytes_on_disk is None
        assert info.bytes_by_part["centroid_ids"] == 2 * info.tokens
        assert info.bytes_by_part["residuals"] == 32 * info.tokens
        assert info.bytes_by_part["codec"] > 0
        assert info.bytes_per_token == pytest.approx(sum(info.bytes_by_part.values()) / info.tokens)

    def test_counts_repeated_codes_one_by_one(self, db, encoder):
        info = Index.create(db, "t", [{"id": i, "text": "寺"} for i in range(300)], encoder=encoder).info()
        assert info.bytes_by_part["centroid_ids"] == 2 * info.tokens
        assert info.bytes_by_part["residuals"] == 32 * info.tokens
