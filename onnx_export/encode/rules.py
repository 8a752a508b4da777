"""What a model does to a text before and after the graph: markers, [MASK] expansion, cuts, skiplist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

ExpansionRule = Literal["fixed", "minimum", "paper", "shipped"]

# The fewest masks that the "paper" rule adds; both dynamic rules add this number just beyond a multiple.
_MIN_MASKS = 8

_MOST_TOKENS = 1 << 20  # of a text; masks fill up to that, whatever the text

# How `read_bundle` checks these classes with pydantic.
CHECKED_STRICTLY: dict[str, Any] = {"strict": True, "extra": "forbid"}


@dataclass(frozen=True)
class Expansion:
    """[MASK] expansion of queries: mask tokens follow the end token, and their vectors take part in MaxSim.

    Attributes:
        token: name of the mask token in the vocabulary.
        rule: how many masks a text of n tokens (start, marker and end included) gets:

            "fixed"     up to ``length`` (Stanford ColBERT and PyLate, where ``max_length`` is ``length`` too);
            "minimum"   up to ``length``, and no masks for longer texts (sentence-transformers' "min");
            "paper"     up to the next multiple of ``length``, or 8 where that would be fewer than 8
                        (JaColBERTv2.5, arXiv 2407.20750);
            "shipped"   as the paper's author released it: 8 where n mod ``length`` is at most 8, otherwise up to the
                        next multiple.
        length: for "fixed" and "minimum" the length to reach, in tokens; for the other rules the multiple.
        attend: whether other tokens attend to the masks.

    Raises:
        ValueError: ``rule`` is unknown, or ``length`` is less than 1.

    Example:
        >>> Expansion("[MASK]", "fixed", length=32).masks(tokens=12)
        20
    """

    token: str
    rule: ExpansionRule
    length: int = 32
    attend: bool = False

    __pydantic_config__: ClassVar[dict[str, Any]] = CHECKED_STRICTLY

    def __post_init__(self) -> None:
        if self.rule not in get_args(ExpansionRule):
            raise ValueError(f"unknown expansion rule {self.rule!r}; use one of {', '.join(get_args(ExpansionRule))}")
        if self.length < 1:
            raise ValueError(f"length is {self.length}; it must be 1 or more")

    def masks(self, tokens: int) -> int:
        """Number of masks for a text.

        Args:
            tokens: length of the text in tokens, with its start, marker and end tokens.
        """
        missing = -tokens % self.length
        if self.rule == "paper":
            return missing if missing >= _MIN_MASKS else _MIN_MASKS
        if self.rule == "shipped":
            return _MIN_MASKS if tokens % self.length <= _MIN_MASKS else missing
        return max(0, self.length - tokens)


@dataclass(frozen=True)
class TextRules:
    """How one kind of text, query or document, becomes token vectors.

    Attributes:
        prefix: string put before the text.
        marker: name in the vocabulary of the token that follows the start token; None for no marker.
        max_length: longest sequence in tokens, with start, marker, prefix, end and masks. Longer texts are cut.
        skiplist: names of the tokens whose vectors are left out.
        expansion: the mask tokens to add; None for no masks.
        strip: whether whitespace around the text is removed first.

    Raises:
        ValueError: ``max_length`` is less than 1 or more than 1,048,576.

    Example:
        >>> TextRules(prefix="", marker="[unused1]", max_length=300, skiplist=("。", "、"))
        TextRules(prefix='', marker='[unused1]', max_length=300, skiplist=('。', '、'), expansion=None, strip=False)
    """

    prefix: str
    marker: str | None
    max_length: int
    skiplist: tuple[str, ...] = ()
    expansion: Expansion | None = None
    strip: bool = False

    __pydantic_config__: ClassVar[dict[str, Any]] = CHECKED_STRICTLY

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise ValueError(f"max_length is {self.max_length}; it must be 1 or more")
        if self.max_length > _MOST_TOKENS:
            raise ValueError(f"max_length is {self.max_length}; it must be at most {_MOST_TOKENS}")
