"""The scripts in docs/examples run, and print what they promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tansaku import Index

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def run(script: str, *arguments: str | Path, cwd: Path) -> list[str]:
    """The lines that a script prints."""
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_index_and_search(tmp_path: Path):
    for _ in range(2):  # again, over its own table
        lines = run("index_and_search.py", cwd=tmp_path)
        assert [line.split()[1] for line in lines] == ["kinkaku", "nijo"]


@pytest.mark.slow
def test_rerank_existing_engine(tmp_path: Path):
    for _ in range(2):
        lines = run("rerank_existing_engine.py", cwd=tmp_path)
        assert lines[0].startswith("kinkaku")
        assert "rank in SQLite: " in lines[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_langchain_rag(tmp_path: Path):
    pytest.importorskip("langchain_core")
    for _ in range(2):
        assert run("langchain_rag.py", cwd=tmp_path) == ["金閣寺は室町時代に足利義満が建てた。", "足利義満です。"]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_own_workers(tmp_path: Path):
    pytest.importorskip("lance")
    documents = [{"id": str(i), "text": f"文書、その{i}。", "year": i} for i in range(40)]
    lines = "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
    (tmp_path / "docs.jsonl").write_text(lines, encoding="utf-8")
    for _ in range(2):
        assert run("own_workers.py", "docs.jsonl", cwd=tmp_path) == ["40 rows in 1 fragments"]
    assert len(Index.open(tmp_path / "db", "own_workers")) == 40


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


def test_documents_from_files(tmp_path: Path):
    """A page in Shift_JIS, a PDF, and a PDF without text, as scanned pages are."""
    pytest.importorskip("markitdown")
    folder = tmp_path / "reports"
    (folder / "sub").mkdir(parents=True)
    head = "<head><meta charset='Shift_JIS'><title>大阪城</title></head>"
    page = f"<html>{head}<body><p>豊臣秀吉が築いた。</p></body></html>"
    (folder / "sub" / "城.html").write_bytes(page.encode("cp932"))
    (folder / "kyoto.pdf").write_bytes(pdf("Kyoto was the capital."))
    (folder / "scan.pdf").write_bytes(pdf(""))
    (folder / "notes.txt").write_text("not one of its suffixes", encoding="utf-8")
    lines = run("documents_from_files.py", folder, cwd=tmp_path)
    assert lines == ["2 documents written to documents.jsonl, 1 files left out"]
    documents = [json.loads(line) for line in (tmp_path / "documents.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(each["id"], each["title"], each["text"].strip(), each["kind"]) for each in documents] == [
        ("kyoto.pdf", "kyoto", "Kyoto was the capital.", "pdf"),
        ("sub/城.html", "大阪城", "豊臣秀吉が築いた。", "html"),
    ]


def pdf(text: str) -> bytes:
    """A PDF of one page with a line of ASCII."""
    content = f"BT /F1 24 Tf 72 700 Td ({text}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>\nstream\n%s\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    made, places = b"%PDF-1.4\n", []
    for number, value in enumerate(objects, 1):
        places.append(len(made))
        made += b"%d 0 obj\n%s\nendobj\n" % (number, value)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"xref\n0 6\n0000000000 65535 f \n%strailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF"
    return made + end % (table, len(made))
