"""Texts on disk, mapped into memory: millions of queries or passages of which a process holds none.

A store is some files of one name: texts and ids, each with the places where they begin, and sorted hashes of the ids.
Processes that open the same store share its pages in the system's cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from ...plugin.evaluation.judgements import texts_in
from ..errors import TrainingDataError
from .left_out import LeftOut

NO_TEXT, CAME_BEFORE = "without text", "with an id that came before"
_KEY_BYTES = 16  # two of a billion ids have the same key with a probability of 1e-21
_KEY = f"S{_KEY_BYTES}"


def keys_of(ids: Iterable[str]) -> np.ndarray:
    """The hash of each id: bytes (ids,)."""
    return np.frombuffer(b"".join(map(_key, ids)), _KEY)


def write_texts(
    folder: Path, name: str, records: Iterable[tuple[str, str, str]], left_out: LeftOut | None
) -> TextStore:
    """Write a store.

    Args:
        folder: folder of its files; it must exist.
        name: name of the files.
        records: place, id and text of each; they are read once and not kept.
        left_out: takes up the records without text and those whose id came before, of which the first counts. None: the
            records are those of groups, where a text may occur in many.

    Returns:
        The store.

    Raises:
        TrainingDataError: there are no texts.
        OSError: a file cannot be written.
    """
    hashes, empty = bytearray(), set()
    with _Blobs(folder / f"{name}.texts") as texts, _Blobs(folder / f"{name}.ids") as ids:
        for place, text_id, text in records:
            if left_out is not None:
                left_out.total += 1
            if not text:
                empty.add(text_id)
                if left_out is not None:
                    left_out.add(NO_TEXT, place)
                continue
            texts.add(text)
            ids.add(text_id)
            hashes += _key(text_id)
    if not hashes:
        raise TrainingDataError(f"no {name} have any text; check data.{name} and data.groups")
    keys = np.frombuffer(hashes, _KEY)
    order = np.argsort(keys, kind="stable")  # of equal ones the first that was read comes first
    ordered = keys[order]
    np.save(folder / f"{name}.keys.npy", ordered)
    np.save(folder / f"{name}.rows.npy", order.astype(np.int32))
    store = TextStore(folder, name, empty)
    if left_out is not None:
        for row in np.sort(order[1:][ordered[1:] == ordered[:-1]]).tolist():
            left_out.add(CAME_BEFORE, store.id_at(row))
    return store


def open_texts(
    folder: Path, name: str, paths: Sequence[str], max_left_out: float, note: Callable[[str], None]
) -> TextStore:
    """Write the texts of files to a store and open it.

    Args:
        folder: folder of the store; it must exist.
        name: "queries" or "collection".
        paths: files, see `read_queries` and `read_passages`.
        max_left_out: largest share of the texts that may be left out.
        note: called with what was left out, if anything.

    Raises:
        SourceError: a file cannot be read.
        TrainingDataError: more is left out, or there are no texts.
    """
    left_out = LeftOut("queries" if name == "queries" else "passages")
    store = write_texts(folder, name, texts_in(paths, passages=name == "collection"), left_out)
    left_out.check(max_left_out)
    if left_out.count:
        note(str(left_out))
    return store


class TextStore(Mapping[str, str]):
    """Id → text, in the order in which they were read.

    Args:
        folder: folder of the files that `write_texts` wrote.
        name: their name.
        empty: ids that were left out, as they have no text.
    """

    def __init__(self, folder: Path, name: str, empty: Collection[str] = ()) -> None:
        self.empty = frozenset(empty)
        self._texts, self._ids = _read_blobs(folder / f"{name}.texts"), _read_blobs(folder / f"{name}.ids")
        self._keys = np.load(folder / f"{name}.keys.npy", mmap_mode="r")
        self._rows = np.load(folder / f"{name}.rows.npy", mmap_mode="r")
        is_first = np.ones(len(self._keys), bool)
        is_first[1:] = self._keys[1:] != self._keys[:-1]
        self.rows = range(len(self._keys)) if is_first.all() else np.sort(self._rows[is_first]).tolist()

    def find(self, ids: Iterable[str]) -> np.ndarray:
        """The row of each id, int64 (ids,); -1 for an unknown one."""
        keys = keys_of(ids)
        places = np.searchsorted(self._keys, keys)
        places[places == len(self._keys)] = 0
        return np.where(self._keys[places] == keys, self._rows[places].astype(np.int64), -1)

    def text_at(self, row: int) -> str:
        """The text in a row."""
        return self._texts[row].as_py()

    def id_at(self, row: int) -> str:
        """The id in a row."""
        return self._ids[row].as_py()

    def __getitem__(self, text_id: str) -> str:
        """The text of an id.

        Raises:
            KeyError: it is unknown.
        """
        row = int(self.find([text_id])[0])
        if row < 0:
            raise KeyError(text_id)
        return self.text_at(row)

    def __contains__(self, text_id: object) -> bool:
        return isinstance(text_id, str) and self.find([text_id])[0] >= 0

    def __iter__(self) -> Iterator[str]:
        return map(self.id_at, self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def _key(text_id: str) -> bytes:
    return hashlib.blake2b(text_id.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()


class _Blobs:
    """A file of texts one after the other, and one of the places where they begin and the last ends."""

    def __init__(self, path: Path) -> None:
        self._file, self._places = path.open("wb"), path.with_name(f"{path.name}.places").open("wb")
        self._end = 0
        self._places.write(self._end.to_bytes(8, "little"))

    def add(self, text: str) -> None:
        self._end += self._file.write(text.encode("utf-8", "replace"))
        self._places.write(self._end.to_bytes(8, "little"))

    def __enter__(self) -> _Blobs:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._places.close()


def _read_blobs(path: Path) -> pa.Array:
    places = pa.memory_map(str(path.with_name(f"{path.name}.places"))).read_buffer()
    # Nothing at all cannot be mapped: the only id may be an empty one.
    data = pa.memory_map(str(path)).read_buffer() if path.stat().st_size else pa.py_buffer(b"\0")
    return pa.LargeStringArray.from_buffers(places.size // 8 - 1, places, data)
