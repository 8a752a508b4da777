"""What the command line shows people."""

from __future__ import annotations

import io
import logging
from types import SimpleNamespace

import pytest
from rich.console import Console

from tansaku import BuildReport, DeleteReport, Drift, IndexInfo, OptimizeReport, Rejects
from tansaku.plugin.cli import display


@pytest.fixture
def shown(monkeypatch):
    """Everything that is printed."""
    stream = io.StringIO()
    for name in ("out", "err"):
        monkeypatch.setattr(display, name, Console(file=stream, width=200, soft_wrap=True, highlight=False))
    return stream


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only when it is told to."""
    now = [100.0]
    monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def advance(seconds):
        now[0] += seconds

    return advance


class TestProgressWithoutATerminal:
    def test_each_stage_has_a_line_at_its_start_and_its_end(self, shown, clock):
        with display.ProgressDisplay() as progress:
            progress("read", 512, 0, 0)
            progress("read", 600, 0, 0)
            progress("encode", 300, 600, 9000)
            progress("encode", 400, 600, 12000)
            progress("encode", 600, 600, 18000)
            progress("commit", 600, 600)
        assert shown.getvalue().splitlines() == [
            "reading: 512",
            "encoding: 300 of 600",
            "encoding: 600 of 600",
            "storing: 600 of 600",
        ]

    def test_between_them_a_line_now_and_then_with_rates_and_the_time_left(self, shown, clock):
        with display.ProgressDisplay() as progress:
            progress("encode", 100, 1100, 1000)
            clock(2)
            progress("encode", 300, 1100, 3000)
            clock(3)
            progress("encode", 600, 1100, 11000)
            clock(100)
            progress("encode", 1100, 1100, 22000)
        assert shown.getvalue().splitlines() == [
            "encoding: 100 of 1,100",
            "encoding: 600 of 1,100, 100 documents/s, 2,000 tokens/s, 0:05 left",
            "encoding: 1,100 of 1,100, 10 documents/s, 200 tokens/s",
        ]

    def test_a_stage_without_an_end_in_sight_tells_no_time_left(self, shown, clock):
        with display.ProgressDisplay() as progress:
            progress("read", 512, 0, 0)
            clock(10)
            progress("read", 1512, 0, 0)
        assert shown.getvalue().splitlines()[-1] == "reading: 1,512, 100 documents/s"

    def test_bytes_are_shown_as_megabytes_until_the_number_of_documents_is_known(self, shown, clock):
        with display.ProgressDisplay() as progress:
            progress("read bytes", 500_000, 300_000_000, 0)
            clock(10)
            progress("read bytes", 100_500_000, 300_000_000, 0)
            progress("read bytes", 300_000_000, 300_000_000, 0)
            progress("read", 5000, 5000, 0)
        assert shown.getvalue().splitlines() == [
            "reading: 1 of 300 MB",
            "reading: 101 of 300 MB, 10 MB/s, 0:20 left",
            "reading: 5,000 of 5,000",
        ]


class TestProgressOnATerminal:
    def test_one_bar_shows_the_bytes_and_then_the_documents(self, monkeypatch):
        stream = io.StringIO()
        console = Console(file=stream, width=100, force_terminal=True, color_system=None, highlight=False)
        monkeypatch.setattr(display, "err", console)
        with display.ProgressDisplay() as progress:
            progress("read bytes", 100_000_000, 300_000_000, 0)
            bar = stream.getvalue
            progress("read", 5000, 5000, 0)
        last = [line for line in bar().splitlines() if "reading" in line][-1]
        assert "5000/5000" in last

    @pytest.mark.parametrize("width", [40, 100])
    def test_a_bar_with_its_count_fits_on_a_line(self, monkeypatch, width):
        stream = io.StringIO()
        console = Console(file=stream, width=width, force_terminal=True, color_system=None, highlight=False)
        monkeypatch.setattr(display, "err", console)
        with display.ProgressDisplay("passages") as progress:
            progress("sample", 300, 900, 9000)
            progress("sample", 450, 900, 9000)
        last = [line for line in stream.getvalue().splitlines() if "encoding a sample" in line][-1]
        assert "━" in last
        assert ("450/900" if width == 100 else "50%") in last
        assert "…" not in last


def test_passages_are_called_passages(shown, clock):
    with display.ProgressDisplay("passages") as progress:
        progress("encode", 1, 9, 10)
        clock(5)
        progress("encode", 6, 9, 60)
    assert "1 passages/s" in shown.getvalue()


def test_what_a_first_search_waits_for_is_said_while_it_is_listened_to(shown):
    loggers = [logging.getLogger(f"tansaku.plugin.{name}") for name in ("kernels.compiling", "search.calibrator")]
    with display.NotesOfWaiting():
        for logger in loggers:
            logger.info("waiting")
    for logger in loggers:
        logger.info("not heard")
    assert shown.getvalue() == "waiting\n" * 2


@pytest.mark.parametrize(
    ("report", "seconds", "lines"),
    [
        (
            BuildReport(1200, 36000, documents=1200),
            2.0,
            ["1,200 documents, 36,000 token vectors in 2.0 s (600 documents/s, 18,000 tokens/s)"],
        ),
        (
            BuildReport(5, 9, documents=1, passages=True, truncated=1, truncated_ids=["a#0"]),
            1.0,
            [
                "1 document in 5 passages, 9 token vectors in 1.0 s (5 passages/s",
                "warning: 1 passage with more text than the model reads, whose end is not searched: a#0; their titles",
            ],
        ),
        (BuildReport(2, 9, resumed=1, documents=2), 1.0, ["2 documents", "1 of them from before the interruption"]),
        (BuildReport(2, 9, updated=1, documents=2), 1.0, ["2 documents", "1 of them replaced older ones"]),
        (
            BuildReport(2, 9, truncated=1, truncated_ids=["a"], documents=2),
            1.0,
            [
                "2 documents",
                "warning: 1 document with more text than the model reads, whose end is not searched: a; --passage-tok",
            ],
        ),
    ],
)
def test_a_build_says_what_it_wrote(shown, report, seconds, lines):
    display.show_build(report, seconds)
    printed = shown.getvalue().splitlines()
    assert [line[: len(start)] for line, start in zip(printed, lines, strict=True)] == lines


def test_rejects_are_counted_with_their_file_and_none_are_not_mentioned(shown, tmp_path):
    with Rejects(tmp_path / "[r].jsonl") as rejects:
        display.show_rejects(rejects)
        assert shown.getvalue() == ""
        rejects.note("docs.jsonl:1", "bad", {})
        display.show_rejects(rejects)
    assert shown.getvalue() == f"1 record rejected and written to {tmp_path}/[r].jsonl\n"


def test_a_deletion_names_some_of_the_ids_that_were_not_there(shown):
    display.show_delete(DeleteReport(1, [], 1))
    display.show_delete(DeleteReport(7, [], 2), dry_run=True)
    display.show_delete(DeleteReport(0, [f"[{i}]" for i in range(7)]))
    assert shown.getvalue().splitlines() == [
        "1 document deleted",
        "2 documents (7 passages) would be deleted",
        "0 documents deleted",
        "7 ids not in the index: [0], [1], [2], [3], [4], …",
    ]


def test_optimizing_says_what_became_fewer(shown):
    display.show_optimize(OptimizeReport(9, 1, 4, 0))
    assert shown.getvalue() == "9 fragments became 1; 4 old versions and 0 codecs removed\n"


@pytest.mark.parametrize(
    ("drift", "line"),
    [
        (Drift(0.8, 0, None, None), "cosine with centroids 0.800 at training; no rows since"),
        (Drift(0.8, 40, 0.75, 0.05), "cosine with centroids 0.800 at training, 0.750 in 40 rows since, 5% of them out"),
        (Drift(0.8, 40, 0.5, 0.6), "cosine with centroids 0.800 at training, 0.500 in 40 rows since, 60% of them out"),
    ],
)
def test_drift_is_told(drift, line):
    assert display._drift_line(drift).startswith(line)


def test_nothing_of_an_index_is_cut_off_in_80_columns(shown, monkeypatch):
    monkeypatch.setattr(display, "out", Console(file=shown, width=80, soft_wrap=True, highlight=False))
    columns = {f"とても長い日本語の列の名前その{i}" * 2: "date32[day]" for i in range(4)}
    sizes = {"versions": 1, "bytes_by_part": {"lists": 1}, "bytes_on_disk": None, "derived_bytes": 0}
    drift = Drift(trained_cosine=0.5, rows=0, cosine=None, strange=None)
    info = IndexInfo(
        "表" * 50,
        3,
        3,
        21,
        "m",
        "f",
        16,
        2,
        1,
        1,
        None,
        1,
        columns=columns,
        drift=drift,
        **sizes,
        outgrown=False,
        advice="a rebuild would change little: no document was added after the codec was trained",
    )
    display.show_info(info)
    display.show_tables([info])
    printed = shown.getvalue()
    assert "…" not in printed
    together = "".join(printed.split())
    assert all(f"{name}:date32[day]" in together for name in columns)
    assert together.count("表") == 100
    assert "wouldchangelittle" in together
