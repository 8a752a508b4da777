"""Sources of records, whole and damaged."""

from __future__ import annotations

import contextlib
import csv
import gc
import gzip
import io
import json
import os
import struct
import sys
import tempfile
import tracemalloc
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lancedb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tansaku import InputError, SourceError
from tansaku.indexer.read import arrow_formats, line_formats
from tansaku.indexer.read import packed as packed_files
from tansaku.indexer.read.documents import DocumentReader
from tansaku.indexer.read.json_values import read_json
from tansaku.indexer.read.line_formats import read_csv, read_jsonl, read_tsv
from tansaku.indexer.read.sources import BadRecord, Source, lines_of

RECORDS = [
    {"id": "d1", "title": "金閣寺", "text": "京都にある、\\金箔の寺。"},
    {"id": "d2", "title": "", "text": '"鹿苑寺"とも言う'},
    {"id": "d3", "title": "縦書き\u2028改行", "text": "文字\u0085の中の\x0b区切り"},
]
GOOD_LINE = b'{"id": "d", "text": "x"}\n'
GOOD = {"id": "d", "text": "x"}
BOM = b"\xef\xbb\xbf"
NOT_UTF8 = pa.array([b"a", b"\xe5\xaf\xba \xff", None], pa.binary()).view(pa.string())


def jsonl(records, newline="\n"):
    return "".join(json.dumps(r, ensure_ascii=False) + newline for r in records).encode()


def rows_of(records):
    return [list(records[0]), *([r[name] for name in records[0]] for r in records)]


def tsv(records, newline="\n"):
    return "".join("\t".join(row) + newline for row in rows_of(records)).encode()


def csv_(records, newline="\n"):
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=newline).writerows(rows_of(records))
    return out.getvalue().encode()


LINES = {".jsonl": jsonl, ".csv": csv_, ".tsv": tsv}
PACK = {"": bytes, ".gz": gzip.compress, ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True)}
PACKED = [kind + pack for kind in LINES for pack in PACK]
ARROW = [".arrow", ".feather", ".ipc"]
FILES = [*PACKED, ".parquet", *ARROW]
ALL = [*FILES, ".lance"]


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def stream_of(table):
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return out.getvalue()


def write_table(path, table):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=700)
    elif path.suffix == ".arrow":
        path.write_bytes(stream_of(table))
    elif path.suffix == ".lance":
        lancedb.connect(path.parent).create_table(path.stem, table, mode="overwrite")
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return path


def write_records(folder, kind, records, name="docs"):
    if kind not in PACKED:
        return write_table(folder / f"{name}{kind}", pa.Table.from_pylist(records))
    lines, _, pack = kind[1:].partition(".")
    content = LINES[f".{lines}"](records)
    return write(folder, f"{name}{kind}", PACK[f".{pack}" if pack else ""](content))


def records_of(path, **options):
    return [record for _, record in Source(path, **options)]


def bad_of(path):
    """Place after the file's name, reason and raw text of the bad records."""
    pairs = list(Source(path))
    return [(p.removeprefix(str(path)), r.reason, r.raw) for p, r in pairs if isinstance(r, BadRecord)]


def error_of(path, **options):
    """The message of the SourceError that reading ``path`` ends in."""
    with pytest.raises(SourceError) as caught:
        list(Source(path, **options))
    return str(caught.value)


def of_all(*kinds):
    return pytest.mark.parametrize("kind", kinds)


def open_files() -> list[str]:
    """Paths of all files that this process has open; sockets and pipes, which others' threads may close, are none."""
    gc.collect(1)  # what a test has made is young; the old generation is large, and slow to look through
    targets = (os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())
    return sorted(target for target in targets if not target.startswith("/proc/"))


class TestReading:
    @of_all(*ALL)
    def test_every_kind_gives_the_same_records(self, tmp_path, kind):
        assert records_of(write_records(tmp_path, kind, RECORDS)) == RECORDS

    @of_all(*ALL)
    def test_a_source_can_be_read_again_and_again(self, tmp_path, kind):
        source = Source(write_records(tmp_path, kind, RECORDS))
        assert list(source) == list(source)
        next(iter(source))  # one reading left half done does not disturb the next
        assert [record for _, record in source] == RECORDS
        assert [a for a, _ in zip(source, source, strict=True)] == list(source)

    @pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts the open files")
    @of_all(*FILES)
    def test_files_are_closed_after_reading_whole_or_in_part(self, tmp_path, kind):
        path = write_records(tmp_path, kind, RECORDS)
        source = Source(path)
        list(source)
        before = open_files()
        with path.open():
            assert open_files() == sorted([*before, os.path.realpath(path)])
        list(source)
        next(iter(source))
        assert open_files() == before

    def test_the_path_may_be_a_str(self, tmp_path):
        assert records_of(str(write_records(tmp_path, ".jsonl", RECORDS))) == RECORDS

    @pytest.mark.parametrize("name", ["docs.v1.2.jsonl", "docs.JSONL", "docs.csv.jsonl"])
    def test_the_last_suffix_says_the_kind(self, tmp_path, name):
        assert records_of(write(tmp_path, name, GOOD_LINE)) == [GOOD]
        assert records_of(write(tmp_path, f"{name}.gz", gzip.compress(GOOD_LINE))) == [GOOD]

    @of_all(*PACKED)
    def test_a_format_outweighs_the_suffix_but_not_the_packing(self, tmp_path, kind):
        path = write_records(tmp_path, kind, RECORDS)
        other = path.rename(tmp_path / f"docs.txt{path.suffix if path.suffix in PACK else ''}")
        assert records_of(other, format=kind.split(".")[1]) == RECORDS

    @pytest.mark.parametrize(("kind", "name"), [(".parquet", "parquet"), (".arrow", "arrow"), (".ipc", "arrow")])
    def test_a_format_outweighs_the_suffix_of_an_arrow_file(self, tmp_path, kind, name):
        path = write_records(tmp_path, kind, RECORDS).rename(tmp_path / "docs.jsonl")
        assert records_of(path, format=name) == RECORDS

    @of_all(*PACKED)
    def test_a_byte_order_mark_is_no_content(self, tmp_path, kind):
        lines, _, pack = kind[1:].partition(".")
        content = PACK[f".{pack}" if pack else ""](BOM + LINES[f".{lines}"](RECORDS))
        assert records_of(write(tmp_path, f"docs{kind}", content)) == RECORDS

    @of_all(*LINES)
    def test_windows_line_ends_are_line_ends(self, tmp_path, kind):
        assert records_of(write(tmp_path, f"docs{kind}", LINES[kind](RECORDS, newline="\r\n"))) == RECORDS

    @of_all(*LINES)
    def test_the_last_line_needs_no_line_end(self, tmp_path, kind):
        assert records_of(write(tmp_path, f"docs{kind}", LINES[kind](RECORDS).rstrip(b"\n"))) == RECORDS

    @of_all(".jsonl", ".jsonl.gz", ".jsonl.zst")
    def test_a_jsonl_file_may_be_empty(self, tmp_path, kind):
        assert records_of(write(tmp_path, f"docs{kind}", PACK[kind[6:]](b""))) == []

    @of_all(*ARROW, ".parquet", ".lance")
    def test_an_arrow_file_may_have_no_rows(self, tmp_path, kind):
        assert records_of(write_table(tmp_path / f"docs{kind}", pa.table({"id": pa.array([], pa.string())}))) == []

    def test_packed_parts_may_follow_each_other(self, tmp_path):
        for pack in (".gz", ".zst"):
            content = PACK[pack](GOOD_LINE) + PACK[pack](GOOD_LINE)
            assert records_of(write(tmp_path, f"docs.jsonl{pack}", content)) == [GOOD] * 2

    def test_json_values_keep_their_types(self, tmp_path):
        record = {"id": 1, "n": 2.5, "ok": True, "none": None, "tags": ["寺"], "at": {"lat": 35}}
        assert records_of(write(tmp_path, "docs.jsonl", jsonl([record]))) == [record]

    @of_all(".parquet", *ARROW, ".lance")
    def test_arrow_values_keep_their_types_and_absent_ones_are_null(self, tmp_path, kind):
        records = [{"id": 1, "n": 2.5, "tags": ["寺"]}, {"id": 2, "n": None, "tags": None}]
        assert records_of(write_records(tmp_path, kind, records)) == records

    def test_tsv_values_are_strings_with_their_quotes_and_spaces(self, tmp_path):
        content = b'id\ttext\n1\t"a\n"2\t\'\'b"" \n3\t\n'
        assert records_of(write(tmp_path, "docs.tsv", content)) == [
            {"id": "1", "text": '"a'},
            {"id": '"2', "text": "''b\"\" "},
            {"id": "3", "text": ""},
        ]

    def test_csv_quotes_hold_commas_quotes_and_line_ends(self, tmp_path):
        content = b'id,"text, all"\r\n1,"a ""b"", c\r\n\nd"\r\n2,5" x\r\n'
        assert records_of(write(tmp_path, "docs.csv", content)) == [
            {"id": "1", "text, all": 'a "b", c\r\n\nd'},
            {"id": "2", "text, all": '5" x'},
        ]

    @of_all(".tsv", ".csv")
    def test_long_texts_are_read_whole_and_the_csv_modules_limit_stays(self, tmp_path, kind):
        records = [{"id": str(i), "text": "寺\n,"[: 3 if kind == ".csv" else 1] * 140_000} for i in range(3)]
        source = Source(write_records(tmp_path, kind, records))
        limits = [(record, csv.field_size_limit()) for (_, record), _ in zip(source, source, strict=True)]
        assert limits == [(record, 131_072) for record in records]


def with_values(records):
    """The records that are more than a row of empty fields."""
    return [record for record in records if any(record.values())]


class TestRoundTrips:
    text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)

    @settings(deadline=None, derandomize=True, max_examples=40)
    @given(records=st.lists(st.dictionaries(st.text(max_size=4), st.text(max_size=8), max_size=3), max_size=4))
    def test_whatever_text_is_written_as_jsonl_is_read_back(self, tmp_path_factory, records):
        content = "".join(json.dumps(r) + "\n" for r in records).encode()
        for pack, packed in PACK.items():
            path = write(tmp_path_factory.mktemp("any"), f"docs.jsonl{pack}", packed(content))
            assert records_of(path) == records

    @settings(deadline=None, derandomize=True, max_examples=40)
    @given(records=st.lists(st.fixed_dictionaries({"id": text, "あ,": text}), min_size=1, max_size=4))
    def test_whatever_text_is_written_as_csv_or_as_columns_is_read_back(self, tmp_path_factory, records):
        folder = tmp_path_factory.mktemp("any")
        for kind in (".csv", ".csv.gz", ".csv.zst", ".parquet", *ARROW):
            kept = with_values(records) if kind.startswith(".csv") else records
            assert records_of(write_records(folder, kind, records)) == kept

    @settings(deadline=None, derandomize=True, max_examples=40)
    @given(
        fields=st.lists(
            st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r\0"), max_size=8)] * 2),
            min_size=1,
            max_size=4,
        )
    )
    def test_whatever_text_without_tab_and_line_end_is_written_as_tsv_is_read_back(self, tmp_path_factory, fields):
        records = [{"id": a, "text": b} for a, b in fields]
        folder = tmp_path_factory.mktemp("any")
        for kind in (".tsv", ".tsv.gz", ".tsv.zst"):
            assert records_of(write_records(folder, kind, records)) == with_values(records)

    @settings(deadline=None, derandomize=True, max_examples=5)
    @given(records=st.lists(st.fixed_dictionaries({"id": text, "あ": text}), min_size=1, max_size=4))
    def test_whatever_text_is_written_to_lance_is_read_back(self, tmp_path_factory, records):
        assert records_of(write_records(tmp_path_factory.mktemp("any"), ".lance", records)) == records

    @settings(deadline=None, derandomize=True, max_examples=200)
    @given(lines=st.lists(st.sampled_from([b'{"id": 1}', b"[]", b"\xff", b"{", b'a,"b', b'"', b"1,2", b"a\tb", b"x"])))
    def test_every_line_of_any_file_gives_one_pair(self, tmp_path_factory, lines):
        content = b"".join(line + b"\n" for line in lines)
        path = write(tmp_path_factory.mktemp("any"), "docs", content)
        assert [p for p, _ in Source(path, format="jsonl")] == [f"{path}:{i}" for i in range(1, len(lines) + 1)]
        path.write_bytes(b"id\ttext\n" + content)
        assert [p for p, _ in Source(path, format="tsv")] == [f"{path}:{i}" for i in range(2, len(lines) + 2)]
        if b'a,"b' not in lines and b'"' not in lines:  # quotes join lines
            path.write_bytes(b"id,text\n" + content)
            assert [p for p, _ in Source(path, format="csv")] == [f"{path}:{i}" for i in range(2, len(lines) + 2)]


class TestPlaces:
    def test_jsonl_records_are_placed_by_line_and_blank_lines_are_skipped(self, tmp_path):
        path = write(tmp_path, "docs.jsonl", b"\n" + GOOD_LINE + b"  \t\n\r\n" + GOOD_LINE)
        assert [place for place, _ in Source(path)] == [f"{path}:2", f"{path}:5"]

    @pytest.mark.parametrize(("kind", "mark"), [(".tsv", b"\t"), (".csv", b",")])
    def test_rows_are_placed_by_line_and_blank_lines_are_skipped(self, tmp_path, kind, mark):
        path = write(tmp_path, f"docs{kind}", b"id,text\n\na,x\n\r\nb,y\n".replace(b",", mark))
        assert list(Source(path)) == [(f"{path}:3", {"id": "a", "text": "x"}), (f"{path}:5", {"id": "b", "text": "y"})]

    def test_csv_records_are_placed_by_the_line_they_begin_at(self, tmp_path):
        path = write(tmp_path, "docs.csv", b'id,"te\nxt"\n\na,"x\n\n"\nb,"\n"\nc,\n')
        assert [place for place, _ in Source(path)] == [f"{path}:4", f"{path}:7", f"{path}:9"]

    @of_all(".parquet", *ARROW)
    def test_arrow_records_are_placed_by_row_over_all_batches(self, tmp_path, kind):
        path = write_table(tmp_path / f"docs{kind}", pa.table({"id": list(range(2100))}))
        assert list(Source(path)) == [(f"{path} row {i}", {"id": i}) for i in range(2100)]

    def test_lance_records_are_placed_by_row_without_the_deleted_ones(self, tmp_path, monkeypatch):
        monkeypatch.setattr(arrow_formats, "_LANCE_ROWS", 3)
        table = lancedb.connect(tmp_path).create_table("docs", pa.table({"id": [1, 2, 3, 4]}))
        table.add(pa.table({"id": [5, 6, 7, 8, 9]}))
        table.delete("id in (2, 8)")
        path = tmp_path / "docs.lance"
        assert list(Source(path)) == [(f"{path} row {i}", {"id": n}) for i, n in enumerate([1, 3, 4, 5, 6, 7, 9])]


class TestPathsThatAreNoSource:
    def test_a_missing_file_is_refused_at_once(self, tmp_path):
        with pytest.raises(SourceError, match="no such file") as caught:
            Source(tmp_path / "missing.jsonl")
        assert str(tmp_path / "missing.jsonl") in str(caught.value)

    def test_a_pipe_is_refused_at_once(self, tmp_path):
        os.mkfifo(tmp_path / "docs.jsonl")
        with pytest.raises(SourceError, match="not a file or folder"):
            Source(tmp_path / "docs.jsonl")

    def test_an_empty_path_is_not_the_working_folder(self):
        with pytest.raises(SourceError, match="the path is empty"):
            Source("")

    @pytest.mark.parametrize("name", ["docs", "docs.gz", "docs.parquet.gz", "docs.jsonl.zip", ".jsonl"])
    def test_an_unknown_suffix_is_refused_at_once_naming_the_known_ones(self, tmp_path, name):
        path = write(tmp_path, name, b"")
        with pytest.raises(
            SourceError, match=r"unknown kind of file; expected \.jsonl, \.ndjson, \.json, \.csv, \.tsv, "
        ) as caught:
            Source(path)
        assert str(path) in str(caught.value)

    def test_an_unknown_format_is_refused_at_once_naming_the_known_ones(self, tmp_path):
        with pytest.raises(
            SourceError, match="unknown format 'xml'; expected one of jsonl, csv, tsv, json, text, parquet"
        ):
            Source(write(tmp_path, "docs.jsonl", b""), format="xml")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    @of_all(*FILES)
    def test_a_file_without_read_permission_is_refused(self, tmp_path, kind):
        path = write_records(tmp_path, kind, RECORDS)
        path.chmod(0)
        assert str(path) in error_of(path)

    @pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that fails to read")
    @of_all(*FILES)
    def test_a_file_that_fails_while_it_is_read_is_refused(self, tmp_path, kind):
        path = tmp_path / f"docs{kind}"
        path.symlink_to("/proc/self/mem")
        assert error_of(path).startswith(f"{path}: cannot be read (")

    def test_the_error_is_an_input_error(self, tmp_path):
        with pytest.raises(InputError):
            Source(tmp_path / "missing.jsonl")


class TestFolders:
    def save_to_disk(self, folder, names, tables, **state):
        for name, table in zip(names, tables, strict=True):
            write(folder, name, stream_of(table))
        write(folder, "dataset_info.json", b"{}")
        files = [{"filename": name} for name in names]
        write(folder, "state.json", json.dumps({"_data_files": files, "_split": "train", **state}).encode())
        return folder

    def test_a_saved_dataset_is_read_in_the_order_of_its_state(self, tmp_path):
        tables = [pa.table({"id": ["1", "2", "3"]}), pa.table({"id": ["4"]})]
        folder = self.save_to_disk(tmp_path, ["data-b.arrow", "data-a.arrow"], tables)
        write(folder, "cache-1.arrow", stream_of(tables[0]))  # of an earlier state
        places = [f"{folder / 'data-b.arrow'} row {i}" for i in range(3)] + [f"{folder / 'data-a.arrow'} row 0"]
        assert list(Source(folder)) == [(place, {"id": str(i)}) for i, place in enumerate(places, 1)]

    def test_a_saved_dataset_may_be_empty(self, tmp_path):
        assert records_of(self.save_to_disk(tmp_path, [], [])) == []

    def test_a_saved_dataset_that_lacks_a_file_is_refused_at_once(self, tmp_path):
        folder = self.save_to_disk(tmp_path, ["a.arrow"], [pa.table({"id": ["1"]})])
        (folder / "a.arrow").unlink()
        with pytest.raises(SourceError, match=r"a\.arrow: no such file, though .*state\.json names it"):
            Source(folder)

    def test_a_selection_of_rows_is_refused(self, tmp_path):
        folder = self.save_to_disk(tmp_path, [], [], _indices_data_files=[{"filename": "indices.arrow"}])
        with pytest.raises(SourceError, match="flatten_indices"):
            Source(folder)

    @pytest.mark.parametrize("state", [b"", b"[]", b"{}", b'{"_data_files": [1]}', b'{"_data_files": null}'])
    def test_another_state_is_refused(self, tmp_path, state):
        with pytest.raises(SourceError, match=r"state\.json: "):
            Source(write(tmp_path, "state.json", state).parent)

    @pytest.mark.parametrize("content", [b'{"splits": ["train", "test"]}', b"{}"])
    def test_a_dataset_with_splits_is_refused_naming_them(self, tmp_path, content):
        for split in ("train", "test"):
            self.save_to_disk(tmp_path / split, ["a.arrow"], [pa.table({"id": [split]})])
        write(tmp_path, "dataset_dict.json", content)
        with pytest.raises(SourceError, match="choose one: ") as caught:
            Source(tmp_path)
        assert {str(tmp_path / "train"), str(tmp_path / "test")} == set(str(caught.value).split(": ")[-1].split(", "))
        assert records_of(tmp_path / "test") == [{"id": "test"}]

    def test_a_repository_is_read_in_order_of_names_whatever_the_kinds(self, tmp_path):
        kinds = {f"{i:02d}": kind for i, kind in enumerate(ALL)}
        for name, kind in kinds.items():
            write_records(tmp_path / ("below" if kind == ".csv" else ""), kind, [{"id": name}], name)
        for name in ("README.md", ".gitattributes", "dataset_infos.json", ".cache/docs.jsonl", "._00.jsonl", "LICENSE"):
            write(tmp_path, name, b"no record")
        last = next(name for name, kind in kinds.items() if kind == ".csv")  # "below" comes after the digits
        assert records_of(tmp_path) == [{"id": n} for n in [*(n for n in kinds if n != last), last]]

    def test_folders_that_link_to_those_above_are_read_once_and_linked_files_are_read(self, tmp_path):
        blob = write(tmp_path, "blobs/0123", GOOD_LINE)
        folder = tmp_path / "snapshot"
        (folder / "data").mkdir(parents=True)
        (folder / "data" / "a.jsonl").symlink_to(blob)
        (folder / "data" / "up").symlink_to(folder)
        last = write(folder, "z.jsonl", GOOD_LINE)
        assert list(Source(folder)) == [(f"{folder / 'data' / 'a.jsonl'}:1", GOOD), (f"{last}:1", GOOD)]

    def test_a_folder_without_data_is_refused_naming_what_is_read(self, tmp_path):
        write(tmp_path, "LICENSE", b"")
        with pytest.raises(SourceError, match=r"no data file in this folder; expected \.jsonl, .*\.parquet, .*\.lance"):
            Source(tmp_path)

    @pytest.mark.parametrize("name", ["b.jsonl.bz2", "below/b.parquet.gz", "b.zip"])
    def test_data_that_cannot_be_read_is_not_passed_over(self, tmp_path, name):
        write(tmp_path, "a.jsonl", GOOD_LINE)
        path = write(tmp_path, name, b"")
        with pytest.raises(SourceError, match="may be data, but cannot be read") as caught:
            Source(tmp_path)
        assert str(path) in str(caught.value)

    def test_a_folder_has_no_format(self, tmp_path):
        with pytest.raises(SourceError, match="leave the format out"):
            Source(write(tmp_path, "docs.txt", GOOD_LINE).parent, format="jsonl")

    def test_an_error_names_the_file_in_the_folder(self, tmp_path):
        write(tmp_path, "a.jsonl", GOOD_LINE)
        path = write(tmp_path, "b.parquet", b"PAR1")
        assert error_of(tmp_path).startswith(f"{path}: cannot be read (")

    def test_a_folder_that_is_no_lance_dataset_is_refused(self, tmp_path):
        (tmp_path / "docs.lance").mkdir()
        assert error_of(tmp_path / "docs.lance").startswith(f"{tmp_path / 'docs.lance'}: cannot be read (")


class TestStandardInput:
    @pytest.fixture
    def given_stdin(self, monkeypatch):
        return lambda content: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    @pytest.mark.parametrize(("name", "lines"), [(None, jsonl), ("jsonl", jsonl), ("csv", csv_), ("tsv", tsv)])
    def test_it_can_be_read_again_and_again(self, given_stdin, name, lines):
        given_stdin(lines(RECORDS))
        source = Source("-", format=name)
        first = 1 if lines is jsonl else 2
        expected = [(f"stdin:{i}", record) for i, record in enumerate(RECORDS, first)]
        assert list(source) == expected
        assert list(zip(source, source, strict=True)) == [(pair, pair) for pair in expected]

    def test_two_readers_share_it_where_there_is_no_pread(self, given_stdin, monkeypatch):
        """As on Windows."""
        monkeypatch.delattr("os.pread")
        given_stdin("".join(f'{{"id": "{i}"}}\n' for i in range(20_000)).encode())
        source = Source("-", format="jsonl")
        pairs = list(zip(source, source, strict=True))
        assert len(pairs) == 20_000
        assert all(one == other for one, other in pairs)

    def test_errors_name_it(self, given_stdin):
        given_stdin(b"id,id\n")
        assert error_of("-", format="csv") == "stdin:1: the field 'id' occurs twice in the header"

    def test_what_is_kept_of_it_goes_with_the_source(self, given_stdin):
        given_stdin(GOOD_LINE)
        source = Source("-")
        list(source)
        kept = source._spool
        assert kept is not None
        assert not kept.closed
        assert os.fstat(kept.fileno()).st_nlink == 0  # has no name that could be left behind
        del source
        gc.collect()
        assert kept.closed

    def test_it_has_a_limit(self, given_stdin, monkeypatch, tmp_path):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        given_stdin(GOOD_LINE * 3)
        size = len(GOOD_LINE * 3)
        message = error_of("-", max_stdin_bytes=size - 1)
        assert message.startswith(f"stdin: more than {size - 1} bytes, which are kept in {tmp_path}; allow more")
        given_stdin(GOOD_LINE * 3)
        assert len(records_of("-", max_stdin_bytes=size)) == 3
        with pytest.raises(InputError, match="max_stdin_bytes is 0"):
            Source("-", max_stdin_bytes=0)

    def test_without_an_end_it_is_read_to_the_limit_only(self, monkeypatch):
        given, size = io.BytesIO(b"a" * 2**20), 0

        def read(n):
            nonlocal size
            size += n
            return given.getvalue()[:n]

        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=SimpleNamespace(read=read)))
        assert error_of("-", max_stdin_bytes=3 * 2**20).startswith("stdin: more than 3,145,728 bytes")
        assert size == 4 * 2**20

    @pytest.mark.parametrize("name", ["parquet", "arrow"])
    def test_it_has_lines(self, name):
        with pytest.raises(SourceError, match=f"cannot be read as {name}; expected jsonl, csv, tsv, json"):
            Source("-", format=name)

    def test_if_it_cannot_be_read_that_is_said(self, monkeypatch):
        with Path("/dev/null").open("w") as unreadable:
            monkeypatch.setattr(sys, "stdin", unreadable)
            assert error_of("-").startswith("stdin: cannot be read or kept in ")

    def test_a_file_of_that_name_is_read_by_its_path(self, tmp_path, monkeypatch):
        write(tmp_path, "-", GOOD_LINE)
        monkeypatch.chdir(tmp_path)
        assert records_of("./-", format="jsonl") == [GOOD]


class Counting(io.BufferedReader):
    """A file that counts how often something is read from it."""

    n_calls = 0

    def readline(self, *args):
        self.n_calls += 1
        return super().readline(*args)

    def read(self, *args):
        self.n_calls += 1
        return super().read(*args)


def count(source: Source) -> int:
    return sum(1 for _ in source)


class TestPackedFiles:
    """A kilobyte of gzip or Zstandard can hold megabytes, and a megabyte gigabytes."""

    @pytest.fixture(autouse=True)
    def _a_low_limit(self, monkeypatch):
        monkeypatch.setattr(packed_files, "ALWAYS_UNPACKED", 2**17)

    @pytest.mark.parametrize("suffix", [".gz", ".zst"])
    @pytest.mark.parametrize("line", [GOOD_LINE, b"{}\n", b"x", b"\n" * 99 + GOOD_LINE])
    def test_that_unpack_to_too_much_are_refused_unless_that_is_allowed(self, tmp_path, line, suffix):
        path = write(tmp_path, f"docs.jsonl{suffix}", PACK[suffix](line * (3 * 2**17 // len(line))))
        assert f"{path}: unpacks to more than 1" in (message := error_of(path))
        assert "100 times its size" in message
        plain = write(tmp_path, "docs.jsonl", line * (3 * 2**17 // len(line)))
        assert count(Source(path, max_unpack_ratio=1e6)) == count(Source(plain))

    def test_in_parquet_too(self, tmp_path):
        rows = pa.table({"id": ["a"] * 99, "text": ["x" * 9_999] * 99})
        pq.write_table(rows, tmp_path / "a.parquet", use_dictionary=False, compression="zstd")
        assert "a.parquet: unpacks to more than 131,072 bytes" in error_of(tmp_path / "a.parquet")
        assert len(list(Source(tmp_path / "a.parquet", max_unpack_ratio=1e6))) == 99

    def test_in_spreadsheets_too(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.xlsx", "w", zipfile.ZIP_DEFLATED) as made:
            made.writestr("xl/worksheets/sheet1.xml", b" " * (3 * 2**20))
        assert "a.xlsx: unpacks to more than 3" in error_of(tmp_path / "a.xlsx")

    def test_may_always_unpack_to_some_bytes(self, tmp_path):
        content = GOOD_LINE * (2**17 // len(GOOD_LINE))
        assert len(records_of(write(tmp_path, "docs.jsonl.gz", gzip.compress(content)))) == content.count(b"\n")

    @pytest.mark.parametrize("ratio", [0.9, float("nan"), float("inf")])
    def test_unpack_to_once_their_size_at_least(self, ratio):
        with pytest.raises(InputError, match="max_unpack_ratio is"):
            Source("-", max_unpack_ratio=ratio)


class TestBlankLines:
    """A few kilobytes of gzip can hold gigabytes of them."""

    @pytest.mark.parametrize("blank", [b"\n", b"\r\n", b" \n", b"\t \r\n" * 3])
    def test_are_skipped_by_blocks_and_counted(self, blank):
        n_lines = 300_000 * blank.count(b"\n")
        file = Counting(cast(Any, io.BytesIO(GOOD_LINE + blank * 300_000 + GOOD_LINE)), 2**16)
        assert [place for place, _ in read_jsonl(file, "a")] == ["a:1", f"a:{n_lines + 2}"]
        assert file.n_calls < 200

    @pytest.mark.parametrize(("read", "sign"), [(read_csv, b","), (read_tsv, b"\t")])
    def test_are_skipped_in_tables_too_but_not_what_only_looks_so(self, read, sign):
        header, row = sign.join([b"id", b"text\n"]), sign.join([b"a", b"b\n"])
        file = Counting(cast(Any, io.BytesIO(header + b"\n\r\n" * 300_000 + row + b" \n\n\r\n" + row)), 2**16)
        pairs = list(read(file, "a"))
        assert [place for place, _ in pairs] == ["a:600002", "a:600003", "a:600006"]
        assert isinstance(pairs[1][1], BadRecord)
        assert file.n_calls < 300

    def test_within_quotes_are_text(self):
        text = "x" + "\n" * 5_000 + "\r\n y"
        file = io.BufferedReader(cast(Any, io.BytesIO(f'id,text\n\n\na,"{text}"\n\n\nb,c\n'.encode())), 2**12)
        assert list(read_csv(file, "a")) == [("a:4", {"id": "a", "text": text}), ("a:5008", {"id": "b", "text": "c"})]

    def test_with_a_return_within_are_rows_of_tsv(self):
        rows = list(read_tsv(io.BufferedReader(cast(Any, io.BytesIO(b"id\ttext\n\n\r\r\n\n\r\r\na\tb\n"))), "a"))
        assert [place for place, _ in rows] == ["a:3", "a:5", "a:6"]

    @pytest.mark.parametrize("blank", [b"\n", b"\r\n", b" " * 999 + b"\n", "\u3000".encode() * 9_999 + b"\n"])
    @pytest.mark.parametrize("kind", ["jsonl.gz", "jsonl"])
    def test_too_many_in_a_row_are_refused(self, tmp_path, monkeypatch, blank, kind):
        monkeypatch.setattr(line_formats, "MAX_BLANK", 2**20)
        times = 2**20 // len(blank) + 2
        content = GOOD_LINE + blank * times + GOOD_LINE
        path = write(tmp_path, f"docs.{kind}", gzip.compress(content) if kind.endswith("gz") else content)
        assert "more than 1,048,576 bytes of blank lines in a row, up to line" in error_of(path)
        less = content.replace(blank, b"", 2)
        path = write(tmp_path, f"less.{kind}", gzip.compress(less) if kind.endswith("gz") else less)
        assert records_of(path) == [GOOD, GOOD]

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(
        st.lists(
            st.sampled_from([b"\n", b"\r\n", b"\r\r\n", b" \n", b'{"id": "a"}\n', b"\t\n", b"a\tb\n", b"\x0b\n"]),
            max_size=20,
        ),
        st.integers(1, 40),
        st.sampled_from([read_jsonl, read_tsv]),
    )
    def test_the_size_of_blocks_changes_nothing(self, lines, size, read):
        content = b"id\ttext\n" + b"".join(lines)
        plain = SimpleNamespace(readline=io.BytesIO(content).readline)  # has no buffer
        assert list(read(io.BufferedReader(cast(Any, io.BytesIO(content)), size), "a")) == list(
            read(cast(Any, plain), "a")
        )


class TestBadLines:
    @pytest.mark.parametrize("line", [b'{"id": "a"', b"{'id': 'a'}", b'{"id": "a"} x', b"\x00"])
    def test_broken_json_is_one_bad_record(self, tmp_path, line):
        path = write(tmp_path, "docs.jsonl", GOOD_LINE + b"\n" + line + b"\r\n" + GOOD_LINE)
        [(place, reason, raw)] = bad_of(path)
        assert (place, raw) == (":3", line.decode())
        assert reason.startswith("not valid JSON (")
        assert [records_of(path)[i] for i in (0, 2)] == [GOOD, GOOD]

    @pytest.mark.parametrize(
        ("line", "kind"), [(b"[1]", "list"), (b'"a"', "str"), (b"1", "int"), (b"null", "NoneType"), (b"true", "bool")]
    )
    def test_json_that_is_no_object_is_named(self, tmp_path, line, kind):
        path = write(tmp_path, "docs.jsonl", GOOD_LINE + line + b"\n")
        assert bad_of(path) == [(":2", f"expected a JSON object, not {kind}", line.decode())]

    @pytest.mark.parametrize("line", [b'{"id": ' + b"1" * 5000 + b"}", b"[" * 100_000], ids=["number", "nesting"])
    def test_json_beyond_the_parsers_limits_is_bad_and_its_text_is_cut(self, tmp_path, line):
        [(place, reason, raw), *rest] = bad_of(write(tmp_path, "docs.jsonl", GOOD_LINE + line + b"\n" + GOOD_LINE))
        assert (place, rest) == (":2", [])
        assert reason.startswith("not valid JSON (")
        assert raw == (line.decode() if len(line) <= 10_000 else "[" * 10_000 + "… (cut here)")

    @pytest.mark.parametrize("content", [b'{"id": "\xff"}\n', '{"id": "寺"}'.encode("cp932"), b'{"id": "\xe5\xaf'])
    @pytest.mark.parametrize("lines_before", [0, 1, 1000])
    def test_a_byte_that_is_not_utf8_spoils_its_own_line_only(self, tmp_path, content, lines_before):
        line = content.rstrip() + b"\n" + GOOD_LINE
        others = '{"id": "京都"}\n'.encode() * 2  # so most lines are UTF-8
        path = write(tmp_path, "docs.jsonl", GOOD_LINE * lines_before + line + others + GOOD_LINE)
        [(place, reason, raw)] = bad_of(path)
        assert place == f":{lines_before + 1}"
        assert reason.startswith("not UTF-8 (")
        assert raw == content.rstrip().decode("utf-8", "backslashreplace")
        assert records_of(path)[-1] == GOOD

    @pytest.mark.parametrize(
        ("kind", "content", "raw"),
        [
            (".tsv", b"id\ttext\na\tx\n\xff\tx\nb\ty\n", "\\xff\tx"),
            (".csv", b'id,text\na,x\n"\xff\n\xe5",x\nb,y\n', '"\\xff\n\\xe5",x'),
        ],
    )
    def test_a_byte_that_is_not_utf8_spoils_its_own_row_only(self, tmp_path, kind, content, raw):
        path = write(tmp_path, f"docs{kind}.gz", gzip.compress(content))
        first, (place, bad), last = Source(path)
        assert (first[1], last[1]) == ({"id": "a", "text": "x"}, {"id": "b", "text": "y"})
        assert isinstance(bad, BadRecord)
        assert (place, bad.raw) == (f"{path}:3", raw)
        assert bad.reason.startswith("not UTF-8 ('utf-8' codec can't decode byte 0xff")

    @pytest.mark.parametrize(("row", "count"), [("b", 1), ("b,x,y", 3), ("  ", 1)])
    @pytest.mark.parametrize(("kind", "mark"), [(".tsv", "\t"), (".csv", ",")])
    def test_a_row_with_another_number_of_fields_is_bad(self, tmp_path, kind, mark, row, count):
        content = f"id,text\na,x\n\n{row}\nc,z\n".replace(",", mark)
        path = write(tmp_path, f"docs{kind}", content.encode())
        assert bad_of(path) == [(":4", f"{count} fields, but the header has 2", row.replace(",", mark))]
        assert records_of(path)[-1] == {"id": "c", "text": "z"}

    def test_a_csv_record_of_several_lines_with_too_many_fields_names_them(self, tmp_path):
        path = write(tmp_path, "docs.csv", b'id,text\na,"x\ny",z\nb,y\n')
        assert bad_of(path) == [(":2", "3 fields, but the header has 2 (lines 2 to 3)", 'a,"x\ny",z')]

    def test_a_quote_in_tsv_does_not_join_lines(self, tmp_path):
        path = write(tmp_path, "docs.tsv", b'id\ttext\na\t"x\nb\n')
        assert bad_of(path) == [(":3", "1 fields, but the header has 2", "b")]

    @pytest.mark.parametrize("line", [b'"a"x,y', b"a\rb,c"])
    def test_a_csv_line_that_breaks_the_rules_is_bad(self, tmp_path, line):
        [(place, reason, raw)] = bad_of(path := write(tmp_path, "docs.csv", b"id,text\n" + line + b"\nb,y\n"))
        assert (place, raw) == (":2", line.decode())
        assert reason.startswith("not valid CSV (")
        assert records_of(path)[-1] == {"id": "b", "text": "y"}

    def test_an_open_quote_in_the_last_csv_line_is_bad(self, tmp_path):
        [(place, reason, raw)] = bad_of(write(tmp_path, "docs.csv", b'id,text\na,x\nb,"y\n'))
        assert (place, raw) == (":3", 'b,"y')
        assert reason == "not valid CSV (unexpected end of data)"

    @pytest.mark.parametrize(("after", "last"), [(b"b,y\nc,z\n", 4), (b'b,"y"\nc,z\n', 3)], ids=["end", "quote"])
    def test_an_open_quote_does_not_swallow_the_lines_after_it(self, tmp_path, after, last):
        path = write(tmp_path, "docs.csv", b'id,text\na,"x\n' + after)
        assert error_of(path).startswith(f"{path}:2: not valid CSV up to line {last} (")


class TestLongLines:
    def test_a_longer_line_is_bad_and_the_next_is_read(self, tmp_path, monkeypatch):
        limit = len(GOOD_LINE) - 1
        monkeypatch.setattr(line_formats, "MAX_LINE", limit)
        for kind, start in ((".jsonl", b""), (".tsv", b"id\ttext\n")):
            good = GOOD_LINE if kind == ".jsonl" else b"d\t" + b"x" * (limit - 2) + b"\n"
            long = b"y" * (limit + 1) + b"\n"
            path = write(tmp_path, f"docs{kind}", start + good + long + good + b"y" * 3 * 2**20 + b"\n" + good)
            first = 1 if kind == ".jsonl" else 2
            reason = f"a line longer than {limit} bytes"
            assert [b[:2] for b in bad_of(path)] == [(f":{first + 1}", reason), (f":{first + 3}", reason)]
            assert [isinstance(r, dict) for r in records_of(path)] == [True, False, True, False, True]

    def test_a_line_without_end_does_not_fill_the_memory(self, tmp_path, monkeypatch):
        monkeypatch.setattr(line_formats, "MAX_LINE", 2**16)
        path = tmp_path / "docs.jsonl"
        with path.open("wb") as file:
            file.truncate(2**25)
        tracemalloc.start()
        [(_, record)] = Source(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert record == BadRecord("a line longer than 65,536 bytes", "\0" * 10_000 + "… (cut here)")
        assert peak < 2**23

    @pytest.mark.parametrize("record", [b"a," + b"x" * 100 + b"\n", b'a,"' + b"x\n" * 50])
    def test_a_longer_csv_record_ends_the_reading(self, tmp_path, monkeypatch, record):
        monkeypatch.setattr(line_formats, "MAX_LINE", 80)
        path = write(tmp_path, "docs.csv", b"id,text\n" + record)
        assert error_of(path) == f"{path}:2: a record longer than 80 bytes; is a quote in it not closed?"


class TestHeaders:
    @of_all(".tsv", ".csv")
    @pytest.mark.parametrize("content", [b"", BOM, b"\nid\ttext\n", b" \t\n"])
    def test_a_file_without_a_header_is_refused(self, tmp_path, kind, content):
        path = write(tmp_path, f"docs{kind}", content)
        assert error_of(path) == f"{path}:1: expected a header line with the field names"

    @pytest.mark.parametrize(("kind", "header"), [(".tsv", b"id\ttext\tid\n"), (".csv", b'id,text,"id"\n')])
    def test_a_header_that_names_a_field_twice_is_refused(self, tmp_path, kind, header):
        path = write(tmp_path, f"docs{kind}", header)
        assert error_of(path) == f"{path}:1: the field 'id' occurs twice in the header"

    @of_all(".parquet", *ARROW)
    def test_columns_of_one_name_are_refused(self, tmp_path, kind):
        path = write_table(tmp_path / f"docs{kind}", pa.table([["a"], ["b"]], names=["id", "id"]))
        assert error_of(path) == f"{path}: the field 'id' occurs twice in the header"

    @of_all(".tsv", ".csv")
    def test_a_header_that_is_not_utf8_is_refused(self, tmp_path, kind):
        path = write(tmp_path, f"docs{kind}", b"id\xff\nx\n")
        assert error_of(path).startswith(f"{path}:1: not UTF-8 (")

    @of_all(".tsv", ".csv")
    def test_a_header_alone_has_no_records(self, tmp_path, kind):
        assert records_of(write(tmp_path, f"docs{kind}", b"id\n")) == []


class TestDamagedPacking:
    # Hexadecimal of a generator's numbers: hard to compress, so that damage falls into the data.
    LINES = b"".join(b'{"id": "%d", "text": "%x"}\n' % (i, pow(3, 1000 + i, 1 << 256)) for i in range(300))

    @of_all(".gz", ".zst")
    def test_a_truncated_file_is_named(self, tmp_path, kind):
        packed = PACK[kind](self.LINES)
        for length in (0, 1, 5, len(packed) // 2, len(packed) - 4, len(packed) - 1):
            path = write(tmp_path, f"docs.jsonl{kind}", packed[:length])
            assert error_of(path).startswith(f"{path}: cannot be read (")

    @of_all(".gz", ".zst")
    def test_what_follows_the_packed_data_is_an_error(self, tmp_path, kind):
        path = write(tmp_path, f"docs.jsonl{kind}", PACK[kind](GOOD_LINE) + b"xx")
        assert error_of(path).startswith(f"{path}: cannot be read (")

    @pytest.mark.parametrize(("kind", "said"), [(".gz", "Not a gzipped file"), (".zst", "ZSTD decompress failed")])
    def test_a_file_that_is_not_packed_is_named(self, tmp_path, kind, said):
        path = write(tmp_path, f"docs.jsonl{kind}", GOOD_LINE)
        assert error_of(path).startswith(f"{path}: cannot be read ({said}")

    def test_a_file_with_damaged_data_is_named_with_the_line_before(self, tmp_path):
        packed = gzip.compress(self.LINES)
        for start in (10, len(packed) - 8):  # the second is the checksum
            path = write(tmp_path, "docs.jsonl.gz", packed[:start] + b"\xff" * 8 + packed[start + 8 :])
            assert error_of(path).startswith(f"{path}: cannot be read (")
        assert error_of(path).endswith(") after line 300")


class TestDamagedArrowFiles:
    @of_all(".parquet", ".arrow")
    @pytest.mark.parametrize(
        "content", [b"", b"PAR1", b"no such file at all", b"PAR1" + b"x" * 100 + b"PAR1", b"ARROW1", b"\xff" * 4]
    )
    def test_a_file_of_another_kind_is_named(self, tmp_path, kind, content):
        path = write(tmp_path, f"docs{kind}", content)
        assert error_of(path).startswith(f"{path}: cannot be read (")

    @of_all(".parquet", *ARROW)
    def test_a_truncated_file_is_named_wherever_it_ends(self, tmp_path, kind):
        content = write_records(tmp_path, kind, RECORDS).read_bytes()
        for length in range(0, len(content), 8):
            path = write(tmp_path, f"cut{kind}", content[:length])
            assert error_of(path).startswith(f"{path}: ")

    @of_all(".parquet", *ARROW)
    def test_damage_is_an_error_or_bad_records_and_nothing_is_lost(self, tmp_path, kind):
        content = write_records(tmp_path, kind, RECORDS).read_bytes()
        for start in range(0, len(content) - 16, 8):
            path = write(tmp_path, f"damaged{kind}", content[:start] + b"\xff" * 16 + content[start + 16 :])
            with contextlib.suppress(SourceError):
                assert len(records_of(path)) == len(RECORDS)

    def test_no_bit_of_a_parquet_file_can_hide_rows(self, tmp_path):
        content = write_records(tmp_path, ".parquet", [{"id": str(i)} for i in range(3)]).read_bytes()
        for i, byte in enumerate(content):
            path = write(tmp_path, "damaged.parquet", content[:i] + bytes([byte ^ 2]) + content[i + 1 :])
            with contextlib.suppress(SourceError):
                assert len(records_of(path)) == 3

    def test_a_stream_that_was_not_ended_or_goes_on_is_refused(self, tmp_path):
        content = stream_of(pa.table({"id": ["a", "b", "c"]}))
        path = write(tmp_path, "docs.arrow", content[:-8])
        assert error_of(path).startswith(f"{path}: the stream has no end marker")
        path = write(tmp_path, "docs.arrow", content + content)
        assert error_of(path).startswith(f"{path}: there is data after the stream's end marker")

    def test_the_first_feather_version_is_refused(self, tmp_path):
        path = write(tmp_path, "docs.feather", b"FEA1" + b"\0" * 100)
        assert error_of(path).startswith(f"{path}: Feather version 1 cannot be read")

    def test_a_damaged_lance_dataset_is_named(self, tmp_path):
        path = write_records(tmp_path, ".lance", RECORDS)
        for file in (path / "data").iterdir():
            file.write_bytes(b"")
        assert error_of(path).startswith(f"{path}: cannot be read (")

    @of_all(".parquet", *ARROW)
    def test_text_that_is_not_utf8_spoils_its_own_row_only(self, tmp_path, kind):
        table = pa.table({"id": ["1", "2", "3"], "text": NOT_UTF8, "tags": [["x"], [], None]})
        path = write_table(tmp_path / f"docs{kind}", table)
        assert bad_of(path) == [
            (
                " row 1",
                "field 'text': not UTF-8 ('utf-8' codec can't decode byte 0xff in position 4: invalid start byte)",
                "id: 2\ntext: 寺 \\xff\ntags: []",
            )
        ]
        assert records_of(path)[0::2] == [
            {"id": "1", "text": "a", "tags": ["x"]},
            {"id": "3", "text": None, "tags": None},
        ]

    @pytest.mark.parametrize(
        ("values", "shown", "said"),
        [
            (pa.ListArray.from_arrays([0, 1, 2, 3], NOT_UTF8), r"[b'\xe5\xaf\xba \xff']", "not UTF-8 ("),
            (pa.DictionaryArray.from_arrays([0, 1, 0], NOT_UTF8), r"寺 \xff", "not UTF-8 ("),
            (NOT_UTF8.view(pa.binary()).cast(pa.large_binary()).view(pa.large_string()), r"寺 \xff", "not UTF-8 ("),
            (pa.array([0, 10**9, None], pa.date32()), "1000000000", "days=1000000000; "),
            (pa.array([0, 2**62, 1], pa.timestamp("s")), str(2**62), "Python int too large"),
        ],
        ids=["nested text", "category", "large text", "date", "time"],
    )
    def test_a_value_that_python_lacks_spoils_its_own_row_only(self, tmp_path, values, shown, said):
        path = write_table(tmp_path / "docs.arrow", pa.table({"id": ["1", "2", "3"], "x": values}))
        [(place, reason, raw)] = bad_of(path)
        assert place == " row 1"
        assert reason.startswith(f"field 'x': {said}")
        assert raw.startswith("id: 2\nx: ")
        assert shown in raw

    def test_a_list_that_reaches_beyond_its_values_ends_the_reading(self, tmp_path):
        table = pa.table({"id": ["1", "2"], "tags": [["x"], ["y", "z"]]})
        content = write_table(tmp_path / "docs.ipc", table).read_bytes()
        offsets = [struct.pack("<iii", 0, 1, last) for last in (3, 10**9)]
        assert content.count(offsets[0]) == 1
        path = write(tmp_path, "damaged.ipc", content.replace(*offsets))
        assert error_of(path).startswith(f"{path}: cannot be read (")


class TestIso2022Jp:
    """It is ASCII, and so UTF-8: nothing but its escapes tells that its characters are others."""

    @pytest.mark.parametrize("kind", [".jsonl", ".csv", ".tsv"])
    def test_a_line_of_it_in_a_file_of_utf8_is_refused_with_the_remedy(self, tmp_path, kind):
        content = LINES[kind]([{"id": "d1", "text": "京都"}, {"id": "d2", "text": "大阪"}]).splitlines(keepends=True)
        content[-1] = content[-1].decode().encode("iso2022_jp")
        path = write(tmp_path, f"docs{kind}", b"".join(content))
        if kind == ".csv":
            assert "ISO-2022-JP, not UTF-8; say so (--encoding" in error_of(path)
        else:
            ((place, reason, _),) = bad_of(path)
            assert place == (":2" if kind == ".jsonl" else ":3")
            assert "ISO-2022-JP, not UTF-8; say so (--encoding" in reason

    @pytest.mark.parametrize("field", ["id", "text", "title"])
    def test_in_a_text_that_was_read_already_is_refused_too(self, tmp_path, field):
        garbage = "京都".encode("iso2022_jp").decode()
        with pytest.raises(InputError, match=rf"document 0: field '{field}'.*ISO-2022-JP"):
            list(DocumentReader([{"id": "a", "text": "x", field: garbage}]))

    def test_escapes_of_terminals_are_not(self, tmp_path):
        path = write(tmp_path, "docs.tsv", b"id\ttext\na\t\x1b[31mred\x1b[0m costs \x1b(B $B\n")
        assert bad_of(path) == []


class TestJson:
    """Files named .json: an array of records, or records one after the other."""

    def values(self, tmp_path, text, **options):
        path = write(tmp_path, "docs.json", text.encode())
        return [(place.removeprefix(f"{path} "), record) for place, record in Source(path, **options)]

    @pytest.mark.parametrize(
        "text", ['[{"id": 1},\n\n {"id": 2.5}]\n', '\ufeff{"id": 1}\n\n{"id": 2.5}', '{"id":1}\n\n\t{"id":2.5}\n']
    )
    def test_records_come_with_their_number(self, tmp_path, text):
        assert self.values(tmp_path, text) == [("item 0", {"id": 1}), ("item 1", {"id": 2.5})]

    def test_arrays_are_records_where_they_are_wanted(self, tmp_path):
        lines = '["q", ["p", 1]]\n["r", ["p", 2]]\n'
        wanted = [("item 0", {"items": ["q", ["p", 1]]}), ("item 1", {"items": ["r", ["p", 2]]})]
        assert self.values(tmp_path, lines, arrays=True) == wanted
        whole = '[["q", ["p", 1]],\n["r", ["p", 2]]]'
        assert self.values(tmp_path, whole, arrays=True) == wanted
        first = self.values(tmp_path, whole)[0][1]
        assert isinstance(first, BadRecord)
        assert first.reason == "expected a JSON object, not list"

    @settings(deadline=None)
    @given(st.lists(st.dictionaries(st.text(max_size=4), st.text(max_size=9) | st.integers()), max_size=9))
    def test_any_records_are_read_as_they_were_written(self, records):
        for text in (json.dumps(records), "\n".join(map(json.dumps, records))):
            assert [record for _, record in read_json(io.BytesIO(text.encode()), "x")] == records

    @pytest.mark.parametrize("text", ['[{"id": 1},\n{"id"', '[{"id": 1}', '[{"id": 1}] \n what', '{"id": 1} x'])
    def test_what_is_no_json_is_named(self, tmp_path, text):
        with pytest.raises(SourceError, match=r"docs\.json: not valid JSON after item 0"):
            self.values(tmp_path, text)

    def test_an_empty_file_or_array_has_no_records(self, tmp_path):
        assert self.values(tmp_path, " \n") == self.values(tmp_path, "[ ]") == []


def test_a_tsv_file_without_a_header_has_the_fields_that_are_named(tmp_path):
    path = write(tmp_path, "docs.tsv.gz", gzip.compress("1\t文\n2\t字\n".encode()))
    assert [record for _, record in Source(path, fields=["id", "text"])] == [
        {"id": "1", "text": "文"},
        {"id": "2", "text": "字"},
    ]


class TestBytesRead:
    LINES = b"".join(b'{"id": "%d", "text": "%s"}\n' % (i, b"x" * 1000) for i in range(2000))

    @pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
    def test_grow_to_the_size_of_the_files(self, tmp_path, suffix):
        packed = {"": bytes, ".gz": gzip.compress, ".zst": pa.Codec("zstd").compress}[suffix](self.LINES)
        data = packed if isinstance(packed, bytes) else packed.to_pybytes()
        paths = [write(tmp_path, f"{name}.jsonl{suffix}", data) for name in "ab"]
        source = Source(paths)
        assert source.bytes_read == (0, 0)
        seen = [source.bytes_read for _ in source]
        size = sum(path.stat().st_size for path in paths)
        assert {total for _, total in seen} == {size}
        done = [done for done, _ in seen]
        assert done == sorted(done)
        assert done[0] <= size / 2 < done[2000]
        assert source.bytes_read == (size, size)

    def test_of_another_encoding_are_those_of_the_file(self, tmp_path):
        path = write(tmp_path, "docs.csv", "id,text\n1,京都の寺\n".encode("cp932"))
        source = Source(path)
        assert len(list(source)) == 1
        assert source.bytes_read == (path.stat().st_size,) * 2

    def test_of_a_pipe_are_those_that_it_gave(self, monkeypatch):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(self.LINES)))
        source = Source("-")
        seen = [source.bytes_read for _ in source]
        assert seen[0][0] < seen[-1][0] == seen[-1][1] == len(self.LINES)

    def test_are_not_known_of_files_that_are_read_in_another_order(self, tmp_path):
        table = pa.table({"id": ["1"], "text": ["寺"]})
        pq.write_table(table, tmp_path / "a.parquet")
        source = Source(tmp_path / "a.parquet")
        assert [source.bytes_read for _ in source] == [(0, 0)]


@pytest.mark.parametrize("encoding", ["cp932", "euc_jp", "utf-16"])
def test_lines_in_other_encodings_are_recognized_and_that_is_said(tmp_path, caplog, encoding):
    path = write(tmp_path, "questions.txt", "石庭のある寺\n枯山水の庭\n\n沖縄旅行\n".encode(encoding))
    assert [line for _, line in lines_of(path)] == ["石庭のある寺", "枯山水の庭", "", "沖縄旅行"]
    assert [f"read as {encoding}" in said for said in caplog.messages] == [True] * (encoding != "utf-16")


def test_lines_are_read_from_packed_files_without_byte_order_marks(tmp_path):
    path = write(tmp_path, "qrels.gz", gzip.compress("\ufeffa\n\ufeffb\r\n".encode()))
    assert list(lines_of(path)) == [(1, "a"), (2, "b")]
