"""LanceDB's full text search: a column of normalized text and the index over it.

The tokenizer is ICU's, which comes with LanceDB. Of the bundled tokenizers it needs the least space and time, and it
finds about as many of the right documents as character bigrams do (`benchmarks.search.sources`). LanceDB's own
normalization leaves half-width kana and compatibility characters unchanged, so texts and queries are normalized to NFKC
first.
"""

from __future__ import annotations

import unicodedata

from lancedb.index import FTS
from lancedb.table import Table

FULLTEXT_FIELD = "fulltext"


def normalized(text: str) -> str:
    """Normalize a text or query to NFKC, the form that is indexed and searched."""
    return unicodedata.normalize("NFKC", text)


def ensure_text_index(table: Table) -> None:
    """Make the full text index, unless it exists. Rows written later are found too, but more slowly."""
    if not any(FULLTEXT_FIELD in index.columns for index in table.list_indices()):
        table.create_index(
            FULLTEXT_FIELD, config=FTS(base_tokenizer="icu", stem=False, remove_stop_words=False, with_position=False)
        )
