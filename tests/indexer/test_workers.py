"""Builds in several processes: the same rows, whatever happens to the processes."""

from __future__ import annotations

import socket
from concurrent.futures import Future

import pytest

from tansaku import Index, InputError, OnProcesses, Rejects, WorkerError
from tansaku.indexer.write import build_steps
from tansaku.indexer.write.staging import Staging
from tansaku.indexer.write.workers.jobs import VectorsJob
from tansaku.indexer.write.workers.pool import Pool, Unit, Worker

from ..support.fakes import (
    FakeEncoder,
    KilledError,
    MortalEncoder,
    after,
    built,
    comparable,
    corpus,
    noted_in,
    small_chunks,
    stored,
    texts_by_id,
)

pytestmark = pytest.mark.integration

DOCS = corpus(22, year=lambda i: 1900 + i)
TWO = OnProcesses(2)


@pytest.fixture(autouse=True)
def _in_small_pieces(monkeypatch):
    small_chunks(monkeypatch, 4)
    monkeypatch.setattr(build_steps, "_SAMPLE_ROWS", 6)


@pytest.fixture
def here(tmp_path):
    """The database of a build in this process."""
    Index.create(tmp_path / "here", "t", DOCS, encoder=FakeEncoder())
    return tmp_path / "here"


@pytest.fixture
def encoder(tmp_path):
    return MortalEncoder(tmp_path / "log")


def test_rows_are_those_of_a_local_build(tmp_path, here, encoder):
    index = Index.create(tmp_path / "db", "t", DOCS, encoder=encoder, on=TWO)
    assert comparable(stored(tmp_path / "db")) == comparable(stored(here))
    assert built(index) == built(Index.create(tmp_path / "again", "t", DOCS, encoder=FakeEncoder()))
    assert sorted(encoder.encoded_elsewhere) == sorted(document["text"] for document in DOCS)  # each once
    assert not encoder.encoded


@pytest.mark.parametrize("options", [{"passage_tokens": 5}, {"fulltext": True, "nbits": 4}], ids=str)
def test_options_of_a_build(tmp_path, encoder, options):
    Index.create(tmp_path / "a", "t", DOCS, encoder=FakeEncoder(), **options)
    Index.create(tmp_path / "b", "t", DOCS, encoder=encoder, on="processes", **options)
    assert comparable(stored(tmp_path / "a")) == comparable(stored(tmp_path / "b"))


@pytest.mark.slow
def test_add_and_upsert(tmp_path, here, encoder):
    changed = corpus(3, salt="new", year=lambda i: i) + corpus(5, "n", year=lambda i: i)
    indexes = Index.open(here, "t", encoder=FakeEncoder()), Index.open(here, "t", encoder=encoder)
    assert indexes[1].add(changed[3:], on=TWO).rows == 5
    assert indexes[1].upsert(changed, on=TWO).updated == 8
    found = stored(here)
    indexes[0].upsert(changed)
    assert comparable(found, in_order=False) == comparable(stored(here), in_order=False)


@pytest.mark.slow
def test_a_build_that_is_interrupted_continues(tmp_path, here, encoder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Staging, "write_chunk", after(2, Staging.write_chunk))
        with pytest.raises(KilledError):
            Index.create(tmp_path / "db", "t", DOCS, encoder=encoder, on=TWO)
    done = encoder.encoded_elsewhere
    index = Index.create(tmp_path / "db", "t", DOCS, encoder=encoder, on=TWO)
    assert built(index).resumed == 8
    assert comparable(stored(tmp_path / "db")) == comparable(stored(here))
    assert len(encoder.encoded_elsewhere) - len(DOCS) <= 3 * 4  # what two workers had begun, and what had come back
    assert done


@pytest.mark.slow
def test_a_process_that_ends_is_replaced(tmp_path, here):
    (tmp_path / "once").touch()
    encoder = MortalEncoder(tmp_path / "log", once=tmp_path / "once")
    index = Index.create(tmp_path / "db", "t", DOCS, encoder=encoder, on=TWO)
    assert comparable(stored(tmp_path / "db")) == comparable(stored(here))
    assert built(index).rejected == 0


@pytest.mark.slow
def test_a_document_that_ends_its_process_is_rejected(tmp_path):
    documents = [*DOCS[:13], {"id": "deadly", "text": "a!b", "year": 1}, *DOCS[13:]]
    encoder = MortalEncoder(tmp_path / "log", deadly="!")
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        index = Index.create(tmp_path / "db", "t", documents, encoder=encoder, on=TWO, rejects=rejects)
    (noted,) = noted_in(rejects)
    assert noted["record"]["id"] == "deadly"
    assert "'deadly' ended each of 2 workers" in noted["reason"]
    assert built(index).rejected == 1
    assert texts_by_id(tmp_path / "db") == {document["id"]: document["text"] for document in DOCS}


@pytest.mark.slow
def test_without_rejects_it_is_an_error(tmp_path):
    encoder = MortalEncoder(tmp_path / "log", deadly=DOCS[1]["text"])
    with pytest.raises(InputError, match="document 'd1' ended each of 2 workers"):
        Index.create(tmp_path / "db", "t", DOCS[:2], encoder=encoder, on=OnProcesses(1))


def test_workers_that_always_end_are_an_error(tmp_path):
    with pytest.raises(WorkerError, match="ended while it was loading the model"):
        Index.create(tmp_path / "db", "t", DOCS, encoder=Stillborn(tmp_path / "log"), on=TWO)


class Stillborn(MortalEncoder):
    """Ends its process when it is loaded there."""

    def elsewhere(self, threads):
        return _end


def _end():
    import os

    os._exit(3)


@pytest.mark.parametrize("on", ["cluster", None, 2])
def test_an_unknown_place_is_refused(tmp_path, on):
    with pytest.raises(InputError, match="use 'local', 'processes', 'ray'"):
        Index.create(tmp_path / "db", "t", DOCS, encoder=FakeEncoder(), on=on)
    assert not (tmp_path / "db").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}"])
def test_a_cluster_where_nothing_listens_is_named_at_once(address):
    ray_cluster = pytest.importorskip("tansaku.indexer.write.workers.ray_cluster")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        ray_cluster.check_listens(address.format(port=port))
    ray_cluster.check_listens("auto")


class Instant(Worker):
    """A worker whose work is done at once, or who never begins."""

    def __init__(self, problem=None):
        self.started = Future()
        if problem is None:
            self.started.set_result(None)
        self.problem = problem

    def submit(self, job, chunks):
        done = Future()
        done.set_result(len(chunks))
        return done

    def close(self):
        pass


class InstantPool(Pool):
    deaths = ()

    def __init__(self, workers):
        super().__init__(len(workers), 1, 16)
        self.workers = list(workers)

    def hire(self):
        return self.workers.pop(0)


def test_a_worker_that_cannot_begin_is_left_out_while_others_work(caplog):
    late = Instant(WorkerError("another version"))
    with InstantPool([Instant(), late]) as pool:
        done = pool.run(VectorsJob(), [Unit([]), Unit([]), Unit([])])
        next(done)
        late.started.set_result(late.problem)
        assert len(list(done)) == 2
    assert "one worker less: another version" in caplog.text
    assert pool.count == 1


def test_the_last_worker_that_cannot_begin_is_an_error():
    worker = Instant(WorkerError("another version"))
    worker.started.set_result(worker.problem)
    with pytest.raises(WorkerError, match="another version"):
        InstantPool([worker]).__enter__()
