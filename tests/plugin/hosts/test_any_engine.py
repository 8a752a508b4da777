"""The page on any engine: its code runs, also against a server that answers as the page says."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest

from tansaku import CallableSource

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "any-engine.md"


class Solr(BaseHTTPRequestHandler):
    asked: dict[str, list[str]]

    def do_GET(self):
        type(self).asked = parse_qs(urlparse(self.path).query)
        body = json.dumps({"response": {"docs": [{"id": "kyoto", "score": 7.1, "text": "京都は昔の首都である。"}]}})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format, *args):  # noqa: A002
        """Print nothing."""


def test_the_page_runs():
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), names)  # noqa: S102
    assert [(hit.id, hit.host_rank) for hit in names["hits"]] == [("kyoto", 1), ("dog", 2)]
    with HTTPServer(("127.0.0.1", 0), Solr) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/solr/docs/select"
        source = CallableSource(lambda query, k, where: names["find_by_http"](query, k, where, url))
        (found,) = source.candidates("昔の首都", 3, "year:[* TO 1000]")
        server.shutdown()
    assert (found.id, found.score, found.text) == ("kyoto", 7.1, "京都は昔の首都である。")
    assert Solr.asked == {"q": ["昔の首都"], "rows": ["3"], "fl": ["id,score,text"], "fq": ["year:[* TO 1000]"]}
