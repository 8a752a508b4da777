"""The command line through its real entry point, the installed script."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sysconfig
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tansaku.plugin.demo import SAMPLE

TANSAKU = Path(sysconfig.get_path("scripts")) / "tansaku"
COMMANDS = ("demo", "index", "search", "info", "export", "evaluate")
TWO = [{"_id": "dog", "title": "犬", "text": "犬は嗅覚が鋭い。", "year": 2001}, {"_id": "sea", "text": "海は塩辛い。"}]


def tansaku(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    command = [str(TANSAKU), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def write_jsonl(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def two_db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    source = write_jsonl(folder / "docs.jsonl", TWO)
    result = tansaku("index", source, "--db", folder / "db", "--table", "docs")
    assert result.returncode == 0, result.stderr
    assert "2 documents" in result.stdout
    return folder / "db"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str):
    result = tansaku(command, "--help")
    assert result.returncode == 0
    assert f"Example: tansaku {command}" in " ".join(result.stdout.replace("│", " ").split())


def test_demo_indexes_and_answers_three_questions():
    result = tansaku("demo")
    assert result.returncode == 0, result.stderr
    assert "300 documents" in result.stdout
    assert "bytes/token" in result.stdout
    for question, answer in (("梅雨がない", "梅雨"), ("マーラー", "グスタフ"), ("活版印刷", "グーテンベルク")):
        first_hit = result.stdout.split(question)[1].split("\n")[1]
        assert first_hit.lstrip().startswith("1 ")
        assert answer in first_hit
    assert "encoding" in result.stderr  # plain progress lines where there is no terminal


def test_search_prints_hits_and_json(two_db: Path):
    table = ("--db", two_db, "--table", "docs")
    shown = tansaku("search", "嗅覚が鋭いのは", *table, "-k", "1")
    assert "dog" in shown.stdout
    assert "犬は嗅覚が鋭い。" in shown.stdout
    printed = json.loads(tansaku("search", "嗅覚が鋭いのは", *table, "--json").stdout)
    assert [hit["rank"] for hit in printed["hits"]] == [1, 2]
    assert printed["hits"][0] == {
        "rank": 1,
        "id": "dog",
        "score": printed["hits"][0]["score"],
        "title": "犬",
        "text": "犬は嗅覚が鋭い。",
        "fields": {"year": 2001},
    }


def test_info_tells_documents_and_bytes_per_token(two_db: Path):
    table = ("--db", two_db, "--table", "docs")
    printed = json.loads(tansaku("info", *table, "--json").stdout)
    assert (printed["documents"], printed["nbits"]) == (2, 2)
    assert printed["bytes_per_token"] == pytest.approx(printed["bytes_on_disk"] / printed["tokens"])
    assert "bytes/token" in tansaku("info", *table).stdout


def test_evaluate_prints_the_measures_and_writes_a_run(sample_db: Path, tmp_path: Path):
    result = tansaku(
        *("evaluate", "--db", sample_db, "--table", "sample", "--json", "--run", tmp_path / "run.txt"),
        *("--queries", SAMPLE / "queries.jsonl", "--qrels", SAMPLE / "qrels.tsv"),
    )
    assert result.returncode == 0, result.stderr
    metrics = json.loads(result.stdout)["metrics"]
    assert list(metrics) == ["ndcg@10", "mrr@10", "hit@1", "hit@3", "hit@5", "hit@10"]
    assert 0.93 <= metrics["hit@1"] <= metrics["mrr@10"] <= metrics["ndcg@10"] <= metrics["hit@10"] <= 1
    run = (tmp_path / "run.txt").read_text(encoding="utf-8").splitlines()
    assert len(run) == 3000
    assert run[0].split()[1::2][0] == "Q0"


def test_other_formats_and_field_names(tmp_path: Path):
    records = [{"key": "a", "body": "犬は嗅覚が鋭い。", "head": "犬"}]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "docs.parquet")
    (tmp_path / "docs.tsv").write_text("key\tbody\thead\na\t犬は嗅覚が鋭い。\t犬\n", encoding="utf-8")
    with gzip.open(tmp_path / "docs.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps(records[0]) + "\n")
    names = ("--id-field", "key", "--text-field", "body", "--title-field", "head", "--nbits", "4")
    for number, name in enumerate(("docs.parquet", "docs.tsv", "docs.jsonl.gz")):
        table = ("--db", tmp_path / "db", "--table", f"t{number}")
        result = tansaku("index", tmp_path / name, *table, *names)
        assert result.returncode == 0, result.stderr
        (hit,) = json.loads(tansaku("search", "犬", *table, "--json").stdout)["hits"]
        assert (hit["id"], hit["title"], hit["text"]) == ("a", "犬", "犬は嗅覚が鋭い。")


def test_append_and_overwrite(tmp_path: Path):
    first = write_jsonl(tmp_path / "first.jsonl", [TWO[0]])
    second = write_jsonl(tmp_path / "second.jsonl", [TWO[1]])
    table = ("--db", tmp_path / "db", "--table", "t")
    assert tansaku("index", first, *table).returncode == 0
    assert tansaku("index", second, *table, "--mode", "append").returncode == 0
    assert json.loads(tansaku("info", *table, "--json").stdout)["documents"] == 2
    assert tansaku("index", second, *table, "--mode", "overwrite").returncode == 0
    assert json.loads(tansaku("info", *table, "--json").stdout)["documents"] == 1


@pytest.mark.parametrize(
    ("content", "offender"),
    [
        (None, "docs.jsonl: no such file"),
        (b'{"_id": "a", "text": "x"}\n{"_id": "b", "te\n', "docs.jsonl:2: not valid JSON"),
        (b'{"_id": "a"}\n', "docs.jsonl:1: no field 'text'"),
        (b'{"_id": "a", "text": " "}\n', "docs.jsonl:1: field 'text' of 'a' is empty"),
        (b'{"_id": "a", "text": 7}\n', "docs.jsonl:1: field 'text' of 'a' must be a string, not int"),
        (b'{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n', "docs.jsonl:2: id 'a' occurs twice"),
        (b"", "no documents"),
    ],
)
def test_a_bad_source_ends_with_status_2_and_leaves_nothing(tmp_path: Path, content: bytes | None, offender: str):
    source = tmp_path / "docs.jsonl"
    if content is not None:
        source.write_bytes(content)
    result = tansaku("index", source, "--db", tmp_path / "db", "--table", "t")
    assert result.returncode == 2
    assert offender in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "db").exists()


@pytest.mark.parametrize(
    ("arguments", "offender"),
    [
        (("search", "", "--table", "docs"), "query is empty"),
        (("search", "犬", "--table", "docs", "-k", "0"), "k is 0"),
        (("search", "犬", "--table", "other"), "'other': not in this database (tables: docs)"),
        (("info", "--table", "other"), "'other'"),
        (("search", "犬", "--table", "docs", "--model", "/nonexistent"), "/nonexistent: no bundle.json"),
        (("index", SAMPLE / "corpus.jsonl", "--table", "docs"), "'docs' exists already"),
        (("index", SAMPLE / "corpus.jsonl", "--table", "new", "--nbits", "3"), "nbits is 3"),
        (("index", SAMPLE / "README.md", "--table", "new"), "unknown kind of file"),
        (("evaluate", "--table", "docs", "--queries", "/none.jsonl", "--qrels", SAMPLE / "qrels.tsv"), "/none.jsonl"),
    ],
)
def test_bad_arguments_end_with_status_2(two_db: Path, arguments: tuple[str | Path, ...], offender: str):
    result = tansaku(*arguments, "--db", two_db)
    assert result.returncode == 2
    assert offender in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_database_is_not_made(tmp_path: Path):
    result = tansaku("search", "犬", "--db", tmp_path / "none", "--table", "t")
    assert result.returncode == 2
    assert not (tmp_path / "none").exists()
