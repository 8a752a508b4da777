"""What the client does with answers and broken connections, without a service."""

from __future__ import annotations

import json

import pytest

from tansaku import ClientError, InputError, Rejects, TableExistsError, TableNotFoundError, WriteConflictError
from tansaku.plugin.client.documents import Lines
from tansaku.plugin.client.errors import error_of
from tansaku.plugin.client.steps import Answer, BrokenConnectionError, Pause, Request, asked, pause
from tansaku.plugin.client.writing import sent

BUSY = Answer(429, {"retry-after": "2"}, b'{"message": "busy"}')
SENT, UNSENT = BrokenConnectionError("reset", sent=True), BrokenConnectionError("refused", sent=False)


def taken(steps, replies):
    """The result of steps, the requests and the pauses; `replies` are answers, JSON, or errors."""
    replies, requests, pauses = list(replies), [], []
    try:
        step = next(steps)
        while True:
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                step = steps.send(None)
                continue
            requests.append(step)
            reply = replies.pop(0)
            if isinstance(reply, Exception):
                step = steps.throw(reply)
            else:
                given = reply if isinstance(reply, Answer) else Answer(200, {}, json.dumps(reply).encode())
                step = steps.send(given)
    except StopIteration as end:
        assert not replies
        return end.value, requests, pauses


def test_a_busy_service_is_asked_again_after_the_time_that_it_names():
    result, requests, pauses = taken(asked(Request("GET", "/x"), 3), [BUSY, BUSY, {"n": 1}])
    assert result == {"n": 1}
    assert len(requests) == 3
    assert all(2 <= seconds <= 2.5 for seconds in pauses)


def test_without_a_time_the_pauses_grow():
    assert [pause(n) <= 0.25 * 2 ** (n - 1) for n in range(1, 5)] == [True] * 4
    assert pause(4) > pause(1)
    assert pause(100) <= 10
    assert pause(1, Answer(503, {"retry-after": "Tue, 01 Dec 2026 00:00:00 GMT"}, b"")) <= 0.25


def test_a_service_that_stays_busy_is_an_error_at_the_last_try():
    with pytest.raises(ClientError, match=r"busy .HTTP status 429") as raised:
        taken(asked(Request("GET", "/x"), 2), [BUSY, BUSY])
    assert raised.value.status == 429


def test_what_may_not_be_done_twice_is_sent_again_only_if_it_was_not_sent():
    once = Request("POST", "/x", repeatable=False)
    assert taken(asked(once, 2), [UNSENT, {}])[0] == {}
    with pytest.raises(ClientError, match="not known whether the service has done its work"):
        taken(asked(once, 2), [SENT])
    assert taken(asked(Request("POST", "/x"), 2), [SENT, {}])[0] == {}


def test_another_server_is_named_as_such():
    with pytest.raises(ClientError, match="is this the address of tansaku serve"):
        taken(asked(Request("GET", "/x"), 1), [Answer(200, {}, b"<html>")])


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (404, "unknown index; use t", TableNotFoundError),
        (404, "no document with the id 'x'", InputError),
        (409, "index 't' exists already", TableExistsError),
        (409, "another writer replaced the table", WriteConflictError),
        (413, "too long", InputError),
        (422, "k: Input should be greater", InputError),
        (401, "the token is missing", ClientError),
        (500, "the service failed", ClientError),
    ],
)
def test_errors_are_those_of_an_index_that_is_opened_here(status, message, kind):
    assert type(error_of(status, message)) is kind


class TestUploads:
    """Two parts of a line each: 3 bytes with its end."""

    PARTS = ([b"aa"], [b"bb"])

    def test_progress_counts_documents(self):
        seen = []
        replies = [{"id": "u"}, {"received": 3}, {"received": 6}]
        upload, requests, _ = taken(sent(self.PARTS, lambda *said: seen.append(said), 3), replies)
        assert upload == "u"
        assert [request.headers.get("Upload-Offset") for request in requests] == [None, "0", "3"]
        assert seen == [("send", 1, 0, 0), ("send", 2, 0, 0)]

    def test_a_broken_connection_continues_from_what_the_service_has(self):
        replies = [{"id": "u"}, {"received": 3}, SENT, {"received": 4}, {"received": 6}]
        _, requests, pauses = taken(sent(self.PARTS, lambda *_: None, 3), replies)
        assert [(request.method, request.body) for request in requests] == [
            ("POST", None),
            ("PATCH", b"aa\n"),
            ("PATCH", b"bb\n"),
            ("GET", None),
            ("PATCH", b"b\n"),
        ]
        assert len(pauses) == 1

    def test_a_part_that_had_come_whole_is_not_sent_again(self):
        replies = [{"id": "u"}, {"received": 3}, SENT, {"received": 6}]
        assert taken(sent(self.PARTS, lambda *_: None, 3), replies)[0] == "u"

    def test_an_upload_that_gets_no_further_ends(self):
        replies = [{"id": "u"}, SENT, {"received": 0}, SENT]
        with pytest.raises(ClientError, match="stopped at 0 bytes after 2 tries"):
            taken(sent(self.PARTS, lambda *_: None, 2), replies)


def test_documents_are_read_once_and_have_places(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"id": "a", "text": "x"}\n{bad\n{"id": "b", "text": "y"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"d.jsonl:2"):
        list(Lines(path, None).parts())
    with Rejects(tmp_path / "rejects") as rejects:
        lines = Lines(path, rejects)
        assert list(lines.parts()) == [[b'{"id":"a","text":"x"}', b'{"id":"b","text":"y"}']]
    assert len(rejects) == 1
    assert lines.place(2).endswith("d.jsonl:3")


@pytest.mark.parametrize("bad", [1, {"id": "a", "text": object()}])
def test_what_cannot_be_sent_is_named(bad):
    with pytest.raises(InputError, match="document 1"):
        list(Lines([bad], None).parts())
