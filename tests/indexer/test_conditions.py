"""Conditions: what the language says is what LanceDB finds, and what it does not have is refused before LanceDB."""

from __future__ import annotations

import datetime as dt
import operator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tansaku import Condition, InputError, UncheckedSQL
from tansaku.indexer.table.conditions import condition_sql
from tansaku.indexer.table.schema import IndexHeader

# Its build makes `build_1` the index's own column.
HEADER = IndexHeader("fake", "", "", build_id=1, pool=1, passage_tokens=None, fulltext=False)
NOON = dt.datetime(2020, 1, 1, 12)
TABLE = pa.table(
    {
        "id": ["a", "b", "c"],
        "genre": ["寺", "it's 100%", None],
        "year": pa.array([1900, 2000, None], pa.int64()),
        "small": pa.array([1, 200, None], pa.uint8()),
        "score": pa.array([1.5, -2.5, None], pa.float32()),
        "price": pa.array([Decimal("1.50"), Decimal("-2.25"), None], pa.decimal128(10, 2)),
        "day": pa.array([dt.date(2020, 1, 1), dt.date(2021, 6, 1), None]),
        "made": pa.array([NOON, dt.datetime(2021, 6, 1, 5), None], pa.timestamp("us")),
        "seen": pa.array([NOON, dt.datetime(2021, 6, 1, 5), None], pa.timestamp("ms", "Asia/Tokyo")),
        "clock": pa.array([dt.time(1, 2), dt.time(13), None], pa.time64("us")),
        "public": [True, False, None],
        "tags": [["庭", "池"], ["城"], None],
        "sizes": [[1, 2], [3], None],
        "author": [{"name": "紫式部", "born": {"year": 970}}, {"name": "清少納言", "born": {"year": 966}}, None],
        "kind": pa.array(["x", "y", None]).dictionary_encode(),
        "large": pa.array(["x", "y", None], pa.large_string()),
        "raw": pa.array([b"x", b"y", None]),
        "大きさ": [1, 2, 3],
        "two words": [1, 2, 3],
        "Upper": [1, 2, 3],
        "select": [1, 2, 3],
        "in": [1, 2, 3],
        "residuals": pa.array([b"", b"", b""], pa.large_binary()),
        "build_1": pa.nulls(3),
        "build_2": pa.nulls(3),
    }
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> lancedb.Table:
    return lancedb.connect(tmp_path_factory.mktemp("conditions")).create_table("t", TABLE)


def sql(where: Any) -> str:
    return condition_sql(where, TABLE.schema, HEADER, if_empty="leave it out")


def found(table: lancedb.Table, where: Any) -> str:
    return "".join(sorted(row["id"] for row in table.search().where(sql(where)).select(["id"]).to_list()))


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("genre = '寺'", "a"),
        ("build_2 IS NULL", "abc"),
        ("'寺' = genre", "a"),
        ("genre = 'it''s 100%'", "b"),
        ("genre <> '寺'", "b"),
        ("`genre` == '寺' AND \"year\" != 2000", "a"),
        ("genre IN ('寺', 'x')", "a"),
        ("genre NOT IN ('寺')", "b"),
        ("genre LIKE 'it%'", "b"),
        ("genre NOT LIKE 'it%'", "a"),
        ("genre ILIKE 'IT%'", "b"),
        (r"genre LIKE '%\%'", "b"),
        ("genre LIKE '%0!%' ESCAPE '!'", "b"),
        ("genre LIKE '%!_%' ESCAPE '!'", ""),
        (r"genre LIKE '%\' ESCAPE '!'", ""),
        ("genre IS NULL", "c"),
        ("genre IS NOT NULL", "ab"),
        ("year < 1950", "a"),
        ("1950 > year", "a"),
        ("year < 1950.5 OR year > 1999.5", "ab"),
        ("year = 1900.0", "a"),
        ("year = 19e2", "a"),
        ("year = 1900.5", ""),
        ("year <> 1900.5", "ab"),
        ("year >= -1.5", "ab"),
        ("year < 9999999999999999999999", "ab"),
        ("NOT (year < 9999999999999999999999)", ""),
        ("year > 9223372036854775808", ""),
        ("year IN (1900, 1900.5, 9999999999999999999999)", "a"),
        ("year NOT IN (1900.5)", "ab"),
        ("year BETWEEN 1899.5 AND 1900.5", "a"),
        ("year NOT BETWEEN 1800 AND 1950", "b"),
        ("small > 300", ""),
        ("small < 300", "ab"),
        ("small = -1", ""),
        ("small > -1", "ab"),
        ("score = 1.5", "a"),
        ("score < 0", "b"),
        ("score > -3 AND score < 9e9", "ab"),
        ("price = 1.5", "a"),
        ("price = 1.505", ""),
        ("price > 1.4999999999", "a"),
        ("price < -2.249", "b"),
        ("price IN (1.5, 7)", "a"),
        ("price < 99999999999", "ab"),
        ("day > '2020-06-01'", "b"),
        ("day = DATE '2020-01-01'", "a"),
        ("day = '2020/1/1' OR day = '2021年6月1日'", "ab"),
        ("made = '2020-01-01 12:00'", "a"),
        ("made > '2020-06-01'", "b"),
        ("made > TIMESTAMP '2020-01-01T11:59:59.5'", "ab"),
        ("seen = '2020-01-01T12:00:00Z'", "a"),
        ("seen = '2020-01-01 21:00:00'", "a"),
        ("seen = '2020-01-01 21:00+09:00'", "a"),
        ("seen IN ('2020-01-01 21:00')", "a"),
        ("clock > '01:02:00'", "b"),
        ("clock = TIME '01:02'", "a"),
        ("year(day) = 2020 AND month(made) = 1 AND day(seen) IN (1, 2)", "a"),
        ("public", "a"),
        ("NOT public", "b"),
        ("public = TRUE", "a"),
        ("public IS TRUE", "a"),
        ("public IS NOT TRUE", "bc"),
        ("public IS FALSE", "b"),
        ("array_has(tags, '庭')", "a"),
        ("array_contains(sizes, 3)", "b"),
        ("array_has_any(tags, ['城', '池'])", "ab"),
        ("array_has_all(tags, ['庭', '池'])", "a"),
        ("array_length(tags) > 1", "a"),
        ("tags IS NULL AND author IS NULL AND raw IS NULL", "c"),
        ("author.name = '紫式部'", "a"),
        ("author.born.year < 970", "b"),
        ("kind = 'x'", "a"),
        ("large IN ('x')", "a"),
        ("starts_with(large, 'x')", "a"),
        ("contains(genre, '100') AND ends_with(genre, '%')", "b"),
        ("lower(genre) = 'it''s 100%' OR upper(id) = 'A'", "ab"),
        ("length(genre) = 1", "a"),
        ('大きさ > 1 AND `two words` > 1 AND upper = 2 AND select = 2 AND "in" = 2', "b"),
        ("id < genre", "ab"),
        ("TRUE", "abc"),
        ("false", ""),
        ("1 = 1 AND (((year = 1900)))", "a"),
        ("year　=\n1900", "a"),
    ],
)
def test_finds_what_it_says(table, where, ids):
    assert found(table, where) == ids


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("", "is empty; leave it out"),
        (" \n", "is empty"),
        ("year >", "ends too early"),
        ("year < 5 AND", "ends too early"),
        ("year = 1; DROP TABLE t", "semicolon"),
        ("genre = '寺", "' is not closed"),
        ('genre = "寺"', "no column '寺'; a value takes single quotes: '寺'"),
        ("nothing = 1", r"no column 'nothing'; the columns are id, genre.*field is now id, and.*at character 1"),
        ("day >= 2024", r"2024 is a year; compare the year: year\(day\) >= 2024"),
        ("made < '2024年'", r"'2024年' is a year; compare the year: year\(made\) < 2024"),
        ("day IN (2023, '2024年')", r"2023 is a year; compare the year: year\(day\) IN \(2023, 2024\)"),
        ("2024 <= seen", r"year\(seen\) >= 2024"),
        ("year ＞ 1900", "type > in place of ＞"),
        ("year ＝ 1900", "type = in place of ＝"),
        ("year ≧ 1900", "type >= in place of ≧"),
        ("genre = ’寺’", "type ' in place of ’"),
        ("genre = “寺”", "type ' in place of “"),
        ("genre = '寺’", "' is not closed; type ' in place of ’"),
        ("year IN （1900）", r"type \( in place of （"),
        ("'day' >= '2024-01-01'", "name of a column takes no single quotes: day "),
        ("'two words' = 1", 'takes no single quotes: "two words"'),
        ("'大きさ' IN (1)", "takes no single quotes: 大きさ"),
        ("genre < 1000", r"compared character by character .*--column-type genre=integer\).*single quotes: '1000'"),
        ("residuals IS NULL", "no column 'residuals'"),
        ("build_1 IS NULL", "no column 'build_1'"),
        ("author.age = 1", "no field 'age'; its fields are name, born"),
        ("year.x = 1", "has no field 'x'"),
        ("year", "year is not boolean but has the type int64"),
        ("'a'", "a value alone is no condition"),
        ("1 = 2", "compare a column with a value"),
        ("year = '1900'", r"holds numbers \(int64\); write the value as a number without quotes"),
        ("genre = 5", "write the value in single quotes: '5'"),
        ("public = 1", "compare it with TRUE or FALSE"),
        ("day = 'yesterday'", "'yesterday' cannot be read as one; write it as '2026-11-30'"),
        ("day = '2020-02-30'", "cannot be read as one"),
        ("day = DATE '2020-02-30'", "not a date"),
        ("made = '2020-01-01T00:00:00Z'", "has no time zone"),
        ("clock = '25:00'", "cannot be read as one"),
        ("DAY '2020' = day", "only DATE, TIMESTAMP and TIME"),
        ("genre = NULL", "use IS NULL"),
        ("year IN (1, NULL)", "add OR column IS NULL"),
        ("year IN (small)", "only values may stand"),
        ("tags = '庭'", "use array_has"),
        ("raw = 'x'", "only IS NULL works there"),
        ("sizes = [1]", "a list may only stand after IN"),
        ("array_has(sizes, 'x')", "holds numbers"),
        ("array_has(sizes, [1])", "array_has_any and array_has_all take several"),
        ("array_has(year, 1)", "needs a list column"),
        ("array_has(tags)", "takes 2 arguments"),
        ("length(year) > 1", "needs a string column"),
        ("year(genre) = 2024", r"has the type string; index it with dates \(--column-type genre=date\)"),
        ("contains(genre, 5)", "needs a string in single quotes"),
        ("year = genre", "cannot be compared"),
        ("year LIKE '1%'", "needs a column of strings"),
        ("genre LIKE year", "needs a pattern in single quotes"),
        ("genre LIKE 'a' ESCAPE 'xy'", "one character"),
        ("genre LIKE '" + "%a" * 51 + "'", "the pattern is long"),
        ("year IS TRUE", "needs a boolean column"),
        ("score > 1e399", "too large"),
        ("year > 1" + "0" * 100, "too long or too large"),
        ("year > 1e999999999999", "too long or too large"),
        ("year = $1", "no value is given for the parameter \\$1"),
        ("year = ?", "no value is given for the parameter \\?"),
        (Condition("year = ?", 1, 2), "no parameter \\$2"),
        (Condition("year = $y", y=float("nan")), "finite number"),
        (Condition("year = $y", y=object()), "is a object; give a string, number or date"),
        ("genre = '\ud800'", "lone surrogate"),
        (Condition("genre = ?", "\ud800"), "lone surrogate"),
        (" AND ".join(["public"] * 1001), "joins more than 1,000 parts with AND"),
        (" OR ".join(["public"] * 5001), "more than 5,000 comparisons; name many values with IN"),
        (f"year IN ({','.join(['-1.5'] * 50_001)})", "more than 50,000 values"),
        ("x" * 1_000_001, "at most 1,000,000"),
        (f"year IN ({'1,' * 250_000}1)", "more than 200,000 words"),
        ("(" * 400_000 + "public" + ")" * 400_000, "more than 200,000 words"),
    ],
)
def test_what_cannot_be_used_says_why(where, said):
    with pytest.raises(InputError, match=said):
        sql(where)


def test_columns_of_the_index_itself_are_not_offered():
    schema = pa.schema(
        [(name, pa.string()) for name in ("id", "year", "fulltext", "token_count", "write_id", "build_1")]
    )
    for fulltext, known in ((True, "id, year;"), (False, "id, year, fulltext;")):  # then it is the caller's
        header = replace(HEADER, fulltext=fulltext)
        with pytest.raises(InputError, match=f"the columns are {known}"):
            condition_sql("nothing = 1", schema, header, if_empty="")


@pytest.mark.parametrize(
    "where",
    [
        "array_length(array_repeat(genre,100000000000))>1",
        "length(repeat('x',2000000000))>0",
        "lpad(genre, 2000000000) = ''",
        "replace(genre, '', genre) = ''",
        '"id"' + '+"id"' * 790 + ">0",
        "CAST(" * 45 + "1" + ")" * 45,
        "TRY_CAST(" * 45 + "1 AS INT" + ")" * 45,
        "CASE WHEN " * 24 + "1",
        "NOT " * 750 + "public",
        "(" * 100_000 + "public" + ")" * 100_000,
        "lower(" * 5_000 + "genre" + ")" * 5_000 + " = ''",
        "array_has(sizes, " + "[" * 5_000 + "1" + "]" * 5_000 + ")",
        "public" + "=(public OR public)" * 1000,
        "year / 0 = 1",
        "year % 2 = 0",
        "-year = 1",
        "year -- 1",
        "year /* */ = 1",
        "decode('zz','hex') IS NULL",
        "id IN (SELECT id FROM t)",
        "EXISTS (SELECT 1)",
        "genre ~ '(a+)+$'",
        "genre SIMILAR TO 'x'",
        "year::text = '1'",
        "random() < 1",
        "id = $1 OR id = :x",
    ],
)
def test_what_can_hurt_is_refused_at_once(where):
    # In LanceDB each of these takes for ever or all memory, ends the process, or fails in words of its own.
    with pytest.raises(InputError, match="the condition"):
        sql(where)


def test_long_lists_and_chains_reach_lancedb_flat(table):
    listed = ", ".join(f"'{number}'" for number in range(20_000))
    assert found(table, f"id IN ({listed}, 'a')") == "a"
    for word, ids in (("OR", "ab"), ("AND", "")):
        assert (
            found(table, f" {word} ".join(f"year = {year}" for year in range(1900, 2001)[:: -100 if word else 1]))
            == ids
        )
    assert found(table, " OR ".join(f"year = {year}" for year in range(1001, 2001))) == "ab"


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        (Condition("year < ? AND genre = ?", 1950.5, "寺"), "a"),
        (Condition("genre = $2 OR year = $1", 2000, "寺"), "ab"),
        (Condition("genre IN $genres", genres=["寺", "x'y"]), "a"),
        (Condition("genre IN ($genres)", genres=("寺",)), "a"),
        (Condition("genre IN $genres", genres=[]), ""),
        (Condition("genre NOT IN $genres", genres=[]), "ab"),
        (Condition("array_has_any(tags, $tags)", tags=["城"]), "b"),
        (Condition("day = $day AND made > $time", day=dt.date(2020, 1, 1), time=dt.datetime(2020, 1, 1)), "a"),
        (Condition("seen = $t", t=dt.datetime(2020, 1, 1, 12, tzinfo=dt.timezone.utc)), "a"),
        (Condition("made = ?", np.datetime64("2020-01-01T12:00:00.000000000")), "a"),
        (Condition("year = ? AND small = ?", np.int64(1900), np.uint8(1)), "a"),
        (Condition("price = $p AND public = $x", p=Decimal("1.50"), x=True), "a"),
        (Condition("genre = $g", g="' OR TRUE OR genre = '"), ""),
        (UncheckedSQL("year % 2 = 0 AND id = 'a'"), "a"),
    ],
)
def test_parameters_are_values_only(table, condition, ids):
    assert found(table, condition) == ids


def test_parameters_are_in_order_or_by_name():
    with pytest.raises(InputError, match="not both"):
        Condition("year = ? AND id = $x", 1, x="a")
    assert repr(Condition("year = $y", y=1)) == "Condition('year = $y', y=1)"


# An oracle: the same conditions in Python, where None is neither true nor false.
OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "<>": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}
NUMBERS = st.one_of(
    st.integers(-300, 300),
    st.sampled_from([1899, 1900, 1901, 2000, 2**63 - 1, 2**63, -(2**63) - 1, 10**30]),
    st.decimals(-300, 300, places=3),
)


def compared(column, sign, number):
    text = f"{column} {sign} {number:f}" if isinstance(number, Decimal) else f"{column} {sign} {number}"
    return (
        text,
        lambda row: None if row[column] is None else OPERATORS[sign](Decimal(str(row[column])), Decimal(number)),
    )


leaves = st.one_of(
    st.builds(compared, st.sampled_from(["year", "small", "price"]), st.sampled_from(sorted(OPERATORS)), NUMBERS),
    st.just(("public", lambda row: row["public"])),
    st.just(("genre IS NULL", lambda row: row["genre"] is None)),
)


def negated(part):
    return f"NOT ({part[0]})", lambda row: None if (value := part[1](row)) is None else not value


def joined(word, parts):
    decisive = word == "OR"

    def holds(row):
        values = [part[1](row) for part in parts]
        return decisive if decisive in values else None if None in values else not decisive

    return f" {word} ".join(f"({part[0]})" for part in parts), holds


trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(negated, inner),
        st.builds(joined, st.sampled_from(["AND", "OR"]), st.lists(inner, min_size=2, max_size=4)),
    ),
    max_leaves=8,
)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(trees)
def test_any_condition_finds_the_rows_where_it_holds(table, tree):
    text, holds = tree
    assert found(table, text) == "".join(row["id"] for row in TABLE.to_pylist() if holds(row) is True)


WORDS = st.sampled_from(
    "year genre public tags author . name ( ) [ ] , = < <> ? $1 ' '寺' \"id\" `id` 5 -1 1e5 AND OR NOT IN IS NULL LIKE "
    "BETWEEN TRUE array_has length lower ESCAPE DATE '2020-01-01' + % \ud800 \x00 　 🦊".split(" ")
)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.lists(WORDS, max_size=12).map(" ".join) | st.text(max_size=30))
def test_any_text_is_refused_or_runs(table, text):
    try:
        condition = sql(text)
    except InputError:
        return
    table.search().where(condition).select(["id"]).to_list()
