"""Index documents in the folder `db`, and search them.

python index_and_search.py
"""

from tansaku import Index, Searcher

documents = [
    {"id": "kinkaku", "title": "金閣寺", "text": "金閣寺は室町時代に足利義満が建てた。", "year": 1397},
    {"id": "nijo", "title": "二条城", "text": "二条城は徳川家康が京都に築いた城である。", "year": 1603},
    {"id": "biwa", "title": "琵琶湖", "text": "琵琶湖は日本で最も大きい湖である。", "year": 2000},
]
Index.create("db", "sights", documents, overwrite=True)

searcher = Searcher.open("db", "sights")
for hit in searcher.search("足利将軍の建てた寺", k=2, where="year < 1900"):
    print(f"{hit.score:.2f}", hit.id, hit.title, hit.fields["year"])
