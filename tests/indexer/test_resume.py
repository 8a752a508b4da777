"""Builds that are interrupted, at any point and in any way, and then repeated: nothing lost, doubled or done twice."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from tansaku import (
    BusyError,
    Encoder,
    Index,
    IndexStateError,
    InputError,
    ResumeError,
    StorageError,
    TableExistsError,
    WriteConflictError,
)
from tansaku.indexer.table.changes import delete_rows, merge_rows
from tansaku.indexer.table.table import create_index_table
from tansaku.indexer.write import build, build_steps, merge, rebuild
from tansaku.indexer.write.rows import RowMaker
from tansaku.indexer.write.staging import Staging
from tansaku.plugin.cli.demo import SAMPLE
from tansaku.plugin.cli.main import app

from ..support.fakes import (
    SUPPORT,
    FakeEncoder,
    KilledError,
    after,
    built,
    comparable,
    corpus,
    rows_by_id,
    small_chunks,
    small_slices,
    stored,
    texts_by_id,
)

pytestmark = pytest.mark.integration

CHUNK = 4
DOCS = corpus(22, year=lambda i: 1900 + i)
CHANGED = corpus(14, salt="new", year=lambda i: 2000 + i) + corpus(8, "n", year=lambda i: i)


@pytest.fixture(autouse=True)
def _in_small_pieces(monkeypatch):
    small_chunks(monkeypatch, CHUNK)
    small_slices(monkeypatch)
    monkeypatch.setattr(build_steps, "_SAMPLE_ROWS", 6)


@pytest.fixture
def db(tmp_path):
    return tmp_path / "db"


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    """Tables that nothing has interrupted: ``t`` of `DOCS`, with ``passages`` divided, and what came of both."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_chunks(monkeypatch, CHUNK)
        monkeypatch.setattr(build_steps, "_SAMPLE_ROWS", 6)
        folder = tmp_path_factory.mktemp("made_once")
        Index.create(folder / "plain", "t", DOCS, encoder=FakeEncoder())
        Index.create(folder / "passages", "t", essays(5, 3), encoder=FakeEncoder(), passage_tokens=8)
    return folder


@pytest.fixture
def index(db, made_once):
    shutil.copytree(made_once / "plain", db)
    return Index.open(db, "t", encoder=FakeEncoder())


def essays(n, sentences, salt=""):
    """Documents of so many sentences, each a passage or two."""
    return [{"id": f"e{i}", "text": "".join(f"{salt}{i}文{k}。" for k in range(sentences))} for i in range(n)]


def build_folder(db):
    return db / "t.tansaku" / "build"


def encoder_that_stops(calls):
    encoder = FakeEncoder()
    encoder.before_encoding = after(calls, lambda texts: None)
    return encoder


def done_texts(db, documents, *, merges=False):
    """Texts of the documents that an interrupted build has encoded and kept."""
    left = Staging(db / "t.tansaku", merges=merges)
    chunks = [n for n in range(len(documents)) if left.chunk_report(n) is not None]
    done = [documents[i]["text"] for n in chunks for i in range(n * CHUNK, min((n + 1) * CHUNK, len(documents)))]
    if left.load_codec() is not None and (left.folder / "sample.arrow").exists():
        done += [documents[i]["text"] for i in left.load_sample()["position"].to_pylist()]
    return set(done)


def create(db, encoder, documents=DOCS, **how):
    return Index.create(db, "t", documents, encoder=encoder, **{"resume": True, **how})


def cut_off_write(path):
    """As `Path.replace`, but the process ends before it: the file lies there under its temporary name."""
    raise KilledError


def stop_at(monkeypatch, point):
    """Arrange that the next write is cut off at ``point``; gives the encoder to make it with."""
    if point.startswith("encode "):
        return encoder_that_stops(int(point.split()[1]))
    if point == "sample written, codec not":
        monkeypatch.setattr(np, "savez", after(0, np.savez))
    elif point == "codec written":
        original = Staging.save_codec

        def save_codec(self, *args):
            original(self, *args)
            raise KilledError

        monkeypatch.setattr(Staging, "save_codec", save_codec)
    elif point.startswith("chunk half written "):
        original_write = Staging._write
        chunks = []

        def write(self, name, table):
            chunks.append(name)
            if len([n for n in chunks if n.startswith("chunk")]) > int(point.split()[-1]):
                (self.folder / f".{name}.0123.making").write_bytes(b"half of it")
                raise KilledError
            original_write(self, name, table)

        monkeypatch.setattr(Staging, "_write", write)
    elif point.startswith("transaction "):
        for module in (merge, rebuild):
            monkeypatch.setattr(module, "merge_rows", after(int(point.split()[1]), merge_rows))
    elif point == "rows streamed":
        original = build_steps.with_progress

        def with_progress(batches, total, progress):
            for number, batch in enumerate(original(batches, total, progress)):
                if number == 2:
                    raise KilledError
                yield batch

        monkeypatch.setattr(build, "with_progress", with_progress)
        monkeypatch.setattr(merge, "with_progress", with_progress)
        monkeypatch.setattr(rebuild, "create_index_table", after(0, create_index_table))
    elif point == "swapped":
        monkeypatch.setattr(rebuild, "_apply_later_changes", after(0, rebuild._apply_later_changes))
    elif point == "committed":
        monkeypatch.setattr(Staging, "finish", after(0, Staging.finish))
    return FakeEncoder()


def interrupted(monkeypatch, point, action):
    with monkeypatch.context() as patch:
        encoder = stop_at(patch, point)
        with pytest.raises(KilledError):
            action(encoder)


CREATE_POINTS = [
    "encode 0",
    "encode 1",
    "sample written, codec not",
    "codec written",
    "encode 2",
    "encode 5",
    "chunk half written 0",
    "chunk half written 3",
    "rows streamed",
    "committed",
]


class TestCreate:
    @pytest.mark.parametrize("point", CREATE_POINTS)
    def test_gives_the_same_table_and_encodes_nothing_again(self, db, made_once, monkeypatch, point):
        interrupted(monkeypatch, point, lambda encoder: create(db, encoder))
        if point != "committed":
            assert not (db / "t.lance" / "_versions").exists()
        done = done_texts(db, DOCS)
        encoder = FakeEncoder()
        report = built(create(db, encoder))
        assert comparable(stored(db)) == comparable(stored(made_once / "plain"))
        assert not done & set(encoder.encoded)
        assert len(set(encoder.encoded)) == len(encoder.encoded)
        assert report
        assert (report.rows, report.tokens) == (len(DOCS), sum(stored(db)["token_count"].to_pylist()))
        assert not (db / "t.tansaku").exists()

    @pytest.mark.parametrize("point", ["encode 1", "encode 4", "rows streamed", "committed"])
    def test_overwrites(self, db, made_once, index, monkeypatch, point):
        Index.create(db, "t", corpus(9, "old"), encoder=FakeEncoder(), overwrite=True)
        before = stored(db)
        interrupted(monkeypatch, point, lambda encoder: create(db, encoder, overwrite=True))
        if point != "committed":
            assert stored(db).equals(before)
        done = done_texts(db, DOCS)
        encoder = FakeEncoder()
        create(db, encoder, overwrite=True)
        assert comparable(stored(db)) == comparable(stored(made_once / "plain"))
        assert not done & set(encoder.encoded)

    def test_an_overwrite_that_was_committed_does_not_undo_later_changes(self, db, index, monkeypatch):
        interrupted(monkeypatch, "committed", lambda encoder: create(db, encoder, overwrite=True))
        Index.open(db, "t", encoder=FakeEncoder()).add(corpus(2, "later"))
        create(db, FakeEncoder(), overwrite=True)
        assert len(stored(db)) == len(DOCS) + 2

    def test_goes_on_after_many_interruptions(self, db, made_once):
        calls = []
        for _ in range(20):
            encoder = encoder_that_stops(2)  # the sample is encoded in one go, or again
            try:
                create(db, encoder)
                break
            except KilledError:
                calls += encoder.encoded
        assert comparable(stored(db)) == comparable(stored(made_once / "plain"))
        assert len(calls) == len(set(calls))

    def test_divides_into_passages(self, db, made_once, monkeypatch):
        documents = essays(5, 3)
        interrupted(monkeypatch, "encode 3", lambda encoder: create(db, encoder, documents, passage_tokens=8))
        create(db, FakeEncoder(), documents, passage_tokens=8)
        assert comparable(stored(db)) == comparable(stored(made_once / "passages"))

    def test_an_error_in_the_documents_leaves_nothing(self, db):
        with pytest.raises(InputError):
            create(db, FakeEncoder(), [*DOCS, {"id": "x"}])
        assert not (db / "t.tansaku").exists()

    def test_without_resume_what_is_left_is_given_up_and_what_is_done_kept(self, db, made_once):
        with pytest.raises(KilledError):
            create(db, encoder_that_stops(3))
        first = Staging(db / "t.tansaku").write_id()
        with pytest.raises(KilledError):
            create(db, encoder_that_stops(3), resume=False)
        assert Staging(db / "t.tansaku").write_id() != first
        done, encoder = done_texts(db, DOCS), FakeEncoder()
        assert done
        create(db, encoder)
        assert comparable(stored(db)) == comparable(stored(made_once / "plain"))
        assert not done & set(encoder.encoded)

    def test_a_plan_under_which_nothing_was_done_blocks_no_other_call(self, db):
        """As after a kill before the first rows were staged."""
        with Staging(db / "t.tansaku") as left:
            left.begin({"work": "create", "nbits": 1})
            plan = (left.folder / "plan.json").read_bytes()
        build_folder(db).mkdir(parents=True)
        (build_folder(db) / "plan.json").write_bytes(plan)
        assert built(create(db, FakeEncoder())).rows == len(DOCS)

    def test_restart_is_deprecated(self, db, index):
        with pytest.warns(DeprecationWarning, match="use resume=False"):
            create(db, FakeEncoder(), overwrite=True, restart=True)
        for write in (index.add, index.upsert):
            with pytest.warns(DeprecationWarning, match="use resume=False") as caught:
                write(corpus(1, write.__name__), restart=False)
            assert caught[0].filename == __file__
        with pytest.warns(DeprecationWarning, match="use resume=False"):
            index.rebuild(restart=True)

    def test_is_refused_where_another_table_is_there_by_then(self, db, monkeypatch):
        interrupted(monkeypatch, "encode 4", lambda encoder: create(db, encoder))
        create(db, FakeEncoder(), resume=False)
        with pytest.raises(TableExistsError):
            create(db, FakeEncoder())


class TestMerge:
    @pytest.mark.parametrize("how", ["add", "upsert"])
    @pytest.mark.parametrize(
        "point",
        [
            "encode 0",
            "encode 2",
            "chunk half written 1",
            "transaction 0",
            "transaction 1",
            "transaction 3",
            "committed",
        ],
    )
    def test_gives_the_same_rows_and_encodes_nothing_again(self, db, made_once, tmp_path, monkeypatch, how, point):
        documents = CHANGED if how == "upsert" else corpus(22, "n", year=lambda i: i)
        for folder in (db, tmp_path / "whole"):
            shutil.copytree(made_once / "plain", folder)
        getattr(Index.open(tmp_path / "whole", "t", encoder=FakeEncoder()), how)(documents)
        interrupted(monkeypatch, point, lambda e: getattr(Index.open(db, "t", encoder=e), how)(documents, resume=True))
        rows_by_id(db)
        done = done_texts(db, documents, merges=True)
        encoder = FakeEncoder()
        report = getattr(Index.open(db, "t", encoder=encoder), how)(documents, resume=True)
        assert comparable(stored(db), in_order=False) == comparable(stored(tmp_path / "whole"), in_order=False)
        assert not done & set(encoder.encoded)
        assert (report.rows, report.resumed) == (22, len(done))
        assert not (db / "t.tansaku" / "build").exists()

    @pytest.mark.parametrize("transactions", range(4))
    def test_documents_that_shrink_leave_no_passages_behind(self, db, made_once, monkeypatch, transactions):
        shutil.copytree(made_once / "passages", db)
        documents = essays(5, 1, "短")
        point = f"transaction {transactions}"
        try:
            interrupted(monkeypatch, point, lambda e: Index.open(db, "t", encoder=e).upsert(documents, resume=True))
        except pytest.fail.Exception:  # as many transactions are not needed
            return
        Index.open(db, "t", encoder=FakeEncoder()).upsert(documents, resume=True)
        found = [(row["parent_id"], row["text"]) for row in stored(db).to_pylist()]
        assert sorted(found) == [(document["id"], document["text"]) for document in documents]

    def test_stopped_before_what_is_stale_was_deleted(self, db, made_once, monkeypatch):
        shutil.copytree(made_once / "passages", db)
        documents = essays(5, 1, "短")
        with monkeypatch.context() as patch:
            patch.setattr(merge, "delete_rows", after(0, delete_rows))
            patch.setattr(Staging, "finish", after(0, Staging.finish))
            with pytest.raises(KilledError):
                Index.open(db, "t", encoder=FakeEncoder()).upsert(documents, resume=True)
        Index.open(db, "t", encoder=FakeEncoder()).upsert(documents, resume=True)
        assert len(stored(db)) == 5

    def test_what_others_deleted_of_a_document_meanwhile_comes_back_and_the_rest_stays(
        self, db, made_once, monkeypatch
    ):
        shutil.copytree(made_once / "passages", db)
        documents = essays(2, 4, "長")
        monkeypatch.undo()  # one transaction
        with monkeypatch.context() as patch:
            patch.setattr(Staging, "finish", after(0, Staging.finish))
            with pytest.raises(KilledError):
                Index.open(db, "t", encoder=FakeEncoder()).upsert(documents, resume=True)
        whole = comparable(stored(db), in_order=False)
        Index.open(db, "t", encoder=FakeEncoder()).delete(where="parent_id = 'e0' AND passage = 1")
        Index.open(db, "t", encoder=FakeEncoder()).upsert(documents, resume=True)
        assert comparable(stored(db), in_order=False) == whole

    def test_a_table_rebuilt_meanwhile_is_not_written_to(self, db, index):
        with pytest.raises(KilledError):
            Index.open(db, "t", encoder=encoder_that_stops(1)).upsert(CHANGED, resume=True)
        with filelock.FileLock(db / "t.tansaku" / "merge.lock"):  # as if by a machine that does not see the folder
            index.rebuild(nbits=4, resume=False)
        with pytest.raises(ResumeError, match="table was"):
            index.upsert(CHANGED, resume=True)
        index.upsert(CHANGED, resume=False)
        assert {len(r["residuals"]) // r["token_count"] for r in stored(db).to_pylist()} == {8}


class TestRebuild:
    @pytest.mark.parametrize(
        "point",
        [
            "encode 0",
            "codec written",
            "encode 2",
            "encode 5",
            "chunk half written 2",
            "rows streamed",
            "swapped",
            "committed",
        ],
    )
    def test_gives_the_same_rows_and_encodes_nothing_again(self, db, index, tmp_path, monkeypatch, point):
        index.add(corpus(3, "n"))
        index.delete(["d3", "d11"])
        shutil.copytree(db, tmp_path / "whole")
        before = [row["text"] for row in stored(db).to_pylist()]
        Index.open(tmp_path / "whole", "t", encoder=FakeEncoder()).rebuild(nbits=4)
        interrupted(monkeypatch, point, lambda e: Index.open(db, "t", encoder=e).rebuild(nbits=4, resume=True))
        left = Staging(db / "t.tansaku", resume=True)
        position, done = 0, set()
        for number in range(100):
            report = left.chunk_report(number)
            # A batch that is not there has as many rows as one of the scan, which may end with a fragment.
            if report is None:
                break
            done |= set(before[position : position + report["documents"]])
            position += report["documents"]
        encoder = FakeEncoder()
        report = Index.open(db, "t", encoder=encoder).rebuild(nbits=4, resume=True)
        assert comparable(stored(db)) == comparable(stored(tmp_path / "whole"))
        assert [row["text"] for row in stored(db).to_pylist()] == before
        assert not done & set(encoder.encoded)
        assert len(set(encoder.encoded)) == len(encoder.encoded)
        assert report.rows == len(before)
        assert not (db / "t.tansaku" / "build").exists()

    def test_what_others_wrote_just_before_the_swap_is_not_lost(self, db, index, monkeypatch):
        original = create_index_table

        def write_before_it(*args, **kwargs):
            index.add(corpus(2, "n"))
            index.upsert(corpus(1, salt="new"))
            index.delete(["d7"])
            original(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(rebuild, "create_index_table", write_before_it)
            stop_at(patch, "swapped")
            with pytest.raises(KilledError):
                Index.open(db, "t", encoder=FakeEncoder()).rebuild(resume=True)
        Index.open(db, "t", encoder=FakeEncoder()).rebuild(resume=True)
        found = rows_by_id(db)
        assert {"n0", "n1"} < set(found)
        assert found["d0"]["text"] == corpus(1, salt="new")[0]["text"]
        assert "d7" not in found

    def test_begins_anew_where_its_version_has_been_given_up(self, db, index, monkeypatch):
        from datetime import timedelta

        interrupted(monkeypatch, "encode 4", lambda e: Index.open(db, "t", encoder=e).rebuild(resume=True))
        index.upsert(corpus(2, salt="new"))
        index.optimize(timedelta(0))
        index.rebuild(resume=True)
        assert len(rows_by_id(db)) == len(DOCS)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import pytest
from fakes import *
from tansaku import Index
from tansaku.indexer.write import build_steps
from tansaku.indexer.write.staging import Staging

monkeypatch = pytest.MonkeyPatch()
small_chunks(monkeypatch, 4)
small_slices(monkeypatch)
build_steps._SAMPLE_ROWS = 6
encoder = FakeEncoder()
db, point = sys.argv[2:]
kill = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
if point == "create, encoding":
    encoder.before_encoding = lambda texts: kill() if len(encoder.encoded) > 14 else None
    Index.create(db, "t", corpus(22, year=lambda i: 1900 + i), encoder=encoder, resume=True)
elif point == "create, storing":
    progress = lambda stage, done, total, tokens: kill() if (stage, done) == ("commit", 12) else None
    Index.create(db, "t", corpus(22, year=lambda i: 1900 + i), encoder=encoder, resume=True, progress=progress)
"""


@pytest.mark.parametrize("point", ["create, encoding", "create, storing"])
def test_a_killed_process(db, made_once, point):
    ended = subprocess.run([sys.executable, "-c", KILLED, str(SUPPORT), str(db), point], check=False)
    assert ended.returncode == -signal.SIGKILL
    done = done_texts(db, DOCS)
    assert done
    encoder = FakeEncoder()
    create(db, encoder)
    assert comparable(stored(db)) == comparable(stored(made_once / "plain"))
    assert not done & set(encoder.encoded)


class TestLeftovers:
    def test_chunks_without_a_plan_are_never_used(self, db, made_once):
        """A kill while the folder is being removed may leave them."""
        with pytest.raises(KilledError):
            create(db, encoder_that_stops(6), corpus(22, "other"))
        (build_folder(db) / "plan.json").unlink()
        assert list(build_folder(db).glob("chunk-*"))
        create(db, FakeEncoder())
        assert comparable(stored(db)) == comparable(stored(made_once / "plain"))

    @pytest.mark.parametrize("resume", [True, False])
    def test_removal_that_is_cut_off_leaves_nothing_that_is_used(self, db, made_once, monkeypatch, resume):
        """Whatever the order in which files are removed: here the oldest half of them is gone, or the newest."""
        for newest in (False, True):
            with pytest.raises(KilledError):
                create(db, encoder_that_stops(6), corpus(22, "other"))

            def half(folder, newest=newest, **_how):
                files = sorted(Path(folder).iterdir(), key=lambda file: file.stat().st_mtime_ns, reverse=newest)
                for file in files[: len(files) // 2]:
                    file.unlink()
                raise KilledError

            with monkeypatch.context() as patch:
                patch.setattr(shutil, "rmtree", half)
                with pytest.raises(KilledError):
                    create(db, FakeEncoder(), corpus(22, "other"), resume=resume)
            try:
                create(db, FakeEncoder(), overwrite=True)
            except ResumeError:
                create(db, FakeEncoder(), overwrite=True, resume=False)
            assert comparable(stored(db)) == comparable(stored(made_once / "plain"))
            shutil.rmtree(db)

    def test_private_folders_of_dead_processes_are_removed_after_an_hour(self, db, index):
        side = db / "t.tansaku"
        side.mkdir(exist_ok=True)
        old = time.time() - 7200
        for name, when in {"work-dead": old, "work-young": time.time(), "work-alive": old}.items():
            (side / name).mkdir()
            (side / f"{name}.lock").touch()
            os.utime(side / f"{name}.lock", (when, when))
        with filelock.FileLock(side / "work-alive.lock"):
            os.utime(side / "work-alive.lock", (old, old))
            index.add(corpus(1, "n"))
            assert {path.name for path in side.glob("work-*") if path.is_dir()} == {"work-young", "work-alive"}
        assert not (side / "work-dead.lock").exists()

    @pytest.mark.parametrize("how", ["create", "rebuild"])
    def test_a_folder_in_use_is_left_alone(self, db, index, how):
        actions = {
            "create": lambda: create(db, FakeEncoder(), overwrite=True),
            "rebuild": lambda: index.rebuild(),
        }
        with Staging(db / "t.tansaku") as held:
            held.begin({"work": "other"})
            with pytest.raises(BusyError, match="another process"):
                actions[how]()
            assert (held.folder / "plan.json").exists()

    @pytest.mark.parametrize("resume", [True, False])
    @pytest.mark.parametrize("how", ["create", "add", "upsert", "rebuild"])
    def test_merges_and_calls_that_do_not_resume_go_on_beside_a_folder_in_use(self, db, index, how, resume):
        actions = {
            "create": lambda: create(db, FakeEncoder(), overwrite=True, resume=False),
            "add": lambda: index.add(corpus(1, "n"), resume=resume),
            "upsert": lambda: index.upsert(corpus(1, "n"), resume=resume),
            "rebuild": lambda: index.rebuild(resume=False),
        }
        with Staging(db / "t.tansaku", merges=how in ("add", "upsert")) as held:
            held.begin({"work": "other"})
            actions[how]()
            assert (held.folder / "plan.json").exists()
            left = {path.name for path in held.folder.parent.iterdir()}
            assert left <= {held.folder.name, f"{held.folder.name}.lock", "arrays"}

    def test_a_merge_at_work_holds_up_no_rebuild(self, db, index):
        encoder = FakeEncoder()
        encoder.before_encoding = lambda texts: index.rebuild() if texts == ["new"] else None
        with pytest.raises(WriteConflictError, match="replaced or rebuilt"):
            Index.open(db, "t", encoder=encoder).add([{"id": "x", "text": "new"}])
        assert built(index).rows == len(DOCS)

    @pytest.mark.parametrize("resume", [True, False])
    def test_an_interrupted_rebuild_neither_blocks_merges_nor_is_given_up_by_them(self, db, index, resume):
        with pytest.raises(KilledError):
            Index.open(db, "t", encoder=encoder_that_stops(3)).rebuild(nbits=4)
        done = done_texts(db, DOCS)
        index.add(corpus(2, "n"), resume=resume)
        index.upsert(corpus(1, "n", "new"), resume=resume)
        assert done_texts(db, DOCS) == done
        encoder = FakeEncoder()
        Index.open(db, "t", encoder=encoder).rebuild(nbits=4)
        assert not done & set(encoder.encoded)
        assert texts_by_id(db) == {d["id"]: d["text"] for d in [*DOCS, *corpus(2, "n"), *corpus(1, "n", "new")]}

    def test_others_may_remove_the_empty_folder_at_any_moment(self, tmp_path):
        side, stop = tmp_path / "t.tansaku", threading.Event()

        def leave():
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    side.rmdir()
                time.sleep(0.0003)

        other = threading.Thread(target=leave)
        other.start()
        try:
            for _ in range(300):
                with Staging(side, resume=False) as held:
                    assert held.folder.is_dir()
        finally:
            stop.set()
            other.join()

    def test_a_file_in_the_place_of_the_folder_is_named(self, tmp_path):
        (tmp_path / "t.tansaku").write_text("a file")
        with pytest.raises(StorageError, match=r"t\.tansaku"), Staging(tmp_path / "t.tansaku", resume=False):
            pass


class TestChangedWork:
    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"documents": DOCS[1:]}, "the documents have changed"),
            ({"documents": [*DOCS, {"id": "x", "text": "abc", "year": 1}]}, "the documents have changed"),
            ({"documents": [{**DOCS[0], "text": "abc"}, *DOCS[1:]]}, "the documents have changed"),
            ({"documents": [{**DOCS[0], "year": 1}, *DOCS[1:]]}, "the documents have changed"),
            ({"documents": [*DOCS[1:], DOCS[0]]}, "the documents have changed"),
            ({"documents": [{**DOCS[0], "height": 1.5}, *DOCS[1:]]}, "columns was"),
            ({"nbits": 4}, "nbits was 2 and is 4"),
            ({"passage_tokens": 9}, "passage_tokens was None and is 9"),
            ({"pool": 2}, "pool was 1 and is 2"),
            ({"overwrite": True}, "work was 'create' and is 'overwrite'"),
            ({"encoder": FakeEncoder("another")}, "model was"),
        ],
    )
    def test_is_refused_naming_the_change_and_may_begin_anew(self, db, made_once, changes, named):
        with pytest.raises(KilledError):
            create(db, encoder_that_stops(4))
        how = {"encoder": FakeEncoder(), **changes}
        with pytest.raises(ResumeError, match=named) as caught:
            create(db, **how)
        assert "--no-resume" in str(caught.value)
        assert done_texts(db, DOCS)
        if "pool" not in changes:
            made = create(db, **{**how, "resume": False})
            assert built(made).resumed == 0
            assert len(made) >= len(how.get("documents", DOCS))

    def test_is_refused_for_another_kind_of_work(self, db, index):
        with pytest.raises(KilledError):
            Index.open(db, "t", encoder=encoder_that_stops(1)).add(corpus(9, "n"), resume=True)
        with pytest.raises(ResumeError, match="work was 'append' and is 'upsert'"):
            index.upsert(corpus(9, "n"))
        for other in (index.rebuild, lambda: create(db, FakeEncoder(), overwrite=True)):
            with pytest.raises(ResumeError, match=r"interrupted append .* would be lost"):
                other()
        assert index.rebuild(resume=False).rows == len(DOCS)
        assert not (db / "t.tansaku" / "merge").exists()

    def test_a_rebuild_with_other_bits_is_refused(self, db, index):
        with pytest.raises(KilledError):
            Index.open(db, "t", encoder=encoder_that_stops(3)).rebuild(nbits=4, resume=True)
        with pytest.raises(ResumeError, match="nbits was 4 and is 2"):
            index.rebuild(resume=True)
        index.rebuild(resume=False)


@pytest.fixture(scope="module")
def half_done(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_chunks(monkeypatch, CHUNK)
        monkeypatch.setattr(build_steps, "_SAMPLE_ROWS", 6)
        folder = tmp_path_factory.mktemp("half_done") / "db"
        with pytest.raises(KilledError):
            create(folder, encoder_that_stops(5))
    return folder


class TestDamage:
    """What lies in the folder may have been cut or altered since."""

    @pytest.mark.parametrize("name", ["chunk-00000001.arrow", "codec.npz", "sample.arrow", "plan.json"])
    def test_is_noticed(self, db, half_done, made_once, name):
        content = (build_folder(half_done) / name).read_bytes()
        places = np.linspace(0, len(content) - 1, 5).astype(int).tolist()
        flipped = [content[:p] + bytes([content[p] ^ 0x11]) + content[p + 1 :] for p in places]
        for damaged in [b"", content[: len(content) // 2], content[:-1], *flipped]:
            shutil.copytree(half_done, db)
            (build_folder(db) / name).write_bytes(damaged)
            try:
                create(db, FakeEncoder())
            except IndexStateError:
                assert name == "plan.json"
                create(db, FakeEncoder(), resume=False)
            assert comparable(stored(db)) == comparable(stored(made_once / "plain"))
            shutil.rmtree(db)

    def test_every_bit_of_a_chunk_counts(self, half_done, made_once, tmp_path):
        """A flip that a chunk's reader does not see would come into the table."""
        folder = tmp_path / "side"
        shutil.copytree(half_done / "t.tansaku", folder)
        left = Staging(folder, resume=True)
        path = left.folder / "chunk-00000001.arrow"
        content = path.read_bytes()
        known = left.chunk_report(1)
        assert known is not None
        unseen = []
        for position in range(0, len(content), 23):
            path.write_bytes(content[:position] + bytes([content[position] ^ 0x11]) + content[position + 1 :])
            if left.chunk_report(1) is not None:
                unseen.append(position)
        assert not unseen

    def test_chunks_in_each_others_place_are_noticed(self, db, half_done, made_once):
        shutil.copytree(half_done, db)
        first, second = (build_folder(db) / f"chunk-0000000{n}.arrow" for n in (0, 1))
        contents = first.read_bytes(), second.read_bytes()
        second.write_bytes(contents[0])
        first.write_bytes(contents[1])
        create(db, FakeEncoder())
        assert comparable(stored(db)) == comparable(stored(made_once / "plain"))

    @pytest.mark.parametrize("name", ["chunk-00000001.arrow", "codec.npz", "sample.arrow"])
    def test_a_file_of_another_build_is_noticed(self, db, half_done, made_once, tmp_path, monkeypatch, name):
        other = tmp_path / "other"
        documents = corpus(len(DOCS), salt="other")
        interrupted(monkeypatch, "rows streamed", lambda e: create(other, e, documents))
        shutil.copytree(half_done, db)
        shutil.copy(build_folder(other) / name, build_folder(db) / name)
        create(db, FakeEncoder())
        assert comparable(stored(db)) == comparable(stored(made_once / "plain"))

    @pytest.mark.parametrize("damaged", [None, "cut", "swapped"])
    @pytest.mark.parametrize("calls", [1, 3])
    def test_the_sample_is_not_encoded_again(self, db, tmp_path, monkeypatch, calls, damaged):
        monkeypatch.setattr(build_steps, "_SAMPLE_ROWS", 14)
        create(tmp_path / "whole", FakeEncoder())
        first = encoder_that_stops(calls)
        with pytest.raises(KilledError):
            create(db, first)
        files = sorted(build_folder(db).glob("vectors-*.arrow"))
        assert len(files) == calls
        if damaged == "cut":
            files[0].write_bytes(files[0].read_bytes()[:-9])
        elif damaged:
            shutil.copy(files[-1], build_folder(db) / f"vectors-{calls:08d}.arrow")
        kept = first.encoded[CHUNK:] if damaged == "cut" else first.encoded
        encoder = FakeEncoder()
        create(db, encoder)
        assert sorted(encoder.encoded + kept) == sorted(document["text"] for document in DOCS)
        assert comparable(stored(db)) == comparable(stored(tmp_path / "whole"))
        assert not (db / "t.tansaku").exists()

    @pytest.mark.parametrize("resume", [True, False])
    def test_a_missing_codec_or_sample_is_made_again(self, db, half_done, made_once, resume):
        for name in ("codec.npz", "sample.arrow"):
            shutil.copytree(half_done, db)
            (build_folder(db) / name).unlink()
            create(db, FakeEncoder(), resume=resume)
            assert comparable(stored(db)) == comparable(stored(made_once / "plain"))
            shutil.rmtree(db)

    @pytest.mark.parametrize("how", ["add", "rebuild"])
    def test_a_damaged_plan_is_no_obstacle_to_other_work(self, db, index, how):
        folder = Staging(db / "t.tansaku", merges=how == "add").folder
        folder.mkdir(parents=True)
        (folder / "plan.json").write_text('{"write_id": 1, "pl', encoding="utf-8")
        if how == "add":
            index.add(corpus(2, "n"), resume=False)
        else:
            index.rebuild(resume=False)

    def test_a_full_disk_is_a_storage_error(self, db, index, monkeypatch):
        def full(*args, **kwargs):
            raise OSError(28, "No space left on device")

        for target, name in ((os, "fsync"), (Path, "write_text"), (pa, "OSFile"), (np, "savez")):
            with monkeypatch.context() as patch:
                patch.setattr(target, name, full)
                with contextlib.suppress(StorageError):
                    index.rebuild(resume=False)
        assert len(rows_by_id(db)) == len(DOCS)


def test_the_command_line_goes_on_by_itself(db, tmp_path, monkeypatch):
    """With the real encoder."""
    source = tmp_path / "docs.jsonl"
    lines = (SAMPLE / "corpus.jsonl").read_text(encoding="utf-8").splitlines()[:20]
    lines = [json.dumps({**json.loads(line), "text": json.loads(line)["text"][:30]}) for line in lines]
    source.write_text("\n".join(lines), encoding="utf-8")
    command = ["index", str(source), "--db", str(db), "--table", "t", "--threads", "1"]
    calls, stop = [], 3
    original = RowMaker.vectors

    def counted(self, documents, note=None):
        if len(calls) == stop:
            raise KilledError
        calls.append(len(documents))
        return original(self, documents, note)

    with monkeypatch.context() as patch:
        patch.setattr(RowMaker, "vectors", counted)
        with pytest.raises(KilledError):
            CliRunner().invoke(app, command, catch_exceptions=False)
    done = sum(calls)
    calls, stop = [], None
    monkeypatch.setattr(RowMaker, "vectors", counted)
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert sum(calls) == 20 - done
    monkeypatch.undo()
    Index.create(db, "whole", [json.loads(line) for line in lines], encoder=Encoder.load())
    ids = stored(db)["id"].to_pylist()
    assert ids == stored(db, "whole")["id"].to_pylist()
