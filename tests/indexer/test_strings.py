"""Strings in two plain arrays are the strings that they were made of."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tansaku.indexer.derived.strings import Strings


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("chunks", [[], [[]], [["a"]], [["京都", ""], [], ["", "𠮷野家", "a" * 300]]])
def test_strings_come_back(chunks, type_):
    strings = Strings.of(pa.chunked_array(chunks, type_))
    expected = [value for chunk in chunks for value in chunk]
    assert strings.array.to_pylist() == expected
    assert len(strings) == len(expected)
    backwards = np.arange(len(expected), dtype=np.int64)[::-1]
    assert strings.take(backwards) == expected[::-1]
    assert (strings.text.dtype, strings.offsets.dtype) == (np.uint8, np.int64)
    assert len(strings.text) == len("".join(expected).encode())


def test_parts_of_arrays_come_back():
    whole = pa.chunked_array([["x", "京都", "y", "z"]])
    strings = Strings.of(whole.slice(1, 2))
    assert strings.array.to_pylist() == ["京都", "y"]
    assert bytes(strings.text) == "京都y".encode()
