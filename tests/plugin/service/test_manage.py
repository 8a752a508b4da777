"""Indexes managed over HTTP: what may be written by whom, jobs, uploads, and what is read of the documents."""

from __future__ import annotations

import json
import threading

import pytest

from tansaku import Index, InputError, Settings, StorageError
from tansaku.plugin.service.service import Service

from ...support.fakes import FakeEncoder, corpus, small_chunks
from .test_service import running, until

pytestmark = pytest.mark.integration

DOCS = corpus(12, year=lambda i: 1990 + i)
NEW = [{"id": "n1", "text": "aaaa", "year": 2020}, {"id": "n2", "text": "bbbb", "year": 2021}]
READ, WRITE = {"Authorization": "Bearer read"}, {"Authorization": "Bearer write"}


@pytest.fixture
def encoder():
    return FakeEncoder()


@pytest.fixture
def db(tmp_path, monkeypatch, encoder):
    small_chunks(monkeypatch)
    Index.create(tmp_path / "db", "t", DOCS, encoder=encoder)
    return tmp_path / "db"


def settings(db, **given):
    tokens = {"token": "read", "write_token": "write"}
    return Settings(database=db, write=True, refresh_seconds=0, **{**tokens, **given})


def writing(db, encoder, **given):
    return running(settings(db, **given), encoder=encoder)


class TestWhoMayWrite:
    async def test_only_the_token_of_writers_writes_and_it_reads_too(self, db, encoder):
        async with writing(db, encoder) as s:
            assert (await s.post("/indexes/t/documents", NEW)).status_code == 401
            refused = await s.post("/indexes/t/documents", NEW, headers=READ)
            assert refused.status_code == 403
            assert "--write-token" in refused.json()["message"]
            assert (await s.post("/indexes/t/documents", NEW, headers=WRITE)).status_code == 200
            for token in (READ, WRITE):
                assert (await s.post("/indexes/t/count", {}, headers=token)).json()["rows"] == 14

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("POST", "/indexes", {"name": "u", "documents": NEW}),
            ("DELETE", "/indexes/t", None),
            ("POST", "/indexes/t/documents", NEW),
            ("POST", "/indexes/t/documents", {"documents": NEW}),
            ("POST", "/indexes/t/documents/stream", None),
            ("POST", "/indexes/t/delete", {"ids": ["d1"]}),
            ("DELETE", "/indexes/t/documents/d1", None),
            ("POST", "/indexes/t/optimize", {}),
            ("POST", "/indexes/t/rebuild", {}),
            ("POST", "/uploads", None),
            ("DELETE", "/jobs/" + "0" * 32, None),
            ("PATCH", "/uploads/" + "0" * 32, None),
            ("DELETE", "/uploads/" + "0" * 32, None),
        ],
    )
    async def test_no_writing_path_is_open_to_readers(self, db, encoder, method, path, body):
        headers = {**READ, "Upload-Offset": "0"}
        async with writing(db, encoder) as s:
            assert (await s.client.request(method, path, json=body, headers=headers)).status_code == 403
        async with running(Settings(indexes={"t": (db, "t")}, refresh_seconds=0), encoder=encoder) as s:
            off = await s.client.request(method, path, json=body, headers=headers)
            assert off.status_code in (403, 404)
            assert "--write" in off.json()["message"]
        assert len(Index.open(db, "t", encoder=encoder)) == 12

    async def test_without_tokens_pages_of_other_sites_cannot_write(self, db, encoder):
        given = {"token": None, "write_token": None, "allow_write_without_token": True}
        here = {"Host": "localhost:8080"}
        async with writing(db, encoder, **given) as s:
            for headers in (
                {"Host": "rebound.example"},
                {**here, "Origin": "https://other.example"},
                {**here, "Sec-Fetch-Site": "cross-site"},
            ):
                assert (await s.post("/indexes/t/documents", NEW, headers=headers)).status_code == 403
            assert (await s.post("/indexes/t/documents", NEW, headers=here)).status_code == 200

    @pytest.mark.parametrize(
        ("given", "remedy"),
        [
            ({"write_token": None}, "--write-token"),
            ({"write_token": "read"}, "choose another"),
            ({"allow_write_without_token": True}, "without tokens"),
            ({"write": False}, "--write"),
        ],
    )
    def test_settings_that_would_let_readers_write_are_refused(self, db, given, remedy):
        with pytest.raises(InputError, match=remedy):
            Settings(**{"database": db, "write": True, "token": "read", "write_token": "write", **given})


class TestDocuments:
    @pytest.mark.parametrize("body", [NEW, {"documents": NEW}])
    async def test_what_is_answered_is_stored_and_found(self, db, encoder, body):
        async with writing(db, encoder) as s:
            job = (await s.post("/indexes/t/documents", body, headers=WRITE)).json()
            hits = (await s.post("/search", {"query": "aaaa", "k": 1}, headers=READ)).json()["hits"]
        assert (job["state"], job["result"]["rows"], job["rejected"]) == ("done", 2, 0)
        assert hits[0]["id"] == "n1"
        assert len(Index.open(db, "t", encoder=encoder)) == 14

    async def test_lines_of_json_are_written_as_they_come(self, db, encoder):
        lines = "".join(json.dumps(doc) + "\n" for doc in NEW)
        for kind in ("application/x-ndjson", "application/jsonl; charset=utf-8"):
            async with writing(db, encoder) as s:
                headers = {**WRITE, "Content-Type": kind}
                answer = await s.client.post("/indexes/t/documents", content=lines, headers=headers)
                assert answer.json()["result"]["rows"] == 2
                packed = {**headers, "Content-Encoding": "gzip"}
                assert (await s.client.post("/indexes/t/documents", content=lines, headers=packed)).status_code == 415
                assert not list((db / ".tansaku-service" / "uploads").iterdir())

    async def test_upsert_replaces_and_add_refuses_an_id_that_is_there(self, db, encoder):
        async with writing(db, encoder) as s:
            changed = [{"id": "d1", "text": "cccc", "year": 7}]
            refused = await s.post("/indexes/t/documents?mode=add", changed, headers=WRITE)
            assert refused.status_code == 422
            assert "d1" in refused.json()["message"]
            assert (await s.post("/indexes/t/documents", changed, headers=WRITE)).json()["result"]["updated"] == 1
            answer = await s.client.get("/indexes/t/documents/d1", headers=READ)
        assert answer.json() == {"id": "d1", "title": "", "text": "cccc", "year": 7}

    async def test_what_cannot_be_indexed_is_listed_and_the_rest_is_written_once(self, db, encoder):
        body = [NEW[0], {"id": "empty", "text": ""}, NEW[1]]
        async with writing(db, encoder) as s:
            for _ in range(2):
                job = (await s.post("/indexes/t/documents", body, headers=WRITE)).json()
                assert job["rejected"] == 1
                assert job["rejects"][0]["line"] == 2
                assert job["rejects"][0]["reason"]
            assert (await s.post("/indexes/t/count", {}, headers=READ)).json()["rows"] == 14

    async def test_delete_by_ids_by_condition_and_by_path(self, db, encoder):
        async with writing(db, encoder) as s:
            gone = (await s.post("/indexes/t/delete", {"ids": ["d1", "none"]}, headers=WRITE)).json()
            assert (gone["result"]["rows"], gone["result"]["missing"]) == (1, ["none"])
            where = {"where": "year >= $y", "params": {"y": 2000}}
            trial = (await s.post("/indexes/t/delete", {**where, "dry_run": True}, headers=WRITE)).json()
            assert trial["result"]["rows"] == 2
            assert (await s.post("/indexes/t/delete", where, headers=WRITE)).json()["result"]["rows"] == 2
            assert (await s.client.delete("/indexes/t/documents/d2", headers=WRITE)).json()["result"]["rows"] == 1
            assert (await s.post("/indexes/t/count", {}, headers=READ)).json()["documents"] == 8
            for bad in ({}, {"ids": ["d3"], "where": "year > 1"}, {"where": "yeer > 1"}, {"where": ""}):
                assert (await s.post("/indexes/t/delete", bad, headers=WRITE)).status_code == 422
            assert (await s.post("/indexes/t/count", {}, headers=READ)).json()["rows"] == 8


class TestReading:
    async def test_get_count_and_scroll(self, db, encoder):
        async with writing(db, encoder) as s:
            got = (await s.post("/indexes/t/get", {"ids": ["d2", "none"], "fields": ["year"]}, headers=READ)).json()
            assert got["documents"] == [{"id": "d2", "year": 1992}, None]
            assert got["missing"] == ["none"]
            assert (await s.client.get("/indexes/t/documents/none", headers=READ)).status_code == 404
            where = {"where": "year < $y", "params": {"y": 1995}}
            assert (await s.post("/indexes/t/count", where, headers=READ)).json()["rows"] == 5
            seen, cursor = [], None
            while True:
                body = {**where, "limit": 2, "fields": ["year"], "cursor": cursor}
                page = (await s.post("/indexes/t/scroll", body, headers=READ)).json()
                seen += page["documents"]
                cursor = page["cursor"]
                if cursor is None:
                    break
                # What is written meanwhile does not move the pages.
                await s.post("/indexes/t/documents", [{"id": f"x{len(seen)}", "text": "ab", "year": 1}], headers=WRITE)
        assert sorted(doc["year"] for doc in seen) == [1990, 1991, 1992, 1993, 1994]

    async def test_a_field_that_is_not_there_is_refused_with_the_nearest_name(self, db, encoder):
        async with writing(db, encoder) as s:
            answer = await s.post("/indexes/t/scroll", {"fields": ["yeer"]}, headers=READ)
            assert answer.status_code == 422
            assert "'year'" in answer.json()["message"]
            answer = await s.post("/indexes/t/scroll", {"limits": 3}, headers=READ)
            assert "did you mean 'limit'" in answer.json()["message"]

    async def test_a_cursor_of_a_version_that_was_removed(self, db, encoder):
        async with writing(db, encoder) as s:
            cursor = (await s.post("/indexes/t/scroll", {"limit": 2}, headers=READ)).json()["cursor"]
            await s.post("/indexes/t/documents", NEW, headers=WRITE)
            await s.post("/indexes/t/optimize", {"keep_seconds": 0}, headers=WRITE)
            answer = await s.post("/indexes/t/scroll", {"cursor": cursor}, headers=READ)
            assert answer.status_code == 410
            assert (await s.post("/indexes/t/scroll", {"cursor": "x"}, headers=READ)).status_code == 422

    async def test_describe(self, db, encoder):
        async with writing(db, encoder) as s:
            assert (await s.client.get("/indexes", headers=READ)).json()["indexes"][0]["rows"] == 12
            info = (await s.client.get("/indexes/t/", headers=READ)).json()
            assert (info["name"], info["documents"], info["columns"]["year"]) == ("t", 12, "int64")
            assert info["bytes_on_disk"] > 0
            assert info["drift"]["trained_cosine"] > 0
            assert (await s.client.get("/indexes/none", headers=READ)).status_code == 404
            assert (
                await s.metric('tansaku_requests_total{dialect="tansaku",route="/indexes/{index}",status="200"}')
                is None
            )


class TestIndexes:
    async def test_create_and_drop(self, db, encoder):
        async with writing(db, encoder) as s:
            body = {"name": "u", "documents": NEW, "nbits": 4, "fulltext": True}
            answer = await s.post("/indexes", body, headers=WRITE)
            assert answer.status_code == 201, answer.text
            found = await s.post("/search", {"query": "aaaa", "index": "u", "source": "fused"}, headers=READ)
            assert found.json()["hits"][0]["id"] == "n1"
            assert (await s.post("/indexes", body, headers=WRITE)).status_code == 409
            assert (await s.post("/indexes", {**body, "overwrite": True}, headers=WRITE)).status_code == 201
            assert (await s.client.delete("/indexes/u", headers=WRITE)).status_code == 200
            assert (await s.post("/search", {"query": "aaaa", "index": "u"}, headers=READ)).status_code == 404
        assert Index.names(db) == ["t"]

    @pytest.mark.parametrize("name", ["../out", "a/b", ".tansaku-service", "t_codecs", ""])
    async def test_names_that_an_index_cannot_have(self, db, encoder, name):
        async with writing(db, encoder) as s:
            answer = await s.post("/indexes", {"name": name, "documents": NEW}, headers=WRITE)
        assert answer.status_code in (201, 422) if name == "t_codecs" else answer.status_code == 422

    async def test_where_tables_are_named_none_is_made_or_dropped(self, db, encoder):
        named = Settings(
            indexes={"t": (db, "t")},
            write=True,
            token="read",  # noqa: S106
            write_token="write",  # noqa: S106
            refresh_seconds=0,
        )
        async with running(named, encoder=encoder) as s:
            assert (await s.post("/indexes", {"name": "u", "documents": NEW}, headers=WRITE)).status_code == 409
            assert (await s.client.delete("/indexes/t", headers=WRITE)).status_code == 409
            assert (await s.post("/indexes/t/documents", NEW, headers=WRITE)).status_code == 200

    async def test_an_empty_database_is_filled_over_http(self, tmp_path, encoder):
        async with writing(tmp_path / "new", encoder) as s:
            assert (await s.client.get("/indexes", headers=READ)).json() == {"indexes": []}
            assert (await s.post("/indexes", {"name": "u", "documents": NEW}, headers=WRITE)).status_code == 201
        async with writing(tmp_path / "new", encoder) as s:
            assert (await s.post("/indexes/u/count", {}, headers=READ)).json()["rows"] == 2

    async def test_rebuild_and_optimize_are_jobs(self, db, encoder):
        async with writing(db, encoder) as s:
            answer = await s.post("/indexes/t/rebuild", {"nbits": 4, "wait": False}, headers=WRITE)
            assert answer.status_code == 202
            place = answer.headers["location"]
            events = (await s.client.get(f"{place}/events", headers=READ)).text
            assert events.rstrip().split("\n")[-2] == "event: end"
            assert json.loads(events.rstrip().split("data: ")[-1])["state"] == "done"
            assert (await s.client.get(place, headers=READ)).json()["result"]["rows"] == 12
            optimized = (await s.post("/indexes/t/optimize", {}, headers=WRITE)).json()
            assert optimized["result"]["fragments_after"] >= 1
            assert (await s.client.get("/indexes/t", headers=READ)).json()["nbits"] == 4
            kinds = [job["kind"] for job in (await s.client.get("/jobs?index=t", headers=READ)).json()["jobs"]]
        assert kinds == ["optimize", "rebuild"]


class TestUploads:
    async def test_parts_continue_where_a_broken_connection_left_them(self, db, encoder):
        lines = "".join(json.dumps(doc) + "\n" for doc in NEW).encode()
        async with writing(db, encoder) as s:
            upload = (await s.client.post("/uploads", headers=WRITE)).json()["id"]
            place = f"/uploads/{upload}"

            async def breaking():
                yield lines[:20]
                raise ConnectionError

            await s.client.patch(place, content=breaking(), headers={**WRITE, "Upload-Offset": "0"})
            received = (await s.client.get(place, headers=WRITE)).json()["received"]
            assert received == 20
            wrong = await s.client.patch(place, content=lines, headers={**WRITE, "Upload-Offset": "3"})
            assert wrong.status_code == 409
            assert "20 bytes" in wrong.json()["message"]
        async with writing(db, encoder) as s:  # a later run of the service
            rest = await s.client.patch(place, content=lines[20:], headers={**WRITE, "Upload-Offset": "20"})
            assert rest.headers["upload-offset"] == str(len(lines))
            job = (await s.post("/indexes/t/documents", {"upload": upload}, headers=WRITE)).json()
            assert job["result"]["rows"] == 2
            assert (await s.client.get(place, headers=WRITE)).status_code == 404

    async def test_an_upload_whose_job_failed_can_be_used_once_more(self, db, encoder):
        async with writing(db, encoder) as s:
            upload = (await s.client.post("/uploads", headers=WRITE)).json()["id"]
            line = json.dumps({"id": "d1", "text": "cccc", "year": 3}).encode()
            await s.client.patch(f"/uploads/{upload}", content=line, headers={**WRITE, "Upload-Offset": "0"})
            body = {"upload": upload, "mode": "add"}
            assert (await s.post("/indexes/t/documents", body, headers=WRITE)).status_code == 422
            assert (await s.post("/indexes/t/documents", {"upload": upload}, headers=WRITE)).status_code == 200

    async def test_limits(self, db, encoder):
        lines = b'{"id": "a", "text": "ab"}\n' * 10
        headers = {**WRITE, "Content-Type": "application/x-ndjson"}
        for limit, status in (
            ({"max_upload_bytes": 100}, 413),
            ({"max_uploads_bytes": 100}, 507),
            ({"max_upload_documents": 9}, 413),
        ):
            async with writing(db, encoder, **limit) as s:
                answer = await s.client.post("/indexes/t/documents", content=lines, headers=headers)
                assert answer.status_code == status, answer.text
                assert not list((db / ".tansaku-service" / "uploads").iterdir())

    @pytest.mark.parametrize("upload", ["../../t.lance", "x", "0" * 32])
    async def test_an_upload_that_is_not_there(self, db, encoder, upload):
        async with writing(db, encoder) as s:
            assert (await s.post("/indexes/t/documents", {"upload": upload}, headers=WRITE)).status_code == 404


class TestJobs:
    async def test_jobs_of_an_index_wait_for_each_other_and_searches_for_none(self, db):
        encoder = HeldEncoder()
        async with writing(db, encoder, max_jobs=2) as s:
            encoder.hold()
            first = (await s.post("/indexes/t/documents", {"documents": NEW, "wait": False}, headers=WRITE)).json()
            await until(lambda: encoder.held)
            deletion = {"ids": ["n1"], "wait": False}
            second = (await s.post("/indexes/t/delete", deletion, headers=WRITE)).json()
            assert (await s.post("/indexes/t/delete", deletion, headers=WRITE)).status_code == 429
            assert (await s.post("/search", {"query": "3a9f"}, headers=READ)).status_code == 200
            assert (await s.client.get(f"/jobs/{second['id']}", headers=READ)).json()["state"] == "queued"
            encoder.let_go()
            await s.client.get(f"/jobs/{second['id']}/events", headers=READ)
            assert (await s.client.get(f"/jobs/{first['id']}", headers=READ)).json()["state"] == "done"
            assert (await s.client.get(f"/jobs/{second['id']}", headers=READ)).json()["result"]["rows"] == 1

    async def test_cancelling(self, db):
        encoder = HeldEncoder()
        async with writing(db, encoder) as s:
            encoder.hold()
            first = (await s.post("/indexes/t/documents", {"documents": NEW, "wait": False}, headers=WRITE)).json()
            await until(lambda: encoder.held)
            second = (await s.post("/indexes/t/optimize", {"wait": False}, headers=WRITE)).json()
            cancelled = await s.client.delete(f"/jobs/{second['id']}", headers=WRITE)
            assert cancelled.json()["state"] == "cancelled"
            await s.client.delete(f"/jobs/{first['id']}", headers=WRITE)
            encoder.let_go()
            events = (await s.client.get(f"/jobs/{first['id']}/events", headers=READ)).text
            assert '"cancelled"' in events
            assert (await s.client.delete(f"/jobs/{first['id']}", headers=WRITE)).status_code == 409
            assert (await s.post("/indexes/t/documents", NEW, headers=WRITE)).status_code == 200  # not held up by it

    async def test_what_is_committed_is_acknowledged_although_searches_cannot_follow(self, db, encoder, monkeypatch):
        def fails(self, name):
            raise StorageError("the disk failed")

        async with writing(db, encoder) as s:
            monkeypatch.setattr(Service, "refresh", fails)
            assert (await s.post("/indexes/t/documents", NEW, headers=WRITE)).json()["state"] == "done"
            assert any(line["event"] == "not refreshed" for line in s.log())
        assert len(Index.open(db, "t", encoder=encoder)) == 14

    async def test_a_second_service_that_writes_there_is_refused(self, db, encoder):
        async with writing(db, encoder), writing_unloaded(db, encoder) as second:
            await until(second.log)
            assert second.service.failed
            assert "--work-folder" in second.log()[-1]["message"]

    async def test_messages_have_no_paths(self, db, encoder):
        async with writing(db, encoder) as s:
            headers = {**WRITE, "Content-Type": "application/x-ndjson"}
            answer = await s.client.post("/indexes/t/documents", content=b"no json\n{\n", headers=headers)
            assert str(db) not in answer.text
            assert [each["line"] for each in answer.json().get("rejects", [])] in ([1, 2], [])


def writing_unloaded(db, encoder):
    return running(settings(db), encoder=encoder, load=False)


class HeldEncoder(FakeEncoder):
    """Encodes the documents of jobs only when it is let go."""

    def __init__(self):
        super().__init__()
        self._go = threading.Event()
        self._go.set()
        self.held = False

    def hold(self):
        self._go.clear()

    def let_go(self):
        self._go.set()

    def encode_tokens(self, tokenized, note=None):
        if threading.current_thread().name.startswith("tansaku-writer") and not self._go.is_set():
            self.held = True
            assert self._go.wait(30)
            self.held = False
        return super().encode_tokens(tokenized, note)
