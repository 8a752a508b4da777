"""The scripts in docs/examples run, and print what they promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def run(script: str, *arguments: str | Path, cwd: Path) -> list[str]:
    """The lines that a script prints."""
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_index_and_search(tmp_path: Path):
    for _ in range(2):  # again, over its own table
        lines = run("index_and_search.py", cwd=tmp_path)
        assert [line.split()[1] for line in lines] == ["kinkaku", "nijo"]


def test_rerank_existing_engine(tmp_path: Path):
    for _ in range(2):
        lines = run("rerank_existing_engine.py", cwd=tmp_path)
        assert lines[0].startswith("kinkaku")
        assert "rank in SQLite: " in lines[0]
    assert not list(tmp_path.iterdir())


def test_langchain_rag(tmp_path: Path):
    pytest.importorskip("langchain_core")
    for _ in range(2):
        assert run("langchain_rag.py", cwd=tmp_path) == ["金閣寺は室町時代に足利義満が建てた。", "足利義満です。"]
    assert not list(tmp_path.iterdir())


def test_squad_to_documents(tmp_path: Path):
    article = {
        "title": "金閣寺",
        "paragraphs": [
            {"context": "足利義満が建てた。", "qas": [{"question": "誰が建てた？"}, {"question": "建てたのは？"}]},
            {"context": "京都にある。", "qas": [{"question": "どこにある？"}]},
        ],
    }
    source = tmp_path / "part.json"
    source.write_text(json.dumps({"data": [article]}), encoding="utf-8")
    run("squad_to_documents.py", source, cwd=tmp_path)
    refused = subprocess.run(
        [sys.executable, EXAMPLES / "squad_to_documents.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert refused.returncode == 2  # and what the first run wrote, which is read below, is not replaced by nothing
    assert "usage: squad_to_documents.py" in refused.stderr
    documents = [json.loads(line) for line in (tmp_path / "documents.jsonl").read_text(encoding="utf-8").splitlines()]
    assert documents == [
        {"id": "part-金閣寺-0", "title": "金閣寺", "text": "足利義満が建てた。"},
        {"id": "part-金閣寺-1", "title": "金閣寺", "text": "京都にある。"},
    ]
    questions = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert questions[2] == {"_id": "q2", "text": "どこにある？"}
    assert (tmp_path / "judgements.tsv").read_text(encoding="utf-8").splitlines() == [
        "query-id\tcorpus-id\tscore",
        "q0\tpart-金閣寺-0\t1",
        "q1\tpart-金閣寺-0\t1",
        "q2\tpart-金閣寺-1\t1",
    ]
