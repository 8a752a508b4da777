"""The file for records that cannot be indexed."""

from __future__ import annotations

import datetime as dt
import json
import os

import pytest

from tansaku import BadRecord, Document, Rejects, StorageError


@pytest.fixture
def rejects(tmp_path):
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        yield rejects


def noted(rejects):
    return [json.loads(line) for line in rejects.path.read_text(encoding="utf-8").splitlines()]


def test_what_is_noted_is_in_the_file_at_once(rejects):
    rejects.note("docs.jsonl:17", "docs.jsonl:17: field 'text' is empty", {"id": "京都", "text": ""})
    assert noted(rejects) == [
        {
            "place": "docs.jsonl:17",
            "reason": "docs.jsonl:17: field 'text' is empty",
            "record": {"id": "京都", "text": ""},
        }
    ]
    assert "京都" in rejects.path.read_text(encoding="utf-8")


def test_lines_come_in_the_order_in_which_they_are_noted(rejects):
    for number in (3, 1, 2):
        rejects.note(f"docs.jsonl:{number}", "bad", {"id": number})
    assert [line["record"]["id"] for line in noted(rejects)] == [3, 1, 2]


def test_a_place_is_noted_once(rejects):
    rejects.note("docs.jsonl:1", "first", {"id": 1})
    rejects.note("docs.jsonl:1", "second", {"id": 1})
    assert [line["reason"] for line in noted(rejects)] == ["first"]
    assert len(rejects) == 1


def test_nothing_noted_leaves_no_file(tmp_path):
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        assert len(rejects) == 0
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_file_is_replaced_even_by_nothing(tmp_path):
    path = tmp_path / "rejects.jsonl"
    path.write_text("of an earlier call\n")
    with Rejects(path):
        pass
    assert not path.exists()
    path.write_text("of an earlier call\n")
    with Rejects(path) as rejects:
        rejects.note("docs.jsonl:1", "bad", {})
    assert len(noted(rejects)) == 1


def test_what_is_noted_after_closing_follows_what_was_noted_before(rejects):
    for number in (1, 2, 3):
        rejects.note(f"docs.jsonl:{number}", "bad", {"id": number})
        rejects.close()
    assert [line["record"]["id"] for line in noted(rejects)] == [1, 2, 3]


def test_a_link_put_in_the_place_of_the_file_is_not_followed(tmp_path):
    other = tmp_path / "other"
    other.write_text("of somebody else")
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        rejects.path.symlink_to(other)
        with pytest.raises(StorageError, match=r"rejects\.jsonl: the file for rejects cannot be written"):
            rejects.note("docs.jsonl:1", "bad", {})
    assert other.read_text() == "of somebody else"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_or_a_device_is_written_to_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with Rejects(pipe) as rejects:
        rejects.note("docs.jsonl:1", "bad", {"id": 1})
    assert json.loads(os.read(reader, 1000))["reason"] == "bad"
    os.close(reader)
    assert pipe.is_fifo()


def test_closing_twice_does_no_harm(rejects):
    rejects.note("docs.jsonl:1", "bad", {})
    rejects.close()
    rejects.close()
    assert len(noted(rejects)) == 1


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        pytest.param({"text": "a\nb\u2028c"}, {"text": "a\nb\u2028c"}, id="line ends"),
        pytest.param({"text": "寺\ud800"}, {"text": "寺\ud800"}, id="half a character"),
        pytest.param({"day": dt.date(2024, 1, 2)}, {"day": "2024-01-02"}, id="a date"),
        pytest.param({"raw": b"\xff"}, {"raw": "b'\\xff'"}, id="bytes"),
        pytest.param({7: "x"}, {"7": "x"}, id="a number for a field name"),
        pytest.param({b"k": "x", ("a", 1): "y"}, {"b'k'": "x", "('a', 1)": "y"}, id="other field names"),
        pytest.param(None, None, id="null"),
        pytest.param(["a"], ["a"], id="a list"),
        pytest.param(BadRecord("not valid JSON", '{"id'), {"reason": "not valid JSON", "raw": '{"id'}, id="unparsed"),
    ],
)
def test_records_of_every_kind_are_one_line_of_json(rejects, record, expected):
    rejects.note("document 0", "bad", record)
    (line,) = rejects.path.read_bytes().split(b"\n")[:-1]
    assert json.loads(line)["record"] == expected


def test_a_record_that_holds_itself_is_noted(rejects):
    record: dict[str, object] = {"id": "a"}
    record["self"] = record
    rejects.note("document 0", "bad", record)
    assert noted(rejects)[0]["place"] == "document 0"


def test_a_document_object_keeps_its_text_and_fields(rejects):
    rejects.note("document 0", "bad", Document("a", "寺", "題", {"year": 794}))
    found = noted(rejects)[0]["record"]
    assert {name: found[name] for name in ("id", "text", "title", "fields")} == {
        "id": "a",
        "text": "寺",
        "title": "題",
        "fields": {"year": 794},
    }


def test_a_folder_in_its_place_is_refused_at_once_naming_it(tmp_path):
    with pytest.raises(StorageError, match="the file for rejects cannot be written") as caught:
        Rejects(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_that_is_not_there_is_refused_naming_the_file(tmp_path):
    path = tmp_path / "none" / "rejects.jsonl"
    with Rejects(path) as rejects, pytest.raises(StorageError, match="cannot be written") as caught:
        rejects.note("document 0", "bad", {})
    assert str(path) in str(caught.value)
