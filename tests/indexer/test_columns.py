"""The caller's own columns: types found while reading, values checked before writing."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import ClassVar

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tansaku import Document, InputError
from tansaku.indexer.read.columns import ColumnTypes, field_array

DAY, NINE = dt.date(2024, 1, 1), dt.datetime(2024, 1, 1, 9)
UTC = NINE.replace(tzinfo=dt.timezone.utc)  # of which days are not midnights: the zone of those is unknown
deterministic = settings(deadline=None, derandomize=True, max_examples=60)


def documents(*values, name="f", start=0):
    """One document per value, "d0" on; one without the field where the value is `...`."""
    return [
        Document(f"d{start + i}", "寺", fields={} if value is ... else {name: value}) for i, value in enumerate(values)
    ]


def found(*chunks):
    """The type found for field "f" over chunks of values."""
    types = ColumnTypes()
    start = 0
    for chunk in chunks:
        types.update(documents(*chunk, start=start))
        start += len(chunk)
    (field,) = types.fields()
    assert field.name == "f"
    return field.type


class TestColumnTypes:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("寺", pa.string()),
            (1, pa.int64()),
            (1.5, pa.float64()),
            (True, pa.bool_()),
            (b"x", pa.binary()),
            (dt.date(1397, 1, 1), pa.date32()),
            (dt.datetime(2024, 1, 1, 12), pa.timestamp("us")),
            (["寺", "京都"], pa.list_(pa.string())),
            ({"lat": 35.0, "name": "寺"}, pa.struct([("lat", pa.float64()), ("name", pa.string())])),
        ],
    )
    def test_a_column_has_the_type_of_its_values(self, value, expected):
        assert found([value]) == expected
        assert found([None, value], [..., value], [None]) == expected

    @pytest.mark.parametrize("chunks", [([1, 2.5],), ([2.5, 1],), ([1], [2.5]), ([2.5], [1]), ([1], [None], [2.5])])
    def test_integers_widen_to_floats(self, chunks):
        assert found(*chunks) == pa.float64()

    @pytest.mark.parametrize("within", [lambda value: value, lambda value: [value], lambda value: {"a": value}])
    def test_decimals_leave_room_for_larger_ones(self, within):
        """A column as narrow as its first values would refuse the next."""
        kind = found([within(Decimal("1.50"))])
        larger = [Decimal(f"{'9' * 36}.99"), Decimal("0.01")]
        kept = field_array(documents(*map(within, larger)), pa.field("f", kind))
        assert kept.to_pylist() == [within(value) for value in larger]
        with pytest.raises(InputError, match=r"'1\.505'.*decimal\(38,9\)"):
            field_array(documents(Decimal("1.505")), pa.field("f", found([Decimal("1.50")])))

    def test_a_decimal_type_that_is_given_is_kept(self):
        types = ColumnTypes({"f": pa.decimal128(10, 2)})
        types.update(documents(Decimal("1.50")))
        assert types.fields()[0].type == pa.decimal128(10, 2)

    @pytest.mark.parametrize("chunks", [([None],), ([None, ...], [None])])
    def test_a_field_that_is_always_null_becomes_a_string_column(self, chunks):
        assert found(*chunks) == pa.string()

    def test_lists_and_structs_grow_from_chunk_to_chunk(self):
        assert found([[]], [["寺"]]) == pa.list_(pa.string())
        assert found([{"a": 1}], [{"b": "x"}]) == pa.struct([("a", pa.int64()), ("b", pa.string())])

    @deterministic
    @given(st.lists(st.lists(st.sampled_from([1, 2.5, None]), min_size=1, max_size=4), min_size=1, max_size=5))
    def test_the_type_does_not_depend_on_where_chunks_end(self, chunks):
        assert found(*chunks) == found([value for chunk in chunks for value in chunk])

    @pytest.mark.parametrize("within", [lambda x: x, lambda x: [x], lambda x: {"a": x}, lambda x: [{"a": x}]])
    @pytest.mark.parametrize("chunks", [([DAY, NINE],), ([NINE, DAY],), ([DAY], [NINE]), ([NINE], [DAY])])
    def test_a_date_among_timestamps_is_midnight(self, within, chunks):
        chunks = [[within(value) for value in chunk] for chunk in chunks]
        kind = found(*chunks)
        assert kind == pa.array([within(NINE)]).type
        values = field_array(documents(*chunks[0], *chunks[-1]), pa.field("f", kind)).to_pylist()
        assert within(dt.datetime(2024, 1, 1)) in values
        assert within(NINE) in values

    def test_dates_alone_stay_dates(self):
        assert found([DAY, None], [DAY]) == pa.date32()

    def test_columns_come_in_the_order_in_which_their_fields_are_first_seen(self):
        types = ColumnTypes()
        types.update([Document("a", "寺", fields={"z": 1}), Document("b", "寺", fields={"m": "x", "z": 2})])
        types.update([Document("c", "寺", fields={"a": True})])
        assert [(f.name, f.type) for f in types.fields()] == [
            ("z", pa.int64()),
            ("m", pa.string()),
            ("a", pa.bool_()),
        ]

    def test_no_fields_give_no_columns(self):
        types = ColumnTypes()
        types.update([Document("a", "寺")])
        assert types.fields() == []

    @pytest.mark.parametrize(
        ("first", "second"),
        [(1, "x"), ("x", 1), (True, 1), (1, True), (1, [1]), ([1], ["x"]), ({"a": 1}, {"a": "x"}), ("x", True)],
    )
    def test_a_mixture_over_two_chunks_is_refused_naming_field_and_place(self, first, second):
        with pytest.raises(
            InputError,
            match=r"^document 'd4': field 'f' is .*, of type .*, but .* before it is of type .*; give the",
        ):
            found([first, first, first], [None, second])

    @pytest.mark.parametrize(
        "values", [(1, "x"), (True, 1), (1, True), (["x"], "x"), ("x", ["x"]), (1, 2**63), (DAY, UTC)]
    )
    def test_a_mixture_within_one_chunk_is_refused_naming_field_and_place(self, values):
        with pytest.raises(
            InputError,
            match=r"^document 'd1': field 'f' is .*, (of type .* before it is of|which no column can hold)",
        ):
            found(values)

    @pytest.mark.parametrize(
        ("values", "culprit"),
        [(("x", b"x"), "d0"), ((b"x", "x"), "d1")],
    )
    def test_a_mixture_that_arrow_would_convert_is_refused_naming_document_and_field(self, values, culprit):
        with pytest.raises(InputError, match=f"document '{culprit}': field 'f' is .* does not fit its column"):
            found(values)

    @pytest.mark.parametrize(("first", "second"), [("x", b"x"), (2**53 + 1, 0.5)])
    def test_a_value_that_the_type_of_a_later_chunk_would_change_is_refused(self, first, second):
        with pytest.raises(InputError, match="field 'f'"):
            found([first], [second])

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            pytest.param([2**53 + 1], [0.5], id="large integers in lists"),
            pytest.param({"a": 2**53 + 1}, {"a": 0.5}, id="large integers in structs"),
            pytest.param(["x"], [b"x"], id="strings and bytes in lists"),
            pytest.param({"a": b"x"}, {"a": "x"}, id="bytes and strings in structs"),
        ],
    )
    def test_a_value_within_another_that_a_later_chunk_would_change_is_refused(self, first, second):
        with pytest.raises(InputError, match="field 'f'"):
            found([first], [second])

    @pytest.mark.parametrize(
        ("refused", "then"),
        [
            pytest.param([{"g": "x"}, {"f": 1, "g": 2}], {"f": "x"}, id="another type"),
            pytest.param([{"g": "x"}, {"f": 2**53 + 1, "g": 2}], {"f": 0.5}, id="an integer beyond 2**53"),
        ],
    )
    def test_documents_that_are_refused_leave_the_types_as_they_were(self, refused, then):
        types = ColumnTypes()
        types.update([Document("a", "寺", fields=refused[0])])
        with pytest.raises(InputError, match="field 'g'"):
            types.update([Document("b", "寺", fields=refused[1])])
        assert [field.name for field in types.fields()] == ["g"]
        types.update([Document("c", "寺", fields=then)])
        assert [field.name for field in types.fields()] == ["g", "f"]

    @pytest.mark.parametrize("value", [object(), "\ud800"])
    def test_a_value_of_no_column_type_is_refused_naming_field_and_place(self, value):
        with pytest.raises(
            InputError, match=r"^document 'd0': field 'f' is .*, which no column can hold .*--drop-field f"
        ):
            found([value])


class TestFieldArray:
    def test_a_number_that_no_column_can_hold_is_refused_in_a_column_of_text(self):
        large = Document("a", "寺", "", {"n": 10**30}, place="d.jsonl:1")
        with pytest.raises(InputError, match=r"d\.jsonl:1 .*'n' is 10+, .*of type int.*column-type n=string"):
            field_array([large], pa.field("n", pa.string()))

    def test_what_is_no_text_in_a_column_of_texts_is_refused_with_the_remedy(self):
        with pytest.raises(
            InputError,
            match=r"'d0': field 'f' is 5, .* type string .it is of type integer.; .*: --column-type f=string",
        ):
            field_array(documents(5), pa.field("f", pa.string()))

    def test_values_stand_in_order_with_null_where_the_field_is_absent(self):
        array = field_array(documents(1, ..., None, 4), pa.field("f", pa.int64()))
        assert array.type == pa.int64()
        assert array.to_pylist() == [1, None, None, 4]

    def test_an_integer_fits_a_float_column(self):
        assert field_array(documents(1, 2.5), pa.field("f", pa.float64())).to_pylist() == [1.0, 2.5]

    def test_a_struct_that_lacks_a_key_of_its_column_gains_null(self):
        kind = pa.struct([("a", pa.int64()), ("b", pa.string())])
        array = field_array(documents({"a": 1}, {"b": "x"}), pa.field("f", kind))
        assert array.to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": "x"}]

    @pytest.mark.parametrize(
        ("kind", "good", "bad"),
        [
            (pa.int64(), 1, "x"),
            (pa.int64(), 1, 2**63),
            (pa.string(), "x", 1),
            (pa.float64(), 1.5, "x"),
            (pa.bool_(), True, 1),
            (pa.list_(pa.string()), ["x"], 1),
            (pa.date32(), dt.date(2024, 1, 1), "2024-01-01"),
        ],
    )
    def test_a_misfit_is_reported_with_its_document_field_and_column(self, kind, good, bad):
        with pytest.raises(InputError) as caught:
            field_array(documents(good, None, bad, good), pa.field("f", kind))
        assert str(caught.value).startswith(
            f"document 'd2': field 'f' is {bad!r}, which does not fit its column of type {kind} ("
        )

    @pytest.mark.parametrize(
        ("kind", "good", "bad", "stored"),
        [
            pytest.param(pa.int64(), 1, 2.7, 2, id="fraction into integers"),
            pytest.param(pa.list_(pa.int64()), [1], [1.5], [1], id="fraction into lists of integers"),
            pytest.param(
                pa.date32(), dt.date(2024, 1, 1), dt.datetime(2024, 1, 1, 9), dt.date(2024, 1, 1), id="time into dates"
            ),
            pytest.param(pa.list_(pa.string()), ["寺"], "金閣", ["金", "閣"], id="string into lists of strings"),
            pytest.param(pa.struct([("a", pa.int64())]), {"a": 1}, {"a": 1, "b": 2}, {"a": 1}, id="key into structs"),
        ],
    )
    def test_a_value_that_arrow_would_change_is_a_misfit(self, kind, good, bad, stored):
        with pytest.raises(InputError) as caught:
            field_array(documents(good, bad), pa.field("f", kind))
        assert str(caught.value).startswith(
            f"document 'd1': field 'f' is {bad!r}, which does not fit its column of type {kind} "
            f"(it would be stored as {stored!r}); correct the value"
        )


class TestColumnsThatAreKnown:
    KNOWN: ClassVar = {"year": pa.int64(), "place": pa.string()}

    def test_documents_that_fit_pass(self):
        ColumnTypes(self.KNOWN).update([*documents(794, None, ..., name="year"), *documents("京都", name="place")])

    def test_other_fields_are_found(self):
        types = ColumnTypes(self.KNOWN)
        types.update([*documents(794, name="year"), *documents(1.5, name="height", start=1)])
        assert {field.name: field.type for field in types.fields()} == {**self.KNOWN, "height": pa.float64()}

    def test_a_misfit_is_reported_with_its_document_and_field(self):
        with pytest.raises(InputError, match="document 'd1': field 'year' is '千年前', which does not fit its column"):
            ColumnTypes(self.KNOWN).update(documents(794, "千年前", name="year"))

    def test_where_the_document_was_read_is_said(self):
        document = Document("d1", "寺", fields={"year": "1650"}, place="docs.csv:3")
        with pytest.raises(InputError, match=r"^docs\.csv:3 \(id 'd1'\)"):
            ColumnTypes(self.KNOWN).update([document])

    def test_a_number_that_is_text_has_its_commonest_cause_as_the_remedy(self):
        with pytest.raises(InputError, match=r"correct the value; text in quotes is no number"):
            ColumnTypes(self.KNOWN).update(documents("1650", name="year"))
        with pytest.raises(InputError, match=r"correct the value$"):
            ColumnTypes(self.KNOWN).update(documents(1.5, name="year"))
