"""Files of documents, whole and damaged."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tansaku.indexer import SourceError, SourceFile
from tansaku.onnx_export import InputError

RECORDS = [
    {"id": "d1", "title": "金閣寺", "text": "京都にある、\\金箔の寺。"},
    {"id": "d2", "title": "", "text": '"鹿苑寺"とも言う'},
    {"id": "d3", "title": "縦書き\u2028改行", "text": "文字\u0085の中の\x0b区切り"},
]
GOOD_LINE = b'{"id": "d", "text": "x"}\n'
BOM = b"\xef\xbb\xbf"


def jsonl(records, newline="\n"):
    return "".join(json.dumps(r, ensure_ascii=False) + newline for r in records).encode()


def tsv(records, newline="\n"):
    rows = [list(records[0]), *(list(r.values()) for r in records)]
    return "".join("\t".join(row) + newline for row in rows).encode()


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


def write_records(folder, kind, records):
    path = folder / f"docs{kind}"
    if kind == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        content = tsv(records) if kind == ".tsv" else jsonl(records)
        path.write_bytes(gzip.compress(content) if kind.endswith(".gz") else content)
    return path


def records_of(path):
    return [record for _, record in SourceFile(path)]


def error_of(path):
    """The message of the SourceError that reading ``path`` ends in."""
    with pytest.raises(SourceError) as caught:
        list(SourceFile(path))
    return str(caught.value)


all_kinds = pytest.mark.parametrize("kind", [".jsonl", ".jsonl.gz", ".parquet", ".tsv"])
text_kinds = pytest.mark.parametrize(("kind", "lines"), [("jsonl", jsonl), ("tsv", tsv)])


class TestReading:
    @all_kinds
    def test_every_kind_gives_the_same_records(self, tmp_path, kind):
        assert records_of(write_records(tmp_path, kind, RECORDS)) == RECORDS

    @all_kinds
    def test_a_file_can_be_read_again_and_again(self, tmp_path, kind):
        source = SourceFile(write_records(tmp_path, kind, RECORDS))
        assert list(source) == list(source)
        next(iter(source))  # one reading left half done does not disturb the next
        assert [record for _, record in source] == RECORDS

    def test_the_path_may_be_a_str(self, tmp_path):
        assert records_of(str(write_records(tmp_path, ".jsonl", RECORDS))) == RECORDS

    def test_dots_in_the_name_do_not_hide_the_kind(self, tmp_path):
        assert records_of(write(tmp_path, "docs.v1.2.jsonl", GOOD_LINE)) == [{"id": "d", "text": "x"}]
        packed = gzip.compress(GOOD_LINE)
        assert records_of(write(tmp_path, "docs.v1.2.jsonl.gz", packed)) == [{"id": "d", "text": "x"}]

    @text_kinds
    def test_a_byte_order_mark_is_no_content(self, tmp_path, kind, lines):
        assert records_of(write(tmp_path, f"docs.{kind}", BOM + lines(RECORDS))) == RECORDS

    def test_a_byte_order_mark_inside_gzip_is_no_content(self, tmp_path):
        assert records_of(write(tmp_path, "docs.jsonl.gz", gzip.compress(BOM + jsonl(RECORDS)))) == RECORDS

    @text_kinds
    def test_windows_line_ends_are_line_ends(self, tmp_path, kind, lines):
        assert records_of(write(tmp_path, f"docs.{kind}", lines(RECORDS, newline="\r\n"))) == RECORDS

    @text_kinds
    def test_the_last_line_needs_no_line_end(self, tmp_path, kind, lines):
        assert records_of(write(tmp_path, f"docs.{kind}", lines(RECORDS).rstrip(b"\n"))) == RECORDS

    def test_json_values_keep_their_types(self, tmp_path):
        record = {"id": 1, "n": 2.5, "ok": True, "none": None, "tags": ["寺"], "at": {"lat": 35}}
        assert records_of(write(tmp_path, "docs.jsonl", jsonl([record]))) == [record]

    def test_parquet_values_keep_their_types_and_absent_ones_are_null(self, tmp_path):
        records = [{"id": 1, "n": 2.5, "tags": ["寺"]}, {"id": 2, "n": None, "tags": None}]
        assert records_of(write_records(tmp_path, ".parquet", records)) == records

    def test_tsv_values_are_strings_with_their_quotes_and_spaces(self, tmp_path):
        content = b'id\ttext\n1\t"a\n"2\t\'\'b"" \n3\t\n'
        assert records_of(write(tmp_path, "docs.tsv", content)) == [
            {"id": "1", "text": '"a'},
            {"id": '"2', "text": "''b\"\" "},
            {"id": "3", "text": ""},
        ]

    @settings(deadline=None, derandomize=True, max_examples=60)
    @given(st.lists(st.dictionaries(st.text(max_size=4), st.text(max_size=8), max_size=3), max_size=4))
    def test_whatever_text_is_written_as_jsonl_is_read_back(self, tmp_path_factory, records):
        content = "".join(json.dumps(r) + "\n" for r in records).encode()
        assert records_of(write(tmp_path_factory.mktemp("any"), "docs.jsonl", content)) == records


class TestPlaces:
    def test_jsonl_records_are_placed_by_line_and_blank_lines_are_skipped(self, tmp_path):
        path = write(tmp_path, "docs.jsonl", b"\n" + GOOD_LINE + b"  \t\n\r\n" + GOOD_LINE)
        assert [place for place, _ in SourceFile(path)] == [f"{path}:2", f"{path}:5"]

    def test_tsv_records_are_placed_by_line_and_blank_lines_are_skipped(self, tmp_path):
        path = write(tmp_path, "docs.tsv", b"id\ttext\n\na\tx\n\r\nb\ty\n")
        assert list(SourceFile(path)) == [
            (f"{path}:3", {"id": "a", "text": "x"}),
            (f"{path}:5", {"id": "b", "text": "y"}),
        ]

    def test_parquet_records_are_placed_by_row_over_all_batches_and_row_groups(self, tmp_path):
        path = tmp_path / "docs.parquet"
        pq.write_table(pa.table({"id": list(range(2100))}), path, row_group_size=700)
        assert list(SourceFile(path)) == [(f"{path} row {i}", {"id": i}) for i in range(2100)]


class TestPathsThatAreNoSource:
    def test_a_missing_file_is_refused_at_once(self, tmp_path):
        path = tmp_path / "missing.jsonl"
        with pytest.raises(SourceError, match="no such file") as caught:
            SourceFile(path)
        assert str(path) in str(caught.value)

    def test_a_folder_is_refused_at_once(self, tmp_path):
        folder = tmp_path / "docs.jsonl"
        folder.mkdir()
        with pytest.raises(SourceError, match="not a file") as caught:
            SourceFile(folder)
        assert str(folder) in str(caught.value)

    @pytest.mark.parametrize("name", ["docs.csv", "docs", "docs.json", "docs.gz", "docs.tsv.gz", "docs.jsonl.zip"])
    def test_an_unknown_suffix_is_refused_at_once_naming_the_known_ones(self, tmp_path, name):
        path = write(tmp_path, name, b"")
        with pytest.raises(SourceError, match=r"unknown kind of file; expected \.jsonl, \.jsonl\.gz,") as caught:
            SourceFile(path)
        assert str(path) in str(caught.value)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_without_read_permission_is_refused(self, tmp_path):
        for kind in (".jsonl", ".jsonl.gz", ".parquet", ".tsv"):
            path = write_records(tmp_path, kind, RECORDS)
            path.chmod(0)
            assert str(path) in error_of(path)

    @pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that fails to read")
    @all_kinds
    def test_a_file_that_fails_while_it_is_read_is_refused(self, tmp_path, kind):
        path = tmp_path / f"docs{kind}"
        path.symlink_to("/proc/self/mem")
        assert error_of(path).startswith(f"{path}: cannot be read (")

    def test_the_error_is_an_input_error(self, tmp_path):
        with pytest.raises(InputError):
            SourceFile(tmp_path / "missing.jsonl")


class TestDamagedJsonl:
    @pytest.mark.parametrize("line", [b'{"id": "a"', b"{'id': 'a'}", b'{"id": "a"} x', b"\x00"])
    def test_broken_json_names_file_and_line(self, tmp_path, line):
        path = write(tmp_path, "docs.jsonl", GOOD_LINE + b"\n" + line + b"\n" + GOOD_LINE)
        assert error_of(path).startswith(f"{path}:3: not valid JSON (")

    @pytest.mark.parametrize(
        ("line", "kind"), [(b"[1]", "list"), (b'"a"', "str"), (b"1", "int"), (b"null", "NoneType"), (b"true", "bool")]
    )
    def test_json_that_is_no_object_names_file_line_and_kind(self, tmp_path, line, kind):
        path = write(tmp_path, "docs.jsonl", GOOD_LINE + line + b"\n")
        assert error_of(path) == f"{path}:2: expected a JSON object, not {kind}"

    @pytest.mark.parametrize("line", [b'{"id": ' + b"1" * 5000 + b"}", b"[" * 100_000], ids=["number", "nesting"])
    def test_json_beyond_the_parsers_limits_names_file_and_line(self, tmp_path, line):
        path = write(tmp_path, "docs.jsonl", GOOD_LINE + line + b"\n")
        assert error_of(path).startswith(f"{path}:2: not valid JSON (")

    def test_lines_before_the_broken_one_are_read(self, tmp_path):
        source = iter(SourceFile(write(tmp_path, "docs.jsonl", GOOD_LINE + b"{\n")))
        assert next(source)[1] == {"id": "d", "text": "x"}
        with pytest.raises(SourceError):
            next(source)

    def test_an_empty_file_has_no_records(self, tmp_path):
        assert records_of(write(tmp_path, "docs.jsonl", b"")) == []
        assert records_of(write(tmp_path, "docs.jsonl.gz", gzip.compress(b""))) == []


class TestBytesThatAreNotUtf8:
    @pytest.mark.parametrize("content", [b'{"id": "\xff"}\n', '{"id": "寺"}'.encode("cp932"), b'{"id": "\xe5\xaf'])
    def test_the_first_line_is_named(self, tmp_path, content):
        path = write(tmp_path, "docs.jsonl", content)
        assert error_of(path).startswith(f"{path}:1: not UTF-8")

    def test_a_file_cut_within_a_character_names_its_last_line(self, tmp_path):
        path = write(tmp_path, "docs.jsonl", GOOD_LINE * 3 + "寺".encode()[:2])
        assert error_of(path).startswith(f"{path}:4: not UTF-8")

    @pytest.mark.parametrize("lines_before", [1, 1000])
    def test_a_later_line_is_named(self, tmp_path, lines_before):
        path = write(tmp_path, "docs.jsonl", GOOD_LINE * lines_before + b'{"id": "\xff"}\n' + GOOD_LINE)
        assert error_of(path).startswith(f"{path}:{lines_before + 1}: not UTF-8")

    def test_inside_gzip_and_tsv_the_line_is_named(self, tmp_path):
        for name, content in (
            ("a.jsonl.gz", gzip.compress(GOOD_LINE + b"\xff\n")),
            ("a.tsv", b"id\ttext\n\xff\tx\n"),
        ):
            path = write(tmp_path, name, content)
            assert error_of(path).startswith(f"{path}:2: not UTF-8")


class TestDamagedGzip:
    # Hexadecimal of a generator's numbers: hard to compress, so that damage falls into the data.
    LINES = b"".join(b'{"id": "%d", "text": "%x"}\n' % (i, pow(3, 1000 + i, 1 << 256)) for i in range(300))

    def test_a_truncated_file_is_named(self, tmp_path):
        packed = gzip.compress(self.LINES)
        for length in (5, len(packed) // 2, len(packed) - 4):
            path = write(tmp_path, "docs.jsonl.gz", packed[:length])
            assert error_of(path).startswith(f"{path}: cannot be read (")

    def test_a_file_that_is_not_gzip_is_named(self, tmp_path):
        path = write(tmp_path, "docs.jsonl.gz", GOOD_LINE)
        assert error_of(path).startswith(f"{path}: cannot be read (Not a gzipped file")

    def test_a_file_with_damaged_data_is_named(self, tmp_path):
        packed = gzip.compress(self.LINES)
        damaged = packed[:10] + b"\xff" * 100 + packed[110:]
        path = write(tmp_path, "docs.jsonl.gz", damaged)
        assert error_of(path).startswith(f"{path}: cannot be read (")


class TestDamagedParquet:
    @pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all", b"PAR1" + b"x" * 100 + b"PAR1"])
    def test_a_file_that_is_no_parquet_is_named(self, tmp_path, content):
        path = write(tmp_path, "docs.parquet", content)
        assert error_of(path).startswith(f"{path}: cannot be read (")

    def test_a_truncated_file_is_named(self, tmp_path):
        content = write_records(tmp_path, ".parquet", RECORDS).read_bytes()
        path = write(tmp_path, "cut.parquet", content[: len(content) // 2])
        assert error_of(path).startswith(f"{path}: cannot be read (")

    def test_a_file_with_damaged_pages_is_named(self, tmp_path):
        content = bytearray(write_records(tmp_path, ".parquet", RECORDS * 100).read_bytes())
        content[4:60] = b"\xff" * 56
        path = write(tmp_path, "damaged.parquet", content)
        assert error_of(path).startswith(f"{path}: cannot be read (")

    def test_strings_that_are_not_utf8_are_reported_with_file_and_rows(self, tmp_path):
        bad = pa.array([b"\xff"], pa.binary()).view(pa.string())
        path = tmp_path / "docs.parquet"
        pq.write_table(pa.table({"id": ["a"], "text": bad}), path)
        assert error_of(path).startswith(f"{path} rows 0 to 1: ")


class TestDamagedTsv:
    @pytest.mark.parametrize(("line", "count"), [("b", 1), ("b\tx\ty", 3), ("  ", 1)])
    def test_a_wrong_number_of_fields_names_file_and_line(self, tmp_path, line, count):
        path = write(tmp_path, "docs.tsv", f"id\ttext\na\tx\n\n{line}\n".encode())
        assert error_of(path) == f"{path}:4: {count} fields, but the header has 2"

    def test_a_quote_does_not_join_lines(self, tmp_path):
        path = write(tmp_path, "docs.tsv", b'id\ttext\na\t"x\nb\n')
        assert error_of(path).startswith(f"{path}:3: 1 fields")

    @pytest.mark.parametrize("content", [b"", BOM, b"\nid\ttext\n", b" \t\n"])
    def test_a_file_without_a_header_is_refused(self, tmp_path, content):
        path = write(tmp_path, "docs.tsv", content)
        assert error_of(path) == f"{path}:1: expected a header line with the field names"

    def test_a_header_that_names_a_field_twice_is_refused(self, tmp_path):
        path = write(tmp_path, "docs.tsv", b"id\ttext\tid\n")
        assert error_of(path) == f"{path}:1: the field 'id' occurs twice in the header"

    def test_a_header_alone_has_no_records(self, tmp_path):
        assert records_of(write(tmp_path, "docs.tsv", b"id\ttext\n")) == []

    def test_a_long_text_is_read_whole(self, tmp_path):
        text = "寺" * 140_000
        assert records_of(write(tmp_path, "docs.tsv", f"id\ttext\na\t{text}\n".encode())) == [{"id": "a", "text": text}]
