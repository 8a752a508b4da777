"""Row vectors: one vector of a document and one of a query, whose inner product is high where MaxSim is.

A document's holds its largest products with two thousand anchors, or the principal components of these. A query's says
how its tokens are made up of anchors. docs/explanation/row-vectors.md derives both and measures them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ...indexer.plain_files import open_plain
from ...onnx_export.encode.bundle import Bundle, read_bundle, write_bundle
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import BundleError, InputError
from ...onnx_export.files import atomic_path

ROW_VECTORS_FILE = "row_vectors.npz"

_TOKENS_AT_ONCE = 1024  # of a document, so that a long one takes no more memory
_KERNEL_RIDGE = 3e-4
_LARGEST = 127
_STEPS = {"anchors": 8.0, "components": 4.0}  # of a standard deviation; the file is deflated, so that coarse is small


@dataclass(frozen=True)
class RowVectorMaps:
    """What row vectors are made with.

    Attributes:
        anchors: float32 (anchors, dim), unit vectors near which the tokens of questions lie.
        mean: float32 (anchors,), the mean over documents of their largest products with the anchors.
        components: float32 (anchors, longest), the first principal components of these products.
        dims: the lengths that are offered, the default first: up to ``longest``, or the number of anchors.
        maps_id: names the numbers of a bundle's file, 16 hexadecimal digits; codes name it too, see
            docs/reference/codes.md. Empty for maps that no bundle has yet.

    Raises:
        InputError: shapes that do not fit one another, numbers that are not finite, or lengths that cannot be had.
    """

    anchors: np.ndarray
    mean: np.ndarray
    components: np.ndarray
    dims: tuple[int, ...]
    maps_id: str = ""

    def __post_init__(self) -> None:
        shapes = self.anchors.shape, self.mean.shape, self.components.shape
        if tuple(map(len, shapes)) != (2, 1, 2) or len({shape[0] for shape in shapes}) != 1:
            raise InputError(f"anchors, mean and components of row vectors have the shapes {shapes}")
        for name in ("anchors", "mean", "components"):
            if not np.isfinite(getattr(self, name)).all():
                raise InputError(f"{name} of row vectors has numbers that are not finite")
        offered = {*range(1, self.components.shape[1] + 1), len(self.anchors)}
        if not self.dims or not offered.issuperset(self.dims):
            raise InputError(f"lengths of row vectors are {self.dims}, of {self.components.shape[1]} components")

    @property
    def dim(self) -> int:
        """Length of a token vector."""
        return self.anchors.shape[1]

    def stored(self) -> dict[str, np.ndarray]:
        """The arrays as a bundle keeps them: matrices as small whole numbers with a scale for each column."""
        arrays = {"dims": np.array(self.dims, "<i4"), "mean": self.mean.astype("<f4")}
        for name, steps in _STEPS.items():
            matrix = getattr(self, name)
            scale = (np.maximum(matrix.std(axis=0), 1e-12) / steps).astype("<f4")
            arrays[name] = np.clip(np.rint(matrix / scale), -_LARGEST, _LARGEST).astype(np.int8)
            arrays[f"{name}_scale"] = scale
        return arrays

    @classmethod
    def restored(cls, arrays: Mapping[str, np.ndarray]) -> RowVectorMaps:
        """The maps from what `stored` gave; anchors have unit length again.

        Raises:
            KeyError: an array is missing.
            InputError: as `RowVectorMaps`.
            ValueError: the shapes of numbers and scales differ.
        """
        anchors, components = (
            arrays[name].astype(np.float32) * arrays[f"{name}_scale"].astype(np.float32) for name in _STEPS
        )
        anchors /= np.maximum(np.linalg.norm(anchors, axis=-1, keepdims=True), 1e-12)
        dims = tuple(arrays["dims"].astype(int).tolist())
        return cls(anchors, arrays["mean"].astype(np.float32), components, dims, _stored_id(arrays))


def _stored_id(arrays: Mapping[str, np.ndarray]) -> str:
    """Of the stored numbers, since those made from them may differ in their last bits from machine to machine."""
    digest = hashlib.sha256()
    for name in ("anchors", "anchors_scale", "components", "components_scale", "mean"):
        digest.update(str(arrays[name].shape).encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()[:16]


class RowVectors:
    """Row vectors of one length. May be used from several threads at the same time.

    Args:
        maps: the maps.
        dim: length of the row vectors, one of ``maps.dims``.

    Attributes:
        dim: length of a row vector.
        maps_id: see `RowVectorMaps.maps_id`.
    """

    def __init__(self, maps: RowVectorMaps, dim: int) -> None:
        self.dim, self.maps_id = dim, maps.maps_id
        self._anchors, self._mean = np.ascontiguousarray(maps.anchors), maps.mean
        whole = dim == len(maps.anchors)
        self._components = None if whole else np.ascontiguousarray(maps.components[:, :dim].T)

    def of_documents(self, vectors: Sequence[np.ndarray]) -> np.ndarray:
        """Row vectors of documents. That of a document is the same whatever others come with it.

        Args:
            vectors: the token vectors of each document, float32 (tokens, dim), one token or more.

        Returns:
            float32 (documents, dim).
        """
        made = np.empty((len(vectors), self.dim), np.float32)
        for row, matrix in zip(made, vectors, strict=True):  # one by one: a product's last bits depend on its size
            centred = largest_products(self._anchors, matrix) - self._mean
            row[:] = centred if self._components is None else self._components @ centred
        return made

    def of_query(self, vectors: np.ndarray) -> np.ndarray:
        """Row vector of a query. Its inner product with a document's estimates MaxSim, less MaxSim's mean.

        Args:
            vectors: its token vectors, float32 (tokens, dim); their lengths are the weights of the tokens.

        Returns:
            float32 (dim,).
        """
        weights = np.linalg.norm(vectors, axis=1)
        directions = vectors / np.maximum(weights, 1e-12)[:, None]
        similar = weights @ _kernel(directions @ self._anchors.T)
        return (similar @ self._query_map).astype(np.float32)

    @cached_property  # made by the first query: whoever writes documents needs none
    def _query_map(self) -> np.ndarray:
        """float64 (anchors, dim), from similarities with the anchors to the row vector of a query.

        Kernel interpolation gives the share that each anchor has in a token. The components do not stay orthonormal
        when they are stored as small numbers, so their pseudo-inverse takes the shares to the row vector.
        """
        anchors = self._anchors.astype(np.float64)
        kernel = _kernel(anchors @ anchors.T)
        kernel[np.diag_indices_from(kernel)] += _KERNEL_RIDGE
        if self._components is None:
            return np.linalg.inv(kernel)
        components = self._components.astype(np.float64)
        return np.linalg.solve(kernel, np.linalg.solve(components @ components.T, components).T)


def _kernel(cosines: np.ndarray) -> np.ndarray:
    """How much a product with one direction says about that with another: float64, from the cosine between them."""
    return np.exp(cosines.astype(np.float64) - 1)


def largest_products(anchors: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """A document's largest product with each anchor: float32 (anchors,).

    Args:
        anchors: float32 (anchors, dim).
        vectors: its token vectors, float32 (tokens, dim), one token or more.
    """
    largest = np.full(len(anchors), -np.inf, np.float32)
    for start in range(0, len(vectors), _TOKENS_AT_ONCE):
        products = anchors @ vectors[start : start + _TOKENS_AT_ONCE].T
        np.maximum(largest, products.max(axis=1), out=largest)
    return largest


def bundled_row_vectors(encoder: Encoder, dim: int | None = None) -> RowVectors:
    """The row vectors that a bundle has.

    Args:
        encoder: the encoder.
        dim: their length; None: the bundle's first.

    Raises:
        BundleError: the file is damaged, or its maps are for token vectors of another length.
        InputError: the bundle has no row vectors, or none of that length.
    """
    folder, name = encoder.folder, encoder.bundle.row_vectors
    if folder is None or name is None:
        raise InputError(
            f"the bundle of {encoder.bundle.name!r} has no row vectors; make a bundle with them: "
            "tansaku export CHECKPOINT FOLDER --codec-texts FILE"
        )
    maps = read_maps(folder / name)
    if maps.dim != encoder.dim:
        raise BundleError(
            f"{folder / name}: for token vectors of {maps.dim} dimensions, not {encoder.dim}; copy the bundle again"
        )
    if dim is not None and dim not in maps.dims:
        offered = ", ".join(map(str, sorted(maps.dims)))
        raise InputError(f"row_dim is {dim!r}; the bundle of {encoder.bundle.name!r} has row vectors of {offered}")
    return RowVectors(maps, maps.dims[0] if dim is None else dim)


def read_maps(path: Path) -> RowVectorMaps:
    """Read and check the maps of a bundle.

    Args:
        path: the file.

    Raises:
        BundleError: the file cannot be read, or is not what `add_row_vectors` writes.
    """
    try:
        with open_plain(path) as file, np.load(file, allow_pickle=False) as arrays:
            return RowVectorMaps.restored(arrays)
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, InputError) as error:
        raise BundleError(f"{path}: cannot be read ({error}); copy the bundle again") from error


def add_row_vectors(folder: str | os.PathLike[str], maps: RowVectorMaps) -> Bundle:
    """Put the maps of row vectors into a bundle, in place of those that it has.

    Row vectors that were made with others are of no use with these: encode those documents again.

    Args:
        folder: the bundle's folder.
        maps: the maps, for token vectors of the bundle's model.

    Returns:
        The bundle with its row vectors.

    Raises:
        BundleError: there is no complete bundle in ``folder``.
        InputError: the maps are for token vectors of another length.
    """
    folder = Path(folder)
    bundle = read_bundle(folder)
    if maps.dim != bundle.dim:
        raise InputError(f"the row vectors are of {maps.dim} dimensions a token, and the model's have {bundle.dim}")
    with atomic_path(folder / ROW_VECTORS_FILE) as making, making.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **maps.stored())
    return write_bundle(folder, dataclasses.replace(bundle, row_vectors=ROW_VECTORS_FILE))
