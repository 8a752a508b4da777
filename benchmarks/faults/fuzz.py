"""Fuzzed files: what was read is counted from the raw bytes and compared with the table and the rejects."""

from __future__ import annotations

import argparse
import collections
import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lancedb

from tansaku import (
    Encoder,
    Index,
    Rejects,
    Source,
    SourceError,
)

from .mutations import HEADER, Fuzz
from .support import TABLE, character_encoder

UNSEEN = "\0\ufeff\u200b\u200c\u200d\u2060"  # as the documentation of own files lists them


def fuzz(folder: Path, options: argparse.Namespace) -> list[str]:
    fuzzer = Fuzz(options.seed)
    encoder = character_encoder()
    failures: list[str] = []
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    number = 0
    while sum(count["lines"] for count in counts.values()) < options.lines:
        kind = ("jsonl", "jsonl", "jsonl", "tsv", "csv")[number % 5]
        place = folder / str(number)
        place.mkdir()
        known: dict[str, Any] = {}
        for call in ("create", "upsert"):
            path = place / f"{call}.{kind}"
            path.write_bytes(fuzzer.file(kind))
            counts[kind]["lines"] += path.read_bytes().count(b"\n") + 1
            try:
                failures += [
                    f"seed {options.seed}, {path.name} {number}: {f}"
                    for f in fuzz_file(path, call, known, encoder, counts[kind])
                ]
            except Exception as error:
                failures.append(f"seed {options.seed}, {path.name} {number}: {type(error).__name__}: {error}")
            if not known:
                break
        shutil.rmtree(place)
        number += 1
    print("\nfuzz")
    names = ("files", "lines", "records", "accepted", "rejected", "refused files")
    print("  " + f"{'':<7}" + "".join(f"{name:>15}" for name in names))
    for kind, count in counts.items():
        print("  " + f"{kind:<7}" + "".join(f"{count[name]:>15,}" for name in names))
    return failures


def fuzz_file(
    path: Path, call: str, known: dict[str, Any], encoder: Encoder, counts: collections.Counter
) -> Iterator[str]:
    """Index one file and yield what is wrong; ``known`` maps ids to what the table holds, and is brought up to date."""
    kind = path.suffix[1:]
    expected, all_read = records_by_line(kind, path.read_bytes())
    db, rejects_path = path.parent / "db", path.parent / f"{call}.rejects"
    counts["files"] += 1
    with Rejects(rejects_path) as rejects:
        try:
            if call == "create":
                Index.create(db, TABLE, Source(path), encoder=encoder, rejects=rejects)
            else:
                Index.open(db, TABLE, encoder=encoder).upsert(Source(path), rejects=rejects)
        except SourceError as error:
            counts["refused files"] += 1
            if all_read or not str(error).startswith(f"{path}:"):
                yield f"refused: {error}"
            return
    lines = [] if not rejects_path.exists() else rejects_path.read_text(encoding="utf-8").split("\n")[:-1]
    noted = [json.loads(line) for line in lines]
    places = {note["place"]: note["reason"] for note in noted}
    accepted = {n: record for n, record in expected.items() if f"{path}:{n}" not in places}
    counts["records"] += len(expected)
    counts["accepted"] += len(accepted)
    counts["rejected"] += len(places)
    if not all_read:
        yield "broken CSV was not refused"
    if not len(rejects) == len(noted) == len(places):
        yield f"{len(rejects)} rejects, {len(noted)} in the file, {len(places)} places"
    for place, reason in places.items():
        if int(place.removeprefix(f"{path}:")) not in expected or not reason:
            yield f"no such record, or no reason: {place}: {reason!r}"
    for n, record in expected.items():
        place = f"{path}:{n}"
        if isinstance(record, dict) and set(record) == {"id", "text"} and place in places:
            usable = all(isinstance(v, str) and v.strip() and not _has_half(v) for v in record.values())
            usable = usable and "\0" not in record["id"]
            if usable and "occurs twice" not in places[place] and "Unicode form" not in places[place]:
                yield f"rejected for nothing: {place}: {places[place]}"
    for n, record in accepted.items():
        if not isinstance(record, dict):
            yield f"line {n} cannot be read, but was not rejected"
            continue
        given = str(record["_id"] if "_id" in record else record["id"])
        known[given.removeprefix("\ufeff") or given] = record
    rows = {row["id"]: row for row in lancedb.connect(str(db)).open_table(TABLE).to_arrow().to_pylist()}
    if set(rows) != set(known):
        yield f"{len(known)} documents were accepted, {len(rows)} are in the table"
    for doc_id in rows.keys() & known.keys():
        record, row = known[doc_id], rows[doc_id]
        if (row["text"], row["title"]) != (record["text"], record.get("title") or ""):
            yield f"{doc_id!r}: the text or title is another"
        for name in set(record) - {"id", "_id", "text", "title"}:
            if not same(record[name], row[name]):
                yield f"{doc_id!r}: field {name!r} is {row[name]!r:.200}, not {record[name]!r:.200}"


def records_by_line(kind: str, data: bytes) -> tuple[dict[int, Any], bool]:
    """By line number what each record holds, None for one that cannot be read; and whether all lines were read.

    Written anew from the documentation of `Source`, with none of its code.
    """
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not lines[-1]:
        lines.pop()
    found: dict[int, Any] = {}
    if kind == "csv":
        return _csv_records(lines)
    for number, line in enumerate(lines, 1):
        if kind == "tsv" and number == 1:
            continue
        try:
            text = line.removesuffix(b"\r").decode().removeprefix("\ufeff")
        except UnicodeDecodeError:
            found[number] = None
            continue
        if kind == "tsv":
            cells = text.split("\t")
            if any(cells := _cells(cells)):  # rows of empty fields are left out
                found[number] = dict(zip(HEADER, cells, strict=True)) if len(cells) == len(HEADER) else None
        elif text.strip():
            try:
                found[number] = _named(json.loads(text))
            except (ValueError, RecursionError):
                found[number] = None
    return found, True


def _named(record: Any) -> Any:
    """A record with names as they are read: without spaces and unseen characters at their ends."""
    if not isinstance(record, dict):
        return record
    named = {name.strip(UNSEEN).strip().strip(UNSEEN): value for name, value in record.items()}
    return named if len(named) == len(record) else None


def _csv_records(lines: list[bytes]) -> tuple[dict[int, Any], bool]:
    texts = [line.decode("utf-8", "backslashreplace").removeprefix("\ufeff") + "\n" for line in lines]
    reader = csv.reader(iter(texts), strict=True)
    found: dict[int, Any] = {}
    while True:
        first = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            found.pop(1, None)  # the header
            return found, True
        except csv.Error:
            if reader.line_num > first:
                return found, False
            found[first] = None
            continue
        bad = any(_is_bad(line) for line in lines[first - 1 : reader.line_num])
        row = _cells(row)
        if bad or (any(row) and len(row) != len(HEADER)):
            found[first] = None
        elif any(row):  # rows of empty fields are left out
            found[first] = dict(zip(HEADER, row, strict=True))


def _cells(row: list[str]) -> list[str]:
    """The cells of a row as they are read: without null characters, and without empty ones beyond the header."""
    cells = [cell.replace("\0", "") for cell in row]
    while len(cells) > len(HEADER) and not cells[-1]:
        cells.pop()
    return cells


def _is_bad(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return True
    return False


def same(value: Any, stored: Any) -> bool:
    """Whether a column's value is what was given: structs gain nulls, integers may be floats of the same value."""
    if isinstance(value, dict):
        if not isinstance(stored, dict) or not set(value) <= set(stored):
            return False
        return all(same(value.get(name), item) for name, item in stored.items())
    if isinstance(value, list):
        return isinstance(stored, list) and len(value) == len(stored) and all(map(same, value, stored))
    if isinstance(value, (str, bool)) or value is None or isinstance(stored, (str, bool)) or stored is None:
        return type(value) is type(stored) and value == stored
    return value == stored or (value != value and stored != stored)


def _has_half(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
