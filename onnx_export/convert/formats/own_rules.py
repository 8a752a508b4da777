"""Text rules that the published formats have no words for, in a field `tansaku` beside the format's own.

Other libraries ignore the field. It holds all rules, and the values of the format's fields that it was written with: if
one of these is changed by hand later, the field would silently win, so that is refused.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from ...encode.rules import CHECKED_STRICTLY, TextRules
from ...errors import CheckpointError
from ...validation import describe_errors
from .files import read_settings

FIELD = "tansaku"


class _Anything(RootModel[Any]):
    pass


class _OwnRules(BaseModel):
    model_config = ConfigDict(**CHECKED_STRICTLY)

    query: TextRules
    document: TextRules
    beside: dict[str, Any]


def with_own_rules(settings: Mapping[str, Any], query: TextRules, document: TextRules) -> dict[str, Any]:
    """A format's settings, with the rules in a field of tansaku's own.

    Args:
        settings: what the format says of the rules in its own words.
        query: rules for queries.
        document: rules for documents.
    """
    own = {"query": dataclasses.asdict(query), "document": dataclasses.asdict(document), "beside": dict(settings)}
    return {**settings, FIELD: own}


def read_own_rules(path: Path) -> tuple[TextRules, TextRules] | None:
    """The rules for queries and documents in a file of settings, where tansaku has written them.

    Args:
        path: the file.

    Returns:
        The rules, or None if the file does not have the field.

    Raises:
        CheckpointError: the field cannot be read, or one beside it was changed after it was written.
    """
    content = read_settings(path, _Anything).root
    if FIELD not in content:
        return None
    try:
        # From JSON, where pydantic takes a list for a tuple and an object for a dataclass in strict mode too.
        own = _OwnRules.model_validate_json(json.dumps(content[FIELD]))
    except ValidationError as error:
        raise CheckpointError(
            f"{path}: {FIELD}: {describe_errors(error)}; remove that field so that the format's own fields hold"
        ) from error
    for name, value in own.beside.items():
        if content.get(name) != value:
            raise CheckpointError(
                f"{path}: {name} is {content.get(name)!r}, but was {value!r} when tansaku wrote the rules in the field "
                f"{FIELD!r}; change it back, or remove that field so that the format's own fields hold"
            )
    return own.query, own.document
