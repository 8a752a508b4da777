"""How long tansaku takes to start: CPU time and wall time of imports and commands, each in a process of its own.

    python -m benchmarks.start

The least of five runs, after one that is not counted. The first line names the machine.
"""

from __future__ import annotations

import argparse
import datetime
import os
import resource
import subprocess
import sys
import time

from .support.machine import cpu_name

_RUNS = 5
_STARTS = {
    "import tansaku": ["-c", "import tansaku"],
    "import tansaku.plugin": ["-c", "import tansaku.plugin"],
    "tansaku --help": ["-m", "tansaku", "--help"],
    "tansaku search --help": ["-m", "tansaku", "search", "--help"],
    "from tansaku import Searcher": ["-c", "from tansaku import Searcher"],
    "Encoder.load()": ["-c", "from tansaku import Encoder; Encoder.load()"],
}


def seconds(arguments: list[str]) -> tuple[float, float]:
    """CPU time, user and system, and wall time of Python with these arguments."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(f"{cpu_name()}, {os.cpu_count()} cores, {datetime.date.today()}\n")
    print("| | CPU s | wall s |\n|---|---|---|")
    empty = min(seconds(["-c", ""]) for _ in range(_RUNS))
    print(f"| Python alone | {empty[0]:.2f} | {empty[1]:.2f} |")
    for name, arguments in _STARTS.items():
        seconds(arguments)
        runs = [seconds(arguments) for _ in range(_RUNS)]
        print(f"| `{name}` | {min(cpu for cpu, _ in runs):.2f} | {min(wall for _, wall in runs):.2f} |", flush=True)


if __name__ == "__main__":
    main()
