"""The query expansion of a checkpoint, or the one that the user chooses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from ...encode.rules import Expansion, TextRules
from ...errors import CheckpointError

QueryExpansion = Literal["paper", "shipped", "fixed", "none"]
_MASK_MULTIPLE = 32  # of the paper's rule and the shipped one


def query_rules(
    expansion: QueryExpansion | None, rules: TextRules, mask: str | None, longest: int, folder: Path
) -> TextRules:
    """Query rules with another expansion.

    Args:
        expansion: None leaves the rules as they are. "paper" and "shipped" (see `Expansion`) never cut a query that
            the backbone can read; "fixed" fills or cuts to the checkpoint's length; "none" adds no masks.
        rules: the checkpoint's own.
        mask: name of the mask token, or None if the tokenizer does not have one.
        longest: the longest sequence that the backbone reads, in tokens.
        folder: the checkpoint, for the error.

    Returns:
        ``rules`` with ``expansion`` in place of their own.

    Raises:
        CheckpointError: the expansion needs masks, and the tokenizer has no mask token.
    """
    if expansion is None:
        return rules
    if expansion == "none":
        return dataclasses.replace(rules, expansion=None)
    if mask is None:
        raise CheckpointError(f"{folder}: query expansion {expansion!r} needs a mask token; use 'none'")
    attend = rules.expansion is not None and rules.expansion.attend
    if expansion == "fixed":
        length = rules.expansion.length if rules.expansion else rules.max_length
        return dataclasses.replace(rules, expansion=Expansion(mask, "fixed", length, attend), max_length=length)
    return dataclasses.replace(rules, expansion=Expansion(mask, expansion, _MASK_MULTIPLE, attend), max_length=longest)


def with_query_length(rules: TextRules, length: int) -> TextRules:
    """Query rules with another length.

    Args:
        rules: the rules.
        length: longest query in tokens. The masks of the rule "fixed" reach up to it; the other rules are cut at it.
    """
    expansion = rules.expansion
    if expansion and (expansion.rule == "fixed" or (expansion.rule == "minimum" and expansion.length > length)):
        expansion = dataclasses.replace(expansion, length=length)
    return dataclasses.replace(rules, max_length=length, expansion=expansion)
