"""`Coder`: texts to what a database keeps of them in its rows, and MaxSim over what it gives back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...indexer.codec.codec import ResidualCodec
from ...indexer.codec.codec_file import bundled_codec
from ...indexer.write.rows import compress_vectors
from ...onnx_export.encode.bundle import check_weight
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError
from ...onnx_export.kinds import check_kind, check_whole
from ..kernels.query_layout import BlockTables, CoarseCodec, QueryLanes
from ..search.explain import Explanation, explain_vectors
from ..search.query_encoder import EncodedQuery, QueryEncoder
from ..search.refine import maxsim, refine
from ..search.stored_codes import Part
from .code_bytes import CodesFormat, CodesHeader, read_header
from .row_vectors import bundled_row_vectors

_TEXTS_AT_ONCE = 128  # whose token vectors are in memory at a time
_NORM_ERROR = 0.01


class CodedDocument(NamedTuple):
    """What a database keeps of a document.

    Attributes:
        row_vector: float32 (`Coder.row_dim`,), for the database's own vector index, by inner product.
        codes: the compressed token vectors, see docs/reference/codes.md.
        cut: whether the text was longer than the model reads, so that its end was ignored.
        unread: whether the model has no token for some of the text.
    """

    row_vector: np.ndarray
    codes: bytes
    cut: bool = False
    unread: bool = False


class CodedQuery(NamedTuple):
    """A query, ready to be sent to a database and to score what it gives back.

    Attributes:
        row_vector: float32 (`Coder.row_dim`,): the database finds the rows whose vectors have the highest inner
            products with it.
        vectors: float32 (tokens, dim), the query's token vectors.
        text: the query.
        truncated: whether it was longer than the model reads, so that its end was ignored.
    """

    row_vector: np.ndarray
    vectors: np.ndarray
    text: str
    truncated: bool


class Coder:
    """Turns documents into row vectors and codes, and ranks codes by MaxSim. It keeps nothing of either.

    May be used from several threads at the same time. Pickled, it is the place of its bundle.

    Args:
        encoder: the model; None: the model inside tansaku.
        row_dim: length of the row vectors, one of those that the model's bundle has; None: the bundle's first.
        phrase_weight: weight given to the similarity of neighbouring tokens, 0 to 1000; None: the model's own. See
            `SearchOptions`.
        codec: codec of the codes; None: the one in the model's bundle.

    Attributes:
        encoder: the model.
        codec: the codec.
        phrase_weight: the phrase weight of scores.

    Raises:
        InputError: the bundle has no codec or no row vectors (`tansaku export --codec-texts` makes them), or none of
            that length; or a codec for vectors of another length.
        BundleError: the bundle's files are damaged.

    Example:
        >>> from tansaku import Coder
        >>> coder = Coder()
        >>> dog, kyoto = coder.encode_documents(["犬は嗅覚が鋭い動物である。", "京都は794年から都だった。"])
        >>> query = coder.encode_query("昔の首都はどこ？")
        >>> [position for position, score in coder.rank(query, [dog.codes, kyoto.codes])]
        [1, 0]
    """

    def __init__(
        self,
        encoder: Encoder | None = None,
        *,
        row_dim: int | None = None,
        phrase_weight: float | None = None,
        codec: ResidualCodec | None = None,
    ) -> None:
        if encoder is not None:
            check_kind("encoder", encoder, Encoder, "give Encoder.load(FOLDER), or leave it out")
        self.encoder = Encoder.load() if encoder is None else encoder
        bundle = self.encoder.bundle
        found = bundled_codec(self.encoder) if codec is None else codec
        if found is None:
            raise InputError(
                f"the bundle of {bundle.name!r} has no codec, which codes in rows are written with; make a bundle with "
                "one: tansaku export CHECKPOINT FOLDER --codec-texts FILE"
            )
        if found.dim != bundle.dim:
            raise InputError(f"the codec has {found.dim} dimensions, and vectors of the model have {bundle.dim}")
        self.codec = found
        self.phrase_weight = (
            bundle.phrase_weight if phrase_weight is None else check_weight("phrase_weight", phrase_weight)
        )
        self._row_vectors = bundled_row_vectors(self.encoder, row_dim)
        self._format = CodesFormat(self.codec, bundle.fingerprint, self._row_vectors.maps_id)
        self._coarse = CoarseCodec.of(self.codec)
        self._encode_query = QueryEncoder(self.encoder)
        self._given = (row_dim, phrase_weight, codec)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.encoder, *self._given)

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, *, threads: int | None = None, **options: Any) -> Coder:
        """A coder of the bundle in a folder.

        Args:
            path: the bundle's folder; None: the model inside tansaku.
            threads: as in `Encoder.load`.
            options: options of `Coder`.

        Raises:
            BundleError: as `Encoder.load`.
            InputError: as `Coder`.
        """
        return cls(Encoder.load(path, threads=threads), **options)

    @property
    def row_dim(self) -> int:
        """Length of a row vector."""
        return self._row_vectors.dim

    @property
    def codec_id(self) -> str:
        """Id of the codec, which all codes name."""
        return self.codec.codec_id

    @property
    def row_vectors_id(self) -> str:
        """Id of what makes the row vectors, which all codes name. Those of all lengths of a bundle have one."""
        return self._row_vectors.maps_id

    def encode_documents(self, texts: Sequence[str]) -> list[CodedDocument]:
        """What a database keeps of documents. Those of a text are the same whatever other texts come with it.

        Memory: the token vectors of 128 texts.

        Args:
            texts: the documents.

        Returns:
            One for each text.

        Raises:
            InputError: a text is empty or not a str, or ``texts`` is one str; the message gives its position.
        """
        check_kind("texts", texts, (list, tuple), "give a list of texts")
        coded: list[CodedDocument] = []
        all_tokenized = self.encoder.tokenize_documents(texts)
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            tokenized = all_tokenized[start : start + _TEXTS_AT_ONCE]
            found = self.code_vectors(self.encoder.encode_tokens(tokenized), [text.truncated for text in tokenized])
            coded += [one._replace(unread=text.unread) for one, text in zip(found, tokenized, strict=True)]
        return coded

    def code_vectors(
        self, vectors: Sequence[np.ndarray], truncated: Sequence[bool] | None = None
    ) -> list[CodedDocument]:
        """What a database keeps of documents that were encoded elsewhere, by the same model.

        Args:
            vectors: the token vectors of each document, float32 (tokens, dim), of unit length.
            truncated: whether each text was cut; None: no text was.

        Raises:
            InputError: a document has no vectors, vectors of another length, or some that are not finite or not of unit
                length.
        """
        for i, matrix in enumerate(vectors):
            if np.ndim(matrix) != 2 or not len(matrix) or matrix.shape[1] != self.codec.dim:
                raise InputError(
                    f"document {i}: vectors of shape {np.shape(matrix)}, expected (tokens, {self.codec.dim})"
                )
            if not np.isfinite(matrix).all():
                raise InputError(f"document {i}: vectors that are not finite")
            if (np.abs(np.linalg.norm(matrix, axis=1) - 1) > _NORM_ERROR).any():
                raise InputError(f"document {i}: vectors that are not of unit length; divide each by its length")
        if not vectors:
            return []
        cut = [False] * len(vectors) if truncated is None else truncated
        rows = compress_vectors(vectors, cut, self.codec)
        row_vectors = self._row_vectors.of_documents(vectors)
        return [
            CodedDocument(
                row_vector, self._format.write(row.centroid_ids, row.residuals, cut=row.truncated), row.truncated
            )
            for row_vector, row in zip(row_vectors, rows, strict=True)
        ]

    def encode_query(self, text: str) -> CodedQuery:
        """A query. The vectors of the last 1,024 queries are remembered.

        Raises:
            InputError: an empty query, or one that is not a str.
        """
        vectors, truncated = self._encode_query(text)
        return CodedQuery(self._row_vectors.of_query(vectors), vectors, text, truncated)

    def score(self, query: CodedQuery, codes: Sequence[bytes], *, rows: Sequence[Any] | None = None) -> np.ndarray:
        """MaxSim of documents, over their decoded token vectors.

        Args:
            query: as `encode_query` gave it.
            codes: the codes of each document.
            rows: ids of the rows, for errors; None: positions.

        Returns:
            float32 (documents,): sums over the query's tokens; divided by ``len(query.vectors)`` they are mean cosines.

        Raises:
            CodesError: codes are damaged, or of another codec, model, row vectors or version; the message
                names the row.
        """
        given = self._read(codes, rows)
        return maxsim(given, self._lanes(query), np.arange(len(codes)))

    def rank(
        self, query: CodedQuery, codes: Sequence[bytes], k: int | None = None, *, rows: Sequence[Any] | None = None
    ) -> list[tuple[int, float]]:
        """The best documents by MaxSim.

        Args:
            query: as `encode_query` gave it.
            codes: the codes of each document.
            k: number of documents; None for all. For few of many it is faster than `score`.
            rows: ids of the rows, for errors; None: positions.

        Returns:
            The position of each document in ``codes`` and its score, best first; among equal ones the earlier first.

        Raises:
            CodesError: as `score`.
            InputError: ``k`` below 1.
        """
        n_codes = len(codes)
        k = n_codes if k is None else min(check_whole("k", k), n_codes)
        if not n_codes:
            return []
        given = self._read(codes, rows)
        tables = BlockTables.of(query.vectors, self.codec, self._coarse)
        best, scores, _ = refine(given, tables, self._lanes(query), np.arange(n_codes), k)
        return list(zip(best.tolist(), scores.tolist(), strict=True))

    def explain(self, query: CodedQuery, codes: bytes, text: str, *, row: Any = 0) -> Explanation:
        """Which tokens of a document the query's tokens met.

        Args:
            query: as `encode_query` gave it.
            codes: the document's codes.
            text: the document's text, as it was encoded.
            row: id of the row, for errors and for `Explanation.id`.

        Raises:
            CodesError: as `score`.
        """
        given = self._read([codes], [row])
        encoded = EncodedQuery(query.vectors, query.truncated)
        vectors = self.codec.decode(given.centroid_ids, given.residuals)
        return explain_vectors(self.encoder, query.text, encoded, str(row), text, vectors, self.phrase_weight)

    def decode(self, codes: Sequence[bytes], *, rows: Sequence[Any] | None = None) -> list[np.ndarray]:
        """The token vectors of documents, with the error of compression: float32 (tokens, dim) each, of unit length.

        Args:
            codes: the codes of each document.
            rows: ids of the rows, for errors; None: positions.

        Raises:
            CodesError: as `score`.
        """
        centroid_ids, residuals, offsets = self._format.read(codes, range(len(codes)) if rows is None else rows)
        return np.split(self.codec.decode(centroid_ids, residuals), offsets[1:-1]) if len(codes) else []

    def read_header(self, codes: bytes, row: Any = 0) -> CodesHeader:
        """What codes say of themselves, also those of another codec, model or row vectors.

        Raises:
            CodesError: they are damaged, or no codes.
        """
        return read_header(codes, row)

    def check(self, codes: bytes, row: Any = 0) -> None:
        """Check that codes are whole and of this coder's codec, model and row vectors.

        Raises:
            CodesError: they are not.
        """
        self._read([codes], [row])

    def _lanes(self, query: CodedQuery) -> QueryLanes:
        return QueryLanes.of(query.vectors, self.phrase_weight)

    def _read(self, codes: Sequence[bytes], rows: Sequence[Any] | None) -> _GivenCodes:
        arrays = self._format.read(codes, range(len(codes)) if rows is None else rows)
        return _GivenCodes(self.codec, *arrays)


class _GivenCodes:
    """Codes from a database, as `refine` reads them."""

    def __init__(
        self, codec: ResidualCodec, centroid_ids: np.ndarray, residuals: np.ndarray, offsets: np.ndarray
    ) -> None:
        self.codec = codec
        self.centroid_ids, self.residuals = centroid_ids, residuals
        self._offsets = offsets
        self.row_ids = np.arange(len(offsets) - 1)

    def parts(self, rows: np.ndarray) -> Iterator[Part]:
        """See `StoredCodes.parts`."""
        starts, ends = self._offsets[rows], self._offsets[rows + 1]
        yield Part(np.arange(len(rows)), self.centroid_ids, self.residuals, starts, ends)


def _again(encoder: Encoder, row_dim: int | None, phrase_weight: float | None, codec: ResidualCodec | None) -> Coder:
    return Coder(encoder, row_dim=row_dim, phrase_weight=phrase_weight, codec=codec)
