"""Damage on the disk: a byte flipped, a file cut, gone, or in the place of another. Each is an error, or mended."""

from __future__ import annotations

import json
import os
import random
import shutil
import zlib
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from tansaku import Index, Searcher, StorageError, TansakuError
from tansaku.indexer.derived import array_files, arrays, segments
from tansaku.plugin.cli.main import app

from ..support.fakes import FakeEncoder, corpus

pytestmark = pytest.mark.integration

QUERIES = ("d41d8c", "abcdef", "09f1e")


def answers(db, **how):
    """What is found, to the last column."""
    searcher = Searcher.open(db, "t", encoder=FakeEncoder(), **how)
    found = [searcher.search(query, k=5, recall="exact") for query in QUERIES]
    return [[(hit.id, round(hit.score, 5), hit.text, hit.fields) for hit in hits] for hits in found]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An index that was changed and searched."""
    db = tmp_path_factory.mktemp("made") / "db"
    index = Index.create(db, "t", corpus(60, year=lambda i: i), encoder=FakeEncoder())
    index.upsert(corpus(20, salt="new", year=lambda i: i))
    index.delete(["d30", "d31"])
    answers(db)
    return db


@pytest.fixture
def db(made, tmp_path):
    return shutil.copytree(made, tmp_path / "db")


@pytest.fixture
def large(monkeypatch):
    """Openings take the index for one whose checksums take long."""
    for module in (arrays, array_files):
        monkeypatch.setattr(module, "SMALL", 0)


def damage(path: Path, content: bytes) -> None:
    """Change a file, but not its time."""
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def flip(path: Path, at: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 4
    damage(path, bytes(content))


def arrays_of(db, name):
    (path,) = (db / "t.tansaku" / "arrays").glob(f"segment-*/{name}.npy")
    return path


class TestAnyFile:
    @pytest.mark.parametrize("seed", range(60))
    def test_damaged_in_any_way_gives_no_wrong_hits(self, made, db, seed):
        draw = random.Random(seed)  # noqa: S311
        files = sorted(path for path in db.rglob("*") if path.is_file() and path.suffix != ".lock")
        path = draw.choice(files)
        how = draw.choice(["flip", "cut", "zero", "swap", "delete"])
        if how == "flip":
            flip(path, draw.random())
        elif how == "cut":
            damage(path, path.read_bytes()[: draw.randrange(path.stat().st_size)])
        elif how == "zero":
            content = path.read_bytes()
            at = draw.randrange(len(content))
            damage(path, content[:at] + bytes(len(content[at : at + 40])) + content[at + 40 :])
        elif how == "swap":
            other = draw.choice([file for file in files if file.suffix == path.suffix])
            first, second = path.read_bytes(), other.read_bytes()
            damage(other, first)
            damage(path, second)
        else:
            path.unlink()
        derived = draw.random() < 0.5
        try:
            found = answers(db, derived=derived)
        except TansakuError:
            return
        assert found == answers(made, derived=derived)

    def test_nothing_is_taken_for_damaged_that_is_not(self, db):
        index = Index.open(db, "t", encoder=FakeEncoder())
        for k in range(3):
            index.add(corpus(5, f"n{k}-", year=lambda i: i))
            answers(db)
            index.delete([f"n{k}-0"])
            index.optimize()
            answers(db)
        index.rebuild()
        answers(db)
        assert not index.check().rebuilt


class TestTheCodec:
    @pytest.mark.parametrize("column", ["centroids", "codewords", "groups"])
    def test_with_other_numbers_is_refused(self, db, column):
        changed = {"centroids": b"\x00\x7e", "codewords": b"\x00\x7c", "groups": b"\x01\x00"}[column]
        with_codec(db, lambda row: {**row, column: changed + row[column][2:]})
        with pytest.raises(StorageError, match=r"table 't.codec': codec .* is damaged"):
            answers(db)

    @pytest.mark.parametrize(
        ("column", "value"),
        [("nbits", 0), ("nbits", 3), ("dim", 0), ("dim", 7), ("dim", -16), ("centroids", b"\0"), ("groups", b"")],
    )
    def test_that_does_not_fit_together_is_refused(self, db, column, value):
        with_codec(db, lambda row: {**row, column: value})
        with pytest.raises(StorageError, match=r"table 't.codec': codec .* is damaged"):
            answers(db)


def with_codec(db, change):
    """Write the codec's row anew."""
    database = lancedb.connect(str(db))
    table = database.open_table("t.codec").to_arrow()
    rows = pa.Table.from_pylist([change(table.to_pylist()[0])], table.schema)
    database.create_table("t.codec", rows, mode="overwrite")


class TestForgedArrays:
    """Arrays that fit their checksums, but not each other: the loops that read them look at no bounds."""

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("offsets", lambda a: a[:-1]),
            ("offsets", lambda a: -a),
            ("offsets", lambda a: a * 1000),
            ("offsets", lambda a: np.concatenate([a[:3], a[2:3] - 1, a[4:]])),
            ("list_offsets", lambda a: a[:-1]),
            ("list_offsets", lambda a: a * 1000),
            ("list_offsets", lambda a: a[::-1]),
            ("list_offsets", lambda a: a.astype(np.int64)),
            ("postings", lambda a: a + 5000),
            ("postings", lambda a: a[:-1]),
            ("centroid_ids", lambda a: a + 60_000),
            ("centroid_ids", lambda a: a.astype(np.uint32)),
            ("residuals", lambda a: a[:, :-1]),
            ("residuals", lambda a: a[:-1]),
            ("row_ids", lambda a: a[::-1]),
            ("row_ids", lambda a: a[:-1]),
            ("write_ids", lambda a: a.astype(np.float64)),
            ("id_offsets", lambda a: a[:-1]),
            ("id_offsets", lambda a: a * 1000),
            ("id_offsets", lambda a: a[::-1]),
            ("id_offsets", lambda a: a.astype(np.int32)),
            ("id_text", lambda a: a[:-1]),
            ("id_text", lambda a: a | 0x80),
            ("id_text", lambda a: a.astype(np.int8)),
        ],
    )
    def test_are_made_again(self, made, db, name, change):
        path = arrays_of(db, name)
        np.save(path, change(np.load(path)))
        listed = db / "t.tansaku" / "arrays" / "arrays.json"
        manifest = json.loads(listed.read_text(encoding="utf-8"))["arrays"]
        status = path.stat()
        manifest["segments"][0]["files"][path.name] = [
            status.st_size,
            status.st_mtime_ns,
            zlib.crc32(path.read_bytes()),
        ]
        crc = zlib.crc32(json.dumps(manifest).encode())
        listed.write_text(json.dumps({"crc": crc, "arrays": manifest}), encoding="utf-8")
        assert answers(db) == answers(made)


class TestRows:
    """Of a table that others have written to."""

    def change(self, db, **values):
        table = lancedb.connect(str(db)).open_table("t")
        row = table.to_arrow().slice(3, 1)
        for name, value in {"write_id": 7, **values}.items():
            field = row.schema.field(name)
            row = row.set_column(row.schema.get_field_index(name), field, pa.array([value], field.type))
        table.merge_insert("id").when_matched_update_all().execute(row)

    @pytest.mark.parametrize("derived", [True, False])
    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("token_count", 2**31 - 1),
            ("token_count", 0),
            ("token_count", -3),
            ("residuals", b""),
            ("centroid_ids", b"\0" * 9),
        ],
    )
    def test_whose_columns_do_not_fit_are_refused(self, db, column, value, derived):
        self.change(db, **{column: value})
        with pytest.raises(StorageError, match=r"table 't': column '(token_count|centroid_ids|residuals)'"):
            answers(db, derived=derived)

    @pytest.mark.parametrize(
        "column", ["token_count", "centroid_ids", "residuals", "centroid_cosine", "write_id", "text"]
    )
    @pytest.mark.parametrize(
        ("values", "problem"), [(pa.nulls, "has the type null"), (lambda n: pa.array([[1]] * n), "has the type list")]
    )
    def test_with_a_column_of_another_type_are_refused_wherever_the_table_is_opened(self, db, column, values, problem):
        database = lancedb.connect(str(db))
        rows = database.open_table("t").to_arrow()
        changed = rows.set_column(rows.schema.get_field_index(column), column, values(len(rows)))
        database.create_table("t", changed.replace_schema_metadata(rows.schema.metadata), mode="overwrite")
        for use in (lambda: answers(db), lambda: Index.open(db, "t", encoder=FakeEncoder()).info()):
            with pytest.raises(StorageError, match=rf"table 't': column '{column}' {problem}"):
                use()

    @pytest.mark.parametrize("column", ["token_count", "centroid_cosine", "write_id"])
    def test_without_a_value_are_refused_by_info(self, db, column):
        database = lancedb.connect(str(db))
        rows = database.open_table("t").to_arrow()
        kind = rows.schema.field(column).type
        missing = pa.array([None, *rows[column].to_pylist()[1:]], kind)
        changed = rows.set_column(rows.schema.get_field_index(column), column, missing)
        database.create_table("t", changed.replace_schema_metadata(rows.schema.metadata), mode="overwrite")
        with pytest.raises(StorageError, match=f"column '{column}' has no value in some rows"):
            Index.open(db, "t", encoder=FakeEncoder()).info()

    def test_no_memory_is_taken_for_tokens_that_are_not_there(self, db, monkeypatch):
        self.change(db, token_count=2**31 - 1)
        sizes = []
        make = segments._in_memory

        def noted(name, shape, dtype):
            sizes.append(np.prod(shape))
            return make(name, shape, dtype)

        monkeypatch.setattr(segments, "_in_memory", noted)
        with pytest.raises(StorageError, match="column 'centroid_ids' has another length"):
            answers(db, derived=False)
        assert max(sizes, default=0) < 1e6


class TestCheck:
    def test_says_what_it_looked_at(self, db):
        seen: list[tuple[str, int, int]] = []
        report = Index.open(db, "t", encoder=FakeEncoder()).check(
            progress=lambda stage, done, total, tokens: seen.append((stage, done, total))
        )
        ends = {stage: (done, total) for stage, done, total in seen}
        assert {stage for stage, (done, total) in ends.items() if done == total} == {"check files", "check rows"}
        assert report.rows == 58
        assert report.files > 10
        assert report.bytes > 10_000
        assert not report.rebuilt
        result = CliRunner().invoke(app, ["check", "--db", str(db), "--table", "t"])
        assert result.exit_code == 0
        assert "the codes of 58 rows are undamaged" in " ".join(result.output.split())

    @pytest.mark.parametrize("name", ["offsets", "centroid_ids", "residuals", "list_offsets", "postings"])
    def test_finds_and_mends_arrays_of_a_large_index(self, made, db, large, name):
        flip(arrays_of(db, name), 0.9)
        assert Index.open(db, "t", encoder=FakeEncoder()).check().rebuilt
        assert answers(db) == answers(made)
        assert not Index.open(db, "t", encoder=FakeEncoder()).check().rebuilt

    def test_finds_a_damaged_file_of_a_large_table(self, db, large):
        flip(max((db / "t.lance" / "data").iterdir(), key=lambda path: path.stat().st_size))
        with pytest.raises(StorageError, match=r"table 't': .*\.lance is not as it was written; restore"):
            Index.open(db, "t", encoder=FakeEncoder()).check()
        result = CliRunner().invoke(app, ["check", "--db", str(db), "--table", "t"])
        assert result.exit_code != 0

    def test_finds_that_the_latest_manifest_is_gone(self, db):
        min((db / "t.lance" / "_versions").glob("*.manifest")).unlink()
        with pytest.raises(StorageError, match="is missing, and with it the latest version"):
            answers(db)
        with pytest.raises(StorageError, match="is missing, and with it the latest version"):
            Index.open(db, "t", encoder=FakeEncoder()).check()
