"""Groonga as a source of candidates, over its HTTP interface."""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from ...onnx_export.errors import InputError
from ..rerank.host_search import Candidate, HostError
from ._checks import check_columns, check_request, joined

__all__ = ["GroongaSource"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_#@-]*(\.[A-Za-z_][A-Za-z0-9_#@-]*)*")
_ALL_TOKENS = 10_000  # more than a question has; without a number Groonga looks at an eighth of them


class GroongaSource:
    """Documents that are similar to the question, by Groonga's similar search (``*S``).

    It scores by tokens weighted by how rare they are and needs none of them to be there, which suits questions: the
    ordinary query syntax asks for all words of a question. The columns need an index; over one with TokenBigram more of
    the right documents are found than over one with TokenMecab.

    Args:
        url: of the server, ``http://localhost:10041``.
        table: its name.
        text_columns: columns to search, or index columns (``Bigrams.docs_text``) where a column has several.
        id_column: the column with the ids that our index has; ``_key`` or ``_id`` too.
        with_text: also return the text, for documents that our index has not; only with plain columns.
        timeout: seconds to wait for an answer.
        headers: sent with each request, for a proxy that asks who calls.

    Raises InputError for names that Groonga cannot have and a URL that is not http(s).
    """

    def __init__(
        self,
        url: str,
        table: str,
        *,
        text_columns: Sequence[str] = ("text",),
        id_column: str = "_key",
        with_text: bool = False,
        timeout: float = 10.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise InputError(f"{url!r} is no http or https URL")
        self.text_columns = check_columns(text_columns)
        for name in (table, id_column, *self.text_columns):
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise InputError(f"{name!r} cannot be the name of a Groonga table or column")
        self.url = url.rstrip("/")
        self.table = table
        self.id_column = id_column
        self.with_text = with_text
        self.timeout = timeout
        self.headers = dict(headers or {})

    def candidates(self, query: str, k: int, where: str | None = None) -> list[Candidate]:
        """The ``k`` documents most similar to ``query``.

        Args:
            query: the question or keywords; Groonga's query syntax means nothing in it.
            k: how many.
            where: a filter in Groonga's script syntax, ``year >= 2000``; it comes from the application, not from users.

        Raises InputError for an empty query and ``k`` below 1, HostError if Groonga is unreachable or refuses.
        """
        text = check_request(query, k).replace("\0", " ")
        columns = [self.id_column, "_score", *(self.text_columns if self.with_text else ())]
        arguments = {
            "table": self.table,
            "match_columns": "||".join(self.text_columns),
            "query": f"*S{_ALL_TOKENS}" + _quoted(text),
            "output_columns": ",".join(columns),
            "sort_keys": "-_score",
            "limit": str(k),
        }
        if where is not None:
            arguments["filter"] = where
        rows = self._select(arguments)
        return [Candidate(str(r[0]), float(r[1]), joined(r[2:]) if self.with_text else None) for r in rows]

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
                raise HostError(f"Groonga at {self.url} refused: {_said(error.read(65_536)) or error}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise HostError(f"Groonga at {self.url} cannot be asked: {error}") from error
        if header[0] != 0:
            raise HostError(f"Groonga at {self.url} refused: {header[3]}")
        _, _, *rows = body[0][0]
        return rows


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _said(answer: bytes) -> str:
    """Groonga's own message in its answer, or nothing."""
    try:
        return str(json.loads(answer)[0][3])
    except (ValueError, LookupError, TypeError):
        return ""
