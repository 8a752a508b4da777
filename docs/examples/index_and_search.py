"""Index documents and search them.

python index_and_search.py [DB]
"""

import sys

# --8<-- [start:search]
from tansaku import Index, Searcher

documents = [
    {"id": "kinkaku", "title": "金閣寺", "text": "金閣寺は室町時代に足利義満が建てた。", "year": 1397},
    {"id": "nijo", "title": "二条城", "text": "二条城は徳川家康が京都に築いた城である。", "year": 1603},
    {"id": "biwa", "title": "琵琶湖", "text": "琵琶湖は日本で最も大きい湖である。", "year": 2000},
]
db = sys.argv[1] if len(sys.argv) > 1 else "db"
Index.create(db, "docs", documents)

searcher = Searcher.open(db, "docs")
for hit in searcher.search("足利将軍の建てた寺", k=2, where="year < 1900"):
    print(f"{hit.score:.2f}", hit.id, hit.title, hit.fields["year"])
# --8<-- [end:search]
