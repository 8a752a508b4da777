"""The codes of one document as bytes, for a column of any database. docs/reference/codes.md draws the layout.

All numbers are little-endian:

    offset  bytes           content
    0       4               "TSKC"
    4       1               version of this layout: 1
    5       1               bits per dimension of a residual: 1, 2 or 4
    6       1               bytes of a centroid id: 2 or 4
    7       1               0
    8       8               id of the codec, the 16 hexadecimal digits of `ResidualCodec.codec_id` as bytes
    16      8               fingerprint of the model, the 16 hexadecimal digits of `Bundle.fingerprint` as bytes
    24      8               id of the maps of the row vectors, the 16 hexadecimal digits of `Coder.row_vectors_id`
    32      4               n, the number of token vectors, 1 or more
    36      2               dim, the length of a token vector
    38      2               flags; 1: the text was longer than the model reads, and was cut
    40      n · id bytes    the centroid id of each token vector
            n · dim · bits / 8   the residual of each token vector
            4               CRC-32 of all bytes before
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...indexer.codec.codec import ResidualCodec
from ...onnx_export.errors import TansakuError

VERSION = 1

_MAGIC = b"TSKC"
_HEADER = struct.Struct("<4sBBBx8s8s8sIHH")
_SUM = struct.Struct("<I")
_PREFIX = 32  # bytes that the codes of all documents of one coder have in common
_CUT = 1


class CodesError(TansakuError):
    """Codes cannot be used: damaged, or of another codec, model, row vectors or version. The message names the row.

    Attributes:
        row: id of the row, or its position from 0.
    """

    def __init__(self, message: str, row: Any) -> None:
        super().__init__(message)
        self.row = row

    def __reduce__(self) -> tuple[Any, ...]:
        return CodesError, (str(self), self.row)


@dataclass(frozen=True)
class CodesHeader:
    """What the codes of a document say of themselves.

    Attributes:
        version: version of the layout.
        codec_id: the codec, as `ResidualCodec.codec_id`.
        model: the model, as `Bundle.fingerprint`.
        row_vectors_id: the maps that made the row vector next to the codes, as `Coder.row_vectors_id`.
        nbits: bits per dimension of a residual.
        dim: length of a token vector.
        n_tokens: number of token vectors.
        cut: whether the text was longer than the model reads, so that its end was ignored.
        size: length of the codes in bytes.
    """

    version: int
    codec_id: str
    model: str
    row_vectors_id: str
    nbits: int
    dim: int
    n_tokens: int
    cut: bool
    size: int


def read_header(codes: bytes, row: Any = 0) -> CodesHeader:
    """Read what codes say of themselves, and check that they are whole.

    Args:
        codes: the codes of one document.
        row: id of the row, for errors.

    Raises:
        CodesError: they are not codes of tansaku, of a later version, cut off, or altered.
    """
    codes = _as_bytes(codes, row)
    if len(codes) < _HEADER.size or codes[:4] != _MAGIC:
        raise CodesError(
            f"row {row!r}: these {len(codes)} bytes are no codes of tansaku; encode the document again", row
        )
    _, version, nbits, id_bytes, codec, model, maps, n_tokens, dim, flags = _HEADER.unpack_from(codes)
    if version != VERSION:
        raise CodesError(
            f"row {row!r}: codes of version {version}, and this tansaku reads version {VERSION}; update tansaku", row
        )
    size = _HEADER.size + n_tokens * (id_bytes + dim * nbits // 8) + _SUM.size
    if len(codes) != size:
        raise CodesError(
            f"row {row!r}: the codes have {len(codes)} bytes and say {size}: cut off or altered; encode the document "
            "again",
            row,
        )
    if _SUM.unpack_from(codes, size - _SUM.size)[0] != zlib.crc32(memoryview(codes)[: -_SUM.size]):
        raise CodesError(f"row {row!r}: the codes are damaged (checksum); encode the document again", row)
    return CodesHeader(version, codec.hex(), model.hex(), maps.hex(), nbits, dim, n_tokens, bool(flags & _CUT), size)


class CodesFormat:
    """Writes and reads the codes of one codec, one model and one way to make row vectors.

    Args:
        codec: the codec.
        model: the model's fingerprint, see `Bundle.fingerprint`.
        row_vectors_id: see `RowVectorMaps.maps_id`.
    """

    def __init__(self, codec: ResidualCodec, model: str, row_vectors_id: str) -> None:
        self.codec, self.model, self.row_vectors_id = codec, model, row_vectors_id
        id_bytes = codec.id_dtype.itemsize
        ids = map(bytes.fromhex, (codec.codec_id, model, row_vectors_id))
        self._prefix = _HEADER.pack(_MAGIC, VERSION, codec.nbits, id_bytes, *ids, 0, 0, 0)[:_PREFIX]
        self._per_token = id_bytes + codec.residual_bytes

    def write(self, centroid_ids: bytes, residuals: bytes, *, cut: bool) -> bytes:
        """The codes of one document.

        Args:
            centroid_ids: the centroid ids of its token vectors, as the codec stores them.
            residuals: their residuals.
            cut: whether the text was cut.
        """
        n_tokens = len(residuals) // self.codec.residual_bytes
        header = self._prefix + struct.pack("<IHH", n_tokens, self.codec.dim, _CUT if cut else 0)
        content = b"".join((header, centroid_ids, residuals))
        return content + _SUM.pack(zlib.crc32(content))

    def read(self, codes: Sequence[bytes], rows: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The codes of several documents as arrays, one document after the other.

        Args:
            codes: the codes of each document.
            rows: id of each row, for errors.

        Returns:
            Centroid ids, uint16 or uint32 (tokens,); residuals, uint8 (tokens, residual bytes); and where each document
            begins, int64 (documents + 1,).

        Raises:
            CodesError: codes are damaged, or of another codec, model, row vectors or version.
        """
        offsets = np.zeros(len(codes) + 1, np.int64)
        whole = [_as_bytes(one, row) for one, row in zip(codes, rows, strict=True)]
        for i, one in enumerate(whole):
            n_tokens = self._check(one, rows[i])
            offsets[i + 1] = offsets[i] + n_tokens
        id_bytes, kind = self.codec.id_dtype.itemsize, self.codec.id_dtype
        first = [_HEADER.size + n * id_bytes for n in np.diff(offsets).tolist()]
        views = [memoryview(one) for one in whole]
        ids = b"".join(view[_HEADER.size : at] for view, at in zip(views, first, strict=True))
        residuals = b"".join(view[at : -_SUM.size] for view, at in zip(views, first, strict=True))
        centroid_ids = np.frombuffer(ids, kind)
        if len(centroid_ids) and int(centroid_ids.max()) >= len(self.codec.centroids):
            token = int(centroid_ids.argmax())
            row = rows[int(np.searchsorted(offsets, token, "right")) - 1]
            raise CodesError(
                f"row {row!r}: the codes name a centroid that is not there; encode the document again", row
            )
        return centroid_ids, np.frombuffer(residuals, np.uint8).reshape(-1, self.codec.residual_bytes), offsets

    def _check(self, codes: bytes, row: Any) -> int:
        """The number of token vectors; the common case is decided by comparing bytes."""
        if codes.startswith(self._prefix) and len(codes) > _HEADER.size:
            (n_tokens,) = _SUM.unpack_from(codes, _PREFIX)
            size = _HEADER.size + n_tokens * self._per_token + _SUM.size
            (expected,) = _SUM.unpack_from(codes, len(codes) - _SUM.size)
            if n_tokens and len(codes) == size and zlib.crc32(memoryview(codes)[: -_SUM.size]) == expected:
                return n_tokens
        header = read_header(codes, row)
        for name, found, own in (
            ("model", header.model, self.model),
            ("codec", header.codec_id, self.codec.codec_id),
            ("row vectors", header.row_vectors_id, self.row_vectors_id),
        ):
            if found != own:
                raise CodesError(
                    f"row {row!r}: codes of the {name} {found}, and this bundle has {own}; open with the bundle that "
                    "the rows were encoded with, or encode them again",
                    row,
                )
        raise CodesError(f"row {row!r}: the codes are damaged; encode the document again", row)


def _as_bytes(codes: Any, row: Any) -> bytes:
    """Codes as bytes; databases give some of their own kinds."""
    if isinstance(codes, bytes):
        return codes
    if isinstance(codes, (bytearray, memoryview)):
        return bytes(codes)
    remedy = "decode them (base64.b64decode)" if isinstance(codes, str) else "name the column with the codes"
    raise CodesError(f"row {row!r}: codes are {type(codes).__name__}, not bytes; {remedy}", row)
