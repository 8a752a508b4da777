"""The encoder bundle: a folder with an ONNX graph, a tokenizer and one JSON file that describes them.

bundle.json      this module's `Bundle`, with the sha256 of every other file
model.onnx       input_ids, attention_mask: int64 (batch, length) → token_vectors: float32 (batch, length, dim)
tokenizer.json   a `tokenizers` file; its post-processor adds the sequence start and end tokens
codec.npz        optional: a codec that small indexes adapt, see `tansaku.indexer.codec.codec_file`
row_vectors.npz  optional: how one vector a document is made, see `tansaku.plugin.rows.row_vectors`
query_weights.onnx  optional: token_vectors of a query: float32 (tokens, dim) → weights: float32 (tokens, 1)
README.md        the model card
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import BundleError, InputError
from ..files import write_atomically
from ..frozen_dict import FrozenDict
from ..validation import describe_errors
from .rules import CHECKED_STRICTLY, TextRules

if TYPE_CHECKING:
    from pydantic import TypeAdapter

BUNDLE_FILE, GRAPH_FILE, TOKENIZER_FILE = "bundle.json", "model.onnx", "tokenizer.json"
FORMAT = "tansaku-bundle"
FORMAT_VERSION = 2

Precision = Literal["float32", "int8"]

_ON_HUB = re.compile(r"[\w.-]+/[\w.-]+")  # OWNER/NAME
# A thousand times MaxSim leaves nothing of MaxSim, and far larger weights overflow float32 in the sums.
MAX_WEIGHT = 1000.0


@dataclass(frozen=True)
class Bundle:
    """The content of a bundle's JSON file.

    A bundle cannot be changed; `dataclasses.replace` makes another one.

    Attributes:
        name: the model's name.
        dim: length of a token vector.
        precision: "float32" or "int8": how the weights are stored and multiplied.
        query: rules for queries.
        document: rules for documents.
        graph: filename of the ONNX graph.
        tokenizer: filename of the tokenizer.
        segmenter: name of the word segmenter that runs before the tokenizer, "mecab-unidic-lite" or "mecab-unidic-lite
            after the normalizer"; None for no segmenter.
        query_weights: filename of the graph that weighs the tokens of a query; None for equal weights.
        codec: filename of the codec that small indexes adapt, in place of training one; None without one.
        row_vectors: filename of the maps that make one vector of a document; None without them.
        phrase_weight: weight of the similarity of neighbouring tokens in a score, 0 or more; 0 is plain MaxSim. The
            default of searches.
        opset: version of the ONNX operators that the graph uses.
        origin: where the weights come from and how they were made. For people; the encoder does not read it.
        parity: how far the graph's vectors are from the checkpoint's, measured at export.
        files: filename → sha256 of every other file in the folder.

    Raises:
        InputError: ``dim`` or ``opset`` is less than 1, or ``phrase_weight`` is negative or not finite.
    """

    name: str
    dim: int
    precision: Precision
    query: TextRules
    document: TextRules
    graph: str = GRAPH_FILE
    tokenizer: str = TOKENIZER_FILE
    segmenter: str | None = None
    query_weights: str | None = None
    codec: str | None = None
    row_vectors: str | None = None
    phrase_weight: float = 0.0
    opset: int | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, int | float] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    __pydantic_config__: ClassVar[dict[str, Any]] = CHECKED_STRICTLY

    def __post_init__(self) -> None:
        for name, value in (("dim", self.dim), ("opset", self.opset)):
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be 1 or more")
        check_weight("phrase_weight", self.phrase_weight)
        for name in ("origin", "parity", "files"):
            object.__setattr__(self, name, FrozenDict(getattr(self, name)))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change whenever the document vectors can change: the identity of an index's model.

        Made from the text rules of documents and the sha256 of graph and tokenizer. So a new name, card, query weights,
        phrase weight or text rules of queries leave the indexes of a bundle readable.
        """
        return self._digest({"document": dataclasses.asdict(self.document)})

    @property
    def scoring_fingerprint(self) -> str:
        """16 hexadecimal digits that change whenever the document vectors or the unweighted query vectors can change.

        Results are kept under it. Indexes made before 0.1.0 was released have it in place of `fingerprint`.
        """
        return self._digest({"query": dataclasses.asdict(self.query), "document": dataclasses.asdict(self.document)})

    def made(self, fingerprint: str) -> bool:
        """Tell whether vectors with this fingerprint can be of this bundle.

        Args:
            fingerprint: as an index keeps it.
        """
        return fingerprint in (self.fingerprint, self.scoring_fingerprint)

    def _digest(self, rules: dict[str, Any]) -> str:
        identity = {
            "graph": self.files.get(self.graph),
            "tokenizer": self.files.get(self.tokenizer),
            "segmenter": self.segmenter,
            **rules,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def check_weight(name: str, weight: float) -> float:
    """Check a weight.

    Args:
        name: what the weight is called, for the error.
        weight: the weight.

    Returns:
        The weight.

    Raises:
        InputError: the weight is not a number from 0 to `MAX_WEIGHT`.
    """
    if not isinstance(weight, Real) or not 0 <= weight <= MAX_WEIGHT:
        raise InputError(f"{name} is {weight!r}; it must be from 0 to {MAX_WEIGHT}")
    return weight


def write_bundle(folder: Path, bundle: Bundle) -> Bundle:
    """Write `bundle.json` beside the graph, the tokenizer and the card that are already in ``folder``.

    Args:
        folder: where the bundle is. Hidden files in it do not belong to the bundle.
        bundle: what to write; its ``files`` are ignored.

    Returns:
        The bundle with the sha256 of its files.
    """
    found = sorted(path.name for path in folder.iterdir() if path.is_file())
    names = [name for name in found if name != BUNDLE_FILE and not name.startswith(".")]
    bundle = dataclasses.replace(bundle, files={name: _sha256(folder / name) for name in names})
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **dataclasses.asdict(bundle)}
    write_atomically(folder / BUNDLE_FILE, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
    return bundle


def read_bundle(folder: str | os.PathLike[str]) -> Bundle:
    """Read and check the bundle in ``folder``: its JSON file, and the sha256 of every other file.

    Args:
        folder: the bundle's folder, as `export_checkpoint` writes it.

    Returns:
        The bundle.

    Raises:
        BundleError: there is no bundle, its format is unknown, a field is missing or wrong, or a file is missing or
            has another sha256 than `bundle.json` gives. The message names the file, the field and the remedy.
    """
    bundle = read_description(folder)
    for name, expected in bundle.files.items():
        _check_file(Path(folder) / name, expected)
    return bundle


def read_description(folder: str | os.PathLike[str]) -> Bundle:
    """Read and check the JSON file of the bundle in ``folder``, but none of the files that it names.

    Args:
        folder: the bundle's folder.

    Returns:
        The bundle.

    Raises:
        BundleError: there is no bundle, its format is unknown, or a field is missing or wrong.
    """
    folder = Path(folder)
    path = folder / BUNDLE_FILE
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise BundleError(f"{path}: not a file; copy the bundle again")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not folder.exists():
            remedy = "give the folder of an encoder bundle, or none: the model of the index is found by itself"
            if _ON_HUB.fullmatch(str(folder)):
                remedy += f"; of a model on the hub make a bundle first: `tansaku export {folder} FOLDER`"
            raise BundleError(f"{folder}: no such folder; {remedy}") from None
        remedy = ""
        if (folder / "config.json").exists():
            remedy = f"; if it is a checkpoint, make a bundle of it first: `tansaku export {folder} FOLDER`"
        raise BundleError(f"{folder}: no {BUNDLE_FILE} here, so this is not an encoder bundle{remedy}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: cannot be read ({error}); copy the bundle again") from error
    return _checked(content, path)


def _checked(content: Any, path: Path) -> Bundle:
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise BundleError(f'{path}: "format" is not "{FORMAT}", so this is not an encoder bundle')
    version = content.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path}: bundle format {version}, but this tansaku reads format {FORMAT_VERSION}; "
            "export the checkpoint again with this version"
        )
    from pydantic import ValidationError  # here, because it takes a tenth of a second

    try:
        # From JSON, where pydantic takes a list for a tuple and an object for a dataclass in strict mode too.
        bundle = _bundle_adapter().validate_json(json.dumps(content))
    except ValidationError as error:
        raise BundleError(f"{path}: {describe_errors(error)}; export the checkpoint again") from error
    for name in (bundle.graph, bundle.tokenizer, bundle.query_weights, bundle.codec, bundle.row_vectors):
        if name is not None and name not in bundle.files:
            raise BundleError(f'{path}: "files" does not list {name}; export the checkpoint again')
    for name in bundle.files:
        if Path(name).name != name:
            raise BundleError(f'{path}: "files" names {name!r}, which is not a plain file name; copy the bundle again')
    return bundle


@functools.cache
def _bundle_adapter() -> TypeAdapter[Bundle]:
    from pydantic import TypeAdapter

    return TypeAdapter(Bundle)


def _check_file(path: Path, expected: str) -> None:
    if not path.is_file():
        raise BundleError(f"{path}: missing from the bundle; copy the bundle again")
    actual = _sha256(path)
    if actual != expected:
        raise BundleError(
            f"{path}: sha256 is {actual[:12]}…, but bundle.json says {expected[:12]}…: "
            "the file is cut off or was changed; copy the bundle again"
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
