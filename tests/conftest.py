"""Fixtures that several files share: the default encoder and an index of the sample corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

from tansaku.indexer import Index, Source
from tansaku.onnx_export import Encoder
from tansaku.plugin.demo import SAMPLE


@pytest.fixture(scope="session")
def default_encoder() -> Encoder:
    return Encoder.load(threads=2)


@pytest.fixture(scope="session")
def sample_db(default_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the sample corpus in table ``sample``; not to be changed."""
    folder = tmp_path_factory.mktemp("sample_db")
    Index.create(folder, "sample", Source(SAMPLE / "corpus.jsonl"), encoder=default_encoder)
    return folder
