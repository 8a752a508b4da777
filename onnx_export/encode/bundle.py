"""The encoder bundle: a folder with an ONNX graph, a tokenizer and one JSON file that says how to use them.

bundle.json      this module's `Bundle`, plus the sha256 of every other file
model.onnx       input_ids, attention_mask: int64 (batch, length) → token_vectors: float32 (batch, length, dim)
tokenizer.json   a `tokenizers` file; its post-processor adds the sequence start and end tokens
query_weights.onnx  perhaps: token_vectors: float32 (tokens, dim) → weights: float32 (tokens, 1), of a query
README.md        the model card
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import BundleError, InputError
from ..files import write_atomically
from .rules import TextRules, checked, parse_rules

BUNDLE_FILE = "bundle.json"
FORMAT = "tansaku-bundle"
FORMAT_VERSION = 2


@dataclass(frozen=True)
class Bundle:
    """What a bundle's JSON file says.

    Attributes:
        name: the model's name.
        dim: length of a token vector.
        precision: "float32" or "int8": how the weights are stored and multiplied.
        graph: file name of the ONNX graph.
        tokenizer: file name of the tokenizer.
        segmenter: what cuts a text into words before the tokenizer: None, or a name that `load_segmenter` knows.
        query_weights: file name of the graph that weighs a query's tokens, see `query_weights`; None weighs all alike.
        phrase_weight: what the neighbours of a token count in a score, see the plugin's `phrases`, where a search does
            not say: 0, which is MaxSim, or what the model was measured to do well with.
        query: rules for queries.
        document: rules for documents.
        origin: where the weights come from and how they were made: for people, not read by the encoder.
        parity: how far the graph's vectors are from the checkpoint's, as measured at export.
        opset: version of the ONNX operators that the graph uses.
        files: file name → sha256 of every other file in the folder.
    """

    name: str
    dim: int
    precision: str
    query: TextRules
    document: TextRules
    graph: str = "model.onnx"
    tokenizer: str = "tokenizer.json"
    segmenter: str | None = None
    query_weights: str | None = None
    phrase_weight: float = 0.0
    opset: int | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    parity: dict[str, float] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_weight("phrase_weight", self.phrase_weight)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change whenever the vectors of a text can change, but for their weights in a query.

        Made from the graph's and the tokenizer's sha256 and the text rules, so a bundle may be renamed, its card edited
        or its queries and phrases weighed otherwise without making its indexes unreadable.
        """
        identity = {
            "graph": self.files.get(self.graph),
            "tokenizer": self.files.get(self.tokenizer),
            "segmenter": self.segmenter,
            "query": dataclasses.asdict(self.query),
            "document": dataclasses.asdict(self.document),
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def check_weight(name: str, weight: float) -> float:
    """``weight``, if it is one; raises InputError, with its ``name``, if not."""
    if not 0 <= weight < math.inf:
        raise InputError(f"{name} is {weight}; it must be 0 or more")
    return weight


def write_bundle(folder: Path, bundle: Bundle) -> Bundle:
    """Write `bundle.json` beside the graph, the tokenizer and the card that are already in ``folder``.

    Returns the bundle with its file hashes filled in.
    """
    found = sorted(path.name for path in folder.iterdir() if path.is_file())
    names = [name for name in found if name != BUNDLE_FILE and not name.startswith(".")]
    bundle = dataclasses.replace(bundle, files={name: _sha256(folder / name) for name in names})
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **dataclasses.asdict(bundle)}
    text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    write_atomically(folder / BUNDLE_FILE, text)
    return bundle


def read_bundle(folder: str | os.PathLike[str]) -> Bundle:
    """Read and check the bundle in ``folder``.

    Raises BundleError if a file is missing, has another sha256 than `bundle.json` says, or if the format is
    unknown.
    """
    folder = Path(folder)
    path = folder / BUNDLE_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{folder}: no {BUNDLE_FILE} here, so this is not an encoder bundle") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: cannot be read ({error})") from error
    bundle = _parse(content, path)
    for name, expected in bundle.files.items():
        _check_file(folder / name, expected)
    return bundle


def _parse(content: Any, path: Path) -> Bundle:
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise BundleError(f'{path}: "format" is not "{FORMAT}", so this is not an encoder bundle')
    version = content.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path}: bundle format {version}, but this tansaku reads format {FORMAT_VERSION}; "
            "export the checkpoint again with this version"
        )
    try:
        for kind in ("query", "document"):
            content[kind] = parse_rules(content[kind])
        bundle = Bundle(**checked(content, _BUNDLE_TYPES))
        checked(bundle.files, str)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path}: field missing, not known or of a wrong type ({error}); export again") from error
    for name in (bundle.graph, bundle.tokenizer, bundle.query_weights):
        if name is not None and name not in bundle.files:
            raise BundleError(f'{path}: "files" does not list {name}; export the checkpoint again')
    for name in bundle.files:
        if Path(name).name != name:
            raise BundleError(f'{path}: "files" names {name!r}, which is not a plain file name')
    return bundle


_BUNDLE_TYPES = {
    "name": str,
    "dim": int,
    "precision": str,
    "query": TextRules,
    "document": TextRules,
    "graph": str,
    "tokenizer": str,
    "segmenter": (str, type(None)),
    "query_weights": (str, type(None)),
    "phrase_weight": float,
    "opset": (int, type(None)),
    "origin": dict,
    "parity": dict,
    "files": dict,
}


def _check_file(path: Path, expected: str) -> None:
    if not path.is_file():
        raise BundleError(f"{path}: missing from the bundle; copy the bundle again")
    actual = _sha256(path)
    if actual != expected:
        raise BundleError(
            f"{path}: sha256 is {actual[:12]}…, bundle.json says {expected[:12]}…: "
            "the file is cut off or was changed; copy the bundle again"
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
