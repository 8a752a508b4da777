"""`benchmarks.data` turns files like the public sources' into BEIR folders."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.data")


def squad(title: str, contexts: dict[str, list[tuple[str, str]]]) -> str:
    paragraphs = [
        {"context": context, "qas": [{"id": i, "question": q, "answers": []} for i, q in asked]}
        for context, asked in contexts.items()
    ]
    return json.dumps({"data": [{"title": title, "paragraphs": paragraphs}]}, ensure_ascii=False)


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_jsquad_contexts_are_divided_into_title_and_text(data, tmp_path: Path):
    source = tmp_path / "datasets" / "jsquad-v1.3" / "valid-v1.3.json"
    source.parent.mkdir(parents=True)
    asked = [("a10336p0q0", "どこ？"), ("a10336p0q1", "いつ？")]
    source.write_text(squad("梅雨", {"梅雨 [SEP]  梅雨は雨 [SEP] 季。": asked}), encoding="utf-8")
    data.jsquad(tmp_path).write(tmp_path / "out")
    assert read(tmp_path / "out" / "corpus.jsonl") == [
        {"_id": "jsquad-a10336p0", "title": "梅雨", "text": " 梅雨は雨 [SEP] 季。"}
    ]
    assert [query["_id"] for query in read(tmp_path / "out" / "queries.jsonl")] == [
        "jsquad-a10336p0q0",
        "jsquad-a10336p0q1",
    ]
    assert (tmp_path / "out" / "qrels" / "dev.tsv").read_text(encoding="utf-8").splitlines() == [
        "query-id\tcorpus-id\tscore",
        "jsquad-a10336p0q0\tjsquad-a10336p0\t1",
        "jsquad-a10336p0q1\tjsquad-a10336p0\t1",
    ]


def test_jaquad_paragraphs_are_numbered_over_the_files_of_a_split(data, tmp_path: Path):
    for split, short, parts in (("dev", "de", 2), ("train", "tr", 1)):
        folder = tmp_path / "data" / split
        folder.mkdir(parents=True)
        for part in range(parts):
            text = squad(f"題{part}", {f"本文{part}": [(f"{short}-00{part}-00-000", "何？")]})
            (folder / f"jaquad_{split}_000{part}.json").write_text(text, encoding="utf-8")
    made = data.jaquad(tmp_path)
    assert [(d["_id"], d["title"]) for d in made.documents] == [
        ("jaquad-dev-00000", "題0"),
        ("jaquad-dev-00001", "題1"),
        ("jaquad-train-00000", "題0"),
    ]
    assert made.qrels == {
        "dev": [("jaquad-de-000-00-000", "jaquad-dev-00000"), ("jaquad-de-001-00-000", "jaquad-dev-00001")],
        "train": [("jaquad-tr-000-00-000", "jaquad-train-00000")],
    }


def test_niilc_takes_queries_with_evidence_and_the_test_evidence_beside(data, tmp_path: Path):
    def question(number: int, text: str, title: str, evidence: str) -> str:
        meta = f"<meta><E.3>{title}</E.3><E.5>{evidence}</E.5></meta>"
        return f'<question id="NIILC-{number}"><text>{text}</text>{meta}</question>'

    (tmp_path / "data").mkdir()
    files = {
        "dev": [(1, "一？", "甲", "証拠一。"), (2, "二？", "乙", ""), (3, "三？", "甲", "証拠一。")],
        "test": [(5, "五？", "丙", "証拠五。"), (6, "六？", "甲", "証拠一。")],
    }
    for split, questions in files.items():
        text = "".join(question(*q) for q in questions)
        path = tmp_path / "data" / f"NIILC-ECQA2015_{split}.xml"
        path.write_text(f"<?xml version='1.0' encoding=\"UTF-8\"?>\n<questions>{text}</questions>", encoding="utf-8")
    made = data.niilc(tmp_path)
    assert [(d["_id"], d["text"]) for d in made.documents] == [("niilc-d0000", "証拠一。"), ("niilc-d0001", "証拠五。")]
    assert [q["_id"] for q in made.queries] == ["NIILC-1", "NIILC-3"]
    assert made.qrels == {"dev": [("NIILC-1", "niilc-d0000"), ("NIILC-3", "niilc-d0000")]}


def test_data_that_is_not_what_was_measured_ends_with_status_1(
    data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for split in ("dev", "train"):
        folder = tmp_path / "data" / split
        folder.mkdir(parents=True)
        (folder / f"jaquad_{split}_0000.json").write_text(squad("題", {"文": [("x", "何？")]}), encoding="utf-8")
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["data", str(out), "--set", "jaquad", "--source", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        data.main()
    assert ended.value.code == 1
    assert "2 documents, 2 queries, NOT the same as measured" in capsys.readouterr().out
    assert len(read(out / "jaquad" / "corpus.jsonl")) == 2
