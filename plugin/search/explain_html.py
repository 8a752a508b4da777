"""Hits and explanations as HTML: for notebooks, and as one page that needs nothing else.

The page has no script and asks for nothing from outside. What users wrote is escaped wherever it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from .explain import Explanation, Match
    from .results import Hit

_SHADES = 7  # 1 the faintest; matches that add next to nothing have none
_TEXT_IN_TABLE = 200  # characters

_STYLE = """
.tansaku { --ink: #222; --paper: #fff; --line: #ccc; --amber: 224, 150, 0; color: var(--ink);
  background: var(--paper); font: 16px/1.75 sans-serif; }
@media (prefers-color-scheme: dark) { .tansaku { --ink: #eee; --paper: #1b1b1b; --line: #555; --amber: 255, 176, 32; } }
.tansaku section { border: 1px solid var(--line); border-radius: .5em; margin: 1em 0; padding: .5em 1em; }
.tansaku h2 { font-size: 1em; margin: .3em 0; overflow-wrap: anywhere; }
.tansaku p { margin: .3em 0; overflow-wrap: anywhere; white-space: pre-wrap; }
.tansaku mark { color: inherit; border-radius: .15em; background: rgba(var(--amber), var(--shade)); }
.tansaku .scroll { overflow-x: auto; }
.tansaku table { border-collapse: collapse; font-size: .85em; }
.tansaku th, .tansaku td { border-bottom: 1px solid var(--line); padding: .1em .6em; text-align: left; }
.tansaku td.n { text-align: right; font-variant-numeric: tabular-nums; }
.tansaku meter { width: 6em; }
.tansaku .s1 { --shade: .15; } .tansaku .s2 { --shade: .25; } .tansaku .s3 { --shade: .36; }
.tansaku .s4 { --shade: .48; } .tansaku .s5 { --shade: .6; } .tansaku .s6 { --shade: .74; }
.tansaku .s7 { --shade: .9; }
@media (forced-colors: active) { .tansaku mark { text-decoration: underline; } }
"""

_OF_PAGE = "body { margin: 0; } main { padding: 1em; min-height: 100vh; }"

_WORDS = {
    "en": {
        "score": "score",
        "matches": "Matches",
        "query": "query",
        "document": "document",
        "similarity": "similarity",
        "weight": "weight",
        "adds": "adds",
        "cut": "The text is longer than the model reads; its end was ignored.",
        "truncated": "The query is longer than the model reads; its end was ignored.",
        "none": "Nothing was found.",
    },
    "ja": {
        "score": "スコア",
        "matches": "一致した語",
        "query": "検索文",
        "document": "文書",
        "similarity": "類似度",
        "weight": "重み",
        "adds": "寄与",
        "cut": "文書がモデルの読める長さを超えるため、末尾は使われていません。",
        "truncated": "検索文がモデルの読める長さを超えるため、末尾は使われていません。",
        "none": "何も見つかりませんでした。",
    },
}


class Explained(NamedTuple):
    """A query and the explanations of its hits, best first."""

    query: str
    explanations: Sequence[Explanation]


def explain_page(answers: Iterable[Explained], *, language: Literal["en", "ja"] = "en") -> str:
    """A whole page: for each query its hits, with the words of the document that the words of the query met.

    Args:
        answers: the queries and their hits.
        language: "en" or "ja".
    """
    words = _WORDS[language]
    parts = []
    for query, explanations in answers:
        parts.append(f"<h1>{escape(query)}</h1>")
        if not explanations:
            parts.append(f"<p>{words['none']}</p>")
        parts += [_section(explanation, words) for explanation in explanations]
    return (
        f'<!DOCTYPE html>\n<html lang="{language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>tansaku</title><style>{_OF_PAGE}{_STYLE}</style>"
        f'</head><body><main class="tansaku">{"".join(parts)}</main></body></html>\n'
    )


def explanation_html(explanation: Explanation) -> str:
    """An explanation as a part of a page, such as a notebook's."""
    return f'<div class="tansaku"><style>{_STYLE}</style>{_section(explanation, _WORDS["en"])}</div>'


def hits_html(hits: Sequence[Hit]) -> str:
    """Hits as a table, for a notebook; long texts are cut."""
    rows = "".join(
        f'<tr><td class="n">{rank}</td><td class="n">{hit.score:.3f}</td><td>{escape(hit.id)}</td>'
        f"<td>{escape(hit.title)}</td><td>{escape(_shortened(hit.text))}</td></tr>"
        for rank, hit in enumerate(hits, 1)
    )
    heads = "".join(f"<th>{name}</th>" for name in ("", "score", "id", "title", "text"))
    table = f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    return f'<div class="tansaku"><style>{_STYLE}</style>{table}</div>'


def _shortened(text: str) -> str:
    return text if len(text) <= _TEXT_IN_TABLE else f"{text[:_TEXT_IN_TABLE]}…"


def _section(explanation: Explanation, words: dict[str, str]) -> str:
    most = max((_added(match) for match in explanation.matches), default=0.0)
    notes = [words[name] for name in ("truncated", "cut") if getattr(explanation, name)]
    rows = "".join(_row(match, most) for match in explanation.matches if match.query_text)
    heads = "".join(f"<th>{words[name]}</th>" for name in ("query", "document", "similarity", "weight", "adds"))
    return (
        f"<section><h2>{escape(explanation.id)} · {words['score']} {explanation.score:.3f}</h2>"
        f"<p>{_marked(explanation, most)}</p>"
        + "".join(f"<p>{note}</p>" for note in notes)
        + f'<details><summary>{words["matches"]}</summary><div class="scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details></section>"
    )


def _row(match: Match, most: float) -> str:
    added = _added(match)
    meter = f'<meter min="0" max="{max(most, 1e-9):.4f}" value="{max(added, 0):.4f}"></meter>'
    return (
        f"<tr><td>{escape(match.query_text)}</td><td>{escape(match.document_text)}</td>"
        f'<td class="n">{match.similarity:.3f}</td><td class="n">{match.weight:.2f}</td>'
        f"<td>{meter} {added:.3f}</td></tr>"
    )


def _added(match: Match) -> float:
    """What a match adds to the score."""
    return match.weight * match.similarity


def _marked(explanation: Explanation, most: float) -> str:
    """The document's text; each word is as dark as the best match that it is in."""
    of_span: dict[tuple[int, int], list[Match]] = {}
    for match in explanation.matches:
        if match.document_span is not None and match.query_text:
            of_span.setdefault(match.document_span, []).append(match)
    parts, at = [], 0
    for (start, end), matches in sorted(of_span.items()):
        if start < at:  # spans of other tokenizers may overlap
            continue
        shade = min(_SHADES, round(_SHADES * max(map(_added, matches)) / max(most, 1e-9)))
        parts.append(escape(explanation.text[at:start]))
        word = escape(explanation.text[start:end])
        met = ", ".join(f"{match.query_text} {match.similarity:.2f}" for match in matches)
        parts.append(f'<mark class="s{shade}" title="{escape(met)}">{word}</mark>' if shade > 0 else word)
        at = end
    return "".join(parts) + escape(explanation.text[at:])
