"""The HTTP service `tansaku serve`: dialects of rerank and embedding APIs over one reranker and one searcher."""
