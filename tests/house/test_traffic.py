"""Commands ask for no host but those that they are given, whatever their libraries would like to send.

Two things watch: an audit hook in Python, and strace, which sees the libraries in C and Rust too. Without strace, the
commands run in a network namespace without a network: they must work there, at least.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import pytest

from ..support.fakes import SUPPORT

pytestmark = pytest.mark.integration

TANSAKU = str(Path(sysconfig.get_path("scripts")) / "tansaku")
DOCUMENTS = [
    {"id": str(i), "text": text} for i, text in enumerate(["京都は古い都だった。", "犬は嗅覚が鋭い。", "奈良の都。"])
]
QUIET: dict[str, Any] = {
    "stdout": subprocess.DEVNULL,
    "stderr": subprocess.DEVNULL,
    "start_new_session": True,
}
RERANK = "from tansaku import Reranker; print(Reranker().rerank('都', ['京都は都だった。', '犬'])[0].index)"
MCP = [
    {
        "method": "initialize",
        "id": 1,
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
    },
    {"method": "notifications/initialized"},
    {"method": "tools/call", "id": 2, "params": {"name": "search", "arguments": {"query": "古い都"}}},
]


def works(*command: str) -> bool:
    """Whether a command can be had and ends well."""
    return (
        shutil.which(command[0]) is not None
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )


@functools.cache
def watcher() -> str:
    if works("strace", "-f", "-e", "trace=network", "-o", os.devnull, "true"):
        return "strace"
    if works("unshare", "-rn", "true"):
        return "unshare"
    pytest.skip("there is neither strace nor a way to make a network namespace here")


class Watched:
    """Runs commands and notes whom they ask.

    Attributes:
        environment: that of the commands, with a home folder of their own.
        home: that folder.
    """

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self._calls, self._names = folder / "strace", folder / "python"
        self._names.touch()
        self.environment = {
            **{name: value for name, value in os.environ.items() if "TELEMETRY" not in name and name != "DO_NOT_TRACK"},
            "HOME": str(self.home),
            "PYTHONPATH": str(SUPPORT / "traffic"),
            "TRAFFIC_LOG": str(self._names),
        }
        self.environment.pop("XDG_CACHE_HOME", None)

    def command(self, *command: str) -> list[str]:
        if watcher() == "strace":
            return ["strace", "-f", "-qq", "-e", "trace=network", "-o", str(self._calls), *command]
        return ["unshare", "-rn", "sh", "-c", 'ip link set lo up 2>/dev/null; exec "$@"', "sh", *command]

    def run(self, *command: str, given: str = "") -> str:
        finished = subprocess.run(
            self.command(*command), input=given, env=self.environment, capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    def asked(self) -> set[str]:
        """Hosts that were asked for, but for this machine's loopback addresses."""
        hosts = set(self._names.read_text(encoding="utf-8").split("\n")) - {"", "localhost"}
        if watcher() == "strace":
            for line in self._calls.read_text(encoding="utf-8", errors="replace").splitlines():
                if re.search(r"\b(connect|sendto|sendmsg|sendmmsg)\(", line):
                    hosts |= set(re.findall(r'inet_(?:addr\(|pton\(AF_INET6, )"([^"]+)"', line))
                    hosts |= set(
                        re.findall(r'sun_path="([^"]*resolve[^"]*)"', line)
                    )  # a name is looked up by a service
        return {host for host in hosts if not is_loopback(host)}


def is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback
    return False


@pytest.fixture
def watched(tmp_path):
    return Watched(tmp_path)


@pytest.fixture(scope="module")
def db(default_encoder, tmp_path_factory):
    from tansaku import Index

    folder = tmp_path_factory.mktemp("db")
    Index.create(folder, "docs", DOCUMENTS, encoder=default_encoder)
    return folder


@pytest.mark.parametrize(
    "code", ["import socket; socket.getaddrinfo", "from ctypes import CDLL; CDLL(None).getaddrinfo"]
)
def test_whoever_asks_is_noticed(watched, code):
    """That this test can fail: a look-up by Python and one by a library in C."""
    arguments = '("tansaku.invalid", 80)' if "socket" in code else '(b"tansaku.invalid", b"80", None, (b" " * 8))'
    call = f"try: {code.split('; ')[1]}{arguments}\nexcept OSError: pass"
    if "ctypes" in code and watcher() != "strace":
        pytest.skip("only strace sees what a library in C does")
    watched.run(sys.executable, "-c", f"{code.split('; ')[0]}\n{call}")
    if "ctypes" in code and not Path("/etc/resolv.conf").is_file():
        pytest.skip("this machine has no name server to ask")
    assert watched.asked()


def test_index_and_search(watched, tmp_path):
    lines = "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in DOCUMENTS)
    (tmp_path / "docs.jsonl").write_text(lines, encoding="utf-8")
    place = ("--db", str(tmp_path / "db"), "--table", "docs")
    watched.run(TANSAKU, "index", str(tmp_path / "docs.jsonl"), *place)
    assert watched.asked() == set()
    assert json.loads(watched.run(TANSAKU, "search", "古い都", *place, "--json"))["hits"][0]["id"] == "0"
    assert watched.asked() == set()
    written = {path.relative_to(watched.home).parts[:2] for path in watched.home.rglob("*")}
    assert written <= {(".cache",), (".cache", "tansaku")}


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["chroma", "milvus", "qdrant"])
def test_rows_in_a_database(watched, tmp_path, extra):
    """Clients of databases that run in the process ask for nothing either."""
    work = tmp_path / "work"
    work.mkdir()
    code = f"import os, sys; os.chdir({str(work)!r}); sys.path.insert(0, {str(SUPPORT)!r}); import extras"
    watched.run(sys.executable, "-c", f"{code}; extras.{extra}()")
    assert watched.asked() == set()


@pytest.mark.slow
def test_rerank(watched):
    assert watched.run(sys.executable, "-c", RERANK) == "0\n"
    assert watched.asked() == set()


@pytest.mark.slow
def test_mcp(watched, db):
    given = "".join(json.dumps({"jsonrpc": "2.0", **message}) + "\n" for message in MCP)
    process = subprocess.Popen(
        watched.command(TANSAKU, "mcp", "--db", str(db), "--table", "docs"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=watched.environment,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(given)
    process.stdin.flush()
    answers = [json.loads(process.stdout.readline()) for _ in range(2)]
    process.stdin.close()
    process.wait()
    process.stdout.close()
    assert "京都は古い都だった" in json.dumps(answers[1], ensure_ascii=False)
    assert watched.asked() == set()


@pytest.mark.slow
def test_serve(watched, db):
    if watcher() != "strace":
        pytest.skip("nobody can ask a service in a namespace of its own")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = watched.command(TANSAKU, "serve", "--port", str(port), "--db", str(db), "--table", "docs")
    process = subprocess.Popen(command, env=watched.environment, **QUIET)
    try:
        assert ask(port, "GET", "/ready", patient=True)[0] == 200
        status, found = ask(port, "POST", "/search", {"query": "古い都"})
        assert (status, found["hits"][0]["id"]) == (200, "0")
        assert ask(port, "POST", "/rerank", {"query": "都", "documents": ["京都", "犬"]})[0] == 200
    finally:
        os.killpg(process.pid, signal.SIGINT)  # strace and the service
        process.wait(60)
    assert watched.asked() == set()


def ask(port: int, method: str, path: str, body: object = None, *, patient: bool = False) -> tuple[int, dict]:
    """Status and body of an answer; ``patient`` waits up to two minutes for a 200."""
    for _ in range(600 if patient else 1):
        with contextlib.suppress(ConnectionError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            with contextlib.closing(connection):
                connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                content = json.loads(answer.read() or b"{}")
            if answer.status == 200 or not patient:
                return answer.status, content
        time.sleep(0.2)
    raise AssertionError(f"{path} does not answer")
