"""A checkpoint's files: where they are, and its JSON and tensors. Nothing is unpickled but tensors."""

from __future__ import annotations

import json
import pickle  # for the name of its error; nothing is unpickled
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ...errors import CheckpointError

METADATA_FILE = "artifact.metadata"
MODULES_FILE = "modules.json"

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_CONFIG_FILES = ["*.json", "*.txt", "*.model", METADATA_FILE, "*_Dense/pytorch_model.bin"]
_SAFETENSORS_FILES = ["*.safetensors"]
_TORCH_FILES = ["pytorch_model*.bin", "*/pytorch_model.bin"]
_IGNORED_FILES = ["onnx/*", "openvino/*", "checkpoint-*"]


def find_folder(source: str | Path, revision: str | None = None) -> Path:
    """The folder ``source``, or the hub repository of that name, downloaded to huggingface_hub's cache.

    Raises CheckpointError if there is neither.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists() or not _HUB_ID.fullmatch(str(source)):
        raise CheckpointError(f"{source}: neither a folder nor the name of a hub repository (owner/name)")
    return _download(str(source), revision)


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    def fetch(patterns: list[str]) -> Path:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=_IGNORED_FILES))

    try:
        folder = fetch(_CONFIG_FILES + _SAFETENSORS_FILES)
        if not any(folder.glob("*.safetensors")):
            folder = fetch(_CONFIG_FILES + _TORCH_FILES)
    except Exception as error:  # whatever the HTTP library raises comes through
        raise CheckpointError(
            f"{name}: not a folder here, and the model hub did not give it ({type(error).__name__}: {error}). "
            f"Without a network, copy the repository's files ({', '.join(_CONFIG_FILES + _SAFETENSORS_FILES)} or "
            "pytorch_model.bin) to a folder and name that"
        ) from error
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} if there is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def read_tensors(folder: Path, wanted: str = "") -> dict[str, torch.Tensor]:
    """Tensors of ``folder``'s weights file, in float32: those whose name is ``wanted``, or all.

    Safetensors come first; a pytorch_model.bin is read with ``weights_only``. Raises CheckpointError if there is no
    weights file or it cannot be read.
    """
    found: dict[str, torch.Tensor] = {}
    for path in _weight_files(folder):
        found.update(_read_weight_file(path, wanted))
    return found


def _read_weight_file(path: Path, wanted: str) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name).float() for name in file.keys() if wanted in ("", name)}  # noqa: SIM118
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.float() for name, tensor in tensors.items() if wanted in ("", name)}
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than tensors, or is cut off; copy it again, or convert it to safetensors where it "
            "comes from"
        ) from error
    except (OSError, EOFError, SafetensorError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); copy the checkpoint again") from error


def _weight_files(folder: Path) -> list[Path]:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = setting(read_json(index), "weight_map", dict, {}, index).values()
            if not shards or not all(isinstance(shard, str) for shard in shards):
                raise CheckpointError(f"{index}: names no files of weights; copy the checkpoint again")
            return [folder / shard for shard in sorted(set(shards))]
    raise CheckpointError(f"{folder}: no model.safetensors or pytorch_model.bin here")


def setting(values: dict[str, Any], name: str, kind: type, default: Any, path: Path) -> Any:
    """``values[name]``, or ``default`` if it is missing or null; raises CheckpointError if it is of another kind."""
    value = values.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and (isinstance(value, bool) or value < 1)):
        raise CheckpointError(f"{path}: {name} is {value!r}; expected {kind.__name__}, above 0 if a number")
    return value


def texts_setting(values: dict[str, Any], name: str, default: list[str], path: Path) -> list[str]:
    """As `setting`, for a list of str."""
    value = setting(values, name, list, default, path)
    if not all(isinstance(text, str) for text in value):
        raise CheckpointError(f"{path}: {name} is {value!r}; expected a list of texts")
    return value
