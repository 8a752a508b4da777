"""How the loops are kept on disk: only where no other user may write, and never what others put there."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tansaku.plugin.kernels import compiling
from tansaku.plugin.kernels.compiling import compiled

from ...support.environment import NOBODY, as_nobody, bare_environment

IMPORT = "import tansaku.plugin.kernels.index_loops, tansaku.plugin.kernels.query_loops"
# Compiles one loop, or loads it, and prints what it has warned of and how often it has loaded one.
RUN = """
import json, warnings
import numpy as np
from tansaku.plugin.kernels import index_loops
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    rows = index_loops.best_rows(np.array([3, 1, 2], np.int32), np.arange(3), 2)
hits = sum(index_loops.best_rows.stats.cache_hits.values())
print(json.dumps([sorted(rows.tolist()), hits, [str(w.message) for w in caught]]))
"""


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    """A cache folder of its own, for this process too."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TANSAKU_CACHE_DIR", str(folder))
    compiling._folder.cache_clear()
    yield folder
    compiling._folder.cache_clear()


def run(code, *, prefix=(), cwd=None, **environment):
    result = subprocess.run(
        [*prefix, sys.executable, "-c", code],
        cwd=cwd,
        env=bare_environment(**environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout or "[]")


def twice(a):
    return a * 2


def make_loop(function=twice):
    loop = compiled(function)
    assert loop(21.0) == 42.0
    return sum(loop.stats.cache_hits.values())


def test_a_loop_is_compiled_once_and_loaded_afterwards(cache_folder):
    assert [make_loop(), make_loop()] == [0, 1]
    assert (cache_folder / "loops").stat().st_mode & 0o777 == 0o700


def test_a_loop_of_other_sources_is_compiled_again(cache_folder, monkeypatch):
    make_loop()
    monkeypatch.setattr(compiling, "_sources", lambda: b"the next release")
    assert [make_loop(), make_loop()] == [0, 1]


@pytest.mark.parametrize("damage", [lambda kept: b"", lambda kept: kept[:-1], lambda kept: kept[:-1] + b"!"])
def test_a_damaged_loop_is_compiled_again(cache_folder, damage):
    make_loop()
    (file,) = (cache_folder / "loops").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert [make_loop(), make_loop()] == [0, 1]


def test_importing_neither_compiles_nor_writes(cache_folder, tmp_path):
    run(IMPORT, cwd=tmp_path, TANSAKU_CACHE_DIR=str(cache_folder))
    assert not list(tmp_path.iterdir())


class Planted:
    """Runs code when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def plant(folder, mark):
    """Put other contents in place of every file below ``folder``, as somebody who knows its format would."""
    bad = pickle.dumps(Planted(mark))
    files = [file for file in folder.rglob("*") if file.is_file()]
    for file in files:
        file.write_bytes(compiling._stamp(bad) + bad)
    return len(files)


def chmod_all(folder, mode):
    for path in (*folder.rglob("*"), folder):
        path.chmod(mode if path.is_dir() else mode & 0o666)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
@pytest.mark.parametrize("level", ["loops", ".", ".."])
def test_nothing_is_loaded_from_where_others_may_write(cache_folder, tmp_path, mode, level):
    make_loop()
    if mode == 0o770 and level != "loops" and os.getegid() == os.geteuid():
        os.chown(cache_folder / level, -1, 12345) if os.geteuid() == 0 else pytest.skip("the group has no other users")
    assert plant(cache_folder, tmp_path / "mark") == 1
    (cache_folder / level).chmod(mode)
    compiling._folder.cache_clear()
    with pytest.warns(UserWarning, match=r"other users may write to /.* \(mode \d+\).*set TANSAKU_CACHE_DIR"):
        assert make_loop() == 0
    assert not (tmp_path / "mark").exists()


@pytest.mark.integration
def test_numbas_own_settings_lead_nowhere(tmp_path):
    """Files are planted wherever numba or tansaku puts them under these settings, in folders that all may write to."""
    shared = tmp_path / "shared"
    shared.mkdir()
    settings = {"NUMBA_CACHE_DIR": str(shared / "numba"), "XDG_CACHE_HOME": str(shared / "xdg")}
    run(RUN, **settings)
    assert not (shared / "numba").exists()
    plant(shared, tmp_path / "mark")
    chmod_all(shared, 0o777)
    assert run(RUN, **settings)[:2] == [[0, 2], 0]
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("what", ["folder", "file", "above"])
def test_nothing_is_loaded_that_belongs_to_another_user(cache_folder, tmp_path, what):
    if os.geteuid():
        pytest.skip("only root can give a folder away")
    make_loop()
    plant(cache_folder, tmp_path / "mark")
    (file,) = (cache_folder / "loops").iterdir()
    given = {"folder": cache_folder / "loops", "file": file, "above": cache_folder}[what]
    os.chown(given, NOBODY, NOBODY)
    compiling._folder.cache_clear()
    with pytest.warns(UserWarning, match=f"{re.escape(str(given))} belongs to another user \\(number {NOBODY}\\)"):
        assert make_loop() == 0
    assert not (tmp_path / "mark").exists()


@pytest.mark.integration
@pytest.mark.parametrize("settings", [{}, {"HOME": "/nowhere/at/all"}, {"HOME": ""}, {"TANSAKU_CACHE_DIR": "~/cache"}])
def test_without_a_home_folder_loops_are_compiled_and_not_kept(tmp_path, settings):
    tmp_path.chmod(0o777)  # a folder named ~ could be made
    rows, hits, (warning,) = run(RUN, prefix=as_nobody(), cwd=tmp_path, **settings)
    assert (rows, hits) == ([0, 2], 0)
    assert re.match(r"compiled search loops are not kept \(.*\), and each process compiles them anew", warning)
    assert not list(tmp_path.iterdir())


@pytest.mark.integration
def test_a_user_without_a_home_folder_can_name_a_folder():
    prefix = as_nobody()
    with tempfile.TemporaryDirectory() as home:  # pytest's own folders are closed to others
        os.chown(home, NOBODY, NOBODY)
        results = [run(RUN, prefix=prefix, TANSAKU_CACHE_DIR=f"{home}/cache") for _ in range(2)]
    assert results == [[[0, 2], 0, []], [[0, 2], 1, []]]


def test_a_full_disk_is_a_warning(small_disk, monkeypatch, cache_folder):
    monkeypatch.setenv("TANSAKU_CACHE_DIR", str(small_disk))
    (small_disk / "filling").write_bytes(bytes((4 << 20) - 8192))
    with pytest.warns(UserWarning, match=r"not kept .*No space left"):
        assert make_loop() == 0


def test_types_are_kept_apart(cache_folder):
    loop = compiled(twice)
    assert loop(np.int32(2)) == 4
    assert loop(np.float32(2.5)) == 5
    assert len(list((cache_folder / "loops").iterdir())) == 2
    assert make_loop() == 0
