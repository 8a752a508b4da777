"""Full text search by LanceDB beside the vectors: a column of normalized text and the index over it.

The tokenizer is ICU's, which comes with LanceDB: of the bundled ones it needs the least room and time, and finds about
as many of the right documents as character bigrams do (`benchmarks.search.sources`). LanceDB's own normalization
leaves half-width kana and compatibility characters as they are, so text is brought to NFKC first, and so is the query.
"""

from __future__ import annotations

import unicodedata

from lancedb.index import FTS
from lancedb.table import Table

FULLTEXT_FIELD = "fulltext"


def normalized(text: str) -> str:
    """``text`` as it is indexed and searched: NFKC."""
    return unicodedata.normalize("NFKC", text)


def ensure_text_index(table: Table) -> None:
    """Make the index over the column unless it is there; rows written later are found without it too, but slower."""
    if not any(FULLTEXT_FIELD in index.columns for index in table.list_indices()):
        table.create_index(
            FULLTEXT_FIELD, config=FTS(base_tokenizer="icu", stem=False, remove_stop_words=False, with_position=False)
        )
