"""What the tool `explain` returns: which words of a query met which words of a document."""

from __future__ import annotations

from ...onnx_export.errors import MissingExtraError
from ..search.cuts import query_warning
from ..search.explain import Explanation
from ..search.searcher import Searcher
from .results import on_one_line, shown

try:
    from pydantic import BaseModel, Field
except ImportError as error:
    raise MissingExtraError("mcp", "mcp") from error

_MAX_MATCHES = 64
_WORD_CHARS = 40
_AROUND = 12  # characters on each side of what a word met


class MatchedWord(BaseModel):
    """A part of the query, and what it met in the document."""

    query: str
    document: str = Field(description="The part of the document that is nearest to it.")
    around: str = Field(description="The same with the characters around it.")
    similarity: float = Field(description="Cosine of the two, at most 1.")
    weight: float = Field(description="Weight of the part of the query; the score is the mean of the weighted cosines.")


class ExplainResult(BaseModel):
    """Why a document has its score."""

    table: str
    id: str
    score: float = Field(description="Mean cosine, as `search` gives it.")
    matches: list[MatchedWord] = Field(description="In the order of the query.")
    matches_left_out: int = Field(description="Number of matches left out for lack of space.")
    warning: str | None = Field(None, description="Set if the end of the query was ignored.")

    def as_text(self) -> str:
        """One line for each match."""
        lines = [f"{shown(self.id)} in {on_one_line(self.table)}, score {self.score:.3f}"]
        lines += [
            f"- {shown(match.query)} met {shown(match.document)}: {match.similarity:.3f}, weight {match.weight:.2f}, "
            f"in {shown(match.around)}"
            for match in self.matches
        ]
        notes = [f"- {self.matches_left_out} more"] * bool(self.matches_left_out)
        return "\n".join([*lines, *notes, *([] if self.warning is None else [self.warning])])


def explain_result(table: str, explanation: Explanation, searcher: Searcher) -> ExplainResult:
    """An explanation within bounds.

    Args:
        table: name of the table.
        explanation: the explanation.
        searcher: what explained it.
    """
    of_text = [match for match in explanation.matches if match.query_text.strip()]
    words = []
    for match in of_text[:_MAX_MATCHES]:
        start, end = match.document_span or (0, 0)
        around = explanation.text[max(0, start - _AROUND) : end + _AROUND] if match.document_span else ""
        words.append(
            MatchedWord(
                query=match.query_text[:_WORD_CHARS],
                document=match.document_text[:_WORD_CHARS],
                around=around[: 2 * _AROUND + _WORD_CHARS],
                similarity=round(match.similarity, 4),
                weight=round(match.weight, 4),
            )
        )
    return ExplainResult(
        table=table,
        id=explanation.id,
        score=round(explanation.score / max(len(explanation.matches), 1), 4),
        matches=words,
        matches_left_out=len(of_text) - len(words),
        warning=query_warning(searcher.encoder) if explanation.truncated else None,
    )
