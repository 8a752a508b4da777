"""What the adapters of other engines share: the path from a request to `Candidate`s, and the checks on it.

A new engine is a subclass of `TableSource` (or of `EngineSource`, where documents are not rows with text columns) that
gives `_search`.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ...onnx_export.errors import InputError
from ...onnx_export.kinds import check_whole
from ..rerank.host_search import Candidate, HostError
from ..rows.columns import check_name, joined
from ..search.query_encoder import check_query

Where = TypeVar("Where")

SqlCondition = str | tuple[str, Mapping[str, Any]]
"""An SQL condition, or one with named parameters and their values."""


@dataclass(eq=False)
class EngineSource(ABC, Generic[Where]):
    """A search engine as a source of candidates.

    Args:
        timeout: seconds that a query may take.
    """

    timeout: float = field(default=10.0, kw_only=True)

    def candidates(self, query: str, k: int, where: Where | None = None) -> list[Candidate]:
        """The engine's best documents for a query.

        Args:
            query: the question or keywords; the engine's query syntax means nothing in it.
            k: number of documents.
            where: a filter in the engine's own terms, as the class describes it.

        Returns:
            At most ``k`` candidates, best first.

        Raises:
            InputError: an empty query, or ``k`` below 1.
            HostError: the engine cannot be reached, or refuses the request.
        """
        check_whole("k", k)
        return self._search(check_query(query), k, where)

    @abstractmethod
    def _search(self, query: str, k: int, where: Where | None) -> list[Candidate]:
        """`candidates` for a request that is checked."""


@dataclass(eq=False)
class TableSource(EngineSource[Where]):
    """An engine whose documents are rows with text columns.

    Args:
        text_columns: names of the columns to search.
        id_column: name of the column with the ids that our index has.
        with_text: also return the text, to rank documents that our index does not have.
        timeout: seconds that a query may take.

    Raises:
        InputError: a name that no column can have, or no text column.
    """

    text_columns: Sequence[str] = field(default=("text",), kw_only=True)
    id_column: str = field(default="id", kw_only=True)
    with_text: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self.text_columns = check_columns("text_columns", self.text_columns)
        check_name(self.id_column)

    def _candidate(self, doc_id: Any, score: Any, texts: Iterable[object]) -> Candidate:
        return Candidate(str(doc_id), float(score), joined(texts) if self.with_text else None)


@contextlib.contextmanager
def host_errors(engine: str, place: str, *refusals: type[Exception], whole: bool = False) -> Iterator[None]:
    """Turns the exceptions ``refusals`` of an engine's client into HostError, with engine and table in its message.

    Of the client's own message the first line is quoted, or all of it if ``whole``.
    """
    try:
        yield
    except refusals as error:
        reason = str(error).strip()
        raise HostError(
            f"{engine} cannot search {place!r}: {reason if whole else reason.partition(chr(10))[0]}"
        ) from error


def check_columns(argument: str, names: Sequence[str]) -> list[str]:
    """``names`` as a list; raises InputError for one string, an empty list and a name that cannot be a column's."""
    if isinstance(names, str):
        raise InputError(f"{argument} is one string; give a list of names")
    if not names:
        raise InputError(f"{argument} is empty; give at least one name")
    return [check_name(name) for name in names]
