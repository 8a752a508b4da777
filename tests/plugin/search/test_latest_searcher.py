"""`LatestSearcher` over a table that is made, changed, removed and made again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tansaku import Index, Searcher, TableNotFoundError
from tansaku.indexer.table.database import connect, drop_table
from tansaku.plugin.search.latest_searcher import LatestSearcher

from ...support.fakes import FakeEncoder, corpus


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def opener(tmp_path: Path, encoder: FakeEncoder) -> Callable[[], Searcher]:
    return lambda: Searcher.open(tmp_path, "t", encoder=encoder)


def test_the_table_may_come_later_change_go_and_come_back(tmp_path, encoder, opener):
    latest = LatestSearcher(opener)
    assert latest.or_none() is None
    with pytest.raises(TableNotFoundError):
        latest()
    index = Index.create(tmp_path, "t", corpus(3), encoder=encoder)
    searcher = latest()
    assert len(searcher) == 3
    index.delete(["d0"])
    assert latest() is searcher
    assert len(searcher) == 2
    drop_table(connect(tmp_path), "t")
    assert latest.or_none() is None
    Index.create(tmp_path, "t", corpus(1), encoder=encoder)
    assert len(latest()) == 1


def test_the_table_is_not_looked_at_before_the_time(tmp_path, encoder, opener):
    index = Index.create(tmp_path, "t", corpus(3), encoder=encoder)
    at_once, later = LatestSearcher(opener), LatestSearcher(opener, every=3_600)
    assert (len(at_once()), len(later())) == (3, 3)
    index.delete(["d0"])
    assert (len(at_once()), len(later())) == (2, 3)


@pytest.mark.parametrize("every", [0.0, 1e-9])
def test_who_comes_during_a_look_waits_only_if_every_call_looks(tmp_path, encoder, opener, monkeypatch, every):
    Index.create(tmp_path, "t", corpus(3), encoder=encoder)
    latest = LatestSearcher(opener, every=every)
    searcher = latest()
    looking, go_on, looks = threading.Event(), threading.Event(), []

    def refresh() -> bool:
        looks.append(threading.current_thread())
        looking.set()
        assert go_on.wait(30)
        return False

    monkeypatch.setattr(searcher, "refresh", refresh)
    first = threading.Thread(target=latest)
    first.start()
    assert looking.wait(30)
    got: list[Searcher] = []
    second = threading.Thread(target=lambda: got.append(latest()))
    second.start()
    if every:
        second.join(30)
        assert got == [searcher]
    go_on.set()
    first.join(30)
    second.join(30)
    assert got == [searcher]
    assert looks == ([first] if every else [first, second])
