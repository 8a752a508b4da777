"""Divide long documents into passages that are short enough for the model, at the ends of sentences."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ...onnx_export.errors import InputError
from ...onnx_export.kinds import check_whole
from .documents import Document
from .scan import chunks

# Counts the tokens of each text, before it is cut. Tokens that the model adds (start, marker, end) may be included.
CountTokens = Callable[[Sequence[str]], list[int]]

_TEXTS_PER_BATCH = 8192  # texts counted at a time: the result of tokenizing one takes up to a kilobyte
_CLOSING = "」』）］】〉》〕｝〗〙｣”’)\\]}\"'＂＇"  # inside a regular expression's brackets

# No branch reads a run of equal characters twice, so the search takes linear time. Digits and letters after a mark
# distinguish numbers (３．１４) and addresses (?q=) from sentence ends.
_SENTENCE_END = re.compile(
    rf"(?:[。｡！？‼⁇⁈⁉]|．(?![0-9０-９])|[!?](?![0-9A-Za-z=&/]))+[{_CLOSING}]*\s*"
    rf"|\.[{_CLOSING}]*\s+"
    r"|[\n\r\v\f\x85\u2028\u2029]\s*"
)
_PHRASE_END = re.compile(r"(?:[、，､・･\s]|,(?![0-9]))+")

_ZERO_WIDTH_JOINER = "\u200d"
_ATTACHED_CATEGORIES = ("Mn", "Mc", "Me", "Cf")  # marks, variation selectors; joiners and tags
_ATTACHED = "ﾞﾟ\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"  # half-width voicing marks, skin tones


@dataclass(frozen=True)
class _Job:
    """A text to split.

    Attributes:
        text: the text.
        frame: the title, which comes before each piece; may be empty.
        room: largest number of tokens of the frame and a piece together.
        text_room: largest number of tokens of a piece.
    """

    text: str
    frame: str
    room: int
    text_room: int

    @property
    def reach(self) -> int:
        """Largest number of characters that are counted at once; longer texts are assumed to be too long."""
        return max(4096, 16 * self.room)


@dataclass(slots=True)
class _Unit:
    """A part of a job's text, such as a sentence, that is cut only if it alone is too long."""

    job: _Job
    text: str
    tokens: int = 0


@dataclass
class _Pack:
    """Neighbouring units that become a piece; ``settled`` is true once they fit or cannot be cut."""

    job: _Job
    units: list[_Unit]
    settled: bool = False

    @property
    def text(self) -> str:
        return "".join(unit.text for unit in self.units)


def check_room(room: int, longest: int | None = None) -> None:
    """Check the largest number of tokens of a passage.

    Args:
        room: the number.
        longest: largest number of tokens that the model reads; None does not check it.

    Raises:
        InputError: ``room`` is less than 1 or more than ``longest``.
    """
    check_whole("passage_tokens", room)
    if longest is not None and room > longest:
        raise InputError(f"a passage has room for {room} tokens; the model reads no more than {longest}")


class Passages:
    """Documents or, if ``tokens`` is given, their passages. May be iterated over several times.

    Args:
        documents: the documents.
        count_tokens: counts the tokens of texts; None keeps the documents whole.
        tokens: largest number of tokens of a passage; None keeps the documents whole.
    """

    def __init__(self, documents: Iterable[Document], count_tokens: CountTokens | None, tokens: int | None) -> None:
        self._documents = documents
        self._count_tokens = count_tokens
        self._tokens = tokens

    def __iter__(self) -> Iterator[Document]:
        """Yield documents or passages in order."""
        if self._tokens is None or self._count_tokens is None:
            yield from self._documents
            return
        for chunk in chunks(self._documents):
            yield from split_documents(chunk, self._tokens, self._count_tokens)


def split_documents(documents: Sequence[Document], room: int, count_tokens: CountTokens) -> list[Document]:
    """Divide documents into passages.

    Args:
        documents: whole documents.
        room: largest number of tokens of a passage: of its title, a space and its text. If the title leaves less than
            a third of them to the text, the text gets a third anyway, and the model cuts the end of the passage.
        count_tokens: counts the tokens of texts, before they are cut. It is never called with a blank text.

    Returns:
        The passages in order. Each has the title and fields of its document, the id "<id>#<n>" (n from 0),
        ``parent_id`` and ``passage`` (n). A text that fits is one passage.

    Raises:
        InputError: ``room`` is less than 1.
    """
    check_room(room)
    titles = iter(_count([f"{document.title} " for document in documents if document.title.strip()], count_tokens))
    jobs = [_job(document, room, next(titles) if document.title.strip() else 0) for document in documents]
    return [
        replace(
            document,
            id=f"{document.id}#{n}",
            text=piece.strip(),
            parent_id=document.id,
            passage=n,
            whole_text=document.text,
        )
        for document, pieces in zip(documents, _split(jobs, count_tokens), strict=True)
        for n, piece in enumerate(pieces)
    ]


def _job(document: Document, room: int, title_tokens: int) -> _Job:
    third, text = -(-room // 3), document.text.strip()
    if room - title_tokens < third:
        return _Job(text, "", third, third)
    return _Job(text, f"{document.title} " if document.title else "", room, room - title_tokens)


def _split(jobs: Sequence[_Job], count_tokens: CountTokens) -> list[list[str]]:
    """The pieces of each job's text. All jobs pass each stage together: tokenizers are fastest with many texts."""
    whole = {i for i, job in enumerate(jobs) if not job.text.strip()}
    short = [i for i, job in enumerate(jobs) if i not in whole and len(job.text) <= job.reach]
    tokens = _count([jobs[i].frame + jobs[i].text for i in short], count_tokens)
    whole.update(i for i, n in zip(short, tokens, strict=True) if n <= jobs[i].room)
    units = [
        _Unit(job, sentence)
        for i, job in enumerate(jobs)
        if i not in whole
        for sentence in _cut_behind(_SENTENCE_END, job.text)
    ]
    pieces: dict[int, list[str]] = {}
    for pack in _verified(_packed(_fitting(units, count_tokens), count_tokens), count_tokens):
        pieces.setdefault(id(pack.job), []).append(pack.text)
    return [[job.text] if i in whole else pieces[id(job)] for i, job in enumerate(jobs)]


def _fitting(units: list[_Unit], count_tokens: CountTokens) -> list[_Unit]:
    """``units`` with their tokens counted; those that are too long are cut into smaller units, if possible."""
    _count_units(units, count_tokens)
    units, fresh = _refined(units, lambda unit: _cut_behind(_PHRASE_END, unit.text))
    _count_units(fresh, count_tokens)
    while True:
        units, fresh = _refined(units, lambda unit: _cut_between_characters(unit.text, _shares(unit)))
        if not fresh:
            return units
        _count_units(fresh, count_tokens)


def _refined(units: list[_Unit], cut: Callable[[_Unit], list[str]]) -> tuple[list[_Unit], list[_Unit]]:
    """``units`` with those cut that are too long, and the new units, which are not counted yet."""
    result: list[_Unit] = []
    fresh: list[_Unit] = []
    for unit in units:
        parts = cut(unit) if unit.tokens > unit.job.text_room else []
        if len(parts) > 1:
            new = [_Unit(unit.job, part) for part in parts]
            result += new
            fresh += new
        else:
            result.append(unit)
    return result, fresh


def _shares(unit: _Unit) -> int:
    """Number of equal parts to cut a long unit into: few, with a tenth to spare as characters differ in tokens."""
    size, limit = unit.tokens, unit.job.text_room
    if len(unit.text) > unit.job.reach:
        size, limit = len(unit.text), unit.job.reach
    return max(2, math.ceil(size / (0.9 * limit)))


def _packed(units: list[_Unit], count_tokens: CountTokens) -> list[_Pack]:
    """Groups of neighbouring units of a text, each as large as fits."""
    # Tokenizers may begin each text with an extra token, so a unit is counted together with the one before it.
    joined = [_Unit(unit.job, before.text + unit.text) for before, unit in pairwise(units)]
    _count_units(joined, count_tokens)
    packs: list[_Pack] = []
    total = 0
    for position, unit in enumerate(units):
        total += joined[position - 1].tokens - units[position - 1].tokens if position else 0
        if packs and packs[-1].job is unit.job and total <= unit.job.text_room:
            packs[-1].units.append(unit)
        else:
            packs.append(_Pack(unit.job, [unit]))
            total = unit.tokens
    return packs


def _verified(packs: list[_Pack], count_tokens: CountTokens) -> list[_Pack]:
    """``packs``, with those that are too long as a whole halved until they fit."""
    while unsettled := [pack for pack in packs if not pack.settled]:
        tokens = _count([pack.job.frame + pack.text for pack in unsettled], count_tokens)
        for pack, n in zip(unsettled, tokens, strict=True):
            pack.settled = n <= pack.job.room
        packs = [half for pack in packs for half in _halves(pack)]
    return packs


def _halves(pack: _Pack) -> list[_Pack]:
    """The two halves of a pack that is not settled; if it cannot be cut, the pack itself, settled."""
    if pack.settled:
        return [pack]
    units = pack.units
    if len(units) == 1:
        text = units[0].text
        parts = _cut_behind(_PHRASE_END, text)
        parts = parts if len(parts) > 1 else _cut_between_characters(text, 2)
        units = [_Unit(pack.job, part) for part in parts]
    if len(units) == 1:
        return [_Pack(pack.job, units, settled=True)]
    half, length = len(pack.text) / 2, 0
    ends = [length := length + len(unit.text) for unit in units[:-1]]
    middle = min(range(len(ends)), key=lambda i: abs(ends[i] - half)) + 1
    return [_Pack(pack.job, units[:middle]), _Pack(pack.job, units[middle:])]


def _count_units(units: Sequence[_Unit], count_tokens: CountTokens) -> None:
    # Some tokenizers take quadratic time for a long run of letters, so longer texts are not counted.
    within = [unit for unit in units if len(unit.text) <= unit.job.reach]
    for unit in units:
        unit.tokens = len(unit.text)
    for unit, tokens in zip(within, _count([unit.text for unit in within], count_tokens), strict=True):
        unit.tokens = tokens


def _count(texts: Sequence[str], count_tokens: CountTokens) -> list[int]:
    return [
        n
        for start in range(0, len(texts), _TEXTS_PER_BATCH)
        for n in count_tokens(texts[start : start + _TEXTS_PER_BATCH])
    ]


def _cut_behind(pattern: re.Pattern[str], text: str) -> list[str]:
    """``text`` cut after each match."""
    # Cuts are made between visible characters, so no part is blank.
    first = len(text) - len(text.lstrip())
    ends = [match.end() for match in pattern.finditer(text, first)]
    return _parts(text, [end for end in ends if end < len(text) and _may_cut(text, end)])


def _cut_between_characters(text: str, parts: int) -> list[str]:
    """``text`` in about ``parts`` parts of similar length; in fewer, or whole, if it cannot be cut."""
    first = len(text) - len(text.lstrip())
    cuts = [first]
    for part in range(1, parts):
        target = max(first + 1, part * len(text) // parts)
        if target <= cuts[-1]:
            continue
        later = next((i for i in range(target, len(text)) if _may_cut(text, i)), None)
        if later is None:
            earlier = (i for i in range(target - 1, cuts[-1], -1) if _may_cut(text, i))
            cuts += [i for i in [next(earlier, None)] if i is not None]
            break
        cuts.append(later)
    return _parts(text, cuts[1:])


def _parts(text: str, cuts: Sequence[int]) -> list[str]:
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def _may_cut(text: str, position: int) -> bool:
    """Whether text[position] may begin a part: it is not white space, and not attached to the character before it."""
    character = text[position]
    return not (
        character.isspace()
        or unicodedata.category(character) in _ATTACHED_CATEGORIES
        or character in _ATTACHED
        or text[position - 1] == _ZERO_WIDTH_JOINER
    )
