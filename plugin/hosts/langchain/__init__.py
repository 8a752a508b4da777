"""LangChain: a retriever, a document compressor and a vector store."""

from .retriever import TansakuCompressor, TansakuRetriever
from .store import TansakuVectorStore

__all__ = ["TansakuCompressor", "TansakuRetriever", "TansakuVectorStore"]
