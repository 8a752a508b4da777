"""The options of a search: recall, filters, many queries at once; against the exhaustive ranking of the codes."""

from __future__ import annotations

import numpy as np
import pytest
from lancedb.table import LanceTable

from tansaku import Index, InputError, Searcher

from ...support.fakes import DIM, FakeEncoder, corpus, exhaustive

QUERIES = ["02468ace", "d", "ffee01", "0123456789abcdef" * 3]


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    folder = tmp_path_factory.mktemp("options")
    records = corpus(1500, year=lambda i: 1000 + i, kind=lambda i: "寺;社"[i % 3])
    index = Index.create(
        folder, "t", [{**record, "it's": i % 2} for i, record in enumerate(records)], encoder=FakeEncoder()
    )
    index.delete([f"d{i}" for i in range(0, 1500, 10)])
    index.add([{**record, "it's": 0} for record in corpus(30, "e", year=lambda i: 3000 + i, kind=lambda i: "寺")])
    return folder


@pytest.fixture(scope="module")
def searcher(db):
    return Searcher.open(db, "t", encoder=FakeEncoder())


@pytest.fixture(scope="module")
def full(db):
    """Query → all ids and scores, best first."""
    return {query: exhaustive(db, FakeEncoder().vectors(query)) for query in QUERIES}


def assert_is(hits, ranking, k):
    assert [hit.id for hit in hits] == [doc_id for doc_id, _ in ranking[:k]]
    np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in ranking[:k]], atol=1e-4)


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("derived", [True, False])
def test_exact_is_the_exhaustive_ranking(db, full, query, derived):
    hits = Searcher.open(db, "t", encoder=FakeEncoder(), derived=derived).search(query, 40, recall="exact")
    assert_is(hits, full[query], 40)
    assert hits.scored == 1380


@pytest.mark.parametrize("recall", ["fast", "balanced"])
def test_likely_documents_are_scored_as_in_the_exhaustive_ranking(searcher, full, recall):
    found = 0
    for query in QUERIES:
        scores = dict(full[query])
        hits = searcher.search(query, 10, recall=recall)
        assert 64 < hits.scored <= {"fast": 256, "balanced": 1024}[recall]
        np.testing.assert_allclose([hit.score for hit in hits], [scores[hit.id] for hit in hits], atol=1e-4)
        found += len({hit.id for hit in hits} & {doc_id for doc_id, _ in full[query][:10]})
    assert found >= {"fast": 28, "balanced": 32}[recall]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize(
    ("where", "holds"),
    [
        ("year >= 2480", lambda i: 1000 + i >= 2480),
        ("year = 1777", lambda i: i == 777),
        ("kind = ';' AND year < 1100", lambda i: i % 3 == 1 and i < 100),
        ("year IN (1003, 1005) OR id = 'd77'", lambda i: i in (3, 5, 77)),
    ],
)
def test_a_condition_leaves_what_filtering_the_exhaustive_ranking_leaves(searcher, full, query, where, holds):
    expected = [
        (doc_id, score)
        for doc_id, score in full[query]
        if (holds(int(doc_id[1:])) if doc_id[0] == "d" else where == "year >= 2480")
    ]
    hits = searcher.search(query, 500, where=where)
    assert_is(hits, expected, 500)
    assert len(hits) == len(expected) > 0


def test_ids_leave_theirs_and_the_missing_are_named(searcher, full):
    ids = ["d7", "e3", "d10", "d7", "nowhere", "d8"]
    hits = searcher.search(QUERIES[0], 10, ids=ids)
    assert_is(hits, [entry for entry in full[QUERIES[0]] if entry[0] in ids], 10)
    assert hits.missing == ("d10", "nowhere")
    assert (searcher.search("d", ids=[]), searcher.search("d", ids=["nowhere"])) == ([], [])


def test_a_condition_and_ids_hold_both(searcher):
    hits = searcher.search("d", 10, where="year < 1006", ids=["d3", "d5", "d700", "e1"])
    assert {hit.id for hit in hits} == {"d3", "d5"}


def test_ids_are_data_and_no_condition(searcher):
    assert searcher.search("d", ids=["d1' OR 'a' = 'a", 'd1" OR 1=1', "d1; --"]) == []


def test_ten_thousands_of_ids_are_as_good_as_few(searcher, full):
    ids = [f"x{i}" for i in range(25_000)] + ["d1", "e2"]
    hits = searcher.search("d", 5, ids=ids)
    assert_is(hits, [entry for entry in full["d"] if entry[0] in ("d1", "e2")], 5)
    assert len(hits.missing) == 25_000


def test_ids_of_an_index_of_passages_are_those_of_documents(tmp_path):
    records = [{"id": "long", "text": "0123. 4567. 89ab. cdef."}, {"id": "short", "text": "0123."}]
    Index.create(tmp_path, "t", records, encoder=FakeEncoder(), passage_tokens=6)
    searcher = Searcher.open(tmp_path, "t", encoder=FakeEncoder())
    hits = searcher.search("0123", 10, ids=["long", "none"], passages=True)
    assert len(hits) > 1
    assert {hit.fields["parent_id"] for hit in hits} == {"long"}
    assert hits.missing == ("none",)
    assert [hit.id for hit in searcher.search("0123", 10, ids=["long", "none"])] == ["long"]


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
    folder = tmp_path_factory.mktemp("passages")
    texts = [". ".join(f"{(7 * i + j) % 997:04x}" for j in range(2 + i % 9)) + "." for i in range(300)]
    records = [{"id": f"d{i}", "text": text} for i, text in enumerate(texts)]
    # All its passages come before those of others.
    records.append({"id": "many", "text": ". ".join(f"0123{j:x}" for j in range(60)) + "."})
    records.append({"id": "many#3", "text": "cafe."})  # as a passage is called
    Index.create(folder, "t", records, encoder=FakeEncoder(), passage_tokens=6, fulltext=True)
    return Searcher.open(folder, "t", encoder=FakeEncoder())


class TestPassages:
    """Hits of an index of passages are documents, unless passages are asked for."""

    @pytest.mark.parametrize(
        "options",
        [
            {"recall": "exact"},
            {"recall": "balanced", "candidates": 10_000, "nprobe": 10_000},
            {"source": "fused", "bm25_weight": 0.5, "recall": "exact"},
        ],
    )
    def test_a_document_has_its_best_passage_and_its_place_among_them(self, divided, options):
        every = divided.search("0123", 10_000, passages=True, **options)
        best: dict[str, tuple[float, str]] = {}
        for hit in every:
            best.setdefault(hit.fields["parent_id"], (hit.score, hit.text))
        for k in (1, 10, 100):
            hits = divided.search("0123", k, **options)
            np.testing.assert_allclose(
                [hit.score for hit in hits], [score for score, _ in list(best.values())[:k]], atol=1e-4
            )
            assert [(hit.id, hit.text) for hit in hits] == [(d, text) for d, (_, text) in list(best.items())[:k]]

    def test_there_are_as_many_documents_as_asked_for(self, divided):
        hits = divided.search("0123", 5)
        assert len({hit.id for hit in hits}) == 5
        rows, _ = divided.rank_vectors(FakeEncoder().vectors("0123"), 5)
        assert divided.document_ids(rows) == [hit.id for hit in hits]
        assert len(divided.search("0123", 1000)) == 302

    def test_the_ids_of_hits_can_be_searched_read_scored_and_explained(self, divided):
        for passages in (False, True):
            first, *_, last = divided.search("0123", 7, passages=passages)
            again = divided.search("0123", ids=[last.id, first.id], passages=passages)
            assert [hit.id for hit in again] == [first.id, last.id]
            assert first.text in divided.read([first.id])[0].text
            np.testing.assert_allclose(divided.score("0123", [first.id]), [first.score], atol=1e-4)
            explained = divided.explain("0123", first.id)
            assert (explained.text, round(explained.score, 3)) == (first.text, round(first.score, 3))
            assert divided.unknown([first.id, "many#999"]) == ["many#999"]

    def test_an_id_of_both_a_document_and_a_passage_is_the_documents(self, divided):
        assert [document.text for document in divided.read(["many#3", "many#4"])] == ["cafe.", "01234."]

    def test_without_passages_the_option_changes_nothing(self, tmp_path):
        Index.create(tmp_path, "t", corpus(5), encoder=FakeEncoder())
        searcher = Searcher.open(tmp_path, "t", encoder=FakeEncoder())
        assert searcher.search("d", passages=True) == searcher.search("d")

    def test_passages_is_true_or_false(self, divided):
        with pytest.raises(InputError, match="passages is 'no'; use True or False"):
            divided.search("d", passages="no")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"where": "nosuch = 1"}, "nosuch"),
        ({"where": "year >"}, "cannot be used"),
        ({"where": "year"}, "boolean"),
        ({"where": " "}, "empty"),
        ({"where": "year > 1; DROP TABLE t"}, "semicolon"),
        ({"where": "1" + "+1" * 1000 + " > 1"}, "is not part of conditions"),
        ({"where": "true" + "=(true OR false)" * 1000}, "not expected here"),
        ({"where": "id" + " IS NULL" * 2000}, "not expected here"),
        ({"ids": "d1"}, "one string"),
        ({"recall": "all"}, "unknown recall 'all'; use fast, balanced, exact or a number"),
        ({"k": 0, "recall": "exact"}, "k is 0"),
    ],
)
def test_what_cannot_be_used_is_named(searcher, options, said):
    with pytest.raises(InputError, match=said):
        searcher.search("d", **options)


def test_an_unknown_option_is_named(searcher):
    with pytest.raises(TypeError, match="'nprob'"):
        searcher.search("d", nprob=3)


def test_a_condition_may_be_long_where_its_parts_are_short(searcher):
    any_of = " OR ".join(f"(year = {year} AND id <> 'x')" for year in range(300, 2500))
    listed = ", ".join(str(year) for year in range(9000))
    where = f"({any_of}) AND year IN ({listed})"
    assert searcher.search("d", where=where, recall="exact") == searcher.search("d", recall="exact")


def test_a_condition_that_nothing_fulfils_finds_nothing(searcher):
    hits = searcher.search("d", where="year < 0")
    assert (hits, hits.scored) == ([], 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused(searcher, value):
    query = FakeEncoder().vectors("0123")
    query[2, 1] = value
    with pytest.raises(InputError, match="not finite"):
        searcher.search_vectors(query)


@pytest.mark.parametrize("shape", [(0, DIM), (DIM,), (1, 2, DIM), (3, DIM + 1)])
def test_vectors_of_another_shape_are_refused(searcher, shape):
    with pytest.raises(InputError, match="expected"):
        searcher.search_vectors(np.ones(shape, np.float32))


def test_queries_of_any_length_rank_as_the_codes_do(db, searcher):
    random = np.random.default_rng(4)
    for n_tokens in (1, 15, 16, 17, 32, 33, 64, 600):
        query = random.normal(size=(n_tokens, DIM)).astype(np.float32)
        query /= np.linalg.norm(query, axis=1, keepdims=True)
        hits = searcher.search_vectors(query, 5, recall="exact")
        expected = exhaustive(db, query)
        assert [hit.id for hit in hits] == [doc_id for doc_id, _ in expected[:5]]
        likely = searcher.search_vectors(query, 5)
        assert len({hit.id for hit in hits} & {hit.id for hit in likely}) >= 4


def test_k_beyond_the_index_returns_everything_with_few_candidates_too(searcher):
    assert len(searcher.search("d", 5000)) == 1380
    assert len(searcher.search("d", 5000, candidates=100)) == 100


def test_many_queries_at_once_are_as_each_alone(searcher):
    queries = [*QUERIES, *QUERIES[:2]]
    together = searcher.search_many(queries, 7, threads=3, where="year >= 1100")
    assert together == [searcher.search(query, 7, where="year >= 1100") for query in queries]
    assert searcher.search_many([], 7) == []
    with pytest.raises(InputError, match="empty"):
        searcher.search_many(["d", " "])


def test_the_hits_say_how_they_were_found(searcher):
    hits = searcher.search("d", 3)
    assert list(hits.stages) == ["encode", "filter", "layout", "tables", "probe", "gather", "prune", "refine", "fetch"]
    assert all(value >= 0 for value in hits.stages.values())
    assert hits.version == searcher.version


def test_a_text_asked_again_is_not_encoded_again(db):
    encoder = FakeEncoder()
    asked = []
    searcher = Searcher.open(db, "t", encoder=encoder)
    encode = encoder.encode_query_tokens
    encoder.encode_query_tokens = lambda tokenized: asked.extend(tokenized) or encode(tokenized)
    first = searcher.search("0123", 3)
    assert searcher.search("0123", 3) == first
    assert len(asked) == 1


@pytest.mark.integration
class TestFields:
    """What is read of each hit; which hits there are does not depend on it."""

    def test_all_are_read_unless_some_are_named(self, searcher):
        whole = searcher.search("d", 3)
        assert [set(hit.fields) for hit in whole] == [{"year", "kind", "it's"}] * 3
        assert all(hit.text for hit in whole)
        for fields in (["year"], ("it's", "year", "year"), ["text"], ["title", "kind"], ["id", "score"], []):
            hits = searcher.search("d", 3, fields=fields)
            for hit, expected in zip(hits, whole, strict=True):
                assert (hit.id, hit.score) == (expected.id, expected.score)
                assert hit.text == (expected.text if "text" in fields else "")
                assert hit.fields == {name: value for name, value in expected.fields.items() if name in fields}
            assert searcher.search_many(["d"], 3, fields=fields) == [hits]
            assert searcher.search_vectors(FakeEncoder().vectors("d"), 3, fields=fields) == hits

    def test_ids_and_scores_alone_need_no_table(self, db, monkeypatch):
        searcher = Searcher.open(db, "t", encoder=FakeEncoder())
        expected = [hit.id for hit in searcher.search("d", where="year < 1900")]
        for read in ("search", "take_row_ids", "schema", "version"):
            monkeypatch.setattr(LanceTable, read, property(lambda self: pytest.fail("the table is read")))
        assert [hit.id for hit in searcher.search("d", where="year < 1900", fields=[])] == expected

    def test_a_name_that_hits_do_not_have_is_named_with_those_they_have(self, searcher, divided):
        said = "table 't': hits have no field 'yaer'; use id, score, title, text, year, kind, it's; did you mean 'year'"
        with pytest.raises(InputError, match=said):
            searcher.search("d", fields=["year", "yaer"])
        for hidden in ("residuals", "write_id", "snippet", "parent_id"):
            with pytest.raises(InputError, match=f"no field '{hidden}'"):
                searcher.search("d", fields=[hidden])
        with pytest.raises(InputError, match="one string, 'year'"):
            searcher.search("d", fields="year")

    def test_of_passages_their_place_can_be_named(self, divided):
        for passages in (False, True):
            whole = divided.search("0123", 5, passages=passages)
            hits = divided.search("0123", 5, passages=passages, fields=["passage"])
            assert [hit.id for hit in hits] == [hit.id for hit in whole]
            assert [hit.fields for hit in hits] == [{"passage": hit.fields["passage"]} for hit in whole]

    def test_a_column_may_have_the_name_of_what_hits_always_have(self, tmp_path):
        Index.create(tmp_path, "t", [{"id": "a", "text": "0123", "score": 7}], encoder=FakeEncoder())
        (hit,) = Searcher.open(tmp_path, "t", encoder=FakeEncoder()).search("0", fields=["score"])
        assert (hit.fields, hit.text) == ({"score": 7}, "")
        assert hit.score != 7
