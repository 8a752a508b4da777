"""Codecs for tests."""

from __future__ import annotations

import dataclasses

from tansaku.indexer.codec.codec import ResidualCodec


def other_codec(codec: ResidualCodec) -> ResidualCodec:
    """A codec with another id, of vectors of the same length."""
    return dataclasses.replace(codec, centroids=codec.centroids[::-1].copy())
