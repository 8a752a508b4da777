"""Hostile inputs, drawn with a seed: conditions, HTTP bodies and framings, and MCP calls."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

COLUMNS = ("id", "title", "text", "year", "genre", "tags", "nowhere", "年", '"year"', '"a b"')
FUNCTIONS = ("lower", "upper", "length", "array_contains", "array_has", "repeat", "lpad", "concat", "replace")
FUNCTIONS += ("array_repeat", "CAST", "TRY_CAST", "decode", "regexp_match", "now", "version", "read_csv", "range")
STRINGS = ("", "寺", "a'b", "%", "_" * 200, "\x00", "\u2028", "😀", "𠮷" * 50, "x" * 3_000, "' OR '1'='1", "--", "/*")
HALF = "\ud800"
_METHODS = ("tools/list", "initialize", "prompts/get", "prompts/list", "resources/read", "resources/list")
_METHODS += ("completion/complete", "logging/setLevel", "ping", "x")


@dataclass(frozen=True)
class Input:
    """A request: JSON for a path, or all bytes of a connection."""

    kind: str
    path: str
    content: bytes
    raw: bool = False


def draw(seed: int, number: int) -> Input:
    """Input ``number`` of a seed; each can be drawn alone."""
    rng = random.Random(seed << 32 | number)
    kinds: tuple[Callable[[random.Random], Input], ...] = (condition, condition, body, framing, call, call)
    return kinds[number % len(kinds)](rng)


def condition(rng: random.Random) -> Input:
    where = rng.choice((grammatical, grammatical, nested, costly))(rng)
    if rng.random() < 0.2:  # one sign of it is another
        at = rng.randrange(len(where) + 1)
        where = where[:at] + rng.choice("()'\"$?;,=<>.-+*/[]{}\x00\u3000x1\n") + where[at + 1 :]
    return Input("conditions", "/search", _json({"query": "寺", "k": 3, "where": where}))


def grammatical(rng: random.Random, depth: int = 0) -> str:
    """A condition made by the rules of the language, with any names, functions and values."""
    if depth < rng.randrange(8):
        parts = [grammatical(rng, depth + 1) for _ in range(rng.randint(1, 3))]
        joined = rng.choice((" AND ", " or ", " AND NOT ")).join(parts)
        return rng.choice(("({})", "NOT ({})", "{}")).format(joined)
    column, value = rng.choice(COLUMNS), _operand(rng)
    return rng.choice(
        (
            f"{column} {rng.choice(('=', '<', '>=', '!=', '<>', '=='))} {value}",
            f"{column} IN ({', '.join(_operand(rng) for _ in range(rng.choice((1, 3, 200))))})",
            f"{column} NOT BETWEEN {value} AND {_operand(rng)}",
            f"{column} {rng.choice(('LIKE', 'ILIKE', 'not like'))} {_string(rng)}",
            f"{column} IS {rng.choice(('NULL', 'NOT NULL', 'TRUE', 'false', 'x'))}",
            f"{rng.choice(FUNCTIONS)}({column}, {value}) = {_operand(rng)}",
            f"{value} = {_operand(rng)}",
            column,
        )
    )


def nested(rng: random.Random) -> str:
    """One sign or function around itself, as parsers without a limit do not survive."""
    opening, closing = rng.choice(
        (
            ("(", ")"),
            ("NOT ", ""),
            ("- ", ""),
            ("CAST(", " AS INT)"),
            ("TRY_CAST(", ""),
            ("lower(", ")"),
            ("CASE WHEN ", " THEN 1 END"),
            ("[", "]"),
            ('"n"+', ""),
            ("POSITION(", " IN 'a')"),
            ("ROW(", ")"),
            ("OVERLAY(", ")"),
            ("a.", ""),
            ("EXISTS (SELECT ", ")"),
        )
    )
    times = rng.choice((3, 24, 45, 100, 790, 5_000))
    return opening * times + rng.choice(("1", "year", "year = 1", "'a'")) + closing * rng.choice((times, times - 1))


def costly(rng: random.Random) -> str:
    number = rng.choice((10**9, 10**11, 2**31, 2**63, 10**400))
    return rng.choice(
        (
            f"array_length(array_repeat(text,{number}))>1",
            f"length(repeat('x',{number}))>0",
            f"length(lpad('x',{number},'y'))>0",
            f"year < {number}",
            f"1/0=1 OR year = {number}",
            "id = $1",
            "id = ?",
            "CAST(id AS INT)>0",
            "decode('zz','hex') IS NULL",
            " AND ".join(["year = 1"] * rng.choice((900, 1_100))),
            " OR ".join(["text LIKE '%a%b%c%'"] * rng.choice((100, 4_000))),
            f"year IN ({','.join(map(str, range(rng.choice((1_000, 60_000)))))})",
            "text LIKE '" + "%_" * rng.choice((10, 2_000)) + "z'",
            f"year = 1e{rng.choice((5, 999, 99_999))}",
            f"year = {'9' * rng.choice((76, 77, 9_000))}",
            rng.choice(("year IN (1{})", "year = 1{}")).format(rng.choice((",1", " or 1", "(", "a.")) * 240_000),
        )
    )


def body(rng: random.Random) -> Input:
    path = rng.choice(
        ("/search", "/v1/rerank", "/v2/rerank", "/rerank", "/embed_all", "/v1/multi-vector", "/weaviate/rerank")
    )
    fields = [
        "query",
        "k",
        "ids",
        "documents",
        "texts",
        "inputs",
        "input",
        "where",
        "top_n",
        "return_documents",
        "index",
    ]
    given = {name: _anything(rng) for name in rng.sample(fields, rng.randint(0, 5))}
    if rng.random() < 0.7:
        given |= {"query": "寺", "documents": ["金閣寺", "海"], "texts": ["金閣寺"], "inputs": ["寺"], "input": ["寺"]}
        given[rng.choice(fields)] = _anything(rng)
    content = _json(given)
    damage = rng.random()
    if damage < 0.1:
        content = content[: rng.randrange(len(content) + 1)]
    elif damage < 0.2:
        at = rng.randrange(len(content) + 1)
        content = content[:at] + bytes(rng.randrange(256) for _ in range(rng.randint(1, 4))) + content[at:]
    elif damage < 0.25:
        content = rng.choice((b"[", b'{"a":', b'"\\', b"1e9", b"[{},")) * rng.choice((10, 10_000, 60_000))
    elif damage < 0.26:  # as long as a body may be
        item = rng.choice(('""', '"a"', "{}", "[]", "1", '{"text":1}', '"\\""', '{"a":'))
        content = f'{{"query":"a","{rng.choice(fields)}":[{f"{item}," * (8_380_000 // (len(item) + 1))}1]}}'.encode()
    return Input("bodies", path, content)


def framing(rng: random.Random) -> Input:
    content = _json({"query": "寺", "k": 1})
    length = rng.choice(
        (str(len(content)), "0", "-1", "1e3", "99999999999999999999", str(len(content) + 5), "+1", "1, 2")
    )
    chunk = rng.choice(
        (f"{len(content):x}", "FFFFFFFFFFFFFFFF", "-1", "0x4", "zz", f"{len(content):x};a=" + "b" * 9_000)
    )
    framed = rng.choice(
        (
            [f"Content-Length: {length}"],
            [f"Content-Length: {length}", f"Content-Length: {len(content)}"],
            [f"Content-Length: {length}", "Transfer-Encoding: chunked"],
            ["Transfer-Encoding: chunked"],
            [f"Transfer-Encoding: {rng.choice(('gzip, chunked', 'chunked, chunked', ' chunked', 'x'))}"],
            [],
        )
    )
    more = rng.choice(
        (
            [],
            ["X: " + "a" * 70_000],
            [f"X{i}: 1" for i in range(300)],
            ["X y: 1"],
            ["\x00: 1"],
            ["Expect: 100-continue"],
        )
    )
    method = rng.choice(("POST", "GET", "PUT", "OPTIONS", "CONNECT", "P\x00ST", "post"))
    target = rng.choice(
        ("/search", "/health", "*", "//search", "/../etc/passwd", "/%00", "/search?" + "a=b&" * 9_000, "http://x/")
    )
    version = rng.choice(("1.1", "1.1", "1.0", "2.0", "9"))
    end = rng.choice(("\r\n", "\r\n", "\r\n", "\n", "\r"))
    head = end.join(
        [f"{method} {target} HTTP/{version}", rng.choice(("Host: t", "Host: a, b", "Hos")), *framed, *more, "", ""]
    )
    chunked = f"{chunk}{end}".encode() + content + end.encode() + b"0" + end.encode() * 2
    data = head.encode("utf-8", "surrogatepass") + rng.choice((content, chunked, b"", content * 3))
    if rng.random() < 0.2:
        data = data[: rng.randrange(len(data) + 1)]
    return Input("framings", "", data, raw=True)


def call(rng: random.Random) -> Input:
    """A message for MCP."""
    tool = rng.choice(("search", "search", "search", "read", "describe", "drop", "", _long(rng)))
    names = ["query", "k", "where", "ids", "recall", "source", "table", "offset", "max_chars", "nprobe", "filter"]
    arguments: Any = {name: _anything(rng) for name in rng.sample(names, rng.randint(0, 4))}
    if rng.random() < 0.7:
        good = {"search": {"query": "寺", "k": 2}, "read": {"ids": ["kinkaku"]}}.get(tool, {})
        arguments = good | {rng.choice(names): _anything(rng)}
        if tool == "search" and rng.random() < 0.3:
            arguments["where"] = rng.choice((grammatical, nested, costly))(rng)
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": rng.choice((1, "a", HALF, 2**70))}
    message |= {
        "method": rng.choice(("tools/call",) * 8 + _METHODS),
        "params": {"name": tool, "arguments": arguments},
    }
    if message["method"] in _METHODS:
        message["params"] |= {rng.choice(("name", "uri", "cursor", "level", "ref")): rng.choice((_long(rng), "a", 1))}
        message["method"] = rng.choice((message["method"],) * 5 + (_long(rng),))
    if rng.random() < 0.1:
        message[rng.choice(("id", "method", "params", "jsonrpc"))] = _anything(rng)
    content = _json(message)
    if rng.random() < 0.1:
        content = content[: rng.randrange(len(content) + 1)]
    return Input("MCP", "/mcp", content)


def _operand(rng: random.Random) -> str:
    return rng.choice(
        (
            _string(rng),
            str(rng.choice((0, -1, 1950, 2**63, 0.5, 1e308))),
            "NULL",
            "true",
            f"DATE '{rng.choice(('1950-01-01', '9999-99-99', 'x'))}'",
            rng.choice(COLUMNS),
            f"{rng.choice(FUNCTIONS)}({rng.choice(COLUMNS)})",
            f"[{_string(rng)}, 1]",
            "$x",
        )
    )


def _long(rng: random.Random) -> str:
    """A name that no answer may repeat in full: the text of a log may not, either."""
    return rng.choice(("長", "a/", "\n# ", "%s{x}", "file:///", "\x1b[2J")) * rng.choice((30, 3_000, 40_000))


def _string(rng: random.Random) -> str:
    return "'" + rng.choice(STRINGS).replace("'", rng.choice(("''", "''", "'"))) + "'"


def _anything(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(10)
    if kind < 3 and depth < 4:
        items = [_anything(rng, depth + 1) for _ in range(rng.choice((0, 1, 3)))]
        return items if kind else {rng.choice(STRINGS)[:50]: item for item in items}
    if kind == 3 and not depth:
        return [rng.choice((1, None, "a", {}, []))] * rng.choice((1_000, 20_000))
    return rng.choice(
        (None, True, 0, -1, 1, 3, 2**31, 2**63, 10**30, 0.5, float("nan"), 1e308, HALF, "寺", "docs", *STRINGS)
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=HALF in json.dumps(value, ensure_ascii=False)).encode()
