"""The command line: in this process through its entry point, and once as the installed script."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shlex
import subprocess
import sysconfig
from pathlib import Path
from unittest.mock import patch

import lancedb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tansaku import Encoder, Index, Source
from tansaku.plugin.cli.demo import SAMPLE
from tansaku.plugin.cli.main import main

from ...support.fakes import small_chunks

pytestmark = pytest.mark.integration

SCRIPT = Path(sysconfig.get_path("scripts")) / "tansaku"
WIDE = {"COLUMNS": "200", "NO_COLOR": "1"}
COMMANDS = (
    "demo",
    "index",
    "check",
    "delete",
    "optimize",
    "rebuild",
    "search",
    "info",
    "export",
    "evaluate",
    "beir",
    "serve",
    "mcp",
    "train",
    "average",
    "mine",
    "weigh",
)
TWO = [{"_id": "dog", "title": "犬", "text": "犬は嗅覚が鋭い。", "year": 2001}, {"_id": "sea", "text": "海は塩辛い。"}]


def tansaku(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in this process."""
    command = ["tansaku", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        patch.dict(os.environ, WIDE),
        patch("sys.argv", command),
        patch("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")),
    ):
        try:
            main()
        except SystemExit as ended:
            status = ended.code or 0
    assert isinstance(status, int)
    return subprocess.CompletedProcess(command, status, out.getvalue(), err.getvalue())


def succeeds(*arguments: str | Path, stdin: str = "") -> str:
    """Standard output of a command that must end well."""
    result = tansaku(*arguments, stdin=stdin)
    assert result.returncode == 0, result.stderr
    return result.stdout


def contents(table: tuple[str | Path, ...]) -> dict[str, str]:
    """Id and text of every row."""
    _, db, _, name = table
    rows = lancedb.connect(str(db)).open_table(str(name)).to_arrow()
    return dict(zip(rows["id"].to_pylist(), rows["text"].to_pylist(), strict=True))


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


@pytest.mark.slow
def test_demo_indexes_and_answers_three_questions():
    environment = {**os.environ, **WIDE}
    result = subprocess.run([SCRIPT, "demo"], capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert "300 documents" in result.stdout
    assert "bytes/token" in result.stdout
    for question, answer in (("梅雨がない", "梅雨"), ("マーラー", "グスタフ"), ("活版印刷", "グーテンベルク")):
        first_hit = result.stdout.split(question)[1].split("\n")[1]
        assert first_hit.lstrip().startswith("1 ")
        assert answer in first_hit
    assert "encoding" in result.stderr  # plain progress lines where there is no terminal


def test_demo_gives_files_to_try_on_and_replaces_none(tmp_path: Path):
    folder = tmp_path / "new"
    assert "docs.jsonl, queries.jsonl, qrels.tsv" in tansaku("demo", "--copy-to", folder).stdout
    for name, copy in (("corpus.jsonl", "docs.jsonl"), ("queries.jsonl", "queries.jsonl"), ("qrels.tsv", "qrels.tsv")):
        assert (folder / copy).read_bytes() == (SAMPLE / name).read_bytes()
    (folder / "docs.jsonl").write_text("mine", encoding="utf-8")
    again = tansaku("demo", "--copy-to", folder)
    assert again.returncode == 2
    assert "has docs.jsonl, queries.jsonl, qrels.tsv already; choose another folder" in " ".join(again.stderr.split())
    assert (folder / "docs.jsonl").read_text(encoding="utf-8") == "mine"


def test_search_prints_hits_and_json(two_db: Path):
    table = ("--db", two_db, "--table", "docs")
    shown = tansaku("search", "嗅覚が鋭いのは", *table, "-k", "1")
    assert "dog" in shown.stdout
    assert "犬は«嗅覚»が«鋭い»。" in shown.stdout
    printed = json.loads(tansaku("search", "嗅覚が鋭いのは", *table, "--json").stdout)
    assert [hit["rank"] for hit in printed["hits"]] == [1, 2]
    assert printed["hits"][0] == {
        "rank": 1,
        "id": "dog",
        "score": printed["hits"][0]["score"],
        "title": "犬",
        "text": "犬は嗅覚が鋭い。",
        "fields": {"year": 2001},
        "snippet": {"text": "犬は嗅覚が鋭い。", "start": 0, "marks": [[2, 4], [5, 7]]},
    }


def test_what_the_model_did_not_read_is_said(tmp_path: Path):
    long = "嗅覚が鋭い犬。" * 300
    source = write_jsonl(tmp_path / "docs.jsonl", [*TWO, {"_id": "long", "text": long}])
    table = ("--db", tmp_path / "db", "--table", "docs")
    indexed = tansaku("index", source, *table)
    assert "warning: 1 document with more text than the model reads, whose end is not searched: long;" in indexed.stderr
    found = tansaku("search", long, *table, "--json")
    assert "warning: the query is longer than the" in found.stderr
    assert json.loads(found.stdout)["truncated"] is True
    found = tansaku("search", "嗅覚", *table, "--explain", "--json")
    assert "1 of 3 texts are longer than the" in found.stderr
    assert {hit["id"]: hit["cut"] for hit in json.loads(found.stdout)["hits"]}["long"] is True


def test_a_search_can_be_narrowed_and_explained(two_db: Path):
    table = ("--db", two_db, "--table", "docs")
    found = json.loads(succeeds("search", "嗅覚", *table, "--where", "year > 2000", "--explain", "--json"))
    assert [hit["id"] for hit in found["hits"]] == ["dog"]
    matches = found["hits"][0]["matches"]
    assert sum(match["weight"] * match["similarity"] for match in matches) == pytest.approx(
        found["hits"][0]["score"], abs=1e-3
    )
    assert {"encode", "refine", "fetch"} <= set(found["stages_ms"])
    assert found["scored"] == 1
    assert found["truncated"] is False
    assert found["recall"] == 1.0
    assert json.loads(succeeds("search", "嗅覚", *table, "--recall", "0.97", "--json"))["recall"] == 1.0
    found = json.loads(succeeds("search", "嗅覚", *table, "--id", "sea", "--id", "cat", "--recall", "exact", "--json"))
    assert ([hit["id"] for hit in found["hits"]], found["missing"]) == (["sea"], ["cat"])
    asked = ("search", "犬の嗅覚", *table, "--json", "--phrase-weight")
    plain, phrases = (json.loads(succeeds(*asked, weight)) for weight in ("0", "0.2"))
    assert plain["hits"][0]["id"] == phrases["hits"][0]["id"] == "dog"
    assert plain["hits"][0]["score"] != phrases["hits"][0]["score"]
    printed = succeeds("search", "嗅覚", *table, "-k", "1", "--explain")
    assert "嗅" in printed
    assert "milliseconds" in printed


def test_candidates_can_come_from_full_text(tmp_path: Path):
    table = ("--db", tmp_path / "db", "--table", "docs")
    succeeds("index", write_jsonl(tmp_path / "docs.jsonl", TWO), *table, "--fulltext")
    for source in ("text", "fused"):
        hits = json.loads(succeeds("search", "海", *table, "--source", source, "--json"))["hits"]
        assert hits[0]["id"] == "sea"
        assert "fulltext" not in hits[0]["fields"]
        more = json.loads(succeeds("search", "海", *table, "--source", source, "--bm25-weight", "1", "--json"))["hits"]
        assert more[0]["score"] > hits[0]["score"]


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


def test_evaluate_says_which_judged_documents_the_index_does_not_have(two_db: Path, tmp_path: Path):
    (tmp_path / "q.tsv").write_text("q1\t嗅覚が鋭いのは\n", encoding="utf-8")
    table = ("evaluate", "--db", two_db, "--table", "docs", "--queries", tmp_path / "q.tsv")
    (tmp_path / "some").write_text("q1\tdog\t1\nq1\tgone\t0\n")
    result = tansaku(*table, "--qrels", tmp_path / "some", "--json")
    printed = json.loads(result.stdout)
    assert (result.returncode, printed["metrics"]["hit@1"], printed["missing"]) == (0, 1.0, 1)
    assert "warning: table 'docs': 1 of 2 judged documents (0 of 1 relevant ones) are not here" in result.stderr
    (tmp_path / "most").write_text("q1\tgone\t1\nq1\tdog\t0\n")
    refused = tansaku(*table, "--qrels", tmp_path / "most")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "1 of 2 judged documents (1 of 1 relevant ones) are not here" in refused.stderr
    assert "ndcg@10  0.0000" in succeeds(*table, "--qrels", tmp_path / "most", "--allow-missing")


@pytest.mark.parametrize(
    "judged",
    [
        "q1\tdog\t1\nq2\tsea\t1\n",  # BEIR's, whose first line may also be a header
        "\ufeffq1\t0\tdog\t1\r\nq2\t0\tsea\t1\r\n",  # TREC's, as Windows writes it
        "q1 0 dog 1\nq2 0 sea 1\n",
    ],
)
def test_evaluate_takes_files_without_a_header(tmp_path: Path, judged: str):
    (tmp_path / "c.tsv").write_text("dog\t犬は嗅覚が鋭い。\nsea\t海は塩辛い。\n", encoding="utf-8")
    (tmp_path / "q.tsv").write_text("q1\t嗅覚が鋭いのは\nq2\t塩辛いのは\n", encoding="utf-8")
    (tmp_path / "qrels.tsv").write_text(judged, encoding="utf-8")
    Index.create(tmp_path / "db", "docs", Source(tmp_path / "c.tsv", fields=("id", "text")))
    asked = ("--queries", tmp_path / "q.tsv", "--qrels", tmp_path / "qrels.tsv")
    printed = json.loads(succeeds("evaluate", "--db", tmp_path / "db", "--table", "docs", *asked, "--json"))
    # The first line is a query, a judgement and a passage, and not a header.
    assert (printed["queries"], printed["missing"], printed["metrics"]["hit@1"]) == (2, 0, 1.0)


def test_evaluate_tries_the_file_of_the_run_before_the_work(two_db: Path, tmp_path: Path):
    table = ("evaluate", "--db", two_db, "--table", "docs", "--queries", "none")
    for place in (tmp_path, tmp_path / "none" / "run"):
        refused = tansaku(*table, "--run", place)
        assert (refused.returncode, f"{place}: cannot be written" in refused.stderr) == (2, True)
    (tmp_path / "q.tsv").write_text("q1\t嗅覚が鋭いのは\n", encoding="utf-8")
    full = tansaku(*table[:-1], tmp_path / "q.tsv", "--run", "/dev/full")
    assert (full.returncode, "/dev/full: cannot be written (No space left" in full.stderr) == (2, True)


def test_evaluate_asks_all_queries_for_a_run_alone(sample_db: Path, tmp_path: Path):
    table = ("evaluate", "--db", sample_db, "--table", "sample", "--queries", SAMPLE / "queries.jsonl")
    result = tansaku(*table, "--run", tmp_path / "run.txt")
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / "run.txt").read_text(encoding="utf-8").splitlines()
    asked = (SAMPLE / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    assert len({line.split()[0] for line in lines}) == len(asked)
    for more, said in (((), "--qrels"), (("--run", tmp_path / "run.txt", "--source", "text"), "without full text")):
        without = tansaku(*table, *more)
        assert without.returncode == 2
        assert said in without.stderr


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


def test_append_upsert_and_overwrite(tmp_path: Path):
    dog, sea = ({"_id": row["_id"], "text": row["text"]} for row in TWO)
    first = write_jsonl(tmp_path / "first.jsonl", [dog])
    second = write_jsonl(tmp_path / "second.jsonl", [sea])
    third = write_jsonl(tmp_path / "third.jsonl", [{**sea, "text": "海は広い。"}, {"_id": "cat", "text": "猫は眠る。"}])
    table = ("--db", tmp_path / "db", "--table", "t")
    succeeds("index", first, *table)
    succeeds("index", second, *table, "--mode", "append")
    assert contents(table) == {"dog": dog["text"], "sea": sea["text"]}
    shown = succeeds("index", third, *table, "--mode", "upsert")
    assert "2 documents" in shown
    assert "1 of them replaced older ones" in shown
    assert contents(table) == {"dog": dog["text"], "sea": "海は広い。", "cat": "猫は眠る。"}
    succeeds("index", second, *table, "--mode", "overwrite")
    assert contents(table) == {"sea": sea["text"]}


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_options_of_a_new_table_must_be_those_of_the_table_there(two_db: Path, tmp_path: Path, mode: str):
    source = write_jsonl(tmp_path / "docs.jsonl", [{**TWO[1], "_id": f"sea-{mode}"}])
    command = ("index", source, "--db", two_db, "--table", "docs", "--mode", mode)
    for option, there in (
        (("--nbits", "4"), "nbits 2"),
        (("--pool", "2"), "pool 1"),
        (("--passage-tokens", "20"), "passage_tokens None"),
        (("--fulltext",), "fulltext False"),
    ):
        result = tansaku(*command, *option)
        assert result.returncode == 2
        assert f"{option[0]}: table 'docs' was made with {there}; leave out {option[0]}" in result.stderr
    succeeds(*command, "--nbits", "2", "--pool", "1")
    succeeds("delete", "--db", two_db, "--table", "docs", "--id", f"sea-{mode}")


def test_appending_what_is_there_already_ends_with_status_2(two_db: Path, tmp_path: Path):
    source = write_jsonl(tmp_path / "docs.jsonl", [TWO[1]])
    result = tansaku("index", source, "--db", two_db, "--table", "docs", "--mode", "append")
    assert result.returncode == 2
    assert "docs.jsonl:1: document 'sea' is in the index already" in result.stderr


def test_standard_input_is_a_source(tmp_path: Path):
    table = ("--db", tmp_path / "db", "--table", "t")
    succeeds("index", "-", *table, "--format", "csv", stdin="id,text\na,犬は嗅覚が鋭い。\nb,海は塩辛い。\n")
    assert contents(table) == {"a": "犬は嗅覚が鋭い。", "b": "海は塩辛い。"}


def test_bad_records_are_rejected_to_a_file_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    records = [TWO[0], {"_id": "x"}, {**TWO[1], "_id": "old", "year": "昔"}, TWO[1]]
    source = write_jsonl(tmp_path / "docs.jsonl", records)
    with source.open("a", encoding="utf-8") as file:
        file.write('{"_id": "cut o\n')
    table = ("--db", tmp_path / "db", "--table", "t")
    shown = succeeds("index", source, *table, "--on-error", "reject")
    assert "2 documents" in shown
    assert "3 records rejected and written to t.rejects.jsonl" in shown
    assert sorted(contents(table)) == ["dog", "sea"]
    lines = [json.loads(line) for line in (tmp_path / "t.rejects.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sorted(line["place"] for line in lines) == [f"{source}:{n}" for n in (2, 3, 5)]
    shown = succeeds("index", source, *table, "--mode", "upsert", "--on-error", "reject", "--rejects", tmp_path / "r")
    assert "2 of them replaced older ones" in shown
    assert len((tmp_path / "r").read_text(encoding="utf-8").splitlines()) == 3


def test_a_source_is_not_removed_for_a_file_of_rejects(tmp_path: Path):
    source = write_jsonl(tmp_path / "docs.jsonl", TWO)
    before = source.read_bytes()
    table = ("--db", tmp_path / "db", "--table", "t")
    result = tansaku("index", source, *table, "--on-error", "reject", "--rejects", source)
    assert result.returncode == 2
    assert source.read_bytes() == before


def test_pooled_passages(tmp_path: Path):
    text = "犬は嗅覚が鋭い。海は塩辛い。" * 10
    source = write_jsonl(tmp_path / "docs.jsonl", [{"_id": "a", "text": text}, TWO[0]])
    table = ("--db", tmp_path / "db", "--table", "t")
    succeeds("index", source, *table, "--passage-tokens", "40", "--pool", "2")
    info = json.loads(succeeds("info", *table, "--json"))
    assert (info["documents"], info["pool"], info["passage_tokens"]) == (2, 2, 40)
    assert info["rows"] > 3
    assert info["tokens"] < 21 * info["rows"]
    assert f"2 in {info['rows']} passages of up to 40 tokens" in " ".join(succeeds("info", *table).split())
    assert "a#0" in contents(table)
    succeeds("delete", *table, "--id", "a")
    assert list(contents(table)) == ["dog#0"]


def test_delete_by_id_file_and_condition_then_optimize_and_rebuild(tmp_path: Path):
    records = [{"_id": f"d{i}", "text": f"犬の話、その{i}。", "year": 2000 + i} for i in range(12)]
    source = write_jsonl(tmp_path / "docs.jsonl", records)
    table = ("--db", tmp_path / "db", "--table", "t")
    succeeds("index", source, *table)
    shown = succeeds("delete", "d0", "none", *table, "--id", "d1")
    assert "2 documents deleted" in shown
    assert "1 id not in the index: none" in shown
    (tmp_path / "ids.txt").write_text("d2\nd3\n\n", encoding="utf-8")
    assert "3 documents deleted" in succeeds("delete", *table, "--ids-file", tmp_path / "ids.txt", "--id", "d4")
    # Its middle would be the id of another document, if U+2028 ended a line.
    (tmp_path / "ids.txt").write_text("章\u2028d5\u2028節\x0bd6\x85d7\r\n", encoding="utf-8")
    assert "0 documents deleted" in succeeds("delete", *table, "--ids-file", tmp_path / "ids.txt")
    assert "2 documents deleted" in succeeds("delete", *table, "--where", "year >= 2010")
    assert sorted(contents(table)) == ["d5", "d6", "d7", "d8", "d9"]
    assert "old versions" in succeeds("optimize", *table, "--keep-hours", "0")
    assert len(lancedb.connect(str(tmp_path / "db")).open_table("t").list_versions()) == 1
    assert "5 documents" in succeeds("rebuild", *table, "--nbits", "4")
    info = json.loads(succeeds("info", *table, "--json"))
    assert (info["documents"], info["nbits"]) == (5, 4)
    assert sorted(contents(table)) == ["d5", "d6", "d7", "d8", "d9"]


@pytest.mark.parametrize("option", ["--derived", "--no-derived"])
def test_a_search_finds_the_same_with_and_without_arrays_on_disk(two_db: Path, option: str):
    table = ("--db", two_db, "--table", "docs")
    hits = [json.loads(succeeds("search", "嗅覚", *table, "--json", *more))["hits"] for more in ((), (option,))]
    assert hits[0] == hits[1]
    assert [hit["id"] for hit in hits[0]] == ["dog", "sea"]


def test_indexing_makes_the_arrays_that_a_search_reads(two_db: Path):
    assert (two_db / "docs.tansaku" / "arrays" / "arrays.json").exists()
    info = json.loads(succeeds("info", "--db", two_db, "--table", "docs", "--json"))
    assert info["derived_bytes"] > 0
    assert info["searched_bytes_per_token"] == pytest.approx(sum(info["bytes_by_part"].values()) / info["tokens"])


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
        (("search", "犬", "--table", "docs", "--where", "no such condition"), "cannot be used"),
        (("search", "犬", "--table", "docs", "--source", "text"), "made without full text"),
        (("search", "犬", "--table", "docs", "--bm25-weight", "0.1"), "set source to 'fused'"),
        (("search", "犬", "--table", "docs", "--recall", "most"), "unknown recall 'most'"),
        (
            ("search", "犬", "--table", "docs", "--recall", "0.5"),
            "recall is 0.5; use fast, balanced, exact or a number",
        ),
        (("search", "犬", "--table", "other"), "'other': not in this database (tables: docs)"),
        (("info", "--table", "other"), "'other'"),
        (
            ("search", "犬", "--table", "docs", "--model", "/nonexistent"),
            "/nonexistent: no such folder; give the folder",
        ),
        (("index", SAMPLE / "corpus.jsonl", "--table", "docs"), "'docs' exists already; choose another name, or"),
        (("index", SAMPLE / "corpus.jsonl", "--table", "docs"), "--mode append, upsert or overwrite"),
        (("index", SAMPLE / "corpus.jsonl", "--table", "new", "--nbits", "3"), "nbits is 3"),
        (("index", SAMPLE / "LICENSE", "--table", "new"), "LICENSE: no such file"),
        (("index", SAMPLE / "corpus.jsonl", "--table", "new", "--format", "xml"), "unknown format 'xml'"),
        (("index", SAMPLE / "corpus.jsonl", "--table", "new", "--mode", "append"), "'new': not in this database"),
        (("search", "犬", "--table", "docs", "--storage-option", "secret"), "expected KEY=VALUE"),
        (("delete", "--table", "docs"), "either ids or a condition"),
        (("delete", "--table", "docs", "--id", "dog", "--where", "year = 1"), "either ids or a condition"),
        (("delete", "--table", "docs", "--where", "no such condition"), "cannot be used"),
        (("delete", "--table", "docs", "--ids-file", "/none.txt"), "/none.txt: cannot be read"),
        (("delete", "--table", "other", "--id", "dog"), "'other': not in this database"),
        (("optimize", "--table", "docs", "--keep-hours", "-1"), "must not be negative"),
        (("optimize", "--table", "docs", "--keep-hours", "nan"), "keep"),
        (("rebuild", "--table", "docs", "--nbits", "3"), "nbits is 3"),
        (("evaluate", "--table", "docs", "--queries", "/none.jsonl", "--qrels", SAMPLE / "qrels.tsv"), "/none.jsonl"),
    ],
)
def test_bad_arguments_end_with_status_2(two_db: Path, arguments: tuple[str | Path, ...], offender: str):
    result = tansaku(*arguments, "--db", two_db)
    assert result.returncode == 2
    assert offender in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "犬"),
        ("search", "犬", "--storage-option", "region=eu"),
        ("info",),
        ("check",),
        ("delete", "--id", "dog"),
        ("optimize",),
        ("rebuild",),
    ],
)
def test_a_missing_database_is_not_made(tmp_path: Path, arguments: tuple[str, ...]):
    result = tansaku(*arguments, "--db", tmp_path / "none", "--table", "t")
    assert result.returncode == 2
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "犬"),
        ("info",),
        ("check",),
        ("delete", "--id", "none"),
        ("optimize",),
        ("rebuild",),
        ("index", "docs.jsonl", "--mode", "upsert"),
        ("evaluate", "--queries", "queries.jsonl", "--run", "run.txt"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_storage_options_reach_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "docs.jsonl", TWO)
    write_jsonl(tmp_path / "queries.jsonl", [{"_id": "q", "text": "犬"}])
    table = ("--db", "db", "--table", "t")
    succeeds("index", "docs.jsonl", *table)
    connect, given = lancedb.connect, []

    def noted(uri: str, *, storage_options: dict[str, str] | None = None) -> lancedb.DBConnection:
        given.append(storage_options)
        return connect(uri, storage_options=storage_options)

    monkeypatch.setattr(lancedb, "connect", noted)
    succeeds(*arguments, *table, "--storage-option", "region=eu", "--storage-option", "a=b=c")
    assert given
    assert all(options == {"region": "eu", "a": "b=c"} for options in given)


class TestInterrupted:
    """Ctrl-C says what is kept and how to go on."""

    @pytest.mark.parametrize(
        ("command", "kept"),
        [
            (("search", "犬"), "nothing was changed"),
            (("delete", "--id", "dog"), "what was deleted before stays deleted"),
            (("copy", "--to-table", "u"), "there is no copy"),
            (("evaluate", "--queries", SAMPLE / "queries.jsonl", "--run", "/dev/null"), "no measures are kept"),
        ],
    )
    def test_of_every_other_command(self, two_db: Path, monkeypatch: pytest.MonkeyPatch, command, kept: str):
        def interrupted(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr("tansaku.indexer.table.database.connect", interrupted)
        monkeypatch.setattr("tansaku.indexer.index.connect", interrupted)
        ended = tansaku(*command, "--db", two_db, "--table", "docs")
        assert (ended.returncode, ended.stderr) == (130, f"interrupted; {kept}{ended.stderr.partition(kept)[2]}")

    @staticmethod
    def interrupted(monkeypatch: pytest.MonkeyPatch, calls: int, *command: str | Path):
        """Run a command in which the call of the encoder after so many is interrupted."""
        original, made = Encoder.encode_tokens, []

        def encode(self, tokenized, note=None):
            made.append(1)
            if len(made) > calls:
                raise KeyboardInterrupt
            return original(self, tokenized, note)

        with monkeypatch.context() as patched:
            patched.setattr(Encoder, "encode_tokens", encode)
            patched.setattr(Encoder, "_probe", lambda self: None)  # it would be the first call
            return tansaku(*command)

    @pytest.mark.parametrize("mode", ["create", "append", "overwrite"])
    def test_with_the_place_of_what_is_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str):
        small_chunks(monkeypatch)
        rows = [{"_id": f"{mode}{i}", "text": f"犬は{i}。"} for i in range(12)]
        source = write_jsonl(tmp_path / "docs.jsonl", rows)
        db = tmp_path / "db"
        command = ("index", source, "--db", db, "--table", "t", "--mode", mode)
        if mode != "create":
            Index.create(db, "t", [{"id": "a", "text": "猫"}])
        ended = self.interrupted(monkeypatch, 2, *command)
        assert ended.returncode == 130
        shown = " ".join(ended.stderr.split())
        assert "interrupted; about" in shown
        assert f"kept in {db}/t.tansaku/{'merge' if mode == 'append' else 'build'}. The same command continues" in shown
        succeeds(*command)
        assert not list(db.glob("t.tansaku/*/chunk-*"))

    def test_with_nothing_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        source = write_jsonl(tmp_path / "docs.jsonl", TWO)
        ended = self.interrupted(monkeypatch, 0, "index", source, "--db", tmp_path / "db", "--table", "t")
        assert ended.returncode == 130
        assert "interrupted; there is nothing to continue from" in " ".join(ended.stderr.split())
        assert not (tmp_path / "db").exists()


def test_a_spreadsheets_csv_of_windows_is_indexed_with_types_and_filtered(tmp_path):
    csv = tmp_path / "本.csv"
    csv.write_bytes(
        "番号,題名,本文,年\n1,髙橋,金閣寺は足利義満が建てた。,1397\n2,﨑,大阪城は豊臣秀吉が築いた。,1583\n".encode(
            "cp932"
        )
    )
    place = ("--db", tmp_path / "db", "--table", "t")
    told = tansaku("index", csv, *place, "--id-field", "番号", "--text-field", "題名", "--text-field", "本文")
    assert told.stderr.count("warning: ") == 1
    assert "read as cp932" in told.stderr
    assert "column types, found in the values: 年 integer" in told.stdout
    found = tansaku("search", "城", *place, "--where", "年 < 1400", "--json")
    assert [hit["id"] for hit in json.loads(found.stdout)["hits"]] == ["1"]
    for option in ("--rename-field", "--column-type"):
        assert f"{option}: expected" in tansaku("index", csv, *place, option, "x").stderr


def test_where_all_records_are_rejected_it_says_where_they_are(tmp_path):
    (tmp_path / "docs.csv").write_text("id,text,価格\na,茶,安い\n", encoding="utf-8")
    options = ("--column-type", "価格=integer", "--on-error", "reject", "--rejects", tmp_path / "r.jsonl")
    told = tansaku("index", tmp_path / "docs.csv", "--db", tmp_path / "db", "--table", "t", *options)
    assert (told.returncode, "there are no documents to index" in told.stderr) == (2, True)
    assert "1 record rejected and written to" in told.stdout
    assert "'安い'" in (tmp_path / "r.jsonl").read_text(encoding="utf-8")


def test_a_dump_says_which_options_give_its_columns_their_types_again(tmp_path):
    place = ("--db", tmp_path / "db", "--table", "t")
    times = ("時刻=timestamp", "更新=timestamp(Asia/Tokyo)", "作成=timestamp(+09:00)")
    types = [part for kind in ("日付=date", *times, "税込 価格=decimal(9,2)") for part in ("--column-type", kind)]
    csv = (
        "id,text,日付,時刻,更新,作成,税込 価格\n"
        'a,寺,2024/4/1,2024-04-01 09:30,2024-04-01T09:30:00Z,2024-04-01 10:00,"1,200.5"\n'
    )
    (tmp_path / "docs.csv").write_text(csv, encoding="utf-8")
    assert tansaku("index", tmp_path / "docs.csv", *place, *types).returncode == 0
    dumped = tansaku("dump", *place)
    (tmp_path / "dump.jsonl").write_text(dumped.stdout, encoding="utf-8")
    options = shlex.split(dumped.stderr.replace("\n", " ").partition("tansaku index ")[2])
    again = ("--db", tmp_path / "db", "--table", "again")
    assert tansaku("index", tmp_path / "dump.jsonl", *again, *options).returncode == 0
    stored = {name: list(Index.open(tmp_path / "db", name).documents()) for name in ("t", "again")}
    assert stored["again"] == stored["t"]


def test_a_database_is_listed_read_and_emptied(tmp_path):
    place = ("--db", tmp_path / "db", "--table", "t")
    (tmp_path / "docs.jsonl").write_text(
        '{"id": "a", "text": "京都の寺", "year": 1397}\n{"id": "b", "text": "大阪の城", "year": 1583}\n',
        encoding="utf-8",
    )
    assert tansaku("index", tmp_path / "docs.jsonl", *place).returncode == 0
    listed = json.loads(tansaku("tables", "--db", tmp_path / "db", "--json").stdout)["tables"]
    assert [(table["table"], table["documents"]) for table in listed] == [("t", 2)]
    assert " t " in f" {tansaku('tables', '--db', tmp_path / 'db').stdout} "
    got = tansaku("get", "b", "z", *place)
    assert (got.returncode, json.loads(got.stdout)["text"]) == (1, "大阪の城")
    assert "not in the index: z" in got.stderr
    dumped = tansaku("dump", *place, "--where", "year < 1500")
    assert json.loads(dumped.stdout) == {"id": "a", "title": "", "text": "京都の寺", "year": 1397}
    assert dumped.stderr == ""
    assert "1 document would be deleted" in tansaku("delete", *place, "--id", "a", "--dry-run").stdout
    refused = tansaku("drop", *place)
    assert (refused.returncode, "confirm with --yes" in refused.stderr) == (2, True)
    assert "removed" in tansaku("drop", *place, "--yes").stdout
    assert "no indexes here" in tansaku("tables", "--db", tmp_path / "db").stdout


def test_a_file_of_queries_is_searched_and_its_hits_are_lines(two_db: Path, tmp_path: Path):
    place = ("--db", two_db, "--table", "docs", "-k", "1")
    (tmp_path / "q.txt").write_text("嗅覚が鋭い動物\n\n塩辛い水\n", encoding="utf-8")
    lines = succeeds("search", "--queries", tmp_path / "q.txt", *place, "--format", "jsonl").splitlines()
    assert [(hit["query_id"], hit["id"]) for hit in map(json.loads, lines)] == [("1", "dog"), ("3", "sea")]
    queries = write_jsonl(tmp_path / "q.jsonl", [{"_id": "a", "text": "海"}])
    found = json.loads(succeeds("search", "--queries", queries, *place, "--json"))["queries"]
    assert [(query["query_id"], query["hits"][0]["id"]) for query in found] == [("a", "sea")]
    shown = succeeds("search", "--queries", queries, *place, "--fields", "year,title")
    assert "year:" in shown
    assert "«海»" in shown
    for wrong, said in (
        ((), "a query or a file of queries"),
        (("犬", "--queries", queries), "give one of them"),
        (("犬", "--json", "--format", "tsv"), "different formats"),
        (("犬", "--explain", "--format", "tsv"), "--format jsonl"),
        (("犬", "--fields", "month"), "no field 'month'"),
    ):
        refused = tansaku("search", *wrong, *place)
        assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr


def test_quiet_leaves_out_progress_and_warnings_but_no_errors(tmp_path: Path):
    source = write_jsonl(tmp_path / "docs.jsonl", TWO)
    place = ("--db", tmp_path / "db", "--table", "t")
    done = tansaku("index", source, *place, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    long = tansaku("search", "犬" * 600, *place, "-q")
    assert (long.stderr, "dog" in long.stdout) == ("", True)
    again = tansaku("index", source, *place, "-q")
    assert (again.returncode, "exists already" in again.stderr) == (2, True)
    assert "longer than" in tansaku("search", "犬" * 600, *place).stderr


def test_an_index_is_copied_renamed_and_taken_back(two_db: Path, tmp_path: Path):
    place = ("--db", tmp_path / "db", "--table", "t")
    copied = tansaku("copy", "--db", two_db, "--table", "docs", "--to-db", tmp_path / "db", "--to-table", "first")
    assert (copied.returncode, copied.stdout) == (0, f"2 documents copied to the table first in {tmp_path / 'db'}\n")
    succeeds("rename", "--db", tmp_path / "db", "--table", "first", "--to-table", "t")
    assert contents(place) == contents(("--db", two_db, "--table", "docs"))
    (before,) = json.loads(succeeds("versions", *place, "--json"))["versions"]
    succeeds("delete", *place, "--id", "dog")
    listed = succeeds("versions", *place).split()
    assert listed[:3] == ["version", "written", "rows"]
    assert "again, with 2 documents" in succeeds("restore", *place, "--version", str(before["version"]))
    assert set(contents(place)) == {"dog", "sea"}
    assert "does not keep version 99" in tansaku("restore", *place, "--version", "99").stderr
