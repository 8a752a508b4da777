"""An index that changes while others read it and write to it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
import unicodedata
from collections import Counter
from datetime import timedelta
from typing import Any, ClassVar

import lancedb
import pyarrow as pa
import pytest

from tansaku import (
    BusyError,
    DeleteReport,
    Encoder,
    Index,
    IndexStateError,
    InputError,
    NotAnIndexError,
    Searcher,
    StorageError,
    TableExistsError,
    TableNotFoundError,
    WriteConflictError,
)
from tansaku.indexer.table import changes, table
from tansaku.indexer.table.codec_table import load_codec
from tansaku.indexer.table.database import connect
from tansaku.indexer.table.table import create_index_table, open_index_table
from tansaku.indexer.write import rebuild

from ..support.fakes import (
    MOUNT,
    FakeEncoder,
    comparable,
    corpus,
    exhaustive,
    fill,
    rows_by_id,
    run_twice_at_once,
    small_chunks,
    small_slices,
    stored,
    texts_by_id,
)

pytestmark = pytest.mark.integration

DOCS = corpus(12, year=lambda i: 1900 + i)
QUERY = FakeEncoder().vectors("0123456789abcdef"[::2])
NOW = timedelta(0)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made_once")
    Index.create(folder / "plain", "t", DOCS, encoder=FakeEncoder())
    Index.create(folder / "passages", "t", essays({0: 3, 1: 2, 2: 1}), encoder=FakeEncoder(), passage_tokens=8)
    return folder


@pytest.fixture
def db(tmp_path):
    return tmp_path / "db"


@pytest.fixture
def index(db, made_once):
    shutil.copytree(made_once / "plain", db)
    return opened(db)


@pytest.fixture
def divided(db, made_once):
    shutil.copytree(made_once / "passages", db)
    return opened(db)


def opened(db):
    return Index.open(db, "t", encoder=FakeEncoder())


def essays(sentences, salt=""):
    """Documents of so many sentences, each of them a passage."""
    return [
        {"id": f"e{i}", "text": "".join(f"{salt[:1]}第{i}章{k}番。" for k in range(n))} for i, n in sentences.items()
    ]


def passages(db):
    """Texts by parent; whatever is stored of a document must be one version of it, complete."""
    found: dict[str, list] = {}
    for row in sorted(stored(db).to_pylist(), key=lambda row: (row["parent_id"], row["passage"])):
        found.setdefault(row["parent_id"], []).append((row["passage"], row["text"], row["write_id"]))
    for parent, rows in found.items():
        assert [number for number, _, _ in rows] == list(range(len(rows))), f"{parent} has a gap: {rows}"
        assert len({write_id for _, _, write_id in rows}) == 1, f"{parent} is of two writes: {rows}"
    return {parent: "".join(text for _, text, _ in rows) for parent, rows in found.items()}


def hits(searcher):
    return {hit.id: hit.score for hit in searcher.search_vectors(QUERY, 2000)}


def right(db):
    return pytest.approx(dict(exhaustive(db, QUERY)), abs=1e-5)


def in_threads(*actions):
    """Run all at once; their results, or the errors they raised."""
    results: list[Any] = [None] * len(actions)
    together = threading.Barrier(len(actions))

    def run(position, action):
        together.wait()
        try:
            results[position] = action()
        except Exception as error:
            results[position] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(actions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


WRITES = {
    "add": lambda index: index.add(corpus(2, "n")),
    "upsert": lambda index: index.upsert(corpus(3, salt="new")),
    "delete": lambda index: index.delete(["d1", "d2"]),
    "where": lambda index: index.delete(where="year < 1903"),
    "rebuild": lambda index: index.rebuild(nbits=4),
    "overwrite": lambda index: Index.create(
        index._database, "t", corpus(5, "o"), encoder=index.encoder, overwrite=True, nbits=1, resume=False
    ),
    "several": lambda index: (index.add(corpus(2, "n")), index.upsert(corpus(2, salt="x")), index.delete(["d5"])),
}


class TestReaders:
    @pytest.mark.parametrize("derived", [True, False])
    @pytest.mark.parametrize("write", WRITES)
    def test_see_a_change_when_they_refresh(self, db, index, write, derived):
        searcher = Searcher.open(db, "t", encoder=FakeEncoder(), derived=derived)
        before, version = hits(searcher), searcher.version
        WRITES[write](index)
        assert (hits(searcher), searcher.version) == (before, version)
        assert searcher.refresh()
        assert hits(searcher) == right(db)
        assert searcher.version > version
        assert not searcher.refresh()

    @pytest.mark.parametrize("derived", [True, False])
    @pytest.mark.parametrize("write", WRITES)
    def test_recover_when_their_version_is_given_up(self, db, index, write, derived):
        searcher = Searcher.open(db, "t", encoder=FakeEncoder(), derived=derived)
        WRITES[write](index)
        opened(db).optimize(NOW)
        assert len(lancedb.connect(str(db)).open_table("t").list_versions()) == 1
        assert hits(searcher) == right(db)

    def test_an_index_object_goes_on_after_a_rebuild_and_an_overwrite_by_others(self, db, index):
        opened(db).rebuild(nbits=4)
        index.add(corpus(1, "n"))
        WRITES["overwrite"](index)
        index.add(corpus(1, "n"))
        assert {len(row["residuals"]) // row["token_count"] for row in stored(db).to_pylist()} == {2}
        assert hits(Searcher.open(db, "t", encoder=FakeEncoder())) == right(db)

    def test_a_dropped_table_is_said_to_be_missing(self, db, index):
        searcher = Searcher.open(db, "t", encoder=FakeEncoder())
        lancedb.connect(str(db)).drop_table("t")
        for action in (searcher.refresh, lambda: index.add(DOCS), lambda: index.delete(["a"]), index.optimize):
            with pytest.raises(TableNotFoundError):
                action()

    def test_row_ids_are_stable(self, db, index):
        def row_ids():
            rows = lancedb.connect(str(db)).open_table("t").search().with_row_id(True).to_arrow()
            return dict(zip(rows["id"].to_pylist(), rows["_rowid"].to_pylist(), strict=True))

        before = row_ids()
        index.upsert(corpus(5, salt="new"))
        index.add(corpus(2, "n"))
        index.delete(["d7"])
        index.optimize(NOW)
        after = row_ids()
        assert {key: after[key] for key in before if key != "d7"} == {k: v for k, v in before.items() if k != "d7"}

    def test_many_read_while_many_write(self, db, index):
        """Each search is right for the version that it was made on."""
        stop = time.monotonic() + 2
        texts = {row["id"]: {row["text"]} for row in DOCS}
        for salt in "abcdefgh":
            for row in corpus(12, salt=salt):
                texts[row["id"]].add(row["text"])

        def write(salts):
            while time.monotonic() < stop:
                for salt in salts:
                    opened(db).upsert(corpus(12, salt=salt))

        def tidy():
            while time.monotonic() < stop:
                opened(db).optimize(timedelta(seconds=1))
                time.sleep(0.3)

        def read(derived):
            searcher = Searcher.open(db, "t", encoder=FakeEncoder(), derived=derived)
            n = 0
            while time.monotonic() < stop:
                found = searcher.search_vectors(QUERY, 20)
                assert sorted(hit.id for hit in found) == sorted(texts)
                for hit in found:
                    assert hit.text in texts[hit.id]
                searcher.refresh()
                n += 1
            return n

        results = in_threads(
            lambda: write("abcd"), lambda: write("efgh"), tidy, lambda: read(True), lambda: read(False)
        )
        assert results[:3] == [None, None, None]
        assert all(isinstance(n, int) and n for n in results[3:]), results


class TestWritersAtOnce:
    def test_disjoint_adds_all_arrive(self, db, index):
        results = in_threads(
            *(lambda n=n: [opened(db).add(corpus(2, f"w{n}-{k}-")) for k in range(3)] for n in range(4))
        )
        assert not [r for r in results if isinstance(r, Exception)]
        assert len(rows_by_id(db)) == 12 + 4 * 3 * 2

    def test_of_equal_adds_one_arrives_whole_and_the_others_not_at_all(self, db, index):
        def add(n):
            # An id of its own: after an error none of the documents may be there.
            return opened(db).add([*corpus(3, "same", salt=str(n)), {"id": f"own{n}", "text": "abc"}])

        for _ in range(3):
            results = in_threads(*(lambda n=n: add(n) for n in range(4)))
            failed = [n for n, r in enumerate(results) if isinstance(r, Exception)]
            assert len(failed) == 3
            assert all(isinstance(results[n], (WriteConflictError, InputError)) for n in failed)
            (winner,) = set(range(4)) - set(failed)
            found = texts_by_id(db)
            assert {key for key in found if key.startswith("own")} == {f"own{winner}"}
            assert found["same0"] == corpus(1, "same", salt=str(winner))[0]["text"]
            index.delete(where="id LIKE 'same%' OR id LIKE 'own%'")

    def test_upserts_of_the_same_ids_leave_each_document_once(self, db, index):
        results = in_threads(
            *(lambda n=n: [opened(db).upsert(corpus(14, salt=f"{n}{k}")) for k in range(3)] for n in range(3))
        )
        assert not [r for r in results if isinstance(r, Exception)]
        written = [{d["id"]: d["text"] for d in corpus(14, salt=f"{n}{k}")} for n in range(3) for k in range(3)]
        assert texts_by_id(db) in written

    def test_deletes_beside_upserts(self, db, index):
        ids = [d["id"] for d in DOCS]
        results = in_threads(
            *(lambda n=n: [opened(db).upsert(corpus(12, salt=f"{n}{k}")) for k in range(3)] for n in range(2)),
            *(lambda: [opened(db).delete(ids[::2]) for _ in range(4)] for _ in range(2)),
        )
        assert not [r for r in results if isinstance(r, Exception)]
        assert set(ids[1::2]) <= set(rows_by_id(db)) <= set(ids)
        assert hits(Searcher.open(db, "t", encoder=FakeEncoder())) == right(db)

    def test_processes(self, db, index):
        script = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from fakes import *\n"
            "from tansaku import Index\n"
            "for k in range(4):\n"
            "    index = Index.open(sys.argv[2], 't', encoder=FakeEncoder())\n"
            "    index.add(corpus(2, f'{sys.argv[3]}-{k}-'))\n"
            "    index.upsert(corpus(12, salt=sys.argv[3]))\n"
        )
        assert run_twice_at_once(script, db) == [0, 0]
        found = texts_by_id(db)
        assert len(found) == 12 + 2 * 4 * 2
        assert {key: found[key] for key in found if key[0] == "d"} in [
            {d["id"]: d["text"] for d in corpus(12, salt=salt)} for salt in ("a", "b")
        ]

    @pytest.mark.parametrize("keep", [timedelta(0), timedelta(seconds=1)])
    def test_writers_hold_out_while_versions_are_given_up(self, db, index, keep):
        stop = time.monotonic() + 2

        def write(n):
            for k in range(1000):
                if time.monotonic() > stop:
                    return k
                opened(db).add(corpus(2, f"w{n}-{k}-"))
                opened(db).upsert(corpus(4, salt=f"{n}{k}"))
                assert opened(db).delete([f"w{n}-{k}-1"]).missing == []
            return 1000

        def tidy():
            while time.monotonic() < stop:
                opened(db).optimize(keep)

        *added, tidied = in_threads(lambda: write(0), lambda: write(1), tidy)
        assert tidied is None
        assert all(isinstance(n, int) for n in added), added
        assert len(rows_by_id(db)) == 12 + sum(added)


class TestStaleWriters:
    """One that has the table open when it is made anew: nothing it does may come into the new one."""

    @pytest.mark.parametrize("how", ["add", "upsert", "delete", "where", "optimize"])
    @pytest.mark.parametrize("meanwhile", ["overwrite", "rebuild", "drop and create"])
    def test_are_refused(self, db, index, monkeypatch, how, meanwhile):
        original, done = changes._latest, []

        def latest(opened_index):
            found = original(opened_index)
            if not done:
                done.append(True)
                if meanwhile == "drop and create":
                    lancedb.connect(str(db)).drop_table("t")
                    Index.create(db, "t", corpus(5, "o"), encoder=FakeEncoder(), nbits=4)
                else:
                    WRITES[meanwhile](opened(db))
            return found

        monkeypatch.setattr(changes, "_latest", latest)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        action = WRITES.get(how, lambda index: index.optimize(NOW))
        with pytest.raises((WriteConflictError, StorageError)):
            action(index)
        monkeypatch.undo()
        found = stored(db)
        assert len(found) == (12 if meanwhile == "rebuild" else 5)
        assert "n0" not in found["id"].to_pylist()
        assert hits(Searcher.open(db, "t", encoder=FakeEncoder())) == right(db)

    def test_are_refused_where_the_connection_follows_the_table_by_itself(self, db, index, monkeypatch):
        following = lancedb.connect(str(db), read_consistency_interval=timedelta(0))
        original, done = changes._latest, []

        def latest(opened_index):
            found = original(opened_index)
            if not done:
                done.append(True)
                WRITES["overwrite"](opened(db))
            return found

        monkeypatch.setattr(changes, "_latest", latest)
        with pytest.raises(WriteConflictError):
            Index.open(following, "t", encoder=FakeEncoder()).upsert(corpus(3, salt="new"))
        assert {len(row["residuals"]) // row["token_count"] for row in stored(db).to_pylist()} == {2}

    def test_never_mix_codes_of_two_codecs(self, db, index, monkeypatch):
        """After a conflict LanceDB tries a merge again by itself, on a table that may have been made anew since."""
        other = db.parent / "other"
        Index.create(other, "t", DOCS, encoder=FakeEncoder(), nbits=4)
        remade, its_rows = open_index_table(connect(other), "t"), stored(other)

        def overwrite():
            create_index_table(
                connect(db),
                "t",
                its_rows.schema,
                remade.codec,
                remade.fit,
                its_rows.to_batches(),
                overwrite=True,
                note_rows=lambda rows: None,
            )

        for delay in (0.01, 0.02, 0.05):  # LanceDB waits longer than that before it tries again
            Index.create(db, "t", DOCS, encoder=FakeEncoder(), overwrite=True)
            stale, rows = open_index_table(connect(db), "t"), stored(db)
            later = threading.Timer(delay, overwrite)

            def batches(rows=rows, later=later):
                yield from rows.to_batches()
                opened(db).upsert(corpus(12, salt="new"))  # a conflict after which LanceDB tries again
                later.start()

            with contextlib.suppress(WriteConflictError):
                reader = pa.RecordBatchReader.from_batches(rows.schema, batches())
                ready = iter([reader])
                monkeypatch.setattr(changes, "_ready", lambda rows, first=ready: next(first, rows))
                changes.merge_rows(stale, rows, update=True)
            monkeypatch.undo()
            later.join()
            width = opened(db)._now().codec.residual_bytes
            assert {len(row["residuals"]) // row["token_count"] for row in stored(db).to_pylist()} == {width}


class TestCreators:
    def test_of_many_one_succeeds_and_the_others_say_why_not(self, tmp_path):
        for trial in range(5):
            db = tmp_path / f"db{trial}"
            results = in_threads(
                *(
                    lambda n=n, db=db: Index.create(db, "t", corpus(6, f"w{n}-"), encoder=FakeEncoder(), resume=False)
                    for n in range(4)
                )
            )
            made = [n for n, result in enumerate(results) if isinstance(result, Index)]
            assert len(made) == 1, results
            assert all(isinstance(r, (Index, TableExistsError)) for r in results), results
            assert set(rows_by_id(db)) == {f"w{made[0]}-{k}" for k in range(6)}
            assert len(opened(db)) == 6
            assert hits(Searcher.open(db, "t", encoder=FakeEncoder())) == right(db)

    def test_of_many_that_would_resume_each_is_made_or_told_that_another_is_at_work(self, tmp_path):
        db, once_more = tmp_path / "db", corpus(6, "w")
        results = in_threads(*[lambda: Index.create(db, "t", once_more, encoder=FakeEncoder())] * 4)
        assert any(isinstance(r, Index) for r in results), results
        assert all(isinstance(r, (Index, BusyError, TableExistsError)) for r in results), results
        assert set(rows_by_id(db)) == {f"w{k}" for k in range(6)}

    @pytest.mark.parametrize("existed", [False, True])
    def test_of_many_overwrites_one_stays(self, tmp_path, existed):
        for trial in range(3):
            db = tmp_path / f"db{trial}"
            if existed:
                Index.create(db, "t", DOCS, encoder=FakeEncoder())
            results = in_threads(
                *(
                    lambda n=n, db=db: Index.create(
                        db, "t", corpus(6, f"w{n}-"), encoder=FakeEncoder(), overwrite=True, resume=False
                    )
                    for n in range(4)
                )
            )
            assert all(isinstance(r, (Index, WriteConflictError)) for r in results), results
            assert any(isinstance(r, Index) for r in results), results
            found = set(rows_by_id(db))
            assert found in [{f"w{n}-{k}" for k in range(6)} for n, r in enumerate(results) if isinstance(r, Index)]
            assert len(opened(db)) == 6

    def test_a_codec_that_comes_a_moment_after_its_table_is_waited_for(self, db, index, monkeypatch):
        load, calls = load_codec, []

        def late(*args):
            calls.append(args)
            return load(args[0], args[1], "0" * 16 if len(calls) < 3 else args[2])

        monkeypatch.setattr(table, "load_codec", late)
        assert len(opened(db)) == 12
        calls.clear()
        monkeypatch.setattr(table, "load_codec", lambda *args: load(args[0], args[1], "0" * 16))
        with pytest.raises(NotAnIndexError, match="copy both tables together"):
            opened(db)

    @pytest.mark.parametrize("same_documents", [False, True])
    def test_one_that_fails_leaves_the_codec_of_another(self, db, monkeypatch, same_documents):
        original = table.write_stream
        stored_both, failed = threading.Barrier(2, timeout=20), threading.Event()

        def write(*args):
            stored_both.wait()
            if threading.current_thread().name == "failing":
                raise OSError(28, "No space left on device")
            failed.wait(20)
            original(*args)

        monkeypatch.setattr(table, "write_stream", write)

        def fail():
            threading.current_thread().name = "failing"
            try:
                Index.create(db, "t", DOCS, encoder=FakeEncoder(), resume=False)
            finally:
                failed.set()

        documents = DOCS if same_documents else corpus(12, "other")
        error, made = in_threads(fail, lambda: Index.create(db, "t", documents, encoder=FakeEncoder(), resume=False))
        assert isinstance(error, StorageError)
        assert isinstance(made, Index), made
        assert len(opened(db)) == 12


class TestRebuild:
    @pytest.mark.parametrize("when", ["encoding", "before the swap", "in the stream", "after the swap"])
    @pytest.mark.parametrize("tidied", [False, True])
    def test_takes_over_what_is_written_meanwhile(self, db, index, monkeypatch, when, tidied):
        if tidied and when == "encoding":
            pytest.skip("the rows to be encoded are then gone")

        def write():
            writer = opened(db)
            writer.add([*corpus(2, "n", year=lambda i: i), {"id": "gone", "text": "abc"}])
            writer.upsert(corpus(1, salt="new", year=lambda i: 3))
            writer.delete(["d5", "d9", "gone"])
            writer.add([{"id": "d9", "text": "again"}])
            lancedb.connect(str(db)).open_table("t").update(where="id = 'd7'", values={"year": 7})
            if tidied:
                writer.optimize(NOW)

        self.rebuild_with(db, monkeypatch, when, write)
        monkeypatch.undo()
        expected = {d["id"]: (d["text"], d["year"]) for d in DOCS if d["id"] != "d5"}
        expected |= {"n0": (corpus(2, "n")[0]["text"], 0), "n1": (corpus(2, "n")[1]["text"], 1)}
        expected |= {"d0": (corpus(1, salt="new")[0]["text"], 3), "d9": ("again", None)}
        expected |= {"d7": (expected["d7"][0], 7)}
        assert {key: (row["text"], row["year"]) for key, row in rows_by_id(db).items()} == expected
        assert {len(row["residuals"]) // row["token_count"] for row in stored(db).to_pylist()} == {8}
        assert hits(Searcher.open(db, "t", encoder=FakeEncoder())) == right(db)

    @pytest.mark.parametrize("when", ["encoding", "before the swap", "in the stream"])
    @pytest.mark.parametrize("other", ["overwrite", "rebuild and add", "drop", "drop and create"])
    def test_gives_way_to_one_that_makes_the_table_anew(self, db, index, monkeypatch, when, other):
        def write():
            if other == "overwrite":
                WRITES["overwrite"](opened(db))
            elif other == "rebuild and add":
                opened(db).rebuild(nbits=1, resume=False)
                opened(db).add(corpus(2, "n"))
            else:
                lancedb.connect(str(db)).drop_table("t")
                if other == "drop and create":
                    Index.create(db, "t", corpus(5, "o"), encoder=FakeEncoder(), resume=False)

        with pytest.raises(IndexStateError):
            self.rebuild_with(db, monkeypatch, when, write)
        monkeypatch.undo()
        if other == "drop":
            with pytest.raises(TableNotFoundError):
                opened(db)
        else:
            assert len(rows_by_id(db)) == (14 if other == "rebuild and add" else 5)

    @staticmethod
    def rebuild_with(db, monkeypatch, when, write):
        done = []

        def once():
            if not done:
                done.append(True)
                with pytest.MonkeyPatch.context() as others:
                    for name, function in original.items():
                        others.setattr(rebuild, name, function)
                    write()

        original = {
            name: getattr(rebuild, name) for name in ("create_index_table", "_caught_up", "_apply_later_changes")
        }
        encoder = FakeEncoder()

        def first(name):
            def function(*args, **kwargs):
                once()
                return original[name](*args, **kwargs)

            return function

        def stream(*args, **kwargs):
            for batch in original["_caught_up"](*args, **kwargs):
                yield batch
                once()

        if when == "encoding":
            encoder.before_encoding = lambda texts: once()
        elif when == "before the swap":
            monkeypatch.setattr(rebuild, "create_index_table", first("create_index_table"))
        elif when == "in the stream":
            monkeypatch.setattr(rebuild, "_caught_up", stream)
        else:
            monkeypatch.setattr(rebuild, "_apply_later_changes", first("_apply_later_changes"))
        small_chunks(monkeypatch)
        Index.open(db, "t", encoder=encoder).rebuild(nbits=4)
        assert done

    def test_keeps_what_others_write_just_after_the_swap(self, db, index, monkeypatch):
        """It has changes from before the swap to apply then, and those are older."""
        original_create, original_apply = create_index_table, rebuild._apply_later_changes

        def create(*args, **kwargs):
            opened(db).upsert([{"id": "d0", "text": "older"}, {"id": "n", "text": "older"}])
            original_create(*args, **kwargs)

        def apply(*args):
            opened(db).upsert([{"id": "d0", "text": "newer"}, {"id": "m", "text": "newer"}])
            original_apply(*args)

        monkeypatch.setattr(rebuild, "create_index_table", create)
        monkeypatch.setattr(rebuild, "_apply_later_changes", apply)
        index.rebuild()
        found = texts_by_id(db)
        assert (found["d0"], found["n"], found["m"]) == ("newer", "older", "newer")

    def test_keeps_ids_text_and_columns(self, db, index):
        before = {k: (r["title"], r["text"], r["year"]) for k, r in rows_by_id(db).items()}
        order = stored(db)["id"].to_pylist()
        report = index.rebuild(nbits=4)
        assert {k: (r["title"], r["text"], r["year"]) for k, r in rows_by_id(db).items()} == before
        assert stored(db)["id"].to_pylist() == order
        assert (report.rows, index.info().nbits) == (12, 4)

    def test_of_an_empty_index_is_refused(self, db, index):
        index.delete(where="true")
        with pytest.raises(InputError, match="empty"):
            index.rebuild()
        index.add(DOCS)
        assert hits(Searcher.open(db, "t", encoder=FakeEncoder())) == right(db)


class TestPassages:
    def test_a_document_shrinks_and_grows_in_one_step(self, db, divided):
        seen = set()
        watcher = lancedb.connect(str(db)).open_table("t")
        divided.upsert(essays({0: 1, 2: 4}, "新"))
        expected = {d["id"]: d["text"] for d in essays({1: 2}) + essays({0: 1, 2: 4}, "新")}
        assert passages(db) == expected
        watcher.checkout_latest()
        for version in watcher.list_versions():
            watcher.checkout(version["version"])
            seen.add(len(watcher.to_arrow()))
        assert seen == {6, 7}

    def test_each_document_is_replaced_in_one_step_where_transactions_are_many(self, db, divided, monkeypatch):
        small_chunks(monkeypatch, 2)
        small_slices(monkeypatch)
        divided.upsert(essays({0: 1, 1: 5, 2: 3, 3: 2}, "新"))
        versions = lancedb.connect(str(db)).open_table("t").list_versions()
        assert len(versions) > 3
        for version in versions:
            at_version = lancedb.connect(str(db)).open_table("t")
            at_version.checkout(version["version"])
            writes: dict[str, set] = {}
            for row in at_version.to_arrow().to_pylist():
                writes.setdefault(row["parent_id"], set()).add(row["write_id"])
            assert all(len(found) == 1 for found in writes.values()), version
        assert passages(db) == {d["id"]: d["text"] for d in essays({0: 1, 1: 5, 2: 3, 3: 2}, "新")}

    def test_are_deleted_by_the_documents_id(self, db, divided):
        report = divided.delete(["e0", "e2", "e9", "e1#99"])
        assert (report.rows, report.missing) == (4, ["e9", "e1#99"])
        assert set(passages(db)) == {"e1"}
        assert divided.info().documents == 1

    def test_upserts_at_once_leave_one_version_of_each(self, db, divided):
        written = [{i: 1 + (i + n) % 4 for i in range(5)} for n in range(4)]
        results = in_threads(*(lambda n=n: opened(db).upsert(essays(written[n], str(n))) for n in range(4)))
        assert not [r for r in results if isinstance(r, Exception)]
        found = passages(db)
        assert found in [{d["id"]: d["text"] for d in essays(written[n], str(n))} for n in range(4)]

    def test_upserts_at_once_lose_nothing_where_transactions_are_many(self, db, divided, monkeypatch):
        small_chunks(monkeypatch, 2)
        small_slices(monkeypatch)
        written = [{i: 1 + (i + n) % 4 for i in range(5)} for n in range(3)]
        results = in_threads(*(lambda n=n: opened(db).upsert(essays(written[n], str(n))) for n in range(3)))
        assert not [r for r in results if isinstance(r, Exception)]
        found = passages(db)
        assert set(found) == {f"e{i}" for i in range(5)}
        for i in range(5):
            assert found[f"e{i}"] in [essays({i: written[n][i]}, str(n))[0]["text"] for n in range(3)]

    def test_adds_of_one_document_at_once_do_not_mix(self, db, divided):
        lengths = (1, 4, 2, 5)
        for _ in range(3):
            results = in_threads(
                *(lambda n=n, k=k: opened(db).add(essays({7: k}, str(n))) for n, k in enumerate(lengths))
            )
            assert sum(not isinstance(r, Exception) for r in results) == 1, results
            assert passages(db)["e7"] in [essays({7: k}, str(n))[0]["text"] for n, k in enumerate(lengths)]
            divided.delete(["e7"])

    def test_an_add_that_others_forestall_leaves_nothing_of_itself(self, db, divided):
        encoder = FakeEncoder()

        def forestall(texts):
            encoder.before_encoding = lambda texts: None
            opened(db).add(essays({7: 1}, "先"))

        encoder.before_encoding = forestall
        with pytest.raises(WriteConflictError):
            Index.open(db, "t", encoder=encoder).add(essays({7: 4, 8: 1}, "後"))
        found = passages(db)
        assert found["e7"] == essays({7: 1}, "先")[0]["text"]
        assert "e8" not in found


class TestIds:
    ODD = ("it's", 'a"b', "a\\b", "%", "日本", "a b", "x'; --", "0", "null", "😀", "a\nb", "#0", "a#0", "\\'")

    def test_may_hold_anything(self, db, index):
        documents = [{"id": doc_id, "text": "abc"} for doc_id in self.ODD]
        index.add(documents)
        with pytest.raises(InputError, match="in the index already"):
            index.add(documents[3:4])
        assert index.upsert([{**d, "text": "abcd"} for d in documents]).updated == len(self.ODD)
        assert {texts_by_id(db)[doc_id] for doc_id in self.ODD} == {"abcd"}
        report = index.delete([*self.ODD, "miss'ing"])
        assert (report.rows, report.missing) == (len(self.ODD), ["miss'ing"])
        assert len(index) == 12

    @pytest.mark.parametrize("tokens", [None, 4])
    def test_are_compared_exactly_in_every_unicode_form(self, db, tokens):
        composed, decomposed = (unicodedata.normalize(form, "がぎ") for form in ("NFC", "NFD"))
        both = [{"id": composed, "text": "abc"}, {"id": decomposed, "text": "def"}]
        index = Index.create(db, "t", both[:1], encoder=FakeEncoder(), passage_tokens=tokens)
        index.add(both[1:])
        assert index.upsert([{"id": decomposed, "text": "ghi"}]).updated == 1
        index.rebuild()
        searcher = Searcher.open(db, "t", encoder=FakeEncoder())
        for doc_id, text in ((composed, "abc"), (decomposed, "ghi")):
            (hit,) = searcher.search(text, ids=[doc_id])
            assert hit.text == text
            assert searcher.search(text, where=f"{index._now().header.document_id_field} = '{doc_id}'")[0] == hit
            assert [document.text for document in searcher.read([doc_id]) if document] == [text]
            assert searcher.score(text, [doc_id]) > 0
        assert index.delete([composed]).rows == 1
        assert index.delete([composed, decomposed]) == DeleteReport(1, [composed])

    def test_of_passages_delete_passages_and_are_counted_as_documents_and_rows(self, db):
        documents = [{"id": "a", "text": "abcd. efgh. ijkl."}, {"id": "b", "text": "mnop. qrst."}]
        index = Index.create(db, "t", documents, encoder=FakeEncoder(), passage_tokens=5)
        written = index.last_build
        assert written is not None
        assert (written.rows, written.documents, written.passages) == (5, 2, True)
        tried = index.delete(["a#1", "b", "c#0"], dry_run=True)
        assert (tried.rows, tried.documents, tried.missing) == (3, 2, ["c#0"])
        tried = index.delete(where="passage >= 1", dry_run=True)
        assert (tried.rows, tried.documents) == (3, 2)
        report = index.delete(["a#1", "b", "c#0"])
        assert (report.rows, report.documents, report.missing) == (3, 2, ["c#0"])
        assert sorted(document["id"] for document in index.documents()) == ["a#0", "a#2"]
        report = index.delete(where="passage >= 1")
        assert (report.rows, report.documents) == (1, 1)
        rebuilt = index.rebuild()
        assert (rebuilt.rows, rebuilt.documents) == (1, 1)

    def test_twice_in_one_call_are_refused(self, index):
        with pytest.raises(InputError, match="occurs twice"):
            index.upsert([*DOCS, DOCS[3]])

    def test_deleted_may_come_again(self, db, index):
        index.delete(["d0"])
        index.add(corpus(1, salt="again"))
        assert texts_by_id(db)["d0"] == corpus(1, salt="again")[0]["text"]
        assert hits(Searcher.open(db, "t", encoder=FakeEncoder())) == right(db)

    def test_given_as_integers_and_twice_count_once(self, index):
        index.add([{"id": 7, "text": "abc"}])
        assert index.delete([7, "7", 7]).rows == 1  # type: ignore[list-item]
        assert index.delete([]).rows == 0


class TestConditions:
    @pytest.mark.parametrize("where", ["nope = 1", "year <", "year", "1", "id > 5", "conflict = 1", "id IN (SELECT 1)"])
    def test_that_cannot_be_used_are_refused(self, db, index, where):
        with pytest.raises(InputError, match=r"the condition cannot be used: .*at character"):
            index.delete(where=where)
        assert len(index) == 12

    @pytest.mark.parametrize(
        ("where", "said"),
        [("year = 1900; year > 0", "semicolon"), ("true" + "=true" * 1000, "not expected here")],
    )
    def test_that_lancedb_would_cut_or_die_of_are_refused(self, index, where, said):
        with pytest.raises(InputError, match=said):
            index.delete(where=where)
        assert len(index) == 12

    @pytest.mark.parametrize(
        "how",
        [
            {"where": ""},
            {"where": " \n"},
            {"where": {"year": 1900}},
            {},
            {"ids": ["d1"], "where": "true"},
            {"ids": "d1"},
            {"ids": [None]},
            {"ids": [["d1"]]},
        ],
    )
    def test_that_are_missing_or_doubled_are_refused(self, index, how):
        with pytest.raises(InputError):
            index.delete(**how)
        assert len(index) == 12

    @pytest.mark.parametrize(
        ("where", "left"),
        [("year < 1906", 6), ("year IS NULL", 12), ("id = 'it''s'", 12), ("year=1900 OR id='d1'", 10)],
    )
    def test_delete_what_they_describe(self, db, index, where, left):
        assert index.delete(where=where).rows == 12 - left
        assert len(rows_by_id(db)) == left
        assert hits(Searcher.open(db, "t", encoder=FakeEncoder())) == right(db)


class TestColumns:
    def test_of_all_kinds_survive_every_change(self, db):
        fields = {"s": "京都", "b": True, "f": 0.5, "l": ["a", "b"], "at": {"lat": 1.5, "name": "x"}, "raw": b"\0\xff"}
        documents = [{**d, **fields} for d in corpus(6)]
        index = Index.create(db, "t", documents, encoder=FakeEncoder())
        index.upsert([{**documents[0], "l": [], "at": None}, {"id": "d1", "text": "abc"}])
        index.add([{**fields, "id": "n", "text": "abc"}])
        index.optimize(NOW)
        index.rebuild()
        found = {key: {name: row[name] for name in fields} for key, row in rows_by_id(db).items()}
        assert found["d0"] == {**fields, "l": [], "at": None}
        assert found["d1"] == dict.fromkeys(fields)
        assert found["n"] == found["d5"] == fields
        (hit,) = [hit for hit in Searcher.open(db, "t", encoder=FakeEncoder()).search("abc") if hit.id == "n"]
        assert hit.fields == fields

    @pytest.mark.parametrize("how", ["add", "upsert"])
    @pytest.mark.parametrize("field", [{"year": "MCM"}, {"year": 1.5}, {"write_id": 3}, {"token_count": 3}])
    def test_that_do_not_fit_are_refused(self, db, index, how, field):
        before = stored(db)
        with pytest.raises(InputError):
            getattr(index, how)([{"id": "x", "text": "abc"}, {"id": "y", "text": "abc", **field}])
        assert stored(db).equals(before)

    def test_changed_by_plain_lancedb_are_searched_at_once_and_survive_a_rebuild(self, db, index):
        searcher = Searcher.open(db, "t", encoder=FakeEncoder())
        before = hits(searcher)
        lancedb.connect(str(db)).open_table("t").update(where="year < 1903", values={"year": 5})
        assert searcher.refresh()
        assert hits(searcher) == before
        assert sorted(hit.fields["year"] for hit in searcher.search_vectors(QUERY, 20))[:4] == [5, 5, 5, 1903]
        index.rebuild()
        assert Counter(row["year"] for row in rows_by_id(db).values())[5] == 3

    def test_pooling_goes_for_later_documents_too(self, db):
        pytest.importorskip("scipy")
        index = Index.create(db, "t", DOCS, encoder=FakeEncoder(), pool=2)
        index.add(corpus(7, "n"))
        index.upsert(corpus(7, salt="new"))
        index.rebuild()
        expected = {key: 1 + max(1, (len(text) - 1) // 2) for key, text in texts_by_id(db).items()}
        assert {key: row["token_count"] for key, row in rows_by_id(db).items()} == expected


class TestOptimize:
    def test_merges_fragments_and_gives_up_versions(self, db, index):
        for n in range(4):
            index.add(corpus(1, f"n{n}-"))
        before = comparable(stored(db))
        report = index.optimize(NOW)
        assert (report.fragments_before, report.fragments_after) == (5, 1)
        assert report.versions_removed >= 4
        assert comparable(stored(db)) == before
        assert index.optimize(NOW).versions_removed == 0

    def test_keeps_young_versions_and_refuses_a_negative_age(self, db, index):
        index.add(corpus(1, "n"))
        assert index.optimize().versions_removed == 0
        with pytest.raises(InputError, match="negative"):
            index.optimize(timedelta(-1))


class TestFailures:
    ACTIONS: ClassVar = {
        "create": lambda db, resume: Index.create(db, "u", corpus(600, "u"), encoder=FakeEncoder(), resume=resume),
        "add": lambda db, resume: opened(db).add(corpus(600, "n"), resume=resume),
        "upsert": lambda db, resume: opened(db).upsert(corpus(600, salt="new"), resume=resume),
        "rebuild": lambda db, resume: opened(db).rebuild(resume=resume),
    }

    @pytest.mark.parametrize("action", ACTIONS)
    def test_a_full_disk(self, small_disk, action):
        db = small_disk / "db"
        Index.create(db, "t", corpus(400), encoder=FakeEncoder())
        before = stored(db)
        for left in (0, 16_384, 65_536):
            for resume in (False, True):
                fill(small_disk, left)
                with pytest.raises(StorageError, match="No space left"):
                    self.ACTIONS[action](db, resume)
                assert stored(db).equals(before)
                assert not list(db.glob("*.tansaku/work-*"))
        (small_disk / "filler").unlink()
        self.ACTIONS[action](db, True)
        if action != "create":
            assert hits(Searcher.open(db, "t", encoder=FakeEncoder())) == right(db)
            assert len(rows_by_id(db)) == {"add": 1000, "upsert": 600, "rebuild": 400}[action]

    def test_a_read_only_disk(self, small_disk):
        db = small_disk / "db"
        Index.create(db, "t", DOCS, encoder=FakeEncoder())
        subprocess.run([MOUNT, "-o", "remount,ro", str(small_disk)], check=True)
        for action in self.ACTIONS.values():
            for resume in (False, True):
                with pytest.raises(StorageError, match="Read-only"):
                    action(db, resume)
        with pytest.raises(StorageError):
            opened(db).delete(["d1"])
        with pytest.raises(StorageError):
            Index.create(small_disk / "new", "t", DOCS, encoder=FakeEncoder())
        assert hits(Searcher.open(db, "t", encoder=FakeEncoder())) == right(db)
        assert hits(Searcher.open(db, "t", encoder=FakeEncoder(), derived=False)) == right(db)


def test_with_the_real_encoder(db):
    encoder = Encoder.load(threads=1)
    index = Index.create(
        db, "t", [{"id": "a", "text": "京都は古い都だ。"}, {"id": "b", "text": "海は塩辛い。"}], encoder=encoder
    )
    searcher = Searcher.open(db, "t", encoder=encoder)
    index.upsert([{"id": "b", "text": "富士山は日本一高い。"}, {"id": "c", "text": "猫は夜に目が見える。"}])
    index.delete(["a"])
    assert [hit.id for hit in searcher.search("日本で一番高い山は？", 1)]
    searcher.refresh()
    assert searcher.search("日本で一番高い山は？", 1)[0].id == "b"
    index.rebuild()
    index.optimize(NOW)
    assert searcher.search("夜でも見える動物", 1)[0].id == "c"
