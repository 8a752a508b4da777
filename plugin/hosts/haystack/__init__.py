"""Haystack: a document store, a retriever and a ranker.

```python
from haystack import Document
from tansaku.plugin.hosts.haystack import TansakuDocumentStore, TansakuRetriever
store = TansakuDocumentStore("db", "docs")
store.write_documents([Document(content="金閣寺は京都の寺院。")])
documents = TansakuRetriever(store, top_k=5).run("京都の寺")["documents"]
```
"""

from .components import TansakuRanker, TansakuRetriever
from .store import TansakuDocumentStore

__all__ = ["TansakuDocumentStore", "TansakuRanker", "TansakuRetriever"]
