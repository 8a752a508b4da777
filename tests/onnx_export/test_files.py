"""Files and folders that are complete or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tansaku.onnx_export.files import atomic_folder, atomic_path, finished_lines, read_lines, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_place_at_the_end(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with atomic_path(path) as making:
        making.write_text("new")
        assert path.read_text() == "old"
    assert (path.read_text(), names(tmp_path)) == ("new", ["file"])


def test_content_is_written_as_utf_8(tmp_path):
    write_atomically(tmp_path / "text", "検索\n")
    write_atomically(tmp_path / "bytes", b"\x00\r\n")
    assert (tmp_path / "text").read_bytes() == "検索\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\x00\r\n"


@pytest.mark.parametrize("old", [True, False])
def test_after_an_error_a_file_is_as_it_was(tmp_path, old):
    path = tmp_path / "file"
    if old:
        path.write_text("old")

    def write() -> None:
        with atomic_path(path) as making:
            making.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert names(tmp_path) == (["file"] if old else [])
    assert not old or path.read_text() == "old"


@pytest.mark.parametrize("old", [True, False])
def test_a_folder_takes_its_place_at_the_end(tmp_path, old):
    path = tmp_path / "folder"
    if old:
        path.mkdir()
        (path / "older").write_text("old")
    with atomic_folder(path) as making:
        (making / "inner").mkdir()
        (making / "inner" / "file").write_text("new")
        assert path.exists() == old
    assert (names(tmp_path), names(path)) == (["folder"], ["inner"])
    assert (path / "inner" / "file").read_text() == "new"


def test_after_an_error_a_folder_is_as_it_was(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "older").write_text("old")

    def write() -> None:
        with atomic_folder(path) as making:
            (making / "file").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert (names(tmp_path), names(path)) == (["folder"], ["older"])


def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    import os

    path = tmp_path / "folder"
    path.mkdir()
    (path / "older").write_text("old")
    replace = os.replace

    def failing(source: Path, target: Path) -> None:
        if Path(source).suffix == ".making":
            raise OSError("no rename")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)

    def write() -> None:
        with atomic_folder(path):
            pass

    with pytest.raises(OSError, match="no rename"):
        write()
    assert (names(tmp_path), names(path)) == (["folder"], ["older"])


# What `str.splitlines` takes for the end of a line, and files opened as text partly too.
OTHER_BREAKS = "\v\f\x1c\x1d\x1e\x85\u2028\u2029"


def test_only_line_feeds_end_a_line(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(f"\ufeffa\r\n\n{OTHER_BREAKS}\nb\rc\r\n d ".encode())
    assert list(read_lines(path)) == ["a", "", OTHER_BREAKS, "b\rc", " d "]


def test_a_line_that_was_cut_off_is_not_finished(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(f"a\n{OTHER_BREAKS}\r\n".encode() + "都".encode()[:2])
    assert finished_lines(path) == ["a", f"{OTHER_BREAKS}\r"]
    path.write_bytes(b"")
    assert finished_lines(path) == []
