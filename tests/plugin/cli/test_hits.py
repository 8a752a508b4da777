"""The hits of `tansaku search` in its formats."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tansaku import Hit, Hits, InputError, Snippet
from tansaku.plugin.cli.hits import Answer, chosen_fields, show_answers
from tansaku.plugin.search.results import RankedRows

HIT = Hit("d1", 3.5, "題", "前の文。\n日本の首都は東京。", {"年": 1868, "著者": "甲\t乙", "空": None})
RANKED = RankedRows(np.array([0]), np.array([3.5], np.float32), 1, ())
HITS = Hits([HIT], ranked=RANKED, stages={}, version=1, query_tokens=3)
ANSWER = Answer("q1", "首都", HITS, [Snippet("\n日本の首都は東京", 4, ((4, 6), (7, 9)))])


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        (None, ["query_id\trank\tid\tscore\ttitle\ttext", "q1\t1\td1\t3.500000\t題\t前の文。 日本の首都は東京。"]),
        (["年", "空", "著者"], ["query_id\trank\tid\tscore\t年\t空\t著者", "q1\t1\td1\t3.500000\t1868\t\t甲 乙"]),
    ],
)
def test_tsv_has_a_line_for_each_hit(capsys, fields, lines):
    show_answers([ANSWER], "tsv", fields, several=False)
    assert capsys.readouterr().out.splitlines() == lines


def test_jsonl_has_an_object_for_each_hit(capsys):
    show_answers([ANSWER, ANSWER], "jsonl", ["年"], several=True)
    lines = capsys.readouterr().out.splitlines()
    expected = {"query_id": "q1", "query": "首都", "rank": 1, "id": "d1", "score": 3.5, "fields": {"年": 1868}}
    assert [json.loads(line) for line in lines] == [expected] * 2


def test_json_has_the_place_that_matched(capsys):
    show_answers([ANSWER], "json", None, several=False)
    shown = json.loads(capsys.readouterr().out)
    assert shown["query"] == "首都"
    (hit,) = shown["hits"]
    assert (hit["title"], hit["fields"]["年"]) == ("題", 1868)
    snippet = hit["snippet"]
    assert hit["text"][snippet["start"] :].startswith(snippet["text"])
    assert [snippet["text"][start:end] for start, end in snippet["marks"]] == ["首都", "東京"]
    show_answers([ANSWER], "json", ["title"], several=True)
    (query,) = json.loads(capsys.readouterr().out)["queries"]
    assert query["query_id"] == "q1"
    assert set(query["hits"][0]) == {"rank", "id", "score", "title", "fields"}


def test_people_see_what_matched_and_the_columns_that_they_asked_for(capsys):
    show_answers([ANSWER], "text", ["年", "空"], several=False)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["", "首都", "1    3.500  題  d1", "… 日本の«首都»は«東京»…", "年: 1868", "空:"]


def test_fields_are_names_between_commas():
    columns = ["年", "a,b"]
    assert chosen_fields(None, columns) is None
    assert chosen_fields(["年,title", "a,b"], columns) == ["年", "title", "a,b"]
    with pytest.raises(InputError, match="no field '月'; use id, score, title, text, snippet, 年"):
        chosen_fields(["年,月"], columns)


def test_id_and_score_may_be_named_which_every_hit_has(capsys):
    assert chosen_fields(["id,年,score"], ["年"]) == ["年"]
    assert chosen_fields(["score"], ["score"]) == ["score"]  # a column of the caller's
    show_answers([ANSWER], "tsv", chosen_fields(["id"], []), several=False)
    assert capsys.readouterr().out.splitlines() == ["query_id\trank\tid\tscore", "q1\t1\td1\t3.500000"]


def test_a_search_that_is_refused_prints_no_header(capsys):
    def refused():
        raise InputError("the condition cannot be used")
        yield ANSWER

    with pytest.raises(InputError):
        show_answers(refused(), "tsv", None, several=False)
    assert capsys.readouterr().out == ""
