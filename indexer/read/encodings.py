"""Text in other encodings than UTF-8: find the encoding of a file, and read the file as UTF-8."""

from __future__ import annotations

import codecs
import io
from typing import IO, Any

import charset_normalizer

from ...onnx_export.errors import InputError
from .line_formats import BAD_BYTES, is_iso_2022_jp

_SAMPLE = 2**20  # bytes at the start of a file that an encoding is found by
_BLOCK = 2**16
# Share of null bytes that only UTF-16 has; in a text that could be UTF-8, which UTF-16 can only if it is mostly ASCII.
_NULLS, _NULLS_OF_ASCII = 0.02, 0.25
_ENOUGH = 0.8  # share of the lines with other characters than ASCII that an encoding must be able to read

_JAPANESE = ["cp932", "euc_jp"]  # what is looked for; UTF-16 has a byte order mark, ISO-2022-JP its escapes
_ISO_2022_JP = ("iso2022_jp", "iso2022_jp_ext", "iso2022_jp_2", "iso2022_jp_3", "iso2022_jp_2004")
_NO_CHARACTERS = frozenset("\x80\xa0\uf8f0\uf8f1\uf8f2\uf8f3")  # what Python reads for single bytes that CP932 lacks
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
# Windows writes characters of its own, such as ① and 髙, into files that are called Shift_JIS. Browsers do the same.
_WIDER = {"shift_jis": "cp932", "ascii": "utf-8", "utf_8": "utf-8", "utf-8-sig": "utf-8"}

_HANDLER = "tansaku.bad_bytes"


def _bad_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeDecodeError):
        return "\udcff", error.end
    if isinstance(error, UnicodeEncodeError):  # a lone surrogate: what stands above, or half a character of UTF-16
        return BAD_BYTES, error.end
    raise error


codecs.register_error(_HANDLER, _bad_bytes)


def check_encoding(name: str) -> str:
    """The name of an encoding as Python has it.

    Args:
        name: an encoding, such as "cp932", "Shift_JIS", "euc-jp" or "utf-16".

    Returns:
        Its name: "cp932" for Shift_JIS too.

    Raises:
        InputError: Python does not know such an encoding of text.
    """
    try:
        found = codecs.lookup(name)
        "".encode(name)  # some codecs are not of text
    except (LookupError, ValueError) as error:
        raise InputError(
            f"unknown encoding {name!r} ({error}); use one such as cp932, euc-jp, iso-2022-jp, utf-16 or utf-8"
        ) from error
    return _WIDER.get(found.name, found.name)


def find_encoding(file: IO[bytes]) -> str:
    """The encoding of a text, by its first 1 MiB.

    Most lines decide: one line with bytes that are not valid does not make a file of UTF-8 one of another encoding.

    Args:
        file: the text, at its start.

    Returns:
        "utf-8"; "utf-16" for a text with such a byte order mark; or "cp932", "euc_jp", one like "iso2022_jp",
        "utf-16-le" or "utf-16-be", which are guesses.
    """
    sample = file.read(_SAMPLE)
    for mark, encoding in _MARKS:
        if sample.startswith(mark):
            return encoding
    if b"\0" in sample and (wide := _utf_16(sample)):
        return wide
    lines = sample.split(b"\n")
    if len(sample) == _SAMPLE:  # the last line is not whole
        lines = lines[:-1] or lines
    if sample.isascii():
        return _iso_2022_jp(sample) if is_iso_2022_jp(sample) else "utf-8"
    lines = [line for line in lines if not line.isascii()]
    if len(_readable(lines, "utf-8")) >= len(lines) / 2:
        return "utf-8"
    for encoding in _JAPANESE:
        readable = _readable(lines, encoding)
        if len(readable) < _ENOUGH * len(lines):
            continue
        best = charset_normalizer.from_bytes(b"\n".join(readable), cp_isolation=_JAPANESE, threshold=0.5).best()
        if best is not None and best.encoding == encoding:
            return encoding
    return "utf-8"


def _utf_16(sample: bytes) -> str:
    """How UTF-16 without a byte order mark is written; empty if the text is not that.

    The high bytes of ASCII are null, so that all null bytes are at even or all at odd places.
    """
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    enough = _NULLS_OF_ASCII if _is_utf8(sample) else _NULLS
    if (even and odd) or max(even, odd) < len(sample) * enough:
        return ""
    encoding = "utf-16-be" if even else "utf-16-le"
    try:
        sample[: len(sample) // 4 * 4 - 2].decode(encoding)  # without a half of a pair at its end
    except UnicodeDecodeError:
        return ""
    return encoding


def _is_utf8(sample: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return True


def _iso_2022_jp(sample: bytes) -> str:
    """The variant of ISO-2022-JP that reads most lines; the first if several do."""
    lines = sample.split(b"\n")
    return max(_ISO_2022_JP, key=lambda encoding: len(_readable(lines, encoding)))


def as_utf8(file: IO[bytes], encoding: str) -> IO[bytes]:
    """A text as UTF-8.

    Args:
        file: the text, at its start.
        encoding: its encoding, from `check_encoding` or `find_encoding`.

    Returns:
        The file itself if it is UTF-8; otherwise one that is read as UTF-8, in which `BAD_BYTES` stands in the place
        of bytes that the encoding does not have.
    """
    return file if encoding == "utf-8" else io.BufferedReader(_Recoded(file, encoding), _BLOCK)


class _Recoded(io.RawIOBase):
    """A text of some encoding, read as UTF-8."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)(_HANDLER)
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and not self._ended:
            block = self._file.read(_BLOCK)
            self._ended = not block
            self._ready = self._decoder.decode(block, self._ended).encode("utf-8", _HANDLER)
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def _readable(lines: list[bytes], encoding: str) -> list[bytes]:
    """The lines that an encoding can read."""
    readable = []
    for line in lines:
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding != "cp932" or not _NO_CHARACTERS.intersection(text):
            readable.append(line)
    return readable
