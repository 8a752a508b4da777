"""Derived arrays: brought up to date step by step, damaged, copied, replaced; the hits are always the table's."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import filelock
import lancedb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lancedb.table import LanceTable

from tansaku import Index, Searcher, StorageError
from tansaku.indexer.derived import array_files, arrays, segments

from ..support.fakes import (
    MOUNT,
    SUPPORT,
    FakeEncoder,
    KilledError,
    after,
    corpus,
    exhaustive,
    run_twice_at_once,
    stored,
)

DOCS = corpus(20)
QUERIES = [FakeEncoder().vectors(text) for text in ("02468ace", "d", "ffee01")]


@pytest.fixture(autouse=True)
def _in_small_pieces(monkeypatch):
    in_small_pieces(monkeypatch)


def in_small_pieces(monkeypatch):
    """Segments of few documents, all of them memory-mapped."""
    for module in (arrays, segments):
        monkeypatch.setattr(module, "MAX_ROWS", 8)
    monkeypatch.setattr(array_files, "_MAPPED", 16)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made_once") / "db"
    with pytest.MonkeyPatch.context() as monkeypatch:
        in_small_pieces(monkeypatch)
        Index.create(folder, "t", DOCS, encoder=FakeEncoder())
        open_searcher(folder)
        Index.open(folder, "t", encoder=FakeEncoder()).delete(["d2", "d17"])
        open_searcher(folder)
    return folder


@pytest.fixture
def db(tmp_path, made_once):
    """A table of 18 rows with arrays in several segments, and marks of deleted rows."""
    shutil.copytree(made_once, tmp_path / "db")
    return tmp_path / "db"


def open_index(db):
    return Index.open(db, "t", encoder=FakeEncoder())


def open_searcher(db, *, derived=True):
    return Searcher.open(db, "t", encoder=FakeEncoder(), derived=derived)


def on_disk(searcher):
    """Whether the searcher reads memory-mapped arrays."""
    return all(isinstance(segment.centroid_ids, np.memmap) for _, segment in searcher._codes.segments)


def hits(searcher):
    return [[(hit.id, hit.score) for hit in searcher.search_vectors(query, 100)] for query in QUERIES]


def assert_right(db, *searchers):
    """All hits of the searchers are those of an exhaustive search over the table's rows."""
    expected = [dict(exhaustive(db, query)) for query in QUERIES]
    for searcher in searchers:
        for found, right in zip(hits(searcher), expected, strict=True):
            assert dict(found) == pytest.approx(right, abs=1e-5)
            assert len(found) == len(right)
            assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def folder_of(db):
    return db / "t.tansaku" / "arrays"


def named_files(db):
    return sorted(path for path in folder_of(db).rglob("*") if path.is_file() and path.name != "arrays.lock")


def codes_read(monkeypatch):
    """Counts the rows whose codes are read, in total, as a list of numbers."""
    original, counted = segments.read_rows, []

    def read_rows(index, row_ids, columns):
        for batch in original(index, row_ids, columns):
            counted.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(segments, "read_rows", read_rows)
    return counted


ids = st.lists(st.integers(0, 25), min_size=1, max_size=12, unique=True)
steps = st.one_of(
    st.tuples(st.sampled_from(["add", "upsert", "delete"]), ids),
    st.tuples(st.just("metadata"), ids),
    st.tuples(st.sampled_from(["optimize", "rebuild", "look", "overwrite"]), st.just([])),
)


@pytest.mark.slow
@settings(max_examples=6, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
@given(st.lists(steps, min_size=4, max_size=9))
def test_after_any_changes_all_ways_to_open_an_index_give_the_tables_hits(changes):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        in_small_pieces(monkeypatch)
        db = Path(folder) / "db"
        index = Index.create(db, "t", [{**d, "year": 1} for d in corpus(12)], encoder=FakeEncoder())
        refreshed, refreshed_plain = open_searcher(db), open_searcher(db, derived=False)
        there = set(range(12))
        for number, (kind, chosen) in enumerate(changes):
            if kind in ("add", "upsert"):
                given = [i for i in chosen if kind == "upsert" or i not in there]
                if given:
                    documents = corpus(26, salt=str(number))
                    getattr(index, kind)([documents[i] for i in given])
                there |= set(given)
            elif kind == "delete":
                assert index.delete([f"d{i}" for i in chosen]).rows == len(there & set(chosen))
                there -= set(chosen)
            elif kind == "metadata":
                where = f"id IN ({', '.join(repr(f'd{i}') for i in chosen)})"
                lancedb.connect(str(db)).open_table("t").update(where=where, values={"year": number})
            elif kind == "optimize":
                index.optimize(timedelta(0))
            elif kind == "rebuild" and there:
                index.rebuild(nbits=(1, 2, 4)[number % 3])
            elif kind == "overwrite":
                Index.create(db, "t", [{**d, "year": 1} for d in corpus(9)], encoder=FakeEncoder(), overwrite=True)
                there = set(range(9))
            elif kind == "look":
                refreshed.refresh()
                refreshed_plain.refresh()
        refreshed.refresh()
        refreshed_plain.refresh()
        assert sorted(stored(db)["id"].to_pylist()) == sorted(f"d{i}" for i in there)
        assert_right(db, open_searcher(db), refreshed, open_searcher(db, derived=False), refreshed_plain)
        assert len(refreshed) == len(there)


class TestIncrementally:
    def test_only_new_rows_are_read(self, db, monkeypatch):
        searcher = open_searcher(db)
        counted = codes_read(monkeypatch)
        open_searcher(db)
        assert not sum(counted)
        index = open_index(db)
        index.add(corpus(1, "n"))
        searcher.refresh()
        # With the new row at most the small last segment is read again.
        assert 1 <= sum(counted) <= 1 + 4
        counted.clear()
        index.delete(["d4"])
        index.optimize(timedelta(0))
        lancedb.connect(str(db)).open_table("t").update(where="id = 'd6'", values={"title": "題"})
        searcher.refresh()
        assert not sum(counted)
        assert_right(db, searcher)

    def test_rows_are_copied_a_logarithmic_number_of_times(self, tmp_path, monkeypatch):
        for module in (arrays, segments):
            monkeypatch.setattr(module, "MAX_ROWS", 1 << 16)
        index = Index.create(tmp_path, "t", DOCS, encoder=FakeEncoder())
        searcher = open_searcher(tmp_path)
        counted = codes_read(monkeypatch)
        for n in range(12):
            index.add(corpus(1, f"n{n}-"))
            searcher.refresh()
        assert len(searcher._codes.segments) <= 6
        assert sum(counted) <= 12 * 6

    def test_segments_that_are_mostly_deleted_go(self, db):
        index = open_index(db)
        index.delete([f"d{i}" for i in range(14)])
        searcher = open_searcher(db)
        held = sum(len(segment) for _, segment in searcher._codes.segments)
        assert held <= len(searcher) / 0.7
        index.delete(where="true")
        searcher.refresh()
        assert (len(searcher), hits(searcher)) == (0, [[], [], []])
        assert not list(folder_of(db).glob("segment-*"))
        index.add(DOCS)
        searcher.refresh()
        assert_right(db, searcher)

    def test_old_segments_are_removed_but_a_reader_that_has_them_goes_on(self, db):
        old = open_searcher(db)
        before = hits(old)
        open_index(db).upsert(corpus(20, salt="new"))
        names = {path.name for path in folder_of(db).glob("segment-*")}
        new = open_searcher(db)
        assert not names & {path.name for path in folder_of(db).glob("segment-*")}
        assert hits(old) == before
        assert_right(db, new)


@pytest.mark.integration
class TestDamage:
    def test_of_any_file_is_noticed_and_mended(self, db):
        names = [path.relative_to(db) for path in named_files(db)]
        assert {path.stem.split("-")[0] for path in names} == {
            *array_files._names(open_index(db)._now()),
            "arrays",
            "deleted",
        }
        one_of_each = {path.stem.split("-")[0]: path for path in names}
        for name in one_of_each.values():
            for how in ("removed", "cut", "flipped"):
                good = (db / name).read_bytes()
                content = {
                    "cut": good[:-3],
                    "flipped": good[:-5] + bytes([good[-5] ^ 0x10]) + good[-4:],
                }.get(how)
                whole = db.parent / "whole"
                shutil.copytree(folder_of(db), whole)
                if content is None:
                    (db / name).unlink()
                else:
                    (db / name).write_bytes(content)
                    os.utime(db / name, ns=(1, 1))
                assert_right(db, open_searcher(db))
                assert not list(folder_of(db).rglob("*.making"))
                shutil.rmtree(folder_of(db))
                shutil.move(whole, folder_of(db))

    @pytest.mark.parametrize(
        "content",
        ["", "{", "[]", "{}", "null", "7", '{"format": 1}', '{"format": 1, "segments": [[]]}', b"\xff\xfe\0"],
    )
    def test_of_the_list_of_files_does_not_matter(self, db, content):
        path = folder_of(db) / "arrays.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        assert_right(db, open_searcher(db))

    def test_of_any_byte_of_the_list_does_not_matter_later_either(self, db, monkeypatch):
        """A version that is not the written one must not be believed once the table has come to it."""
        path = folder_of(db) / "arrays.json"
        good = path.read_text(encoding="utf-8")
        version = open_index(db)._now().table.version
        place = good.index(f'"version": {version}') + len('"version": ')
        path.write_text(good[:place] + str(version + 2) + good[place + 1 :], encoding="utf-8")
        index = open_index(db)
        index.upsert(corpus(3, salt="new"))
        index.delete(["d9"])
        assert index._now().table.version == version + 2
        assert_right(db, open_searcher(db))

    @pytest.mark.parametrize("what", ["segments", "files", "file"])
    def test_of_the_lists_structure_does_not_matter(self, db, what):
        path = folder_of(db) / "arrays.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        manifest = content.get("arrays", content)
        if what == "segments":
            manifest["segments"] = manifest["segments"][1:]
        elif what == "files":
            manifest["segments"][0]["files"] = []
        else:
            del manifest["segments"][0]["files"]["offsets.npy"]
        path.write_text(json.dumps(content), encoding="utf-8")
        assert_right(db, open_searcher(db))

    @pytest.mark.parametrize("derived", [True, False])
    def test_of_codes_in_the_table_is_refused(self, db, derived):
        table = lancedb.connect(db).open_table("t")
        row = table.to_arrow().slice(0, 1)
        beyond = pa.array([b"\xff\xff" * row["token_count"][0].as_py()], pa.large_binary())
        row = row.set_column(row.schema.get_field_index("centroid_ids"), row.schema.field("centroid_ids"), beyond)
        another = pa.array([7], pa.int64())
        row = row.set_column(row.schema.get_field_index("write_id"), row.schema.field("write_id"), another)
        table.merge_insert("id").when_matched_update_all().execute(row)
        with pytest.raises(StorageError, match="has ids that the codec does not have"):
            open_searcher(db, derived=derived)


@pytest.mark.integration
class TestIds:
    @pytest.mark.parametrize("derived", [True, False])
    def test_are_those_of_the_table(self, tmp_path, derived):
        documents = [{"id": f"文{i}" * (i % 3 + 1), "text": "0123. 4567. 89ab."[: 6 * (i % 3 + 1)]} for i in range(20)]
        index = Index.create(tmp_path, "t", documents, encoder=FakeEncoder(), passage_tokens=6)
        open_searcher(tmp_path, derived=derived)
        index.delete(["文4文4"])
        index.upsert([{"id": "文0", "text": "ffff. eeee."}])
        searcher = open_searcher(tmp_path, derived=derived)
        assert len(searcher._codes.segments) > 2
        table = open_index(tmp_path)._now().table
        expected = {row["_rowid"]: row for row in table.search().with_row_id(True).to_list()}
        rows = np.random.default_rng(0).permutation(np.flatnonzero(searcher._codes.alive))
        of_table = [expected[row_id] for row_id in searcher._codes.row_ids[rows].tolist()]
        assert searcher.ids(rows) == [row["id"] for row in of_table]
        assert searcher.document_ids(rows) == [row["parent_id"] for row in of_table]
        numbers = dict(zip(searcher.document_ids(rows), searcher._codes.documents[rows].tolist(), strict=True))
        assert [numbers[row["parent_id"]] for row in of_table] == searcher._codes.documents[rows].tolist()
        assert len(set(numbers.values())) == len(numbers) == len(documents) - 1
        assert searcher.ids(rows[:0]) == []

    def test_of_rows_after_a_restored_version_are_not_those_of_rows_before(self, db):
        index = open_index(db)
        version = index.info().version
        index.add(corpus(3, "gone"))
        before = open_searcher(db)
        index.restore(version)
        index.add(corpus(3, "came"))  # with the numbers of the rows that are gone
        assert_right(db, open_searcher(db), open_searcher(db, derived=False))
        assert before.unknown(["gone1", "came1"]) == ["came1"]
        before.refresh()
        assert before.unknown(["gone1", "came1"]) == ["gone1"]

    def test_need_no_table(self, db, monkeypatch):
        searcher = open_searcher(db)
        rows, _ = searcher.rank_vectors(QUERIES[0], 5)
        expected = [hit.id for hit in searcher.search_vectors(QUERIES[0], 5)]
        for read in ("search", "take_row_ids"):
            monkeypatch.setattr(LanceTable, read, lambda *args, **options: pytest.fail("the table is read"))
        assert searcher.ids(rows) == expected
        assert searcher.unknown(["d1", "nowhere", "d2"]) == ["nowhere", "d2"]
        assert searcher.score_vectors(QUERIES[0], ["d1"]).shape == (1,)

    def test_in_files_that_are_not_text_are_made_again(self, db):
        segment = open_searcher(db)._codes.segments[0][1]
        assert not segments.segment_problem(segment, open_index(db)._now().codec, None)
        for text, said in ((b"\xff", "UTF-8"), (b"", "do not ascend")):
            content = np.frombuffer(text * len(segment.ids.text), np.uint8)
            broken = replace(segment, ids=replace(segment.ids, text=content))
            assert said in segments.segment_problem(broken, open_index(db)._now().codec, None)


class TestTheRightTable:
    @pytest.mark.parametrize("earlier", [1, 2])
    def test_arrays_of_an_earlier_format_are_made_again(self, db, monkeypatch, earlier):
        path = folder_of(db) / "arrays.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))["arrays"]
        manifest["format"] = earlier
        del manifest["routing"]  # which is there from format 3 on, and ids from format 2 on
        for entry in manifest["segments"] if earlier == 1 else ():
            for name in ("id_text.npy", "id_offsets.npy"):
                del entry["files"][name]
                (folder_of(db) / entry["name"] / name).unlink()
        array_files._replace_manifest(folder_of(db), manifest)
        assert "lists" not in open_index(db).info().bytes_by_part
        known = array_files.table_checksums(open_index(db)._now())
        assert known
        counted = codes_read(monkeypatch)
        searcher = open_searcher(db)
        assert sum(counted) == 2 * len(searcher)  # codes and ids
        assert_right(db, searcher)
        assert on_disk(searcher)
        assert array_files.table_checksums(open_index(db)._now()) == known  # which are of the table, in any format
        assert json.loads(path.read_text(encoding="utf-8"))["arrays"]["format"] == array_files._FORMAT
        assert "lists" in open_index(db).info().bytes_by_part

    def test_a_copied_database_keeps_its_arrays(self, db, tmp_path, monkeypatch):
        for path in shutil.copytree(db, tmp_path / "copy").rglob("*"):
            os.utime(path)
        counted = codes_read(monkeypatch)
        for _ in range(2):
            assert_right(tmp_path / "copy", open_searcher(tmp_path / "copy"))
        assert not sum(counted)

    @pytest.mark.parametrize("how", ["overwrite", "drop and create", "rebuild"])
    def test_arrays_of_an_earlier_table_of_that_name_are_not_used(self, db, how):
        old = open_searcher(db)
        version = old.version
        if how == "rebuild":
            open_index(db).rebuild()
        else:
            if how == "drop and create":
                lancedb.connect(str(db)).drop_table("t")
            Index.create(db, "t", corpus(20, salt="other"), encoder=FakeEncoder(), overwrite=how == "overwrite")
        while open_index(db)._now().table.version < version:
            open_index(db).delete([f"d{open_index(db)._now().table.version}"])
        assert_right(db, open_searcher(db))
        old.refresh()
        assert_right(db, old)

    def test_a_restored_backup_of_the_table_alone_is_told_from_what_came_after_it(self, db, tmp_path):
        shutil.copytree(db / "t.lance", tmp_path / "backup")
        open_index(db).upsert(corpus(9, salt="new"))
        open_searcher(db)
        shutil.rmtree(db / "t.lance")
        shutil.move(tmp_path / "backup", db / "t.lance")
        assert_right(db, open_searcher(db))
        open_index(db).upsert(corpus(9, salt="other"))  # the version has the same number as the one that was lost
        assert_right(db, open_searcher(db))


@pytest.mark.integration
class TestInterruption:
    @pytest.mark.parametrize("error", [KilledError, OSError])
    @pytest.mark.parametrize(
        ("target", "name"),
        [
            (np, "save"),
            (np.lib.format, "open_memmap"),
            (array_files, "_about"),
            (array_files, "_replace_manifest"),
            (arrays, "remove_unnamed"),
        ],
    )
    def test_leaves_the_old_arrays_in_use_and_nothing_for_good(self, db, monkeypatch, target, name, error):
        before = (folder_of(db) / "arrays.json").read_bytes()
        index = open_index(db)
        index.upsert(corpus(9, salt="new"))
        index.delete(["d15"])
        for calls in (0, 1):
            with monkeypatch.context() as patch:
                patch.setattr(target, name, after(calls, getattr(target, name), error))
                with contextlib.suppress(KilledError):
                    assert_right(db, open_searcher(db))
                if name not in ("_remove_unnamed",) and calls == 0:
                    assert (folder_of(db) / "arrays.json").read_bytes() == before
        searcher = open_searcher(db)
        assert_right(db, searcher)
        assert on_disk(searcher)
        index.add(corpus(1, "n"))
        searcher.refresh()
        names = {segment.name for segment in folder_of(db).glob("segment-*")}
        assert len(names) == len(searcher._codes.segments)

    def test_failing_again_and_again_does_not_fill_the_disk(self, db, monkeypatch):
        open_index(db).upsert(corpus(18, salt="new"))
        monkeypatch.setattr(
            array_files, "_replace_manifest", after(0, array_files._replace_manifest, OSError(28, "full"))
        )
        sizes = []
        for _ in range(4):
            assert_right(db, open_searcher(db))
            sizes.append(len(list(folder_of(db).glob("segment-*"))))
        assert sizes[-1] <= sizes[0] + 1

    def test_the_old_ones_are_used_by_those_who_open_the_same_version(self, db, monkeypatch):
        shutil.rmtree(folder_of(db))
        with monkeypatch.context() as patch:
            patch.setattr(arrays, "store_manifest", after(0, array_files.store_manifest))
            with pytest.raises(KilledError):
                open_searcher(db)
        assert list(folder_of(db).glob("segment-*"))
        searcher = open_searcher(db)
        assert_right(db, searcher)
        assert len(list(folder_of(db).glob("segment-*"))) == len(searcher._codes.segments)


@pytest.mark.integration
class TestSeveralReaders:
    @pytest.mark.parametrize("fresh", [False, True])
    def test_in_threads(self, db, fresh):
        if fresh:
            shutil.rmtree(folder_of(db))
        open_index(db).upsert(corpus(5, salt="new"))
        found: list = []

        def read():
            try:
                found.append(open_searcher(db))
            except Exception as error:
                found.append(error)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert_right(db, *found)
        assert len(list(folder_of(db).glob("segment-*"))) == len(found[0]._codes.segments)

    @pytest.mark.integration
    def test_in_processes(self, db):
        script = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from fakes import *\n"
            "from tansaku import Searcher\n"
            "from tansaku import Index\n"
            "searcher = Searcher.open(sys.argv[2], 't', encoder=FakeEncoder())\n"
            "for n in range(4):\n"
            "    Index.open(sys.argv[2], 't', encoder=FakeEncoder()).upsert(corpus(6, salt=sys.argv[3] + str(n)))\n"
            "    searcher.refresh()\n"
            "    assert len(searcher.search('0123', 30)) == 19\n"
        )
        assert run_twice_at_once(script, db) == [0, 0]
        assert_right(db, open_searcher(db), open_searcher(db, derived=False))

    def test_one_that_opened_an_older_version_disturbs_nobody(self, db):
        from tansaku.indexer.table.database import connect
        from tansaku.indexer.table.table import open_index_table

        older = open_index_table(connect(db), "t")
        open_index(db).upsert(corpus(9, salt="new"))
        new = open_searcher(db)
        manifest = (folder_of(db) / "arrays.json").read_bytes()
        ids_then = set(older.table.to_arrow()["id"].to_pylist())
        reader = Searcher(older, FakeEncoder())
        assert {hit.id for hit in reader.search_vectors(QUERIES[0], 30)} == ids_then
        assert (folder_of(db) / "arrays.json").read_bytes() == manifest
        assert_right(db, new, open_searcher(db))

    def test_a_lock_that_is_held_for_long_is_not_waited_for_forever(self, db, monkeypatch):
        monkeypatch.setattr(arrays, "_LOCK_SECONDS", 0.1)
        open_index(db).upsert(corpus(9, salt="new"))
        with filelock.FileLock(folder_of(db) / "arrays.lock"):
            searcher = open_searcher(db)
        assert not on_disk(searcher)
        assert_right(db, searcher)


@pytest.mark.integration
class TestWithoutRoom:
    def test_without_derived_arrays_nothing_is_written(self, db):
        shutil.rmtree(db / "t.tansaku")
        searcher = open_searcher(db, derived=False)
        assert_right(db, searcher)
        open_index(db).upsert(corpus(9, salt="new"))
        searcher.refresh()
        assert_right(db, searcher)
        assert not (db / "t.tansaku").exists()

    def test_where_nothing_can_be_written_they_are_in_memory(self, db, monkeypatch):
        shutil.rmtree(db / "t.tansaku")
        (db / "t.tansaku").write_text("not a folder")
        searcher = open_searcher(db)
        assert not on_disk(searcher)
        assert_right(db, searcher)

    def test_a_disk_that_fills_up_does_not_end_the_process(self, small_disk):
        """Writing to a memory map ends it with a signal where the disk has no room left."""
        db = small_disk / "db"
        Index.create(db, "t", corpus(1500), encoder=FakeEncoder())
        script = (
            "import os, shutil, sys; sys.path.insert(0, sys.argv[1])\n"
            "from pathlib import Path\n"
            "from fakes import *\n"
            "from tansaku import Searcher\n"
            "disk = Path(sys.argv[2])\n"
            "for left in range(10_000, 100_000, 30_000):\n"
            "    (disk / 'filler').unlink(missing_ok=True)\n"
            "    status = os.statvfs(disk)\n"
            "    (disk / 'filler').write_bytes(bytes(status.f_bavail * status.f_frsize - left))\n"
            "    found = Searcher.open(str(disk / 'db'), 't', encoder=FakeEncoder()).search('0123')\n"
            "    assert len(found) == 10\n"
            "    shutil.rmtree(disk / 'db' / 't.tansaku')\n"
        )
        ended = subprocess.run([sys.executable, "-c", script, str(SUPPORT), str(small_disk)], check=False)
        assert ended.returncode == 0

    def test_on_a_read_only_disk_old_arrays_do_no_harm(self, small_disk):
        db = small_disk / "db"
        Index.create(db, "t", DOCS, encoder=FakeEncoder())
        open_searcher(db)
        open_index(db).upsert(corpus(9, salt="new"))
        subprocess.run([MOUNT, "-o", "remount,ro", str(small_disk)], check=True)
        assert_right(db, open_searcher(db), open_searcher(db, derived=False))


def test_equal_scores_come_in_the_order_of_writing(db):
    index = open_index(db)
    index.add([{"id": f"same{n}", "text": "abcde"} for n in range(5)])
    index.upsert([{"id": "same3", "text": "zzz"}])
    index.upsert([{"id": "same3", "text": "abcde"}])
    query = FakeEncoder().vectors("abcde")
    for derived in (True, False):
        found = [hit.id for hit in open_searcher(db, derived=derived).search_vectors(query, 5)]
        assert found == [f"same{n}" for n in range(5)]


@pytest.mark.integration
def test_few_candidates_give_the_same_with_and_without_derived_arrays(db):
    """Then inverted lists decide, which are cut otherwise where segments are."""
    index = open_index(db)
    index.upsert(corpus(60, salt="new"))
    index.delete([f"d{i}" for i in range(0, 60, 7)])
    first, second = open_searcher(db), open_searcher(db, derived=False)
    for query in QUERIES:
        for candidates, nprobe in ((5, 1), (9, 2)):
            one, two = (
                [(h.id, h.score) for h in s.search_vectors(query, 5, candidates=candidates, nprobe=nprobe)]
                for s in (first, second)
            )
            assert [doc_id for doc_id, _ in one] == [doc_id for doc_id, _ in two]
            assert [score for _, score in one] == pytest.approx([score for _, score in two], abs=1e-5)
