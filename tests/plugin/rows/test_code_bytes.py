"""The codes of a document as bytes: what is written is read again, and what is not whole is refused by its row."""

from __future__ import annotations

import dataclasses
import pickle
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tansaku import CodesError, ResidualCodec
from tansaku.plugin.rows.code_bytes import CodesFormat, read_header

from .golden import MODEL, ROW_VECTORS, golden_codec, golden_vectors

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "codes.md").read_text(encoding="utf-8")
CODEC = golden_codec()
FORMAT = CodesFormat(CODEC, MODEL, ROW_VECTORS)


def drawn_codec(nbits: int = 2, dim: int = 8, n_centroids: int = 4) -> ResidualCodec:
    """A codec of these sizes whose numbers do not matter."""
    draw = np.random.default_rng(nbits)
    centroids = draw.normal(size=(n_centroids, dim)).astype(np.float32)
    words = draw.normal(size=(dim * nbits // 8, 256, 8 // nbits)).astype(np.float32)
    return ResidualCodec(centroids, np.array([0, n_centroids], np.int32), words)


def drawn_codes(codec: ResidualCodec, n_tokens: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Centroid ids and residuals of a document."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(0, len(codec.centroids), n_tokens).astype(codec.id_dtype)
    return ids, draw.integers(0, 256, (n_tokens, codec.residual_bytes), dtype=np.uint8)


def written(codes_format: CodesFormat, n_tokens: int = 3, seed: int = 0, *, cut: bool = False) -> bytes:
    ids, residuals = drawn_codes(codes_format.codec, n_tokens, seed)
    return codes_format.write(ids.tobytes(), residuals.tobytes(), cut=cut)


def with_sum(content: bytes) -> bytes:
    """Codes whose last four bytes are replaced by the right checksum."""
    return content[:-4] + struct.pack("<I", zlib.crc32(content[:-4]))


CODES = written(FORMAT)


@given(
    nbits=st.sampled_from([1, 2, 4]),
    n_centroids=st.sampled_from([4, 65_536, 65_537]),
    lengths=st.lists(st.integers(1, 9), max_size=4),
    cut=st.booleans(),
)
def test_what_is_written_is_read(nbits: int, n_centroids: int, lengths: list[int], cut: bool):
    codes_format = CodesFormat(drawn_codec(nbits, 8, n_centroids), MODEL, ROW_VECTORS)
    documents = [drawn_codes(codes_format.codec, n, seed) for seed, n in enumerate(lengths)]
    codes = [codes_format.write(ids.tobytes(), residuals.tobytes(), cut=cut) for ids, residuals in documents]
    found_ids, found_residuals, offsets = codes_format.read(codes, range(len(codes)))
    assert np.diff(offsets).tolist() == lengths
    for i, (ids, residuals) in enumerate(documents):
        rows = slice(offsets[i], offsets[i + 1])
        assert found_ids[rows].tolist() == ids.tolist()
        assert found_residuals[rows].tolist() == residuals.tolist()
        header = read_header(codes[i])
        assert (header.n_tokens, header.cut, header.size) == (lengths[i], cut, len(codes[i]))
        assert (header.nbits, header.dim, header.version) == (nbits, 8, 1)
        assert (header.codec_id, header.model) == (codes_format.codec.codec_id, MODEL)
        assert header.row_vectors_id == ROW_VECTORS


@given(st.integers(0, len(CODES) - 1), st.integers(1, 255))
def test_a_byte_that_changed_names_the_row(position: int, change: int):
    damaged = bytearray(CODES)
    damaged[position] ^= change
    with pytest.raises(CodesError, match="row 'kyoto'") as caught:
        FORMAT.read([CODES, bytes(damaged)], ["nara", "kyoto"])
    assert caught.value.row == "kyoto"


def test_any_length_but_its_own_names_the_row():
    for cut in [*(CODES[:size] for size in range(len(CODES))), CODES + b"\0", CODES + CODES]:
        for read in (read_header, lambda codes, row: FORMAT.read([codes], [row])):
            with pytest.raises(CodesError, match=r"row 7: .*encode the document again") as caught:
                read(cut, 7)
            assert caught.value.row == 7


def test_codes_of_another_codec_model_or_version():
    other_codec = CodesFormat(dataclasses.replace(CODEC, centroids=CODEC.centroids[::-1].copy()), MODEL, ROW_VECTORS)
    other_model = CodesFormat(CODEC, "f" * 16, ROW_VECTORS)
    other_maps = CodesFormat(CODEC, MODEL, "e" * 16)
    later = bytearray(CODES)
    later[4] = 2
    for codes, said in (
        (written(other_codec), f"codec {other_codec.codec.codec_id}.*{CODEC.codec_id}.*encode them again"),
        (written(other_model), f"model {'f' * 16}.*{MODEL}.*encode them again"),
        (written(other_maps), f"row vectors {'e' * 16}.*{ROW_VECTORS}.*encode them again"),
        (with_sum(bytes(later)), "version 2.*reads version 1; update tansaku"),
        (b"", "0 bytes are no codes of tansaku"),
        (bytes(100), "100 bytes are no codes of tansaku"),
    ):
        with pytest.raises(CodesError, match=f"row 'kyoto': .*{said}"):
            FORMAT.read([codes], ["kyoto"])
    assert read_header(written(other_codec)).codec_id == other_codec.codec.codec_id


def test_forged_codes_do_not_reach_the_kernels():
    """With a right checksum, but a centroid that the codec has not, or no token."""
    content = bytearray(written(FORMAT))
    content[42:44] = (4).to_bytes(2, "little")
    with pytest.raises(CodesError, match=r"row 'kyoto': .*centroid"):
        FORMAT.read([CODES, with_sum(bytes(content)), CODES], ["nara", "kyoto", "dog"])
    with pytest.raises(CodesError, match=r"row 'kyoto': .*damaged"):
        FORMAT.read([FORMAT.write(b"", b"", cut=False)], ["kyoto"])


def test_what_databases_give_in_place_of_bytes():
    for kind in (bytearray, memoryview):
        given: Any = kind(CODES)
        assert FORMAT.read([given], [0])[0].tolist() == FORMAT.read([CODES], [0])[0].tolist()
    for other, said in ((None, "NoneType"), ("VFNLQw==", "str, .*base64"), ([1, 2], "list")):
        with pytest.raises(CodesError, match=f"row 5: codes are {said}"):
            FORMAT.read([other], [5])  # pyright: ignore[reportArgumentType]


def test_the_error_can_be_pickled():
    error = pickle.loads(pickle.dumps(CodesError("row 5: damaged", 5)))
    assert (str(error), error.row) == ("row 5: damaged", 5)


# docs/reference/codes.md


def golden() -> bytes:
    ids, residuals = CODEC.encode(golden_vectors())
    return FORMAT.write(ids.tobytes(), residuals.tobytes(), cut=False)


def test_the_page_has_the_golden_codes():
    """Writers must not change: rows that are in databases would no longer be read."""
    (printed,) = re.findall(r"```text\n((?:[0-9a-f]{2}[ \n])+)```", PAGE)
    assert bytes.fromhex(printed) == golden()
    assert f"`{CODEC.codec_id}`" in PAGE


def test_the_page_has_the_layout():
    content = golden()
    rows = re.findall(r"^\| (\d+) \| (\d+) \| .*? \| `([0-9a-f ]+)` \|$", PAGE, flags=re.MULTILINE)
    for offset, size, shown in rows:
        assert content[int(offset) : int(offset) + int(size)] == bytes.fromhex(shown)
    assert b"".join(bytes.fromhex(shown) for _, _, shown in rows) == content
    assert [int(offset) for offset, _, _ in rows] == np.cumsum([0, *(int(size) for _, size, _ in rows)])[:-1].tolist()


def test_the_reader_on_the_page_reads_what_is_written():
    """It uses nothing of tansaku, so that it can be written in another language."""
    (reader,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert "tansaku" not in reader
    names: dict[str, Any] = {}
    exec(compile(reader, "codes.md", "exec"), names)  # noqa: S102
    decode, maxsim = names["decode"], names["maxsim"]
    for nbits, n_centroids in ((1, 4), (2, 4), (4, 70_000)):
        codec = drawn_codec(nbits, 16, n_centroids)
        ids, residuals = drawn_codes(codec, 5, 0)
        codes = CodesFormat(codec, MODEL, ROW_VECTORS).write(ids.tobytes(), residuals.tobytes(), cut=True)
        found = decode(codes, codec.centroids, codec.codewords)
        np.testing.assert_allclose(found, codec.decode(ids, residuals), atol=1e-6)
        query = np.random.default_rng(1).normal(size=(3, 16)).astype(np.float32)
        assert maxsim(query, found) == pytest.approx((query @ found.T).max(axis=1).sum(), rel=1e-5)
    with pytest.raises(ValueError, match="checksum"):
        decode(CODES[:-1] + b"\0", CODEC.centroids, CODEC.codewords)


def test_the_page_has_the_decoded_vectors():
    (printed,) = re.findall(r"decode to these vectors.*?```text\n(.*?)```", PAGE, flags=re.DOTALL)
    shown = np.array([[float(number) for number in line.split()] for line in printed.splitlines()])
    ids, residuals = CODEC.encode(golden_vectors())
    np.testing.assert_allclose(shown, CODEC.decode(ids, residuals), atol=5e-5)
