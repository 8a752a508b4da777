"""Draws files of mutated JSONL, TSV and CSV lines."""

from __future__ import annotations

import json
import math
import random
import unicodedata
from typing import Any

LINES_PER_FILE = 1000
HEADER = ["id", "title", "text", "note"]
ODD_TEXTS = [
    "",
    " ",
    "\u3000",
    "が",
    "か\u3099",
    "\ud800",
    "a\udc00b",
    "\x00",
    "\x1c",
    "\x85",
    "\u2028",
    "\ufeff",
    "😀" * 50,
    "長" * 5000,
]
ODD_NUMBERS = [
    0,
    -1,
    2**31,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64,
    -(2**63) - 1,
    10**400,
    0.5,
    -0.0,
    1e308,
    math.nan,
    math.inf,
]
ODD_VALUES = [
    None, True, False, [], {}, [[]], [{}], [None], [1, 2], [0.5], [2**53 + 1], ["x"], [1, None], [1, "x"], [True, 1],
    {"a": None}, {"a": {}}, {"a": 1}, {"a": 0.5}, {"a": 2**53 + 1}, {"a": "x"}, {"b": [1, "x"]}, {"a": [{"b": 1}]},
    {"a.b": 1}, {"": 1}, {"\x00": 1},
]  # fmt: skip
ODD_NAMES = [
    "token_count", "write_id", "residuals", "title", "_rowid", "_rowaddr", "_distance", "parent_id", "_id", "ID",
    "Text", "a.b", "", " ", "名", "a b", "a`b", 'a"b', "a'b", "a\\b", "\ud800", "\x00", "a\nb", "n" * 300,
    "year", "tags", "about",
]  # fmt: skip
ODD_BYTES = [
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xc3",
    b"\r",
    b"\n",
    b"\r\n",
    b"\xef\xbb\xbf",
    b'"',
    b"\\",
    b"{",
    b"[",
    b",",
    b"\t",
    b"\xe3\x80\x80",
]
BLANK = [b"", b" ", b"\t", b"\r", b"\xe3\x80\x80", b"\x0b", b"\xc2\x85", b" \t "]
_DEEP = b'{"id": "deep", "text": "x", "about": ' + b"[" * 20_000 + b"]" * 20_000 + b"}"


class Fuzz:
    """Draws mutated lines."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self._number = 0
        self._may_break_quotes = True
        self._ids: list[str] = ["か\u3099"]

    def file(self, kind: str) -> bytes:
        """The bytes of a file of about `LINES_PER_FILE` lines."""
        make = {"jsonl": self._json_line, "tsv": self._tsv_line, "csv": self._csv_line}[kind]
        self._may_break_quotes = kind != "csv" or self.draw.random() < 0.2  # such a CSV file is refused as a whole
        lines = [make() for _ in range(LINES_PER_FILE)]
        start = b"\xef\xbb\xbf" if self.draw.random() < 0.3 else b""
        if kind != "jsonl":
            lines.insert(0, {"tsv": b"\t", "csv": b","}[kind].join(name.encode() for name in HEADER))
        end = b"\r\n" if self.draw.random() < 0.3 else b"\n"
        return start + end.join(lines) + (end if self.draw.random() < 0.7 else b"")

    def _document(self) -> dict[str, Any]:
        self._number += 1
        record: dict[str, Any] = {"id": f"n{self._number}", "text": f"文書{self._number}の本文、海と山の話。"}
        self._ids.append(record["id"])
        kind = self._number % 4
        if kind:
            record |= {"title": f"題{self._number}", "year": 1900 + self._number % 100}
        if kind > 1:
            record |= {"tags": ["山", "海"][: self._number % 3], "about": {"a": self._number, "b": None}}
        return record

    def _json_line(self) -> bytes:
        draw, record = self.draw, self._document()
        plain = draw.random()
        if plain < 0.5:
            return json.dumps(record, ensure_ascii=draw.random() < 0.5).encode()
        if plain < 0.55:
            return draw.choice(BLANK)
        if plain < 0.552:
            return _DEEP
        for _ in range(draw.randint(1, 3)):
            self._mutate_record(record)
        if draw.random() < 0.1:
            return json.dumps(draw.choice([[record], "x", 1, None, list(record)])).encode()
        line = json.dumps(record, ensure_ascii=draw.random() < 0.7).encode("utf-8", "surrogatepass")
        return self._mutate_bytes(line) if draw.random() < 0.3 else line

    def _mutate_record(self, record: dict[str, Any]) -> None:
        draw = self.draw
        name = draw.choice(["id", "text", "title", "year", "tags", "about", "note", draw.choice(ODD_NAMES)])
        how = draw.random()
        if how < 0.15:
            record.pop(name, None)
        elif how < 0.3:
            record["id"] = draw.choice([*self._ids[-2000:], unicodedata.normalize("NFC", self._ids[0]), self._number])
        elif how < 0.5:
            record[name] = draw.choice(ODD_TEXTS) + draw.choice(["", "x"])
        elif how < 0.7:
            record[name] = draw.choice(ODD_NUMBERS)
        elif how < 0.95:
            record[name] = draw.choice(ODD_VALUES)
        else:
            value: Any = 1
            for _ in range(draw.randint(1, 30)):
                value = draw.choice([[value], {"a": value}])
            # In a field of its own: where [None] meets objects with lists of lists, LanceDB 0.40 cannot read it again.
            record["deep"] = value

    def _tsv_line(self) -> bytes:
        return self._row(b"\t", quoted=False)

    def _csv_line(self) -> bytes:
        return self._row(b",", quoted=True)

    def _row(self, separator: bytes, *, quoted: bool) -> bytes:
        draw, record = self.draw, self._document()
        if draw.random() < 0.05:
            return draw.choice(BLANK)
        values = [record["id"], record.get("title", ""), record["text"], f"注{self._number}"]
        for _ in range(draw.choice([0, 0, 1, 2])):
            position = draw.randrange(len(values))
            values[position] = draw.choice(
                [*ODD_TEXTS, *map(str, ODD_NUMBERS), *self._ids[-500:], "a,b", "a\tb", '"q"']
            )
        if draw.random() < 0.1:
            values = values[: draw.randint(0, 3)] if draw.random() < 0.5 else [*values, "more"]
        cells = [value.encode("utf-8", "surrogatepass") for value in values]
        if quoted:
            cells = [
                b'"' + c.replace(b'"', b'""') + b'"' if b'"' in c or b"," in c or draw.random() < 0.1 else c
                for c in cells
            ]
        line = separator.join(cells)
        return self._mutate_bytes(line) if draw.random() < 0.2 else line

    def _mutate_bytes(self, line: bytes) -> bytes:
        draw, data = self.draw, bytearray(line)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(data) + 1)
            how = draw.randrange(5)
            if how == 0 and at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            elif how == 1:
                del data[at:]
            elif how == 2:
                del data[at : at + draw.randint(1, 5)]
            elif how == 3:
                data[at:at] = draw.choice(ODD_BYTES)
            else:
                data[at:at] = data[at : at + draw.randint(1, 20)]
        return line if b'"' in bytes(data) + line and not self._may_break_quotes else bytes(data)
