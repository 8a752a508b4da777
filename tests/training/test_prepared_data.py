"""The forms of groups, and the files that a training reads them from."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tansaku import SourceError
from tansaku.training.config import DataConfig
from tansaku.training.data.groups import Group, raw_groups, write_groups
from tansaku.training.data.left_out import LeftOut
from tansaku.training.data.prepared import PreparedData, prepare
from tansaku.training.data.texts import TextStore, write_texts
from tansaku.training.errors import TrainingDataError

GOOD = '["q1", ["p0", 1], ["p1", 2], ["p2", 3]]'


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def prepared(folder: Path, *lines: str, name: str = "g.jsonl", note=None, **changes) -> PreparedData:
    """Data of groups in these lines, two queries and five passages."""
    settings = {
        "groups": [write(folder / name, "\n".join(lines) + "\n")],
        "queries": [write(folder / "q.tsv", "q1\t問い\nq2\t別の問い\n")],
        "collection": [write(folder / "c.tsv", "".join(f"p{i}\t文{i}\n" for i in range(5)))],
        "nway": 3,
        **changes,
    }
    return prepare(DataConfig(**settings), folder / "data", note or (lambda _: None))


def contents(data: PreparedData) -> list[tuple[str, list[str], list[float]]]:
    """Texts of query and passages, and scores, of each group."""
    return [
        (data.queries.text_at(int(query)), [data.passages.text_at(int(row)) for row in rows], scores.tolist())
        for query, rows, scores in zip(data.query_rows, data.passage_rows, data.scores, strict=True)
    ]


def test_groups_are_cut_to_their_first_passages(tmp_path):
    data = prepared(tmp_path, '["q1", ["p0", 3.5], ["p1", -1], ["p2", 0.25], ["p3", 9]]')
    assert contents(data) == [("問い", ["文0", "文1", "文2"], [3.5, -1.0, 0.25])]


def test_written_groups_come_back(tmp_path):
    group = Group("q1", ("p0", "p1"), np.array([3.5, 1 / 3], np.float32))
    assert write_groups(tmp_path / "g.jsonl", [group]) == 1
    (again,) = raw_groups([tmp_path / "g.jsonl"])
    assert (again.query, again.passages, again.scores) == ("q1", ("p0", "p1"), (3.5, 0.333333))


IDS = [("問い", ["文0", "文1", "文2"], [1.0, 2.0, 3.0])]
TRIPLE = [("問い", ["文0", "文1", "文2"], [1.0, 0.0, 0.0])]


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("g.jsonl", GOOD, IDS),
        ("g.json", f"[{GOOD}]", IDS),
        ("g.json", GOOD, IDS),
        ("g.jsonl", '{"query_id": "q1", "document_ids": ["p0", "p1", "p2"], "scores": [1, 2, 3]}', IDS),
        ("g.jsonl", '{"query_id": "q1", "document_ids": "[\'p0\', \'p1\', \'p2\']", "scores": "[1, 2, 3]"}', IDS),
        ("g.tsv", "q1\tp0\tp1\tp2", TRIPLE),
        ("g.tsv", "query_id\tpositive\tnegative_1\tnegative_2\nq1\tp0\tp1\tp2", TRIPLE),
        ("g.csv", "qid,pos_id,neg_id_1,neg_id_2\nq1,p0,p1,p2", TRIPLE),
    ],
)
def test_forms_with_ids(tmp_path, name, content, wanted):
    assert contents(prepared(tmp_path, content, name=name)) == wanted


@pytest.mark.parametrize(
    "record",
    [
        {"query": "問い", "positive": "文0", "negative_1": "文1", "negative_2": "文2"},
        {"anchor": "問い", "positive": "文0", "negative": ["文1", "文2"]},
        {"query": " 問い", "pos": ["文0"], "neg": ["文1 ", "文2"], "pos_scores": [1], "neg_scores": [0, 0]},
    ],
)
def test_forms_with_texts(tmp_path, record):
    data = prepared(tmp_path, json.dumps(record), json.dumps(record), queries=[], collection=[])
    assert contents(data) == 2 * TRIPLE
    assert len(data.passages) == 3


def test_groups_with_ids_need_texts(tmp_path):
    with pytest.raises(TrainingDataError, match=r"g\.jsonl:1: this group has ids, not texts.*data\.queries"):
        prepared(tmp_path, GOOD, queries=[], collection=[])


def test_the_tables_of_pylate_s_data_as_the_hub_has_them(tmp_path):
    """A folder that `Dataset.save_to_disk` wrote, and Parquet files, with numbers as ids."""
    groups = {"query_id": [7], "document_ids": [[0, 1, 2]], "scores": [[0.5, 0.25, 0.125]]}
    datasets.Dataset.from_dict(groups).save_to_disk(tmp_path / "train")
    pq.write_table(pa.table({"query_id": [7], "text": ["問い"]}), tmp_path / "queries.parquet")
    pq.write_table(pa.table({"document_id": [0, 1, 2], "text": ["文0", "文1", "文2"]}), tmp_path / "documents.parquet")
    names: dict[str, Any] = {
        "queries": [str(tmp_path / "queries.parquet")],
        "collection": [str(tmp_path / "documents.parquet")],
    }
    data = prepared(tmp_path, groups=[str(tmp_path / "train")], **names)
    assert contents(data) == [("問い", ["文0", "文1", "文2"], [0.5, 0.25, 0.125])]


def test_scores_in_files_of_their_own(tmp_path):
    scores = gzip.compress(b"q1\tp0\t3\nq1\tp1\t2\nq1\tp2\t1\n")
    files = [write(tmp_path / "s.tsv.gz", scores)]
    assert contents(prepared(tmp_path, '["q1", "p0", "p1", "p2"]', scores=files))[0][2] == [3, 2, 1]
    with pytest.raises(TrainingDataError, match=r"g\.jsonl:1: no scores; .*data\.scores"):
        prepared(tmp_path, '["q1", "p0", "p1", "p2"]')
    with pytest.raises(TrainingDataError, match=r"g\.jsonl:1: no score of the passage 'p3' for the query 'q1'"):
        prepared(tmp_path, '["q1", "p0", "p1", "p3"]', scores=files)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('["q9", ["p0", 1], ["p1", 2], ["p2", 3]]', "the query 'q9' is not among"),
        ('["q1", ["p0", 1], ["p9", 2], ["p2", 3]]', "the passage 'p9' is not in the collection"),
        ('["q1", "p0", ["p1", 1]]', "expected \\[query id"),
        ('{"q": 1}', "expected \\[query id.*found the fields q"),
        ('{"query_id": 1, "document_ids": [1, 2], "scores": [1]}', "expected .*2 passages and 1 scores"),
        ("[", "not valid JSON"),
        ("[]", "expected \\[query id"),
        ("3", "expected a JSON object"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, said):
    with pytest.raises(TrainingDataError, match=rf"g\.jsonl:2: {said}"):
        prepared(tmp_path, GOOD, line)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('["q1", ["p0", 1], ["p1", 2]]', r"of fewer than 3 different passages with text \(data.nway\)"),
        ('["q1", ["p0", 1], ["p0", 2], ["p2", 3]]', "of fewer than 3 different passages with text"),
        ('["q1", ["p0", 1], ["p5", 2], ["p2", 3]]', "of fewer than 3 different passages with text"),
        ('["q3", ["p0", 1], ["p1", 2], ["p2", 3]]', "whose query has no text"),
        ('["q1", ["p0", NaN], ["p1", 2], ["p2", 3]]', "with a score that is not finite"),
        ('["q1", ["p0", 1e60], ["p1", 2], ["p2", 3]]', "with a score that is not finite"),
        ('["q1", ["p0", 2], ["p1", 2], ["p2", 2]]', "whose scores are all the same"),
    ],
)
def test_what_cannot_be_used_is_left_out_counted_and_limited(tmp_path, line, reason):
    texts: dict[str, Any] = {
        "queries": [write(tmp_path / "q", "") and write(tmp_path / "q.jsonl", records("q", 4, empty=3))],
        "collection": [write(tmp_path / "c.jsonl", records("p", 6, empty=5))],
    }
    with pytest.raises(
        TrainingDataError, match=rf"left out 1 of 2 groups: 1 {reason}.* \(.*g\.jsonl:2\).*max_left_out"
    ):
        prepared(tmp_path, GOOD, line, max_left_out=0.3, **texts)
    for _ in range(2):  # made, and found
        notes = []
        data = prepared(tmp_path, GOOD, line, max_left_out=0.5, note=notes.append, **texts)
        assert [row for _, row, _ in contents(data)] == [["文0", "文1", "文2"]]
        assert any("left out 1 of 2 groups" in note for note in notes)
        assert any("left out 1 of 6 passages: 1 without text" in note for note in notes)


def records(kind: str, count: int, empty: int) -> str:
    return "".join(
        json.dumps({"_id": f"{kind}{i}", "text": "" if i == empty else f"文{i}"}, ensure_ascii=False) + "\n"
        for i in range(count)
    )


def test_a_passage_that_occurs_twice_in_a_group_counts_once(tmp_path):
    data = prepared(tmp_path, '["q1", ["p0", 1], ["p0", 1], ["p1", 2], ["p2", 3]]')
    assert contents(data) == IDS


def test_a_file_without_groups_is_refused(tmp_path):
    with pytest.raises(TrainingDataError, match="no groups here"):
        prepared(tmp_path, "")
    with pytest.raises(SourceError, match=r"none\.tsv: cannot be read"):
        prepared(tmp_path, GOOD, queries=[str(tmp_path / "none.tsv")])
    assert not list(tmp_path.glob(".data*"))


def test_the_files_are_made_again_only_if_the_data_changed(tmp_path, monkeypatch):
    first = prepared(tmp_path, GOOD)
    monkeypatch.setattr("tansaku.training.data.prepared._make", lambda *_: pytest.fail("made again"))
    settings: dict[str, Any] = {
        "groups": [str(tmp_path / "g.jsonl")],
        "queries": [str(tmp_path / "q.tsv")],
        "collection": [str(tmp_path / "c.tsv")],
    }
    assert prepare(DataConfig(nway=3, **settings), tmp_path / "data").digest == first.digest
    monkeypatch.undo()
    assert prepared(tmp_path, GOOD.replace("3]", "4]")).digest != first.digest


@given(ids=st.lists(st.text(max_size=6), min_size=1, max_size=30), asked=st.lists(st.text(max_size=6), max_size=9))
def test_a_store_is_the_mapping_that_was_written(tmp_path_factory, ids, asked):
    folder = tmp_path_factory.mktemp("store")
    left_out = LeftOut("texts")
    store = write_texts(folder, "texts", ((f"f:{i}", key, f"文{i}") for i, key in enumerate(ids)), left_out)
    wanted: dict[str, str] = {}
    for i, key in enumerate(ids):
        wanted.setdefault(key, f"文{i}")
    for found in (store, TextStore(folder, "texts")):
        assert list(found.items()) == list(wanted.items())
        assert {key: found.get(key) for key in asked} == {key: wanted.get(key) for key in asked}
    assert (left_out.count, left_out.total) == (len(ids) - len(wanted), len(ids))
