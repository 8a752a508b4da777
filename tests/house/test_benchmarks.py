"""Every benchmark starts, and benchmarks/README.md says what it measures."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"
# What another environment's Python runs, as a file: it cannot be imported here.
PEERS = {"encode_peer.py", "index_peer.py", "search_engine.py"}
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in FOLDER.rglob("*.py")
    if "def main()" in path.read_text(encoding="utf-8") and path.name not in PEERS
)


@pytest.mark.parametrize("name", MODULES)
def test_a_benchmark_starts(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    module = importlib.import_module(name)
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert not ended.value.code
    assert (module.__doc__ or "?").splitlines()[0] in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", MODULES)
def test_a_benchmark_is_described(name: str):
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"`{name.removesuffix('.__main__')}`" in readme
