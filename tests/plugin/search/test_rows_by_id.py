"""Rows by id: what a dict of lists would find, also if two ids have the same hash."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tansaku.plugin.search import rows_by_id as module
from tansaku.plugin.search.rows_by_id import RowsById

NAMES = st.text("abあ\0", max_size=3)


def found_by_dict(ids, rows, wanted):
    return [(i, row) for i, name in enumerate(wanted) for doc_id, row in zip(ids, rows, strict=True) if doc_id == name]


@settings(deadline=None)
@given(
    stored=st.lists(st.lists(NAMES, max_size=6), max_size=3), wanted=st.lists(NAMES, max_size=8), clash=st.booleans()
)
def test_finds_what_a_dict_of_lists_would(stored, wanted, clash):
    ids = [doc_id for chunk in stored for doc_id in chunk]
    rows = np.arange(len(ids))[::-1] * 7
    with pytest.MonkeyPatch.context() as patch:
        if clash:
            patch.setattr(module, "hash", lambda text: len(text) % 2, raising=False)
        by_id = RowsById(pa.chunked_array(stored, pa.string()), rows)
        positions, found = by_id.find(wanted)
    assert sorted(zip(positions.tolist(), found.tolist(), strict=True)) == sorted(found_by_dict(ids, rows, wanted))
    assert positions.tolist() == sorted(positions.tolist())
