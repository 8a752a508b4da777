"""Memory of a training: of its data, and of a step with and without what saves memory.

python -m benchmarks.training.memory

Each measurement runs in a process of its own, and reports the peak of the memory that no file stands behind.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

from ..support.machine import cpu_name

NWAY, BATCH = 32, 64
# A step of one group: passages of 300 tokens, as long as the recipe allows, and a query of 32.
LENGTH, ASKED = 300, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=100_000, help="number of groups; passages are 2.75 times as many")
    parser.add_argument("--layers", type=int, default=6, help="number of layers of the backbone")
    parser.add_argument("--hidden", type=int, default=384, help="size of its hidden states")
    parser.add_argument("--measure", help="the one measurement of this process, as JSON")
    options = parser.parse_args()
    if options.measure:
        measured = json.loads(options.measure)
        {"data": data, "step": step}[measured.pop("of")](**measured)
        return
    print(f"{cpu_name()}, {datetime.date.today()}")
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.groups)
        for part in ("prepare", "read"):
            run({"of": "data", "folder": folder, "part": part, "groups": options.groups})
    sizes = {"layers": options.layers, "hidden": options.hidden}
    for attention in ("eager", "sdpa"):
        for recompute in (False, True):
            run({"of": "step", "attention": attention, "recompute": recompute, **sizes})


def run(measured: dict) -> None:
    command = [sys.executable, "-m", "benchmarks.training.memory", "--measure", json.dumps(measured)]
    subprocess.run(command, check=True)


def peak(work: Callable[[], object]) -> tuple[float, float]:
    """Megabytes that some work adds at its peak, without those of files, and its seconds."""
    done, highest, before = Event(), [0], anonymous()

    def watch() -> None:
        while not done.wait(0.01):
            highest[0] = max(highest[0], anonymous())

    watcher = Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    return (max(highest[0], anonymous()) - before) / 1e6, seconds


def anonymous() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def write(folder: Path, groups: int) -> None:
    random = np.random.default_rng(1)
    passages = int(2.75 * groups)
    with (folder / "c.tsv").open("w", encoding="utf-8") as file:
        file.writelines(f"{i}\t{i:08d}番の文章。{'日本語の長い文章です。' * 12}\n" for i in range(passages))
    with (folder / "q.tsv").open("w", encoding="utf-8") as file:
        file.writelines(f"{i}\t{i:08d}番は何ですか\n" for i in range(groups))
    with (folder / "g.jsonl").open("w", encoding="utf-8") as file:
        for i in range(groups):
            found = random.choice(passages, NWAY, replace=False).tolist()
            scores = random.random(NWAY).round(4).tolist()
            file.write(json.dumps([i, *([p, s] for p, s in zip(found, scores, strict=True))]) + "\n")


def data(folder: str, part: str, groups: int) -> None:
    from tansaku.training.config import DataConfig
    from tansaku.training.data.prepared import PreparedData, prepare

    at = Path(folder)
    names = {"groups": "g.jsonl", "queries": "q.tsv", "collection": "c.tsv"}
    config = DataConfig.model_validate({key: [str(at / name)] for key, name in names.items()})

    def read() -> None:
        opened = PreparedData.open(at / "data")
        for start in range(0, len(opened) - BATCH, max(BATCH, len(opened) // 200)):
            for row in opened.passage_rows[start : start + BATCH].ravel().tolist():
                opened.passages.text_at(row)

    added, seconds = peak(read if part == "read" else lambda: prepare(config, at / "data"))
    size = sum(file.stat().st_size for file in (at / "data").iterdir()) / 1e6
    print(
        f"data: {part:<8} {groups:,} groups, {int(2.75 * groups):,} passages: {added:,.0f} MB, {seconds:.0f} s, "
        f"{size:,.0f} MB of files"
    )


def step(attention: str, recompute: bool, layers: int, hidden: int) -> None:
    import torch
    from tokenizers import Tokenizer, models
    from transformers import BertConfig, BertModel

    from tansaku import TokenizedText
    from tansaku.onnx_export.convert.checkpoint import Checkpoint, linear_projection
    from tansaku.onnx_export.encode.rules import TextRules
    from tansaku.training.config import DataConfig, LossConfig, ModelConfig, RunConfig, TrainingConfig
    from tansaku.training.model.losses import loss_of
    from tansaku.training.model.student import Student
    from tansaku.training.run.batches import Pass
    from tansaku.training.run.memory import estimate_memory

    torch.manual_seed(1)
    sizes: dict[str, Any] = {"num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": 4 * hidden}
    # With dropout of attention a CPU has no fused attention; a GPU has.
    config = BertConfig(vocab_size=32_768, num_attention_heads=hidden // 64, attention_probs_dropout_prob=0.0, **sizes)
    config._attn_implementation = attention
    rules = TextRules("", None, 512)
    weight = torch.randn(128, hidden) / hidden**0.5
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))  # noqa: S106
    student = Student(Checkpoint("made", BertModel(config), linear_projection(weight), tokenizer, rules, rules)).train()
    student.recompute, student.tokens_at_once = recompute, 4 * LENGTH if recompute else 16_384
    random = np.random.default_rng(1)
    passages = [text_of(random, LENGTH, TokenizedText) for _ in range(NWAY)]
    some = Pass([text_of(random, ASKED, TokenizedText)], passages, torch.rand(1, NWAY))

    def forward_and_backward(some: Pass) -> None:
        scores, _ = student(some.queries, some.passages)
        loss_of(LossConfig(), scores, some.scores).backward()

    # The first pass also makes the gradients, and what torch allocates once.
    forward_and_backward(Pass(some.queries, [text_of(random, 9, TokenizedText) for _ in range(2)], torch.rand(1, 2)))
    settings = RunConfig(output="none", recompute=recompute, tokens_at_once=student.tokens_at_once)
    whole = TrainingConfig(model=ModelConfig(checkpoint="none"), data=DataConfig(groups=["none"]), run=settings)
    estimate = estimate_memory(student, whole, [some], torch.float32)
    added, seconds = peak(lambda: forward_and_backward(some))
    said = (estimate.activations + estimate.maxsim) / 1e6
    print(
        f"step: {attention:<5} recompute {str(recompute).lower():<5} {added:6,.0f} MB at the peak, "
        f"estimated {said:6,.0f} MB for {estimate.tokens:,} tokens; {seconds:.1f} s"
    )


def text_of(random: np.random.Generator, length: int, kind: type):  # noqa: ANN201
    return kind(random.integers(5, 32_000, length), np.ones(length, np.int64), np.ones(length, bool), False)


if __name__ == "__main__":
    main()
