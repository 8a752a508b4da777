"""JSQuAD: questions over the paragraphs that they were asked about. Compared by hit@3, and by hit@1, @5 and @10.

Each is also recall, as one paragraph is relevant. The form is JGLUE's (yahoojapan/JGLUE on GitHub):
``SPLIT-v1.1.json`` or a later version, which is SQuAD 1.1's. A context is "title [SEP] paragraph". Here the title is
a title, and equal contexts are one document.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....indexer.errors import SourceError
from ..judgements import Corpus, Qrels
from .task import Place, Task, add_query, files_in, id_in, list_in, text_in

MEASURES = {"hit@3": "Success@3", "hit@1": "Success@1", "hit@5": "Success@5", "hit@10": "Success@10"}
_BETWEEN = "[SEP]"


def read_jsquad(folder: Path, split: str) -> Iterator[Task]:
    """The task of a copy of JGLUE's JSQuAD.

    Args:
        folder: folder with SPLIT-v1.*.json, in it or below it.
        split: "valid" or "train".

    Raises:
        SourceError: the file or a field is missing, or there are several versions; names the place.
    """
    paths = files_in(folder, f"{split}-v1.*.json")
    if len(paths) > 1:
        raise SourceError(f"{paths[0]} and {paths[-1]}: two versions in {folder}; name the folder of one")
    try:
        content = json.loads(paths[0].read_bytes())
    except ValueError as error:  # also of bytes that are not UTF-8
        raise SourceError(f"{paths[0]}: not JSON ({error})") from error
    numbers: dict[str, int] = {}  # of the contexts
    queries: dict[str, str] = {}
    qrels: Qrels = {}
    for place, paragraph in _paragraphs(str(paths[0]), content):
        number = numbers.setdefault(text_in(place, paragraph, "context"), len(numbers))
        for n, question in enumerate(list_in(place, paragraph, "qas")):
            at = f"{place}.qas[{n}]"
            query_id = id_in(at, _object(at, question), "id")
            add_query(queries, at, query_id, text_in(at, question, "question"))
            qrels[query_id] = {f"p{number}": 1}
    corpus = Corpus(paths[0], lambda: _documents(paths[0], numbers))
    yield Task("JSQuAD", split, corpus, queries, qrels, MEASURES)


def _paragraphs(path: str, content: Any) -> Iterator[Place]:
    for a, article in enumerate(list_in(path, _object(path, content), "data")):
        at = f"{path}: data[{a}]"
        for p, paragraph in enumerate(list_in(at, _object(at, article), "paragraphs")):
            yield f"{at}.paragraphs[{p}]", _object(f"{at}.paragraphs[{p}]", paragraph)


def _object(place: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SourceError(f"{place}: not an object, but {type(value).__name__}")
    return value


def _documents(path: Path, numbers: dict[str, int]) -> Iterator[Place]:
    for context, number in numbers.items():
        title, between, text = context.partition(_BETWEEN)
        if not between:
            title, text = "", context
        yield f"{path}: context {number}", {"_id": f"p{number}", "title": title.strip(), "text": text.strip()}
