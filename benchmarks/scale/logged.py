"""The driver of a build that is killed, and an encoder that costs next to nothing and notes what it encodes."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tansaku import Encoder, Index, OnRay

from ..faults.support import TABLE, CharacterEncoder


class LoggedEncoder(CharacterEncoder):
    """An encoder that each actor can load. It notes each text, in a file of its process.

    Args:
        folder: where the files are.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.logs = folder

    def elsewhere(self, threads: int) -> Callable[[], Encoder]:
        return partial(LoggedEncoder, self.logs)

    def encode_tokens(self, tokenized: Sequence[Any], note: Callable[[int], None] | None = None) -> list[np.ndarray]:
        with (self.logs / f"{os.getpid()}.log").open("a", encoding="utf-8") as file:
            file.write("".join(f"{text.ids.tobytes().hex()}\n" for text in tokenized))
        return super().encode_tokens(tokenized, note)


def document(number: int, generation: int) -> dict[str, Any]:
    """What a document is at a generation: its text changes with it."""
    draw = random.Random(number * 1000 + generation)
    text = f"第{number:07d}の文書、{generation:05d}版。" + "".join(
        draw.choices("山川海空森町駅城", k=draw.randint(4, 24))
    )
    return {"id": f"d{number}", "text": text, "generation": generation}


def build(job: dict[str, Any]) -> int:
    """Replace the table by a generation of documents; returns how many of its rows an earlier call had made."""
    documents = [document(number, job["generation"]) for number in range(job["documents"])]
    index = Index.create(
        job["db"],
        TABLE,
        documents,
        encoder=LoggedEncoder(Path(job["log"])),
        overwrite=True,
        storage_options=job["options"],
        on=OnRay(job["address"], actors=job["actors"]),
    )
    return index.last_build.resumed if index.last_build else 0


if __name__ == "__main__":
    print(json.dumps({"resumed": build(json.loads(sys.argv[1]))}), flush=True)
