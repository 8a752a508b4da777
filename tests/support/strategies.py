"""hypothesis strategies that several test files share."""

from __future__ import annotations

from hypothesis import strategies as st

from tansaku import Expansion, TextRules

texts = st.text(st.characters(codec="utf-8"))
expansions = st.builds(
    Expansion,
    token=texts,
    rule=st.sampled_from(["fixed", "minimum", "paper", "shipped"]),
    length=st.integers(1, 8192),
    attend=st.booleans(),
)
rules = st.builds(
    TextRules,
    prefix=texts,
    marker=st.none() | texts,
    max_length=st.integers(1, 8192),
    skiplist=st.lists(texts).map(tuple),
    expansion=st.none() | expansions,
    strip=st.booleans(),
)
