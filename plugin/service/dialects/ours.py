"""Our own dialect: search in an index, for one query or for many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ....onnx_export.errors import InputError
from ...search.cuts import query_warning
from ...search.results import Hits
from ...shards.searcher import allowing
from ..errors import OURS, ServiceError
from ..service import Service
from .base import Dialect, check_no_parameters, check_query_limits, respond
from .conditions import condition_of
from .search_bodies import SearchBody, SearchManyRequest, SearchManyResponse, SearchRequest, SearchResponse


def router(service: Service) -> APIRouter:
    """`/search` and `/search-many`."""
    routes = APIRouter(tags=["search"], responses=OURS.documented())
    settings = service.settings

    @routes.post("/search", response_model=SearchResponse, summary="Search an index")
    async def search(body: SearchRequest, request: Request) -> Response:
        """Find the best documents of an index for a query, best first."""
        _check(service, body, request, [body.query], body.offset + body.k)
        warnings: list[str] = []

        def task() -> dict[str, Any]:
            name, hits = service.search(
                body.index,
                lambda searcher: allowing(searcher, partial=body.partial).search(
                    body.query, body.offset + body.k, **_options(service, body)
                ),
            )
            content = _content(service, body, hits)
            content["hits"] = content["hits"][body.offset :]
            ids = [hit["id"] for hit in content["hits"]]
            if hits.truncated:
                warnings.append(query_warning(service.searchers[name].encoder))
            if body.highlight:
                _add_highlights(service, body, content["hits"], ids)
            if body.per_document is not None:
                _add_passages(service, body, content["hits"], ids, warnings)
            return {"index": name, **content, "warnings": warnings}

        return await respond(service, request, task, documents=body.k, warnings=warnings)

    @routes.post("/search-many", response_model=SearchManyResponse, summary="Search an index for many queries")
    async def search_many(body: SearchManyRequest, request: Request) -> Response:
        """Find the best documents for each of many queries, in less time than one after the other."""
        if len(body.queries) > settings.max_queries:
            limit = settings.max_queries
            message = f"there are {len(body.queries):,} queries; at most {limit:,} are searched at once"
            raise ServiceError(413, message, "documents")
        _check(service, body, request, body.queries, body.k)
        if len(body.queries) * body.k > settings.max_ids:
            message = (
                f"{len(body.queries):,} queries with {body.k:,} hits each are too many; {settings.max_ids:,} hits are "
            )
            raise ServiceError(413, message + "found at once: send fewer queries, or a smaller k", "documents")
        warnings: list[str] = []

        def task() -> dict[str, Any]:
            name, found = service.search_many(
                body.index,
                lambda searcher: allowing(searcher, partial=body.partial).search_many(
                    body.queries, body.k, threads=settings.slots, **_options(service, body)
                ),
            )
            if any(hits.truncated for hits in found):
                warnings.append(query_warning(service.searchers[name].encoder))
            return {"index": name, "results": [_content(service, body, hits) for hits in found], "warnings": warnings}

        return await respond(service, request, task, documents=len(body.queries) * body.k, warnings=warnings)

    return routes


def _options(service: Service, body: SearchBody) -> dict[str, Any]:
    """The options of `Searcher.search` but ``k``."""
    phrase_weight = service.settings.phrase_weight if body.phrase_weight is None else body.phrase_weight
    return {
        "recall": body.recall,
        "where": condition_of(body.where, body.params),
        "ids": body.ids,
        "passages": body.passages,
        "source": body.source,
        "bm25_weight": body.bm25_weight,
        "phrase_weight": phrase_weight,
        "nprobe": body.nprobe,
        "candidates": body.candidates,
        "fields": body.fields,
    }


def _content(service: Service, body: SearchBody, hits: Hits) -> dict[str, Any]:
    """The hits of a query, without those of too low a score."""
    scores = hits.scores(body.score or service.settings.score)
    return {
        "hits": [
            {"id": hit.id, "score": score, "title": hit.title, "text": hit.text, "fields": hit.fields}
            for hit, score in zip(hits, scores, strict=True)
            if body.min_score is None or score >= body.min_score
        ],
        "missing": list(hits.missing),
        "scored": hits.scored,
        "recall": hits.recall,
        "version": hits.version,
        "query_tokens": hits.query_tokens,
        "stages_ms": hits.stages,
        "truncated": hits.truncated,
        "lost": list(hits.lost),
    }


def _add_highlights(service: Service, body: SearchRequest, hits: list[dict[str, Any]], ids: Sequence[str]) -> None:
    if not ids:
        return
    weight = _options(service, body)["phrase_weight"]
    _, snippets = service.look(
        body.index,
        lambda searcher: searcher.snippets(body.query, ids, chars=body.highlight_chars, phrase_weight=weight),
    )
    for hit, snippet in zip(hits, snippets, strict=True):
        hit["highlight"] = {"text": snippet.text, "start": snippet.start, "marks": snippet.marks}


def _add_passages(
    service: Service, body: SearchRequest, hits: list[dict[str, Any]], ids: Sequence[str], warnings: list[str]
) -> None:
    """Give each hit its best passages, ranked by MaxSim."""
    if body.passages:
        raise InputError("passages and per_document were both given; leave one of them out")
    if not service.look(body.index, lambda searcher: searcher.has_passages)[1]:
        raise InputError("per_document is for an index of passages, and this one has whole documents; leave it out")
    for hit in hits:
        hit["passages"] = []
    if not ids:
        return
    limit = service.settings.max_ids
    options = {
        **_options(service, body),
        "ids": list(ids),
        "passages": True,
        "recall": "exact",
        "source": "lists",
        "bm25_weight": 0.0,
        "nprobe": None,
        "candidates": None,
        "fields": ["parent_id", "passage", "text"],
    }
    _, found = service.search(
        body.index, lambda searcher: allowing(searcher, partial=body.partial).search(body.query, limit, **options)
    )
    if len(found) == limit:
        warnings.append(f"these documents have more than {limit:,} passages; the worst of them are left out")
    by_document = {hit["id"]: hit["passages"] for hit in hits}
    for passage, score in zip(found, found.scores(body.score or service.settings.score), strict=True):
        of_document = by_document[passage.fields["parent_id"]]
        if len(of_document) < (body.per_document or 0):
            number = passage.fields["passage"]
            of_document.append({"id": passage.id, "score": score, "passage": number, "text": passage.text})


def _check(service: Service, body: SearchBody, request: Request, queries: Sequence[str], n_hits: int) -> None:
    """Refuse what is too long, an unknown index, and options in the URL, which would be ignored."""
    check_no_parameters(request)
    settings = service.settings
    for query in queries:
        check_query_limits(service, query)
    service.searcher(body.index)
    if n_hits > settings.max_k:
        what = "k is" if n_hits == body.k else "offset and k together are"
        raise ServiceError(422, f"{what} {n_hits:,}; at most {settings.max_k:,} hits are returned", "input")
    if body.where is not None and len(body.where) > settings.max_where_chars:
        limit = settings.max_where_chars
        message = f"the condition has {len(body.where):,} characters; at most {limit:,} are allowed"
        raise ServiceError(422, message, "input")
    if body.ids is not None and len(body.ids) > settings.max_ids:
        message = f"there are {len(body.ids):,} ids; at most {settings.max_ids:,} are allowed"
        raise ServiceError(413, message, "documents")


DIALECT = Dialect(OURS, router)
