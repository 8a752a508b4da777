"""`Verbs`: what is asked of an index that is served, as steps that `Client` and `AsyncClient` take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from ...indexer.info import IndexInfo
from ...indexer.read.documents import Document, FieldNames
from ...indexer.read.rejects import Rejects
from ...indexer.table.changes import DeleteReport, OptimizeReport
from ...indexer.table.conditions import UncheckedSQL, Where
from ...indexer.table.ids import checked_ids
from ...indexer.write.report import BuildReport
from ...onnx_export.errors import InputError
from ...onnx_export.kinds import check_kind
from ...onnx_export.progress import Progress, no_progress
from ..search.explain import Explanation
from ..search.plan import SearchOptions
from ..search.query_encoder import check_query
from ..search.results import Hits
from .results import dataclass_of, document_of, explanation_of, hits_of, info_of
from .steps import Request, Steps, asked
from .writing import ended, write

_IDS_AT_ONCE = 200  # that are read by one request


class Verbs:
    """Steps of the reading verbs, and of the writing ones that send no documents.

    Args:
        index: name of the index; None takes the only one that is served.
        tries: largest number of times that a request is sent.
    """

    def __init__(self, index: str | None, tries: int) -> None:
        self.index = index
        self.tries = tries

    def search(self, query: str, options: SearchOptions) -> Steps[Hits]:
        """Search."""
        body = {"query": check_query(query), "index": self.index, "score": "raw", **_given(options)}
        return hits_of((yield from self._ask("POST", "/search", body)))

    def explain(self, query: str, doc_id: str, phrase_weight: float | None) -> Steps[Explanation]:
        """Explain a score."""
        body = {
            "query": check_query(query),
            "id": doc_id,
            "index": self.index,
            "phrase_weight": phrase_weight,
            "matrix": True,
        }
        return explanation_of((yield from self._ask("POST", "/explain", body)))

    def read(self, ids: Sequence[str]) -> Steps[list[Document | None]]:
        """Read documents by id."""
        wanted = checked_ids(ids)
        path = yield from self.path("/get")
        found: list[Document | None] = []
        for start in range(0, len(wanted), _IDS_AT_ONCE):
            answer = yield from self._ask("POST", path, {"ids": wanted[start : start + _IDS_AT_ONCE]})
            found += [document_of(content) for content in answer["documents"]]
        return found

    def count(self, where: Where | None) -> Steps[int]:
        """Count rows."""
        path = yield from self.path("/count")
        return (yield from self._ask("POST", path, _condition(where)))["rows"]

    def info(self) -> Steps[IndexInfo]:
        """Describe the index."""
        path = yield from self.path()
        return info_of((yield from self._ask("GET", path)))

    def names(self) -> Steps[list[str]]:
        """List the indexes."""
        answer = yield from self._ask("GET", "/indexes")
        return sorted(index["name"] for index in answer["indexes"])

    def write(
        self,
        documents: Iterable[Any],
        mode: str,
        names: FieldNames | None,
        rejects: Rejects | None,
        progress: Progress | None,
    ) -> Steps[BuildReport]:
        """Add or replace documents."""
        path = yield from self.path("/documents")
        options = {"mode": mode, "names": names_body(names)}
        can_repeat = mode == "upsert"
        return (yield from write(path, options, documents, can_repeat, rejects, progress or no_progress, self.tries))

    def create(
        self,
        name: str,
        documents: Iterable[Any],
        options: dict[str, Any],
        names: FieldNames | None,
        rejects: Rejects | None,
        progress: Progress | None,
    ) -> Steps[BuildReport]:
        """Make an index."""
        body = {"name": name, **options, "names": names_body(names)}
        return (yield from write("/indexes", body, documents, False, rejects, progress or no_progress, self.tries))

    def delete(self, ids: Sequence[str] | None, where: Where | None, dry_run: bool) -> Steps[DeleteReport]:
        """Delete documents."""
        if (ids is None) == (where is None):
            raise InputError("give either ids or a condition (where)")
        body = {"ids": None if ids is None else list(checked_ids(ids)), **_condition(where), "dry_run": dry_run}
        result = yield from self._work("/delete", body, no_progress, repeatable=dry_run)
        return dataclass_of(DeleteReport, result)

    def optimize(self, keep: timedelta) -> Steps[OptimizeReport]:
        """Put files in order."""
        check_kind("keep", keep, timedelta, "give a timedelta, such as timedelta(hours=1)")
        body = {"keep_seconds": keep.total_seconds()}
        result = yield from self._work("/optimize", body, no_progress, repeatable=True)
        return dataclass_of(OptimizeReport, result)

    def rebuild(self, nbits: int | None, progress: Progress | None) -> Steps[BuildReport]:
        """Train a new codec."""
        result = yield from self._work("/rebuild", {"nbits": nbits}, progress or no_progress, repeatable=False)
        return dataclass_of(BuildReport, result)

    def drop(self, name: str) -> Steps[None]:
        """Remove an index."""
        path = f"/indexes/{quote(name, safe='')}"
        job = yield from asked(Request("DELETE", path, params={"wait": "false"}, repeatable=False), self.tries)
        yield from ended(job, no_progress, self.tries)

    def path(self, end: str = "") -> Steps[str]:
        """Path of the index."""
        if self.index is None:
            names = yield from self.names()
            if len(names) != 1:
                raise InputError(
                    f"the service has the indexes {', '.join(names) or '(none)'}; name one: Client(url, index=...)"
                )
            self.index = names[0]
        return f"/indexes/{quote(self.index, safe='')}{end}"

    def _work(self, end: str, body: dict[str, Any], progress: Progress, *, repeatable: bool) -> Steps[dict[str, Any]]:
        """Have a job done; returns its result. Until it ends the service is asked now and then."""
        path = yield from self.path(end)
        job = yield from self._ask("POST", path, {**body, "wait": False}, repeatable=repeatable)
        return (yield from ended(job, progress, self.tries))["result"] or {}

    def _ask(self, method: str, path: str, body: Any = None, *, repeatable: bool = True) -> Steps[Any]:
        if body is None:
            return (yield from asked(Request(method, path, repeatable=repeatable), self.tries))
        return (yield from asked(Request.of_json(method, path, body, repeatable=repeatable), self.tries))


def names_body(names: FieldNames | None) -> dict[str, Any] | None:
    """Names of fields as the service reads them."""
    if names is None:
        return None
    several = {"keep": names.keep, "drop": names.drop}
    return {
        "id": names.id,
        "text": names.text if isinstance(names.text, str) else list(names.text),
        "title": names.title,
        "generate_ids": names.generate_ids,
        **{name: None if value is None else list(value) for name, value in several.items()},
        "rename": dict(names.rename),
        "types": dict(names.types),
    }


def checked_queries(queries: Iterable[str]) -> list[str]:
    """Queries as a list.

    Raises:
        InputError: there is one string in place of them, or one of them is empty.
    """
    if isinstance(queries, str):
        raise InputError("queries is one string; give a list of queries, or use `search`")
    return [check_query(query) for query in queries]


def _given(options: SearchOptions) -> dict[str, Any]:
    """The options that differ from their defaults."""
    plain, given = SearchOptions(), {}
    for name in vars(options):
        value = getattr(options, name)
        if name != "where" and value != getattr(plain, name):
            given[name] = list(value) if name in ("ids", "fields") else value
    return {**given, "k": options.k, **_condition(options.where)}


def _condition(where: Where | None) -> dict[str, Any]:
    if isinstance(where, UncheckedSQL):
        raise InputError("a service takes no UncheckedSQL; give a condition")
    if where is None or isinstance(where, str):
        return {} if where is None else {"where": where}
    parameters = where.parameters
    given = {"params": dict(parameters) if hasattr(parameters, "keys") else list(parameters)} if parameters else {}
    return {"where": where.text, **given}
