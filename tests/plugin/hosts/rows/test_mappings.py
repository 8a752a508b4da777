"""Elasticsearch, OpenSearch, Vespa, Weaviate: what is sent, and rows of recorded answers in their documented shapes."""

from __future__ import annotations

import base64
import copy
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from tansaku import Coder, CodesError, HostError, InputError, RowSearch
from tansaku.plugin.hosts.rows.mappings import ElasticsearchRows, OpenSearchRows, VespaRows, WeaviateRows
from tansaku.plugin.rows.row_search import CANDIDATES

TEXTS = {"kyoto": "京都は794年から都だった。", "dog": "犬は嗅覚が鋭い動物である。"}
QUESTION = "昔の首都はどこ？"
KINDS = {
    "elasticsearch": ElasticsearchRows,
    "opensearch": OpenSearchRows,
    "vespa": VespaRows,
    "weaviate": WeaviateRows,
}


@pytest.fixture(scope="module")
def coder():
    return Coder()


@pytest.fixture(scope="module")
def coded(coder):
    return dict(zip(TEXTS, coder.encode_documents(list(TEXTS.values())), strict=True))


def shards(**changes):
    return {"total": 1, "successful": 1, "skipped": 0, "failed": 0, **changes}


def lucene_score(inner_product):
    """As both engines' pages give it for inner products."""
    return 1 + inner_product if inner_product >= 0 else 1 / (1 - inner_product)


def elastic_answer(products, sources):
    hits = [
        {"_index": "docs", "_id": name, "_score": lucene_score(products[name]), "_source": sources[name]}
        for name in sources
    ]
    total = {"value": len(hits), "relation": "eq"}
    return {
        "took": 3,
        "timed_out": False,
        "_shards": shards(),
        "hits": {"total": total, "max_score": hits[0]["_score"] if hits else None, "hits": hits},
    }


def vespa_answer(products, sources):
    children = [
        {
            "id": f"id:shop:docs::{name}",
            "relevance": products[name],
            "source": "content",
            "fields": {"sddocname": "docs", "documentid": f"id:shop:docs::{name}", **sources[name]},
        }
        for name in sources
    ]
    coverage = {"coverage": 100, "documents": 2, "full": True, "nodes": 1, "results": 1, "resultsFull": 1}
    root: dict[str, Any] = {"id": "toplevel", "relevance": 1.0, "fields": {"totalCount": len(children)}}
    return {"root": {**root, "coverage": coverage, **({"children": children} if children else {})}}


def weaviate_answer(products, sources):
    objects = [
        SimpleNamespace(
            uuid=f"00000000-0000-0000-0000-00000000000{i}",
            properties={**sources[name], "key": name},
            metadata=SimpleNamespace(distance=-products[name], certainty=None),
        )
        for i, name in enumerate(sources)
    ]
    return SimpleNamespace(objects=objects)


ANSWERS = {
    "elasticsearch": elastic_answer,
    "opensearch": elastic_answer,
    "vespa": vespa_answer,
    "weaviate": weaviate_answer,
}


def mapping(name, row_dim=3, **options):
    own = {"id_field": "key"} if name == "weaviate" else {}
    return KINDS[name](row_dim, **own, **options)


@pytest.mark.parametrize("name", KINDS)
def test_a_recorded_answer_is_searched(coder, coded, name):
    """From document to hit: what was sent is what the answer returns."""
    rows = mapping(name, coder.row_dim, fields=["year"])
    query = coder.encode_query(QUESTION)
    products = {key: float(one.row_vector @ query.row_vector) for key, one in coded.items()} | {"owl": -0.75}
    sources = {}
    for key, one in coded.items():
        sent = rows.document(one, {"text": TEXTS[key], "year": 2020})
        fields = sent.get("fields") or sent.get("properties") or sent
        assert base64.b64decode(fields["tansaku_codes"]) == one.codes
        sources[key] = {field: fields[field] for field in ("text", "year", "tansaku_codes")}
    sources["owl"] = {"text": "梟"}  # a row that another program wrote
    asked = []

    def nearest(vector, n, where):
        asked.append(rows.query(vector, n, where))
        return rows.found(ANSWERS[name](products, sources))

    hits = RowSearch(coder, nearest).search(QUESTION, where="FILTER")
    assert [hit.id for hit in hits] == ["kyoto", "dog", "owl"]
    assert (hits[0].text, hits[0].fields, hits.uncoded) == (TEXTS["kyoto"], {"year": 2020}, 1)
    for hit in hits:
        assert hit.row_score == pytest.approx(products[str(hit.id)], rel=1e-5)
    assert "FILTER" in json.dumps(asked)
    assert rows.found(ANSWERS[name]({}, {})) == []


def test_what_elasticsearch_gets(coder, coded):
    rows = ElasticsearchRows(coder.row_dim, fields=["year"])
    properties = rows.index()["mappings"]["properties"]
    assert properties == {
        "tansaku_vector": {
            "type": "dense_vector",
            "dims": coder.row_dim,
            "index": True,
            "similarity": "max_inner_product",
            "index_options": {"type": "hnsw"},
        },
        "tansaku_codes": {"type": "binary"},
    }
    assert rows.document(coded["dog"], {"text": "犬"})["tansaku_vector"] == coded["dog"].row_vector.tolist()
    vector = np.array([1, 2, 0.5], np.float32)
    where = {"term": {"year": 2020}}
    assert ElasticsearchRows(3).query(vector, 200, where) == {
        "knn": {
            "field": "tansaku_vector",
            "query_vector": [1.0, 2.0, 0.5],
            "k": 200,
            "num_candidates": 400,
            "filter": where,
        },
        "size": 200,
        "_source": ["tansaku_codes", "text"],
    }
    assert "filter" not in ElasticsearchRows(3).query(vector, 6000)["knn"]
    assert ElasticsearchRows(3).query(vector, 6000)["knn"]["num_candidates"] == 10_000


def test_what_opensearch_gets():
    rows = OpenSearchRows(3, text_fields=["title", "body"])
    assert rows.index() == {
        "settings": {"index": {"knn": True}},
        "mappings": {
            "properties": {
                "tansaku_vector": {
                    "type": "knn_vector",
                    "dimension": 3,
                    "method": {"name": "hnsw", "space_type": "innerproduct", "engine": "faiss"},
                },
                "tansaku_codes": {"type": "binary"},
            }
        },
    }
    where = {"term": {"year": 2020}}
    assert rows.query(np.ones(3, np.float32), 200, where) == {
        "size": 200,
        "_source": ["tansaku_codes", "title", "body"],
        "query": {
            "knn": {
                "tansaku_vector": {
                    "vector": [1.0, 1.0, 1.0],
                    "k": 200,
                    "method_parameters": {"ef_search": 400},
                    "filter": where,
                }
            }
        },
    }


def test_what_vespa_gets():
    rows = VespaRows(3, fields=["year"], schema="articles")
    assert rows.query(np.ones(3, np.float32), 200, "year > 2000 or year = 7") == {
        "yql": "select documentid, tansaku_codes, text, year from articles where "
        "{targetHits:200,hnsw.exploreAdditionalHits:200}nearestNeighbor(tansaku_vector,row) "
        "and (year > 2000 or year = 7)",
        "input.query(row)": [1.0, 1.0, 1.0],
        "ranking": "tansaku",
        "hits": 200,
    }
    schema = rows.schema_parts()
    for line in (
        "schema articles {",
        "field tansaku_vector type tensor<float>(x[3]) {",
        "distance-metric: dotproduct",
        "field tansaku_codes type raw {",
        "rank-profile tansaku {",
        "query(row) tensor<float>(x[3])",
        "expression: closeness(field, tansaku_vector)",
    ):
        assert re.search(rf"^ *{re.escape(line)}$", schema, flags=re.MULTILINE), line
    assert schema.count("{") == schema.count("}")


def test_what_weaviate_gets(coder, coded):
    rows = WeaviateRows(coder.row_dim, fields=["year"], id_field="key")
    collection = rows.collection("Docs")
    assert collection["vectorConfig"]["tansaku_vector"]["vectorIndexConfig"] == {"distance": "dot"}
    assert collection["properties"] == [{"name": "tansaku_codes", "dataType": ["blob"]}]
    sent = rows.document(coded["dog"], {"key": "dog", "text": "犬"})
    assert sent["vector"] == {"tansaku_vector": coded["dog"].row_vector.tolist()}
    assert set(sent["properties"]) == {"key", "text", "tansaku_codes"}
    asked = rows.query(np.ones(3, np.float32), 200)
    assert (asked["limit"], asked["target_vector"], asked["filters"]) == (200, "tansaku_vector", None)
    assert asked["return_properties"] == ["key", "tansaku_codes", "text", "year"]
    by_uuid = WeaviateRows(3).found(weaviate_answer({"a": 1.0}, {"a": {"text": "文"}}))
    assert by_uuid[0].id == "00000000-0000-0000-0000-000000000000"
    with pytest.raises(HostError, match="no 'name'"):
        WeaviateRows(3, id_field="name").found(weaviate_answer({"a": 1.0}, {"a": {"text": "文"}}))


@pytest.mark.parametrize("name", ["elasticsearch", "opensearch"])
def test_answers_with_rows_missing(name):
    """A shard that failed or a search that timed out gives fewer rows; Elasticsearch's HTTP status is 200 then."""
    whole = elastic_answer({"a": 1.0}, {"a": {"text": "文"}})
    for change, said in (({"timed_out": True}, "timed out"), ({"_shards": shards(failed=2)}, "2 shards failed")):
        with pytest.raises(HostError, match=said):
            mapping(name).found({**whole, **change})


def test_answers_of_vespa_with_rows_missing():
    whole = vespa_answer({"a": 1.0}, {"a": {"text": "文"}})
    degraded, failed = copy.deepcopy(whole), copy.deepcopy(whole)
    degraded["root"]["coverage"] |= {"full": False, "degraded": {"timeout": True}}
    failed["root"]["errors"] = [{"code": 8, "summary": "Error in search reply.", "message": "no such field"}]
    for answer, said in ((degraded, "a part of its documents"), (failed, "no such field")):
        with pytest.raises(HostError, match=said):
            VespaRows(3).found(answer)


def test_ids_of_vespa_may_have_colons():
    answer = vespa_answer({"a:b::c": 1.0}, {"a:b::c": {"text": "文"}})
    assert VespaRows(3).found(answer)[0].id == "a:b::c"


@pytest.mark.parametrize("name", KINDS)
def test_bad_input(coder, coded, name):
    with pytest.raises(InputError, match="row_dim is 3"):
        mapping(name).document(coded["dog"], {})
    with pytest.raises(InputError, match="'tansaku_codes' is made here"):
        mapping(name, coder.row_dim).document(coded["dog"], {"tansaku_codes": b""})
    with pytest.raises(InputError, match="n is 0"):
        mapping(name).query(np.ones(3, np.float32), 0)
    with pytest.raises(InputError, match="fields is one string"):
        mapping(name, fields="year")
    with pytest.raises(InputError, match="row_dim"):
        mapping(name, row_dim=0)
    assert mapping(name, text_fields=[]).found(ANSWERS[name]({"a": 1.0}, {"a": {}}))[0].text is None
    with pytest.raises(CodesError, match="row 'a': the codes are no base64"):
        mapping(name).found(ANSWERS[name]({"a": 1.0}, {"a": {"tansaku_codes": "京都"}}))


def test_more_rows_than_an_engine_gives():
    for name in ("elasticsearch", "opensearch"):
        with pytest.raises(InputError, match="10,000 or fewer"):
            mapping(name).query(np.ones(3, np.float32), 10_001)


def test_the_page_of_vespa_has_the_schema():
    page = (Path(__file__).parents[4] / "docs" / "how-to" / "vespa.md").read_text(encoding="utf-8")
    shown = page.partition("```text\n")[2].partition("```")[0]
    assert shown.replace("ROW_DIM", "3") == VespaRows(3).schema_parts()


class Recorder:
    """In place of a client: keeps the documents that it gets, and answers with them all."""

    def __init__(self, name):
        self.name, self.sources = name, {}
        self.indices = self.collections = self.data = self.query = self

    def index(self, index, id, document=None, body=None):  # noqa: A002
        self.sources[id] = document or body

    def insert(self, uuid, properties, vector):
        self.sources[properties["key"]] = properties

    def create(self, index, body):
        assert body["mappings"]

    def create_from_dict(self, config):
        assert config["class"] == "Docs"

    def use(self, name):
        return self

    def search(self, index, body):
        assert body["size"] == CANDIDATES
        return elastic_answer(dict.fromkeys(self.sources, 1.0), self.sources)

    def near_vector(self, limit, **others):
        return weaviate_answer(dict.fromkeys(self.sources, 1.0), self.sources)


@pytest.mark.parametrize("name", ["elasticsearch", "opensearch", "weaviate"])
def test_the_pages_run(name, monkeypatch):
    """Their Python, with a client that answers as the engine does."""
    page = (Path(__file__).parents[4] / "docs" / "how-to" / f"{name}.md").read_text(encoding="utf-8")
    for module in ("weaviate", "weaviate.classes", "weaviate.classes.query", "weaviate.util"):
        monkeypatch.setitem(sys.modules, module, MagicMock())
    names: dict[str, Any] = {"client": Recorder(name)}
    exec(compile(page.partition("```python\n")[2].partition("```")[0], name, "exec"), names)  # noqa: S102
    best = names["hits"][0]
    assert (best.id, best.text, best.fields) == ("kyoto", "京都は794年から都だった。", {"year": 2020})
