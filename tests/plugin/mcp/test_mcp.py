"""The MCP server, asked by the SDK's own client: in this process, over stdio and over HTTP."""

from __future__ import annotations

import datetime
import importlib
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import httpx2  # which the client of the SDK takes
import pytest
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.types import CallToolResult, EmptyResult, Notification, Request, TextContent

from tansaku import Index, InputError, MissingExtraError, Searcher, SearchOptions
from tansaku.indexer.table.database import connect, drop_table
from tansaku.onnx_export import cores
from tansaku.plugin.mcp import explanations as mcp_explanations
from tansaku.plugin.mcp import results as mcp_results
from tansaku.plugin.mcp import server as host
from tansaku.plugin.mcp.logs import ShortFormatter

from ...support.fakes import MAX_TOKENS, FakeEncoder, corpus

pytestmark = pytest.mark.integration

TANSAKU = Path(sysconfig.get_path("scripts")) / "tansaku"
QUERY = "3a9f"


@pytest.fixture(scope="module")
def encoder():
    return FakeEncoder()


@pytest.fixture(scope="module")
def db(encoder, tmp_path_factory):
    """Tables: docs, of 12; passages, with one document of three; columns, with values of all sorts."""
    folder = tmp_path_factory.mktemp("mcp")
    Index.create(folder, "docs", corpus(12, year=lambda i: 1900 + i, genre=lambda i: "ab"[i % 2]), encoder=encoder)
    parts = [{"id": "long", "title": "t", "text": "3a9f。b0b0。\nc1c1。", "year": 1}, {"id": "short", "text": "d2"}]
    Index.create(folder, "passages", parts, encoder=encoder, passage_tokens=7)
    values = {
        "when": datetime.date(1397, 5, 1),
        "ratio": float("nan"),
        "raw": b"\xff\x00",
        "tags": ["寺", "庭"],
        "nothing": None,
        "note": "長" * 5_000,
        **{f"more{i:02}": "x" * 150 for i in range(20)},
    }
    Index.create(folder, "columns", [{"id": "c", "title": "題" * 500, "text": "3a9f", **values}], encoder=encoder)
    return folder


def server(db, encoder, *tables, refresh_seconds=2.0):
    return host.make_server(db, tables or ["docs"], encoder=encoder, refresh_seconds=refresh_seconds)


def text_of(result: CallToolResult) -> str:
    """What a result shows a reader."""
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


def typed(result: CallToolResult) -> dict[str, Any]:
    """The same as typed data; the call must have succeeded."""
    assert not result.is_error, text_of(result)
    assert result.structured_content is not None
    return result.structured_content


async def answer(server: MCPServer, tool: str, **arguments: Any) -> dict[str, Any]:
    """The typed answer of a call that must succeed."""
    async with Client(server) as client:
        return typed(await client.call_tool(tool, arguments))


async def refusal(server: MCPServer, tool: str, **arguments: Any) -> str:
    """The message of a call that must fail."""
    async with Client(server) as client:
        result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert "Traceback" not in text_of(result)
    return text_of(result)


class TestTools:
    @pytest.mark.parametrize("mode", ["auto", "legacy"])
    async def test_all_only_read_and_say_what_they_take_and_return(self, db, encoder, mode):
        async with Client(server(db, encoder, "docs", "passages"), mode=mode) as client:
            tools = (await client.list_tools()).tools
            assert "docs, passages" in (client.instructions or "")
        assert [tool.name for tool in tools] == ["search", "read", "explain", "describe"]
        for tool in tools:
            assert tool.annotations is not None
            assert tool.annotations.read_only_hint
            assert tool.annotations.destructive_hint is tool.annotations.open_world_hint is False
            assert (tool.description or "").endswith("Tables: docs, passages")
            assert tool.input_schema["additionalProperties"] is False
            assert all(argument["description"] for argument in tool.input_schema["properties"].values())
            assert tool.output_schema is not None
            assert tool.output_schema["type"] == "object"

    async def test_the_text_says_what_the_typed_answer_says(self, db, encoder):
        async with Client(server(db, encoder)) as client:
            found = await client.call_tool("search", {"query": QUERY, "k": 2})
            best = typed(found)["hits"][0]
            assert text_of(found).startswith(f'1. id "{best["id"]}", score {best["score"]:.3f}\n(year: 19')
            read = await client.call_tool("read", {"ids": ["d1", "zz"]})
            assert text_of(read).startswith('id "d1"\n(year: 1901; genre: "b")\n| ')
            assert text_of(read).endswith('docs has no documents with these ids: "zz"')
            described = text_of(await client.call_tool("describe", {})).splitlines()
            assert described[0].startswith('table docs: 12 documents, model "fake"')
            assert described[-1] == '- genre: string, such as "a", "b"'


class TestSearch:
    async def test_hits_are_the_searchers_with_mean_scores(self, db, encoder):
        expected = Searcher.open(db, "docs", encoder=encoder).search(QUERY, k=3)
        hits = (await answer(server(db, encoder), "search", query=QUERY, k=3))["hits"]
        assert [(hit["id"], hit["title"], hit["text"], hit["fields"], hit["passage"]) for hit in hits] == [
            (hit.id, hit.title, hit.text, hit.fields, None) for hit in expected
        ]
        assert [hit["score"] for hit in hits] == pytest.approx([hit.score / len(QUERY) for hit in expected], abs=1e-4)

    async def test_a_condition_and_recall_reach_the_search(self, db, encoder):
        found = await answer(
            server(db, encoder), "search", query=QUERY, k=50, where="year >= 1905 AND genre = 'a'", recall="exact"
        )
        assert sorted(hit["id"] for hit in found["hits"]) == ["d10", "d6", "d8"]

    async def test_recall_may_be_a_number_and_the_expected_one_is_told(self, db, encoder):
        assert (await answer(server(db, encoder), "search", query=QUERY, recall=0.95))["recall"] == 1.0

    async def test_every_option_reaches_the_search(self, db, encoder, monkeypatch):
        given = {
            "k": 3,
            "recall": "fast",
            "where": "year < 1905",
            "ids": ["d1", "d2"],
            "passages": True,
            "source": "fused",
            "bm25_weight": 0.5,
            "phrase_weight": 0.1,
            "nprobe": 4,
            "candidates": 20,
            "fields": ["title"],
        }
        assert given.keys() == vars(SearchOptions()).keys(), "give a value of every option here"
        seen = []
        search = Searcher.search

        def spy(self, query, k, **options):
            seen.append({"k": k, **options})
            return search(self, query, k)

        monkeypatch.setattr(Searcher, "search", spy)
        await answer(server(db, encoder), "search", query=QUERY, **given)
        await answer(server(db, encoder), "search", query=QUERY)
        assert seen == [given, vars(SearchOptions())]

    async def test_ids_restrict_the_search_and_unknown_ones_are_named(self, db, encoder):
        async with Client(server(db, encoder)) as client:
            result = await client.call_tool("search", {"query": QUERY, "ids": ["d3", "zz", "d5"]})
        assert {hit["id"] for hit in typed(result)["hits"]} == {"d3", "d5"}
        assert typed(result)["unknown_ids"] == ["zz"]
        assert text_of(result).endswith('docs has no documents with these ids: "zz"')

    async def test_a_query_whose_end_was_ignored_is_said(self, db, encoder):
        async with Client(server(db, encoder)) as client:
            cut = await client.call_tool("search", {"query": "a" * (MAX_TOKENS + 1)})
            whole = await client.call_tool("search", {"query": "a" * MAX_TOKENS})
        assert typed(cut)["warning"].startswith("the query is longer than the")
        assert text_of(cut).endswith(typed(cut)["warning"])
        assert typed(whole)["warning"] is None

    async def test_hits_whose_ends_are_not_searched_are_named(self, tmp_path, encoder):
        Index.create(
            tmp_path, "t", [{"id": name, "text": name * 9, "title": name * 3} for name in "ab"], encoder=encoder
        )
        Index.open(tmp_path, "t", encoder=encoder).add([{"id": "long", "text": "a" * (MAX_TOKENS + 1)}])
        assert '("long")' in (await answer(server(tmp_path, encoder, "t"), "search", query="aaa"))["warning"]

    async def test_hits_that_take_too_much_room_are_counted(self, tmp_path, encoder):
        Index.create(tmp_path, "docs", [{"id": f"d{i}", "text": "3a9f" + "漢" * 96} for i in range(6)], encoder=encoder)
        async with Client(server(tmp_path, encoder)) as client:
            result = await client.call_tool("search", {"query": QUERY, "max_tokens": 250})
            whole = typed(await client.call_tool("search", {"query": QUERY}))
        found = typed(result)
        assert (len(found["hits"]), found["hits_left_out"]) == (2, 4)
        assert found["hits"] == whole["hits"][:2]
        assert whole["hits_left_out"] == 0
        assert "\n\n(4 more hits left out because of max_tokens)\n\n" in text_of(result)

    async def test_nothing_found_is_said(self, db, encoder):
        async with Client(server(db, encoder)) as client:
            result = await client.call_tool("search", {"query": QUERY, "where": "year > 3000"})
        assert (text_of(result), typed(result)["hits"]) == ("no hits", [])

    async def test_a_passage_is_found_under_its_documents_id(self, db, encoder):
        found = await answer(server(db, encoder, "passages"), "search", query="c1c1", k=1)
        hit = found["hits"][0]
        assert (hit["id"], hit["passage"], hit["text"], hit["fields"]) == ("long", 2, "c1c1。", {"year": 1})
        assert (await answer(server(db, encoder, "passages"), "read", ids=[hit["id"]]))["unknown_ids"] == []

    async def test_columns_come_as_json_knows_them_within_their_room(self, db, encoder):
        (hit,) = (await answer(server(db, encoder, "columns"), "search", query=QUERY))["hits"]
        fields = hit["fields"]
        assert (fields["when"], fields["raw"], fields["tags"]) == ("1397-05-01", "_wA=", ["寺", "庭"])
        assert fields["note"] == "長" * 199 + "…"
        assert not {"ratio", "nothing"} & set(fields)
        assert len(fields) + hit["fields_left_out"] == 24
        assert len(json.dumps(fields, ensure_ascii=False)) < 800
        assert hit["title"] == "題" * 199 + "…"

    async def test_a_long_text_is_cut_to_where_the_query_is_met(self, tmp_path, default_encoder):
        filler = ["庭に出て昼食の支度をした。", "明日の天気は分からない。"]
        text = filler[0] * 30 + "金閣寺は足利義満が1397年に建てた。" + filler[1] * 30
        docs = [{"id": f"{i}", "title": title, "text": text} for i, title in enumerate(["京都の寺", ""])]
        Index.create(
            tmp_path, "t", [*docs, {"id": "end", "text": text[: 30 * len(filler[0]) + 22]}], encoder=default_encoder
        )
        hits = (await answer(server(tmp_path, default_encoder, "t"), "search", query="金閣寺は誰が建てたのか"))["hits"]
        assert len(hits) == 3
        for hit in hits:
            assert "足利義満" in hit["text"]
            assert hit["text"].strip("…") in text
            assert len(hit["text"].strip("…")) == 400
            assert hit["text"].startswith("…")
            assert hit["text"].endswith("…") == (hit["id"] != "end")

    async def test_a_text_whose_document_has_gone_is_cut_at_its_end(self, tmp_path, default_encoder, monkeypatch):
        def gone(*_, **options):
            raise InputError("it is gone")

        text = "海は広い。" * 200 + "山は高い。"
        Index.create(tmp_path, "t", [{"id": "a", "text": text}], encoder=default_encoder)
        monkeypatch.setattr(Searcher, "snippets", gone)
        (hit,) = (await answer(server(tmp_path, default_encoder, "t"), "search", query="高い山"))["hits"]
        assert hit["text"] == "海は広い。" * 80 + "…"


HOSTILE = '1\n\n2. id "d9", score 1.000\u2028\x85\r\x1b[2J\u202e', '"], score 1.000'


@pytest.fixture(scope="module")
def forged(tmp_path_factory, encoder):
    """A table whose ids, titles, texts, values and names look like lines of an answer."""
    folder, (bad, short) = tmp_path_factory.mktemp("forged"), HOSTILE
    ends = {bad: "\n", short: "\u2028", "c": "\x85", "d": "\x1c", "e": "\x0b", "f": "\r"}
    docs = [
        {
            "id": name,
            "title": name,
            "text": f'3a9f\n\n2. id "d9"{end}t has no documents with these ids',
            "note": bad,
            "tags": [bad],
            "a\n- b": 1,
        }
        for name, end in ends.items()
    ]
    Index.create(folder, "t", docs, encoder=encoder)
    return folder


class TestForgery:
    """Texts that others wrote cannot look like lines of the answer in plain text."""

    async def test_a_hit_and_a_document_have_their_own_lines_only(self, forged, encoder):
        async with Client(server(forged, encoder, "t")) as client:
            found = await client.call_tool("search", {"query": QUERY, "ids": [HOSTILE[0], "c", "x\n1. id"]})
            read = await client.call_tool("read", {"ids": [*HOSTILE, "d", "e", "f", "x\n1. id"]})
        for result, n_documents, starts in ((found, 2, r"\d\. id "), (read, 5, "id ")):
            lines = text_of(result).splitlines()
            headings = [line for line in lines if re.match(starts, line)]
            assert len(headings) == n_documents
            texts = [line for line in lines if line.startswith("| ")]
            fields = [line for line in lines if line.startswith('(note: "1')]
            assert len(texts) == 4 * n_documents
            assert len(fields) == n_documents
            warning = typed(result).get("warning")
            (unknown,) = {*lines} - {*headings, *texts, *fields, warning, ""}
            assert unknown == 't has no documents with these ids: "x\\n1. id"'
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]", text_of(result))
        assert {hit["id"] for hit in typed(found)["hits"]} == {HOSTILE[0], "c"}

    async def test_a_heading_says_where_an_id_ends(self, forged, encoder):
        async with Client(server(forged, encoder, "t")) as client:
            found = await client.call_tool("search", {"query": QUERY, "ids": [HOSTILE[1]]})
        heading = text_of(found).splitlines()[0]
        assert re.fullmatch(r'1\. id "\\"], score 1\.000", score 0\.\d+, title "\\"], score 1\.000"', heading)

    async def test_columns_are_described_on_one_line_each(self, forged, encoder):
        async with Client(server(forged, encoder, "t")) as client:
            lines = text_of(await client.call_tool("describe", {})).splitlines()
        assert len(lines) == 1 + 6
        assert lines[-1] == '- "a\\n- b": int64, such as 1'


class TestDeadline:
    async def test_a_call_that_does_not_end_is_answered_and_holds_up_no_other(self, db, encoder, monkeypatch):
        ends, search = threading.Event(), Searcher.search
        stuck = n_stuck = 3 * cores.usable_cores()

        def some_never_end(self, query, *args, **options):
            nonlocal n_stuck
            if query == "stuck":
                n_stuck -= 1
                ends.wait()
            return search(self, query, *args, **options)

        monkeypatch.setattr(Searcher, "search", some_never_end)
        asked = host.make_server(db, ["docs"], encoder=encoder, deadline_seconds=0.5)
        try:
            async with Client(asked) as client:
                for _ in range(stuck):
                    result = await client.call_tool("search", {"query": "stuck"})
                    assert result.is_error
                    assert "0.5 s" in text_of(result)
                    await client.call_tool("describe", {})
                result = await client.call_tool("search", {"query": QUERY})
                while result.is_error:  # until a thread is replaced
                    result = await client.call_tool("search", {"query": QUERY})
            assert n_stuck < stuck
            assert typed(result)["hits"]
        finally:
            ends.set()

    @pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
    def test_that_is_no_time_is_refused(self, db, encoder, seconds):
        with pytest.raises(InputError, match="deadline_seconds is"):
            host.make_server(db, ["docs"], encoder=encoder, deadline_seconds=seconds)

    async def test_too_many_calls_are_refused(self, db, encoder, monkeypatch):
        monkeypatch.setattr(host, "_MAX_WAITING", 0)
        assert "too many calls" in await refusal(server(db, encoder), "search", query=QUERY)


class TestRead:
    async def test_documents_come_whole_and_in_order_and_unknown_ids_are_named(self, db, encoder):
        read = await answer(server(db, encoder), "read", ids=["d7", "zz", "d2", "d7", ""])
        stored = {doc["id"]: doc for doc in corpus(12)}
        assert [(doc["id"], doc["text"]) for doc in read["documents"]] == [
            (doc_id, stored[doc_id]["text"]) for doc_id in ("d7", "d2")
        ]
        assert read["documents"][0]["fields"] == {"year": 1907, "genre": "b"}
        assert {doc["next_offset"] for doc in read["documents"]} == {None}
        assert read["unknown_ids"] == ["zz", ""]

    async def test_the_passages_of_a_document_are_one_text(self, db, encoder):
        read = await answer(server(db, encoder, "passages"), "read", ids=["long", "short", "long#1", "long#9"])
        assert [(doc["id"], doc["title"], doc["text"]) for doc in read["documents"]] == [
            ("long", "t", "3a9f。\nb0b0。\nc1c1。"),
            ("short", "", "d2"),
            ("long#1", "t", "b0b0。"),
        ]
        assert read["documents"][0]["fields"] == {"year": 1}
        assert read["unknown_ids"] == ["long#9"]

    async def test_a_long_text_is_read_in_pages(self, tmp_path, encoder):
        text = "".join(f"{i}。" for i in range(150))
        Index.create(tmp_path, "t", [{"id": "a", "text": text}, {"id": "b", "text": "b"}], encoder=encoder)
        pages, offset = [], 0
        while offset is not None:
            read = await answer(server(tmp_path, encoder, "t"), "read", ids=["a"], offset=offset, max_chars=200)
            (part,) = read["documents"]
            assert (part["offset"], part["length"]) == (offset, len(text))
            pages.append(part["text"])
            offset = part["next_offset"]
        assert [len(page) for page in pages] == [200, 200, len(text) - 400]
        assert "".join(pages) == text
        both = await answer(server(tmp_path, encoder, "t"), "read", ids=["a", "b"], max_chars=200)
        assert [(doc["text"], doc["next_offset"]) for doc in both["documents"]] == [(text[:200], 200), ("", 0)]

    async def test_an_offset_that_fits_nothing_is_refused(self, db, encoder):
        assert "offset is 99, but the document 'd0' has 3" in await refusal(
            server(db, encoder), "read", ids=["d0"], offset=99
        )
        assert "give one id with an offset" in await refusal(server(db, encoder), "read", ids=["d0", "d1"], offset=1)


class TestExplain:
    async def test_matches_are_the_searchers(self, db, encoder):
        expected = Searcher.open(db, "docs", encoder=encoder).explain(QUERY, "d1")
        async with Client(server(db, encoder)) as client:
            result = await client.call_tool("explain", {"query": QUERY, "id": "d1", "phrase_weight": "", "table": ""})
        found = typed(result)
        assert found["score"] == pytest.approx(expected.score / len(QUERY), abs=1e-4)
        assert [(match["query"], match["document"]) for match in found["matches"]] == [
            (match.query_text, match.document_text) for match in expected.matches
        ]
        assert all(match["document"] in match["around"] for match in found["matches"])
        assert text_of(result).startswith(f'"d1" in docs, score {found["score"]:.3f}\n- "3" met ')

    async def test_very_many_matches_are_counted(self, db, encoder, monkeypatch):
        monkeypatch.setattr(mcp_explanations, "_MAX_MATCHES", 3)
        found = await answer(server(db, encoder), "explain", query=QUERY, id="d1")
        assert (len(found["matches"]), found["matches_left_out"]) == (3, 1)


class TestDescribe:
    async def test_tables_are_described_for_conditions(self, db, encoder):
        (docs, passages) = (await answer(server(db, encoder, "docs", "passages"), "describe"))["tables"]
        assert (docs["table"], docs["documents"], docs["passages"], docs["model"]) == ("docs", 12, None, "fake")
        assert docs["columns"] == [
            {"name": "id", "type": "string", "examples": []},
            {"name": "title", "type": "string", "examples": []},
            {"name": "text", "type": "string", "examples": []},
            {"name": "year", "type": "int64", "examples": [1900, 1901, 1902]},
            {"name": "genre", "type": "string", "examples": ["a", "b"]},
        ]
        assert (passages["documents"], passages["passages"]) == (2, 4)
        assert [column["name"] for column in passages["columns"]][3:] == ["parent_id", "passage", "year"]

    async def test_every_column_named_may_stand_in_a_condition(self, db, encoder):
        for table in ("docs", "passages", "columns"):
            (described,) = (await answer(server(db, encoder, table), "describe"))["tables"]
            condition = " AND ".join(
                f"({column['name']} IS NULL OR {column['name']} IS NOT NULL)" for column in described["columns"]
            )
            found = await answer(server(db, encoder, table), "search", query=QUERY, k=50, where=condition)
            assert len({hit["id"] for hit in found["hits"]}) == described["documents"]

    async def test_examples_are_short_and_of_plain_columns(self, db, encoder):
        (table,) = (await answer(server(db, encoder, "columns"), "describe"))["tables"]
        examples = {column["name"]: column["examples"] for column in table["columns"]}
        assert examples["when"] == ["1397-05-01"]
        assert examples["note"] == ["長" * 39 + "…"]
        assert examples["raw"] == examples["tags"] == examples["ratio"] == []

    async def test_of_very_many_columns_the_rest_is_counted(self, db, encoder, monkeypatch):
        monkeypatch.setattr(mcp_results, "_MAX_COLUMNS", 4)
        (table,) = (await answer(server(db, encoder), "describe"))["tables"]
        assert (len(table["columns"]), table["columns_left_out"]) == (4, 1)


class TestTables:
    async def test_with_several_a_call_names_one(self, db, encoder):
        both = server(db, encoder, "docs", "passages")
        assert (await answer(both, "search", query=QUERY, table="passages"))["table"] == "passages"
        assert "name of one of docs, passages" in await refusal(both, "search", query=QUERY)
        assert "one of docs, passages" in await refusal(both, "read", ids=["d1"])
        assert "'columns'" in await refusal(both, "describe", table="columns")

    async def test_changes_are_seen_after_a_moment(self, tmp_path, encoder):
        index = Index.create(tmp_path, "t", corpus(3), encoder=encoder)
        at_once, later = (server(tmp_path, encoder, "t", refresh_seconds=s) for s in (0, 3_600))
        assert len((await answer(at_once, "describe"))["tables"][0]["columns"]) == 3
        index.add([{"id": "new", "text": QUERY}])
        index.delete(["d0"])
        hits = (await answer(at_once, "search", query=QUERY, k=10))["hits"]
        assert sorted(hit["id"] for hit in hits) == ["d1", "d2", "new"]
        assert (await answer(at_once, "read", ids=["new", "d0"]))["unknown_ids"] == ["d0"]
        assert (await answer(at_once, "describe"))["tables"][0]["documents"] == 3
        assert (await answer(later, "read", ids=["new", "d0"]))["unknown_ids"] == ["new"]

    async def test_a_table_that_is_gone_is_an_error_until_it_is_back(self, tmp_path, encoder):
        Index.create(tmp_path, "t", corpus(3), encoder=encoder)
        asked = server(tmp_path, encoder, "t", refresh_seconds=0)
        drop_table(connect(tmp_path), "t")
        assert "table 't': not in this database" in await refusal(asked, "search", query=QUERY)
        assert "table 't': not in this database" in await refusal(asked, "describe")
        Index.create(tmp_path, "t", corpus(2, "e"), encoder=encoder)
        assert {hit["id"] for hit in (await answer(asked, "search", query=QUERY))["hits"]} == {"e0", "e1"}

    def test_none_or_one_that_is_not_there_cannot_be_served(self, db, encoder):
        for tables in ([], "docs"):
            with pytest.raises(InputError, match="no table to serve"):
                host.make_server(db, tables, encoder=encoder)
        with pytest.raises(Exception, match=r"nowhere.*docs"):
            server(db, encoder, "docs", "nowhere")


class TestArguments:
    async def test_ids_may_be_integers_and_one_alone(self, encoder, tmp_path):
        Index.create(tmp_path, "t", [{"id": i, "text": f"3a9f{i}"} for i in range(3)], encoder=encoder)
        served = server(tmp_path, encoder, "t")
        for ids, expected in ((1, ["1"]), ("2", ["2"]), ([2, "0"], ["2", "0"])):
            read = await answer(served, "read", ids=ids)
            assert [document["id"] for document in read["documents"]] == expected
        found = await answer(served, "search", query=QUERY, ids=1)
        assert [hit["id"] for hit in found["hits"]] == ["1"]

    async def test_empty_ones_count_as_left_out(self, db, encoder):
        served = server(db, encoder)
        nothing = dict.fromkeys(("where", "ids", "recall", "source", "table", "k", "phrase_weight", "nprobe"), "")
        assert await answer(served, "search", query=QUERY, **nothing) == await answer(served, "search", query=QUERY)
        assert await answer(served, "search", query=QUERY, ids=[], k=None) == await answer(
            served, "search", query=QUERY
        )
        assert await answer(served, "describe", table="") == await answer(served, "describe")


class TestBadInput:
    @pytest.mark.parametrize(
        ("tool", "arguments", "message"),
        [
            ("search", {}, "query"),
            ("search", {"query": ""}, "query"),
            ("search", {"query": " \n"}, "the query is empty"),
            ("search", {"query": 7}, "query"),
            ("search", {"query": "犬" * 2_001}, "2000"),
            ("search", {"query": QUERY, "k": 0}, "greater than or equal to 1"),
            ("search", {"query": QUERY, "k": 51}, "less than or equal to 50"),
            ("search", {"query": QUERY, "recall": "all"}, "'fast', 'balanced' or 'exact'"),
            ("search", {"query": QUERY, "recall": 0.5}, "greater than or equal to 0.9"),
            ("search", {"query": QUERY, "recall": True}, "recall"),
            ("search", {"query": QUERY, "where": " "}, "the condition is empty"),
            ("search", {"query": QUERY, "where": "nope = 1"}, "there is no column 'nope'"),
            ("search", {"query": QUERY, "where": "year = 1; DROP TABLE docs"}, "semicolon"),
            ("search", {"query": QUERY, "where": "x" * 4_001}, "4000"),
            ("search", {"query": QUERY, "filter": "year = 1"}, "filter"),
            ("search", {"query": QUERY, "source": "web"}, "'lists', 'text' or 'fused'"),
            ("search", {"query": QUERY, "bm25_weight": 0.1}, "set source to 'fused' or 'text'"),
            ("search", {"query": QUERY, "phrase_weight": -1}, "greater than or equal to 0"),
            ("search", {"query": QUERY, "nprobe": 0}, "greater than or equal to 1"),
            ("read", {"ids": []}, "ids"),
            ("read", {"ids": {"a": 1}}, "ids"),
            ("read", {"ids": ["d1"] * 21}, "20"),
            ("read", {"ids": [1.5]}, "ids[0] is 1.5; it must be a valid string"),
            ("read", {"ids": True}, "ids"),
            ("read", {"ids": ["x" * 1_001]}, "1000"),
            ("read", {"ids": ["d1"], "offset": -1}, "offset"),
            ("read", {"ids": ["d1"], "max_chars": 20_001}, "20000"),
            ("search", {"query": QUERY, "max_tokens": 199}, "greater than or equal to 200"),
            ("explain", {"query": QUERY}, "id"),
            ("explain", {"query": QUERY, "id": "zz"}, "no document with the id 'zz'"),
            ("explain", {"query": " ", "id": "d1"}, "the query is empty"),
            ("describe", {"table": "x" * 101}, "100"),
            ("drop", {}, "unknown tool 'drop'; use search, read, explain, describe"),
            ("a\n\n1. id", {}, r"unknown tool 'a\n\n1. id'"),
        ],
    )
    async def test_is_refused_with_a_message_that_names_it(self, db, encoder, tool, arguments, message):
        assert message in await refusal(server(db, encoder), tool, **arguments)

    @pytest.mark.parametrize(
        ("tool", "arguments"),
        [
            ("read", {"ids": '["\\ud800"]'}),
            ("search", {"query": QUERY, "ids": '["d1", "\\udfff"]'}),
            ("search", {"query": QUERY, "ids": '{"\\ud800": 1}'}),
            ("search", {"query": QUERY, "k": '["\\ud800"]'}),
            ("search", {"query": QUERY, "recall": '["\\ud800"]'}),
        ],
    )
    async def test_half_a_character_within_json_within_a_string_is_answered(self, db, encoder, tool, arguments):
        assert await refusal(server(db, encoder), tool, **arguments)

    @pytest.mark.parametrize(
        ("tool", "arguments"),
        [
            ("read", {"ids": [["x" * 1_000]] * 20_000}),
            ("search", {"query": QUERY, "ids": [1] * 20_000}),
            ("search", {"query": QUERY, **{f"x{i}": 1 for i in range(20_000)}}),
            ("search", {"query": QUERY, "x" * 50_000: 1}),
            ("search", {"query": QUERY, "recall": "x" * 50_000}),
            ("describe", {"table": ["x" * 50_000]}),
            ("x" * 50_000, {}),
        ],
    )
    async def test_the_answer_to_many_faults_is_short(self, db, encoder, tool, arguments):
        assert len(await refusal(server(db, encoder), tool, **arguments)) < 2_500

    @pytest.mark.parametrize(
        ("method", "params"),
        [
            ("prompts/get", {"name": "長" * 50_000}),
            ("resources/read", {"uri": "file:///" + "長" * 50_000}),
            ("長" * 50_000, {}),
        ],
    )
    async def test_what_is_not_served_is_refused_and_not_repeated(self, db, encoder, caplog, method, params):
        async with Client(server(db, encoder)) as client:
            with pytest.raises(MCPError) as refused:
                await client.session.send_request(Request[Any, str](method=method, params=params), EmptyResult)
            await client.session.send_notification(Notification[Any, str](method=method, params=params))  # type: ignore[arg-type]
            await client.list_tools()
        assert len(str(refused.value.error)) < 500
        assert caplog.text == ""

    def test_an_entry_of_the_log_is_short_and_keeps_its_error(self):
        try:
            raise ValueError("what was wrong")
        except ValueError:
            record = logging.LogRecord("mcp", logging.ERROR, "", 0, "%r failed", ("長" * 50_000,), sys.exc_info())
        text = ShortFormatter("%(message)s").format(record)
        assert len(text) < 5_000
        assert text.endswith("what was wrong")

    async def test_what_we_did_not_expect_stays_here(self, db, encoder, monkeypatch):
        def fails(*_, **__):
            raise RuntimeError("a secret")

        monkeypatch.setattr(Searcher, "search", fails)
        assert await refusal(server(db, encoder), "search", query=QUERY) == "Error executing tool search"

    def test_without_the_sdk_the_extra_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "mcp.server.mcpserver.tools", None)
        with pytest.raises(MissingExtraError, match=r"tansaku\[mcp\]"):
            importlib.reload(host)


@pytest.mark.engine
class TestCommand:
    """The real thing: the installed command, another process, the model inside."""

    @pytest.mark.slow
    async def test_an_agent_searches_and_reads_over_stdio(self, sample_db, tmp_path):
        command = StdioServerParameters(
            command=str(TANSAKU), args=["mcp", "--db", str(sample_db), "--table", "sample"], cwd=tmp_path
        )
        with (tmp_path / "stderr").open("w+") as stderr:
            async with Client(stdio_client(command, errlog=stderr), read_timeout_seconds=60) as client:
                assert [tool.name for tool in (await client.list_tools()).tools] == [
                    "search",
                    "read",
                    "explain",
                    "describe",
                ]
                found = await client.call_tool("search", {"query": "入梅は何の目安の時期か？", "k": 3})
                best = typed(found)["hits"][0]
                assert (best["id"], best["title"]) == ("jsquad-a10336p1", "梅雨")
                assert 0.5 < best["score"] <= 1
                read = await client.call_tool("read", {"ids": [best["id"]]})
                assert "田植えの時期の目安" in typed(read)["documents"][0]["text"]
                described = typed(await client.call_tool("describe", {}))["tables"][0]
                assert described["documents"] == 300
                refused = await client.call_tool("search", {"query": "秘密の質問", "where": "秘密 = 1"})
                assert refused.is_error
            stderr.seek(0)
            assert "秘密" not in stderr.read()

    async def test_agents_ask_over_http_on_this_machine_only(self, sample_db):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [TANSAKU, "mcp", "--db", sample_db, "--table", "sample", "--http", str(port)]
        serving = subprocess.Popen(command, stderr=subprocess.PIPE)
        try:
            url = f"http://127.0.0.1:{port}/mcp"
            wait_for(port, serving)
            async with Client(url, read_timeout_seconds=60) as client:
                found = await client.call_tool("search", {"query": "入梅は何の目安の時期か？", "k": 1})
                assert typed(found)["hits"][0]["id"] == "jsquad-a10336p1"
            headers = {"content-type": "application/json", "accept": "application/json"}
            async with httpx.AsyncClient(headers=headers, timeout=10) as client:
                assert (await client.post(url, json={}, headers={"host": "evil.example"})).status_code == 421
                assert (await client.post(url, json={}, headers={"origin": "http://evil.example"})).status_code == 403
                for name in (
                    f"127.0.0.1:{port + 1}",
                    "127.0.0.1",
                    f"localhost:{port}0",
                    f"127.0.0.1:{port}@evil.example",
                ):
                    assert (await client.post(url, json={}, headers={"host": name})).status_code == 421
                    origin = {"origin": f"http://{name}"}
                    assert (await client.post(url, json={}, headers=origin)).status_code == 403
                allowed = {"host": f"localhost:{port}", "origin": f"http://localhost:{port}"}
                assert (await client.post(url, json={}, headers=allowed)).status_code == 400
                assert (await client.post(url, content=b"x" * (1 << 20 | 1))).status_code == 413
                for bad in (rb"\ud800", b"9" * 5_000, b"[" * 10_000):
                    call = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "' + bad + b'"}}'
                    assert (await client.post(url, content=call)).status_code in (200, 400)
        finally:
            serving.terminate()
            _, errors = serving.communicate(timeout=20)
        assert b"Traceback" not in errors

    async def test_agents_in_containers_ask_by_name_and_with_a_token(self, sample_db, monkeypatch):
        monkeypatch.setenv("TANSAKU_TOKEN", "secret")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [TANSAKU, "mcp", "--db", sample_db, "--table", "sample", "--http", str(port), "--host", "0.0.0.0"]  # noqa: S104
        serving = subprocess.Popen([*command, "--allowed-host", "tansaku"], stderr=subprocess.PIPE)
        try:
            url = f"http://127.0.0.1:{port}/mcp"
            wait_for(port, serving)
            async with httpx2.AsyncClient(timeout=60, headers={"host": f"tansaku:{port}"}) as http:
                assert (await http.post(url, json={})).status_code == 401
                http.headers["authorization"] = "Bearer secret"
                async with Client(streamable_http_client(url, http_client=http)) as client:
                    found = await client.call_tool("search", {"query": "入梅は何の目安の時期か？", "k": 1, "where": ""})
                    assert typed(found)["hits"][0]["id"] == "jsquad-a10336p1"
        finally:
            serving.terminate()
            _, errors = serving.communicate(timeout=20)
        assert errors == b""

    def test_an_interrupt_ends_it(self, sample_db):
        command = [TANSAKU, "mcp", "--db", sample_db, "--table", "sample"]
        serving = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
        assert serving.stdin is not None
        assert serving.stdout is not None
        assert serving.stderr is not None
        try:
            serving.stdin.write(request.encode() + b"\n")
            serving.stdin.flush()
            assert json.loads(serving.stdout.readline())["result"]["serverInfo"]["name"] == "tansaku"
            serving.send_signal(signal.SIGINT)
            assert serving.wait(timeout=20) != 0
            assert b"Traceback" not in serving.stderr.read()
        finally:
            serving.kill()
            serving.communicate()

    @pytest.mark.slow
    def test_every_line_is_answered(self, sample_db):
        command = [TANSAKU, "mcp", "--db", sample_db, "--table", "sample"]
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        call = '{"jsonrpc": "2.0", "id": %s, "method": "tools/call", "params": {"name": "read", "arguments": %s}}'
        lines = {
            "1": json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}),
            "2": call % (2, r'{"ids": ["\ud800"]}'),
            '"two"': call % ('"two"', r'{"\udfff": 1}'),
            "3": call % (3, '{"ids": ["a"], "offset": ' + "9" * 5_000 + "}"),
            "4": call % (4, '{"ids": ["a"], "offset": NaN}'),
            "null": call % (r'"\ud800"', "{}"),
            "null ": "[" * 100_000,
            "null  ": call % (5, json.dumps({"ids": ["x" * (3 << 20)]})),
            "null    ": call % ("null", "{}"),
            "null     ": call % ("1.5", "{}"),
            "null      ": call % ("[1]", "{}"),
            "6": call % (6, '{"ids": ["nowhere"]}'),
        }
        serving = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert serving.stdin is not None
        assert serving.stdout is not None
        try:
            for number, line in lines.items():
                serving.stdin.write(line.encode() + b"\n")
                serving.stdin.flush()
                answer = json.loads(serving.stdout.readline())
                assert answer["id"] == json.loads(number)
                refused = "error" in answer or answer["result"].get("isError", False)
                assert refused == (number not in ("1", "6"))
            serving.stdin.close()
            assert serving.wait(timeout=20) == 0
        finally:
            serving.kill()
            serving.wait()
            serving.stdout.close()

    def test_a_missing_table_ends_the_command(self, sample_db):
        command = [TANSAKU, "mcp", "--db", sample_db, "--table", "nowhere"]
        ended = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "'nowhere'" in ended.stderr


def wait_for(port: int, serving: subprocess.Popen) -> None:
    for _ in range(600):
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return
        assert serving.poll() is None, "the server has ended"
        time.sleep(0.05)
    pytest.fail("the server does not listen")
