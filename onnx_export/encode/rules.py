"""What a model does to a text before and after the graph: markers, [MASK] expansion, cuts, skiplist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

ExpansionRule = Literal["fixed", "minimum", "paper", "shipped"]

_MIN_MASKS = 8  # the least number of masks of the "paper" rule, and the number both dynamic rules add beyond a multiple


@dataclass(frozen=True)
class Expansion:
    """[MASK] expansion: mask tokens are put behind the end token, and their vectors take part in MaxSim.

    Attributes:
        token: the mask token, by its name in the vocabulary.
        rule: how many masks a text of n tokens (start, marker and end included) gets:

            "fixed"     up to ``length`` (Stanford ColBERT and PyLate, where ``max_length`` is ``length`` too);
            "minimum"   up to ``length``, none for longer texts (sentence-transformers' "min");
            "paper"     up to the next multiple of ``length``, or 8 where that would be fewer than 8
                        (JaColBERTv2.5, arXiv 2407.20750);
            "shipped"   as the paper's author released it: 8 where n mod ``length`` is at most 8, else up to the next
                        multiple.
        length: of "fixed" and "minimum" the length to reach; of the others the multiple.
        attend: whether other tokens attend to the masks.
    """

    token: str
    rule: ExpansionRule
    length: int = 32
    attend: bool = False

    def __post_init__(self) -> None:
        if self.rule not in get_args(ExpansionRule):
            raise ValueError(f"expansion rule {self.rule!r} is none of {', '.join(get_args(ExpansionRule))}")
        if self.length < 1:
            raise ValueError(f"expansion length is {self.length}; it must be 1 or more")

    def masks(self, tokens: int) -> int:
        """Masks for a text of ``tokens`` tokens."""
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
        prefix: put before the text, as text.
        marker: token inserted after the sequence start token, by its name in the vocabulary, or None.
        max_length: longest sequence in tokens, start, marker, prefix, end and masks included; the text is cut there.
        skiplist: tokens whose vectors are left out, by name.
        expansion: mask tokens to add, or None.
        strip: whether white space around the text is taken off first.
    """

    prefix: str
    marker: str | None
    max_length: int
    skiplist: tuple[str, ...] = ()
    expansion: Expansion | None = None
    strip: bool = False


def parse_rules(content: Any) -> TextRules:
    """`TextRules` from their JSON form; raises KeyError, TypeError or ValueError if that is not what it should be."""
    values = checked(content, _RULES_TYPES)
    values["skiplist"] = tuple(checked(dict(enumerate(values.get("skiplist", []))), str).values())
    if values.get("expansion") is not None:
        values["expansion"] = Expansion(**checked(values["expansion"], _EXPANSION_TYPES))
    return TextRules(**values)


def checked(values: Any, kinds: Any) -> dict[Any, Any]:
    """A copy of ``values`` if each is of its kind (one for all, or one by name), above 0 where it is a number."""
    if not isinstance(values, dict):
        raise TypeError(f"expected an object, found {type(values).__name__}")
    for name, value in values.items():
        kind = kinds[name] if isinstance(kinds, dict) else kinds
        if (
            not isinstance(value, kind)
            or (isinstance(value, bool) and kind is not bool)
            or (_is_count(value) and value < 1)
        ):
            raise TypeError(f"{name!r} is {value!r}")
    return dict(values)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_RULES_TYPES = {
    "prefix": str,
    "marker": (str, type(None)),
    "max_length": int,
    "skiplist": list,
    "expansion": (dict, type(None)),
    "strip": bool,
}
_EXPANSION_TYPES = {"token": str, "rule": str, "length": int, "attend": bool}
