"""Groups of neighbouring passages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tansaku.training.data.neighbours import neighbour_groups
from tansaku.training.errors import TrainingDataError

PASSAGES = {f"p{i}": f"{i}番目の文章の最初の文です。それから{i}番目の次の文です。短い。" for i in range(13)}
ASKED = {"p0": ["q0", "q1"], "p5": ["q2"], "p12": ["q3"]}


@given(nway=st.integers(2, 6), queries=st.integers(1, 4), blocks=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_block_is_neighbours_asked_by_questions_then_by_sentences(nway, queries, blocks, seed):
    groups, sentences = neighbour_groups(PASSAGES, ASKED, nway=nway, queries=queries, blocks=blocks, seed=seed)
    assert len(groups) == queries * min(blocks, len(PASSAGES) // nway)
    ids = list(PASSAGES)
    for first in range(0, len(groups), queries):
        block = groups[first : first + queries]
        start = min(map(ids.index, block[0].passages))
        assert start % nway == 0
        neighbours = ids[start : start + nway]
        asked = {q for p in neighbours for q in ASKED.get(p, ())}
        assert len(asked & {group.query for group in block}) == min(queries, len(asked))
        for group in block:
            assert sorted(group.passages) == sorted(neighbours)
            assert group.scores.tolist() == [1.0] + [0.0] * (nway - 1)
            if group.query in sentences:
                assert sentences[group.query] in PASSAGES[group.passages[0]]
                assert 8 <= len(sentences[group.query]) <= 60
            else:
                assert group.query in ASKED[group.passages[0]]
    assert sentences.keys() == {group.query for group in groups} - {q for asked in ASKED.values() for q in asked}


def test_the_same_seed_gives_the_same_groups():
    drawn = [neighbour_groups(PASSAGES, ASKED, nway=4, queries=3, blocks=2, seed=7) for _ in range(2)]
    assert [g.passages for g in drawn[0][0]] == [g.passages for g in drawn[1][0]]
    assert drawn[0][1] == drawn[1][1]


def test_too_few_passages_or_sentences_are_an_error():
    with pytest.raises(TrainingDataError, match="no 14 neighbours have 2 questions and sentences; use smaller numbers"):
        neighbour_groups(PASSAGES, ASKED, nway=14, queries=2, blocks=1, seed=1)
    with pytest.raises(TrainingDataError, match="no 4 neighbours have 9 questions and sentences"):
        neighbour_groups(PASSAGES, {}, nway=4, queries=9, blocks=1, seed=1)
