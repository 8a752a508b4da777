"""Find the data files that a path means, and their formats."""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...onnx_export.counts import counted
from ..errors import SourceError

TEXT = ("jsonl", "csv", "tsv", "json", "text")  # formats that may be compressed, and have an encoding
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".md": "text",
    ".markdown": "text",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".xlsx": "excel",
    ".xlsb": "excel",
    ".xls": "excel",
    ".ods": "excel",
}
PACKED = (".gz", ".zst")
_EXPECTED = (
    ".jsonl, .ndjson, .json, .csv, .tsv, .txt, .md (each also .gz or .zst), .parquet, .arrow, .feather, .ipc, .xlsx, "
    ".xls, .xlsb, .ods or a .lance folder"
)

# Files in a folder that may be data but cannot be read, and files with such names that are known not to be data.
_NOT_READ = frozenset(".7z .avro .bz2 .gz .lz4 .orc .rar .sqlite .tar .tgz .xml .xz .zip .zst".split())
_NO_DATA = frozenset("config.json croissant.json dataset_info.json dataset_infos.json metadata.json".split())
_SHOWN = 3  # names of files in a message


@dataclass(frozen=True)
class SourceFile:
    """One file to read.

    Attributes:
        kind: its format.
        path: its path.
        doc_id: the id of its record, if it is one text.
        found_in: the folder or pattern that it was found by; None if it was named.
    """

    kind: str
    path: Path
    doc_id: str = ""
    found_in: Path | None = None


def find_files(path: Path, kind: str | None, say: Callable[[str], None]) -> list[SourceFile]:
    """The file, those that a pattern means, or those in the folder.

    Args:
        path: a file, a pattern or a folder.
        kind: format of the files; None finds it by their suffixes.
        say: called with a sentence if files in a folder are left out.

    Raises:
        SourceError: there is no such file or no data in the folder, or a format is unknown or cannot be read.
    """
    try:
        if path.is_dir():
            if kind is not None:
                raise SourceError(f"{path}: a folder, for which no format can be given; leave the format out")
            return _in_folder(path, say)
        if not path.exists():
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
            if not matches:
                raise SourceError(f"{path}: no such file")
            files = [file for match in matches for file in find_files(match, kind, say)]
            return [replace(file, found_in=file.found_in or path) for file in files]
        if not path.is_file():
            raise SourceError(f"{path}: not a file or folder; to read a pipe, give '-' and standard input")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error})") from error
    kind = kind or _kind(path)
    if kind is None:
        raise SourceError(f"{path}: unknown kind of file; expected {_EXPECTED}, or give its format")
    return [SourceFile(kind, path, path.name)]


def _in_folder(folder: Path, say: Callable[[str], None]) -> list[SourceFile]:
    if _is_lance(folder):
        return [SourceFile("lance", folder)]
    left_out: list[Path] = []
    files = list(_walk(folder, (folder.resolve(),), left_out))
    if any(file.kind != "text" for file in files):  # then a text file is a README or a licence
        left_out += [file.path for file in files if file.kind == "text"]
        files = [file for file in files if file.kind != "text"]
    if left_out:
        say(left_out_of(folder, left_out, "data"))
    if not files and not (folder / "state.json").exists():
        raise SourceError(f"{folder}: no data file in this folder; expected {_EXPECTED}")
    return [
        SourceFile("text", file.path, file.path.relative_to(folder).as_posix(), folder) if file.kind == "text" else file
        for file in files
    ]


def left_out_of(folder: Path, paths: list[Path], lacking: str) -> str:
    """A sentence on the files that are left out.

    Args:
        folder: the folder, or a pattern.
        paths: the files.
        lacking: what they have not.
    """
    names = [str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path) for path in sorted(paths)]
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return f"{folder}: left out {counted(len(names), 'file')} without {lacking}: {shown}"


def _kind(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    is_packed = bool(suffixes) and suffixes[-1] in PACKED
    kind = _SUFFIXES.get("".join(suffixes[-2:-1] if is_packed else suffixes[-1:]))
    return None if is_packed and kind not in TEXT else kind


def _is_lance(folder: Path) -> bool:
    return folder.suffix == ".lance"


def _walk(folder: Path, above: tuple[Path, ...], left_out: list[Path]) -> Iterator[SourceFile]:
    """The data files in and below ``folder``, by name; ``above`` stops at links that loop.

    Files that are not data go to ``left_out``.
    """
    if (folder / "dataset_dict.json").exists():
        raise SourceError(f"{folder}: a dataset with splits; choose one: {', '.join(_splits(folder))}")
    if (folder / "state.json").exists():
        yield from _saved_files(folder)
        return
    for path in sorted(folder.iterdir()):
        kind = _kind(path)
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if _is_lance(path):
                yield SourceFile("lance", path)
            elif path.resolve() not in above:
                yield from _walk(path, (*above, path.resolve()), left_out)
        elif path.exists() and not path.is_file():
            raise SourceError(f"{path}: a pipe, a socket or a device, not a file; remove it from the folder")
        elif path.name in _NO_DATA:
            left_out.append(path)
        elif kind is not None:
            yield SourceFile(kind, path)
        elif path.suffix.lower() in _NOT_READ:
            raise SourceError(
                f"{path}: may be data, but cannot be read; move it out of the folder, or give single files"
            )
        else:
            left_out.append(path)


def _splits(folder: Path) -> list[str]:
    listed = _json_of(folder / "dataset_dict.json").get("splits")
    names = listed if isinstance(listed, list) else sorted(p.name for p in folder.iterdir() if p.is_dir())
    return [str(folder / str(name)) for name in names]


def _saved_files(folder: Path) -> Iterator[SourceFile]:
    """The files of a dataset that `Dataset.save_to_disk` wrote; the folder may have older files too."""
    state = folder / "state.json"
    content = _json_of(state)
    if content.get("_indices_data_files"):
        raise SourceError(
            f"{state}: the dataset is a selection of rows; call `flatten_indices()` and save the dataset again"
        )
    try:
        names = [entry["filename"] for entry in content["_data_files"]]
        paths = [folder / name for name in names]
    except (KeyError, TypeError) as error:
        raise SourceError(
            f"{state}: it has no list of data files, as `Dataset.save_to_disk` writes it; save the dataset again"
        ) from error
    for path in paths:
        if not path.is_file():
            raise SourceError(f"{path}: no such file, though {state} names it")
        yield SourceFile("arrow", path)


def _json_of(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():
            raise OSError("a pipe, a socket or a device, not a file")
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise SourceError(f"{path}: expected a JSON object, not {type(content).__name__}")
    return content
