"""An index in shards gives what one index gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tansaku import Index, InputError, Searcher, StorageError
from tansaku.indexer.table import shard as shard_module
from tansaku.indexer.table.shard import Shard
from tansaku.plugin.shards import ShardedSearcher, ShardLostError
from tansaku.plugin.shards.searcher import place_of
from tansaku.plugin.shards.server import ShardServer

from ...support.fakes import FakeEncoder, corpus, small_chunks

QUERY = "3a9f"


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_module, "_BLOCK", 3)
    small_chunks(monkeypatch)


def both(db: Path, shards: int = 3) -> tuple[Searcher, ShardedSearcher]:
    encoder = FakeEncoder()
    whole = Searcher.open(db, "t", encoder=encoder)
    return whole, ShardedSearcher.open_local(db, "t", shards=shards, encoder=encoder)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    documents = corpus(40, year=lambda i: 1990 + i)
    documents += [{**document, "id": f"same-{document['id']}"} for document in documents[:6]]  # of equal scores
    Index.create(tmp_path, "t", documents, encoder=FakeEncoder(), fulltext=True)
    return tmp_path


@given(st.lists(st.integers(0, 2**40), max_size=40), st.integers(1, 9))
def test_each_row_is_in_one_shard(row_ids: list[int], count: int):
    ids = np.array(row_ids, np.uint64)
    held = np.stack([Shard(number, count).holds(ids) for number in range(count)])
    assert (held.sum(axis=0) == 1).all()


@pytest.mark.parametrize("number", [-1, 2])
def test_a_shard_that_is_not_there(number: int):
    with pytest.raises(InputError, match=f"no shard {number} of 2"):
        Shard(number, 2)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shards=st.integers(1, 5),
    k=st.sampled_from([1, 3, 10, 60]),
    where=st.sampled_from([None, "year < 2010", "year = 1995", "year > 3000"]),
    ids=st.sampled_from([None, ["d3", "d4", "same-d4", "unknown"], ["unknown"]]),
)
def test_exact_hits_are_those_of_one_index(db: Path, shards: int, k: int, where: str | None, ids: list[str] | None):
    whole, sharded = both(db, shards)
    expected = whole.search(QUERY, k, recall="exact", where=where, ids=ids)
    found = sharded.search(QUERY, k, recall="exact", where=where, ids=ids)
    assert list(found) == list(expected)
    assert (found.missing, found.scored, found.version) == (expected.missing, expected.scored, expected.version)
    assert found.recall == expected.recall == 1


@pytest.mark.parametrize("source", ["lists", "text", "fused"])
def test_every_source_finds_the_best(db: Path, source: Any):
    whole, sharded = both(db)
    best = whole.search("60", 1, recall="exact")[0]
    assert best in sharded.search("60", 5, source=source)
    weighted = sharded.search("60", 5, source="text", bm25_weight=2.0)
    assert list(weighted) == list(whole.search("60", 5, source="text", bm25_weight=2.0))


def test_all_verbs_give_what_one_index_gives(db: Path):
    whole, sharded = both(db)
    ids = ["d7", "same-d2", "d2", "unknown", "d7"]
    np.testing.assert_array_equal(sharded.score(QUERY, ids), whole.score(QUERY, ids))
    assert sharded.unknown(ids) == whole.unknown(ids) == ["unknown"]
    assert sharded.read(ids) == whole.read(ids)
    assert sharded.explain(QUERY, "d9") == whole.explain(QUERY, "d9")
    known = [doc_id for doc_id in ids if doc_id != "unknown"]
    assert sharded.snippets(QUERY, known) == whole.snippets(QUERY, known)
    assert len(sharded) == len(whole) == sum(sharded.shards)
    assert [list(hits) for hits in sharded.search_many([QUERY, "60"], 3, recall="exact")] == [
        list(whole.search(query, 3, recall="exact")) for query in (QUERY, "60")
    ]
    for refused in (lambda: sharded.explain(QUERY, "unknown"), lambda: sharded.snippets(QUERY, ids)):
        with pytest.raises(InputError, match="no document with the id 'unknown'"):
            refused()
    for without_rows in (lambda: sharded.rank_vectors(np.ones((1, 8))), sharded.calibrate):
        with pytest.raises(InputError):
            without_rows()


def test_a_document_whose_passages_lie_in_two_shards_is_one_hit(tmp_path: Path):
    long = [{"id": f"p{i}", "text": " ".join(d["text"] for d in corpus(9, prefix=f"p{i}"))} for i in range(4)]
    Index.create(tmp_path, "t", long, encoder=FakeEncoder(), passage_tokens=12)
    whole, sharded = both(tmp_path)
    for passages in (False, True):
        expected = whole.search(QUERY, 8, recall="exact", passages=passages)
        assert list(sharded.search(QUERY, 8, recall="exact", passages=passages)) == list(expected)
    assert sharded.read(["p1", "p3"]) == whole.read(["p1", "p3"])
    assert sharded.explain(QUERY, "p2") == whole.explain(QUERY, "p2")


def test_all_shards_come_to_the_next_version_or_none(db: Path):
    whole, sharded = both(db)
    index = Index.open(db, "t", encoder=FakeEncoder())
    index.add(corpus(9, prefix="new", year=lambda i: i))
    index.delete(["d1"])
    assert sharded.version == whole.version
    assert sharded.unknown(["new1", "d1"]) == ["new1"]
    failing = sharded._shards[1]
    sharded._shards[1] = Lost()
    with pytest.raises(ShardLostError):
        sharded.refresh()
    sharded._shards[1] = failing
    assert sharded.version == whole.version
    assert sharded.refresh()
    assert not sharded.refresh()
    whole.refresh()
    assert sharded.unknown(["new1", "d1"]) == ["d1"]
    assert list(sharded.search(QUERY, 60, recall="exact")) == list(whole.search(QUERY, 60, recall="exact"))


@pytest.mark.parametrize("changes", [0, 4])
def test_a_table_that_was_dropped_and_made_again_is_another_one_whatever_its_version(db: Path, changes: int):
    index = Index.open(db, "t", encoder=FakeEncoder())
    for number in range(changes):
        index.delete([f"d{number}"])
    _, sharded = both(db)
    index.delete(["d9"])
    assert sharded.refresh()
    Index.drop(db, "t")
    Index.create(db, "t", corpus(30, prefix="again", year=lambda i: i), encoder=FakeEncoder(), fulltext=True)
    with pytest.raises(StorageError):  # a replica that is asked for what is gone
        ShardServer(place_of(*sharded.location), Shard(0, 3)).open(sharded._whole.version)
    assert sharded.refresh()
    whole = Searcher.open(db, "t", encoder=FakeEncoder())
    assert sharded.version == whole.version
    assert list(sharded.search(QUERY, 60, recall="exact")) == list(whole.search(QUERY, 60, recall="exact"))


class Lost:
    """A shard that does not answer."""

    def ask(self, verb: str, *given: Any) -> Any:
        raise ShardLostError("shard 1 does not answer")


def test_a_lost_shard_is_said(db: Path):
    whole, sharded = both(db)
    sharded._shards[1] = Lost()
    with pytest.raises(ShardLostError, match="shard 1"):
        sharded.search(QUERY)
    sharded._partial = True
    hits = sharded.search(QUERY, 60, recall="exact")
    assert hits.lost == (1,)
    assert hits.recall is None
    expected = [hit.id for hit in whole.search(QUERY, 60, recall="exact")]
    assert [doc_id for doc_id in expected if doc_id in {hit.id for hit in hits}] == [hit.id for hit in hits]
    with pytest.raises(ShardLostError):  # a score that is missing would say that the document is not there
        sharded.score(QUERY, ["d1"])


def test_each_shard_is_checked_where_it_is(db: Path):
    sharded = ShardedSearcher.open_local(db, "t", shards=2, encoder=FakeEncoder())
    (arrays,) = (db / "t.tansaku").glob("arrays-1-of-2")
    next(arrays.glob("segment-*/residuals.npy")).write_bytes(b"damaged")
    report = sharded.check()
    assert (report.rows, report.rebuilt) == (len(sharded), True)
    assert not (db / "t.tansaku" / "arrays").exists()  # nobody has made those of the whole index
    assert not sharded.check().rebuilt


def test_derived_arrays_of_a_shard_are_its_own(db: Path):
    whole, sharded = both(db, 2)
    folders = sorted(path.name for path in (db / "t.tansaku").iterdir())
    assert [name for name in folders if name.startswith("arrays")] == ["arrays", "arrays-0-of-2", "arrays-1-of-2"]
    assert sharded.search(QUERY, 3, recall="exact") == whole.search(QUERY, 3, recall="exact")
