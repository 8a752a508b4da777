"""Builds and searches on a Ray cluster of this machine: what they cost, and whether kills leave a trace.

    python -m benchmarks.scale.on_ray overhead --corpus DATA/jaquad --folder FOLDER
    python -m benchmarks.scale.on_ray kills --store s3
    python -m benchmarks.scale.on_ray shards --db DB --table TABLE --queries DATA/jsquad-valid/queries.jsonl

`overhead` has the seconds of a build of real passages on the same cores with and without Ray, whose own start is not
counted, and the memory of each actor. `kills` builds a table of small documents again and again on two nodes, and
kills a worker, a node or the driver meanwhile: no row may be lost, doubled or half, no more be encoded twice than the
workers had in hand, and a reader must see one whole version throughout. `shards` compares an index in shards with one
searcher.
"""

from __future__ import annotations

import argparse
import datetime
import os

from ..support.machine import cpu_name
from . import kills, overhead, sharded

_PARTS = {"overhead": overhead, "kills": kills, "shards": sharded}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    for name, part in _PARTS.items():
        own = parts.add_parser(name, help=(part.__doc__ or "").splitlines()[0])
        part.add_arguments(own)
        own.set_defaults(run=part.run)
    options = parser.parse_args()
    print(f"{cpu_name()}, {os.cpu_count()} cores, {datetime.date.today()}\n", flush=True)
    options.run(options)


if __name__ == "__main__":
    main()
