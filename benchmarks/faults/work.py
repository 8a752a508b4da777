"""The worker that is killed: documents that change with their generation, and the operations on them."""

from __future__ import annotations

import json
import random
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tansaku import (
    Encoder,
    Index,
    Searcher,
)
from tansaku.indexer.table import changes

from .support import TABLE, character_encoder

PASSAGE_TOKENS = 20
OPERATIONS = ("build", "append", "upsert", "delete", "optimize", "rebuild", "read", "bulk", "overwrite")
State = dict[int, int]  # document number → generation


@dataclass(frozen=True)
class Setting:
    """A kind of database that is worked on."""

    real: bool
    passages: bool
    documents: int  # of a build
    fulltext: bool = False

    def encoder(self) -> Encoder:
        return Encoder.load(threads=1) if self.real else character_encoder()

    @property
    def passage_tokens(self) -> int | None:
        return PASSAGE_TOKENS if self.passages else None


SETTINGS = (
    Setting(False, False, 700),
    Setting(False, True, 400),
    Setting(False, False, 400, fulltext=True),
    Setting(False, True, 200, fulltext=True),
    Setting(True, False, 40),
)


def document(number: int, generation: int) -> dict[str, Any]:
    """What a document is at a generation: its text, and in passages their number, change with it."""
    draw = random.Random(number * 1000 + generation)
    sentences = [f"{draw.choice('山川海空森町駅城')}の{number}、{generation}版{i}。" for i in range(draw.randint(1, 3))]
    title = f"題{number}" if number % 3 else ""
    return {"id": f"d{number}", "title": title, "text": "".join(sentences), "generation": generation}


def documents(state: Mapping[int, int]) -> list[dict[str, Any]]:
    return [document(number, generation) for number, generation in state.items()]


def work(db: str, real: bool, passages: bool, fulltext: bool) -> None:
    """The worker: does what it is told until it is killed."""
    setting = Setting(real, passages, 0, fulltext)
    encoder = setting.encoder()
    bytes_per_transaction = changes.BYTES_PER_TRANSACTION
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        changes.BYTES_PER_TRANSACTION = 1 if job["operation"] == "bulk" else bytes_per_transaction
        try:
            answer = {"resumed": operate(db, setting, encoder, job)}
        except Exception as error:  # what it is is for the parent to judge
            answer = {"error": type(error).__name__, "message": str(error), "trace": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


def operate(db: str, setting: Setting, encoder: Encoder, job: dict[str, Any]) -> int:
    """Do one operation; returns how many rows of it had been done before."""
    operation, state = job["operation"], {int(number): g for number, g in job["change"].items()}
    report = None
    if operation in ("build", "overwrite"):
        index = Index.create(
            db,
            TABLE,
            documents(state),
            encoder=encoder,
            passage_tokens=setting.passage_tokens,
            fulltext=setting.fulltext,
            overwrite=operation == "overwrite",
            resume=True,
        )
        report = index.last_build
    elif operation == "read":
        Searcher.open(db, TABLE, encoder=encoder).search("山の話")
    else:
        index = Index.open(db, TABLE, encoder=encoder)
        if operation == "append":
            report = index.add(documents(state), resume=job["resume"])
        elif operation in ("upsert", "bulk"):
            report = index.upsert(documents(state), resume=job["resume"])
        elif operation == "delete":
            index.delete([f"d{number}" for number in state])
        elif operation == "optimize":
            index.optimize(keep=timedelta(seconds=job["keep"]))
        elif operation == "rebuild":
            report = index.rebuild(resume=True)
    return report.resumed if report else 0
