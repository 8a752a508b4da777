"""Shards as deployments of Ray Serve, on a Ray of this machine."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tansaku import Encoder, Index, Searcher
from tansaku.plugin.service.app import create_app
from tansaku.plugin.service.settings import Settings
from tansaku.plugin.shards import ShardedSearcher

from ...support.fakes import corpus

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

QUERY = "寺はどこ"


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory, default_encoder: Encoder) -> Path:
    folder = tmp_path_factory.mktemp("ray")
    documents = [{**d, "text": f"京都の寺 {d['text']}"} for d in corpus(3000, year=lambda i: 1000 + i)]
    Index.create(folder, "t", documents[:2500], encoder=default_encoder)
    return folder


@pytest.fixture(scope="module")
def sharded(db: Path, default_encoder: Encoder) -> Iterator[ShardedSearcher]:
    import ray

    from tansaku.plugin.shards.on_ray import open_on_ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR)
    opened = open_on_ray(db, "t", shards=2, replicas=2, shard_cpus=0.1, encoder=default_encoder)
    yield opened
    opened.close()
    ray.shutdown()


@pytest.mark.filterwarnings("ignore")
def test_hits_are_those_of_one_index_also_after_a_replica_was_killed(
    sharded: ShardedSearcher, db: Path, default_encoder: Encoder
):
    whole = Searcher.open(db, "t", encoder=default_encoder)
    assert all(0 < rows < len(whole) for rows in sharded.shards)
    expected = whole.search(QUERY, 20, recall="exact", where="year > 1100")
    assert list(sharded.search(QUERY, 20, recall="exact", where="year > 1100")) == list(expected)
    pid = sharded._shards[0].ask("pid")
    os.kill(pid, signal.SIGKILL)
    for _ in range(8):
        assert list(sharded.search(QUERY, 20, recall="exact", where="year > 1100")) == list(expected)
    Index.open(db, "t", encoder=default_encoder).delete(["d1"])
    assert sharded.refresh()
    for _ in range(8):  # all replicas answer at the new version
        assert sharded.unknown(["d1", "d2"]) == ["d1"]


@pytest.mark.filterwarnings("ignore")
def test_the_service_over_shards_answers_as_over_one_index(
    sharded: ShardedSearcher, db: Path, default_encoder: Encoder
):
    settings = Settings(indexes={"t": (db, "t")}, shards=2, replicas=2, shard_cpus=0.1, refresh_seconds=0)
    with (
        TestClient(create_app(settings)) as over_shards,
        TestClient(create_app(Settings(indexes={"t": (db, "t")}))) as one,
    ):
        for client in (over_shards, one):
            while client.get("/ready").status_code != 200:
                time.sleep(0.1)
        for path, body in (
            ("/search", {"query": QUERY, "k": 7, "recall": "exact", "where": "year > 1500"}),
            ("/explain", {"query": QUERY, "id": "d5", "matrix": True}),
            ("/v2/rerank", {"query": QUERY, "documents": [{"id": "d5"}, {"id": "d77"}, "東寺の塔"]}),
        ):
            found, expected = over_shards.post(path, json=body).json(), one.post(path, json=body).json()
            for answer in (found, expected):
                for name in ("stages_ms", "id", "meta"):
                    answer.pop(name, None)
            assert found == expected
