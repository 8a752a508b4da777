"""From records to checked documents."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tansaku import BadRecord, Document, FieldNames, InputError
from tansaku.indexer.read.documents import PASSAGE_FIELDS, RESERVED_FIELDS, DocumentReader

from ..support.fakes import noted_in

deterministic = settings(deadline=None, derandomize=True, max_examples=60)
blank = pytest.mark.parametrize("value", ["", " ", "\n\t", "　"])


def read(*records, names=None):
    return list(DocumentReader(list(records), names))


def record(**fields):
    return {"id": "d1", "text": "金閣寺は京都にある。", **fields}


class TestReading:
    def test_a_record_becomes_a_document(self):
        made = read(record(title="金閣寺", year=1397, tags=["寺", "京都"]))
        fields = {"year": 1397, "tags": ["寺", "京都"]}
        assert made == [Document("d1", "金閣寺は京都にある。", "金閣寺", fields)]

    @pytest.mark.parametrize("title", [{}, {"title": None}, {"title": ""}])
    def test_the_title_may_be_absent_null_or_empty(self, title):
        assert read(record(**title)) == [Document("d1", "金閣寺は京都にある。", "")]

    @pytest.mark.parametrize("key", ["id", "_id"])
    def test_the_id_is_in_id_or_underscore_id(self, key):
        assert read({key: "d1", "text": "寺"}) == [Document("d1", "寺")]

    def test_underscore_id_beside_another_id_is_refused(self):
        with pytest.raises(InputError, match=r"document 0: both _id \('d1'\) and id \('d2'\) are here"):
            read({"_id": "d1", "id": "d2", "text": "寺"})
        assert read({"_id": "d1", "id": "d1", "text": "寺"}) == [Document("d1", "寺")]

    def test_named_fields_are_taken_from_where_they_are_named(self):
        names = FieldNames(id="番号", text="本文", title="題")
        row = {"番号": "d1", "本文": "寺", "題": "京都", "_id": "keep", "year": 794}
        assert read(row, names=names) == [Document("d1", "寺", "京都", {"_id": "keep", "year": 794})]

    def test_the_id_is_not_looked_for_elsewhere_once_named(self):
        with pytest.raises(InputError, match=r"document 0: no field 'docid' here .*_id, text"):
            read({"_id": "d1", "text": "寺"}, names=FieldNames(id="docid"))

    @deterministic
    @given(st.integers())
    def test_an_integer_id_becomes_its_decimal_string(self, number):
        assert [document.id for document in read(record(id=number))] == [f"{number:d}"]

    @deterministic
    @given(
        st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff")).filter(str.strip), unique=True)
    )
    def test_string_ids_and_the_order_of_records_are_kept(self, ids):
        assert [document.id for document in read(*(record(id=doc_id) for doc_id in ids))] == ids

    def test_a_document_knows_its_place(self):
        pair = ("docs.jsonl:4", record(id="b"))
        assert [made.place for made in read(record(), pair)] == ["document 0", "docs.jsonl:4"]

    def test_documents_pass_through(self):
        documents = [Document("a", "寺", "京都", {"year": 794}), Document("b", "城")]
        assert read(*documents) == documents

    def test_records_and_documents_may_be_mixed(self):
        assert [made.id for made in read(Document("a", "寺"), record(id="b"))] == ["a", "b"]

    def test_field_names_become_strings(self):
        assert read(record(**{"year": 1}) | {7: "x"})[0].fields == {"year": 1, "7": "x"}

    def test_the_records_are_left_as_they_were(self):
        given_record = record(title="金閣寺", year=1397)
        before = dict(given_record)
        read(given_record)
        assert given_record == before


class TestEncodedText:
    def test_is_title_and_text_with_one_space_between(self):
        assert Document("a", "京都にある。", "金閣寺").encoded_text == "金閣寺 京都にある。"

    def test_is_the_text_alone_without_a_title(self):
        assert Document("a", "京都にある。").encoded_text == "京都にある。"


class TestIterating:
    def test_an_iterator_can_be_read_twice(self):
        reader = DocumentReader(record(id=i) for i in range(3))
        assert [d.id for d in reader] == [d.id for d in reader] == ["0", "1", "2"]

    def test_a_collection_is_read_anew_each_time_and_not_copied(self):
        records = [record(id="a")]
        reader = DocumentReader(records)
        assert [d.id for d in reader] == ["a"]
        records.append(record(id="b"))
        assert [d.id for d in reader] == ["a", "b"]

    def test_no_records_give_no_documents(self):
        assert read() == []


class TestRefusing:
    @pytest.mark.parametrize(("first", "second"), [("a", "a"), (1, 1), (1, "1")])
    def test_an_id_that_occurs_twice(self, first, second):
        with pytest.raises(InputError, match=f"document 2: id '{first}' occurs twice"):
            read(record(id=first), record(id="b"), record(id=second))

    @pytest.mark.parametrize("other", ["か\u3099", "カ", "ｶ", "か", "が "])
    def test_but_not_one_that_differs_in_anything(self, other):
        assert len(read(record(id="が"), record(id=other))) == 2

    def test_a_record_that_could_not_be_parsed(self):
        with pytest.raises(InputError, match=r"^docs\.jsonl:17: not valid JSON"):
            read(("docs.jsonl:17", BadRecord("not valid JSON (cut off)", '{"id": ')))

    @pytest.mark.parametrize("name", PASSAGE_FIELDS)
    def test_a_field_that_is_taken_where_it_is_reserved_only(self, name):
        assert read(record(**{name: 1}))[0].fields == {name: 1}
        reader = DocumentReader([record(**{name: 1})], reserved=(*RESERVED_FIELDS, *PASSAGE_FIELDS))
        with pytest.raises(InputError, match=f"document 0: the field name '{name}' is taken"):
            list(reader)

    def test_a_missing_id(self):
        with pytest.raises(
            InputError, match=r"document 0: no field 'id' here \(fields: text, year\).* --id-field, .*\(id="
        ):
            read({"text": "寺", "year": 794})

    def test_a_missing_text(self):
        with pytest.raises(
            InputError, match=r"document 1: no field 'text' here \(fields: id, body\).* --text-field, .*\(text="
        ):
            read(record(), {"id": "d2", "body": "寺"})

    @pytest.mark.parametrize(("value", "kind"), [(None, "null"), (True, "bool"), (1.0, "float"), (["a"], "list")])
    def test_an_id_that_is_neither_string_nor_integer(self, value, kind):
        with pytest.raises(InputError, match=f"document 0: field 'id' must be a string or an integer, not {kind}"):
            read(record(id=value))

    @blank
    def test_an_empty_id(self, value):
        with pytest.raises(InputError, match="document 0: field 'id' is empty"):
            read(record(id=value))

    def test_a_bad_id_is_reported_under_the_name_it_was_read_from(self):
        with pytest.raises(InputError, match="field '_id' must be"):
            read({"_id": None, "text": "寺"})

    @pytest.mark.parametrize(
        ("name", "value", "kind"),
        [
            ("text", None, "null"),
            *((name, *case) for name in ("text", "title") for case in ((3, "int"), (b"x", "bytes"), (["x"], "list"))),
        ],
    )
    def test_a_text_or_title_that_is_no_string(self, name, value, kind):
        with pytest.raises(InputError, match=f"document 0: field '{name}' of 'd1' must be a string, not {kind}"):
            read(record(**{name: value}))

    @blank
    def test_an_empty_text(self, value):
        with pytest.raises(InputError, match="document 0: field 'text' of 'd1' is empty"):
            read(record(text=value, title="金閣寺"))

    @pytest.mark.parametrize(("name", "owner"), [("id", ""), ("text", " of 'd1'"), ("title", " of 'd1'")])
    def test_half_a_character(self, name, owner):
        with pytest.raises(InputError, match=f"document 0: field '{name}'{owner} has a lone surrogate"):
            read(record(**{name: "寺\ud800"}))

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "a.b",
            ".",
            pytest.param("a\ud800", id="lone surrogate"),
            "_rowid",
            "*",
            "a`b",
        ],
    )
    def test_a_field_name_that_no_column_can_have(self, name):
        with pytest.raises(InputError) as caught:
            read(record(**{name: 1}))
        assert str(caught.value).startswith(f"document 0: a column cannot have the field name {name!r}")

    @pytest.mark.parametrize("name", [n for n in RESERVED_FIELDS if n not in ("id", "text", "title")])
    def test_a_field_that_the_index_fills_itself(self, name):
        with pytest.raises(InputError, match=f"document 0: the field name '{name}' is taken"):
            read(record(**{name: 1}))

    @pytest.mark.parametrize("name", ["id", "text", "title"])
    def test_a_field_called_id_text_or_title_when_those_are_named_otherwise(self, name):
        row = {"番号": "d1", "本文": "寺", "題": "京都", name: "x"}
        with pytest.raises(InputError, match=f"document 0: the field name '{name}' is taken"):
            read(row, names=FieldNames(id="番号", text="本文", title="題"))

    @pytest.mark.parametrize(("value", "kind"), [("寺", "str"), (None, "null"), (["a"], "list"), (3, "int")])
    def test_a_record_that_is_no_mapping(self, value, kind):
        with pytest.raises(InputError, match=f"document 1: a document must be a mapping .*, not {kind}"):
            read(record(), value)

    @pytest.mark.parametrize(
        "bad",
        [{"text": "寺"}, {"id": "a"}, {"id": True, "text": "寺"}, {"id": "a", "text": ""}, {"id": "d1", "text": "寺"}],
    )
    def test_a_record_with_a_place_is_reported_by_its_place(self, bad):
        with pytest.raises(InputError, match=r"^docs\.jsonl:17: "):
            read(("docs.jsonl:16", record()), ("docs.jsonl:17", bad))


class TestRejecting:
    def test_records_that_cannot_be_used_are_noted_and_the_others_read(self, rejects):
        records = [record(id="a"), {"id": "x"}, record(id="b"), record(id="a"), BadRecord("not valid JSON", "{"), 3]
        reader = DocumentReader(records, rejects=rejects)
        assert [made.id for made in reader] == ["a", "b"]
        assert [(line["place"], line["record"]) for line in noted_in(rejects)] == [
            ("document 1", {"id": "x"}),
            ("document 3", records[3]),
            ("document 4", {"reason": "not valid JSON", "raw": "{"}),
            ("document 5", 3),
        ]
        for line in noted_in(rejects):
            assert line["reason"].startswith(f"{line['place']}: ")

    def test_a_second_reading_gives_the_same_documents_and_notes_nothing_more(self, rejects):
        reader = DocumentReader([record(id="a"), {"id": "x"}, record(id="a"), record(id="b")], rejects=rejects)
        first = list(reader)
        noted = noted_in(rejects)
        assert list(reader) == first
        assert noted_in(rejects) == noted
        assert len(rejects) == 2

    def test_a_document_left_out_does_not_come_again_nor_does_one_of_its_id(self, rejects):
        reader = DocumentReader([record(id="a"), record(id="b"), record(id="a", text="別の文")], rejects=rejects)
        documents = list(reader)
        reader.leave_out(documents[0], InputError("document 0: too old"))
        assert [made.id for made in reader] == ["b"]
        assert [line["place"] for line in noted_in(rejects)] == ["document 2", "document 0"]

    def test_a_document_rejected_otherwise_keeps_its_position(self, rejects):
        reader = DocumentReader([record(id="a", title="題", year=794), record(id="b")], rejects=rejects)
        documents = list(reader)
        reader.reject(documents[0], InputError("document 0: no vectors"))
        assert list(reader) == documents
        (line,) = noted_in(rejects)
        assert line == {
            "place": "document 0",
            "reason": "document 0: no vectors",
            "record": {"id": "a", "title": "題", "text": "金閣寺は京都にある。", "year": 794},
        }

    @pytest.mark.parametrize("method", ["leave_out", "reject"])
    def test_without_a_place_for_rejects_the_error_comes_out(self, method):
        reader = DocumentReader([record()])
        error = InputError("document 0: too old")
        with pytest.raises(InputError) as caught:
            getattr(reader, method)(next(iter(reader)), error)
        assert caught.value is error
        assert len(list(reader)) == 1
