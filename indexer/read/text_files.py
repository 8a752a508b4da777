"""Read a text file as one record: its path is the id, its name the title, its content the text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from .line_formats import MAX_LINE, BadRecord, Record, not_readable, without_nulls

_BOM = "\ufeff"


def read_text(
    file: IO[bytes], name: str, doc_id: str, say: Callable[[str], None] = lambda text: None
) -> Iterator[Record]:
    """Read a text or Markdown file. Null characters are left out.

    Args:
        file: the file as UTF-8, opened in binary mode.
        name: what places and error messages call the file.
        doc_id: the id of the record.
        say: called with a sentence if there are null characters.

    Yields:
        One pair of place and record. The title is the name of the file without its suffix.
    """
    data = file.read(MAX_LINE + 1)
    if len(data) > MAX_LINE:
        yield name, BadRecord(f"a text longer than {MAX_LINE:,} bytes", "")
        return
    try:
        text = data.decode("utf-8").removeprefix(_BOM)
    except UnicodeDecodeError as error:
        yield name, BadRecord(not_readable(error), data[:1000].decode("utf-8", "backslashreplace"))
        return
    yield name, {"id": doc_id, "title": Path(doc_id).stem, "text": without_nulls(text, name, say)}
