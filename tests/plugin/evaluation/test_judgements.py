"""What BEIR and TREC files are read as, and what is said of bad ones."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
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
    read_scores,
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
        ("q.jsonl", '{"text": "x"}\n', ":1: expected the fields '_id'.* and 'text'.*, found text"),
        ("q.jsonl", '{"_id": "a", "text": 3}\n', ":1: expected the fields '_id'.* and 'text'"),
        ("q.jsonl", "[1]\n", ":1: expected a JSON object"),
        ("q.jsonl", '{"_id": "1", "text": "x"}\n{"_id": 1, "text": "y"}\n', ":2: the id '1' occurs twice"),
        ("q.jsonl", '{"_id": "a", "text": "x"}\n{"_id": "b", "te\n', ":2: not valid JSON"),
        ("q.tsv", "1 a\n", ":1: expected an id and a text.* with a tab between them, found 1 fields"),
        ("q.tsv", "1\ta\n2\tb\tc\n", ":2: 3 fields, but the first line has 2"),
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
    assert searcher.unknown(["d0", "gone", "d5#0", "d5#99"]) == ["gone", "d5#99"]
    passages = search_all(searcher, {"q": sentences[5]}, k=3, recall="exact", passages=True)
    assert all("#" in passage_id for passage_id in passages["q"])


def test_trec_lines_are_ranked():
    assert list(trec_lines({"q": {"x": 2.0, "y": 1.5}})) == [
        "q Q0 x 1 2.000000 tansaku",
        "q Q0 y 2 1.500000 tansaku",
    ]


def test_a_title_is_the_third_field_of_passages_without_a_header(tmp_path: Path):
    (tmp_path / "c.tsv.gz").write_bytes(gzip.compress("1\t文\t題\n2\t字\t\n".encode()))
    assert read_passages(tmp_path / "c.tsv.gz") == {"1": "題 文", "2": "字"}
    with pytest.raises(SourceError, match=r"c\.tsv\.gz:1: expected an id and a text with a tab .*found 3 fields"):
        read_queries(tmp_path / "c.tsv.gz")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("q.json", '[{"query_id": 1, "query": "文"}, {"query_id": 2, "query": "字"}]'),
        ("q.jsonl", '{"qid": "1", "question": "文"}\n{"qid": "2", "question": "字"}\n'),
        ("q.tsv", "query_id\ttext\n1\t文\n2\t字\n"),
        ("q.tsv", "\ufeff1\t文\n\ufeff2\t字\n"),
        ("q.jsonl", '{"_id": "\ufeff1", "text": "文"}\n{"_id": 2, "text": "字"}\n'),
    ],
)
def test_queries_of_other_trainers_and_of_the_hub(tmp_path: Path, name: str, content: str):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_queries(tmp_path / name) == {"1": "文", "2": "字"}


def test_passages_in_a_parquet_file_of_the_hub(tmp_path: Path):
    pq.write_table(pa.table({"document_id": [7, 8], "text": ["文", "字"]}), tmp_path / "c.parquet")
    assert read_passages(tmp_path / "c.parquet") == {"7": "文", "8": "字"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "qrels.jsonl",
            '{"query-id": "q1", "corpus-id": "d1", "score": 1}\n{"query-id": "q1", "corpus-id": "d2", "score": 2}\n',
        ),
        ("qrels.tsv", "\ufeffq1\t0\td1\t1\nq1\t0\td2\t2\n"),
        ("qrels", "q1 0 d1 1\n\ufeffq1 0 d2 2\n"),
    ],
)
def test_judgements_in_other_forms(tmp_path: Path, name: str, content: str):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_qrels(tmp_path / name) == {"q1": {"d1": 1, "d2": 2}}
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
    assert read_qrels(tmp_path / f"{name}.gz") == {"q1": {"d1": 1, "d2": 2}}


def test_scores_come_from_runs_and_from_files_of_three_fields(tmp_path: Path):
    (tmp_path / "run.trec").write_text("q1 Q0 d1 1 0.5 x\n")
    (tmp_path / "s.tsv").write_text("query\tpassage\tscore\nq1\td1\t0.5\n")
    (tmp_path / "s.jsonl").write_text('{"query_id": "q1", "document_id": "d1", "score": 0.5}\n')
    for path in sorted(tmp_path.iterdir()):
        assert [found[1:] for found in read_scores(path)] == [("q1", "d1", 0.5)]
    (tmp_path / "bad.tsv").write_text("q1\td1\t0.5\nq1\td2\tmuch\n")
    with pytest.raises(SourceError, match=r"bad\.tsv:2: the score 'much' is not a number"):
        list(read_scores(tmp_path / "bad.tsv"))
