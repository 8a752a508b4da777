"""What `Index.info` says of a rebuild, in English and Japanese."""

from __future__ import annotations

import pytest

from tansaku import Drift, Index
from tansaku.indexer.info import advice_on_rebuild
from tansaku.plugin.cli import messages

from ..support.fakes import FakeEncoder, corpus

TOKENS = 85_970  # of 1,000 passages


@pytest.mark.parametrize(
    ("drift", "later", "centroids", "outgrown", "english", "japanese"),
    [
        # Four that were measured: jsquad-valid begun with 10 documents, with and without the codec of the model's
        # bundle; niilc-qa without it; and jsquad-valid with it, added to 100 documents of another kind.
        (Drift(0.614, 990, 0.267, 0.99), 0.99, 8, True,
         "would help: documents added later lie far from the centroids, with a mean cosine of 0.27, against 0.61 at "
         "training. In trials, recall@10 then rose by 0.04 to 0.10; it trains about 1,024 centroids or more in place "
         "of 8",
         "平均は 0.27 です (学習時は 0.61)。試した例では recall@10 が 0.04〜0.10 上がりました。"
         "セントロイドは 8 個から約 1,024 個以上"),
        (Drift(0.427, 756, 0.271, 0.76), 0.98, 4, True, "would help: documents added later lie far", "改善します"),
        (Drift(0.775, 990, 0.757, 0.46), 0.99, 4104, False,
         "would change little: documents added later have a mean cosine with their centroids of 0.76, against 0.78 at",
         "ほとんど変わりません。後から追加した文書とセントロイドのコサインの平均は 0.76 です (学習時は 0.78)"),
        (Drift(0.831, 1000, 0.756, 0.875), 0.91, 4224, False, "would change little", "ほとんど変わりません"),
        (Drift(0.775, 0, None, None), 0.0, 4104, False, "no document was added after", "追加した文書はありません"),
        (Drift(0.775, 0, None, None), 0.0, 16, True, "would make searches faster: it trains about 1,024 centroids or",
         "検索が速くなります。セントロイドは 16 個から約 1,024 個以上"),
        (Drift(0.8, 990, 0.6, 0.9), 0.99, 4096, False, "would help: documents added later lie far", "改善します"),
        (Drift(0.775, 0, None, None), 0.0, 4104, True, "no document was added after", "追加した文書はありません"),
        # A few strange documents among many change the whole little.
        (Drift(0.8, 9, 0.2, 1.0), 0.01, 4096, False, "would change little", "ほとんど変わりません"),
    ],
)  # fmt: skip
def test_a_rebuild_is_advised_where_documents_lie_far_from_the_centroids(
    monkeypatch, drift, later, centroids, outgrown, english, japanese
):
    advice = advice_on_rebuild(drift, later, centroids, TOKENS, outgrown)
    assert english in advice
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "ja_JP.UTF-8")
    messages.choose_language()
    try:
        assert japanese in messages.said(advice)
    finally:
        monkeypatch.setenv("LANG", "C")
        messages.choose_language()


def test_an_index_that_grew_is_told_so_until_it_is_rebuilt(tmp_path):
    documents = corpus(300)
    index = Index.create(tmp_path, "t", documents[:1], encoder=FakeEncoder())
    assert index.info().advice.endswith("no document was added after the codec was trained")
    index.add(documents[1:])
    assert index.info().advice.startswith("`tansaku rebuild` would help")
    index.rebuild()
    assert index.info().advice.startswith("a rebuild would change little")


def test_an_index_whose_codec_no_longer_fits_says_so_when_it_has_grown(tmp_path, caplog):
    others = [{"id": f"first {i}", "text": "あいうえお" * 40} for i in range(100)]
    documents = corpus(300)
    index = Index.create(tmp_path, "t", others, encoder=FakeEncoder())
    index.add(documents[:280])
    (said,) = [record.message for record in caplog.records]
    assert "lie far from the centroids" in said
    assert "tansaku rebuild" in said
    caplog.clear()
    index.add(documents[280:285])  # it has not grown by half
    index.rebuild()
    index.add(documents[285:])
    assert not caplog.records


def test_documents_like_the_first_need_no_rebuild(tmp_path, caplog):
    documents = corpus(300)
    index = Index.create(tmp_path, "t", documents[:150], encoder=FakeEncoder())
    index.add(documents[150:])
    assert not caplog.records
