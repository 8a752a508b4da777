"""Row vectors: one vector of a document and of a query, whose inner product is near MaxSim."""

from __future__ import annotations

import dataclasses
import re
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tansaku import BundleError, Encoder, InputError
from tansaku.onnx_export.encode.bundle import read_bundle
from tansaku.onnx_export.encode.find_bundle import DEFAULT_BUNDLE
from tansaku.plugin.rows import fit_row_vectors, row_vectors
from tansaku.plugin.rows.fit_row_vectors import maps_of_vectors, sentences
from tansaku.plugin.rows.row_vectors import (
    ROW_VECTORS_FILE,
    RowVectorMaps,
    RowVectors,
    add_row_vectors,
    bundled_row_vectors,
    read_maps,
)

DIM, ANCHORS = 8, 30


def unit_vectors(n: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def documents(n: int, seed: int = 1) -> list[np.ndarray]:
    lengths = np.random.default_rng(seed).integers(1, 9, n)
    return [unit_vectors(int(length), seed * 1000 + number) for number, length in enumerate(lengths)]


def maxsim(query: np.ndarray, document: np.ndarray) -> float:
    return float((query @ document.T).max(axis=1).sum())


@pytest.fixture(scope="module")
def maps() -> RowVectorMaps:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("ANCHORS", ANCHORS), ("COMPONENTS", 12), ("DIMS", (12, 4, ANCHORS))):
            patch.setattr(fit_row_vectors, name, value)
        return maps_of_vectors([unit_vectors(20, seed) for seed in range(100)], documents(200))


@pytest.fixture(params=[12, 4, ANCHORS])
def rows(maps: RowVectorMaps, request: pytest.FixtureRequest) -> RowVectors:
    return RowVectors(maps, request.param)


# What they are


def test_the_inner_product_estimates_maxsim_less_its_mean(maps: RowVectorMaps):
    rows, found = RowVectors(maps, ANCHORS), documents(300, seed=2)
    vectors = rows.of_documents(found)
    for seed in range(5):
        query = unit_vectors(4, 500 + seed) * np.array([[0.5], [1], [1], [1.5]], np.float32)
        exact = np.array([maxsim(query, document) for document in found])
        assert np.corrcoef(vectors @ rows.of_query(query), exact)[0, 1] > 0.9


def test_a_token_that_is_an_anchor_has_its_largest_product(maps: RowVectorMaps):
    rows, found = RowVectors(maps, ANCHORS), documents(10, seed=3)
    expected = [float((document @ maps.anchors[7]).max() - maps.mean[7]) for document in found]
    products = rows.of_documents(found) @ rows.of_query(maps.anchors[7:8])
    np.testing.assert_allclose(products, expected, atol=0.02)  # the ridge smooths a little


def test_golden_values():
    anchors = np.eye(3, 4, dtype=np.float32)
    maps = RowVectorMaps(anchors, np.array([0.5, 0, 0], np.float32), np.eye(3, 2, dtype=np.float32), (3, 2))
    document = np.array([[0.6, 0.8, 0, 0], [0, 0, 1, 0]], np.float32)
    np.testing.assert_allclose(RowVectors(maps, 3).of_documents([document]), [[0.1, 0.8, 1]], atol=1e-7)
    np.testing.assert_allclose(RowVectors(maps, 2).of_documents([document]), [[0.1, 0.8]], atol=1e-7)
    # the kernel is 1 on and 1/e off the diagonal; twice the first anchor
    np.testing.assert_allclose(RowVectors(maps, 3).of_query(2 * anchors[:1]), [1.999252, 0.000201, 0.000201], atol=1e-5)


@given(seed=st.integers(0, 99), data=st.data())
def test_the_order_of_tokens_does_not_count(maps: RowVectorMaps, seed: int, data: st.DataObject):
    document = unit_vectors(6, seed)
    shuffled = document[data.draw(st.permutations(range(6)))]
    for dim in maps.dims:
        rows = RowVectors(maps, dim)
        one, other = rows.of_documents([document, shuffled])
        np.testing.assert_allclose(one, other, atol=1e-5)
        np.testing.assert_allclose(rows.of_query(document), rows.of_query(shuffled), atol=1e-4)


def test_a_document_is_the_same_alone_and_among_others(rows: RowVectors):
    found = documents(20, seed=4)
    together = rows.of_documents(found)
    assert (together.dtype, together.shape) == (np.float32, (20, rows.dim))
    for vector, document in zip(together, found, strict=True):
        np.testing.assert_array_equal(vector, rows.of_documents([document])[0])


def test_a_long_document_is_read_in_blocks(rows: RowVectors, monkeypatch: pytest.MonkeyPatch):
    document = unit_vectors(50, 5)
    whole = rows.of_documents([document])
    monkeypatch.setattr(row_vectors, "_TOKENS_AT_ONCE", 7)
    np.testing.assert_allclose(rows.of_documents([document]), whole, atol=1e-6)


def test_weights_and_tokens_add_up(rows: RowVectors):
    one, other = unit_vectors(3, 6), unit_vectors(4, 7)
    summed = rows.of_query(one) + 2 * rows.of_query(other)
    np.testing.assert_allclose(rows.of_query(np.concatenate([one, 2 * other])), summed, atol=1e-4)
    np.testing.assert_array_equal(rows.of_query(0 * one), np.zeros(rows.dim, np.float32))


def test_a_shorter_one_is_the_beginning_of_a_longer_one(maps: RowVectorMaps):
    found = documents(5, seed=8)
    np.testing.assert_allclose(
        RowVectors(maps, 12).of_documents(found)[:, :4], RowVectors(maps, 4).of_documents(found), atol=1e-6
    )


# In a bundle


def test_the_model_inside_has_them():
    encoder = Encoder.load()
    assert [bundled_row_vectors(encoder, dim).dim for dim in (None, 256, 512, 768, 2000)] == [768, 256, 512, 768, 2000]
    assert (DEFAULT_BUNDLE / ROW_VECTORS_FILE).stat().st_size < 1_080_000
    with pytest.raises(InputError, match=r"row_dim is 1024.* has row vectors of 256, 512, 768, 2000"):
        bundled_row_vectors(encoder, 1024)


def test_what_is_stored_is_near_and_stays(maps: RowVectorMaps):
    again = RowVectorMaps.restored(maps.stored())
    assert again.dims == maps.dims
    np.testing.assert_array_equal(again.mean, maps.mean)
    np.testing.assert_allclose(np.linalg.norm(again.anchors, axis=1), 1, atol=1e-6)
    assert (again.anchors * maps.anchors).sum(axis=1).min() > 0.98


def test_the_id_names_the_stored_numbers(maps: RowVectorMaps):
    stored = maps.stored()
    found = RowVectorMaps.restored(stored).maps_id
    assert re.fullmatch("[0-9a-f]{16}", found)
    assert RowVectorMaps.restored({**stored, "dims": np.array([3], "<i4")}).maps_id == found
    for name in ("anchors", "anchors_scale", "components", "components_scale", "mean"):
        changed = stored[name].copy()
        changed.flat[-1] += 1
        assert RowVectorMaps.restored({**stored, name: changed}).maps_id != found


def test_adding_keeps_the_model_the_same(tmp_path, maps: RowVectorMaps):
    folder = shutil.copytree(DEFAULT_BUNDLE, tmp_path / "bundle")
    before = read_bundle(folder)
    with pytest.raises(InputError, match="of 8 dimensions a token, and the model's have 128"):
        add_row_vectors(folder, maps)
    wide = dataclasses.replace(maps, anchors=np.tile(maps.anchors, 16))
    after = add_row_vectors(folder, wide)
    assert (after.fingerprint, after.row_vectors) == (before.fingerprint, ROW_VECTORS_FILE)
    assert bundled_row_vectors(Encoder.load(folder)).dim == 12


def test_a_bundle_without_them_says_how_to_get_some():
    encoder = Encoder.load()
    encoder.bundle = dataclasses.replace(encoder.bundle, row_vectors=None)
    with pytest.raises(InputError, match=r"no row vectors.*tansaku export .* --codec-texts"):
        bundled_row_vectors(encoder)


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip file at all"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content: bytes):
    path = tmp_path / ROW_VECTORS_FILE
    path.write_bytes(content)
    with pytest.raises(BundleError, match=ROW_VECTORS_FILE):
        read_maps(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("anchors", np.zeros((ANCHORS - 1, DIM), np.int8)),
        ("anchors_scale", np.ones(3, np.float32)),
        ("mean", np.full(ANCHORS, np.nan, np.float32)),
        ("components", np.zeros(3, np.int8)),
        ("dims", np.array([13], np.int32)),
        ("dims", np.array([], np.int32)),
        ("mean", np.array(["x"])),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, maps: RowVectorMaps, name: str, value: np.ndarray):
    path = tmp_path / ROW_VECTORS_FILE
    np.savez(path, **{**maps.stored(), name: value})  # pyright: ignore[reportArgumentType]
    with pytest.raises(BundleError, match=rf"{ROW_VECTORS_FILE}: cannot be read"):
        read_maps(path)


def test_a_missing_array_is_refused(tmp_path, maps: RowVectorMaps):
    path = tmp_path / ROW_VECTORS_FILE
    np.savez(path, **{name: array for name, array in maps.stored().items() if name != "mean"})  # pyright: ignore[reportArgumentType]
    with pytest.raises(BundleError, match="mean"):
        read_maps(path)


# How they are learned


def test_too_few_questions_or_documents_are_refused():
    with pytest.raises(InputError, match="questions of 16,000 tokens, and these have 5"):
        maps_of_vectors([unit_vectors(5, 0)], [])
    with pytest.raises(InputError, match="questions of 16,000 tokens, and these have 0"):
        maps_of_vectors([], [])


def test_too_few_documents_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fit_row_vectors, "ANCHORS", ANCHORS)
    with pytest.raises(InputError, match="1,536 documents, and these are 3"):
        maps_of_vectors([unit_vectors(300, 0)], documents(3))


def test_sentences_stand_in_for_questions():
    text = "北海道には梅雨がほとんどない。短い。梅雨は六月に始まることが多い。東京では七月に明ける。"
    assert list(sentences([text, "短い"])) == ["北海道には梅雨がほとんどない", "梅雨は六月に始まることが多い"]
