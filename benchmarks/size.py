"""How much room tansaku takes where it is installed: each package that it asks for, with those that only come with it.

    python -m venv fresh && fresh/bin/pip install . && fresh/bin/python benchmarks/size.py
    fresh/bin/python benchmarks/size.py --extra serve

What is measured are the files that each installed package records, in MB of 1,000,000 bytes, without compiled Python. A
package that several ask for is listed by itself.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import re
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


def name_of(requirement: str) -> str:
    """The normalized name of the package in a requirement."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;(]", requirement, maxsplit=1)[0]).lower()


def requirements(package: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """The installed packages that a package asks for, without extras and without markers that do not hold here."""
    needed = set()
    for requirement in distribution(package).requires or []:
        text, _, marker = requirement.partition(";")
        of_extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", marker)
        if of_extra is not None and of_extra[1] not in extras:
            continue
        name = name_of(text)
        try:
            distribution(name)
        except PackageNotFoundError:  # its marker does not hold here
            continue
        needed.add(name)
    return needed


def closure(package: str) -> set[str]:
    """A package and all that it brings."""
    found: set[str] = set()
    open_ = {package}
    while open_:
        name = open_.pop()
        if name not in found:
            found.add(name)
            open_ |= requirements(name)
    return found


def megabytes(package: str) -> float:
    """The size of a package's files."""
    paths = [Path(str(file.locate())) for file in distribution(package).files or [] if file.suffix != ".pyc"]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extra", action="append", default=[], help="name of an extra that is installed too")
    extras = frozenset(parser.parse_args().extra)
    brought: dict[str, set[str]] = defaultdict(set)
    for direct in requirements("tansaku", extras) - {"tansaku"}:
        for name in closure(direct):
            brought[name].add(direct)
    rows: dict[str, list[str]] = defaultdict(list)
    for name, by in brought.items():
        rows[next(iter(by)) if len(by) == 1 else name].append(name)
    sizes = {owner: sum(map(megabytes, names)) for owner, names in rows.items()}
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {datetime.date.today()}\n")
    print("| package | MB | with |\n|---|---|---|")
    own = megabytes("tansaku")
    for owner, size in sorted({**sizes, "tansaku": own}.items(), key=lambda item: -item[1]):
        others = ", ".join(sorted(set(rows[owner]) - {owner}))
        print(f"| `{owner}` | {size:.1f} | {others} |")
    print(f"| all | {sum(sizes.values()) + own:.0f} | |")


if __name__ == "__main__":
    main()
