"""Let SQLite's full text search find candidates, and tansaku put the best first; leaves nothing behind.

python rerank_existing_engine.py
"""

import sqlite3
import tempfile
from pathlib import Path

from tansaku import HostSearch, Index, Reranker, Searcher
from tansaku.plugin.hosts.sqlite import SqliteSource

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
documents = [
    ("kinkaku", "金閣寺は室町時代に足利義満が建てた寺院である。"),
    ("ginkaku", "銀閣寺は足利義政が建てた山荘を寺院としたものである。"),
    ("toji", "東寺は平安京が都になった時に建てられた寺院である。"),
]

# The engine that is there already.
connection = sqlite3.connect(folder / "engine.db")
connection.execute("CREATE VIRTUAL TABLE docs USING fts5(id UNINDEXED, text, tokenize = 'trigram')")
connection.executemany("INSERT INTO docs VALUES (?, ?)", documents)
connection.commit()

# Once: the same documents under the same ids, as token vectors.
Index.create(folder / "db", "docs", [{"id": name, "text": text} for name, text in documents])

source = SqliteSource(folder / "engine.db", "docs", text_columns=["text"])
search = HostSearch(source, Reranker(searcher=Searcher.open(folder / "db", "docs")), candidates=100)
for hit in search.search("金閣寺を建てた将軍は誰ですか", k=2):
    print(hit.id, f"{hit.score:.2f}", "rank in SQLite:", hit.host_rank)
connection.close()
temporary.cleanup()
