"""Multivectors in Qdrant, which it ranks itself: in the engine of its server, and in the local mode of its client."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest
from qdrant_client import models

from tansaku import Coder, CodesError, HostError, InputError
from tansaku.plugin.hosts.rows.conformance import DOCUMENTS, shared_coder
from tansaku.plugin.hosts.rows.numpy import NumpyRows
from tansaku.plugin.hosts.rows.qdrant import QdrantRows
from tansaku.plugin.hosts.rows.qdrant_multivector import QdrantMultivectorRows

from .test_qdrant import CODES, VECTOR, QdrantTests, edge, local

pytestmark = pytest.mark.engine

TOKENS = "tansaku_tokens"


def plain(coder: Coder) -> Coder:
    """A coder as another one, without phrases."""
    return Coder(coder.encoder, phrase_weight=0)


class MultivectorTests(QdrantTests):
    kind = QdrantMultivectorRows
    n_operations = 40

    def make_store(self, coder, folder, **options):
        return super().make_store(plain(coder), folder, float16=False, **options)

    def test_damaged_codes(self, store):
        """Qdrant ranks without them; who reads them gets an error that names the row."""
        codes = bytearray(store.coder.encode_documents(["京都は794年から都だった。"])[0].codes)
        codes[40] ^= 1
        self.write_codes(store, "kyoto", bytes(codes))
        assert store.search("昔の首都はどこ？", k=1)[0].id == "kyoto"
        with pytest.raises(CodesError, match="kyoto"):
            store.explain("都", "kyoto")

    def test_codes_of_another_codec(self, store):
        """Opening refuses them."""
        codec = store.coder.codec
        turned = dataclasses.replace(codec, centroids=codec.centroids[::-1].copy())
        other = Coder(store.coder.encoder, codec=turned, phrase_weight=0)
        with pytest.raises(CodesError, match=codec.codec_id):
            QdrantMultivectorRows(other, store.client, "docs")


class TestLocal(MultivectorTests):
    pass


class TestEdge(MultivectorTests):
    open_client = staticmethod(edge)

    def test_token_vectors_in_eight_bits(self, tmp_path):
        """Half precision and int8 are allowed, and change scores little."""
        with contextlib.closing(edge(tmp_path / "qdrant")) as client:
            int8 = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
            quantization = models.ScalarQuantization(scalar=int8)
            coder = plain(shared_coder())
            store = QdrantMultivectorRows.create(coder, client, "docs", quantization_config=quantization)
            store.add(DOCUMENTS)
            exact = NumpyRows(coder)
            exact.add(DOCUMENTS)
            scores = {hit.id: hit.score for hit in exact.search("昔の首都はどこ？")}
            hits = store.search("昔の首都はどこ？")
            assert hits[0].id == "kyoto"
            assert [hit.score for hit in hits] == pytest.approx([scores[hit.id] for hit in hits], abs=0.01)

    def test_rows_that_lost_their_codes_are_not_ranked(self, store):
        """They come last, once."""
        store.client.set_payload("docs", {CODES: None}, [store._point_id("kyoto")])
        hits = store.search("昔の首都はどこ？")
        assert [hit.id for hit in hits].count("kyoto") == 1
        assert (hits[-1].id, hits.uncoded) == ("kyoto", 1)
        assert np.isnan(hits[-1].score)


def test_what_cannot_be_used_is_named():
    coder = plain(shared_coder())
    with contextlib.closing(local(None)) as client:
        with pytest.raises(InputError, match=r"phrase weight.*phrase_weight=0"):
            QdrantMultivectorRows.create(shared_coder(), client, "docs")
        with pytest.raises(InputError, match="create"):
            QdrantMultivectorRows.adopt(coder, client, "docs")
        QdrantRows.create(coder, client, "rows")
        with pytest.raises(HostError, match=rf"{TOKENS}.*{VECTOR}"):
            QdrantMultivectorRows(coder, client, "rows")
        with pytest.raises(InputError, match=r"no multivector of 128 dimensions"):
            QdrantMultivectorRows(coder, client, "rows", tokens_column=VECTOR)
