"""`Coder`: what a database keeps of a document, and MaxSim over what it gives back."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tansaku import CodedQuery, Coder, CodesError, Encoder, InputError
from tansaku.onnx_export.encode.find_bundle import DEFAULT_BUNDLE
from tansaku.plugin.kernels.phrases import phrase_maxsim
from tansaku.plugin.rows import coder as coder_module
from tansaku.plugin.rows.row_vectors import ROW_VECTORS_FILE, add_row_vectors, read_maps

TEXTS = [
    "京都は794年から都だった。",
    "犬",
    "奈良の大仏は752年に開眼した。",
    "寿司は酢飯と魚介類の料理である。海から遠い所では川魚も使われた。",
    "北海道には梅雨がない。",
]
QUESTION = "昔の首都はどこ？"


@pytest.fixture(scope="module")
def coder() -> Coder:
    return Coder()


@pytest.fixture(scope="module")
def codes(coder: Coder) -> list[bytes]:
    return [document.codes for document in coder.encode_documents(TEXTS)]


def decoded(coder: Coder, codes: bytes) -> np.ndarray:
    """Token vectors, without the kernels."""
    header = coder.read_header(codes)
    ids = np.frombuffer(codes, coder.codec.id_dtype, header.n_tokens, 40)
    residuals = np.frombuffer(codes[40 + ids.nbytes : -4], np.uint8).reshape(header.n_tokens, -1)
    return coder.codec.decode(ids, residuals)


def without_codec(encoder: Encoder) -> Encoder:
    """The same model from a bundle that brings no codec."""
    bare = copy.copy(encoder)
    bare.bundle = dataclasses.replace(encoder.bundle, codec=None)
    return bare


# Documents


def test_a_document_is_the_same_whatever_comes_with_it(coder: Coder, monkeypatch: pytest.MonkeyPatch):
    alone = [coder.encode_documents([text])[0] for text in TEXTS]
    monkeypatch.setattr(coder_module, "_TEXTS_AT_ONCE", 2)
    for one, other in zip(alone, coder.encode_documents(TEXTS), strict=True):
        assert one.codes == other.codes
        np.testing.assert_array_equal(one.row_vector, other.row_vector)


def test_what_a_document_says_of_itself(coder: Coder):
    (short, long, unknown) = coder.encode_documents(["京都", "京都" * 3000, "\u200b"])
    assert [one.cut for one in (short, long, unknown)] == [False, True, False]
    assert [one.unread for one in (short, long, unknown)] == [False, False, True]
    for one in (short, long):
        header = coder.read_header(one.codes)
        assert (header.cut, header.size) == (one.cut, len(one.codes))
        assert (header.codec_id, header.model) == (coder.codec_id, coder.encoder.bundle.fingerprint)
        assert header.row_vectors_id == coder.row_vectors_id
        assert (header.nbits, header.dim) == (coder.codec.nbits, coder.encoder.dim)
        assert one.row_vector.shape == (coder.row_dim,)
        assert one.row_vector.dtype == np.float32


def test_vectors_made_elsewhere_give_the_same_codes(coder: Coder, codes: list[bytes]):
    vectors = coder.encoder.encode_documents(TEXTS)
    assert [document.codes for document in coder.code_vectors(vectors)] == codes
    assert coder.code_vectors(vectors[:1], [True])[0].cut
    assert coder.code_vectors([]) == coder.encode_documents([]) == []


def test_bad_documents_are_named_by_their_places(coder: Coder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(coder_module, "_TEXTS_AT_ONCE", 2)
    with pytest.raises(InputError, match="text 4 is empty"):
        coder.encode_documents([*TEXTS[:4], " "])
    with pytest.raises(InputError, match="text 1 is int"):
        coder.encode_documents(["犬", 5])  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="give a list"):
        coder.encode_documents("犬")
    good = coder.encoder.encode_documents(["犬"])[0]
    for bad, said in (
        (good[:0], r"shape \(0, "),
        (good[:, :3], r"shape \(\d, 3\)"),
        (good[0], "shape"),
        (good * np.nan, "finite"),
        (good * 2, "unit length"),
    ):
        with pytest.raises(InputError, match=f"document 1: .*{said}"):
            coder.code_vectors([good, bad])


# Scores


@pytest.mark.parametrize("weight", [0.0, None, 0.4])
def test_scores_are_maxsim_over_decoded_vectors(coder: Coder, codes: list[bytes], weight: float | None):
    """In the order of the given codes; None is the weight of the bundle."""
    weighted = Coder(coder.encoder, phrase_weight=weight)
    assert weighted.phrase_weight == (coder.encoder.bundle.phrase_weight if weight is None else weight)
    query = weighted.encode_query(QUESTION)
    scores = weighted.score(query, codes)
    assert scores.dtype == np.float32
    expected = [phrase_maxsim(query.vectors, decoded(coder, one), weighted.phrase_weight) for one in codes]
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    if weight == 0:
        plain = [(query.vectors @ decoded(coder, one).T).max(axis=1).sum() for one in codes]
        np.testing.assert_allclose(scores, plain, atol=1e-4)
    assert weighted.score(query, codes[::-1]).tolist() == scores[::-1].tolist()


def test_the_best_are_the_best_by_score(coder: Coder):
    texts = [f"{word}の{place}" for word in "犬猫鯨梟雨雪海山寺城" for place in ("京都", "奈良", "東京", "大阪")]
    codes = [document.codes for document in coder.encode_documents(texts)]
    query = coder.encode_query("奈良の鹿")
    scores = coder.score(query, codes)
    expected = sorted(range(len(codes)), key=lambda i: (-scores[i], i))
    for k in (1, 3, len(codes), 1000, None):
        ranked = coder.rank(query, codes, k)
        assert [position for position, _ in ranked] == expected[:k]
        assert [score for _, score in ranked] == scores[expected[:k]].tolist()


def test_among_equal_scores_the_earlier_comes_first(coder: Coder, codes: list[bytes]):
    query = coder.encode_query(QUESTION)
    assert [position for position, _ in coder.rank(query, [codes[0]] * 5, 3)] == [0, 1, 2]


def test_a_query(coder: Coder):
    query = coder.encode_query(QUESTION)
    assert isinstance(query, CodedQuery)
    assert (query.text, query.truncated) == (QUESTION, False)
    np.testing.assert_array_equal(query.vectors, coder.encoder.encode_queries([QUESTION])[0])
    assert query.row_vector.shape == (coder.row_dim,)
    assert coder.encode_query("京都" * 3000).truncated
    for bad in ("", " ", None, 5):
        with pytest.raises(InputError, match="the query is"):
            coder.encode_query(bad)  # pyright: ignore[reportArgumentType]


def test_no_documents_and_bad_numbers(coder: Coder, codes: list[bytes]):
    query = coder.encode_query(QUESTION)
    assert coder.rank(query, []) == []
    assert coder.score(query, []).shape == (0,)
    for k in (0, -1, 1.5):
        with pytest.raises(InputError, match="k is"):
            coder.rank(query, codes, k)  # pyright: ignore[reportArgumentType]


def test_errors_name_the_row(coder: Coder, codes: list[bytes]):
    query = coder.encode_query(QUESTION)
    given = [codes[0], codes[1][:-1]]
    for work in (coder.score, coder.rank):
        with pytest.raises(CodesError, match="row 1: "):
            work(query, given)
        with pytest.raises(CodesError, match="row 'dog': "):
            work(query, given, rows=["kyoto", "dog"])
    for work in (coder.check, coder.read_header):
        with pytest.raises(CodesError, match="row 'dog': "):
            work(given[1], "dog")
    coder.check(codes[0])


def test_explain(coder: Coder, codes: list[bytes]):
    query = coder.encode_query(QUESTION)
    explanation = coder.explain(query, codes[0], TEXTS[0], row="kyoto")
    assert (explanation.id, explanation.text) == ("kyoto", TEXTS[0])
    assert explanation.score == pytest.approx(coder.score(query, codes[:1])[0], abs=1e-4)
    assert len(explanation.matches) == len(query.vectors)
    assert explanation.score == pytest.approx(sum(m.weight * m.similarity for m in explanation.matches), abs=1e-4)
    assert any(match.document_text == "都" for match in explanation.matches)
    with pytest.raises(CodesError, match="row 'kyoto'"):
        coder.explain(query, codes[0][:-1], TEXTS[0], row="kyoto")


# The coder itself


def test_it_can_be_pickled(coder: Coder, codes: list[bytes]):
    again = pickle.loads(pickle.dumps(Coder(coder.encoder, phrase_weight=0.4)))
    assert (again.phrase_weight, again.codec_id, again.row_dim) == (0.4, coder.codec_id, coder.row_dim)
    assert [document.codes for document in again.encode_documents(TEXTS)] == codes
    query = again.encode_query(QUESTION)
    assert again.rank(query, codes)[0][0] == 0


def test_threads_share_it(coder: Coder, codes: list[bytes]):
    questions = [QUESTION, "大仏", "酢飯の料理", "梅雨"] * 3

    def work(question: str) -> tuple[list[tuple[int, float]], list[bytes]]:
        ranked = coder.rank(coder.encode_query(question), codes)
        return ranked, [document.codes for document in coder.encode_documents(TEXTS[:2])]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, questions)) == [work(question) for question in questions]


def test_a_bundle_without_a_codec(coder: Coder, codes: list[bytes]):
    bare = without_codec(coder.encoder)
    with pytest.raises(InputError, match=r"has no codec.*tansaku export .* --codec-texts"):
        Coder(bare)
    assert [one.codes for one in Coder(bare, codec=coder.codec).encode_documents(TEXTS)] == codes


def test_what_it_refuses_to_be_made_of(coder: Coder):
    halved = dataclasses.replace(coder.codec, centroids=coder.codec.centroids[:, :64])
    with pytest.raises(InputError, match="codec has 64 dimensions"):
        Coder(coder.encoder, codec=halved)
    with pytest.raises(InputError, match=r"encoder .*Encoder\.load"):
        Coder("folder")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="row_dim is 7"):
        Coder(coder.encoder, row_dim=7)
    with pytest.raises(InputError, match="phrase_weight"):
        Coder(coder.encoder, phrase_weight=-1)


def test_codes_beside_row_vectors_of_another_kind(tmp_path, coder: Coder, codes: list[bytes]):
    """The codes could be read, but the row vectors beside them find nothing for this coder's queries."""
    folder = shutil.copytree(DEFAULT_BUNDLE, tmp_path / "bundle")
    maps = read_maps(folder / ROW_VECTORS_FILE)
    add_row_vectors(folder, dataclasses.replace(maps, mean=maps.mean + 1))
    other = Coder.load(folder)
    assert (other.codec_id, other.row_dim) == (coder.codec_id, coder.row_dim)
    with pytest.raises(CodesError, match=rf"row 'kyoto': .*row vectors {coder.row_vectors_id}.*{other.row_vectors_id}"):
        other.rank(other.encode_query("都"), codes[:1], rows=["kyoto"])
