"""A table of replacements as the `Precompiled` normalizer of `tokenizers` reads it: one look-up for each character.

The form is that of sentencepiece (its ``precompiled_charsmap``): the size of a trie in bytes, uint32; the trie, a
double array as Darts-clone lays it out; then the replacements in UTF-8, each ended by a zero. A leaf of the trie is the
place of a replacement. Thousands of `Replace` steps would do the same, each with a pass over the text.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

_LEAF = 1 << 31  # marks the value of a key
_HAS_LEAF = 1 << 8  # of a node: a key ends here
_OFFSET = 10  # the lowest bit of a node's offset
_MAX_UNITS = 1 << 21  # larger offsets would need another form


def charsmap(replacements: Mapping[str, str]) -> bytes:
    """Compile a table of replacements.

    Args:
        replacements: character, or character with combining marks of five bytes at most → what takes its place.

    Returns:
        What `tokenizers.normalizers.Precompiled` takes.

    Raises:
        ValueError: the table is empty, or a key or replacement is empty or has a NUL.
    """
    if not replacements or any(not text or "\0" in text for pair in replacements.items() for text in pair):
        raise ValueError("a table of replacements needs characters and replacements that are neither empty nor NUL")
    texts, places = b"", {}
    for text in sorted(set(replacements.values())):
        places[text] = len(texts)
        texts += text.encode() + b"\0"
    trie: dict[int, Any] = {}
    for key, text in replacements.items():
        node = trie
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[0] = places[text]
    units = _double_array(trie)
    return struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + texts


def _double_array(trie: dict[int, Any]) -> list[int]:
    """Lay out a trie: the child of a node by a byte stands at the node's base XOR that byte, its label is the byte.

    Two nodes must not share a base, or one would seem to have the other's children.
    """
    units: dict[int, int] = {0: 0}
    bases: set[int] = set()
    free = 1  # all places before it are taken
    unplaced = [(0, trie)]
    for place, node in unplaced:  # which grows as children are placed
        first = next(iter(node))
        places = (free_place ^ first for free_place in range(free, _MAX_UNITS))
        base = next(b for b in places if b not in bases and all(b ^ byte not in units for byte in node))
        bases.add(base)
        units[place] |= (place ^ base) << _OFFSET
        for byte, child in node.items():
            if byte == 0:
                units[place] |= _HAS_LEAF
                units[base] = _LEAF | child
            else:
                units[base ^ byte] = byte
                unplaced.append((base ^ byte, child))
        while free in units:
            free += 1
    # Readers look up a base XOR any byte without a check of bounds.
    return [units.get(place, 0) for place in range((max(*units, *bases) | 0xFF) + 1)]
