"""Real engines as sources of candidates: one contract for all, then what is each one's own."""

from __future__ import annotations

import contextlib
import importlib
import pickle
import socket
import sqlite3
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, cast

import psycopg
import psycopg.sql
import pytest
from psycopg.rows import dict_row
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from tansaku import Candidate, HostError, HostSearch, Index, InputError, MissingExtraError, Reranker, Searcher
from tansaku.plugin.hosts import groonga
from tansaku.plugin.hosts.groonga import GroongaSource
from tansaku.plugin.hosts.lancedb import LanceDBSource
from tansaku.plugin.hosts.postgres import PostgresSource
from tansaku.plugin.hosts.qdrant import QdrantSource, bigram_document, bigram_query
from tansaku.plugin.hosts.sqlite import SqliteSource

from ...support import engines

pytestmark = pytest.mark.engine

DOCUMENTS = [
    {"id": "kinkaku", "title": "金閣寺", "text": "金箔を貼った舎利殿で知られる、京都の禅寺。", "year": 1397},
    {"id": "horyu", "title": "法隆寺", "text": "世界最古の木造建築が残る、奈良の寺院である。", "year": 607},
    {"id": "todai", "title": "東大寺", "text": "奈良の大仏を本尊とする。聖武天皇が建てた。", "year": 728},
    {"id": "udon", "title": "", "text": "讃岐うどんは香川県の名物で、強いコシが特徴です。", "year": 2000},
    {"id": "fuji", "title": "富士山", "text": '日本で最も高い山である。MySQLの"話"ではない。', "year": 2001},
    {"id": "rail", "title": "新幹線", "text": "東京と新大阪の間を結んでいる。", "year": 1964},
]
TEXT_OF = {d["id"]: f"{d['title']} {d['text']}".strip() for d in DOCUMENTS}
QUESTION = "奈良の大仏を本尊とする寺を建てたのはだれですか？"
BOTH = ("title", "text")
# Qdrant is there twice: the local mode of its client, which is Python, and the engine of its server.
ENGINES = ("groonga", "postgres", "qdrant", "qdrant_edge", "sqlite", "lancedb", "mroonga")
# What each engine's own query syntax, SQL or escaping would trip over.
ATTACKS = [
    '"',
    "\\",
    "') OR 1=1 --",
    '大仏" OR "山',
    "大仏\\",
    "title:@ *S() ^ - + ~ < > ( ) {text} NEAR(a b) AND OR NOT",
    "%s %(k)s %%",
    "\0大仏",
    "'; DROP TABLE docs; --",
    "大仏\r\nX: y&table=Terms",
    "？！。",
    "𠮷野家の😀",
]


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    return request.param


@pytest.fixture(scope="module")
def open_source(engine, request):
    """Makes a source over the engine with the documents in it."""
    return request.getfixturevalue(f"{engine}_source")


def started(server):
    """Enters the context of a server, or skips where it is not installed."""
    try:
        return server.__enter__()
    except engines.NotInstalledError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def groonga_url(tmp_path_factory):
    server = engines.groonga(tmp_path_factory.mktemp("groonga"))
    url = started(server)
    try:
        engines.fill_groonga(url, DOCUMENTS)
        yield url
    finally:
        server.__exit__(None, None, None)


@pytest.fixture(scope="module")
def groonga_source(groonga_url):
    return lambda **options: GroongaSource(groonga_url, "Docs", text_columns=BOTH, **options)


@pytest.fixture(scope="module")
def postgres_place():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:  # a socket's path must be short
        server = engines.postgres(Path(name))
        place = started(server)
        try:
            engines.fill_postgres(place, DOCUMENTS)
            yield place
        finally:
            server.__exit__(None, None, None)


@pytest.fixture(scope="module")
def postgres_source(postgres_place):
    return lambda **options: PostgresSource(postgres_place, "docs", text_columns=BOTH, **options)


def filled_qdrant(client):
    engines.fill_qdrant(client, DOCUMENTS)

    def source(with_text=False, **options):
        fields = BOTH if with_text else None
        given = {"using": "bigrams", "id_field": "id", "text_fields": fields, **options}
        return QdrantSource(client, "docs", bigram_query, **given)

    return source


@pytest.fixture(scope="module")
def qdrant_source():
    with contextlib.closing(QdrantClient(":memory:")) as client:
        yield filled_qdrant(client)


def opened_edge(folder) -> QdrantClient:
    """Qdrant's own engine, empty; skips where it is not installed."""
    try:
        from ...support.edge_client import EdgeClient
    except engines.NotInstalledError as error:
        pytest.skip(str(error))
    return cast("QdrantClient", EdgeClient(folder))


@pytest.fixture(scope="module")
def qdrant_edge_source(tmp_path_factory):
    with contextlib.closing(opened_edge(tmp_path_factory.mktemp("edge"))) as client:
        yield filled_qdrant(client)


@pytest.fixture(scope="module")
def sqlite_source(tmp_path_factory):
    path = tmp_path_factory.mktemp("sqlite") / "docs?1.db"
    engines.fill_sqlite(path, DOCUMENTS)
    return lambda **options: SqliteSource(path, "docs", text_columns=BOTH, **options)


@pytest.fixture(scope="module")
def mroonga_place():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:  # a socket's path must be short
        server = engines.mroonga(Path(name))
        place = started(server)
        try:
            engines.fill_mroonga(place, DOCUMENTS)
            yield place
        finally:
            server.__exit__(None, None, None)


@pytest.fixture(scope="module")
def mroonga_source(mroonga_place):
    from tansaku.plugin.hosts.mroonga import MroongaSource

    def source(connect=mroonga_place, table="docs", text_columns=BOTH, **options):
        return MroongaSource(connect, table, text_columns=text_columns, **options)

    return source


@pytest.fixture(scope="module")
def lancedb_source(tmp_path_factory):
    table = engines.fill_lancedb(tmp_path_factory.mktemp("lancedb"), DOCUMENTS)
    return lambda **options: LanceDBSource(table, text_columns=BOTH, **options)


EARLY = models.Filter(must=[models.FieldCondition(key="year", range=models.Range(lt=1000))])
CONDITIONS = {
    "groonga": "year < 1000",
    "postgres": ("year < %(year)s", {"year": 1000}),
    "qdrant": EARLY,
    "qdrant_edge": EARLY,
    "sqlite": ("year < :year", {"year": 1000}),
    "mroonga": ("year < %(year)s", {"year": 1000}),
    "lancedb": "year < 1000",
}
BAD_CONDITIONS = {
    "groonga": "no_such <",
    "postgres": "no_such = 1",
    "qdrant": None,  # there is none: a filter of Qdrant's is a checked object
    "qdrant_edge": None,
    "sqlite": "no_such = 1",
    "mroonga": "no_such = 1",
    "lancedb": "no_such = 1",
}


def found_by(source, query=QUESTION, k=3, where=None):
    return [candidate.id for candidate in source.candidates(query, k, where)]


class TestEveryEngine:
    def test_finds_the_document_that_answers_first(self, open_source):
        found = open_source().candidates(QUESTION, 3)
        assert found[0].id == "todai"
        assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
        assert {c.text for c in found} == {None}

    def test_finds_some_of_the_words_of_a_question(self, open_source):
        assert found_by(open_source(), "世界最古の木造建築が残るのはどの寺ですか")[0] == "horyu"

    @pytest.mark.parametrize("query", ["奈良 香川", "奈良\u3000香川", " 香川　奈良 ", "奈良 香川県の名物"])
    def test_keywords_of_two_characters_are_each_looked_for(self, open_source, query):
        assert {"horyu", "todai", "udon"} <= set(found_by(open_source(), query, 6))

    def test_returns_no_more_than_were_asked_for(self, open_source):
        assert len(open_source().candidates(QUESTION, 1)) == 1

    def test_returns_the_texts_as_our_index_has_them(self, open_source):
        found = open_source(with_text=True).candidates(QUESTION, 6)
        assert {c.id: c.text for c in found} == {c.id: TEXT_OF[c.id] for c in found}

    def test_a_condition_holds_for_all_that_is_found(self, open_source, engine):
        found = found_by(open_source(), "奈良の京都の山", 6, CONDITIONS[engine])
        assert found
        assert set(found) <= {"horyu", "todai"}

    @pytest.mark.parametrize("query", ATTACKS)
    def test_a_query_is_text_and_nothing_else(self, open_source, query):
        source = open_source()
        assert set(found_by(source, query, 10)) <= TEXT_OF.keys()
        assert found_by(source)[0] == "todai"

    def test_a_long_query_is_no_obstacle(self, open_source):
        assert found_by(open_source(), QUESTION * 200)[0] == "todai"

    @pytest.mark.parametrize("query", ["", " \n", None, 3])
    def test_a_query_without_a_word_is_refused(self, open_source, query):
        with pytest.raises(InputError, match="the query"):
            open_source().candidates(query, 3)

    @pytest.mark.parametrize("k", [0, -1])
    def test_a_number_below_one_is_refused(self, open_source, k):
        with pytest.raises(InputError, match=f"k is {k}"):
            open_source().candidates(QUESTION, k)

    def test_several_threads_may_ask(self, open_source):
        source, found = open_source(), []
        threads = [threading.Thread(target=lambda: found.append(found_by(source)[0])) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert found == ["todai"] * 4

    def test_a_pickled_source_is_opened_again(self, open_source, engine):
        if engine in ("qdrant", "qdrant_edge"):
            pytest.skip("this client is in memory or a stand-in; a real one is pickled below")
        source = open_source(with_text=True)
        assert pickle.loads(pickle.dumps(source)).candidates(QUESTION, 3) == source.candidates(QUESTION, 3)

    def test_a_condition_that_cannot_be_used_is_an_error_of_the_host(self, open_source, engine):
        condition = BAD_CONDITIONS[engine]
        if condition is None:
            pytest.skip("no condition of this engine can be wrong")
        with pytest.raises(HostError):
            open_source().candidates(QUESTION, 3, condition)

    def test_maxsim_ranks_what_was_found(self, open_source, default_encoder, tmp_path):
        documents = [{k: d[k] for k in ("id", "title", "text")} for d in DOCUMENTS[:-1]]
        Index.create(tmp_path / "db", "t", documents, encoder=default_encoder)
        reranker = Reranker(searcher=Searcher.open(tmp_path / "db", "t", encoder=default_encoder))
        hits = HostSearch(open_source(with_text=True), reranker).search(QUESTION, k=6)
        assert (hits[0].id, hits[0].host_rank, hits.missing) == ("todai", 1, ())
        assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)


class TestGroonga:
    def test_a_server_that_is_down_is_named(self):
        url = f"http://127.0.0.1:{engines.free_port()}"
        with pytest.raises(HostError, match=url):
            GroongaSource(url, "Docs").candidates(QUESTION, 3)

    def test_a_server_that_does_not_answer_is_given_up(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            source = GroongaSource(f"http://127.0.0.1:{silent.getsockname()[1]}", "Docs", timeout=0.2)
            with pytest.raises(HostError, match="timed out"):
                source.candidates(QUESTION, 3)

    def test_an_unknown_table_is_said(self, groonga_url):
        with pytest.raises(HostError, match="Nowhere"):
            GroongaSource(groonga_url, "Nowhere").candidates(QUESTION, 3)

    def test_an_index_column_may_be_named(self, groonga_url):
        source = GroongaSource(groonga_url, "Docs", text_columns=["Terms.docs_text"])
        assert found_by(source)[0] == "todai"

    def test_words_by_mecab_do_too(self, tmp_path):
        server = engines.groonga(tmp_path)
        url = started(server)
        try:
            engines.fill_groonga(url, DOCUMENTS, tokenizer="TokenMecab")
            assert found_by(GroongaSource(url, "Docs", text_columns=BOTH))[0] == "todai"
        finally:
            server.__exit__(None, None, None)

    @pytest.mark.parametrize("name", ["", "a b", 'x"', "a||b", "1a", None])
    def test_a_name_that_is_none_is_refused(self, name):
        with pytest.raises(InputError):
            GroongaSource("http://127.0.0.1:1", name)
        with pytest.raises(InputError):
            GroongaSource("http://127.0.0.1:1", "Docs", text_columns=[name])

    @pytest.mark.parametrize("url", ["", "file:///etc/passwd", "localhost:10041"])
    def test_only_http_is_spoken(self, url):
        with pytest.raises(InputError, match="URL"):
            GroongaSource(url, "Docs")


class TestPostgres:
    def test_the_index_is_used(self, postgres_place):
        source = PostgresSource(postgres_place, "docs", text_columns=BOTH)
        with psycopg.connect(postgres_place) as connection:
            connection.execute("SET enable_seqscan = off")
            asked = psycopg.sql.SQL("EXPLAIN SELECT id FROM docs ORDER BY 'x' <<-> ({}) LIMIT 1")
            plan = connection.execute(asked.format(source.expression)).fetchall()
        assert any("docs_trigrams" in line for (line,) in plan)

    def test_a_connection_may_come_from_a_pool(self, postgres_place):
        given = []

        def connection():
            given.append(1)
            return psycopg.connect(postgres_place)

        source = PostgresSource(connection, "public.docs", text_columns=BOTH)
        assert (found_by(source)[0], given) == ("todai", [1])

    def test_a_connection_may_give_rows_of_any_kind(self, postgres_place):
        source = PostgresSource(
            lambda: psycopg.connect(postgres_place, row_factory=cast("Any", dict_row)), "docs", text_columns=BOTH
        )
        assert found_by(source)[0] == "todai"
        assert found_by(source, "奈良 大仏")[0] == "todai"

    def test_a_percent_sign_in_a_condition_is_one(self, postgres_place):
        source = PostgresSource(postgres_place, "docs", text_columns=BOTH)
        assert found_by(source, QUESTION, 6, "text LIKE '%大仏%'") == ["todai"]

    def test_a_server_that_is_down_is_an_error_of_the_host(self, tmp_path):
        with pytest.raises(HostError, match="'docs'"):
            PostgresSource(f"host={tmp_path} user=nobody", "docs").candidates(QUESTION, 3)

    def test_a_query_that_takes_too_long_is_cut_off(self, postgres_place):
        source = PostgresSource(postgres_place, "docs", text_columns=BOTH, timeout=0.1)
        with pytest.raises(HostError, match="timeout"):
            source.candidates(QUESTION, 3, "pg_sleep(5) IS NOT NULL")

    def test_a_locale_that_knows_no_japanese_is_said(self, postgres_place):
        with psycopg.connect(postgres_place, autocommit=True) as connection:
            connection.execute("CREATE DATABASE plain TEMPLATE template0 LOCALE 'C'")
        place = postgres_place.replace("dbname=postgres", "dbname=plain")
        engines.fill_postgres(place, DOCUMENTS)
        source = PostgresSource(place, "docs", text_columns=BOTH)
        with pytest.raises(HostError, match=r"LOCALE 'C\.UTF-8'"):
            source.candidates(QUESTION, 3)
        assert found_by(source, "MySQL") == ["fuji"]

    def test_what_shares_nothing_is_not_found(self, postgres_place):
        assert found_by(PostgresSource(postgres_place, "docs", text_columns=BOTH), "？！。") == []

    def test_names_are_quoted(self, postgres_place):
        with pytest.raises(HostError, match="does not exist"):
            PostgresSource(postgres_place, 'docs"; DROP TABLE docs; --').candidates(QUESTION, 3)

    def test_one_column_is_searched_as_it_is(self, postgres_place):
        assert found_by(PostgresSource(postgres_place, "docs", text_columns=["text"]))[0] == "todai"


class TestQdrant:
    @pytest.fixture(params=["local", "edge"])
    def client(self, request, tmp_path):
        with contextlib.closing(QdrantClient(":memory:") if request.param == "local" else opened_edge(tmp_path)) as it:
            yield it

    @pytest.mark.parametrize("grpc", [False, True])
    def test_a_server_that_is_down_is_an_error_of_the_host(self, grpc):
        port = engines.free_port()
        options = {"port": port, "grpc_port": port, "timeout": 2, "check_compatibility": False}
        client = QdrantClient(host="127.0.0.1", prefer_grpc=grpc, **options)
        with pytest.raises(HostError, match="'docs'"):
            QdrantSource(client, "docs", bigram_query).candidates(QUESTION, 3)

    def test_an_unknown_collection_is_said(self):
        with pytest.raises(HostError, match="nowhere"):
            QdrantSource(QdrantClient(":memory:"), "nowhere", bigram_query).candidates(QUESTION, 3)

    def test_points_may_have_our_ids_and_dense_vectors(self, client):
        client.create_collection("d", models.VectorParams(size=2, distance=models.Distance.DOT))
        client.upsert("d", [models.PointStruct(id=i, vector=[i, 1.0]) for i in (1, 2)])
        source = QdrantSource(client, "d", lambda query: [float(len(query)), 0.0])
        assert [(c.id, c.score) for c in source.candidates("ab", 2)] == [("2", 4.0), ("1", 2.0)]

    def test_ids_and_texts_may_lie_in_other_fields(self, client):
        client.create_collection("d", models.VectorParams(size=1, distance=models.Distance.DOT))
        payload = {"page_content": "東大寺", "metadata": {"doc_id": "todai", "year": 728}}
        client.upsert("d", [models.PointStruct(id=1, vector=[1.0], payload=payload)])
        names = {"id_field": "metadata.doc_id", "text_fields": ["page_content"]}
        source = QdrantSource(client, "d", lambda _: [1.0], **names)
        assert source.candidates(QUESTION, 1) == [Candidate("todai", 1.0, "東大寺")]
        nothing = QdrantSource(client, "d", lambda _: [1.0], **{**names, "text_fields": ["content"]})
        assert HostSearch(nothing, Reranker()).search(QUESTION).missing == ("todai",)
        whole = QdrantSource(client, "d", lambda _: [1.0], with_payload=True, **names)
        assert [hit.payload for hit in HostSearch(whole, Reranker()).search(QUESTION)] == [payload]
        where = {"must": [{"key": "metadata.year", "range": {"lt": 700}}]}
        assert source.candidates(QUESTION, 1, where) == []
        with pytest.raises(InputError, match=r"where is no filter of Qdrant's: .*mast"):
            source.candidates(QUESTION, 1, {"mast": []})

    def test_a_pickled_source_makes_its_client_again(self, tmp_path):
        with contextlib.closing(QdrantClient(path=str(tmp_path))) as client:
            source = filled_qdrant(client)()
            found, pickled = source.candidates(QUESTION, 3), pickle.dumps(source)
        again = pickle.loads(pickled)
        with contextlib.closing(again.client):
            assert again.candidates(QUESTION, 3) == found

    def test_a_client_in_memory_is_not_pickled(self, qdrant_source):
        with pytest.raises(InputError, match="in memory cannot be pickled"):
            pickle.dumps(qdrant_source())

    def test_an_asynchronous_client_is_refused_by_name(self):
        with pytest.raises(InputError, match=r"AsyncQdrantClient; give a QdrantClient.*asearch"):
            QdrantSource(AsyncQdrantClient(":memory:"), "d", bigram_query)  # pyright: ignore[reportArgumentType]

    def test_the_engine_itself_scores_as_the_local_mode(self, qdrant_source, qdrant_edge_source):
        local, real = (source().candidates(QUESTION, 6) for source in (qdrant_source, qdrant_edge_source))
        assert [c.id for c in real] == [c.id for c in local]
        assert [c.score for c in real] == pytest.approx([c.score for c in local], rel=1e-4)

    def test_a_point_without_the_field_is_named(self, qdrant_source):
        with pytest.raises(HostError, match="no 'doc_id'"):
            qdrant_source(id_field="doc_id").candidates(QUESTION, 3)

    def test_bigrams_are_of_normalized_words(self):
        assert bigram_query("ｷﾞﾝｶｸ 寺").indices == bigram_query("ギンカク 寺").indices
        assert len(bigram_document("山山山山", 4.0).indices) == 1
        assert bigram_document("山", 1.0).values == [pytest.approx(1.0)]


class TestSqlite:
    @pytest.mark.parametrize(
        ("query", "found"), [("大仏", "todai"), ("大仏 ", "todai"), ("うど", "udon"), ("sq", "fuji")]
    )
    def test_a_word_too_short_for_a_trigram_is_found_as_it_is(self, sqlite_source, query, found):
        assert found_by(sqlite_source(), query) == [found]

    def test_a_short_word_counts_as_much_as_a_trigram_that_is_as_rare(self, sqlite_source):
        scores = {c.id: c.score for c in sqlite_source().candidates("奈良 大仏を 香川", 6)}
        assert scores["todai"] > scores["udon"] > scores["horyu"] > 0

    def test_a_condition_holds_for_short_words_and_trigrams(self, sqlite_source):
        where = ("year > :year", {"year": 700})
        assert found_by(sqlite_source(), "奈良 大仏を 世界最古", 6, where) == ["todai"]

    def test_signs_divide_words_that_are_too_short(self, sqlite_source):
        assert set(found_by(sqlite_source(), "奈良、うど", 6)) == {"horyu", "todai", "udon"}

    def test_only_the_columns_named_are_searched(self, sqlite_source):
        path = sqlite_source().db
        assert found_by(SqliteSource(path, "docs", text_columns=["title"]), "東大寺の大仏") == ["todai"]
        assert found_by(SqliteSource(path, "docs", text_columns=["title"]), "聖武天皇") == []

    def test_a_connection_is_used_as_it_is(self, sqlite_source):
        with contextlib.closing(sqlite3.connect(sqlite_source().db)) as connection:
            assert found_by(SqliteSource(connection, "docs", id_column="rowid"))[0] == "3"

    def test_a_connection_may_give_rows_of_any_kind(self, sqlite_source):
        with contextlib.closing(sqlite3.connect(sqlite_source().db)) as connection:
            connection.row_factory = lambda _, row: {"row": row}
            source = SqliteSource(connection, "docs", text_columns=BOTH)
            assert (found_by(source)[0], found_by(source, "大仏")) == ("todai", ["todai"])
            assert found_by(pickle.loads(pickle.dumps(source)))[0] == "todai"

    def test_a_database_in_memory_is_not_pickled(self):
        connection = sqlite3.connect(":memory:")
        with contextlib.closing(connection), pytest.raises(InputError, match="in memory cannot be pickled"):
            pickle.dumps(SqliteSource(connection, "docs"))

    @pytest.mark.parametrize("kind", ["TABLE", "VIRTUAL TABLE"])
    def test_a_table_of_another_tokenizer_is_said_where_nothing_is_found(self, tmp_path, kind):
        with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as connection:
            columns = "(id, text)" if kind == "TABLE" else "USING fts5(id, text)"
            connection.execute(f"CREATE {kind} docs {columns}")
            connection.execute("INSERT INTO docs VALUES ('todai', '東大寺の大仏')")
            connection.commit()
        with pytest.raises(HostError, match="'docs'"):
            SqliteSource(tmp_path / "x.db", "docs").candidates("奈良の大仏", 3)

    def test_a_file_that_is_not_there_is_not_made(self, tmp_path):
        with pytest.raises(HostError, match="unable to open"):
            SqliteSource(tmp_path / "none.db", "docs").candidates(QUESTION, 3)
        assert not (tmp_path / "none.db").exists()

    def test_a_query_that_takes_too_long_is_cut_off(self, sqlite_source):
        endless = "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n) > 0"
        with pytest.raises(HostError, match="interrupted"):
            sqlite_source(timeout=0.1).candidates(QUESTION, 3, endless)

    def test_names_are_quoted(self, sqlite_source):
        with pytest.raises(HostError, match="no such"):
            SqliteSource(sqlite_source().db, 'docs"; DROP TABLE docs; --').candidates(QUESTION, 3)


class TestMroonga:
    def test_words_by_mecab_do_too(self, mroonga_place, mroonga_source):
        engines.fill_mroonga(mroonga_place, DOCUMENTS, "mecab", "TokenMecab")
        assert found_by(mroonga_source(table="tests.mecab"))[0] == "todai"

    @pytest.mark.parametrize("query", ["大仏", "うど"])
    def test_a_word_of_two_characters_is_found(self, mroonga_source, query):
        assert found_by(mroonga_source(), query) == [{"大仏": "todai", "うど": "udon"}[query]]

    def test_a_connection_of_any_kind_is_used_as_it_is(self, mroonga_place, mroonga_source):
        import pymysql.cursors

        with pymysql.connect(**mroonga_place, cursorclass=pymysql.cursors.DictCursor) as connection:
            source = mroonga_source(lambda: contextlib.nullcontext(connection))
            assert [found_by(source)[0] for _ in range(2)] == ["todai", "todai"]

    def test_a_percent_sign_in_a_condition_is_one(self, mroonga_source):
        assert found_by(mroonga_source(), QUESTION, 6, "text LIKE '%大仏%'") == ["todai"]

    def test_a_value_is_no_sql(self, mroonga_source):
        assert found_by(mroonga_source(), QUESTION, 6, ("id = %(id)s", {"id": "' OR 1=1 -- \\"})) == []

    def test_a_query_that_takes_too_long_is_cut_off(self, mroonga_source):
        with pytest.raises(HostError, match="max_statement_time"):
            mroonga_source(timeout=0.1).candidates(QUESTION, 3, "SLEEP(5) = 0")

    def test_columns_without_an_index_are_said(self, mroonga_source):
        with pytest.raises(HostError, match="FULLTEXT"):
            mroonga_source(text_columns=["text"]).candidates(QUESTION, 3)

    def test_a_server_that_is_down_is_an_error_of_the_host(self, mroonga_source):
        with pytest.raises(HostError, match="'docs'"):
            mroonga_source({"host": "127.0.0.1", "port": engines.free_port()}).candidates(QUESTION, 3)

    def test_names_are_quoted(self, mroonga_source):
        with pytest.raises(HostError, match="doesn't exist"):
            mroonga_source(table="docs`; DROP TABLE docs; -- %s").candidates(QUESTION, 3)


class TestLanceDB:
    def test_an_unknown_column_is_refused(self, lancedb_source):
        with pytest.raises(InputError, match="no column 'body'"):
            LanceDBSource(lancedb_source().table, text_columns=["body"])

    def test_a_column_without_an_index_is_refused(self, lancedb_source):
        with pytest.raises(InputError, match="no full text index over 'id'"):
            LanceDBSource(lancedb_source().table, text_columns=["id"])

    def test_ngrams_do_too(self, tmp_path):
        table = engines.fill_lancedb(tmp_path, DOCUMENTS, tokenizer="ngram")
        assert found_by(LanceDBSource(table, text_columns=BOTH))[0] == "todai"


@pytest.mark.parametrize("columns", ["text", [], [""], [None], ["a\0b"]])
def test_columns_that_cannot_be_are_refused(columns):
    with pytest.raises(InputError):
        SqliteSource("x.db", "docs", text_columns=columns)


# Engine -> the package that its extra installs, and the extra.
PACKAGES = {
    "postgres": ("psycopg", "postgres"),
    "qdrant": ("qdrant_client", "qdrant"),
    "mroonga": ("pymysql", "mroonga"),
}


def test_every_engine_has_its_part_in_these_tests():
    folder = Path(groonga.__file__).parent
    code = {path.stem: path.read_text("utf-8") for path in folder.glob("[!_]*.py")}
    engines_there = {name for name, text in code.items() if "Source[" in text}
    assert set(ENGINES) == CONDITIONS.keys() == BAD_CONDITIONS.keys() == engines_there | {"qdrant_edge"}
    assert {name for name in engines_there if "MissingExtraError(" in code[name]} == PACKAGES.keys()


@pytest.mark.parametrize(("module", "package", "extra"), [(name, *names) for name, names in PACKAGES.items()])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, module, package, extra):
    monkeypatch.delitem(sys.modules, f"tansaku.plugin.hosts.{module}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"tansaku\[{extra}\]"):
        importlib.import_module(f"tansaku.plugin.hosts.{module}")
