"""A database from elsewhere, or that others may change: links, pipes, locks that are held, files of other users."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import threading
import time
import zlib
from datetime import timedelta

import filelock
import numpy as np
import pyarrow as pa
import pytest

from tansaku import BusyError, Index, InputError, Searcher, Source, SourceError, StorageError
from tansaku.indexer.derived import array_files
from tansaku.indexer.plain_files import check_plain, only_ours, open_plain
from tansaku.indexer.write import build_steps
from tansaku.indexer.write.staging import Staging, left_work

from ..support.fakes import FakeEncoder, KilledError, after, corpus, small_chunks

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no links and pipes that anyone may make"),
]

DOCS = corpus(20)
SIDE_FOLDERS = ("t.tansaku", "t.tansaku/arrays", "t.tansaku/arrays/segment-*", "t.tansaku/build")
SIDE_FILES = (
    "t.tansaku/arrays/arrays.json",
    "t.tansaku/arrays/arrays.lock",
    "t.tansaku/arrays/segment-*/postings.npy",
    "t.tansaku/build/plan.json",
    "t.tansaku/build/chunk-*.arrow",
)
TABLE_FOLDERS = ("t.lance", "t.lance/data", "t.lance/_versions", "t.codec.lance")
TABLE_FILES = ("t.lance/_versions/*.manifest", "t.lance/data/*.lance", "t.codec.lance/_versions/*.manifest")
USES = {
    "search": lambda db: Searcher.open(db, "t", encoder=FakeEncoder()),
    "search the table": lambda db: Searcher.open(db, "t", encoder=FakeEncoder(), derived=False),
    "info": lambda db: opened(db).info(),
    "check": lambda db: opened(db).check(),
    "add": lambda db: opened(db).add(corpus(3, "n")),
    "rebuild": lambda db: opened(db).rebuild(resume=False),
    "optimize": lambda db: opened(db).optimize(timedelta(0)),
    "drop": lambda db: Index.drop(db, "t"),
    "overwrite": lambda db: Index.create(db, "t", DOCS, encoder=FakeEncoder(), overwrite=True, resume=False),
}
CASES = [
    (where, use)
    for places, uses in (
        (SIDE_FOLDERS + SIDE_FILES, set(USES) - {"optimize"}),  # which leaves the side folder alone
        (TABLE_FOLDERS, set(USES)),
    )
    for where in places
    for use in sorted(uses)
]


def opened(db):
    return Index.open(db, "t", encoder=FakeEncoder())


@pytest.fixture(autouse=True)
def _in_small_chunks(monkeypatch):
    in_small_chunks(monkeypatch)


def in_small_chunks(monkeypatch):
    small_chunks(monkeypatch, 4)
    monkeypatch.setattr(build_steps, "_SAMPLE_ROWS", 6)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An index with derived arrays, and with the work of an interrupted rebuild."""
    db = tmp_path_factory.mktemp("made") / "db"
    with pytest.MonkeyPatch.context() as monkeypatch:
        in_small_chunks(monkeypatch)
        Index.create(db, "t", DOCS, encoder=FakeEncoder())
        Searcher.open(db, "t", encoder=FakeEncoder())
        encoder = FakeEncoder()
        encoder.before_encoding = after(4, lambda texts: None)
        with pytest.raises(KilledError):
            Index.open(db, "t", encoder=encoder).rebuild()
    return db


@pytest.fixture
def db(made, tmp_path):
    return shutil.copytree(made, tmp_path / "db")


def only(db, pattern):
    return min(db.glob(pattern))


def contents(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestLinks:
    @pytest.mark.parametrize(("where", "use"), CASES)
    def test_are_not_followed_and_what_they_lead_to_stays(self, db, tmp_path, where, use):
        path, elsewhere = only(db, where), tmp_path / "elsewhere"
        elsewhere.mkdir()
        shutil.move(path, elsewhere / path.name)
        path.symlink_to(elsewhere / path.name)
        before = contents(elsewhere)
        with pytest.raises(StorageError, match=r"a link.*not followed.*remove it") as refused:
            USES[use](db)
        assert str(path) in str(refused.value)
        assert contents(elsewhere) == before
        assert path.is_symlink()

    def test_that_lead_nowhere_are_refused_too(self, db, tmp_path):
        (db / "t.tansaku" / "build.lock").symlink_to(tmp_path / "made")
        with pytest.raises(StorageError, match=r"build\.lock: a link"):
            USES["rebuild"](db)
        assert not (tmp_path / "made").exists()

    def test_are_refused_where_a_table_is_made(self, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        for name in ("t.tansaku", "t.lance", "t.codec.lance"):
            db = tmp_path / f"db of {name}"
            db.mkdir()
            (db / name).symlink_to(tmp_path / "elsewhere")
            with pytest.raises(StorageError, match="a link"):
                Index.create(db, "t", DOCS, encoder=FakeEncoder())
        assert not list((tmp_path / "elsewhere").iterdir())

    def test_may_stand_for_the_database_and_for_files_of_the_table(self, db, tmp_path):
        """As a cache of downloads has them: nothing is written through them."""
        for path in list((db / "t.lance").rglob("*.*")):
            if path.is_file():
                shutil.move(path, tmp_path / path.name)
                path.symlink_to(tmp_path / path.name)
        (tmp_path / "linked").symlink_to(db)
        before = contents(tmp_path)
        assert len(Searcher.open(tmp_path / "linked", "t", encoder=FakeEncoder()).search("0", k=30)) == 20
        opened(tmp_path / "linked").delete(["d1"])
        opened(tmp_path / "linked").optimize(timedelta(0))
        after_all = contents(tmp_path)
        assert all(after_all[path] == content for path, content in before.items() if f"{db}/" not in path)


class TestPipes:
    @pytest.mark.parametrize("make", ["pipe", "socket"])
    @pytest.mark.parametrize("where", SIDE_FILES + TABLE_FILES)
    def test_are_refused_at_once(self, db, where, make):
        path = only(db, where)
        path.unlink()
        if make == "pipe":
            os.mkfifo(path)
        else:
            bind(path)
        for use in ("search", "info", "check", "rebuild"):
            with pytest.raises(StorageError, match="a pipe, a socket or a device") as refused:
                USES[use](db)
            assert str(path) in str(refused.value)

    def test_that_come_after_the_check_are_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "link").symlink_to(__file__)
        for name in ("pipe", "link", "."):
            with pytest.raises(OSError, match=r"."):
                open_plain(tmp_path / name)

    def test_a_link_to_a_device_is_no_linked_file(self, tmp_path):
        (tmp_path / "zero").symlink_to("/dev/zero")
        with pytest.raises(StorageError, match="a link"):
            check_plain(tmp_path, linked_files=True)


class TestLocks:
    """Held by a process that never ends."""

    @pytest.fixture
    def held(self, db):
        with filelock.FileLock(db / "t.tansaku" / "arrays" / "arrays.lock"):
            yield

    @pytest.mark.usefixtures("held")
    def test_are_not_needed_to_read_what_is_up_to_date(self, db, monkeypatch):
        monkeypatch.setattr(array_files, "_MAPPED", 0)
        monkeypatch.setattr(filelock, "FileLock", None)
        searcher = Searcher.open(db, "t", encoder=FakeEncoder())
        assert are_mapped(searcher)
        assert len(searcher.search("0", k=30)) == 20

    @pytest.mark.usefixtures("held")
    def test_are_waited_for_as_long_as_is_said_then_arrays_are_in_memory(self, db, monkeypatch):
        opened(db).delete(["d3"])
        monkeypatch.setenv("TANSAKU_LOCK_SECONDS", "0.05")
        monkeypatch.setattr(array_files, "_MAPPED", 0)
        searcher = Searcher.open(db, "t", encoder=FakeEncoder())
        assert not are_mapped(searcher)
        assert len(searcher.search("0", k=30)) == 19

    @pytest.mark.usefixtures("held")
    def test_are_named_by_a_check(self, db, monkeypatch):
        monkeypatch.setenv("TANSAKU_LOCK_SECONDS", "0.05")
        with pytest.raises(BusyError, match=r"arrays\.lock: .*longer than 0.05 s.*TANSAKU_LOCK_SECONDS"):
            opened(db).check()

    def test_are_named_by_a_build_which_does_not_wait(self, db, tmp_path):
        with (
            filelock.FileLock(db / "t.tansaku" / "build.lock"),
            pytest.raises(BusyError, match=r"build\.lock: .*wait until it ends.*TANSAKU_LOCK_SECONDS"),
        ):
            opened(db).rebuild()

    def test_are_waited_for_by_a_build_if_that_is_said(self, db, monkeypatch):
        monkeypatch.setenv("TANSAKU_LOCK_SECONDS", "60")
        lock, got = filelock.FileLock(db / "t.tansaku" / "build.lock", thread_local=False), threading.Event()
        lock.acquire()
        waiting = threading.Thread(target=lambda: (opened(db).rebuild(), got.set()))
        waiting.start()
        time.sleep(0.2)
        assert not got.is_set()
        lock.release()
        waiting.join()
        assert got.is_set()

    @pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "soon"])
    def test_are_waited_for_a_number_of_seconds(self, db, monkeypatch, seconds):
        monkeypatch.setenv("TANSAKU_LOCK_SECONDS", seconds)
        with pytest.raises(InputError, match="TANSAKU_LOCK_SECONDS"):
            opened(db).rebuild()

    def test_can_be_opened_and_so_held_by_their_owner_only(self, db):
        shutil.rmtree(db / "t.tansaku")
        Searcher.open(db, "t", encoder=FakeEncoder())
        lock = db / "t.tansaku" / "arrays" / "arrays.lock"
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600


class TestFilesOfOthers:
    @pytest.mark.parametrize(
        ("user", "mode", "ours"), [(1, 0o644, True), (0, 0o644, True), (2, 0o644, False), (1, 0o664, False)]
    )
    def test_are_those_that_others_can_change(self, monkeypatch, user, mode, ours):
        monkeypatch.setattr(os, "geteuid", lambda: 1)
        status = os.stat_result((stat.S_IFREG | mode, 0, 0, 1, user, 0, 0, 0, 0, 0))
        assert only_ours(status) is ours

    def test_are_read_and_not_mapped(self, db, monkeypatch):
        monkeypatch.setattr(array_files, "_MAPPED", 0)
        assert are_mapped(Searcher.open(db, "t", encoder=FakeEncoder()))
        for path in (db / "t.tansaku" / "arrays").rglob("*.npy"):
            path.chmod(0o666)
        searcher = Searcher.open(db, "t", encoder=FakeEncoder())
        assert not are_mapped(searcher)
        assert len(searcher.search("0", k=30)) == 20

    def test_are_never_made_whatever_the_system_allows(self, db):
        before = os.umask(0)
        try:
            shutil.rmtree(db / "t.tansaku")
            Searcher.open(db, "t", encoder=FakeEncoder())
        finally:
            os.umask(before)
        made = [path for path in (db / "t.tansaku" / "arrays").glob("segment-*/*.npy") if path.name != "deleted.npy"]
        assert made
        assert not [path for path in made if path.stat().st_mode & 0o022]

    def test_a_forged_chunk_with_a_fitting_checksum_is_not_used(self, db):
        """Offsets beyond the values would be read out of bounds."""
        staging = Staging(db / "t.tansaku")
        path = only(db, "t.tansaku/build/chunk-*.arrow")
        content = bytearray(path.read_bytes()[:-4])
        ids = pa.ipc.open_file(pa.py_buffer(bytes(content))).read_all()["id"].chunk(0)
        offsets = ids.buffers()[1].to_pybytes()[: 4 * (len(ids) + 1)]
        at = content.index(offsets)
        content[at + 4 : at + 8] = np.int32(2**30).tobytes()
        number = int(path.stem.split("-")[1])
        assert staging.chunk_report(number) is not None
        path.write_bytes(bytes(content) + zlib.crc32(content).to_bytes(4, "little"))
        assert staging.chunk_report(number) is None

    def test_a_forged_codec_is_not_used(self, db):
        staging = Staging(db / "t.tansaku")
        path = only(db, "t.tansaku/build/codec.npz")
        assert staging.load_codec() is not None
        with np.load(path) as stored:
            changed = {name: stored[name] for name in stored.files}
        for name, value in (("groups", changed["groups"] * 1_000), ("centroids", changed["centroids"] * np.nan)):
            np.savez(path, **{**changed, name: value})
            assert staging.load_codec() is None

    def test_what_is_left_is_named(self, db):
        assert left_work(db / "t.tansaku") is not None


def are_mapped(searcher):
    return all(isinstance(segment.centroid_ids, np.memmap) for _, segment in searcher._codes.segments)


def bind(path):
    """A socket in the place of a file; its full path may be too long for one."""
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize("name", ["docs.jsonl", "notes.unknown", "state.json", "t.lance/_versions/1.manifest"])
def test_a_pipe_in_a_folder_of_sources_is_refused_at_once(tmp_path, name):
    Index.create(tmp_path, "t", DOCS, encoder=FakeEncoder())
    (tmp_path / "more").mkdir()
    shutil.move(tmp_path / "t.lance", tmp_path / "more" / "t.lance")
    os.mkfifo(tmp_path / "more" / name)
    with pytest.raises(SourceError, match="a pipe, a socket or a device") as refused:
        list(Source(tmp_path / "more"))
    assert str(tmp_path / "more" / name) in str(refused.value)


def test_a_linked_dataset_is_read(tmp_path):
    Index.create(tmp_path / "db", "t", DOCS, encoder=FakeEncoder())
    (tmp_path / "linked.lance").symlink_to(tmp_path / "db" / "t.lance")
    assert len(list(Source(tmp_path / "linked.lance"))) == len(DOCS)
