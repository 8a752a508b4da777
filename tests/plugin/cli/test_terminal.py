"""What reaches a terminal or a file: no control characters, valid JSON, clear errors where nothing can be written."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from tansaku import DeleteReport, Explanation, Hit, Hits, Index, InputError, Match
from tansaku.onnx_export.files import check_output, check_output_folder, write_output
from tansaku.plugin.cli import display
from tansaku.plugin.cli.hits import show_hits
from tansaku.plugin.cli.main import app
from tansaku.plugin.cli.terminal import as_json, visible
from tansaku.plugin.search.results import RankedRows

SCRIPT = Path(sysconfig.get_path("scripts")) / "tansaku"
# Clear the screen, set the title, a C1 introducer, an override of the direction, a deletion, half a surrogate pair.
BAD = "\x1b[2J\x1b]0;title\x07\x9b31m\u202e\x7f\x08\r\ud800"
CONTROLS = set(map(chr, [*range(0x20), *range(0x7F, 0xA0), 0x202E, 0x2066, 0x200F, 0x2028, 0xD800])) - {"\n"}


@pytest.fixture
def printed(monkeypatch):
    stream = io.StringIO()
    for name in ("out", "err"):
        console = Console(file=stream, width=400, soft_wrap=True, highlight=False, force_terminal=False)
        monkeypatch.setattr(display, name, console)
    return stream


@given(st.text(st.characters()))
def test_visible_text_has_no_control_characters_and_other_text_is_unchanged(text):
    assert not CONTROLS & set(visible(text))
    assert visible("".join(c for c in text if c.isprintable())) == "".join(c for c in text if c.isprintable())


def test_escapes_are_shown():
    assert visible("a\x1b[31mb\x9b\u202e\n") == r"a\x1b[31mb\x9b\u202e\x0a"
    assert visible("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def test_nothing_that_is_printed_reaches_the_terminal_raw(printed):
    hit = Hit(f"id{BAD}", 1.0, f"title{BAD}", f"text{BAD}", {})
    ranked = RankedRows(rows=None, scores=None, scored=1, missing=(f"gone{BAD}",))  # pyright: ignore[reportArgumentType]
    hits = Hits([hit], ranked=ranked, stages={}, version=1, query_tokens=1)
    match = Match(0.5, 1.0, (0, 1), f"q{BAD}", (2, 3), f"d{BAD}")
    show_hits(f"query{BAD}", hits, [Explanation(hit.id, 1.0, hit.text, (match,))])
    display.show_delete(DeleteReport(0, [f"id{BAD}"]))
    display.show_error(InputError(f"error{BAD}"))
    display.show_warning(f"warning{BAD}")
    with display.ProgressDisplay() as progress:
        progress(f"model{BAD}: search", 1, 2)
        progress.note(f"note{BAD}")
    text = printed.getvalue()
    assert not CONTROLS & set(text)
    for word in ("id", "title", "text", "gone", "q", "d", "query", "error", "warning", "model", "note"):
        assert rf"{word}\x1b[2J" in text, word


def test_json_has_neither_nan_nor_control_characters_and_means_the_same():
    text = as_json({"score": math.nan, "fields": [math.inf, {"x": -math.inf}], "text": BAD})
    assert not CONTROLS & set(text)

    def refuse(name):
        raise AssertionError(name)

    read = json.loads(text, parse_constant=refuse)
    assert read == {"score": None, "fields": [None, {"x": None}], "text": BAD}


@pytest.mark.parametrize("encoding", ["ascii", "cp932", "utf-8"])
def test_json_is_valid_in_every_locale(monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", stream)
    text = as_json({"é": "金閣寺 🏯"})
    assert json.loads(text.encode(encoding).decode(encoding)) == {"é": "金閣寺 🏯"}


def test_outputs_are_tried_before_the_work(tmp_path):
    check_output(tmp_path / "new")
    assert not list(tmp_path.iterdir())
    (tmp_path / "old").write_text("old")
    check_output(tmp_path / "old")
    assert (tmp_path / "old").read_text() == "old"
    check_output(Path("/dev/full"))
    for path in (tmp_path, tmp_path / "none" / "file", tmp_path / "old" / "file"):
        with pytest.raises(InputError, match=f"{path}: cannot be written"):
            check_output(path)


def test_folders_for_output_are_tried_too(tmp_path):
    check_output_folder(tmp_path / "new" / "below")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        check_output_folder(tmp_path / "file" / "below")


@pytest.mark.parametrize(
    "command",
    [
        ("export", "none", "OUT"),
        ("average", "none", "OUT", "none"),
        ("mine", "OUT", "--queries", "none", "--collection", "none", "--teacher", "labels"),
        ("index", "none", "--db", "none", "--table", "t", "--on-error", "reject", "--rejects", "OUT"),
        ("evaluate", "--db", "none", "--table", "t", "--queries", "none", "--run", "OUT"),
        ("beir", "none", "--mteb", "OUT"),
    ],
)
def test_a_command_whose_output_cannot_be_written_does_nothing_else(command, tmp_path):
    (tmp_path / "file").write_text("x")
    out = str(tmp_path / "file" / "out")
    ended = CliRunner().invoke(app, [out if part == "OUT" else part for part in command])
    assert isinstance(ended.exception, InputError), ended.output
    assert str(ended.exception).startswith(f"{out}: cannot be")


def test_outputs_are_written_whole_or_refused(tmp_path):
    write_output(tmp_path / "run", ["犬\u2028", "b"])
    assert (tmp_path / "run").read_bytes() == "犬\u2028\nb\n".encode()
    with pytest.raises(InputError, match="/dev/full: cannot be written"):
        write_output(Path("/dev/full"), ["x"])


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("terminal")
    texts = ["金閣寺は京都の寺。🏯é", f"赤い文字{BAD[:-1]}"]
    records = [{"id": f"d{i}", "text": text, "number": math.nan} for i, text in enumerate(texts)]
    Index.create(folder, "t", records)
    return ["--db", str(folder), "--table", "t"]


@pytest.mark.integration
class TestCommands:
    """The installed script, as it is where output goes to something else than a terminal."""

    def run(self, *arguments, encoding="utf-8", **how):
        environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "200", "NO_COLOR": "1"}
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
        return subprocess.run([SCRIPT, *arguments], env=environment, check=False, timeout=120, **how)

    @pytest.mark.slow
    @pytest.mark.parametrize("encoding", ["ascii", "cp932"])
    def test_a_locale_without_the_characters_is_no_error(self, table, encoding):
        for more in ((), ("--explain",), ("--json",)):
            done = self.run("search", "京都", *table, *more, encoding=encoding)
            assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
        assert json.loads(done.stdout.decode(encoding))["hits"][0]["text"].endswith("🏯é")

    @pytest.mark.slow
    def test_json_is_json_and_the_terminal_is_left_alone(self, table):
        done = self.run("search", "赤い文字", *table, "--json")
        (hit, _) = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(name))["hits"]
        assert (hit["fields"], hit["text"].endswith("\r")) == ({"number": None}, True)
        shown = self.run("search", "赤い文字", *table, "--explain").stdout.decode()
        assert not CONTROLS & set(shown)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
    @pytest.mark.parametrize("more", [(), ("--json",)])
    def test_a_full_disk_is_a_clear_error(self, table, more):
        with open("/dev/full", "wb") as full:
            done = self.run("search", "京都", *table, *more, stdout=full)
        assert done.returncode == 2
        assert b"cannot be read or written (No space left on device)" in done.stderr
        assert b"Traceback" not in done.stderr

    @pytest.mark.parametrize("more", ["", "--json"])
    def test_output_that_is_closed_is_no_error(self, table, more):
        line = f'"$0" search 京都 --db "$2" --table "$4" {more} >&-'
        done = subprocess.run(["/bin/sh", "-c", line, SCRIPT, *table], capture_output=True, check=False, timeout=120)
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr

    @pytest.mark.parametrize("more", [(), ("--json",)])
    def test_a_reader_that_has_gone_is_no_error(self, table, more):
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "wb") as closed:
            done = self.run("search", "京都", *table, *more, stdout=closed)
        assert (done.returncode, done.stderr) == (1, b"")
