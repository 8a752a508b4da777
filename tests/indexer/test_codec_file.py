"""The codec in a bundle: small indexes adapt it, so that what is added later is found as well."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

from tansaku import BundleError, Encoder, Index, InputError, ResidualCodec
from tansaku.indexer.codec import codec_file
from tansaku.indexer.codec.codec_file import CODEC_FILE, add_codec, bundled_codec, train_on_texts
from tansaku.indexer.write import build_steps
from tansaku.onnx_export.encode.bundle import read_bundle
from tansaku.onnx_export.encode.find_bundle import DEFAULT_BUNDLE

from ..support.fakes import DIM, FakeEncoder, corpus


@pytest.fixture
def bundle(tmp_path):
    return shutil.copytree(DEFAULT_BUNDLE, tmp_path / "bundle")


def codec_for(dim: int, n_centroids: int = 8) -> ResidualCodec:
    vectors = np.random.default_rng(0).normal(size=(500, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return ResidualCodec.train(vectors, nbits=2, n_centroids=n_centroids)


class WithCodec(FakeEncoder):
    """A `FakeEncoder` whose bundle has a codec."""

    def __init__(self, folder, codec: ResidualCodec) -> None:
        super().__init__()
        folder.mkdir()
        np.savez(folder / CODEC_FILE, centroids=codec.centroids, groups=codec.groups, codewords=codec.codewords)
        self._folder = folder
        self.bundle = dataclasses.replace(self.bundle, codec=CODEC_FILE)


class TestTheModelInside:
    def test_has_one_and_a_small_index_adapts_it(self, tmp_path):
        encoder = Encoder.load()
        codec = bundled_codec(encoder, 2)
        assert codec is not None
        assert (codec.dim, len(codec.centroids)) == (encoder.dim, codec_file.CENTROIDS)
        assert (DEFAULT_BUNDLE / CODEC_FILE).stat().st_size < 1_500_000
        index = Index.create(tmp_path, "t", [{"id": "a", "text": "梅雨がない北海道"}], encoder=encoder)
        assert index.info().centroids == codec_file.CENTROIDS + 1

    @pytest.mark.parametrize("nbits", [1, 4])
    def test_has_one_for_two_bits_alone(self, tmp_path, nbits):
        assert bundled_codec(Encoder.load(), nbits) is None
        index = Index.create(tmp_path, "t", [{"id": "a", "text": "梅雨"}], encoder=Encoder.load(), nbits=nbits)
        assert index.info().centroids == 1


class TestAdd:
    def test_keeps_the_model_the_same(self, bundle):
        before = read_bundle(bundle)
        codec = codec_for(before.dim)
        after = add_codec(bundle, codec)
        assert (after.fingerprint, after.codec) == (before.fingerprint, CODEC_FILE)
        stored = bundled_codec(Encoder.load(bundle), 2)
        assert stored is not None
        assert stored.codec_id == codec.codec_id

    def test_for_vectors_of_another_length_is_refused(self, bundle):
        with pytest.raises(InputError, match="16 dimensions"):
            add_codec(bundle, codec_for(16))

    @pytest.mark.parametrize("content", [b"", b"PK", b"no zip file at all"])
    def test_a_file_that_cannot_be_read_is_named(self, tmp_path, content):
        encoder = WithCodec(tmp_path / "b", codec_for(DIM))
        (tmp_path / "b" / CODEC_FILE).write_bytes(content)
        with pytest.raises(BundleError, match=CODEC_FILE):
            bundled_codec(encoder, 2)

    def test_one_of_another_length_in_the_file_is_refused(self, tmp_path):
        encoder = WithCodec(tmp_path / "b", codec_for(DIM * 2))
        with pytest.raises(BundleError, match=f"{DIM * 2} dimensions, not {DIM}"):
            bundled_codec(encoder, 2)

    def test_a_bundle_without_one_works_by_training(self, tmp_path):
        assert bundled_codec(FakeEncoder(), 2) is None
        assert Index.create(tmp_path, "t", corpus(9), encoder=FakeEncoder()).info().centroids == 1


class TestTrain:
    def test_needs_vectors_enough(self, monkeypatch):
        monkeypatch.setattr(codec_file, "CENTROIDS", 4)
        texts = [document["text"] for document in corpus(40)]
        assert len(train_on_texts(FakeEncoder(), texts).centroids) == 4
        with pytest.raises(InputError, match="needs 128 token vectors"):
            train_on_texts(FakeEncoder(), texts[:3])

    def test_stops_at_the_most_vectors(self, monkeypatch):
        monkeypatch.setattr(codec_file, "CENTROIDS", 1)
        monkeypatch.setattr(codec_file, "_TEXTS_AT_ONCE", 10)
        monkeypatch.setattr(codec_file, "_MOST_VECTORS", 40)
        encoder = FakeEncoder()
        train_on_texts(encoder, [document["text"] for document in corpus(100)])
        assert len(encoder.encoded) == 10


def test_a_large_index_trains_its_own(tmp_path, monkeypatch):
    encoder = WithCodec(tmp_path / "b", codec_for(DIM))
    small = Index.create(tmp_path, "small", corpus(9), encoder=encoder)
    assert small.info().centroids == 8 + 1
    monkeypatch.setattr(build_steps, "ADAPTED_UP_TO", 10)
    assert Index.create(tmp_path, "large", corpus(9), encoder=encoder).info().centroids == 1
