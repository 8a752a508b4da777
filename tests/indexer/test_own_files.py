"""Files as people have them: Japanese encodings, CSV from spreadsheets, folders of texts, DataFrames."""

from __future__ import annotations

import datetime
import io
import json
import unicodedata
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tansaku import FieldNames, Index, InputError, Rejects, Searcher, Source, SourceError
from tansaku.indexer.read.encodings import as_utf8, find_encoding
from tansaku.indexer.read.line_formats import BadRecord
from tansaku.indexer.read.typed_text import TextTypes

from ..support.fakes import FakeEncoder, rows_by_id

TEXT = "id,題名,text\n1,髙橋①,京都の金閣寺は、足利義満が建てた。\n2,㈱山﨑,大阪城は豊臣秀吉が築いた。\n"
PLAIN = TEXT.replace("髙", "高").replace("①", "").replace("㈱", "").replace("﨑", "崎")


def records(source) -> list[Any]:
    return [record for _, record in source]


def create(tmp_path, documents, **options):
    Index.create(tmp_path / "db", "t", documents, encoder=FakeEncoder(), **options)
    return rows_by_id(tmp_path / "db")


class TestEncodings:
    @pytest.mark.parametrize(
        ("encoding", "text"),
        [
            ("cp932", TEXT),
            ("shift_jis", PLAIN),
            ("euc_jp", PLAIN),
            ("iso2022_jp", PLAIN),
            ("iso2022_jp_2004", PLAIN.replace("高", "𠮟")),
            ("utf-16", TEXT),
            ("utf-8-sig", TEXT),
        ],
    )
    def test_are_recognized_and_that_is_said(self, tmp_path, caplog, encoding, text):
        path = tmp_path / "docs.csv"
        path.write_bytes(text.encode(encoding))
        source = Source(path)
        found = records(source)
        assert [list(record.values()) for record in found] == [row.split(",") for row in text.splitlines()[1:]]
        assert list(found[0]) == ["id", "題名", "text"]
        assert records(source) == found
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == (not encoding.startswith("utf"))
        assert all("read as" in text and "--encoding" in text for text in said)

    @pytest.mark.parametrize("encoding", ["cp932", "Shift_JIS", "euc-jp", "ISO-2022-JP", "utf-16-le", "latin-1"])
    @pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "txt"])
    def test_can_be_named(self, tmp_path, caplog, kind, encoding):
        value = "café" if encoding == "latin-1" else "京都の寺"
        rows = [{"id": "a", "text": value}, {"id": "b", "text": value}]
        content = {
            "csv": f"id,text\na,{value}\nb,{value}\n",
            "tsv": f"id\ttext\na\t{value}\nb\t{value}\n",
            "jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
            "json": json.dumps(rows, ensure_ascii=False),
            "txt": value,
        }[kind]
        path = tmp_path / f"docs.{kind}"
        path.write_bytes(content.encode(encoding))
        assert {record["text"] for record in records(Source(path, encoding=encoding))} == {value}
        assert not caplog.records

    def test_a_broken_character_spoils_its_own_line_only(self, tmp_path):
        path = tmp_path / "docs.csv"
        lines = TEXT.encode("cp932").splitlines(keepends=True)
        path.write_bytes(b"".join([*lines, b"3,x,\x81 \n", *lines[1:2]]))
        *good, bad, last = records(Source(path))
        assert isinstance(bad, BadRecord)
        assert "does not have; name the right one (--encoding)" in bad.reason
        assert (len(good), last["題名"]) == (2, "髙橋①")

    def test_one_broken_line_does_not_make_utf8_another_encoding(self, tmp_path, caplog):
        path = tmp_path / "docs.csv"
        path.write_bytes(TEXT.encode() + "3,寺,寺\n".encode("cp932"))
        *good, bad = records(Source(path))
        assert (good[0]["題名"], isinstance(bad, BadRecord), caplog.records) == ("髙橋①", True, [])

    def test_an_unknown_one_is_refused_with_examples(self, tmp_path):
        for name in ("sjiss", "hex", "rot13"):
            with pytest.raises(InputError, match=f"unknown encoding '{name}' .*; use one such as cp932, euc-jp"):
                Source(tmp_path, encoding=name)

    @given(st.text(st.characters(codec="cp932", exclude_categories=["Cc"], exclude_characters="¢£¬‖−〜"), min_size=1))
    def test_any_text_of_cp932_is_read_as_it_was_written(self, text):
        data = text.encode("cp932")
        assert as_utf8(io.BytesIO(data), "cp932").read().decode() == data.decode("cp932")
        assert find_encoding(io.BytesIO(data)) in ("utf-8", "cp932", "euc_jp")


def test_a_title_above_the_names_of_the_fields_is_thought_of(tmp_path):
    path = tmp_path / "sales.csv"
    path.write_text("売上一覧表,,\n2024年度,,\nid,text,売上\n1,東京の店,1200\n", encoding="cp932")
    with pytest.raises(InputError, match=r"neither a field 'id' nor .* \(fields: 売上一覧表\).*: --header-row"):
        create(tmp_path, path)
    assert create(tmp_path, Source(path, header_row=3))["1"]["売上"] == 1200


class TestColumnTypes:
    CSV = (
        "id,text,年,価格,郵便,発売,公開,時刻,メモ,空\n"
        "1,寺,1950,1.50,0123,2024/1/3,TRUE,2024-01-03 10:00,,\n"
        "2,城,,2,9999,2024-01-04,false,2024/1/4 11:30:05,x,\n"
    )

    def test_of_csv_are_found_in_all_values(self, tmp_path):
        path = tmp_path / "docs.csv"
        path.write_text(self.CSV, encoding="utf-8")
        index = Index.create(tmp_path / "db", "t", path, encoder=FakeEncoder())
        assert index.last_build is not None
        assert index.last_build.column_types == {
            "年": "integer",
            "価格": "number",
            "郵便": "string",
            "発売": "date",
            "公開": "boolean",
            "時刻": "timestamp",
            "メモ": "string",
            "空": "string",
        }
        one, two = (rows_by_id(tmp_path / "db")[key] for key in "12")
        assert (one["年"], two["年"], one["価格"], one["郵便"]) == (1950, None, 1.5, "0123")
        assert (one["発売"], one["公開"]) == (datetime.date(2024, 1, 3), True)
        assert (two["時刻"], one["メモ"]) == (datetime.datetime(2024, 1, 4, 11, 30, 5), "")
        searcher = Searcher.open(tmp_path / "db", "t", encoder=FakeEncoder())
        for where, ids in {
            "年 < 1960": ["1"],
            "発売 >= '2024-01-04'": ["2"],
            "価格 = 1.5": ["1"],
            "公開": ["1"],
            "郵便 = '0123'": ["1"],
        }.items():
            assert [hit.id for hit in searcher.search("寺", where=where)] == ids

    def test_later_rows_take_the_types_of_the_index(self, tmp_path):
        path = tmp_path / "docs.csv"
        path.write_text("id,text,code,year\n1,寺,A1,1950\n", encoding="utf-8")
        index = Index.create(tmp_path / "db", "t", path, encoder=FakeEncoder())
        path.write_text("id,text,code,year\n2,城,77,\n", encoding="utf-8")
        index.add(path)
        assert (rows_by_id(tmp_path / "db")["2"]["code"], rows_by_id(tmp_path / "db")["2"]["year"]) == ("77", None)
        path.write_text("id,text,code,year\n3,城,x,about 1900\n", encoding="utf-8")
        with pytest.raises(InputError, match=r":2: field 'year' is 'about 1900', but its column has the type integer"):
            index.add(path)

    def test_can_be_given(self, tmp_path):
        path = tmp_path / "docs.csv"
        path.write_text(self.CSV, encoding="utf-8")
        names = FieldNames(types={"年": "string", "価格": "decimal(10,2)"})
        row = create(tmp_path, path, names=names)["1"]
        assert (row["年"], row["価格"]) == ("1950", Decimal("1.50"))

    def test_given_ones_hold_for_other_sources_and_for_columns_that_are_empty(self, tmp_path):
        index = Index.create(
            tmp_path / "db",
            "t",
            [{"id": "1", "text": "寺", "year": None}],
            names=FieldNames(types={"year": "integer"}),
            encoder=FakeEncoder(),
        )
        index.add([{"id": "2", "text": "城", "year": 1950}])
        assert rows_by_id(tmp_path / "db")["2"]["year"] == 1950

    @pytest.mark.parametrize(("kind", "expected"), [("integer", 12800), ("number", 12800.0), ("decimal(9,0)", 12800)])
    def test_given_numbers_may_have_commas_between_thousands(self, tmp_path, kind, expected):
        (tmp_path / "d.csv").write_text('id,text,価格\na,茶,"12,800"\nb,茶,980\n', encoding="utf-8")
        rows = create(tmp_path, Source(tmp_path / "d.csv"), names=FieldNames(types={"価格": kind}))
        assert {doc_id: row["価格"] for doc_id, row in rows.items()} == {"a": expected, "b": 980}

    @pytest.mark.parametrize("text", ["1,980円", "￥1,980", "¥1,980", "\\1,980", "１，９８０円", " 1,980 "])
    def test_given_numbers_may_be_amounts_as_japanese_files_have_them(self, text):
        assert TextTypes({"価格": pa.int64()}).read({"価格": text}, "a.csv:2") == {"価格": 1980}
        for minus in "-▲△":
            read = TextTypes({"価格": pa.float64()}).read({"価格": f"{minus}{text.strip()}"}, "a.csv:2")
            assert read == {"価格": -1980.0}

    def test_dates_may_be_written_in_japanese(self, tmp_path):
        text = "id,text,日,時\n1,寺,2024年1月3日,2024年1月3日 10:00\n2,城,2024年12月31日,2024-01-04\n"
        (tmp_path / "d.csv").write_text(text, encoding="cp932")
        row = create(tmp_path, tmp_path / "d.csv")["1"]
        assert (row["日"], row["時"]) == (datetime.date(2024, 1, 3), datetime.datetime(2024, 1, 3, 10))
        types = TextTypes()
        types.see({"月": "2024年1月", "日": "2024年13月1日"})
        assert types.found() == {"月": "string", "日": "string"}

    @pytest.mark.parametrize("zone", ["Asia/Tokyo", "+09:00", "UTC"])
    def test_times_with_a_zone_have_a_type(self, tmp_path, zone):
        texts = ["2024-07-15T09:00:00+09:00", "2024-07-15T00:00:00Z", "2024-07-15 09:00:00+0900"]
        documents = [{"id": str(i), "text": "寺", "at": text} for i, text in enumerate(texts)]
        rows = create(tmp_path, documents, names=FieldNames(types={"at": f"timestamp({zone})"}))
        moment = datetime.datetime(2024, 7, 15, tzinfo=datetime.timezone.utc)
        assert {row["at"] for row in rows.values()} == {moment}
        local = TextTypes({"at": pa.timestamp("us", zone)}).read({"at": "2024-07-15 09:00"}, "a.csv:2")["at"]
        assert local == moment + datetime.timedelta(hours=9 if zone == "UTC" else 0)
        with pytest.raises(InputError, match=r"the type timestamp \(with a time zone, .* timestamp\(Asia/Tokyo\)\)"):
            create(tmp_path, documents, names=FieldNames(types={"at": "timestamp"}), overwrite=True)

    def test_an_unknown_zone_is_refused(self):
        for zone in ("Mars", "../etc", "Asia", "+9:00"):
            with pytest.raises(InputError, match=r"unknown time zone .*; use one such as UTC, Asia/Tokyo"):
                FieldNames(types={"at": f"timestamp({zone})"})

    @pytest.mark.parametrize("text", ["1,20", "12,34,567", "0,123", "1,234,", "1,234ドル"])
    def test_other_commas_are_no_numbers(self, tmp_path, text):
        (tmp_path / "d.csv").write_text(f'id,text,n\na,茶,"{text}"\n', encoding="utf-8")
        with pytest.raises(InputError, match=r"has the type decimal .*string"):
            create(tmp_path, Source(tmp_path / "d.csv"), names=FieldNames(types={"n": "decimal(9,2)"}))

    def test_an_unknown_one_is_refused(self):
        for kind in ("int64", "decimal(2,3)", "decimal(50,1)"):
            with pytest.raises(InputError, match=r"unknown column type .*; use string, integer, number"):
                FieldNames(types={"a": kind})

    def test_what_json_has_no_type_for_is_read_as_the_type_that_is_given(self, tmp_path):
        path = tmp_path / "docs.jsonl"
        lines = [
            '{"id": "a", "text": "寺", "day": "2024/1/3", "price": 19.80, "cost": "123456789012345678.90", "n": 1}'
        ]
        path.write_text("\n".join(lines), encoding="utf-8")
        types = {"day": "date", "price": "decimal(10,2)", "cost": "decimal(20,2)", "n": "decimal(3,0)"}
        row = create(tmp_path, path, names=FieldNames(types=types))["a"]
        assert (row["day"], row["price"]) == (datetime.date(2024, 1, 3), Decimal("19.80"))
        assert (row["cost"], row["n"]) == (Decimal("123456789012345678.90"), 1)
        # Later rows take the types of the table.
        Index.open(tmp_path / "db", "t", encoder=FakeEncoder()).upsert([{"id": "b", "text": "城", "day": "2024-01-04"}])
        assert rows_by_id(tmp_path / "db")["b"]["day"] == datetime.date(2024, 1, 4)

    @pytest.mark.parametrize(
        ("value", "problem"),
        [(1234567890123456.7, "keeps 15 digits; write it in quotes"), ("1.234", r"1\.234.*does not fit"), ("x", "'x'")],
    )
    def test_no_digit_of_a_decimal_is_lost_in_silence(self, tmp_path, value, problem):
        with pytest.raises(InputError, match=problem):
            create(tmp_path, [{"id": "a", "text": "寺", "p": value}], names=FieldNames(types={"p": "decimal(20,2)"}))

    @given(st.lists(st.one_of(st.integers(), st.floats(allow_nan=False).map(repr), st.text(max_size=5)).map(str)))
    def test_nothing_is_lost_by_them(self, values):
        types = TextTypes()
        for value in values:
            types.see({"a": value})
        for value in values:
            read = types.read({"a": value}, "here")["a"]
            if isinstance(read, bool):
                assert str(read).lower() == value.lower()
            elif isinstance(read, int):
                assert read == int(value)
            elif isinstance(read, float):
                assert Decimal(read) == Decimal(value) or repr(read) == repr(float(value))
            else:
                assert read in (value, None)


class TestFields:
    ROWS = ({"番号": 7, "題名": "金閣寺", "本文": "北山にある。", "注": "金箔", "year": 1397},)

    def test_texts_are_joined(self, tmp_path):
        names = FieldNames(id="番号", text=("題名", "本文", "注"))
        assert create(tmp_path, self.ROWS, names=names)["7"]["text"] == "金閣寺\n北山にある。\n金箔"

    def test_are_chosen_dropped_and_renamed(self, tmp_path):
        names = FieldNames(id="番号", text="本文", title="題名", drop=("注",), rename={"year": "年"})
        row = create(tmp_path, self.ROWS, names=names)["7"]
        assert (row["年"], "注" in row, "year" in row) == (1397, False, False)

    def test_two_that_would_become_one_column_are_refused(self, tmp_path):
        names = FieldNames(id="番号", text="本文", rename={"year": "注"})
        with pytest.raises(InputError, match="'注', 'year' become one column"):
            create(tmp_path, self.ROWS, names=names)

    def test_kept_ones_alone_become_columns(self, tmp_path):
        row = create(tmp_path, self.ROWS, names=FieldNames(id="番号", text="本文", keep=("year",)))["7"]
        assert (row["year"], "注" in row, "題名" in row) == (1397, False, False)

    def test_ids_can_be_made_and_are_the_same_again(self, tmp_path):
        texts = [{"text": "寺"}, {"text": "城"}, {"text": "寺"}]
        first = create(tmp_path, texts, names=FieldNames(generate_ids=True))
        again = create(tmp_path, texts, names=FieldNames(generate_ids=True), overwrite=True)
        assert sorted(first) == sorted(again)
        assert len(first) == 3
        assert sum(key.endswith("-2") for key in first) == 1

    def test_id_beside__id(self, tmp_path):
        assert list(create(tmp_path, [{"_id": "a", "id": "a", "text": "寺"}])) == ["a"]
        with pytest.raises(InputError, match=r"both _id \('a'\) and id \('b'\) are here; name the field with the id"):
            create(tmp_path, [{"_id": "a", "id": "b", "text": "寺"}], overwrite=True)

    def test_a_name_that_the_index_has_itself_is_refused_with_the_remedy(self, tmp_path):
        with pytest.raises(InputError, match=r"'id' is taken by the index itself; .*--rename-field id=OTHER"):
            create(tmp_path, [{"番号": "a", "id": "b", "text": "寺"}], names=FieldNames(id="番号"))

    def test_names_in_two_normal_forms_are_one(self, tmp_path):
        name = unicodedata.normalize("NFD", "ガイド")
        path = tmp_path / "docs.csv"
        path.write_text(f"id,{name}\n1,寺\n", encoding="utf-8")
        assert create(tmp_path, path, names=FieldNames(text="ガイド"))["1"]["text"] == "寺"

    def test_the_row_numbers_of_pandas_are_left_out_and_that_is_said(self, tmp_path, caplog):
        path = tmp_path / "docs.csv"
        path.write_text(",id,text\n0,a,寺\n1,b,城\n", encoding="utf-8")
        assert records(Source(path)) == [{"id": "a", "text": "寺"}, {"id": "b", "text": "城"}]
        assert "the first column has no name" in caplog.text

    def test_empty_columns_at_the_end_are_nothing_and_values_there_are_errors(self, tmp_path):
        path = tmp_path / "docs.csv"
        path.write_text("id,text,,\na,寺,,\nb,城,,x\n", encoding="utf-8")
        good, bad = records(Source(path))
        assert good == {"id": "a", "text": "寺"}
        assert "column 4 has the value 'x' but no name in the header" in bad.reason


class TestNoise:
    """What is not seen in files that were joined, padded or typed by hand."""

    @pytest.mark.parametrize("noise", ["\ufeff", " ", "\u3000", "\u2028", "\u200b", "\t\ufeff ", "\0"])
    def test_at_the_ends_of_names_is_no_part_of_them(self, tmp_path, noise):
        rows = {
            "csv": f'"{noise}id{noise}",text{noise}\na,寺\n',
            "tsv": f"{noise.strip()}id\ttext{noise.strip()}\na\t寺\n",
        }
        rows["jsonl"] = json.dumps({f"{noise}id": "a", f"text{noise}": "寺"})
        for kind, content in rows.items():
            (tmp_path / f"docs.{kind}").write_text(content, encoding="utf-8")
            found = create(tmp_path, tmp_path / f"docs.{kind}", overwrite=True)["a"]
            assert found["text"] == "寺", kind

    def test_two_names_that_differ_in_it_alone_are_refused(self, tmp_path):
        with pytest.raises(InputError, match="two fields have the same name in different forms"):
            create(tmp_path, [{"id": "a", "text": "寺", "text ": "城"}])

    @pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
    def test_byte_order_marks_of_joined_files_are_left_out(self, tmp_path, kind):
        line = {"csv": "{},寺", "tsv": "{}\t寺", "jsonl": '{{"id": "{}", "text": "寺"}}'}[kind]
        header = {"csv": "id,text\n", "tsv": "id\ttext\n", "jsonl": ""}[kind]
        lines = "\n\ufeff".join(line.format(name) for name in "ab")
        (tmp_path / f"docs.{kind}").write_text("\ufeff" + header + lines, encoding="utf-8")
        assert sorted(create(tmp_path, tmp_path / f"docs.{kind}")) == ["a", "b"]

    @pytest.mark.parametrize("kind", ["csv", "tsv", "txt"])
    def test_null_characters_of_text_files_are_left_out_and_that_is_said(self, tmp_path, caplog, kind):
        content = {"csv": "id,text\na\0,寺\0院\n", "tsv": "id\ttext\na\0\t寺\0院\n", "txt": "寺\0院"}[kind]
        (tmp_path / f"a.{kind}").write_text(content, encoding="utf-8")
        ((_, row),) = create(tmp_path, tmp_path / f"a.{kind}").items()
        assert row["text"] == "寺院"
        assert "null characters are left out" in caplog.text

    def test_an_id_with_a_null_character_is_refused(self, tmp_path):
        with pytest.raises(InputError, match=r"field 'id' is 'a\\x00', an id with a null character; correct the id"):
            create(tmp_path, [{"id": "a\0", "text": "寺"}])

    def test_line_separators_within_values_stay(self, tmp_path):
        (tmp_path / "a.csv").write_text("id,text\na\u2028b,寺\u2028院\n", encoding="utf-8")
        assert create(tmp_path, tmp_path / "a.csv")["a\u2028b"]["text"] == "寺\u2028院"

    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
    @pytest.mark.parametrize("text", [TEXT, "id,text\na,abc\n", "id,text\n" + "a,金閣寺は北山にある寺院。\n" * 9])
    def test_utf_16_without_a_byte_order_mark_is_recognized(self, text, encoding):
        assert find_encoding(io.BytesIO(text.encode(encoding))) == encoding
        assert find_encoding(io.BytesIO(text.replace("金", "\0").encode())) == "utf-8"

    @pytest.mark.parametrize("form", ["NFC", "NFD"])
    def test_names_in_options_and_conditions_match_in_either_form(self, tmp_path, form):
        def of(name):
            return unicodedata.normalize(form, name)

        other = "NFD" if form == "NFC" else "NFC"
        header = unicodedata.normalize(other, "ガイド,ページ,プラン,バス,id")
        (tmp_path / "a.csv").write_text(f"{header}\n寺,3,x,y,a\n", encoding="utf-8")
        names = FieldNames(
            text=(of("ガイド"),),
            keep=(of("ページ"), of("プラン"), of("バス")),
            drop=(of("プラン"),),
            rename={of("バス"): "bus"},
            types={of("ページ"): "number"},
        )
        row = create(tmp_path, tmp_path / "a.csv", names=names)["a"]
        assert (row["text"], row["ページ"], row["bus"], "プラン" in row) == ("寺", 3.0, "y", False)
        searcher = Searcher.open(tmp_path / "db", "t", encoder=FakeEncoder())
        assert [hit.id for hit in searcher.search("寺", where=of("ページ") + " = 3")] == ["a"]


class TestSources:
    def test_json_lines_have_another_suffix_too(self, tmp_path):
        (tmp_path / "docs.ndjson").write_text('{"id": "a"}\n\n{"id": "b"}\n', encoding="utf-8")
        assert records(Source(tmp_path / "docs.ndjson")) == [{"id": "a"}, {"id": "b"}]

    def test_a_folder_of_texts(self, tmp_path, caplog):
        (tmp_path / "notes" / "sub").mkdir(parents=True)
        (tmp_path / "notes" / "寺.md").write_text("# 金閣寺\n\n北山にある。\n", encoding="utf-8")
        (tmp_path / "notes" / "sub" / "城.txt").write_bytes("大阪城は豊臣秀吉が築いた。".encode("cp932"))
        (tmp_path / "notes" / "Thumbs.db").write_bytes(b"\0")
        (tmp_path / "notes" / "photo.jpg").write_bytes(b"\0")
        rows = create(tmp_path, tmp_path / "notes")
        assert {key: row["title"] for key, row in rows.items()} == {"寺.md": "寺", "sub/城.txt": "城"}
        assert rows["sub/城.txt"]["text"] == "大阪城は豊臣秀吉が築いた。"
        assert "left out 2 files without data: Thumbs.db, photo.jpg" in caplog.text

    @pytest.mark.parametrize("pattern", ["", "*.txt"])
    def test_texts_without_text_are_left_out_and_that_is_said(self, tmp_path, caplog, pattern):
        for name, content in {"a": b"\xe5\xaf\xba", "b": b"", "c": b"\xff\xfe\n\0", "d": b" \n\0"}.items():
            (tmp_path / f"{name}.txt").write_bytes(content)
        source = Source(tmp_path / pattern)
        assert (
            [record["text"] for record in records(source)] == [record["text"] for record in records(source)] == ["寺"]
        )
        said = [
            record.getMessage() for record in caplog.records if "left out 3 files without text: " in record.getMessage()
        ]
        assert len(said) == 1
        with pytest.raises(InputError, match=r"b\.txt: field 'text' of 'b\.txt' is empty"):
            create(tmp_path, tmp_path / "b.txt")

    def test_texts_beside_data_are_left_out_and_that_is_said(self, tmp_path, caplog):
        (tmp_path / "a.jsonl").write_text('{"id": "a"}\n', encoding="utf-8")
        (tmp_path / "README.md").write_text("about", encoding="utf-8")
        assert records(Source(tmp_path)) == [{"id": "a"}]
        assert "left out 1 file without data: README.md" in caplog.text

    def test_several_files_and_patterns(self, tmp_path):
        for name in "ab":
            (tmp_path / f"{name}.csv").write_text(f"id,text\n{name},寺\n", encoding="utf-8")
        paths = [tmp_path / "b.csv", str(tmp_path / "a.csv")]
        assert [record["id"] for record in records(Source(paths))] == ["b", "a"]
        assert sorted(create(tmp_path, paths)) == ["a", "b"]
        assert [record["id"] for record in records(Source(tmp_path / "*.csv"))] == ["a", "b"]
        with pytest.raises(SourceError, match="no such file"):
            Source(tmp_path / "*.tsv")

    def test_a_spreadsheet(self, tmp_path, caplog):
        openpyxl = pytest.importorskip("openpyxl")
        pytest.importorskip("python_calamine")
        book = openpyxl.Workbook()
        sheet = book.active
        sheet.append(["番号", "本文", "年", "日付", "価格", None])
        sheet.append([1, "金閣寺", 1397, datetime.date(2024, 1, 3), 1.5, None])
        sheet.append([None] * 6)
        sheet.append([2, "大阪城", None, datetime.date(2024, 1, 4), 2, None])
        book.create_sheet("別").append(["番号"])
        book.save(tmp_path / "docs.xlsx")
        rows = create(tmp_path, tmp_path / "docs.xlsx", names=FieldNames(id="番号", text="本文"))
        assert (rows["1"]["年"], rows["1"]["日付"], rows["1"]["価格"]) == (1397, datetime.date(2024, 1, 3), 1.5)
        assert (rows["2"]["年"], rows["2"]["価格"]) == (None, 2.0)
        assert "only the sheet 'Sheet' is read, and not '別'" in caplog.text
        with pytest.raises(SourceError, match="no sheet 'x'; choose one: 'Sheet', '別'"):
            records(Source(tmp_path / "docs.xlsx", sheet="x"))
        (tmp_path / "bad.xlsx").write_bytes(b"PK")
        with pytest.raises(SourceError, match=r"bad\.xlsx: cannot be read .*; save the spreadsheet again, or as CSV"):
            records(Source(tmp_path / "bad.xlsx"))

    def test_tables_of_arrow(self, tmp_path):
        table = pa.table({"id": ["a", "b"], "text": ["寺", "城"], "price": [Decimal("1.50"), None]})
        for number, given_ in enumerate([table, table.to_batches()[0], table.to_reader()]):
            rows = create(tmp_path, given_, overwrite=number > 0)
            assert (rows["a"]["price"], rows["b"]["price"]) == (Decimal("1.50"), None)

    def test_data_frames_of_pandas(self, tmp_path):
        pd = pytest.importorskip("pandas")
        frame = pd.DataFrame(
            {
                "id": [1, 2],
                "text": ["寺", "城"],
                "year": pd.array([1397, None], dtype="Int64"),
                "price": [1.5, float("nan")],
                "day": [pd.Timestamp("2024-01-03"), pd.NaT],
                "tag": pd.Series(["x", pd.NA], dtype="string"),
            }
        )
        frame.index = pd.Index([5, 5])
        rows = create(tmp_path, frame)
        one, two = rows["1"], rows["2"]
        assert (one["year"], one["price"], one["tag"]) == (1397, 1.5, "x")
        assert one["day"] == datetime.datetime(2024, 1, 3)
        assert {two[name] for name in ("year", "price", "day", "tag")} == {None}
        with pytest.raises(InputError, match="two columns 'text'"):
            create(tmp_path, pd.concat([frame, frame[["text"]]], axis=1), overwrite=True)

    def test_an_index_of_pandas_that_has_a_field_is_not_left_out_in_silence(self, tmp_path):
        pd = pytest.importorskip("pandas")
        frame = pd.DataFrame({"id": ["a", "b"], "text": ["寺", "城"], "title": ["一", "二"]})
        for name in ("id", "text", "title"):
            with pytest.raises(InputError, match=rf"no column '{name}' \(columns: .*give df\.reset_index\(\), which"):
                create(tmp_path, frame.set_index(name))
        with pytest.raises(InputError, match=r"no column 'id' .*give df\.reset_index\(names='id'\)"):
            create(tmp_path, frame.set_index("id").rename_axis(None))
        assert list(create(tmp_path, frame.set_index("id").reset_index())) == ["a", "b"]
        without = frame.drop(columns="id")
        with pytest.raises(InputError, match="row 0: no field 'id' here"):
            create(tmp_path, without, overwrite=True)
        without.index = pd.Index([5, 7])
        assert len(create(tmp_path, without, names=FieldNames(generate_ids=True), overwrite=True)) == 2

    def test_ids_that_pandas_made_floats_are_refused_with_the_remedy(self, tmp_path):
        pd = pytest.importorskip("pandas")
        with pytest.raises(InputError, match=r"not float \(12\.0\); .*astype\('Int64'\)"):
            create(tmp_path, pd.DataFrame({"id": [12, None], "text": ["寺", "城"]}))

    def test_data_frames_of_polars(self, tmp_path):
        pl = pytest.importorskip("polars")
        frame = pl.DataFrame({"id": ["a", "b"], "text": ["寺", "城"], "year": [1397, None]})
        assert create(tmp_path, frame)["a"]["year"] == 1397
        assert create(tmp_path, frame.lazy(), overwrite=True)["b"]["year"] is None

    def test_other_kinds_are_refused(self, tmp_path):
        with pytest.raises(InputError, match="documents cannot be int; give mappings, a Source, a path"):
            create(tmp_path, 3)

    def test_rejects_count_what_a_text_could_not_be_read_of(self, tmp_path):
        (tmp_path / "a.txt").write_text("寺", encoding="utf-8")
        (tmp_path / "b.txt").write_text("", encoding="utf-8")
        with Rejects(tmp_path / "rejects.jsonl") as rejects:
            assert list(create(tmp_path, [tmp_path / "a.txt", tmp_path / "b.txt"], rejects=rejects)) == ["a.txt"]
            assert len(rejects) == 1
