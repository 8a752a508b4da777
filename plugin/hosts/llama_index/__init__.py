"""LlamaIndex: a vector store in an index, a retriever over any index, and a postprocessor that ranks nodes."""

from .nodes import NODE_COLUMN, node_records
from .rerank import TansakuRerank
from .retriever import TansakuRetriever
from .store import TansakuVectorStore

__all__ = ["NODE_COLUMN", "TansakuRerank", "TansakuRetriever", "TansakuVectorStore", "node_records"]
