"""Haystack: a document store, a retriever and a ranker."""

from .components import TansakuRanker, TansakuRetriever
from .store import TansakuDocumentStore

__all__ = ["TansakuDocumentStore", "TansakuRanker", "TansakuRetriever"]
