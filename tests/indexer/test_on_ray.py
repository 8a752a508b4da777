"""Builds on a Ray cluster of this machine: the same rows, one commit, and nothing lost whatever dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import lance
import lancedb
import pytest
from typer.testing import CliRunner

from tansaku import Encoder, Index, OnRay, Rejects, Searcher, StorageError, WorkerError, WriteConflictError
from tansaku.indexer.table import fragments
from tansaku.indexer.write import build_steps
from tansaku.indexer.write.staging import Staging
from tansaku.indexer.write.workers import on_ray, ray_cluster
from tansaku.plugin.cli.main import app

from ..support.fakes import (
    SUPPORT,
    FakeEncoder,
    KilledError,
    MortalEncoder,
    after,
    built,
    comparable,
    corpus,
    noted_in,
    rows_by_id,
    small_chunks,
    stored,
    texts_by_id,
)
from . import test_object_store

pytestmark = [pytest.mark.integration, pytest.mark.slow]
ray = pytest.importorskip("ray")

running, store = test_object_store.running, test_object_store.store  # the fixtures
DOCS = corpus(60, year=lambda i: 1900 + i)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two CPUs of this machine. Ray's sockets need a short path."""
    folder = tempfile.mkdtemp(prefix="ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT.parents[1]), os.environ.get("PYTHONPATH", "")]))
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        yield
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _in_small_pieces(cluster, monkeypatch):
    small_chunks(monkeypatch, 4)
    monkeypatch.setattr(build_steps, "_SAMPLE_ROWS", 6)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    """Tables of local builds."""
    folder = tmp_path_factory.mktemp("made_once")
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_chunks(monkeypatch, 4)
        monkeypatch.setattr(build_steps, "_SAMPLE_ROWS", 6)
        Index.create(folder, "t", DOCS, encoder=FakeEncoder())
    return folder


@pytest.fixture
def encoder(tmp_path):
    return MortalEncoder(tmp_path / "log")


def fragments_of(db):
    return len(lance.dataset(db / "t.lance").get_fragments())


def test_rows_are_those_of_a_local_build(tmp_path, made_once, encoder):
    index = Index.create(tmp_path / "db", "t", DOCS, encoder=encoder, on="ray")
    assert comparable(stored(tmp_path / "db")) == comparable(stored(made_once))
    assert len(index) == built(index).rows == len(DOCS)
    assert Counter(encoder.encoded_elsewhere) == Counter(document["text"] for document in DOCS)
    assert not encoder.encoded
    assert len(lancedb.connect(str(tmp_path / "db")).open_table("t").list_versions()) == 1
    assert 2 <= fragments_of(tmp_path / "db") < 15  # fewer than chunks
    assert not (tmp_path / "db" / "t.tansaku").exists()
    assert not list((tmp_path / "db").glob(".tansaku*"))
    assert index.optimize().fragments_after == 1
    assert index.check().rows == len(DOCS)
    assert Searcher.open(tmp_path / "db", "t", encoder=FakeEncoder()).search(DOCS[7]["text"], k=1)[0].id == "d7"


@pytest.mark.parametrize("options", [{"passage_tokens": 5}, {"fulltext": True, "nbits": 4}], ids=str)
def test_options_of_a_build(tmp_path, encoder, options):
    Index.create(tmp_path / "a", "t", DOCS, encoder=FakeEncoder(), **options)
    Index.create(tmp_path / "b", "t", DOCS, encoder=encoder, on=OnRay(actors=(1, 2)), **options)
    assert comparable(stored(tmp_path / "a")) == comparable(stored(tmp_path / "b"))


def test_overwrite_append_and_upsert(tmp_path, made_once, encoder):
    db = tmp_path / "db"
    Index.create(db, "t", corpus(5, "old"), encoder=FakeEncoder())
    index = Index.create(db, "t", DOCS, encoder=encoder, overwrite=True, on="ray")
    assert comparable(stored(db)) == comparable(stored(made_once))
    assert index.add(corpus(9, "n", year=lambda i: i), on="ray").rows == 9
    assert index.upsert(corpus(12, "n", salt="new", year=lambda i: i), on="ray").updated == 9
    assert index.add([{"id": "x", "text": "abc", "place": "奈良"}], on="ray").rows == 1  # with a new column
    local = Index.open(made_once, "t", encoder=FakeEncoder())
    expected = {**texts_by_id(made_once), **{d["id"]: d["text"] for d in corpus(12, "n", salt="new")}, "x": "abc"}
    assert texts_by_id(db) == expected
    assert len(local) == len(DOCS)
    assert index.optimize().fragments_after == 1
    assert texts_by_id(db) == expected


def test_the_same_ids_added_meanwhile_are_a_conflict(tmp_path, made_once, encoder, monkeypatch):
    shutil.copytree(made_once, tmp_path / "db")
    index = Index.open(tmp_path / "db", "t", encoder=encoder)
    other = Index.open(tmp_path / "db", "t", encoder=FakeEncoder())
    original = fragments.commit_fragments

    def commit(*given):
        other.add([{"id": "n1", "text": "first", "year": 1}])
        return original(*given)

    monkeypatch.setattr(fragments, "commit_fragments", commit)
    with pytest.raises(WriteConflictError, match="another writer added 1 of these rows"):
        index.add(corpus(3, "n", year=lambda i: i), on="ray")
    assert rows_by_id(tmp_path / "db")["n1"]["text"] == "first"
    assert len(index) == len(DOCS) + 1


def test_a_build_that_is_interrupted_continues(tmp_path, made_once, encoder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Staging, "write_fragments", after(2, Staging.write_fragments))
        with pytest.raises(KilledError):
            Index.create(tmp_path / "db", "t", DOCS, encoder=encoder, on="ray")
    before = len(encoder.encoded_elsewhere)
    index = Index.create(tmp_path / "db", "t", DOCS, encoder=encoder, on="ray")
    assert built(index).resumed >= 8
    assert comparable(stored(tmp_path / "db")) == comparable(stored(made_once))
    assert len(encoder.encoded_elsewhere) - before < len(DOCS)


@pytest.mark.parametrize("appends", [False, True], ids=["create", "add"])
def test_a_build_that_is_interrupted_after_its_commit_commits_once(tmp_path, made_once, encoder, appends, monkeypatch):
    """Lance would take the same fragments twice."""
    if appends:
        shutil.copytree(made_once, tmp_path / "db")

    def write():
        if appends:
            Index.open(tmp_path / "db", "t", encoder=encoder).add(corpus(9, "n", year=lambda i: i), on="ray")
        else:
            Index.create(tmp_path / "db", "t", DOCS, encoder=encoder, on="ray")

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "finish", after(0, Staging.finish))
        with pytest.raises(KilledError):
            write()
    before = len(encoder.encoded_elsewhere)
    write()
    assert len(encoder.encoded_elsewhere) == before
    assert len(rows_by_id(tmp_path / "db")) == len(DOCS) + 9 * appends


def test_a_fragment_that_is_gone_is_written_again(tmp_path, made_once, encoder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Staging, "write_fragments", after(2, Staging.write_fragments))
        with pytest.raises(KilledError):
            Index.create(tmp_path / "db", "t", DOCS, encoder=encoder, on="ray")
    for path in (tmp_path / "db" / "t.lance" / "data").iterdir():
        path.unlink()
    index = Index.create(tmp_path / "db", "t", DOCS, encoder=encoder, on="ray")
    assert built(index).resumed == 0
    assert comparable(stored(tmp_path / "db")) == comparable(stored(made_once))


def test_an_actor_that_ends_is_replaced(tmp_path, made_once):
    (tmp_path / "once").touch()
    encoder = MortalEncoder(tmp_path / "log", once=tmp_path / "once")
    index = Index.create(tmp_path / "db", "t", DOCS, encoder=encoder, on="ray")
    assert comparable(stored(tmp_path / "db")) == comparable(stored(made_once))
    assert built(index).rejected == 0


def test_a_document_that_ends_its_actor_is_rejected(tmp_path):
    documents = [*DOCS[:33], {"id": "deadly", "text": "a!b", "year": 1}, *DOCS[33:]]
    encoder = MortalEncoder(tmp_path / "log", deadly="!")
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        index = Index.create(tmp_path / "db", "t", documents, encoder=encoder, on="ray", rejects=rejects)
    (noted,) = noted_in(rejects)
    assert noted["record"]["id"] == "deadly"
    assert built(index).rejected == 1
    assert texts_by_id(tmp_path / "db") == {document["id"]: document["text"] for document in DOCS}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (ray_cluster.Kind("0.0.1", "3.11"), "and this process tansaku 0.0.1 .*; install the same on all nodes"),
        (ray_cluster.Kind(ray_cluster.Kind.here().tansaku, "2.7"), "and Python 2.7; install the same on all nodes"),
    ],
)
def test_a_node_with_other_versions_is_refused(tmp_path, encoder, monkeypatch, kind, message):
    monkeypatch.setattr(ray_cluster.Kind, "here", lambda: kind)
    with pytest.raises(WorkerError, match=message):
        Index.create(tmp_path / "db", "t", DOCS, encoder=encoder, on="ray")
    assert not encoder.encoded_elsewhere


def test_a_folder_that_a_node_does_not_see_is_refused(tmp_path, encoder, monkeypatch):
    monkeypatch.setattr(Path, "touch", lambda path: None)
    with pytest.raises(WorkerError, match=r"does not see the database's folder .*/db; use a folder that all"):
        Index.create(tmp_path / "db", "t", DOCS, encoder=encoder, on="ray")


def test_more_actors_than_the_cluster_has_room_for(tmp_path, encoder, monkeypatch):
    monkeypatch.setattr(on_ray, "_START_SECONDS", 8)
    with pytest.raises(WorkerError, match=r"has started 0 of 1 actors with 3 CPUs each \(it has 2 in all\)"):
        Index.create(tmp_path / "db", "t", DOCS, encoder=encoder, on=OnRay(actor_cpus=3))


DRIVER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import pytest
from tests.support.fakes import MortalEncoder, corpus, small_chunks
from tansaku import Index
from tansaku.indexer.write import build_steps
small_chunks(pytest.MonkeyPatch(), 4)
build_steps._SAMPLE_ROWS = 6
docs = corpus(60, year=lambda i: 1900 + i)
Index.create(sys.argv[2], "t", docs, encoder=MortalEncoder(Path(sys.argv[3]), pause=0.3), on="ray")
"""


def test_a_driver_that_is_killed_loses_nothing(tmp_path, made_once):
    log, db = tmp_path / "log", tmp_path / "db"
    address = ray.get_runtime_context().gcs_address
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(SUPPORT.parents[1]), str(db), str(log)],
        env={**os.environ, "RAY_ADDRESS": address},
    )
    units = db / "t.tansaku" / "build"
    try:
        while len(list(units.glob("unit-*.json"))) < 2:
            assert driver.poll() is None
            time.sleep(0.02)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    done = Staging(db / "t.tansaku").fragments().reports
    assert not list((db / "t.lance").glob("_versions/*"))
    encoder = MortalEncoder(log)
    index = Index.create(db, "t", DOCS, encoder=encoder, on="ray")
    assert built(index).resumed == sum(report["documents"] for report in done.values()) > 0
    assert comparable(stored(db)) == comparable(stored(made_once))


def test_ray_and_the_default_model(tmp_path):
    """The model is loaded by each actor, and its rows are those of this process, bit for bit."""
    texts = [f"京都の寺院、その{i}。" + "奈良の大仏は東大寺にある。" * (i % 7) for i in range(40)]
    documents = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
    Index.create(tmp_path / "a", "t", documents, encoder=Encoder.load())
    Index.create(tmp_path / "b", "t", documents, on="ray")
    assert comparable(stored(tmp_path / "a")) == comparable(stored(tmp_path / "b"))


class TestAnObjectStore:
    def test_a_build_that_is_interrupted_continues(self, store, encoder, made_once, monkeypatch):
        uri, options = f"s3://{store.new_bucket()}/db", store.options()

        def create():
            return Index.create(uri, "t", DOCS, encoder=encoder, storage_options=options, on="ray")

        with monkeypatch.context() as patch:
            patch.setattr(Staging, "write_fragments", after(2, Staging.write_fragments))
            with pytest.raises(KilledError):
                create()
        index = create()
        assert built(index).resumed >= 8
        table = lancedb.connect(uri, storage_options=options).open_table("t")
        assert comparable(table.to_arrow()) == comparable(stored(made_once))
        assert index.add(corpus(5, "n", year=lambda i: i), on="ray").rows == 5
        assert index.optimize().fragments_after == 1
        assert len(index) == len(DOCS) + 5

    def test_one_that_ignores_conditional_writes_is_refused(self, store, encoder):
        store.refuse = lambda request: request.pop("HTTP_IF_NONE_MATCH", None) and None
        with pytest.raises(StorageError, match="ignores conditional writes"):
            Index.create(
                f"s3://{store.new_bucket()}/db",
                "t",
                DOCS,
                encoder=encoder,
                storage_options=store.options(),
                on="ray",
            )
        assert not encoder.encoded_elsewhere


def test_the_command_line(tmp_path):
    """As a user runs it, but on the cluster that this process is connected to."""
    lines = "".join(json.dumps(document) + "\n" for document in DOCS)
    (tmp_path / "docs.jsonl").write_text(lines, encoding="utf-8")
    command = ("index", str(tmp_path / "docs.jsonl"), "--db", str(tmp_path / "db"), "--table", "t", "--on", "ray")
    ended = CliRunner().invoke(app, [*command, "--actors", "1:2"])
    assert ended.exit_code == 0, ended.output
    assert f"{len(DOCS)} documents" in ended.output
    ended = CliRunner().invoke(app, [*command, "--mode", "overwrite", "--address", "127.0.0.1:1"])
    assert isinstance(ended.exception, WorkerError)
    assert "connected to a Ray cluster already, so it cannot connect to '127.0.0.1:1'" in str(ended.exception)
