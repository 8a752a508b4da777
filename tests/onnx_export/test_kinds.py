# pyright: reportArgumentType=false
"""Values of a wrong kind are refused where they are given, with what to give instead."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tansaku import CallableSource, FieldNames, HostSearch, Index, InputError, Reranker, Searcher

from ..support.fakes import FakeEncoder, corpus


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    Index.create(folder, "t", corpus(3), encoder=FakeEncoder())
    return folder


def searcher(db):
    return Searcher.open(db, "t", encoder=FakeEncoder())


WRONG = {
    "k": (lambda db: searcher(db).search("d", k="3"), r"k is '3'; it must be a whole number of 1 or more, without q"),
    "k 3.0": (lambda db: searcher(db).search("d", k=3.0), r"k is 3\.0; it must .* without a decimal point"),
    "k true": (lambda db: searcher(db).search("d", k=True), r"k is True; it must be a whole number"),
    "where": (lambda db: searcher(db).search("d", where={"year": 1}), r'of type dict; give text such as "year'),
    "queries": (lambda db: searcher(db).search_many("d"), r"queries is one string; give a list"),
    "weight": (lambda db: searcher(db).search("d", phrase_weight="1"), r"phrase_weight is '1'; it must be from 0"),
    "encoder to search": (lambda db: Searcher.open(db, "t", encoder="./m"), r"encoder is of type str .*Encoder\.load"),
    "encoder to open": (lambda db: Index.open(db, "t", encoder="./m"), r"encoder is of type str .*Encoder\.load"),
    "encoder to create": (lambda db: Index.create(db, "u", corpus(1), encoder="./m"), r"encoder .*Encoder\.load"),
    "encoder to rerank": (lambda db: Reranker("./m"), r"encoder is of type str .*Encoder\.load"),
    "searcher": (lambda db: Reranker(searcher="t"), r"searcher is of type str .*Searcher\.open"),
    "Searcher()": (lambda db: Searcher(str(db), "t"), r"open the index with Searcher\.open\(db, table\)"),
    "Index()": (lambda db: Index("t", str(db)), r"open the index with Index\.open\(db, table\)"),
    "db": (lambda db: Index.open(3, "t"), r"db is of type int .*a folder, a URI"),
    "new db": (lambda db: Index.create(3, "t", corpus(1), encoder=FakeEncoder()), r"db is of type int"),
    "table": (lambda db: Index.create(db, 3, corpus(1), encoder=FakeEncoder()), r"table is of type int"),
    "nbits": (lambda db: Index.create(db, "u", corpus(1), encoder=FakeEncoder(), nbits="2"), r"nbits is '2'"),
    "pool": (lambda db: Index.create(db, "u", corpus(1), encoder=FakeEncoder(), pool="2"), r"pool is '2'"),
    "passages": (lambda db: Index.create(db, "u", corpus(1), encoder=FakeEncoder(), passage_tokens="9"), r"is '9'"),
    "names": (
        lambda db: Index.open(db, "t").add([], names={"text": "本文"}),
        r"e FieldNames\(text='本文'\)$",
    ),
    "names list": (lambda db: Index.open(db, "t", encoder=FakeEncoder()).add([], names=["x"]), r"FieldNames\(id="),
    "FieldNames.keep": (
        lambda db: FieldNames(keep="年"),
        r"give a list of names, such as \['年'\]",
    ),
    "FieldNames.drop": (lambda db: FieldNames(drop="年"), r"drop is one string; give a list of names"),
    "FieldNames.rename": (lambda db: FieldNames(rename=["年"]), r"rename is of type list .*give a dict"),
    "FieldNames.types": (lambda db: FieldNames(types="integer"), r"types is of type str .*give a dict"),
    "source": (lambda db: HostSearch("db", Reranker(FakeEncoder())), r"source is of type str, which has no method"),
    "source function": (lambda db: HostSearch(len, Reranker(FakeEncoder())), r"give CallableSource\(function\)"),
    "reranker": (lambda db: HostSearch(CallableSource(len), searcher(db)), r"reranker is of type Searcher .*Reranker"),
    "rejects": (lambda db: Index.open(db, "t", encoder=FakeEncoder()).add([], rejects="f"), r"Rejects\(PATH\)"),
    "keep": (lambda db: Index.open(db, "t").optimize(keep=3), r"keep is of type int .*timedelta\(hours=1\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_value_of_a_wrong_kind_is_refused_with_the_remedy(db, case):
    call, said = WRONG[case]
    with pytest.raises(InputError, match=said):
        call(db)


def test_right_ones_are_not(db):
    Index.open(db, "t", encoder=FakeEncoder()).optimize(keep=timedelta(0))


def test_fields_of_id_and_text_that_are_missing_are_named_at_once(tmp_path):
    with pytest.raises(InputError, match=r"neither a field 'id' nor a field 'text' .*本文\).*--text-field"):
        Index.create(tmp_path, "t", [{"番号": 1, "本文": "寺"}], encoder=FakeEncoder())
    with pytest.raises(InputError, match=r"no field 'text' here.*--text-field"):
        Index.create(tmp_path, "t", [{"id": 1, "本文": "寺"}], encoder=FakeEncoder())
