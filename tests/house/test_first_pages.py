"""The pages that a new user reads first, followed to the letter: each block in order, in an empty folder, from a wheel.

Left out are the lines that install, and those for a clone: `make`, `git clone`. In the place of JaQuAD there is a small
data set of its form.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.environment import bare_environment
from .test_environments import environment, run_uv, wheel, wheels, with_extras  # noqa: F401  the fixtures

pytestmark = [pytest.mark.slow, pytest.mark.engine]

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "plugin" / "sample" / "corpus.jsonl"
BASH = shutil.which("bash") or "bash"
INSTALLS = ("make ", "git clone", "pip install", "python3 -m venv", ". env/")
BLOCK = re.compile(r"(?P<before>[^\n]*)\n\n```(?P<language>\w*)\n(?P<code>.*?)^```", flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", ["README.md", "plugin/public/README.md", "docs/quickstart.md", "docs/tutorial.md"])
def test_can_be_followed(page: str, installed: Path, tmp_path: Path):
    """Japanese pages have the same code; tests/house/test_docs.py and test_readme.py compare them."""
    reader = Reader(installed, tmp_path)
    if page.endswith("tutorial.md"):
        write_squad(tmp_path)
    with contextlib.ExitStack() as stack:
        for block in BLOCK.finditer((ROOT / page).read_text(encoding="utf-8")):
            reader.follow(block["language"], block["code"], block["before"], stack)
    assert reader.ran >= 2


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:  # noqa: F811
    """The programs of an environment with the extras that these pages ask for."""
    place = tmp_path_factory.mktemp("installed") / "env"
    run_uv("venv", "--quiet", "--python", sys.executable, place)
    run_uv("pip", "install", "--quiet", "--python", place / "bin" / "python", with_extras(wheel, "serve", "evaluate"))
    yield place / "bin"
    shutil.rmtree(place, ignore_errors=True)


class Reader:
    """Does what a page says.

    Args:
        programs: the folder with python and tansaku.
        folder: where it works.
    """

    def __init__(self, programs: Path, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self._environment = bare_environment(
            HOME=str(folder / "home"), TANSAKU_CACHE_DIR=str(programs.parent / "cache")
        )
        self._environment.pop("PYTHONPATH", None)
        self._environment["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
        self._said = ""  # by the last block that ran
        self.ran = 0

    def follow(self, language: str, code: str, before: str, stack: contextlib.ExitStack) -> None:
        """One block, and the line before it."""
        named = re.findall(r"`([\w.]+\.(?:jsonl|tsv))`", before)
        if language in ("json", "") and named:
            (self._folder / named[-1]).write_text(code, encoding="utf-8")
        elif language == "text":
            for line in code.splitlines():
                assert shape(line).rstrip("…") in shape(self._said), f"{line!r} is not in\n{self._said}"
        elif language == "python":
            self._said = self._run("python", "-c", code)
        elif language == "sh":
            lines = [line for line in code.replace("\\\n", " ").splitlines() if not line.startswith(INSTALLS)]
            served = [line for line in lines if " serve " in line]
            rest = "\n".join(line for line in lines if line not in served)
            self._said = self._run(BASH, "-ec", rest.replace(":8080", f":{self._port}")) if rest else ""
            for line in served:
                stack.enter_context(self._served(line))

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self._folder, env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
        assert '"error"' not in done.stdout, f"{command[-1]}\n{done.stdout}"
        self.ran += 1
        return done.stdout

    @contextlib.contextmanager
    def _served(self, line: str) -> Iterator[None]:
        command = f"exec env {line.partition('#')[0]} --port {self._port}"
        process = subprocess.Popen([BASH, "-ec", command], cwd=self._folder, env=self._environment)
        try:
            wait_until_ready(self._port)
            yield
        finally:
            process.terminate()
            process.wait()


def shape(text: str) -> str:
    """A text with its numbers replaced: times differ, and scores in their last digits."""
    return re.sub(r"\d[\d.,]*", "0", text)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def wait_until_ready(port: int) -> None:
    for _ in range(240):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5):
            return
        time.sleep(0.5)
    pytest.fail("the service is not ready after two minutes")


def write_squad(folder: Path) -> None:
    """What the tutorial's own files are: paragraphs with questions, and a document that has changed."""
    sample: dict[str, list[str]] = {}
    for line in SAMPLE.read_text(encoding="utf-8").splitlines()[:60]:
        paragraph = json.loads(line)
        sample.setdefault(paragraph["title"], []).append(paragraph["text"])
    for part, articles in {
        "dev": {"東大寺の仏像": ["奈良の大仏の高さは約15メートルである。"]},
        "train": sample,
    }.items():
        data = [
            {
                "title": title,
                "paragraphs": [{"context": text, "qas": [{"question": f"{title}とは？"}]} for text in texts],
            }
            for title, texts in articles.items()
        ]
        file = folder / "JaQuAD" / "data" / part / f"jaquad_{part}_0000.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"data": data}), encoding="utf-8")
    shutil.copytree(ROOT / "docs" / "examples", folder / "docs" / "examples")
    changed = {"id": "kinkaku", "title": "金閣寺", "text": "金閣寺は京都の北山にある寺院である。"}
    (folder / "changed.jsonl").write_text(json.dumps(changed), encoding="utf-8")
