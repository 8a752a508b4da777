"""Draws docs/result.svg: what a search of the sample corpus finds, and why.

Run `tansaku demo --db DB` first, then `python docs/site/picture.py DB`.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

from tansaku import Searcher

QUESTION = "梅雨がない地方はどこですか？"
WIDTH, LINE = 780, 30


def picture(db: str) -> str:
    """The SVG: three hits, and the matches of the question's tokens in the first one."""
    searcher = Searcher.open(db, "sample")
    hits = searcher.search(QUESTION, k=3)
    explained = searcher.explain(QUESTION, hits[0].id)
    matches = [match for match in explained.matches if match.query_text]  # not the marks of beginning and end
    height = 60 + LINE * (len(hits) + len(matches)) + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-size="15" '
        f'font-family="system-ui, sans-serif" role="img" aria-label="Hits of {QUESTION} and their matching tokens">',
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#f6f7fb"/>',
        f'<text x="20" y="34" font-size="18" font-weight="600" fill="#1a237e">{QUESTION}</text>',
    ]
    y = 64
    for rank, hit in enumerate(hits, 1):
        text = hit.text if len(hit.text) <= 36 else hit.text[:36] + "…"
        parts.append(f'<text x="20" y="{y}" fill="#666">{rank}</text>')
        parts.append(f'<text x="44" y="{y}" font-weight="600" fill="#4051b5">{hit.score:.2f}</text>')
        parts.append(f'<text x="96" y="{y}" font-weight="600" fill="#222">{escape(hit.title)}</text>')
        parts.append(f'<text x="200" y="{y}" fill="#444">{escape(text)}</text>')
        y += LINE
    caption = "Why 1: token of the question, its best match, weight × similarity"
    parts.append(f'<text x="20" y="{y + 12}" fill="#666">{caption}</text>')
    y += 12 + LINE
    for match in matches:
        length = 300 * max(match.similarity, 0)
        parts.append(f'<text x="44" y="{y}" fill="#222">{escape(match.query_text)}</text>')
        parts.append(f'<text x="170" y="{y}" fill="#222">{escape(match.document_text)}</text>')
        parts.append(f'<rect x="330" y="{y - 13}" width="{length:.0f}" height="16" rx="3" fill="#9fa8da"/>')
        product = f"{match.weight:.2f} × {match.similarity:.2f}"
        parts.append(f'<text x="{340 + length:.0f}" y="{y}" fill="#444">{product}</text>')
        y += LINE
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    (Path(__file__).parents[1] / "result.svg").write_text(picture(sys.argv[1]), encoding="utf-8")
