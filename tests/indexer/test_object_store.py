"""Indexes in an object store: tansaku over s3:// against moto's S3 server, through LanceDB's own storage options."""

from __future__ import annotations

import json
import logging
import os
import pickle
import socket
import subprocess
import sysconfig
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from lancedb.db import DBConnection
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from tansaku import Encoder, Hit, Index, Searcher, StorageError, TableExistsError, TableNotFoundError
from tansaku.indexer.derived.array_files import arrays_folder
from tansaku.indexer.table.conditional_writes import check_conditional_writes
from tansaku.indexer.table.database import connect
from tansaku.indexer.table.table import open_index_table

from ..support.environment import use_cache

pytestmark = pytest.mark.engine

TANSAKU = Path(sysconfig.get_path("scripts")) / "tansaku"
KEY, SECRET = "AKIATANSAKUTESTKEY00", "wJalrXUtnFEMI-K7MDENG-bPxRfiCYSECRETKEY00"
DOCUMENTS = [
    {"id": "kinkaku", "title": "金閣寺", "text": "金箔を貼った舎利殿で知られる、京都の禅寺。", "year": 1397},
    {"id": "horyu", "title": "法隆寺", "text": "世界最古の木造建築が残る、奈良の寺院である。", "year": 607},
    {"id": "todai", "title": "東大寺", "text": "奈良の大仏を本尊とする。", "year": 728},
    {"id": "udon", "text": "讃岐うどんは香川県の名物で、強いコシが特徴です。"},
    {"id": "fuji", "text": "富士山は日本で最も高い山である。"},
    {"id": "rail", "text": "新幹線は東京と新大阪の間を結んでいる。"},
]
QUERY = "大仏があるのはどこ？"

Refusal = tuple[str, str]  # HTTP status and S3's code
FORBIDDEN: Refusal = ("403 Forbidden", "AccessDenied")


class InterruptedHereError(Exception):
    """Stands for whatever ends a build half way."""


class Store:
    """An S3 server in this process that knows one access key.

    Attributes:
        url: its endpoint.
        refuse: called with each request's WSGI environment; returns what the request is refused with, if it is.
    """

    def __init__(self) -> None:
        self.refuse: Callable[[dict[str, Any]], Refusal | None] = lambda request: None
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._buckets = 0
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def new_bucket(self) -> str:
        """Make a bucket; returns its name."""
        self._buckets += 1
        name = f"bucket-{self._buckets}"
        urllib.request.urlopen(self._request("PUT", name)).close()  # noqa: S310
        return name

    def listing(self, bucket: str) -> urllib.request.Request:
        """The request whose answer has all keys of a bucket."""
        return self._request("GET", f"{bucket}?list-type=2")

    def _request(self, method: str, path: str) -> urllib.request.Request:
        signed = {"Authorization": f"AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1/s3/aws4_request"}
        return urllib.request.Request(f"{self.url}/{path}", method=method, headers=signed)  # noqa: S310

    def options(self, **changes: str) -> dict[str, str]:
        """LanceDB's storage options for this store."""
        return {
            "aws_access_key_id": KEY,
            "aws_secret_access_key": SECRET,
            "aws_endpoint": self.url,
            "aws_region": "us-east-1",
            "allow_http": "true",
            "client_max_retries": "0",
            "connect_timeout": "2s",
            **changes,
        }

    def environment(self) -> dict[str, str]:
        """The same as environment variables."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def do(self, request: dict[str, Any]) -> None:
        """Do what a request asks for, without an answer."""
        list(self._moto(request, lambda *answer: lambda data: None))

    def _answer(self, request: dict[str, Any], start_response: Callable) -> Any:
        signed = f"Credential={KEY}/" in request.get("HTTP_AUTHORIZATION", "")
        refusal = self.refuse(request) if signed else ("403 Forbidden", "InvalidAccessKeyId")
        if refusal is None:
            return self._moto(request, start_response)
        status, code = refusal
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code></Error>'.encode()
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]


@pytest.fixture(scope="module")
def running() -> Iterator[Store]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = Store()
    yield store
    store.close()


@pytest.fixture
def store(running: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The server; what is derived goes to a cache folder of the test's own."""
    (tmp_path / "cache").mkdir()
    use_cache(monkeypatch, tmp_path / "cache")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    yield running
    running.refuse = lambda request: None


@pytest.fixture
def db(store: Store) -> DBConnection:
    return connect(f"s3://{store.new_bucket()}/some/folder", storage_options=store.options())


@pytest.fixture
def index(db: DBConnection, default_encoder: Encoder) -> Index:
    return Index.create(db, "t", DOCUMENTS, encoder=default_encoder)


def texts(db: DBConnection) -> dict[str, str]:
    """Text by id as plain LanceDB reads it; no id may be there twice."""
    rows = db.open_table("t").search().select(["id", "text"]).to_list()
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row["text"] for row in rows}


def both_ways(db: DBConnection, encoder: Encoder, query: str = QUERY) -> list[Hit]:
    """The hits from arrays on disk, which must be those from the table itself."""
    hits = Searcher.open(db, "t", encoder=encoder).search(query, k=50)
    assert Searcher.open(db, "t", encoder=encoder, derived=False).search(query, k=50) == hits
    return hits


def interrupt_at(stage: str) -> Callable[[str, int, int, int], None]:
    def progress(now: str, done: int, total: int, tokens: int) -> None:
        if now == stage:
            raise InterruptedHereError

    return progress


def is_write(request: dict[str, Any]) -> bool:
    return request["REQUEST_METHOD"] in {"PUT", "POST", "DELETE"}


def check_no_secret(error: BaseException | None) -> None:
    while error is not None:
        assert SECRET not in repr(error) + str(error)
        error = error.__cause__ or error.__context__


def cli(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [str(TANSAKU), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **(env or {})},
        timeout=120,
        check=False,
    )
    assert SECRET not in result.stdout + result.stderr
    return result


def test_an_index_is_made_searched_and_measured(index: Index, db: DBConnection, default_encoder: Encoder):
    hits = both_ways(db, default_encoder)
    assert len(hits) == len(DOCUMENTS)
    assert (hits[0].id, hits[0].title, hits[0].fields) == ("todai", "東大寺", {"year": 728})
    info = index.info()
    assert (info.documents, info.bytes_on_disk) == (len(DOCUMENTS), None)
    assert info.derived_bytes > 0
    with pytest.raises(TableExistsError, match="'t' exists"):
        Index.create(db, "t", DOCUMENTS, encoder=default_encoder)


def test_no_row_with_a_decimal_is_lost(db: DBConnection, default_encoder: Encoder):
    """LanceDB loses rows whose 128-bit values lie elsewhere than at a multiple of 16 bytes, as in staged files."""
    priced = [{**document, "price": Decimal("1.50")} for document in DOCUMENTS]
    with pytest.raises(InterruptedHereError):
        Index.create(db, "t", priced, encoder=default_encoder, progress=interrupt_at("commit"))
    index = Index.create(db, "t", priced, encoder=default_encoder)
    index.upsert(priced[:4])
    index.delete(["fuji", "rail"])
    index.add(priced[-2:])
    index.rebuild()
    assert {row["id"]: row["price"] for row in db.open_table("t").search().to_list()} == {
        document["id"]: document["price"] for document in priced
    }


def test_derived_arrays_lie_in_the_users_cache(
    index: Index, db: DBConnection, default_encoder: Encoder, tmp_path: Path
):
    folder = arrays_folder(open_index_table(db, "t"))
    assert folder.is_relative_to(tmp_path / "cache")
    Searcher.open(db, "t", encoder=default_encoder, derived=False).search(QUERY)
    assert not folder.exists()
    Searcher.open(db, "t", encoder=default_encoder)
    assert (folder / "arrays.json").exists()


def test_every_change_is_seen_after_a_refresh(index: Index, db: DBConnection, default_encoder: Encoder):
    searchers = [Searcher.open(db, "t", encoder=default_encoder, derived=derived) for derived in (True, False)]
    before = [searcher.search(QUERY) for searcher in searchers]
    index.add([{"id": "frog", "text": "古池や蛙飛びこむ水の音、と芭蕉は詠んだ。"}])
    index.upsert([{"id": "fuji", "text": "奈良公園には鹿がいる。"}, {"id": "tea", "text": "宇治の抹茶。"}])
    report = index.delete(["rail", "nowhere"])
    assert (report.rows, report.missing) == (1, ["nowhere"])
    assert index.delete(where="year < 700").rows == 1
    assert [searcher.search(QUERY) for searcher in searchers] == before
    assert index.optimize().fragments_after == 1
    assert [searcher.refresh() for searcher in searchers] == [True, True]
    assert [searcher.refresh() for searcher in searchers] == [False, False]
    hits = [searcher.search("鹿がいる公園", k=50) for searcher in searchers]
    assert hits[0] == hits[1] == both_ways(db, default_encoder, "鹿がいる公園")
    assert hits[0][0].id == "fuji"
    assert {hit.id for hit in hits[0]} == {"kinkaku", "todai", "udon", "fuji", "frog", "tea"} == set(texts(db))


def test_a_rebuild_keeps_every_row(index: Index, db: DBConnection, default_encoder: Encoder):
    index.add([{"id": "tea", "text": "宇治の抹茶。"}])
    before = texts(db)
    index.rebuild(nbits=4)
    assert texts(db) == before
    assert len(both_ways(db, default_encoder)) == len(before)
    assert index.info().nbits == 4


def test_an_interrupted_build_goes_on(store: Store, db: DBConnection, default_encoder: Encoder, tmp_path: Path):
    with pytest.raises(InterruptedHereError):
        Index.create(db, "t", DOCUMENTS, encoder=default_encoder, resume=True, progress=interrupt_at("commit"))
    assert "t" not in db.list_tables().tables
    index = Index.create(db, "t", DOCUMENTS, encoder=default_encoder, resume=True)
    assert index.last_build is not None
    assert index.last_build.resumed == len(DOCUMENTS)
    assert len(both_ways(db, default_encoder)) == len(DOCUMENTS)

    store.refuse = lambda request: FORBIDDEN if is_write(request) else None
    with pytest.raises(StorageError):
        index.upsert([{"id": "tea", "text": "宇治の抹茶。"}], resume=True)
    store.refuse = lambda request: None
    assert "tea" not in texts(db)
    assert index.upsert([{"id": "tea", "text": "宇治の抹茶。"}], resume=True).resumed == 1
    assert texts(db)["tea"] == "宇治の抹茶。"
    assert not list(tmp_path.rglob("build"))  # nothing is left of what was staged


def test_two_appenders_at_once_lose_nothing(index: Index, store: Store, db: DBConnection, default_encoder: Encoder):
    conditions: list[str | None] = []

    def note(request: dict[str, Any]) -> None:
        if is_write(request) and request["PATH_INFO"].endswith(".manifest"):
            conditions.append(request.get("HTTP_IF_NONE_MATCH"))

    store.refuse = note
    failures: list[BaseException] = []

    def append(name: str) -> None:
        try:
            own = connect(db.uri, storage_options=store.options())
            opened = Index.open(own, "t", encoder=default_encoder)
            for i in range(4):
                opened.add([{"id": f"{name}{i}", "text": f"{name}の文書、その{i}。"}])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=append, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    expected = {document["id"] for document in DOCUMENTS} | {f"{name}{i}" for name in "ab" for i in range(4)}
    assert set(texts(db)) == expected
    assert {hit.id for hit in both_ways(db, default_encoder)} == expected
    assert set(conditions) == {"*"}  # a commit never replaces another


def test_a_store_that_honours_conditional_writes_passes_its_trial(db: DBConnection, tmp_path: Path):
    check_conditional_writes(db)
    assert list(db.list_tables().tables) == []
    check_conditional_writes(connect(tmp_path))
    assert not list(tmp_path.glob("*trial*"))


def test_a_store_that_ignores_conditional_writes_is_refused(store: Store, db: DBConnection):
    written: list[str] = []

    def without_condition(request: dict[str, Any]) -> None:
        request.pop("HTTP_IF_NONE_MATCH", None)
        if request["REQUEST_METHOD"] == "PUT":
            written.append(request["PATH_INFO"])

    store.refuse = without_condition
    with pytest.raises(StorageError, match=rf"{db.uri}: the store ignores conditional writes .*; use a store that"):
        check_conditional_writes(db)
    bucket = db.uri.split("/")[2]
    assert written
    assert all(path.startswith(f"/{bucket}/some/folder/.tansaku-trial-") for path in written)
    with urllib.request.urlopen(store.listing(bucket)) as answer:  # noqa: S310
        assert b"<Key>" not in answer.read()


def test_a_store_that_cannot_be_written_to_fails_its_trial(store: Store, db: DBConnection):
    store.refuse = lambda request: FORBIDDEN if is_write(request) else None
    with pytest.raises(StorageError, match="check the credentials") as caught:
        check_conditional_writes(db)
    check_no_secret(caught.value)


@pytest.mark.parametrize("stored", [True, False], ids=["done, but the answer is lost", "not done"])
def test_a_failed_request_is_tried_again_and_nothing_is_doubled(
    index: Index, store: Store, db: DBConnection, stored: bool
):
    expected = texts(db)
    for position in range(3):  # the data, the transaction, the commit
        writes = 0

        def refuse(request: dict[str, Any], position: int = position) -> Refusal | None:
            nonlocal writes
            writes += is_write(request)
            if not is_write(request) or writes != position + 1:
                return None
            if stored:
                store.do(request)
            return ("503 Service Unavailable", "SlowDown")

        store.refuse = refuse
        index.add([{"id": f"new{position}", "text": "新しい文書。"}])
        store.refuse = lambda request: None
        assert writes > position
        expected[f"new{position}"] = "新しい文書。"
        assert texts(db) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.add([{"id": "tea", "text": "宇治の抹茶。"}]),
        lambda index: index.upsert([{"id": "fuji", "text": "別の文。"}]),
        lambda index: index.delete(["fuji"]),
        lambda index: index.rebuild(),
        lambda index: Index.create(index._database, "t", DOCUMENTS[:2], encoder=index.encoder, overwrite=True),
        lambda index: Index.create(index._database, "u", DOCUMENTS[:2], encoder=index.encoder),
    ],
    ids=["add", "upsert", "delete", "rebuild", "overwrite", "create"],
)
def test_a_store_that_refuses_to_be_written_to_stays_as_it_is(
    index: Index, store: Store, db: DBConnection, default_encoder: Encoder, change: Callable[[Index], object]
):
    searcher = Searcher.open(db, "t", encoder=default_encoder)
    before, hits = texts(db), searcher.search(QUERY)
    store.refuse = lambda request: FORBIDDEN if is_write(request) else None
    with pytest.raises(StorageError, match="check the credentials") as caught:
        change(index)
    check_no_secret(caught.value)
    assert searcher.search(QUERY) == hits
    store.refuse = lambda request: None
    assert texts(db) == before
    assert "u" not in db.list_tables().tables


def test_a_missing_table_is_named_with_those_that_are_there(index: Index, db: DBConnection, default_encoder: Encoder):
    with pytest.raises(TableNotFoundError, match=r"'nowhere'.*tables: t\)"):
        Searcher.open(db, "nowhere", encoder=default_encoder)


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize(
    ("bucket", "changes", "expected"),
    [
        ("", {"aws_access_key_id": "AKIASOMEBODYELSE"}, "check the credentials"),
        ("no-such-bucket", {}, "check the bucket's name"),
        ("", {"aws_endpoint": "closed"}, "Connect"),
    ],
    ids=["wrong credentials", "missing bucket", "unreachable"],
)
def test_a_store_that_cannot_be_used_is_told_at_once(store: Store, bucket: str, changes: dict[str, str], expected: str):
    if "aws_endpoint" in changes:
        changes = {"aws_endpoint": f"http://127.0.0.1:{closed_port()}"}
    uri = f"s3://{bucket or store.new_bucket()}/db"
    started = time.monotonic()
    with pytest.raises(StorageError, match=expected) as caught:
        connect(uri, storage_options=store.options(**changes))
    assert time.monotonic() - started < 20
    assert uri in str(caught.value)
    check_no_secret(caught.value)


@pytest.mark.slow
def test_a_store_that_goes_away_is_a_typed_error(
    index: Index, store: Store, db: DBConnection, default_encoder: Encoder
):
    searcher = Searcher.open(db, "t", encoder=default_encoder)
    hits = searcher.search(QUERY)
    store.refuse = lambda request: FORBIDDEN
    for use in (searcher.refresh, lambda: index.add([{"id": "tea", "text": "宇治の抹茶。"}])):
        with pytest.raises(StorageError, match="'t'") as caught:
            use()
        check_no_secret(caught.value)
    store.refuse = lambda request: None
    assert not searcher.refresh()
    assert searcher.search(QUERY) == hits
    assert len(index) == len(DOCUMENTS)


def test_a_pickled_searcher_takes_its_storage_options_along(store: Store, default_encoder: Encoder):
    uri = f"s3://{store.new_bucket()}/db"
    Index.create(uri, "t", DOCUMENTS, encoder=default_encoder, storage_options=store.options())
    searcher = Searcher.open(uri, "t", encoder=default_encoder, storage_options=store.options())
    assert pickle.loads(pickle.dumps(searcher)).search(QUERY) == searcher.search(QUERY)


def test_the_environment_gives_the_credentials(store: Store, default_encoder: Encoder, monkeypatch: pytest.MonkeyPatch):
    for name, value in store.environment().items():
        monkeypatch.setenv(name, value)
    uri = f"s3://{store.new_bucket()}/db"
    Index.create(uri, "t", DOCUMENTS, encoder=default_encoder)
    Index.open(uri, "t", encoder=default_encoder).add([{"id": "tea", "text": "宇治の抹茶。"}])
    assert Searcher.open(uri, "t", encoder=default_encoder).search("宇治の抹茶", k=1)[0].id == "tea"


@pytest.mark.slow
def test_the_command_line_takes_options_and_the_environment(store: Store, tmp_path: Path):
    source = tmp_path / "docs.jsonl"
    source.write_text("".join(json.dumps(d, ensure_ascii=False) + "\n" for d in DOCUMENTS), encoding="utf-8")
    table = ("--db", f"s3://{store.new_bucket()}/db", "--table", "docs")
    options = [argument for pair in store.options().items() for argument in ("--storage-option", "=".join(pair))]
    made = cli("index", str(source), *table, *options)
    assert made.returncode == 0, made.stderr
    assert f"{len(DOCUMENTS)} documents" in made.stdout
    found = cli("search", QUERY, *table, "-k", "1", "--json", env=store.environment())
    assert json.loads(found.stdout)["hits"][0]["id"] == "todai"
    shown = cli("info", *table, "--json", *options)
    assert json.loads(shown.stdout)["documents"] == len(DOCUMENTS)


def test_the_command_line_shows_no_secret_in_an_error(store: Store):
    options = store.options(aws_access_key_id="AKIASOMEBODYELSE")
    given = [argument for pair in options.items() for argument in ("--storage-option", "=".join(pair))]
    result = cli("info", "--db", f"s3://{store.new_bucket()}/db", "--table", "docs", *given)
    assert result.returncode == 2
    assert "check the credentials" in result.stderr
