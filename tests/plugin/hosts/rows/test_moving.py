"""Rows with codes move between databases, indexes and Parquet files, and nothing is lost on the way."""

from __future__ import annotations

import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tansaku import CodedRow, CodesError, Index, InputError, ModelMismatchError, ResumeError, Searcher, SourceError
from tansaku.indexer.table.database import connect
from tansaku.indexer.table.table import open_index_table
from tansaku.plugin.hosts.rows import moving
from tansaku.plugin.hosts.rows.codes_file import CodesFile, common_schema, metadata_of, rows_table
from tansaku.plugin.hosts.rows.conformance import DOCUMENTS, QUESTIONS, shared_coder
from tansaku.plugin.hosts.rows.moving import FileRows, IndexRows, StoredRows, to_file, to_index, to_rows
from tansaku.plugin.hosts.rows.numpy import NumpyRows


def store(records=DOCUMENTS, **options):
    made = NumpyRows(shared_coder(), **{"fields": ["year", "note"], **options})
    if records:
        made.add(records)
    return made


def rows_of(made):
    return {
        row.id: (
            row.codes,
            row.row_vector.tobytes(),
            {name: row.columns.get(name) for name in ("text", "year", "note")},
        )
        for batch in made.coded_rows()
        for row in batch
    }


def moved(path, replace=False, into=None):
    made = store(()) if into is None else into
    report = to_rows(FileRows(CodesFile(path, shared_coder())), lambda *_: made, replace=replace)
    return made, report


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.parquet"


@pytest.fixture
def exported(path):
    to_file(StoredRows(store()), path, shared_coder())
    return path


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(moving, "_ROWS", 2)


values = st.none() | st.integers(-(2**40), 2**40)
texts = st.text(st.characters(codec="utf-8"), max_size=5)


class TestFile:
    @given(
        st.lists(
            st.tuples(texts, st.binary(max_size=9), texts, values), min_size=1, max_size=9, unique_by=lambda r: r[0]
        )
    )
    @settings(max_examples=30, deadline=None)
    def test_rows_are_read_as_they_were_written(self, records):
        coder = shared_coder()
        vector = np.arange(coder.row_dim, dtype=np.float32)
        rows = [CodedRow(i, vector * n, codes, {"text": t, "n": v}) for n, (i, codes, t, v) in enumerate(records)]
        with TemporaryDirectory() as folder:
            path = Path(folder) / "rows.parquet"
            parts = [rows_table(rows[i : i + 4], ["text", "n"], coder.row_dim) for i in range(0, len(rows), 4)]
            schema = common_schema([part.schema for part in parts], metadata_of(coder, ["text"]))
            pq.write_table(pa.concat_tables([part.cast(schema) for part in parts]), path)
            file = CodesFile(path, coder)
            read = [row for batch, without in file.rows(3, ["text", "n"]) for row in batch]
        assert [(r.id, r.codes, r.columns) for r in read] == [(r.id, r.codes, r.columns) for r in rows]
        assert all(np.array_equal(one.row_vector, two.row_vector) for one, two in zip(read, rows, strict=True))

    def test_a_database_comes_back_as_it_was(self, exported):
        again, report = moved(exported)
        assert rows_of(again) == rows_of(store())
        assert (report.read, report.written, report.there) == (len(DOCUMENTS), len(DOCUMENTS), 0)
        for question, best in QUESTIONS.items():
            assert again.search(question)[0].id == best

    def test_rows_without_codes_are_counted(self, path):
        made = store()
        made.write_uncoded([{"id": "late", "text": "あとで"}])
        report = to_file(StoredRows(made), path, shared_coder())
        assert (report.read, report.written, report.without_codes) == (len(DOCUMENTS) + 1, len(DOCUMENTS), 1)

    def test_whole_numbers_stay_ids(self, path):
        to_file(StoredRows(store([{"id": 7, "text": "京都"}])), path, shared_coder())
        assert [*rows_of(moved(path)[0])] == [7]

    def test_a_column_may_be_null_at_first(self, path, small):
        records = [{"id": str(i), "text": "京都", "year": None if i < 3 else i / 2, "note": None} for i in range(6)]
        to_file(StoredRows(store(records)), path, shared_coder())
        table = pq.read_table(path)
        assert table["year"].to_pylist() == [None, None, None, 1.5, 2.0, 2.5]
        assert table["note"].to_pylist() == [None] * 6


class TestResume:
    def test_a_file_continues_after_the_last_row(self, path, tmp_path, small):
        made, kept = store(), tmp_path / "whole.parquet"
        to_file(StoredRows(made), kept, shared_coder())
        calls = itertools.count()

        def progress(*_):
            if next(calls) == 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            to_file(StoredRows(made), path, shared_coder(), progress=progress)
        with pytest.raises(ResumeError, match="the columns changed"):
            to_file(StoredRows(store(fields=["year"])), path, shared_coder())
        report = to_file(StoredRows(made), path, shared_coder())
        assert (report.resumed, report.written) == (4, len(DOCUMENTS))
        assert pq.read_table(path).equals(pq.read_table(kept))

    def test_rows_that_are_there_are_left_alone(self, exported, small):
        made = store()
        first = DOCUMENTS[0]["id"]
        made.upsert([{"id": first, "text": "別の本文"}])
        made.delete([DOCUMENTS[1]["id"]])
        _, report = moved(exported, into=made)
        assert (report.read, report.written, report.there) == (len(DOCUMENTS), 1, len(DOCUMENTS) - 1)
        assert rows_of(made)[first][2]["text"] == "別の本文"
        _, report = moved(exported, into=made, replace=True)
        assert report.written == len(DOCUMENTS)
        assert rows_of(made) == rows_of(store())

    def test_rows_that_are_there_without_codes_get_them(self, exported):
        made = store(())
        made.write_uncoded(DOCUMENTS)
        _, report = moved(exported, into=made)
        assert (report.written, made.count_without_codes()) == (len(DOCUMENTS), 0)


class TestBadInput:
    @pytest.mark.parametrize(
        ("key", "value", "kind", "named"),
        [
            ("tansaku.fingerprint", "0" * 16, ModelMismatchError, "rows of the model"),
            ("tansaku.codec", "0" * 16, InputError, "codes of the codec 0000000000000000"),
            ("tansaku.codes_version", "9", InputError, "codes of version 9"),
            ("tansaku.text_columns", '["body"]', InputError, "no column 'body'"),
            ("tansaku.codec", None, InputError, "does not name its codec"),
        ],
    )
    def test_metadata_that_does_not_fit_is_refused_before_a_row_is_written(self, exported, key, value, kind, named):
        table = pq.read_table(exported)
        metadata = {**(table.schema.metadata or {}), key.encode(): value}
        metadata = {name: content for name, content in metadata.items() if content is not None}
        pq.write_table(table.replace_schema_metadata(metadata), exported)
        with pytest.raises(kind, match=named):
            CodesFile(exported, shared_coder())

    @pytest.mark.parametrize("column", ["id", "tansaku_vector", "tansaku_codes"])
    def test_a_column_that_is_missing_is_named(self, exported, column):
        pq.write_table(pq.read_table(exported).drop_columns([column]), exported)
        with pytest.raises(InputError, match=f"no column '{column}'"):
            CodesFile(exported, shared_coder())

    def test_row_vectors_of_another_length(self, exported):
        table = pq.read_table(exported)
        short = pa.array([vector.as_py()[:8] for vector in table["tansaku_vector"]], pa.list_(pa.float32(), 8))
        at = table.column_names.index("tansaku_vector")
        pq.write_table(table.set_column(at, "tansaku_vector", short), exported)
        with pytest.raises(InputError, match="--row-dim"):
            CodesFile(exported, shared_coder())

    def test_damaged_codes_name_their_row(self, exported, path):
        table = pq.read_table(exported).to_pydict()
        table["tansaku_codes"][2] = table["tansaku_codes"][2][:-9] + bytes(9)
        schema = pq.read_schema(exported)
        pq.write_table(pa.table(table, schema=schema), exported)
        with pytest.raises(CodesError, match=repr(table["id"][2])):
            moved(exported)

    def test_a_file_that_is_none(self, tmp_path):
        (tmp_path / "a.parquet").write_bytes(b"no")
        for name in ("a.parquet", "none.parquet"):
            with pytest.raises(SourceError, match=name):
                CodesFile(tmp_path / name, shared_coder())

    def test_a_database_without_codes(self, path):
        with pytest.raises(InputError, match="no rows with codes"):
            to_file(StoredRows(store(())), path, shared_coder())
        assert not path.exists()
        assert not [*path.parent.iterdir()]

    def test_a_column_that_mixes_types(self, path):
        made = store([{"id": "a", "text": "京都", "note": 1}, {"id": "b", "text": "京都", "note": "x"}])
        with pytest.raises(InputError, match="the column 'note'"):
            to_file(StoredRows(made), path, shared_coder())

    def test_a_field_that_is_not_there(self, exported):
        with pytest.raises(InputError, match=r"no column 'yaer'; its columns are year, note"):
            FileRows(CodesFile(exported, shared_coder()), ["yaer"])


@pytest.mark.integration
class TestIndex:
    @pytest.fixture
    def db(self, tmp_path):
        return tmp_path / "db"

    def opened(self, db, name="t"):
        return open_index_table(connect(db), name)

    def test_to_rows_and_back(self, db, path):
        coder = shared_coder()
        Index.create(db, "t", DOCUMENTS, encoder=coder.encoder)
        report = to_file(IndexRows(self.opened(db), coder), path, coder)
        assert report.written == len(DOCUMENTS)
        made, _ = moved(path)
        for question, best in QUESTIONS.items():
            assert made.search(question)[0].id == best
        assert {row_id: row[2] for row_id, row in rows_of(made).items()} == {
            row_id: row[2] for row_id, row in rows_of(store()).items()
        }
        source = FileRows(CodesFile(path, coder))
        _, report = to_index(source, coder, str(db), "back")
        assert (report.read, report.written) == (len(DOCUMENTS), len(DOCUMENTS))
        searcher = Searcher.open(db, "back", encoder=coder.encoder)
        for question, best in QUESTIONS.items():
            assert searcher.search(question, 1)[0].id == best
        documents = {document["id"]: document for document in Index.open(db, "back").documents()}
        assert documents == {document["id"]: document for document in Index.open(db, "t").documents()}

    def test_titles_are_a_text_column_and_passages_are_rows(self, db, path):
        coder = shared_coder()
        text = "金閣寺は京都の北山にある。" * 20
        Index.create(db, "t", [{"id": "a", "title": "寺", "text": text}], encoder=coder.encoder, passage_tokens=64)
        source = IndexRows(self.opened(db), coder)
        assert source.text_columns == ("title", "text")
        to_file(source, path, coder)
        found = pq.read_table(path, columns=["id", "title", "parent_id", "passage"]).to_pylist()
        assert len(found) > 1
        assert {(row["title"], row["parent_id"]) for row in found} == {("寺", "a")}
        assert [row["passage"] for row in found] == [*range(len(found))]

    def test_rows_say_which_texts_were_cut(self, db):
        coder = shared_coder()
        texts = {"short": "京都は794年から都だった。", "long": "京都は794年から都だった。" * 500}
        documents = [{"id": name, "text": text} for name, text in texts.items()]
        # The texts of given vectors may be empty.
        vectors = [one[:2] for one in coder.encoder.encode_documents(["犬"])]
        Index.create(db, "t", documents, encoder=coder.encoder).add([{"id": "none", "text": ""}], vectors=vectors)
        rows = [row for batch, _ in IndexRows(self.opened(db), coder).batches(0, None) for row in batch]
        cut = {row.id: coder.read_header(row.codes, row.id).cut for row in rows}
        assert cut == {"short": False, "long": True, "none": False}

    def test_pooled_vectors_are_refused(self, db):
        pytest.importorskip("scipy")
        coder = shared_coder()
        Index.create(db, "t", DOCUMENTS, encoder=coder.encoder, pool=2)
        with pytest.raises(InputError, match=r"pooled token vectors.*without --pool"):
            IndexRows(self.opened(db), coder)

    def test_another_model_is_refused(self, db):
        Index.create_from_vectors(db, "t", [{"id": "a"}], [np.eye(128, dtype=np.float32)[:2]])
        with pytest.raises(ModelMismatchError, match="given vectors"):
            IndexRows(self.opened(db), shared_coder())
