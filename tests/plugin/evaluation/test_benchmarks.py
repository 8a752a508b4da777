"""Public benchmarks: files in their published forms, what is read of them, and measures computed by hand."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tansaku import Encoder, InputError, SourceError
from tansaku.plugin.cli.main import app
from tansaku.plugin.evaluation.beir import without_ties
from tansaku.plugin.evaluation.benchmarks.evaluate import evaluate_benchmark, mean
from tansaku.plugin.evaluation.benchmarks.names import BENCHMARKS, benchmark_named
from tansaku.plugin.evaluation.benchmarks.task import Task
from tansaku.plugin.evaluation.measures import measure

from ...support.fakes import FakeEncoder

FAKE = cast(Encoder, FakeEncoder())


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def lines(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")


JQARA = [
    {"id": f"{q}-{p}", "passage_row_id": p, "q_id": q, "question": text, "answers": ["x"], "title": title, "text": body,
     "label": label}
    for q, text, p, title, body, label in [
        ("QA-1", "日本一高い山は", "10", "富士山", "富士山は日本一高い山", 1),
        ("QA-1", "日本一高い山は", "11", "北岳", "二番目に高い", 0),
        ("QA-1", "日本一高い山は", "12", "", "高い山の一つ", 1),
        ("QA-2", "塩辛いものは", "13", "海", "海の水は塩辛い", 1),
        ("QA-2", "塩辛いものは", "11", "北岳", "二番目に高い", 0),
    ]
]  # fmt: skip


def write_jqara(folder: Path) -> None:
    parquet(folder / "data" / "test-00000-of-00001.parquet", JQARA)


def write_jacwir(folder: Path) -> None:
    pages = [
        ("a", "富士山", "日本一高い山"),
        ("b", "海", "塩辛い水"),
        ("c", "川", None),
        ("d", "北岳", "二番目"),
        ("e", "犬", "鼻"),
    ]
    parquet(
        folder / "collection" / "collection-00000-of-00001.parquet",
        [{"doc_id": i, "title": t, "description": d, "link": "https://x.example", "date": "2024"} for i, t, d in pages],
    )
    asked = [("日本一高い山は", "a", ["b", "d"]), ("塩辛いものは", "b", ["a", "c"])]
    rows = [{"query": q, "positive": p, "negatives": n} for q, p, n in asked]
    parquet(folder / "eval" / "eval-00000-of-00001.parquet", rows)


def write_miracl(folder: Path) -> None:
    lines(folder / "miracl-v1.0-ja/topics/topics.miracl-v1.0-ja-dev.tsv", "0#0\t日本一高い山は", "3#0\t塩辛いものは")
    lines(
        folder / "miracl-v1.0-ja/qrels/qrels.miracl-v1.0-ja-dev.tsv",
        *("0#0\tQ0\t5#0\t1", "0#0\tQ0\t5#1\t0", "3#0\tQ0\t7#0\t1", "3#0\tQ0\t7#1\t1"),
    )
    for number, (article, title, texts) in enumerate(
        [("5", "富士山", ["日本一高い山", "火山"]), ("7", "海", ["塩辛い水", "波"])]
    ):
        jsonl(
            folder / f"miracl-corpus-v1.0-ja/docs-{number}.jsonl.gz",
            [{"docid": f"{article}#{n}", "title": title, "text": text} for n, text in enumerate(texts)],
        )


def write_mr_tydi_archive(folder: Path) -> None:
    root = folder / "mrtydi-v1.1-japanese"
    lines(root / "topic.test.tsv", "1\t日本一高い山は", "2\t塩辛いものは")
    lines(root / "qrels.test.txt", "1 Q0 5#0 1", "2 Q0 7#0 1")
    rows = [{"id": "5#0", "contents": "富士山\n\n日本一高い山"}, {"id": "7#0", "contents": "海\n\n塩辛い水"}]
    jsonl(root / "collection" / "docs.jsonl.gz", rows)


def write_mr_tydi_hub(folder: Path) -> None:
    root = folder / "mrtydi-v1.1-japanese"
    lines(root / "ir-format-data" / "topics.test.txt", "1\t日本一高い山は", "2\t塩辛いものは")
    lines(root / "ir-format-data" / "qrels.test.txt", "1 Q0 5#0 1", "2 Q0 7#0 1")
    rows = [("5#0", "富士山", "日本一高い山"), ("7#0", "海", "塩辛い水")]
    jsonl(root / "corpus.jsonl.gz", [{"docid": i, "title": t, "text": x} for i, t, x in rows])


def write_mldr(folder: Path) -> None:
    texts = {"doc-ja-1": "日本一高い山", "doc-ja-2": "塩辛い水", "doc-ja-3": "犬"}
    jsonl(folder / "mldr-v1.0-ja/corpus.jsonl.gz", [{"docid": i, "text": x} for i, x in texts.items()])
    asked = [("q-ja-1", "日本一高い山は", "doc-ja-1"), ("q-ja-2", "塩辛いものは", "doc-ja-2")]
    jsonl(
        folder / "mldr-v1.0-ja/test.jsonl.gz",
        [
            {"query_id": q, "query": x, "positive_passages": [{"docid": d, "text": texts[d]}], "negative_passages": []}
            for q, x, d in asked
        ],
    )


def write_jsquad(folder: Path) -> None:
    def qas(*asked: tuple[str, str]) -> list[dict[str, Any]]:
        answer = [{"text": "x", "answer_start": 0}]
        return [{"id": i, "question": q, "answers": answer, "is_impossible": False} for i, q in asked]

    paragraphs = [
        {"context": "山 [SEP] 富士山は日本一高い。", "qas": qas(("a1p0q0", "日本一高い山は"), ("a1p0q1", "高いのは"))},
        {"context": "山 [SEP] 北岳は二番目。", "qas": qas(("a1p1q0", "二番目は"))},
    ]
    path = folder / "jsquad-v1.1" / "valid-v1.1.json"
    path.parent.mkdir(parents=True)
    content = {"version": "1.1", "data": [{"title": "山", "paragraphs": paragraphs}]}
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def write_esci(folder: Path) -> None:
    rows = [{"docid": i, "text": x} for i, x in [("B1", "登山靴"), ("B2", "靴下"), ("B3", "傘")]]
    parquet(folder / "esci-corpus" / "corpus.parquet", rows)
    asked = [("登山 靴", ["B2", "B1"], [1, 2]), ("傘", ["B3", "B2"], [2, 0])]
    rows = [{"query": q, "retrieved_docs": d, "relevance_scores": g} for q, d, g in asked]
    parquet(folder / "esci-query" / "test.parquet", rows)


def write_nlp_journal(folder: Path) -> None:
    for task in ("title_abs", "abs_intro"):
        rows = [{"docid": i, "text": x} for i, x in enumerate(["機械翻訳の研究", "検索の研究"])]
        jsonl(folder / f"nlp_journal_{task}-corpus" / "corpus.jsonl", rows)
        rows = [{"query": "機械翻訳", "relevant_docs": 0}, {"query": "検索", "relevant_docs": 1}]
        jsonl(folder / f"nlp_journal_{task}-query" / "test.jsonl", rows)


def write_nano(folder: Path, names: tuple[str, ...] = ("NanoNQ", "NanoMSMARCO"), root: str = "NanoBEIR-ja") -> None:
    for name in names:
        part = f"{name}-00000-of-00001.parquet"
        texts = {"d1": "日本一高い山", "d2": "塩辛い水"}
        parquet(folder / root / "corpus" / part, [{"_id": i, "text": x} for i, x in texts.items()])
        parquet(
            folder / root / "queries" / part,
            [{"_id": "q1", "text": "日本一高い山は"}, {"_id": "q2", "text": "塩辛いものは"}],
        )
        judged = [{"query-id": "q1", "corpus-id": "d1"}, {"query-id": "q2", "corpus-id": "d2"}]
        parquet(folder / root / "qrels" / part, judged)
        parquet(folder / root / "bm25" / part, [{"query-id": "q1", "corpus-ids": ["d2", "d1"]}])


WRITERS: dict[str, Callable[[Path], None]] = {
    "jqara": write_jqara,
    "jacwir": write_jacwir,
    "miracl-ja": write_miracl,
    "mr-tydi-ja": write_mr_tydi_archive,
    "mldr-ja": write_mldr,
    "jsquad": write_jsquad,
    "esci-ja": write_esci,
    "esci-ja-corpus": write_esci,
    "nlp-journal": write_nlp_journal,
    "nanobeir-ja": write_nano,
    "nanojmteb": write_nano,
    "hakari": write_nano,
}


def tasks_of(name: str, folder: Path, split: str | None = None) -> list[Task]:
    benchmark = benchmark_named(name)
    return list(benchmark.read(folder, split or benchmark.split))


def read_all(name: str, folder: Path) -> None:
    for task in tasks_of(name, folder):
        documents_of(task)


def documents_of(task: Task) -> dict[str, tuple[str, str]]:
    """Id → title and text of the documents that are ranked."""
    return {record["_id"]: (record["title"], record["text"]) for _, record in task.corpus}


def test_every_benchmark_has_files_here():
    assert set(WRITERS) == set(BENCHMARKS)


class TestReading:
    def test_jqara(self, tmp_path):
        write_jqara(tmp_path)
        [task] = tasks_of("jqara", tmp_path)
        assert task.queries == {"QA-1": "日本一高い山は", "QA-2": "塩辛いものは"}
        assert task.qrels == {"QA-1": {"10": 1, "12": 1}, "QA-2": {"13": 1}}
        assert task.candidates == {"QA-1": ["10", "11", "12"], "QA-2": ["13", "11"]}
        assert list(documents_of(task)) == ["10", "11", "12", "13"]  # each once
        assert documents_of(task)["10"] == ("富士山", "富士山は日本一高い山")

    def test_jacwir(self, tmp_path):
        write_jacwir(tmp_path)
        [task] = tasks_of("jacwir", tmp_path)
        assert task.queries == {"q_id##a": "日本一高い山は", "q_id##b": "塩辛いものは"}
        assert task.qrels == {"q_id##a": {"a": 1}, "q_id##b": {"b": 1}}
        assert task.candidates == {"q_id##a": ["a", "b", "d"], "q_id##b": ["b", "a", "c"]}
        assert documents_of(task)["c"] == ("", "川")  # no description

    def test_miracl(self, tmp_path):
        write_miracl(tmp_path)
        [task] = tasks_of("miracl-ja", tmp_path)
        assert task.queries == {"0#0": "日本一高い山は", "3#0": "塩辛いものは"}
        assert task.qrels == {"0#0": {"5#0": 1, "5#1": 0}, "3#0": {"7#0": 1, "7#1": 1}}
        assert documents_of(task)["7#1"] == ("海", "波")
        assert task.candidates is None

    @pytest.mark.parametrize(
        ("write", "document"),
        [(write_mr_tydi_archive, ("", "富士山\n\n日本一高い山")), (write_mr_tydi_hub, ("富士山", "日本一高い山"))],
    )
    def test_mr_tydi(self, tmp_path, write, document):
        write(tmp_path)
        [task] = tasks_of("mr-tydi-ja", tmp_path)
        assert task.queries == {"1": "日本一高い山は", "2": "塩辛いものは"}
        assert task.qrels == {"1": {"5#0": 1}, "2": {"7#0": 1}}
        assert documents_of(task)["5#0"] == document

    def test_mldr(self, tmp_path):
        write_mldr(tmp_path)
        [task] = tasks_of("mldr-ja", tmp_path)
        assert task.qrels == {"q-ja-1": {"doc-ja-1": 1}, "q-ja-2": {"doc-ja-2": 1}}
        assert documents_of(task)["doc-ja-3"] == ("", "犬")

    def test_jsquad(self, tmp_path):
        write_jsquad(tmp_path)
        [task] = tasks_of("jsquad", tmp_path)
        assert task.queries == {"a1p0q0": "日本一高い山は", "a1p0q1": "高いのは", "a1p1q0": "二番目は"}
        assert task.qrels == {"a1p0q0": {"p0": 1}, "a1p0q1": {"p0": 1}, "a1p1q0": {"p1": 1}}
        assert documents_of(task) == {"p0": ("山", "富士山は日本一高い。"), "p1": ("山", "北岳は二番目。")}

    def test_esci(self, tmp_path):
        write_esci(tmp_path)
        [task], [whole] = (tasks_of(name, tmp_path) for name in ("esci-ja", "esci-ja-corpus"))
        assert task.qrels == whole.qrels == {"0": {"B2": 1, "B1": 2}, "1": {"B3": 2, "B2": 0}}
        assert task.candidates == {"0": ["B2", "B1"], "1": ["B3", "B2"]}
        assert whole.candidates is None

    def test_nlp_journal_reads_the_tasks_that_are_there(self, tmp_path):
        write_nlp_journal(tmp_path)
        tasks = tasks_of("nlp-journal", tmp_path)
        assert [task.name for task in tasks] == ["nlp_journal_title_abs", "nlp_journal_abs_intro"]
        assert tasks[0].qrels == {"0": {"0": 1}, "1": {"1": 1}}

    def test_nano_reads_every_split(self, tmp_path):
        write_nano(tmp_path)
        tasks = tasks_of("nanobeir-ja", tmp_path)
        assert [task.name for task in tasks] == ["NanoBEIR-ja NanoMSMARCO", "NanoBEIR-ja NanoNQ"]
        assert tasks[0].qrels == {"q1": {"d1": 1}, "q2": {"d2": 1}}
        assert [task.split for task in tasks_of("nanobeir-ja", tmp_path / "NanoBEIR-ja", "NanoNQ")] == ["NanoNQ"]

    def test_hakari_takes_japanese_alone_of_sets_by_language(self, tmp_path):
        write_nano(tmp_path, ("NanoNQ",))
        write_nano(tmp_path, ("de", "ja", "zh"), "NanoMIRACL")
        assert [task.name for task in tasks_of("hakari", tmp_path)] == ["NanoBEIR-ja NanoNQ", "NanoMIRACL ja"]


# Rankings of the files above, and what each benchmark's own measures are for them. dcg of rank 2 is 1 / log2(3).
SECOND = 1 / math.log2(3)
RANKED: list[tuple[str, dict[str, list[str]], dict[str, float]]] = [
    (
        "jqara",  # QA-1: relevant at 1 and 3 of two; QA-2: at 2
        {"QA-1": ["10", "11", "12"], "QA-2": ["11", "13"]},
        {
            "ndcg@10": ((1 + 1 / 2) / (1 + SECOND) + SECOND) / 2,
            "mrr@10": 0.75,
            "ndcg@100": ((1 + 1 / 2) / (1 + SECOND) + SECOND) / 2,
            "mrr@100": 0.75,
        },
    ),
    ("jacwir", {"q_id##a": ["b", "d", "a"], "q_id##b": ["b", "a"]}, {"map@10": (1 / 3 + 1) / 2, "hit@10": 1.0}),
    (
        "miracl-ja",  # the second finds one of two, at 2
        {"0#0": ["5#0", "5#1"], "3#0": ["5#0", "7#0"]},
        {"ndcg@10": (1 + SECOND / (1 + SECOND)) / 2, "recall@100": 0.75, "mrr@10": 0.75, "recall@10": 0.75},
    ),
    (
        "mr-tydi-ja",  # the second finds nothing
        {"1": ["7#0", "5#0"], "2": ["5#0"]},
        {"mrr@100": 0.25, "recall@100": 0.5, "ndcg@10": SECOND / 2},
    ),
    (
        "mldr-ja",
        {"q-ja-1": ["doc-ja-1"], "q-ja-2": ["doc-ja-3", "doc-ja-2"]},
        {"ndcg@10": (1 + SECOND) / 2, "recall@100": 1.0},
    ),
    (
        "jsquad",
        {"a1p0q0": ["p0"], "a1p0q1": ["p1", "p0"], "a1p1q0": ["p0"]},
        {"hit@3": 2 / 3, "hit@1": 1 / 3, "hit@5": 2 / 3, "hit@10": 2 / 3},
    ),
    # Gains are the grades: 1 before 2, where 2 before 1 is best; the other is ranked best.
    ("esci-ja", {"0": ["B2", "B1"], "1": ["B3", "B2"]}, {"ndcg@10": ((1 + 2 * SECOND) / (2 + SECOND) + 1) / 2}),
    (
        "esci-ja-corpus",
        {"0": ["B3", "B1"], "1": ["B3"]},
        {"ndcg@10": (2 * SECOND / (2 + SECOND) + 1) / 2, "mrr@10": 0.75, "recall@10": 0.75},
    ),
    (
        "nlp-journal",
        {"0": ["1", "0"], "1": ["1"]},
        {"ndcg@10": (SECOND + 1) / 2, "mrr@10": 0.75, "hit@1": 0.5, "hit@10": 1.0},
    ),
    (
        "nanobeir-ja",
        {"q1": ["d2", "d1"], "q2": ["d2"]},
        {"ndcg@10": (SECOND + 1) / 2, "recall@100": 1.0, "hit@10": 1.0, "mrr@10": 0.75, "map@100": 0.75},
    ),
]


@pytest.mark.parametrize(("name", "ranked", "expected"), RANKED, ids=[name for name, *_ in RANKED])
def test_measures_are_those_computed_by_hand(tmp_path, name, ranked, expected):
    WRITERS[name](tmp_path)
    task = tasks_of(name, tmp_path)[0]
    run = {query: {doc: -float(rank) for rank, doc in enumerate(docs)} for query, docs in ranked.items()}
    assert measure(without_ties(run), task.qrels, task.measures) == pytest.approx(expected)
    assert list(task.measures) == list(expected)


def changed(path: Path, **fields: Any) -> None:
    """The second record of a file with other fields; None removes one."""
    rows = pq.read_table(path).to_pylist() if path.suffix == ".parquet" else None
    if rows is None:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        rows = [json.loads(line) for line in content.splitlines()]
    rows[1] = {name: value for name, value in {**rows[1], **fields}.items() if value is not None}
    path.unlink()
    jsonl(path.with_name(path.name.replace(".parquet", ".jsonl")), rows)


@pytest.mark.parametrize(
    ("name", "path", "fields", "said"),
    [
        ("jqara", "data/test-00000-of-00001.parquet", {"label": 0.5}, r"jsonl:2: the field 'label': the grade 0.5"),
        ("jqara", "data/test-00000-of-00001.parquet", {"q_id": None}, r"jsonl:2: no field 'q_id'; it has 'id', "),
        ("jqara", "data/test-00000-of-00001.parquet", {"question": "他"}, r"jsonl:2: the field 'question' is another"),
        ("jqara", "data/test-00000-of-00001.parquet", {"passage_row_id": "10"}, r"jsonl:2: the passage_row_id '10'"),
        (
            "jacwir",
            "eval/eval-00000-of-00001.parquet",
            {"negatives": "a"},
            r"jsonl:2: the field 'negatives' is not a l",
        ),
        ("jacwir", "eval/eval-00000-of-00001.parquet", {"positive": "a"}, r"jsonl:2: the query id 'q_id##a' occurs tw"),
        (
            "jacwir",
            "collection/collection-00000-of-00001.parquet",
            {"title": 3},
            r"jsonl:2: the field 'title' is not a",
        ),
        ("miracl-ja", "miracl-corpus-v1.0-ja/docs-1.jsonl.gz", {"docid": None}, r"gz:2: no field 'docid'"),
        (
            "mldr-ja",
            "mldr-v1.0-ja/test.jsonl.gz",
            {"positive_passages": ["x"]},
            r"gz:2: positive_passages\[0\]: not an",
        ),
        ("mldr-ja", "mldr-v1.0-ja/test.jsonl.gz", {"query": " "}, r"gz:2: the field 'query' is empty"),
        ("esci-ja", "esci-query/test.parquet", {"relevance_scores": [1]}, r"jsonl:2: 2 ids in the field 'retrieved_d"),
        (
            "nlp-journal",
            "nlp_journal_title_abs-query/test.jsonl",
            {"relevant_docs": 0.5},
            r"jsonl:2: the field 'releva",
        ),
        (
            "nanobeir-ja",
            "NanoBEIR-ja/qrels/NanoNQ-00000-of-00001.parquet",
            {"corpus-id": None},
            r"jsonl:2: no field 'c",
        ),
    ],
)
def test_a_bad_field_is_named_with_its_file_and_line(tmp_path, name, path, fields, said):
    WRITERS[name](tmp_path)
    changed(tmp_path / path, **fields)
    with pytest.raises(SourceError, match=said):
        read_all(name, tmp_path)


def test_what_is_wrong_in_jsquad_is_named_by_its_place(tmp_path):
    write_jsquad(tmp_path)
    path = tmp_path / "jsquad-v1.1" / "valid-v1.1.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["data"][0]["paragraphs"][1]["qas"][0]["question"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(SourceError, match=r"json: data\[0\].paragraphs\[1\].qas\[0\]: no field 'question'"):
        tasks_of("jsquad", tmp_path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(SourceError, match=r"valid-v1.1.json: not JSON"):
        tasks_of("jsquad", tmp_path)


def test_a_line_of_topics_without_a_tab_is_named(tmp_path):
    write_mr_tydi_archive(tmp_path)
    lines(tmp_path / "mrtydi-v1.1-japanese" / "topic.test.tsv", "1\tx", "2 y")
    with pytest.raises(SourceError, match=r"topic.test.tsv:2: expected an id and a text with a tab"):
        tasks_of("mr-tydi-ja", tmp_path)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_folder_without_the_files_says_which_are_missing(tmp_path, name):
    with pytest.raises(SourceError, match=r"(no file|none of the folders) .* in it or below it"):
        tasks_of(name, tmp_path)
    with pytest.raises(SourceError, match=r"no such folder|none of the folders"):
        tasks_of(name, tmp_path / "none")


def test_an_unknown_benchmark_or_split_names_what_there_is(tmp_path):
    with pytest.raises(InputError, match="no benchmark 'beir'; use one of jqara, jacwir, "):
        benchmark_named("beir")
    assert benchmark_named("JQaRA") is BENCHMARKS["jqara"]
    write_nano(tmp_path)
    with pytest.raises(SourceError, match="no task 'NanoFEVER'"):
        tasks_of("nanobeir-ja", tmp_path, "NanoFEVER")


class TestRanking:
    @pytest.mark.parametrize("way", ["bm25", "exhaustive"])
    def test_only_the_candidates_of_each_query_are_ranked(self, tmp_path, way):
        write_jacwir(tmp_path)
        [result] = evaluate_benchmark("jacwir", tmp_path, models={"fake": FAKE}, ways=[way])
        assert {query: set(docs) for query, docs in result.run.items()} == {
            "q_id##a": {"a", "b", "d"},
            "q_id##b": {"b", "a", "c"},
        }
        assert result.beir.n_documents == 4  # "e" is nobody's candidate
        assert next(iter(result.run["q_id##a"])) == "a"

    def test_exhaustive_scores_are_maxsim_of_title_and_text(self, tmp_path):
        write_jqara(tmp_path)
        [result] = evaluate_benchmark("jqara", tmp_path, models={"fake": FAKE}, ways=["exhaustive"])
        query, document = (FakeEncoder().vectors(text) for text in ("日本一高い山は", "富士山 富士山は日本一高い山"))
        assert result.run["QA-1"]["10"] == pytest.approx(float((query @ document.T).max(axis=1).sum()), rel=1e-5)

    @pytest.mark.integration
    @pytest.mark.parametrize("name", ["jacwir", "mldr-ja"])
    def test_through_an_index_the_same_documents_are_ranked(self, tmp_path, name):
        WRITERS[name](tmp_path)
        exact, indexed = evaluate_benchmark(name, tmp_path, models={"fake": FAKE}, ways=["exhaustive", "index"])
        assert {q: set(docs) for q, docs in indexed.run.items()} == {q: set(docs) for q, docs in exact.run.items()}

    def test_a_candidate_without_text_is_counted_and_left_out(self, tmp_path):
        write_jacwir(tmp_path)
        changed(tmp_path / "collection" / "collection-00000-of-00001.parquet", title="", description="")  # "b"
        for result in evaluate_benchmark("jacwir", tmp_path, models={"fake": FAKE}, ways=["bm25", "exhaustive"]):
            assert result.beir.empty == 1
            assert set(result.run["q_id##b"]) == {"a", "c"}
            assert result.measures["hit@10"] == 0.5

    def test_some_questions_bring_their_candidates_alone(self, tmp_path):
        write_jacwir(tmp_path)
        [result] = evaluate_benchmark("jacwir", tmp_path, models={}, ways=["bm25"], questions=1)
        assert (list(result.run), result.beir.n_documents) == (["q_id##a"], 3)

    def test_queries_without_judgements_are_counted(self, tmp_path):
        write_mr_tydi_archive(tmp_path)
        lines(tmp_path / "mrtydi-v1.1-japanese" / "qrels.test.txt", "1 Q0 5#0 1")
        [result] = evaluate_benchmark("mr-tydi-ja", tmp_path, models={}, ways=["bm25"])
        assert (result.unjudged, list(result.run)) == (1, ["1"])

    def test_the_mean_counts_each_task_once(self, tmp_path):
        write_nano(tmp_path)
        rows = [{"query-id": "q1", "corpus-id": "d2"}]  # not what "q1" finds first
        parquet(tmp_path / "NanoBEIR-ja/qrels/NanoNQ-00000-of-00001.parquet", rows)
        results = list(evaluate_benchmark("hakari", tmp_path, models={}, ways=["bm25"]))
        assert [result.measures["hit@10"] for result in results] == [1.0, 0.0]
        assert mean(results)["BM25"]["hit@10"] == 0.5

    def test_bad_arguments_are_refused_before_anything_is_read(self, tmp_path):
        for given, said in (
            ({"ways": ["fast"]}, "use some of"),
            ({"models": {}}, "no models"),
            ({"questions": 0}, "questions"),
        ):
            with pytest.raises(InputError, match=said):
                evaluate_benchmark("jqara", tmp_path / "none", **{"models": {"fake": FAKE}, **cast(dict, given)})


class TestCommand:
    def test_it_prints_the_measures_of_a_benchmark(self, tmp_path):
        write_jacwir(tmp_path)
        ended = CliRunner().invoke(
            app, ["evaluate", "--benchmark", "jacwir", "--data", str(tmp_path), "--way", "bm25", "--json"]
        )
        printed = json.loads(ended.stdout)
        assert printed["benchmark"] == "jacwir"
        [task] = printed["tasks"]
        assert (task["name"], task["questions"], task["documents"], task["ranked"]) == ("JaCWIR", 2, 4, "candidates")
        assert task["results"][0]["way"] == "BM25"
        assert task["results"][0]["metrics"] == {"map@10": 1.0, "hit@10": 1.0}

    def test_it_prints_a_table_and_the_mean_of_several_tasks(self, tmp_path):
        write_nano(tmp_path)
        ended = CliRunner().invoke(app, ["evaluate", "--benchmark", "hakari", "--data", str(tmp_path), "--way", "bm25"])
        assert "NanoBEIR-ja NanoNQ, NanoNQ: 2 questions, 2 documents" in ended.output
        assert "mean of 2 tasks" in ended.output

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (["--benchmark", "jqara"], "needs --data"),
            (["--benchmark", "jqara", "--data", "x", "--db", "y", "-k", "20"], "--db, -k: for an index"),
            (["--data", "x"], "--data: for a benchmark"),
            ([], "--db, --table and --queries"),
        ],
    )
    def test_options_that_would_be_ignored_are_refused(self, given, said):
        ended = CliRunner().invoke(app, ["evaluate", *given])
        assert isinstance(ended.exception, InputError)
        assert said in str(ended.exception)
