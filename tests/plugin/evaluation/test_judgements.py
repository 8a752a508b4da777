"""What BEIR and TREC files are read as, and what is said of bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tansaku import Index, InputError, Searcher, SourceError
from tansaku.plugin.evaluation.judgements import (
    check_missing,
    judged_documents,
    judged_queries,
    read_passages,
    read_qrels,
    read_queries,
    read_run,
    trec_lines,
)
from tansaku.plugin.evaluation.ranking import search_all

from ...support.fakes import FakeEncoder


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
    ("name", "content", "offender"),
    [
        ("q.jsonl", '{"_id": "a", "text": " "}\n', ":1: the text of 'a' is empty; leave it out"),
        ("q.jsonl", '{"text": "x"}\n', ":1: expected the fields '_id'.* and 'text', found text"),
        ("q.jsonl", '{"_id": "a", "text": 3}\n', ":1: expected the fields '_id'.* and 'text'"),
        ("q.jsonl", "[1]\n", ":1: expected a JSON object"),
        ("q.jsonl", '{"_id": "1", "text": "x"}\n{"_id": 1, "text": "y"}\n', ":2: the id 1 occurs twice"),
        ("q.jsonl", '{"_id": "a", "text": "x"}\n{"_id": "b", "te\n', ":2: not valid JSON"),
        ("q.tsv", "1 a\n", ":1: expected an id and a text with a tab between them, found 1 fields"),
        ("q.tsv", "1\ta\n2\tb\tc\n", ":2: expected an id and a text with a tab between them, found 3 fields"),
        ("q.tsv", "_id\ttext\n1\t\n", ":2: the text of '1' is empty"),
    ],
)
@pytest.mark.parametrize("read", [read_queries, read_passages])
def test_bad_texts_are_named(tmp_path: Path, read, name: str, content: str, offender: str):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SourceError, match=offender):
        read(path)


def test_texts_of_several_files_with_and_without_a_header(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"_id": 1, "title": "題", "text": "文"}\n', encoding="utf-8")
    (tmp_path / "b.tsv").write_text('2\t"文\n\n3\t文 \n', encoding="utf-8")
    (tmp_path / "c.tsv").write_text("id\ttitle\ttext\n4\t題\t文\n", encoding="utf-8")
    paths = sorted(tmp_path.iterdir())
    assert read_queries(paths) == {"1": "文", "2": '"文', "3": "文", "4": "文"}
    assert read_passages(paths) == {"1": "題 文", "2": '"文', "3": "文", "4": "題 文"}
    (tmp_path / "d.tsv").write_text("4\tまた\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"d\.tsv:1: the id '4' occurs twice"):
        read_queries([*paths, tmp_path / "d.tsv"])


def test_runs_are_read_best_first(tmp_path: Path):
    (tmp_path / "run").write_text("q1 Q0 a 2 0.5 x\nq1 Q0 b 1 0.9 x\n\nq2 Q0 c 1 3 x\n")
    run = read_run(tmp_path / "run")
    assert {query: list(found) for query, found in run.items()} == {"q1": ["b", "a"], "q2": ["c"]}
    assert next(iter(trec_lines(run))) == "q1 Q0 b 1 0.900000 tansaku"


@pytest.mark.parametrize(
    ("line", "offender"),
    [
        ("q1 Q0 a", "run:1: expected 6 fields of a TREC run, found 3"),
        ("q1 Q0 a 1 x y", "run:1: the score 'x' is not a finite number"),
        ("q1 Q0 a 1 nan y", "run:1: the score 'nan' is not a finite number"),
    ],
)
def test_a_bad_line_of_a_run_is_named(tmp_path: Path, line: str, offender: str):
    (tmp_path / "run").write_text(line)
    with pytest.raises(SourceError, match=offender):
        read_run(tmp_path / "run")


ODD = "a\u2028b\x85c\u3000d"  # an id; only spaces, tabs and line breaks divide TREC's fields


@pytest.mark.parametrize("form", ["{q}\t{d}\t1\n", "{q} 0 {d} 1\n"])
def test_ids_may_hold_line_breaks_that_are_none(tmp_path: Path, form: str):
    (tmp_path / "qrels").write_text(form.format(q="q" + ODD, d="d" + ODD), encoding="utf-8")
    assert read_qrels(tmp_path / "qrels") == {"q" + ODD: {"d" + ODD: 1}}
    (tmp_path / "run").write_text("\n".join(trec_lines({"q" + ODD: {"d" + ODD: 0.5}})), encoding="utf-8")
    assert read_run(tmp_path / "run") == {"q" + ODD: {"d" + ODD: 0.5}}
    (tmp_path / "q.tsv").write_text(f"q{ODD}\t文{ODD}\n", encoding="utf-8")
    assert read_queries(tmp_path / "q.tsv") == {"q" + ODD: "文" + ODD}


@pytest.mark.parametrize("name", ["a b", "a\tb", "a\nb", "a\rb"])
def test_an_id_that_a_run_cannot_hold_is_named(name: str):
    with pytest.raises(InputError, match=r"document 'a.{1,2}b' has a space"):
        list(trec_lines({"q": {name: 1.0}}))
    with pytest.raises(InputError, match=r"query 'a.{1,2}b' has a space"):
        list(trec_lines({name: {"d": 1.0}}))


def test_a_judged_query_without_text_is_named():
    with pytest.raises(InputError, match=r"1 of 2 .* 'b'"):
        judged_queries({"a": "犬"}, {"a": {"x": 1}, "b": {"y": 1}})


JUDGED = {"a": {"x": 1, "y": 0}, "b": {"z": 2, "x": 0}}


def test_judged_documents_that_are_not_there_are_counted_and_named():
    assert judged_documents(JUDGED) == ["x", "y", "z"]
    assert check_missing(JUDGED, [], "here") is None
    said = check_missing(JUDGED, ["z"], "table 't'")
    assert said == (
        "table 't': 1 of 3 judged documents (1 of 2 relevant ones) are not here and cannot be found, such as 'z'"
    )


@pytest.mark.parametrize("missing", [["x", "y"], ["x", "z"], ["x", "y", "z"]])
def test_if_most_judged_documents_are_not_there_that_is_an_error_unless_it_is_allowed(missing: list[str]):
    with pytest.raises(InputError, match=rf"{len(missing)} of 3 judged .*; give the documents .*--allow-missing"):
        check_missing(JUDGED, missing, "here")
    assert check_missing(JUDGED, missing, "here", allow_missing=True)


def test_the_documents_of_an_index_of_passages_are_judged(tmp_path: Path):
    sentences = [f"{i}番の文。" for i in range(9)]
    documents = [{"id": f"d{i}", "text": "".join(sentences[i : i + 4])} for i in range(6)]
    Index.create(tmp_path, "t", documents, encoder=FakeEncoder(), passage_tokens=5)
    searcher = Searcher.open(tmp_path, "t", encoder=FakeEncoder())
    assert len(searcher) > 6
    run = search_all(searcher, {"q": sentences[5]}, k=3, recall="exact")
    scores = dict(
        zip([d["id"] for d in documents], searcher.score(sentences[5], [d["id"] for d in documents]), strict=False)
    )
    assert set(run["q"]) <= set(scores)
    assert list(run["q"].values()) == sorted(scores.values(), reverse=True)[:3]
    assert searcher.unknown(["d0", "gone", "d5#0"]) == ["gone", "d5#0"]


def test_trec_lines_are_ranked():
    assert list(trec_lines({"q": {"x": 2.0, "y": 1.5}})) == [
        "q Q0 x 1 2.000000 tansaku",
        "q Q0 y 2 1.500000 tansaku",
    ]
