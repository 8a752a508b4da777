from __future__ import annotations

import math
from pathlib import Path

import pytest

from tansaku import InputError, SourceError
from tansaku.plugin.evaluation.measures import judged_queries, measure, read_qrels, read_queries, trec_lines


def test_measures_equal_hand_computed_values():
    qrels = {"a": {"x": 1}, "b": {"y": 1}, "c": {"z": 1}}
    run = {"a": {"x": 3.0, "y": 2.0}, "b": {"x": 3.0, "w": 2.5, "y": 2.0}}  # c found nothing
    values = measure(run, qrels)
    assert values["hit@1"] == pytest.approx(1 / 3)
    assert values["hit@3"] == values["hit@10"] == pytest.approx(2 / 3)
    assert values["mrr@10"] == pytest.approx((1 + 1 / 3) / 3)
    assert values["ndcg@10"] == pytest.approx((1 + 1 / math.log2(4)) / 3)


def test_reads_beir_and_trec_judgements(tmp_path: Path):
    beir, trec = tmp_path / "beir.tsv", tmp_path / "trec.txt"
    beir.write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t2\n", encoding="utf-8")
    trec.write_text("q1 0 d1 1\nq1 0 d2 2\n", encoding="utf-8")
    assert read_qrels(beir) == read_qrels(trec) == {"q1": {"d1": 1, "d2": 2}}


@pytest.mark.parametrize(
    ("content", "offender"),
    [("q1\td1\t1\nq1\td2\tmany\n", ":2: the grade 'many'"), ("q1 d1\n", ":1: expected 3"), ("", "no judgements")],
)
def test_bad_judgements_are_named(tmp_path: Path, content: str, offender: str):
    path = tmp_path / "qrels.tsv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SourceError, match=offender):
        read_qrels(path)


@pytest.mark.parametrize(
    ("content", "offender"),
    [
        ('{"_id": "a", "text": ""}\n', ":1: a query needs"),
        ('{"text": "x"}\n', ":1: a query needs"),
        ('{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n', ":2: query id 'a' occurs twice"),
        ('{"_id": "a", "text": "x"}\n{"_id": "b", "te\n', ":2: not valid JSON"),
    ],
)
def test_bad_queries_are_named(tmp_path: Path, content: str, offender: str):
    path = tmp_path / "queries.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SourceError, match=offender):
        read_queries(path)


def test_a_judged_query_without_text_is_named():
    with pytest.raises(InputError, match=r"1 of 2 .* 'b'"):
        judged_queries({"a": "犬"}, {"a": {"x": 1}, "b": {"y": 1}})


def test_trec_lines_are_ranked():
    assert list(trec_lines({"q": {"x": 2.0, "y": 1.5}})) == [
        "q Q0 x 1 2.000000 tansaku",
        "q Q0 y 2 1.500000 tansaku",
    ]
