"""The page at `/` in Chromium: what a person does with it, with keyboard, phone and forced colours.

`make browser` installs what drives the browser; the browser itself is Debian's `chromium` with the font
`fonts-vlgothic`. Where one is missing, these tests are skipped. With TANSAKU_PICTURES=FOLDER they
keep pictures of the page.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tansaku import Encoder, Index, Searcher

from ...support.engines import free_port, wait_until

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DOCS = [
    {
        "id": "kinkaku",
        "title": "金閣寺",
        "text": "𠮷野の桜のころ、足利義満が北山に金閣寺を建てた。",
        "year": 1397,
    },
    {"id": "ginkaku", "title": "銀閣寺", "text": "銀閣寺は、足利義政が東山に建てた寺院である。", "year": 1490},
    {"id": "todaiji", "title": "東大寺", "text": "東大寺の大仏は、聖武天皇の願いで造られた。", "year": 752},
    {"id": "evil", "title": "<img src=x onerror=alert(1)>", "text": "<script>alert(1)</script>寺院の記録。", "year": 1},
]
QUESTION = "金閣寺を建てたのは誰ですか"
PICTURES = os.environ.get("TANSAKU_PICTURES")


@pytest.fixture(scope="module")
def db(default_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    for name in ("docs", "other"):
        Index.create(folder, name, DOCS, encoder=default_encoder, fulltext=True)
    return folder


class Server:
    """A service in a process of its own."""

    def __init__(self, db: Path, *options: str, tables: Sequence[str] = ("docs", "other")) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        command = [sys.executable, "-m", "tansaku", "serve", "--db", str(db)]
        command += [word for table in tables for word in ("--table", table)]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: httpx.get(f"{self.url}ready").raise_for_status(), self.process)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


@pytest.fixture(scope="module")
def server(db: Path) -> Iterator[Server]:
    started = Server(db)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium fonts-vlgothic")
    with playwright.sync_playwright() as driver:
        # Nothing outside can be reached, whatever a page asks for.
        arguments = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield launched
        launched.close()


def upload(page: Any, name: str, content: str, into: str, *, jobs: int) -> None:
    page.click("#manage > summary")
    page.fill("#into", into)
    page.set_input_files("#file", {"name": name, "mimeType": "text/plain", "buffer": content.encode()})
    page.wait_for_selector(f":nth-match(#jobs > li:has-text('{into} · 完了'), {jobs})", timeout=60_000)


class Opened:
    """A page, and what it did that it should not have."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.context = browser.new_context(locale="ja-JP", **options)
        self.problems: list[str] = []
        self.asked: list[str] = []
        self.searches: list[dict[str, Any]] = []
        self.context.add_init_script(
            "document.addEventListener('securitypolicyviolation', e => console.error('CSP ' + e.blockedURI))"
        )
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.problems.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", self._on_request)
        self.url = url
        self.page.goto(url)

    def _on_request(self, request: Any) -> None:
        self.asked.append(request.url)
        if request.url.endswith("/search"):
            self.searches.append(json.loads(request.post_data))

    def ask(self, question: str = QUESTION) -> None:
        self.page.fill("#query", question)
        self.page.wait_for_selector("#left li mark")
        self.page.wait_for_selector("#words button")

    def picture(self, name: str) -> None:
        if PICTURES:
            self.page.screenshot(path=Path(PICTURES) / f"{name}.png")


@pytest.fixture
def opened(browser: Any, server: Server) -> Iterator[Opened]:
    page = Opened(browser, server.url, viewport={"width": 1100, "height": 800})
    yield page
    page.context.close()
    assert page.problems == []
    assert [url for url in page.asked if not url.startswith(server.url)] == []


def test_a_question_is_answered_as_it_is_typed(opened: Opened):
    opened.ask()
    assert opened.page.text_content("#left li:first-child h3") == "金閣寺"
    marked = opened.page.eval_on_selector_all("#left li:first-child mark", "marks => marks.map(m => m.textContent)")
    assert set("".join(marked)) & set("金閣寺建")
    assert "ミリ秒" in opened.page.text_content("#stats")
    assert "q=%E9%87%91" in opened.page.url
    opened.page.reload()  # the address keeps the question
    opened.page.wait_for_selector("#left li mark")
    opened.picture("page-light")


def test_what_documents_say_is_text(opened: Opened):
    opened.ask("寺院の記録 script")
    titles = opened.page.eval_on_selector_all("#left h3", "all => all.map(h => h.textContent)")
    assert "<img src=x onerror=alert(1)>" in titles
    assert opened.page.query_selector("#left img, #left script") is None


def test_a_word_of_the_question_lights_what_it_met(opened: Opened):
    opened.ask()
    opened.page.focus("#words button >> nth=0")
    assert opened.page.eval_on_selector_all("#left mark.on", "marks => marks.length") >= 1
    assert opened.page.evaluate("document.body.classList.contains('lit')")


def test_the_heat_map_is_read_with_the_arrow_keys(opened: Opened):
    opened.ask()
    opened.page.click("#left li:first-child button:has-text('ヒートマップ')")
    opened.page.wait_for_selector("#heat[open]")
    first = opened.page.text_content("#heat-cell")
    assert "類似度" in first
    opened.page.keyboard.press("ArrowRight")
    assert opened.page.text_content("#heat-cell") != first
    assert "金閣寺" in opened.page.text_content("#heat-head")
    pixels = "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
    assert opened.page.eval_on_selector("#heat-canvas", pixels) > 10
    opened.picture("page-heat-map")
    opened.page.keyboard.press("Escape")
    assert opened.page.query_selector("#heat[open]") is None


def test_why_one_hit_is_above_another(opened: Opened):
    opened.ask()
    for n in (1, 2):
        opened.page.click(f"#left li:nth-child({n}) button:has-text('比べる')")
    opened.page.wait_for_selector("#why[open]")
    total = opened.page.eval_on_selector_all("#why-table .total td", "cells => cells.map(c => c.textContent)")
    assert float(total[2]) - float(total[4]) == pytest.approx(float(total[5].replace("−", "-")), abs=0.0011)
    opened.picture("page-why")


def test_two_orders_side_by_side(opened: Opened):
    opened.ask()
    opened.page.click("#options summary")
    opened.page.select_option("#beside", "bm25")
    opened.page.wait_for_selector("#right li")
    assert opened.searches[-1]["source"] == "text"
    assert "位" in opened.page.text_content("#right li:first-child .about")
    opened.page.select_option("#beside", "index:other")
    opened.page.wait_for_selector("#right li:nth-child(4)")
    assert opened.searches[-1]["index"] == "other"
    opened.picture("page-side-by-side")


def test_a_condition_narrows_the_search_and_a_wrong_one_is_said(opened: Opened):
    opened.ask()
    opened.page.click("#options summary")
    opened.page.fill("#where", "year > 1400")
    opened.page.press("#where", "Enter")
    opened.page.wait_for_selector("#left li:only-child")
    opened.page.fill("#where", "yaer > 1400")
    opened.page.press("#where", "Enter")
    opened.page.wait_for_selector("#error:not([hidden])")
    assert "yaer" in opened.page.text_content("#error")
    opened.problems[:] = [text for text in opened.problems if "422" not in text]  # the browser's own line


def test_judgements_become_files_for_evaluate(opened: Opened, tmp_path: Path, db: Path, default_encoder: Encoder):
    opened.ask()
    opened.page.click("#options summary")
    opened.page.check("#judging")
    opened.page.click("#left li:first-child button:text-is('適合')")
    opened.page.click("#left li:nth-child(2) button:text-is('不適合')")
    for button, name in (("#save-qrels", "qrels.tsv"), ("#save-queries", "queries.jsonl")):
        with opened.page.expect_download() as download:
            opened.page.click(button)
        download.value.save_as(tmp_path / name)
    first, second = (hit.id for hit in Searcher.open(db, "docs", encoder=default_encoder).search(QUESTION, 2))
    assert (tmp_path / "qrels.tsv").read_text() == f"query-id\tcorpus-id\tscore\nq1\t{first}\t1\nq1\t{second}\t0\n"
    assert json.loads((tmp_path / "queries.jsonl").read_text()) == {"_id": "q1", "text": QUESTION}
    opened.page.reload()  # they are kept
    opened.page.wait_for_selector("#left li mark")


def test_an_input_method_is_waited_for(opened: Opened):
    opened.page.focus("#query")
    keyboard = opened.context.new_cdp_session(opened.page)
    for part in ("き", "きん", "きんか", "きんかく"):
        keyboard.send("Input.imeSetComposition", {"text": part, "selectionStart": len(part), "selectionEnd": len(part)})
        opened.page.wait_for_timeout(200)
    assert opened.searches == []
    keyboard.send("Input.insertText", {"text": "金閣"})
    opened.page.wait_for_selector("#left li")
    assert [search["query"] for search in opened.searches] == ["金閣"]


def test_the_language_is_a_choice_that_is_kept(opened: Opened):
    opened.page.select_option("#language", "en")
    opened.ask()
    assert "hits in" in opened.page.text_content("#stats")
    opened.page.reload()
    assert opened.page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("part", ["hits", "heat", "why"])
def test_axe_finds_nothing_serious(browser: Any, server: Server, scheme: str, part: str):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    opened = Opened(browser, server.url, color_scheme=scheme)
    opened.ask()
    if part == "heat":
        opened.page.click("#left li:first-child button:has-text('ヒートマップ')")
    if part == "why":
        for n in (1, 2):
            opened.page.click(f"#left li:nth-child({n}) button:has-text('比べる')")
    opened.page.wait_for_timeout(300)  # colours fade in
    found = axe.Axe().run(opened.page).response["violations"]
    opened.picture(f"page-{part}-{scheme}")
    opened.context.close()
    assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")] == []


def test_a_phone_shows_all_without_sideways_scrolling(browser: Any, server: Server):
    opened = Opened(browser, server.url, viewport={"width": 320, "height": 640}, is_mobile=True, has_touch=True)
    opened.ask()
    opened.page.click("#options summary")
    opened.page.select_option("#beside", "bm25")
    opened.page.wait_for_selector("#right li")
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 320
    opened.picture("page-phone")
    opened.context.close()


def test_marks_are_seen_with_forced_colours(browser: Any, server: Server):
    opened = Opened(browser, server.url, forced_colors="active")
    opened.ask()
    style = "mark => getComputedStyle(mark).textDecorationLine"
    assert opened.page.eval_on_selector("#left mark", style) == "underline"
    opened.context.close()


def test_a_token_is_asked_for(browser: Any, db: Path):
    server = Server(db, "--token", "secret")
    opened = Opened(browser, server.url)
    opened.page.wait_for_selector("#token-form:not([hidden])")
    opened.page.fill("#token", "secret")
    opened.page.click("#token-form button")
    opened.page.wait_for_selector("#index option", state="attached")
    opened.ask()
    opened.context.close()
    server.stop()


def test_a_busy_service_is_asked_again_and_a_dead_one_is_said(browser: Any, db: Path):
    server = Server(db)
    opened = Opened(browser, server.url)
    opened.page.wait_for_selector("#index option", state="attached")
    answers = iter([429])

    def busy_once(route: Any) -> None:
        status = next(answers, None)
        if status is None:
            route.continue_()
        else:
            route.fulfill(status=status, headers={"Retry-After": "1"}, json={"message": "busy"})

    opened.page.route("**/search", busy_once)
    opened.ask()
    server.stop()
    opened.page.fill("#query", "銀閣寺")
    opened.page.wait_for_selector("#error:not([hidden])")
    assert "応答しません" in opened.page.text_content("#error")
    opened.context.close()


def test_files_become_an_index_that_is_searched(browser: Any, tmp_path: Path):
    server = Server(tmp_path / "db", "--write", "--allow-write-without-token", tables=())
    opened = Opened(browser, server.url)
    upload(
        opened.page, "寺.csv", 'id,text,year\nkinkaku,"金閣寺は、""北山""にある。",1397\nempty,,\n', "temples", jobs=1
    )
    opened.page.click("#jobs summary")
    assert "2" in opened.page.text_content("#jobs li li")  # the line that was left out, and why
    opened.page.wait_for_selector("#index option[value=temples]", state="attached")
    opened.ask("金閣寺")
    assert opened.page.text_content("#left li h3") == "kinkaku"
    assert "year: 1397" in opened.page.text_content("#left li .fields")
    opened.page.click("#manage > summary")
    upload(opened.page, "more.jsonl", json.dumps(DOCS[1]) + "\n", "temples", jobs=2)
    opened.ask("銀閣寺")
    opened.page.wait_for_selector("#left h3:has-text('銀閣寺')")
    assert opened.problems == []
    opened.context.close()
    server.stop()
