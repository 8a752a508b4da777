"""The texts of LanceDB's errors that decide what tansaku does, provoked in the LanceDB that is installed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import lancedb
import pyarrow as pa
import pytest

from tansaku.indexer.table import lance_errors

KEY = {"lance-schema:unenforced-primary-key": "true"}


def schema(build):
    id_field = pa.field("id", pa.string(), nullable=False, metadata=KEY)
    return pa.schema([id_field, pa.field("x", pa.int64()), pa.field(f"build_{build}", pa.null())])


def rows(build=1, ids=("a", "b", "c")):
    return pa.table([list(ids), list(range(len(ids))), [None] * len(ids)], schema=schema(build))


@pytest.fixture
def db(tmp_path):
    return str(tmp_path)


@pytest.fixture
def table(db):
    make(db)
    return lancedb.connect(db).open_table("t")


def make(db, build=1, mode="create"):
    stable = {"new_table_enable_stable_row_ids": "true"}
    return lancedb.connect(db).create_table("t", rows(build), mode=mode, storage_options=stable)


def stream(meanwhile: Callable[[], object], build=1):
    """Rows, between which something else happens."""

    def batches():
        yield from rows(build).to_batches()
        meanwhile()

    return pa.RecordBatchReader.from_batches(schema(build), batches())


def merge(table, new):
    return table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(new)


def raised(action):
    with pytest.raises((ValueError, RuntimeError)) as caught:
        action()
    return caught.value


def check_conflict(error, words):
    assert words in str(error).lower()
    assert lance_errors.is_conflict(error)
    assert not lance_errors.is_missing_table(error) or words == "not found in target schema"
    assert not lance_errors.is_existing_table(error)


class TestConflicts:
    def test_two_overwrites(self, db, table):
        def overwrite():
            lancedb.connect(db).create_table("t", stream(lambda: make(db, mode="overwrite")), mode="overwrite")

        check_conflict(raised(overwrite), "commit conflict")

    @pytest.mark.parametrize("how", ["merge", "delete"])
    def test_a_change_of_a_table_that_was_overwritten(self, db, table, how):
        make(db, mode="overwrite")
        change = {"merge": lambda: merge(table, rows()), "delete": lambda: table.delete("id = 'a'")}[how]
        check_conflict(raised(change), "incompatible transaction")

    def test_a_merge_that_is_tried_again_on_a_table_with_other_columns(self, db, table):
        def meanwhile():
            lancedb.connect(db).open_table("t").update("id = 'a'", {"x": 7})
            make(db, build=2, mode="overwrite")

        check_conflict(raised(lambda: merge(table, stream(meanwhile))), "append with different schema")

    def test_a_merge_into_a_table_with_other_columns(self, db, table):
        check_conflict(raised(lambda: merge(table, rows(build=2))), "not found in target schema")

    def test_not_an_error_in_a_folder_of_that_name(self):
        assert not lance_errors.is_conflict(OSError("/data/conflict/t.lance: cannot be read"))


def test_a_table_that_is_missing(db, table):
    error = raised(lambda: lancedb.connect(db).open_table("u"))
    assert lance_errors.is_missing_table(error)
    assert not lance_errors.is_conflict(error)


def test_a_table_whose_first_write_was_cut_off(tmp_path):
    (tmp_path / "t.lance" / "data").mkdir(parents=True)
    (tmp_path / "t.lance" / "data" / "0.lance").write_bytes(b"half")
    assert lancedb.connect(str(tmp_path)).list_tables().tables == ["t"]
    assert lance_errors.is_missing_table(raised(lambda: lancedb.connect(str(tmp_path)).open_table("t")))


def test_a_damaged_table_is_not_missing(db, table, tmp_path):
    for manifest in (tmp_path / "t.lance" / "_versions").iterdir():
        manifest.write_bytes(b"no manifest")
    assert not lance_errors.is_missing_table(raised(lambda: lancedb.connect(db).open_table("t")))


def test_a_table_that_exists(db, table):
    assert lance_errors.is_existing_table(raised(lambda: make(db)))


@pytest.mark.parametrize(
    ("condition", "problem"), [("nope = 1", "Schema error: No field named nope"), ("x = = 1", "Error parsing")]
)
def test_a_condition_that_cannot_be_used(table, condition, problem):
    for use in (lambda: table.search().where(condition).to_arrow(), lambda: table.delete(condition)):
        error = raised(use)
        assert isinstance(error, ValueError)
        assert lance_errors.condition_problem(error).startswith(problem)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(errno.ENOSPC, "make room"), (errno.EACCES, "who may write"), (errno.EROFS, "that can be written to")],
)
def test_the_systems_own_errors_have_remedies(code, remedy):
    assert remedy in lance_errors.remedy_for(OSError(code, os.strerror(code)))


def test_a_long_text_is_cut_to_its_first_line():
    assert lance_errors.first_line(ValueError("one\ntwo")) == "one"
    assert len(lance_errors.first_line(ValueError("x" * 500))) == 401
    assert lance_errors.remedy_for(ValueError("one")) == ""
