"""The vectors of pgvector as a source of candidates, on a server with HNSW and IVFFlat indexes that stop early."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import numpy as np
import psycopg
import pytest

from tansaku import HostError, HostSearch, InputError, Reranker
from tansaku.plugin.hosts.postgres import PostgresSource

from ...support import engines

pytestmark = pytest.mark.engine

DIM, ROWS = 8, 2000
FORCED = "-c enable_seqscan=off -c enable_sort=off"  # as on a large table, where the planner takes the index
TINY = [("a", [1, 0], "東大寺"), ("b", [0.6, 0.8], "法隆寺"), ("c", [0, 2], "新幹線"), ("none", None, "無")]


@pytest.fixture(scope="module")
def place():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:  # a socket's path must be short
        try:
            server = engines.postgres(Path(name), programs=engines.pgvector_programs())
            opened = server.__enter__()
        except engines.NotInstalledError as error:
            pytest.skip(str(error))
        try:
            fill(opened)
            yield opened
        finally:
            server.__exit__(None, None, None)


def fill(place: str) -> None:
    """Rows near and far from a corner: the rows of the year 1 are the farthest of all."""
    vectors = np.random.default_rng(1).normal(size=(ROWS, DIM)) * 0.1 + 1
    vectors[-30:] = -vectors[-30:]
    with psycopg.connect(place) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE EXTENSION vector")
        for table, kind, index in (
            ("large", "vector", "hnsw (v vector_cosine_ops)"),
            ("half", "halfvec", "hnsw (v halfvec_cosine_ops)"),
            ("lists", "vector", "ivfflat (v vector_cosine_ops) WITH (lists = 20)"),
        ):
            cursor.execute(f"CREATE TABLE {table} (id int, year int, v {kind}({DIM}))".encode())
            with cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy:
                for i, vector in enumerate(vectors):
                    copy.write_row((i, int(i >= ROWS - 30), str(vector.tolist())))
            cursor.execute(f"CREATE INDEX ON {table} USING {index}".encode())
        cursor.execute("CREATE TABLE tiny (id text, 埋込 vector(2), text text)")
        cursor.executemany("INSERT INTO tiny VALUES (%s, %s::vector, %s)", [(i, v and str(v), t) for i, v, t in TINY])


def source_of(place, table="large", options=FORCED, **given):
    given = {"vector_column": "v", "query_vector": lambda _: np.ones(DIM, np.float32), **given}
    return PostgresSource(f"{place} options='{options}'", table, **given)


def tiny(place, **given):
    given = {"vector_column": "埋込", "query_vector": lambda _: [2, 0], **given}
    return PostgresSource(place, "tiny", **given)


def test_a_connection_string_connects_once(place):
    source = tiny(f"{place} application_name=once")

    def processes():
        with psycopg.connect(place) as connection:
            statement = "SELECT pid FROM pg_stat_activity WHERE application_name = 'once'"
            return {pid for (pid,) in connection.execute(statement)}

    source.candidates("東", 2)
    first = processes()
    source.candidates("東", 2)
    assert len(first) == 1
    assert processes() == first
    source.close()
    assert source.candidates("東", 1)[0].id == "a"


@pytest.mark.parametrize(
    ("distance", "found"),
    [
        ("cosine", [("a", 1.0), ("b", 0.6), ("c", 0.0)]),
        ("inner_product", [("a", 2.0), ("b", 1.2), ("c", 0.0)]),
        ("l2", [("a", -1.0), ("b", -(2.6**0.5)), ("c", -(8**0.5))]),
        ("l1", [("a", -1.0), ("b", -2.2), ("c", -4.0)]),
    ],
)
def test_the_nearest_vectors_come_first(place, distance, found):
    candidates = tiny(place, distance=distance).candidates("寺", 9)
    assert [c.id for c in candidates] == [doc_id for doc_id, _ in found]
    assert [c.score for c in candidates] == pytest.approx([score for _, score in found], abs=1e-6)


def test_conditions_and_texts_are_as_with_trigrams(place):
    where = ("text LIKE %(end)s", {"end": "%寺"})
    found = tiny(place, with_text=True).candidates("寺", 9, where)
    assert [(c.id, c.text) for c in found] == [("a", "東大寺"), ("b", "法隆寺")]
    hits = HostSearch(tiny(place, with_text=True), Reranker()).search("法隆寺", k=1)
    assert (hits[0].id, hits[0].host_rank) == ("b", 2)


@pytest.mark.parametrize("table", ["large", "half", "lists"])
@pytest.mark.parametrize(("where", "k"), [(None, 150), ("year = 1", 20)])
def test_an_index_that_stops_early_is_scanned_until_there_are_enough(place, table, where, k):
    source = source_of(place, table)
    with psycopg.connect(str(source.connect)) as connection:
        alone = f"SELECT id FROM {table} WHERE {where or 'true'} ORDER BY v <=> '{[1] * DIM}' LIMIT {k}"  # noqa: S608
        assert len(connection.execute(alone.encode()).fetchall()) < k  # what the index gives by itself
    found = source.candidates("寺", k, where)
    assert len({c.id for c in found}) == k
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)


@pytest.mark.parametrize("older", [False, True])
def test_all_rows_are_compared_where_even_that_ends_early(place, older, monkeypatch):
    if older:
        monkeypatch.setattr("tansaku.plugin.hosts._pgvector._ITERATIVE", (99,))
    source = source_of(place, options=f"{FORCED} -c hnsw.max_scan_tuples=1 -c hnsw.ef_search=50")
    exact = source_of(place, options="-c enable_indexscan=off")
    expected = [c.id for c in exact.candidates("寺", 30, "year = 1")]
    assert [c.id for c in source.candidates("寺", 30, "year = 1")] == expected
    assert len(source.candidates("寺", 40, "year = 1")) == 30  # there are no more


def test_a_connection_keeps_its_settings(place):
    with psycopg.connect(f"{place} options='-c hnsw.ef_search=77'", autocommit=True) as connection:
        lent = PostgresSource(
            lambda: contextlib.nullcontext(connection), "large", vector_column="v", query_vector=lambda _: [1.0] * DIM
        )
        assert len(lent.candidates("寺", 100)) == 100
        asked = connection.execute("SELECT current_setting('hnsw.ef_search'), current_setting('hnsw.iterative_scan')")
        assert asked.fetchone() == ("77", "off")


@pytest.mark.parametrize("vector", [[], [0.0, 0.0], [float("nan"), 1.0], ["x"], None, [[1.0, 2.0]]])
def test_what_is_no_vector_is_refused(place, vector):
    with pytest.raises(InputError, match="query_vector gave"):
        tiny(place, query_vector=lambda _: vector).candidates("寺", 1)


def test_a_vector_of_another_length_is_an_error_of_the_host(place):
    with pytest.raises(HostError, match=r"different vector dimensions 2 and 3"):
        tiny(place, query_vector=lambda _: [1, 2, 3]).candidates("寺", 1)


def test_a_database_without_pgvector_is_said(place):
    with psycopg.connect(place, autocommit=True) as connection:
        connection.execute("CREATE DATABASE plain")
    with pytest.raises(HostError, match="CREATE EXTENSION vector"):
        tiny(place.replace("dbname=postgres", "dbname=plain")).candidates("寺", 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vector_column": "v"}, "both"),
        ({"query_vector": list}, "both"),
        ({"vector_column": "", "query_vector": list}, "''"),
        ({"distance": "hamming"}, "unknown distance 'hamming'; use one of cosine, inner_product, l2, l1"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        PostgresSource("dbname=none", "docs", **options)
