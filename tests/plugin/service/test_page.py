"""The page at `/`, without a browser: what is sent, and that the files fit one another."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from tansaku.plugin.service.app import create_app
from tansaku.plugin.service.page.routes import FILES, OPEN_PATHS
from tansaku.plugin.service.settings import Settings

HTML = FILES["index.html"].decode()
SCRIPTS = {name: content.decode() for name, content in FILES.items() if name.endswith(".js")}
TOKEN = "secret"  # noqa: S105


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(create_app(Settings(token=TOKEN)))  # not started: the files need no model


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
def test_the_files_need_no_token(client: TestClient, path: str):
    answer = client.get(path)
    assert answer.status_code == 200
    assert client.head(path).status_code == 200
    kind = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}.get(
        path.rpartition(".")[2], "text/html"
    )
    assert answer.headers["content-type"].startswith(kind)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_an_unknown_file_needs_one(client: TestClient):
    assert client.get("/page/../routes.py").status_code in (401, 404)
    assert client.get("/page/routes.py").status_code == 401


def test_all_files_together_are_small():
    assert sum(map(len, FILES.values())) < 100_000


def test_nothing_comes_from_outside():
    for name, content in FILES.items():
        urls = set(re.findall(r"https?://[^\s\"'`)]+", content.decode()))
        assert urls <= {"http://www.w3.org/2000/svg"}, name


def test_no_inline_script_or_style_and_no_html_from_texts():
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", HTML)
    for name, script in SCRIPTS.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", script), name


def test_the_files_that_are_named_are_there():
    named = set(re.findall(r'"page/([^"]+)"', HTML))
    for script in SCRIPTS.values():
        named |= set(re.findall(r'from "\./([^"]+)"', script))
    assert named == {name for name in FILES if name != "index.html"}


def test_the_elements_that_are_named_are_there():
    ids = re.findall(r'\bid="([^"]+)"', HTML)
    assert len(ids) == len(set(ids))
    for script in SCRIPTS.values():
        for named in re.findall(r"(?:\$|getElementById)\(\"([^\"]+)\"\)", script):
            assert named in ids


def texts() -> dict[str, dict[str, str]]:
    """What the page says in each language."""
    script = SCRIPTS["words.js"]
    of_language = re.findall(r"^  (\w\w): \{(.*?)^  \},", script, flags=re.DOTALL | re.MULTILINE)
    return {language: dict(re.findall(r'(\w+): "([^"]*)"', body)) for language, body in of_language}


def test_everything_is_said_in_both_languages():
    said = texts()
    assert set(said) == {"en", "ja"}
    assert said["en"].keys() == said["ja"].keys()
    for key, text in said["en"].items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", said["ja"][key])), key


def test_what_is_said_has_a_text():
    keys = texts()["en"].keys()
    used = set(re.findall(r'data-say(?:-placeholder)?="(\w+)"', HTML))
    for script in SCRIPTS.values():
        used |= set(re.findall(r'say\("(\w+)"', script))
    assert used <= keys
    scripts = "".join(script for name, script in SCRIPTS.items() if name != "words.js")
    states = {"running", "done", "failed", "cancelled"}  # of a job, said by the name that the service gives
    assert {key for key in keys if key not in HTML + scripts} - states == set()
