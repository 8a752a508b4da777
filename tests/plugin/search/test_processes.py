"""Indexes and models in other processes: forked ones, and those that get them pickled."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from functools import partial

import lancedb
import numpy as np
import pytest
from lancedb.index import FTS

from tansaku import BundleError, Encoder, ForkedProcessError, Index, InputError, Reranker, Searcher
from tansaku.indexer import forks
from tansaku.onnx_export.encode.find_bundle import DEFAULT_BUNDLE
from tansaku.plugin.search.latest_searcher import LatestSearcher

from ...support.environment import NOBODY, as_nobody, bare_environment
from ...support.fakes import SUPPORT, FakeEncoder

pytestmark = pytest.mark.integration

TEXTS = ["京都は古い都だった。", "犬は嗅覚が鋭い。", "奈良の都。"]
DOCUMENTS = [{"id": str(i), "text": text} for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def db(default_encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("db")
    Index.create(folder, "t", DOCUMENTS, encoder=default_encoder)
    plain = lancedb.connect(folder).create_table("plain", DOCUMENTS)
    plain.create_index("text", config=FTS())
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_encodes_and_refuses_the_database(db):
    """LanceDB crashes or hangs there in some of 100 forks, so nothing may reach it."""
    script = [sys.executable, str(SUPPORT / "forks.py"), str(db)]
    finished = subprocess.run(script, capture_output=True, text=True, check=False, cwd=db)
    assert finished.returncode == 0, finished.stderr
    results = json.loads(finished.stdout)
    assert set(results["works"].values()) == {""}, results["works"]
    assert set(results["fails"].values()) == {"ForkedProcessError"}, results["fails"]


def test_the_error_names_both_processes_and_the_remedy(monkeypatch, db):
    monkeypatch.setattr(forks, "_used_in", 7)
    with pytest.raises(ForkedProcessError) as raised:
        Index.open(db, "t")
    assert str(raised.value).startswith(f"database {db}: process {os.getpid()} was forked from process 7 after")
    assert "multiprocessing.get_context('spawn')" in str(raised.value)


def test_a_lock_that_was_held_at_the_fork_is_not_waited_for(monkeypatch, db):
    latest = LatestSearcher(lambda: Searcher.open(db, "t"))
    latest._lock.acquire()
    monkeypatch.setattr(forks, "_used_in", 7)
    with pytest.raises(ForkedProcessError):
        latest()


def search_there(searcher: Searcher, query: str) -> list[str]:
    return [hit.id for hit in searcher.search(query, k=2)]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_pickled_searcher_searches_in_another_process(db, method, default_encoder):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    searcher = Searcher.open(db, "t", encoder=default_encoder)
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(search_there, (searcher, "古い都")) == search_there(searcher, "古い都")


def again(value):
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("place", ["relative", "path", "connection"])
def test_searcher_and_index_are_opened_again_where_they_lie(db, place, default_encoder, monkeypatch):
    monkeypatch.chdir(db.parent)
    at = {"relative": db.name, "path": db, "connection": lancedb.connect(db.name)}[place]
    pickled = pickle.dumps([Searcher.open(at, "t", encoder=default_encoder), Index.open(at, "t")])
    monkeypatch.chdir("/")
    searcher, index = pickle.loads(pickled)
    assert search_there(searcher, "古い都") == ["0", "2"]
    assert len(index) == 3


def test_what_is_pickled_together_stays_together(db, default_encoder):
    searcher = Searcher.open(db, "t", encoder=default_encoder, derived=False)
    other, reranker = again([searcher, Reranker(searcher=searcher, phrase_weight=0.5)])
    assert reranker.searcher is other
    assert reranker.encoder is other.encoder
    assert (other._derived, reranker.phrase_weight) == (False, 0.5)
    assert reranker.rerank("犬", ids=["0", "1"])[0].id == "1"
    assert copy.deepcopy(reranker).rerank("犬", ids=["0", "1"])[0].id == "1"


def test_an_index_keeps_what_it_wrote_last(tmp_path, default_encoder):
    index = again(Index.create(tmp_path, "t", DOCUMENTS, encoder=default_encoder))
    assert index.last_build.rows == 3
    index.add([{"id": "new", "text": "東京"}])
    assert len(index) == 4


def test_an_index_of_given_vectors_is_pickled(tmp_path):
    vectors = np.eye(4, 16, dtype=np.float32)[:, None]
    Index.create_from_vectors(tmp_path, "t", [{"id": str(i)} for i in range(4)], list(vectors))
    searcher = again(Searcher.open(tmp_path, "t"))
    assert searcher.search_vectors(vectors[2], k=1)[0].id == "2"


def test_a_latest_searcher_of_a_function_that_can_be_found_is_pickled(db):
    latest = again(LatestSearcher(partial(Searcher.open, db, "t"), every=5.0))
    assert search_there(latest(), "犬")[0] == "1"
    assert latest._every == 5.0


def test_an_encoder_is_loaded_again(default_encoder, tmp_path):
    copied = shutil.copytree(DEFAULT_BUNDLE, tmp_path / "bundle")
    for encoder in (default_encoder, Encoder.load(copied, threads=1)):
        other = again(encoder)
        assert (other.bundle, other._threads) == (encoder.bundle, encoder._threads)
        np.testing.assert_array_equal(other.encode_queries(["都"])[0], encoder.encode_queries(["都"])[0])


def test_the_model_inside_is_pickled_without_its_place(default_encoder):
    """It may lie elsewhere on another machine."""
    assert str(DEFAULT_BUNDLE).encode() not in pickle.dumps(default_encoder)


def test_another_bundle_in_the_place_of_the_pickled_one_is_refused(tmp_path):
    copied = shutil.copytree(DEFAULT_BUNDLE, tmp_path / "bundle")
    encoder = Encoder.load(copied)
    pickled = pickle.dumps(encoder)
    described = (copied / "bundle.json").read_text(encoding="utf-8")
    settings = json.loads(described)
    settings["query"]["max_length"] += 1
    (copied / "bundle.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(BundleError, match="another bundle has taken the place"):
        pickle.loads(pickled)


def test_what_another_process_cannot_open_is_not_pickled(tmp_path, default_encoder):
    parts = default_encoder._parts
    made = Encoder(default_encoder.bundle, parts.session, parts.tokenize_query._tokenizer)
    with pytest.raises(InputError, match="was not loaded from a bundle and cannot be pickled"):
        pickle.dumps(made)
    made._opened = parts.__class__(1, *[getattr(parts, name) for name in list(parts.__dataclass_fields__)[1:]])
    with pytest.raises(InputError, match="made before this process was forked"):
        made.encode_queries(["都"])
    index = Index.create(lancedb.connect("memory://"), "t", [{"id": "1", "text": "都"}], encoder=FakeEncoder())
    with pytest.raises(InputError, match=r"memory:.* another process cannot open it"):
        pickle.dumps(index)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"HOME": "/root"}])
def test_a_user_without_a_home_folder_indexes_and_searches(settings):
    """The folders of caches and of models are in none, or in one that this user may not read."""
    prefix = as_nobody()
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        os.chown(folder, NOBODY, NOBODY)
        done = subprocess.run(
            [*prefix, sys.executable, "-W", "ignore", "-c", _INDEX_AND_SEARCH],
            cwd=folder,
            env=bare_environment(**settings),
            capture_output=True,
            text=True,
            check=False,
        )
        left = os.listdir(folder)
    assert (done.returncode, done.stdout.split()) == (0, ["1"]), done.stderr
    assert left == ["db"]


_INDEX_AND_SEARCH = f"""
from tansaku import Index, Searcher
Index.create("db", "t", {DOCUMENTS!r})
print(Searcher.open("db", "t").search("犬の嗅覚", k=1)[0].id)
"""
