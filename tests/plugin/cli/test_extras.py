"""A command whose extra is missing says so at once, before it reads or makes anything."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tansaku import MissingExtraError
from tansaku.onnx_export.extras import EXTRAS, INCLUDED, require_extra
from tansaku.plugin.cli.main import app

TABLE = ("--db", "none", "--table", "none")
TRAINING = ("--queries", "none", "--collection", "none")
# Of inputs that do not exist: reading one of them would be another error.
COMMANDS = {
    "serve": (("serve", *TABLE), ("serve", "--index", "not a place")),
    "mcp": (("mcp", *TABLE),),
    "export": (("export", "none", "none"),),
    "evaluate": (
        ("evaluate", *TABLE, "--queries", "none", "--qrels", "none", "-k", "1"),
        ("evaluate", "--benchmark", "jqara", "--data", "none"),
        ("beir", "none"),
        ("beir", "none", "--mteb", "none", "-k", "1"),
    ),
    "train": (("train", "none"), ("average", "none", "none", "none"), ("weigh", "none", *TRAINING, "--qrels", "none")),
    "pooling": (("index", "none", *TABLE, "--pool", "2"),),
    "ray": (("index", "none", *TABLE, "--on", "ray"),),
}
CASES = [(extra, command) for extra, commands in COMMANDS.items() for command in commands]


def packages(extra):
    return [name for part in (extra, *INCLUDED.get(extra, ())) for name in EXTRAS[part]]


@pytest.mark.parametrize(("extra", "command"), CASES, ids=[" ".join(command[:1]) for _, command in CASES])
def test_a_missing_extra_is_named_before_any_work(extra, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in packages(extra):
        monkeypatch.setitem(sys.modules, name, None)
    ended = CliRunner().invoke(app, command)
    assert isinstance(ended.exception, MissingExtraError), ended.output
    assert f"pip install 'tansaku[{extra}]'" in str(ended.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "package"), [(("--bm25", "--teacher", "labels"), "bm25s"), (("--teacher", "2*bm25"), "bm25s"),
                           (("--teacher", "cross-encoder:none"), "sentence_transformers")]
)  # fmt: skip
def test_mine_needs_what_its_engines_and_teachers_need(given, package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    ended = CliRunner().invoke(app, ("mine", str(tmp_path / "out"), *TRAINING, *given))
    assert isinstance(ended.exception, MissingExtraError)
    assert "tansaku[train]" in str(ended.exception)


@pytest.mark.parametrize("extra", EXTRAS)
def test_each_package_of_an_extra_is_asked_for(extra, monkeypatch):
    require_extra(extra)
    for name in packages(extra):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(MissingExtraError, match=rf"tansaku\[{extra}\]"):
                require_extra(extra)


@pytest.mark.integration
@pytest.mark.parametrize("missing", ["fastapi", "starlette", "prometheus_client", "structlog"])
def test_the_service_needs_its_extra_in_python_too(missing):
    code = (
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "from tansaku import MissingExtraError\n"
        "try:\n"
        "    from tansaku import create_app\n"
        "except MissingExtraError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'tansaku[serve]'" in done.stdout
