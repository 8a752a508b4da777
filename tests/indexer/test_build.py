"""Between documents and staged rows: reading and checking all, sampling, encoding, compressing.

The encoder is a fake whose vectors for some texts are broken.
"""

from __future__ import annotations

import json
import math

import lancedb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tansaku import BuildReport, Document, Index, InputError, Rejects, ResidualCodec, SourceError
from tansaku.indexer.codec.codec import default_centroids
from tansaku.indexer.codec.pooling import pool_tokens
from tansaku.indexer.read.scan import DOCUMENTS_PER_CHUNK, Scan, chunks, content_bytes, scan
from tansaku.indexer.write import build_steps
from tansaku.indexer.write.rows import compress_vectors

from ..support.fakes import MAX_TOKENS, UNREAD, FakeEncoder, built, comparable, corpus, small_chunks, stored

pytestmark = pytest.mark.integration

deterministic = settings(deadline=None, derandomize=True, max_examples=60)


BREAKAGES = {
    "nan": lambda vectors: np.where(np.eye(*vectors.shape, dtype=bool), np.nan, vectors),
    "inf": lambda vectors: np.where(np.eye(*vectors.shape, dtype=bool), np.inf, vectors),
    "zero": lambda vectors: np.concatenate([vectors[:-1], 0 * vectors[-1:]]),
    "long": lambda vectors: np.concatenate([vectors[:-1], 1.5 * vectors[-1:]]),
    "none": lambda vectors: vectors[:0],
}
MESSAGES = {
    "nan": "vectors that are not finite",
    "inf": "vectors that are not finite",
    "zero": "vectors of zeros, as padding has; leave these rows of the matrix out",
    "long": "vectors that are not of unit length; divide each by its length",
    "none": "no vectors",
}
broken = pytest.mark.parametrize("text", MESSAGES)

RECORDS = corpus(12, f=lambda i: i)
CHANGES = {
    "other text": lambda records: [*records[:7], {**records[7], "text": "other"}, *records[8:]],
    "other field": lambda records: [*records[:7], {**records[7], "f": 8}, *records[8:]],
    "one less": lambda records: records[:-1],
    "a chunk less": lambda records: records[:8],
    "one more": lambda records: [*records, {"id": "new", "text": "new", "f": 1}],
    "other order": lambda records: [*records[:6], records[7], records[6], *records[8:]],
    "none": lambda records: [],
}


class BrokenEncoder(FakeEncoder):
    """Gives no usable vectors for texts that begin with the name of what is wrong."""

    def vectors(self, text: str) -> np.ndarray:
        vectors = super().vectors(text)
        for beginning, breakage in BREAKAGES.items():
            if text.startswith(beginning):
                return breakage(vectors).astype(np.float32)
        return vectors


class Passes:
    """Gives other records in each pass; those of the last one from then on."""

    def __init__(self, *passes):
        self.passes = list(passes)

    def __iter__(self):
        return iter(self.passes.pop(0) if len(self.passes) > 1 else self.passes[0])


@pytest.fixture
def db(tmp_path):
    return tmp_path / "db"


@pytest.fixture
def rejects(tmp_path):
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        yield rejects


def documents(n):
    return [Document(f"d{i}", f"文書{i}", place=f"docs.jsonl:{i + 1}") for i in range(n)]


def refusing(ids, calls=None):
    """A check that refuses chunks with one of ``ids`` among them."""

    def check(chunk):
        if calls is not None:
            calls.append(len(chunk))
        found = [document.id for document in chunk if document.id in ids]
        if found:
            raise InputError(f"one of {len(chunk)} is bad: {found[0]}")

    return check


def accept(chunk):
    pass


def no_rejects(document, error):
    raise error


def silent(stage, done, total, tokens):
    pass


def tables(db):
    return sorted(lancedb.connect(str(db)).list_tables().tables) if db.exists() else []


class TestChunks:
    @pytest.mark.parametrize(("n", "sizes"), [(0, []), (1, [1]), (3, [3]), (4, [3, 1]), (6, [3, 3])])
    def test_all_but_the_last_are_full(self, n, sizes):
        made = list(chunks(iter(documents(n)), 3))
        assert [len(chunk) for chunk in made] == sizes
        assert [document for chunk in made for document in chunk] == documents(n)


class TestScan:
    @pytest.mark.parametrize(
        "n",
        [
            1,
            DOCUMENTS_PER_CHUNK - 1,
            DOCUMENTS_PER_CHUNK,
            DOCUMENTS_PER_CHUNK + 1,
            2 * DOCUMENTS_PER_CHUNK,
            2 * DOCUMENTS_PER_CHUNK + 5,
        ],
    )
    def test_counts_documents_and_characters_and_has_a_digest_for_every_chunk(self, n):
        found = scan(documents(n), accept, no_rejects, silent)
        assert found.count == n
        assert found.size == sum(len(document.text) for document in documents(n))
        assert len(found.digests) == math.ceil(n / DOCUMENTS_PER_CHUNK)
        assert len(set(found.digests)) == len(found.digests)

    def test_titles_count_too(self):
        assert scan([Document("a", "本文", "題")], accept, no_rejects, silent).size == len("題 本文")

    def test_the_same_documents_have_the_same_digests_wherever_they_were_read(self):
        elsewhere = [Document(document.id, document.text) for document in documents(20)]
        first, second = (scan(given, accept, no_rejects, silent) for given in (documents(20), elsewhere))
        assert first == second

    @pytest.mark.parametrize(("position", "first_other"), [(0, 0), (5, 1), (9, 2)])
    def test_digests_differ_from_the_chunk_of_a_changed_document_on(self, monkeypatch, position, first_other):
        small_chunks(monkeypatch, 4)
        changed = documents(10)
        changed[position] = Document(f"d{position}", "他の文書")
        before, after = (scan(given, accept, no_rejects, silent).digests for given in (documents(10), changed))
        assert [a == b for a, b in zip(before, after, strict=True)] == [i < first_other for i in range(3)]

    def test_digests_differ_where_documents_change_places(self):
        first, second = documents(2)
        found = [scan(given, accept, no_rejects, silent).digests for given in ([first, second], [second, first])]
        assert found[0] != found[1]

    def test_no_documents_are_refused(self):
        with pytest.raises(InputError, match="no documents to index"):
            scan([], accept, no_rejects, silent)

    def test_tells_how_many_were_read_after_each_chunk(self):
        calls = []
        scan(documents(DOCUMENTS_PER_CHUNK + 1), accept, no_rejects, lambda *call: calls.append(call))
        n = DOCUMENTS_PER_CHUNK
        assert calls == [("read", n, 0, 0), ("read", n + 1, 0, 0), ("read", n + 1, n + 1, 0)]
        calls.clear()
        scan(documents(n + 1), accept, no_rejects, lambda *call: calls.append(call), n + 1)
        assert calls == [("read", n, n + 1, 0), ("read", n + 1, n + 1, 0)]
        calls.clear()
        read = iter([(5, 9), (9, 9)])
        scan(documents(n + 1), accept, no_rejects, lambda *call: calls.append(call), 0, lambda: next(read))
        assert calls == [("read bytes", 5, 9, 0), ("read bytes", 9, 9, 0), ("read", n + 1, n + 1, 0)]

    @deterministic
    @given(st.sets(st.integers(0, 39)))
    def test_of_those_that_cannot_be_indexed_each_is_found_and_no_other(self, bad):
        rejected = []
        ids = {f"d{i}" for i in bad}
        good = [document for document in documents(40) if document.id not in ids]

        def reject(document, error):
            assert str(error) == f"one of 1 is bad: {document.id}"
            rejected.append(document.id)

        if not good:
            with pytest.raises(InputError, match="no documents to index"):
                scan(documents(40), refusing(ids), reject, silent)
        else:
            # What is left out leaves no trace in the digests: later passes do not give it any more.
            assert scan(documents(40), refusing(ids), reject, silent) == scan(good, accept, no_rejects, silent)
        assert rejected == [f"d{i}" for i in sorted(bad)]

    def test_one_of_many_is_found_with_few_checks(self):
        calls = []
        scan(documents(DOCUMENTS_PER_CHUNK), refusing({"d77"}, calls), lambda document, error: None, silent)
        assert len(calls) <= 1 + 2 * math.log2(DOCUMENTS_PER_CHUNK)

    def test_the_first_that_cannot_be_left_out_stops_the_reading(self):
        with pytest.raises(InputError, match="one of 1 is bad: d3"):
            scan(documents(9), refusing({"d3", "d5"}), no_rejects, silent)


class TestContentBytes:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (Document("a", "x"), Document("b", "x")),
            (Document("a", "x"), Document("a", "y")),
            (Document("a", "b c"), Document("a", "c", "b")),
            (Document("a", "x", fields={"f": 1}), Document("a", "x", fields={"g": 1})),
            (Document("a", "x", fields={"f": 1}), Document("a", "x", fields={"f": "1"})),
            (Document("a", "x", fields={"f": 1}), Document("a", "x", fields={"f": 1.0})),
            (Document("a", "x", fields={"f": [1, 2]}), Document("a", "x", fields={"f": [1, 3]})),
        ],
    )
    def test_other_content_has_other_bytes(self, one, other):
        assert content_bytes(one) != content_bytes(other)

    def test_long_arrays_that_differ_in_their_middle_are_told_apart(self):
        arrays = [np.zeros(5000), np.zeros(5000)]
        arrays[1][2500] = 1
        assert len({content_bytes(Document("a", "x", fields={"f": array})) for array in arrays}) == 2

    def test_neither_the_order_of_fields_nor_the_place_matters(self):
        one = Document("a", "x", fields={"f": 1, "g": 2}, place="docs.jsonl:1")
        other = Document("a", "x", fields={"g": 2, "f": 1}, place="docs.jsonl:2")
        assert content_bytes(one) == content_bytes(other)


class TestADocumentThatChangesBetweenPasses:
    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("passes", [1, 2])
    def test_create_stores_nothing(self, db, monkeypatch, change, passes):
        small_chunks(monkeypatch, 4)
        monkeypatch.setattr(build_steps, "_SAMPLE_ROWS", 5)
        source = Passes(*[RECORDS] * passes, CHANGES[change](RECORDS))
        with pytest.raises(SourceError, match="changed while they were being indexed"):
            Index.create(db, "t", source, encoder=FakeEncoder())
        assert tables(db) == []

    @pytest.mark.parametrize("change", CHANGES)
    def test_add_adds_nothing(self, db, monkeypatch, change):
        small_chunks(monkeypatch, 4)
        index = Index.create(db, "t", [{"id": "a", "text": "abc", "f": 1}], encoder=FakeEncoder())
        before = stored(db)
        with pytest.raises(SourceError, match="changed while they were being indexed"):
            index.add(Passes(RECORDS, CHANGES[change](RECORDS)))
        assert stored(db).equals(before)

    def test_a_change_that_was_seen_only_by_the_sample_gives_no_document_the_vectors_of_another(self, db):
        """The source is put back after the change was noticed, and the call repeated."""
        source = Passes(RECORDS)

        def progress(stage, done, total, tokens):
            if stage == "read":
                source.passes = [[{**record, "text": record["text"] + "z"} for record in RECORDS]]

        with pytest.raises(SourceError, match="changed while they were being indexed"):
            Index.create(db, "t", source, encoder=FakeEncoder(), resume=True, progress=progress)
        source.passes = [RECORDS]
        Index.create(db, "t", source, encoder=FakeEncoder(), resume=True)
        expected = [len(record["text"]) for record in RECORDS]
        assert stored(db)["token_count"].to_pylist() == expected


class TestVectorsThatNoCodecCanHold:
    """Wherever they come up: among the documents that are sampled, or later."""

    @pytest.fixture(params=[3, 20_000], ids=["few sampled", "all sampled"])
    def _sampled(self, request, monkeypatch):
        small_chunks(monkeypatch, 4)
        monkeypatch.setattr(build_steps, "_SAMPLE_ROWS", request.param)

    @broken
    @pytest.mark.usefixtures("_sampled")
    def test_create_stops_naming_place_and_document(self, db, text):
        records = [*corpus(9), {"id": "bad", "text": text}, *corpus(5, "e")]
        with pytest.raises(InputError) as caught:
            Index.create(db, "t", records, encoder=BrokenEncoder())
        assert str(caught.value) == f"document 9: document 'bad' has {MESSAGES[text]}"
        assert tables(db) == []

    @broken
    def test_add_stops_and_adds_nothing(self, db, monkeypatch, text):
        small_chunks(monkeypatch, 4)
        index = Index.create(db, "t", corpus(3), encoder=BrokenEncoder())
        before = stored(db)
        with pytest.raises(InputError, match=f"document 'bad' has {MESSAGES[text]}"):
            index.add([*corpus(9, "e"), {"id": "bad", "text": text}])
        assert stored(db).equals(before)

    @pytest.mark.usefixtures("_sampled")
    def test_or_they_are_rejected_and_accepted_and_rejected_are_all_that_was_read(self, db, rejects):
        records = corpus(20)
        for position, text in zip((0, 5, 6, 7, 19), MESSAGES, strict=True):
            records[position] = {"id": f"bad{position}", "text": f"{text}!"}
        records[11] = {"id": "d1", "text": "twice"}
        good = [record for record in records if not record["id"].startswith("bad") and record["text"] != "twice"]
        report = built(Index.create(db, "t", records, encoder=BrokenEncoder(), rejects=rejects))
        assert stored(db)["id"].to_pylist() == [record["id"] for record in good]
        assert stored(db)["text"].to_pylist() == [record["text"] for record in good]
        assert stored(db)["token_count"].to_pylist() == [len(record["text"]) for record in good]
        assert report
        assert (report.rows, report.rejected) == (14, 6)
        lines = [json.loads(line) for line in rejects.path.read_text(encoding="utf-8").splitlines()]
        assert sorted(line["place"] for line in lines) == sorted(f"document {i}" for i in (0, 5, 6, 7, 11, 19))
        by_place = {line["place"]: line for line in lines}
        assert by_place["document 6"]["reason"] == "document 6: document 'bad6' has " + MESSAGES["zero"]
        assert by_place["document 6"]["record"] == {"id": "bad6", "title": "", "text": "zero!"}

    @pytest.mark.usefixtures("_sampled")
    def test_rejecting_them_gives_the_codes_that_the_others_have(self, db, rejects):
        good = corpus(20)
        index = Index.create(db, "t", good, encoder=BrokenEncoder())
        index.add([{"id": "bad", "text": "nan"}, *corpus(7, "e")], rejects=rejects)
        other = Index.create(db, "u", good, encoder=BrokenEncoder())
        other.add(corpus(7, "e"))
        columns = ["id", "token_count", "centroid_ids", "residuals"]
        with_rejects, without = (stored(db, table).select(columns).sort_by("id") for table in ("t", "u"))
        assert with_rejects.equals(without)

    def test_where_none_of_the_sampled_documents_can_be_used_there_is_no_index(self, db, rejects):
        records = [{"id": i, "text": "nan"} for i in range(5)]
        with pytest.raises(InputError, match="none of the sampled documents has usable vectors"):
            Index.create(db, "t", records, encoder=BrokenEncoder(), rejects=rejects)
        assert tables(db) == []
        assert len(rejects) == 5

    @pytest.mark.usefixtures("_sampled")
    def test_a_passage_takes_the_others_of_its_document_in_its_chunk_with_it(self, db, rejects):
        records = [*corpus(3), {"id": "bad", "text": "okay. nan. fine."}, *corpus(3, "e")]
        report = built(Index.create(db, "t", records, encoder=BrokenEncoder(), passage_tokens=6, rejects=rejects))
        found = stored(db)
        assert "bad#1" not in found["id"].to_pylist()
        assert {"d0", "d2", "e0", "e2"} < set(found["parent_id"].to_pylist())
        assert report
        assert (report.rows, report.rejected) == (len(found), 1)


class TestSampling:
    @pytest.mark.parametrize(("pool", "passage_tokens"), [(1, None), (2, None), (1, 4)])
    def test_codes_of_sampled_documents_are_those_that_encoding_them_again_gives(
        self, db, monkeypatch, pool, passage_tokens
    ):
        records = [*corpus(60), {"id": "long", "text": "x" * (MAX_TOKENS + 5)}]
        options = {"encoder": FakeEncoder(), "pool": pool, "passage_tokens": passage_tokens}
        small_chunks(monkeypatch, 8)
        all_sampled = built(Index.create(db, "all", records, **options))
        n_encoded = len(options["encoder"].encoded)
        assert all_sampled
        assert n_encoded == all_sampled.rows

        trained = []
        train = ResidualCodec.train
        monkeypatch.setattr(ResidualCodec, "train", lambda *a, **k: trained[0])
        whole = [matrix for text in options["encoder"].encoded for matrix in [options["encoder"].vectors(text)]]
        if pool > 1:
            whole = [pool_tokens(matrix, pool) for matrix in whole]
        sample = np.concatenate(whole)
        trained.append(train(sample, nbits=2, n_centroids=default_centroids(len(sample))))
        monkeypatch.setattr(build_steps, "_SAMPLE_ROWS", 1)
        few_sampled = built(Index.create(db, "few", records, **options))
        assert len(options["encoder"].encoded) == 2 * n_encoded

        assert few_sampled == all_sampled
        assert comparable(stored(db, "all")) == comparable(stored(db, "few"))

    def test_no_text_is_encoded_twice(self, db, monkeypatch):
        small_chunks(monkeypatch, 4)
        monkeypatch.setattr(build_steps, "_SAMPLE_ROWS", 7)
        encoder = FakeEncoder()
        Index.create(db, "t", corpus(30), encoder=encoder)
        assert sorted(encoder.encoded) == sorted(record["text"] for record in corpus(30))

    @pytest.mark.parametrize("sampled", [2, 20_000])
    def test_truncated_documents_are_counted_whether_sampled_or_not(self, db, monkeypatch, sampled):
        monkeypatch.setattr(build_steps, "_SAMPLE_ROWS", sampled)
        long = [{"id": f"long{i}", "text": "x" * (MAX_TOKENS + 1 + i)} for i in range(4)]
        report = built(Index.create(db, "t", [*corpus(6), *long], encoder=FakeEncoder()))
        tokens = sum(len(record["text"]) for record in corpus(6)) + 4 * MAX_TOKENS
        assert report == BuildReport(rows=10, tokens=tokens, truncated=4)
        assert report.truncated_ids == ["long0", "long1", "long2", "long3"]

    @pytest.mark.parametrize("sampled", [2, 20_000])
    def test_documents_that_the_model_cannot_read_are_counted_whether_sampled_or_not(self, db, monkeypatch, sampled):
        monkeypatch.setattr(build_steps, "_SAMPLE_ROWS", sampled)
        unread = [{"id": f"unread{i}", "text": f"鰯{UNREAD}{i}"} for i in range(7)]
        report = built(Index.create(db, "t", [*corpus(6), *unread], encoder=FakeEncoder()))
        assert (report.unread, sorted(report.unread_ids)[:1], len(report.unread_ids)) == (7, ["unread0"], 5)
        added = Index.open(db, "t", encoder=FakeEncoder()).upsert([{"id": "more", "text": UNREAD}])
        assert (added.unread, added.unread_ids) == (1, ["more"])

    def test_few_documents_are_all_sampled(self):
        positions = build_steps._sample_positions(Scan(300, 300 * 80), 512)
        assert positions.tolist() == list(range(300))

    @pytest.mark.parametrize(
        ("count", "characters_each", "size"),
        [
            (900_000, 2, 400_000),  # as many as there may be
            (50_000, 98, 21_000),  # characters and two more: the vectors of so many fill the sample
            (50_000, 5000, 4101),  # more than the model reads
        ],
    )
    def test_a_sample_is_bounded_in_documents_and_vectors(self, count, characters_each, size):
        positions = build_steps._sample_positions(Scan(count, count * characters_each), 512)
        assert len(positions) == size
        assert (np.diff(positions) > 0).all()
        assert 0 <= positions[0] < positions[-1] < count
        # Uniform: about as many in each tenth.
        assert np.abs(np.histogram(positions, 10, (0, count))[0] / (size / 10) - 1).max() < 0.25

    def test_the_same_documents_are_sampled_again(self):
        first, second = (build_steps._sample_positions(Scan(90_000, 90_000 * 30), 512) for _ in range(2))
        np.testing.assert_array_equal(first, second)


class TestCompress:
    def test_a_document_has_the_codes_it_has_alone(self):
        encoder = FakeEncoder()
        vectors = [encoder.vectors(record["text"]) for record in corpus(40)]
        codec = ResidualCodec.train(np.concatenate(vectors), nbits=2, n_centroids=16)
        together = compress_vectors(vectors, [False] * 40, codec)
        for matrix, code in zip(vectors, together, strict=True):
            (alone,) = compress_vectors([matrix], [False], codec)
            assert (code.centroid_ids, code.residuals) == (alone.centroid_ids, alone.residuals)
            assert code.centroid_cosine == pytest.approx(alone.centroid_cosine, abs=1e-6)
            ids, residuals = codec.encode(matrix)
            assert (code.centroid_ids, code.residuals) == (ids.tobytes(), residuals.tobytes())
            assert code.centroid_cosine == pytest.approx(np.sum(matrix * codec.centroids[ids], axis=1).mean(), abs=1e-6)

    def test_of_nothing_is_nothing(self):
        codec = ResidualCodec.train(FakeEncoder().vectors("abc"), nbits=2, n_centroids=1)
        assert compress_vectors([], [], codec) == []
