"""Groonga as a source of candidates, over its HTTP interface.

```python
from tansaku import HostSearch, Reranker, Searcher
from tansaku.plugin.hosts.groonga import GroongaSource
reranker = Reranker(searcher=Searcher.open("db", "docs"))
hits = HostSearch(GroongaSource("http://localhost:10041", "Docs"), reranker).search("質問")
```
"""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...onnx_export.errors import InputError
from ..rerank.host_search import Candidate, HostError
from ._engine_source import TableSource

__all__ = ["GroongaSource"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_#@-]*(\.[A-Za-z_][A-Za-z0-9_#@-]*)*")
_ALL_TOKENS = 10_000  # more than a question has; without a number Groonga takes an eighth of them


@dataclass(eq=False)
class GroongaSource(TableSource[str]):
    """Groonga's similar search (``*S``) as a source of candidates.

    It scores by tokens, weighted by how rare they are, and none of them is required. That suits questions: Groonga's
    ordinary query syntax asks for all words of a question. The columns need an index; one with TokenBigram finds more
    of the right documents than one with TokenMecab.

    A condition (``where``) is a filter in Groonga's script syntax, ``year >= 2000``; it must come from the application,
    not from users.

    Args:
        url: URL of the server, such as ``http://localhost:10041``.
        table: name of the table.
        text_columns: names of the columns to search, or of index columns (``Bigrams.docs_text``) where a column has
            several.
        id_column: name of the column with the ids that our index has; may be ``_key`` or ``_id``.
        with_text: see `TableSource`; not with index columns.
        timeout: seconds to wait for an answer.
        headers: HTTP headers sent with each request, such as those a proxy asks for.

    Raises:
        InputError: a name that Groonga does not allow, or a URL that is not http or https.
    """

    url: str
    table: str
    id_column: str = field(default="_key", kw_only=True)
    headers: Mapping[str, str] = field(default_factory=dict, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if urllib.parse.urlsplit(self.url).scheme not in ("http", "https"):
            raise InputError(f"{self.url!r} is not an http or https URL")
        for name in (self.table, self.id_column, *self.text_columns):
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise InputError(f"{name!r} cannot be the name of a Groonga table or column")
        self.url = self.url.rstrip("/")

    def _search(self, query: str, k: int, where: str | None) -> list[Candidate]:
        arguments = {
            "table": self.table,
            "match_columns": "||".join(self.text_columns),
            "query": f"*S{_ALL_TOKENS}" + _quoted(query.replace("\0", " ")),
            "output_columns": ",".join([self.id_column, "_score", *(self.text_columns if self.with_text else ())]),
            "sort_keys": "-_score",
            "limit": str(k),
        }
        if where is not None:
            arguments["filter"] = where
        return [self._candidate(row[0], row[1], row[2:]) for row in self._select(arguments)]

    def _select(self, arguments: Mapping[str, str]) -> list[list[Any]]:
        request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
            f"{self.url}/d/select",
            data=urllib.parse.urlencode(arguments).encode(),
            headers={**self.headers, "Content-Type": "application/x-www-form-urlencoded"},
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:  # noqa: S310
                header, *body = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise HostError(f"Groonga at {self.url} refused: {_message(error.read(65_536)) or error}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise HostError(f"Groonga at {self.url} cannot be reached: {error}") from error
        if header[0] != 0:
            raise HostError(f"Groonga at {self.url} refused: {header[3]}")
        _, _, *rows = body[0][0]
        return rows


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _message(answer: bytes) -> str:
    """Groonga's own message in its answer; empty if there is none."""
    try:
        return str(json.loads(answer)[0][3])
    except (ValueError, LookupError, TypeError):
        return ""
