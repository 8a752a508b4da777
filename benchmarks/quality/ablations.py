"""What each part of the recipe does at our small scale: one change at a time, several seeds, sets not trained on.

    python -m tansaku.training.default_model data WORK --data ../shared/data
    python -m tansaku.training.default_model base-model WORK/teacher --data ../shared/data --layers 12 --dim 384
    M='--queries WORK/jaquad/queries.jsonl --collection WORK/jaquad/corpus.jsonl --qrels WORK/jaquad/qrels.tsv'
    M="$M --clusters WORK/teacher --nway 16"
    tansaku mine WORK/jaquad/groups.jsonl $M --teacher '2*labels' --teacher maxsim:WORK/teacher  # the baseline
    tansaku mine WORK/jaquad/maxsim.jsonl $M --teacher maxsim:WORK/teacher                       # one teacher alone
    tansaku mine WORK/jaquad/labels.jsonl $M --teacher labels                                    # and the other
    python -m benchmarks.quality.ablations --work WORK --data ../shared/data
    python -m benchmarks.quality.ablations --work WORK --data ../shared/data --dim 64 --seeds 1 --only token 'the base'

Every training starts at the same untrained base, trains its upper layers and the projection for `--steps` steps on
the first `--groups` groups of `jaquad`, and differs from the baseline in what the row says. Reported are nDCG@10 and
hit@1 over each set, exhaustive float32 MaxSim, the mean over seeds; and the difference to the baseline of the same
seed, its mean and standard deviation. The last form is for 96 dimensions and `--layers 6` too. Results are kept in
WORK/ablations.jsonl: an interrupted run goes on, and prints what is there.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import json
import os
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch

from tansaku.onnx_export.convert.checkpoint import Checkpoint
from tansaku.training.config import DataConfig, LossConfig, ModelConfig, OptimizerConfig, RunConfig, TrainingConfig
from tansaku.training.default_model.base_model import base_model
from tansaku.training.model.student import Student, with_rules
from tansaku.training.run.averaging import average_weights
from tansaku.training.run.evaluation import Evaluation
from tansaku.training.run.trainer import train

from ..support.machine import cpu_name

SETS = ("jsquad-valid", "niilc-qa", "jaquad")
BASELINE = "the recipe, without masks"
UNTRAINED = "the base, not trained"
SETTINGS = ("steps", "layers", "dim", "trained_layers", "dropout", "nway", "batch_size", "block", "learning_rate",
            "groups", "questions")  # fmt: skip
# What a row changes: fields of the configuration's sections; "asked": the augmentation of evaluated queries;
# "averaged": shares of the training whose checkpoints are averaged. Rows that train alike share one training.
VARIANTS: dict[str, dict[str, Any]] = {
    BASELINE: {},
    "queries: masks up to 32 tokens": {"model": {"augmentation": "fixed"}},
    "queries: so trained, asked by the paper's rule": {"model": {"augmentation": "fixed"}, "asked": "paper"},
    "scores: not normalised": {"loss": {"normalize_student": False, "normalize_teacher": False}},
    "MarginMSE": {"loss": {"kind": "margin_mse"}},
    "in-batch negatives": {"loss": {"in_batch_negatives": True}},
    "linear decay": {"optimizer": {"schedule": "linear"}},
    "last checkpoint and two before averaged": {"averaged": (0.6, 0.8, 1.0)},
    "token similarities instead of scores": {"loss": {"kind": "tokens"}},
    "one teacher: MaxSim of the base, all dimensions": {"groups": "maxsim.jsonl"},
    "one teacher: labels": {"groups": "labels.jsonl"},
    "scores: MaxSim as it is, six times the teacher's": {
        "loss": {"normalize_student": False, "distillation_alpha": 6.0}
    },
    UNTRAINED: {"untrained": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--trained-layers", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.0, help="none makes a step on a CPU twice as fast")
    parser.add_argument("--nway", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--block", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--groups", type=int, default=3000)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--only", nargs="*", help="rows, by the beginning of their names")
    options = parser.parse_args()
    kept = options.work / "ablations.jsonl"
    setting = {name: getattr(options, name) for name in SETTINGS}
    results = [r for r in map(json.loads, kept.read_text().splitlines()) if r["setting"] == setting] if kept.exists() \
        else []  # fmt: skip
    wanted = [n for n in VARIANTS if not options.only or n.startswith(tuple(options.only))]
    missing = [(seed, n) for seed in options.seeds for n in wanted
               if not any((r["seed"], r["variant"]) == (seed, n) for r in results)]  # fmt: skip
    if missing:
        base = base_model(options.data, layers=options.layers, dim=options.dim)
        sets = {name: Evaluation.read(options.data / name, "dev", options.questions) for name in SETS}
        # Of `jaquad` only the articles that are not trained on.
        judged = Evaluation.read(options.data / "jaquad", "dev").qrels.values()
        of_dev = {passage for found in judged for passage in found}
        passages = {p: text for p, text in sets["jaquad"].passages.items() if p in of_dev}
        sets["jaquad"] = dataclasses.replace(sets["jaquad"], passages=passages)
        for seed, name in missing:
            started = time.monotonic()
            known = [r["sets"] for r in results if r["variant"] == name == UNTRAINED]  # of another seed
            measured = known[0] if known else run(options, base, sets, VARIANTS[name], seed)
            result = {"variant": name, "seed": seed, "setting": setting, "sets": measured,
                      "seconds": round(time.monotonic() - started)}  # fmt: skip
            results.append(result)
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result, ensure_ascii=False) + "\n")
            print(f"{name}, seed {seed}: {measured}, {result['seconds']} s", flush=True)
    print(f"{date.today()}, {cpu_name()}, {os.cpu_count()} CPUs; {setting}; seeds {options.seeds}")
    show(results, wanted, options.seeds)


def run(
    options: argparse.Namespace, base: Checkpoint, sets: dict[str, Evaluation], variant: dict[str, Any], seed: int
) -> dict[str, dict[str, float]]:
    """Train one variant and measure it on every set."""
    number = [trained_by(one) for one in VARIANTS.values()].index(trained_by(variant))
    output = options.work / "ablations" / f"{options.layers}x{options.dim}-{seed}-{number}"
    config = configuration(options, output, variant, seed)
    checkpoint = copy.deepcopy(base)
    last = None if variant.get("untrained") else train(config, checkpoint)
    model = config.model.model_copy(update={"augmentation": variant.get("asked", config.model.augmentation)})
    student = Student(with_rules(checkpoint, model)).eval()
    if last is not None:
        shares = variant.get("averaged", (1.0,))
        folders = [last.with_name(f"checkpoint-{round(share * options.steps)}") for share in shares]
        student.load_state_dict(average_weights(folders))
    student.freeze_below(options.trained_layers, options.work / "activations", torch.bfloat16)
    return {name: evaluation.measure(student) for name, evaluation in sets.items()}


def trained_by(variant: dict[str, Any]) -> dict[str, Any]:
    """What of a variant concerns its training."""
    return {key: part for key, part in variant.items() if key not in ("asked", "averaged")}


def configuration(options: argparse.Namespace, output: Path, variant: dict[str, Any], seed: int) -> TrainingConfig:
    def section(kind: Any, name: str, **values: Any) -> Any:
        return kind(**{**values, **variant.get(name, {})})

    folder = options.work / "jaquad"
    output.mkdir(parents=True, exist_ok=True)
    with (folder / variant.get("groups", "groups.jsonl")).open(encoding="utf-8") as lines:
        (output / "groups.jsonl").write_text("".join(itertools.islice(lines, options.groups)), encoding="utf-8")
    return TrainingConfig(
        model=section(
            ModelConfig,
            "model",
            checkpoint="base",
            augmentation="none",
            query_length=32,
            document_length=300,
            dropout=options.dropout,
        ),
        data=DataConfig(
            groups=[str(output / "groups.jsonl")],
            queries=[str(folder / "queries.jsonl")],
            collection=[str(folder / "corpus.jsonl")],
            nway=options.nway,
            block=options.block,
        ),
        loss=section(LossConfig, "loss"),
        optimizer=section(
            OptimizerConfig,
            "optimizer",
            learning_rate=options.learning_rate,
            warmup_steps=options.steps // 20,
            batch_size=options.batch_size,
            trained_layers=options.trained_layers,
            activations=str(options.work / "activations"),
        ),
        run=RunConfig(
            output=str(output), steps=options.steps, save_every=options.steps // 5, seed=seed, precision="bfloat16"
        ),
    )


def show(results: list[dict[str, Any]], names: list[str], seeds: list[int]) -> None:
    """A table: means over seeds, and the differences to the baseline of the same seed."""
    of = {(r["variant"], r["seed"]): r["sets"] for r in results}
    columns = [(name, measure) for name in SETS for measure in ("ndcg@10", "hit@1")]
    print("| | " + " | ".join(f"{name} {measure}" for name, measure in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for variant in names:
        cells = []
        for name, measure in columns:
            values = [of[variant, seed][name][measure] for seed in seeds]
            cell = f"{statistics.mean(values):.4f}"
            if variant != BASELINE and BASELINE in names and len(seeds) > 1:
                gaps = [v - of[BASELINE, seed][name][measure] for v, seed in zip(values, seeds, strict=True)]
                cell += f" ({statistics.mean(gaps):+.4f} ± {statistics.stdev(gaps):.4f})"
            cells.append(cell)
        print(f"| {variant} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
