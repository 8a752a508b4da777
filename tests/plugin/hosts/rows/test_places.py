"""Places of rows as text."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tansaku import InputError
from tansaku.plugin.hosts.rows import places
from tansaku.plugin.hosts.rows.places import Place, parse_place

words = st.text(st.characters(codec="utf-8", exclude_characters="#:@/?"), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("text", "kind", "address", "table"),
    [
        ("index:./db#docs", "index", "./db", "docs"),
        ("index:s3://bucket/db#docs", "index", "s3://bucket/db", "docs"),
        ("docs.parquet", "file", "docs.parquet", ""),
        ("C:\\data\\docs.parquet", "file", "C:\\data\\docs.parquet", ""),
        ("sqlite:shop.db#articles", "sqlite", "shop.db", "articles"),
        ("duckdb:a#b.db#articles", "duckdb", "a#b.db", "articles"),
        ("postgresql://me:pw@host:1/shop#articles", "postgresql", "postgresql://me:pw@host:1/shop", "articles"),
        ("qdrant:http://localhost:6333#docs", "qdrant", "http://localhost:6333", "docs"),
    ],
)
def test_a_place_is_read(text, kind, address, table):
    assert parse_place(text) == Place(kind, address, table)


@given(words, words, words)
def test_a_password_is_never_shown(user, password, table):
    for text in (
        f"postgresql://{user}:{password}#x@host/shop#{table}",
        f"postgresql://h/s?password={password}#{table}",
    ):
        shown = str(parse_place(text))
        assert shown in (f"postgresql://host/shop#{table}", f"postgresql://h/s#{table}")


@pytest.mark.parametrize("text", ["index:./db#docs", "sqlite:a.db#t", "lance:./db#t", "docs.parquet"])
def test_a_place_without_one_is_shown_as_it_was(text):
    assert str(parse_place(text)) == text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("docs", "'docs': not known as a place"),
        ("mysql://me:secret@host/shop#t", "mysql:...: not known"),
        ("sqlite:shop.db", "sqlite:...: the table is missing"),
        ("postgresql://me:secret@host/shop", "postgresql:...: the table is missing"),
        ("sqlite:#t", "the table is missing"),
        ("sqlite:a#", "the table is missing"),
        ("https://me:secret@host/docs.parquet", "https:...: not known"),
    ],
)
def test_what_is_no_place_is_named_without_a_password(text, named):
    with pytest.raises(InputError, match=r"place|table") as raised:
        parse_place(text)
    assert named in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_type_without_a_counterpart_is_named():
    with pytest.raises(InputError, match=r"the column 'tags' has the type list.*--field"):
        places._type_word("tags", pa.list_(pa.string()), places._SQL)
