"""A checkpoint's files: where they are, and their JSON and tensors. Nothing but tensors is unpickled."""

from __future__ import annotations

import pickle  # for the name of its error; nothing is unpickled
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from ...errors import CheckpointError
from ...validation import describe_errors

METADATA_FILE = "artifact.metadata"
HEAD_FILE = "colbert_linear.pt"
MODULES_FILE = "modules.json"

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_CONFIG_FILES = ["*.json", "*.txt", "*.model", METADATA_FILE, HEAD_FILE, "*_Dense/pytorch_model.bin"]
_SAFETENSORS_FILES = ["*.safetensors"]
_TORCH_FILES = ["pytorch_model*.bin", "*/pytorch_model.bin"]
_IGNORED_FILES = ["onnx/*", "openvino/*", "checkpoint-*"]


class Settings(BaseModel):
    """A JSON file of another tool: the fields that tansaku reads are checked, the others are ignored.

    A field that is null has its default, as in the tools that write these files.
    """

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        return {name: value for name, value in content.items() if value is not None}


class _WeightIndex(Settings):
    weight_map: Annotated[dict[str, str], Field(min_length=1)]


Model = TypeVar("Model", bound=BaseModel)


def find_folder(source: str | Path, revision: str | None = None) -> Path:
    """The folder ``source``, or the hub repository of that name, downloaded to huggingface_hub's cache.

    Args:
        source: a folder, or "owner/name" of a hub repository.
        revision: branch, tag or commit of the repository.

    Raises:
        CheckpointError: there is no such folder or repository, or the download failed.
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
            f"{name}: not a folder here, and the download from the hub failed ({type(error).__name__}: {error}). "
            f"Without a network, copy the repository's files ({', '.join(_CONFIG_FILES + _SAFETENSORS_FILES)} or "
            "pytorch_model.bin) to a folder and give its path"
        ) from error
    return folder


def read_settings(path: Path, model: type[Model]) -> Model:
    """Read and check a JSON file.

    Args:
        path: the file. If it is missing, every field has its default.
        model: the fields.

    Raises:
        CheckpointError: the file cannot be read, or a field is missing or wrong. The message names file and field.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b"{}"
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); copy the checkpoint again") from error
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise CheckpointError(
            f"{path}: {describe_errors(error)}; correct the file, or copy the checkpoint again"
        ) from error


def read_tensors(folder: Path, wanted: str = "") -> dict[str, torch.Tensor]:
    """Tensors of a folder's weights, in float32, by name.

    Args:
        folder: where the weights are: safetensors, or otherwise a pytorch_model.bin, read with ``weights_only``.
        wanted: name of the one tensor to read; "" reads all.

    Raises:
        CheckpointError: there is no weights file, or it cannot be read.
    """
    found: dict[str, torch.Tensor] = {}
    for path in _weight_files(folder):
        found.update(read_weight_file(path, wanted))
    return found


def read_weight_file(path: Path, wanted: str = "") -> dict[str, torch.Tensor]:
    """Tensors of one file, in float32, by name.

    Args:
        path: a safetensors file, or one of torch, read with ``weights_only``.
        wanted: name of the one tensor to read; "" reads all.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name).float() for name in file.keys() if wanted in ("", name)}  # noqa: SIM118
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.float() for name, tensor in tensors.items() if wanted in ("", name)}
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: has more than tensors in it, or is cut off; copy it again, or convert it to safetensors "
            "where it comes from"
        ) from error
    except (OSError, EOFError, SafetensorError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); copy the checkpoint again") from error


def _weight_files(folder: Path) -> list[Path]:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return [folder / shard for shard in sorted(set(read_settings(index, _WeightIndex).weight_map.values()))]
    raise CheckpointError(f"{folder}: no model.safetensors or pytorch_model.bin here; copy the checkpoint again")
