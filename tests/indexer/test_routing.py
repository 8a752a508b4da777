"""Routing points: lists stay fine when an index outgrows its codec, whatever the order in which it grew."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tansaku import Index, Searcher
from tansaku.indexer.codec.codec import ResidualCodec
from tansaku.indexer.derived import arrays, routing
from tansaku.indexer.derived.routing import Routing, is_outgrown, is_wanted

from ..support.fakes import FakeEncoder, KilledError, after, corpus


@pytest.fixture
def routed_early(monkeypatch):
    """Routing for indexes of any size, in ranges of few tokens."""
    monkeypatch.setattr(routing, "_FEWEST_TOKENS", 0)
    monkeypatch.setattr(routing, "_TOKENS_AT_ONCE", 500)
    monkeypatch.setattr(routing, "TOKENS_PER_POINT", 8)


def vectors(count: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    centers = random.normal(size=(40, 16))
    drawn = centers[random.integers(40, size=count)] + 0.3 * random.normal(size=(count, 16))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


CODEC = ResidualCodec.train(vectors(2000), nbits=2, n_centroids=4)


def test_an_index_has_outgrown_its_lists_unless_it_has_routing_points():
    assert not is_outgrown(CODEC, 4095)
    assert is_outgrown(CODEC, 4096)
    assert not is_outgrown(CODEC, 1 << 18)  # it gets routing points when it is next opened
    assert not is_outgrown(CODEC, 1 << 18, n_points=4096)
    assert is_outgrown(CODEC, 1 << 18, n_points=0)
    assert is_outgrown(CODEC, 1 << 30)  # four centroids have too few points for that


class TestTrain:
    def test_points_are_as_many_as_the_tokens_ask_for(self):
        codes = CODEC.encode(vectors(6400))
        points = Routing.train(CODEC, [codes])
        counts = np.bincount(codes[0], minlength=4)
        assert np.diff(points.offsets.astype(int)).tolist() == np.rint(counts / 64).tolist()
        assert (points.n_tokens, points.problem(CODEC)) == (6400, "")

    def test_is_the_same_in_one_part_and_range_or_several(self, monkeypatch):
        ids, residuals = CODEC.encode(vectors(3000))
        monkeypatch.setattr(routing, "_SAMPLED", 1.0)
        whole = Routing.train(CODEC, [(ids, residuals)])
        monkeypatch.setattr(routing, "_TOKENS_AT_ONCE", 100)
        parts = Routing.train(CODEC, [(ids[:1000], residuals[:1000]), (ids[1000:], residuals[1000:])])
        assert np.array_equal(whole.residuals, parts.residuals)

    def test_a_centroid_without_tokens_has_a_point(self):
        ids, residuals = CODEC.encode(vectors(1000))
        kept = ids != 1
        points = Routing.train(CODEC, [(ids[kept], residuals[kept])])
        assert points.offsets[2] - points.offsets[1] == 1
        assert points.problem(CODEC) == ""

    def test_of_equal_tokens_there_is_one_place(self):
        ids, residuals = CODEC.encode(np.repeat(vectors(1), 500, axis=0))
        points = Routing.train(CODEC, [(ids, residuals)])
        assert (points.assign(CODEC, (ids, residuals)) == points.offsets[ids[0]]).all()


class TestAssign:
    @settings(deadline=None, derandomize=True, max_examples=20)
    @given(st.integers(1, 300), st.integers(0, 3))
    def test_gives_the_nearest_point_of_the_centroid(self, count, seed):
        ids, residuals = CODEC.encode(vectors(count, seed))
        points = Routing.train(CODEC, [CODEC.encode(vectors(1000))])
        of_points = np.repeat(np.arange(4), np.diff(points.offsets.astype(int)))
        products = CODEC.decode(ids, residuals) @ CODEC.decode(of_points, points.residuals).T
        products[ids[:, None] != of_points] = -2
        found = points.assign(CODEC, (ids, residuals))
        assert found.dtype == np.uint32
        assert np.allclose(products[np.arange(count), found], products.max(axis=1), atol=1e-6)


class TestWhen:
    def test_an_index_with_fine_lists_has_none(self):
        assert not is_wanted(CODEC, (1 << 18) - 1)
        assert is_wanted(CODEC, 1 << 18)
        fine = ResidualCodec(np.ones((1 << 12, 16), np.float32), CODEC.groups, CODEC.codewords)
        assert not is_wanted(fine, 3 * 64 * (1 << 12) - 1)
        assert is_wanted(fine, 3 * 64 * (1 << 12))

    @pytest.mark.parametrize(("n_tokens", "fits"), [(66, False), (67, True), (100, True), (150, True), (151, False)])
    def test_points_fit_until_the_index_has_grown_by_half(self, n_tokens, fits):
        points = Routing(np.array([0, 1], np.uint32), np.zeros((1, 4), np.uint8), 100)
        assert points.fits(n_tokens) is fits


DOCS = corpus(700)


@pytest.mark.integration
@pytest.mark.usefixtures("routed_early")
class TestIndex:
    @pytest.fixture
    def grown(self, tmp_path):
        index = Index.create(tmp_path, "t", DOCS[:1], encoder=FakeEncoder())
        for start, end in ((1, 10), (10, 100), (100, 700)):
            index.add(DOCS[start:end])
            Searcher.open(tmp_path, "t", encoder=FakeEncoder())
        return index

    def test_lists_are_of_points_and_found_again_when_it_has_grown(self, grown, tmp_path):
        stored = self.manifest(tmp_path)
        assert stored["routing"]["tokens"] == grown.info().tokens
        folder = tmp_path / "t.tansaku" / "arrays"
        assert sorted(path.name for path in folder.glob("*-*")) == sorted(
            entry["name"] for entry in (*stored["segments"], stored["routing"])
        )
        assert grown.info().bytes_by_part["lists"] > 0

    def test_every_token_is_in_the_list_of_its_point(self, grown):
        loaded = arrays.load_arrays(grown._now())
        assert loaded.routing is not None
        for segment in loaded.segments:
            points = loaded.routing.assign(grown._now().codec, segment.codes)
            for row, (start, end) in enumerate(zip(segment.offsets, segment.offsets[1:], strict=False)):
                for point in points[start:end]:
                    postings = segment.lists.postings[segment.lists.offsets[point] : segment.lists.offsets[point + 1]]
                    assert row in postings

    def test_a_search_finds_what_an_exact_one_finds(self, grown, tmp_path, monkeypatch):
        monkeypatch.setattr("tansaku.plugin.search.plan._SCORE_ALL_UP_TO", 10)
        monkeypatch.setattr("tansaku.plugin.search.plan._SCORE_ALL_OUTGROWN", 10)
        searcher = Searcher.open(tmp_path, "t", encoder=FakeEncoder())
        for document in DOCS[::35]:
            (best, *_) = searcher.search(document["text"], k=1)
            (exact, *_) = searcher.search(document["text"], k=1, recall="exact")
            assert best.score == pytest.approx(exact.score, abs=1e-5)

    def test_deleted_rows_stay_deleted_in_new_lists(self, grown, tmp_path):
        gone = [document["id"] for document in DOCS[::3]]
        grown.delete(gone)
        Searcher.open(tmp_path, "t", encoder=FakeEncoder())
        grown.add([{**document, "id": f"new-{document['id']}"} for document in DOCS])
        found = Searcher.open(tmp_path, "t", encoder=FakeEncoder()).search(DOCS[0]["text"], k=2000, recall="exact")
        assert not {hit.id for hit in found} & set(gone)
        assert len(found) == 2 * len(DOCS) - len(gone)

    @pytest.mark.parametrize(
        ("step", "done", "error"),
        [
            ("store_routing", 0, KilledError),
            ("store_lists", 1, KilledError),
            ("store_manifest", 0, KilledError),
            ("store_manifest", 0, OSError(28, "full")),
        ],
    )
    def test_an_interruption_leaves_the_old_lists_in_use(self, grown, tmp_path, monkeypatch, step, done, error):
        """At each step of making lists again: before and after the points are written, and before arrays.json is."""
        before = self.manifest(tmp_path)
        searcher = Searcher.open(tmp_path, "t", encoder=FakeEncoder())
        expected = searcher.search(DOCS[0]["text"])
        first_version = grown._now()
        monkeypatch.setattr(arrays, "MAX_ROWS", 400)  # so that there are several segments
        grown.add([{**document, "id": f"new-{document['id']}"} for document in DOCS])
        with monkeypatch.context() as during:
            during.setattr(arrays, step, after(done, getattr(arrays, step), error))
            if error is KilledError:
                with pytest.raises(KilledError):
                    Searcher.open(tmp_path, "t", encoder=FakeEncoder())
            else:  # a full disk: the lists are made in memory
                opened = Searcher.open(tmp_path, "t", encoder=FakeEncoder())
                assert len(opened.search(DOCS[0]["text"], 2, recall="exact")) == 2
        assert self.manifest(tmp_path) == before
        assert searcher.search(DOCS[0]["text"]) == expected
        of_files = arrays.load_arrays(first_version)
        assert of_files.routing is not None
        assert of_files.routing.n_tokens == before["routing"]["tokens"]
        Searcher.open(tmp_path, "t", encoder=FakeEncoder())
        stored = self.manifest(tmp_path)
        assert stored["routing"]["name"] != before["routing"]["name"]
        names = {path.name for path in (tmp_path / "t.tansaku" / "arrays").glob("*-*")}
        assert names == {entry["name"] for entry in (*stored["segments"], stored["routing"])}  # nothing is left over

    @pytest.mark.parametrize("name", ["offsets.npy", "residuals.npy"])
    def test_damaged_points_are_made_again(self, grown, tmp_path, name):
        entry = self.manifest(tmp_path)["routing"]
        path = tmp_path / "t.tansaku" / "arrays" / entry["name"] / name
        content = bytearray(path.read_bytes())
        content[-1] ^= 255
        path.write_bytes(content)
        searcher = Searcher.open(tmp_path, "t", encoder=FakeEncoder())
        assert searcher.search(DOCS[5]["text"])[0].score > 0
        assert self.manifest(tmp_path)["routing"]["name"] != entry["name"]
        assert grown.info().tokens == entry["tokens"]

    @staticmethod
    def manifest(folder):
        return json.loads((folder / "t.tansaku" / "arrays" / "arrays.json").read_text())["arrays"]
