"""The recipes of docs/how-to/processes.md for gunicorn with --preload: its workers are forked with the application."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tansaku import Index

pytest.importorskip("gunicorn")
pytest.importorskip("uvicorn_worker")
pytestmark = pytest.mark.engine

PAGE = (Path(__file__).parents[3] / "docs/how-to/processes.md").read_text(encoding="utf-8")
WSGI = """

def app(environ, start_response):
    start_response("200 OK", [])
    return [searcher().search("昔の首都はどこ？")[0].id.encode()]
"""
TEXTS = {"kyoto": "京都は794年から都だった。", "sea": "海の水は塩辛い。"}


def code_with(words: str, language: str = "python") -> str:
    """The one block of code on the page, of those for gunicorn, that has these words."""
    of_gunicorn = PAGE.split("## gunicorn")[1].split("\n## ")[0]
    (found,) = (code for code in re.findall(rf"```{language}\n(.*?)```", of_gunicorn, re.DOTALL) if words in code)
    return found


@contextmanager
def serving(folder: Path, command: str) -> Iterator[str]:
    """Run gunicorn there, on a free port; gives its address."""
    log = folder / "log"
    arguments = [sys.executable, "-m", *shlex.split(command), "--preload", "--bind", "127.0.0.1:0"]
    with log.open("w") as out:
        given = {**os.environ, "HOME": str(folder)}  # where gunicorn makes its control socket
        process = subprocess.Popen(arguments, cwd=folder, stdout=out, stderr=out, env=given)
        try:
            yield wait_for(lambda: re.search(r"Listening at: (\S+)", log.read_text()), process, log)[1]
        finally:
            process.terminate()
            process.wait(60)
    assert not process.returncode, log.read_text()


def wait_for(look, process, log):
    """What ``look`` finds, once it finds something."""
    ends = time.monotonic() + 120
    while (found := look()) is None:
        assert process is None or process.poll() is None, log.read_text()
        assert time.monotonic() < ends, log.read_text()
        time.sleep(0.1)
    return found


@pytest.fixture
def folder(tmp_path):
    Index.create(tmp_path / "db", "docs", [{"id": doc_id, "text": text} for doc_id, text in TEXTS.items()])
    return tmp_path


@pytest.mark.slow
def test_an_index_that_is_opened_at_the_first_request(folder):
    (folder / "own.py").write_text(code_with("def searcher") + WSGI, encoding="utf-8")
    with serving(folder, "gunicorn --workers 2 own:app") as address:
        for _ in range(6):
            assert httpx.get(address, timeout=120).text == "kyoto"


@pytest.mark.slow
def test_the_service(folder):
    (folder / "service.py").write_text(code_with("create_app"), encoding="utf-8")

    def ask(address: str) -> str | None:
        answer = httpx.post(f"{address}/search", json={"query": "昔の首都はどこ？", "k": 1}, timeout=120)
        if answer.status_code == 503:  # this worker is loading
            return None
        return answer.raise_for_status().json()["hits"][0]["id"]

    with serving(folder, code_with("service:app", "sh").strip()) as address:
        for _ in range(6):
            assert wait_for(lambda: ask(address), None, folder / "log") == "kyoto"
