"""Build an index with workers of your own: plan once, encode and write in each task, commit once.

python own_workers.py docs.jsonl

`encode` takes and gives Arrow batches, as Spark's `mapInArrow` wants it. Here the tasks are processes.
"""

import json
import random
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from multiprocessing import get_context

import pyarrow as pa

from tansaku import RowPlan, commit_rows, encode_rows, plan_rows, write_rows


def encode(batches: Iterable[pa.RecordBatch], plan: RowPlan) -> Iterator[pa.RecordBatch]:
    """Write the documents of a task, and give the names of what was written."""

    def rows() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            encoded = encode_rows(plan, batch)
            for reject in encoded.rejected:
                print(reject["reason"], file=sys.stderr)
            yield encoded.rows

    yield pa.RecordBatch.from_pydict({"fragment": write_rows(plan, rows())}, pa.schema({"fragment": pa.string()}))


def task(part: list[dict], plan: RowPlan) -> list[str]:
    """A process does what a task of Spark does."""
    batches = pa.Table.from_pylist(part).to_batches(max_chunksize=1024)
    return [name for done in encode(batches, plan) for name in done["fragment"].to_pylist()]


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        documents = [json.loads(line) for line in file]
    sample = random.sample(documents, min(len(documents), 10_000))
    plan = plan_rows("db", "own_workers", sample, documents=len(documents), mode="overwrite")
    parts = [documents[start : start + 10_000] for start in range(0, len(documents), 10_000)]
    with get_context("spawn").Pool(2) as pool:
        fragments = [name for names in pool.imap_unordered(partial(task, plan=plan), parts) for name in names]
    print(commit_rows(plan, fragments), "rows in", len(fragments), "fragments")


if __name__ == "__main__":
    main()
