"""Hostile bundles, whose checksums fit: each is loaded and used in another process, or is a BundleError."""

from __future__ import annotations

import argparse
import collections
import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tansaku import Bundle, BundleError, Encoder, TextRules
from tansaku.onnx_export.encode.bundle import write_bundle

from .support import Child

_DIM, _VOCABULARY = 8, ("[UNK]", *"試験金閣寺は海")
_TEXTS = ["金閣寺は", "海" * 300, "試験"]
_SECONDS = 60.0
_PER_INPUT = 20  # one bundle for so many inputs of the other kinds


def bundles(folder: Path, options: argparse.Namespace) -> list[str]:
    failures: list[str] = []
    counts: collections.Counter[str] = collections.Counter()
    child = Child("load", folder=str(folder))
    for number in range(options.inputs // _PER_INPUT):
        place = f"seed {options.seed}, bundle {number}"
        child.send([options.seed, number])
        try:
            result = child.answer(_SECONDS)
        except RuntimeError as error:
            failures.append(f"{place}: {error}")
            child = Child("load", folder=str(folder))
            continue
        if result is None:
            failures.append(f"{place}: no end within {_SECONDS:g} s")
            child.kill()
            child = Child("load", folder=str(folder))
            continue
        counts[result] += 1
        if result not in ("loaded", "refused"):
            failures.append(f"{place}: {result}")
    child.close()
    print("\nbundles")
    print(f"  {'bundles':>10}{'usable':>10}{'refused':>10}")
    print(f"  {sum(counts.values()):>10,}{counts['loaded']:>10,}{counts['refused']:>10,}")
    return failures


def load(folder: str) -> None:
    """The child process: reads seeds and numbers, and says what became of each bundle."""
    for line in sys.stdin:
        seed, number = json.loads(line)
        place = Path(folder) / "bundle"
        shutil.rmtree(place, ignore_errors=True)
        try:
            make(place, random.Random(seed << 32 | number))
            encoder = Encoder.load(place, threads=1)
            vectors = [*encoder.encode_documents(_TEXTS), *encoder.encode_queries(_TEXTS)]
            finite = all(np.isfinite(matrix).all() and matrix.shape[1] == encoder.dim for matrix in vectors)
            result = "loaded" if finite else "wrong vectors"
        except BundleError:
            result = "refused"
        except Exception as error:
            result = f"{type(error).__name__}: {error}"[:300]
        print(json.dumps(result), flush=True)


def make(folder: Path, rng: random.Random) -> None:
    """Write a bundle with one or two things wrong."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(_VOCABULARY)}, unk_token=_VOCABULARY[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="[UNK] $A [UNK]", special_tokens=[("[UNK]", 0)])
    content = json.loads(tokenizer.to_str())
    graph = _graph(rng)
    if rng.random() < 0.4:
        content["normalizer"] = {"type": "Sequence", "normalizers": [_step(rng) for _ in range(rng.choice((1, 3, 40)))]}
    if rng.random() < 0.1:
        content[rng.choice(list(content))] = rng.choice((None, 1, [], {}, "x"))
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "model.onnx").write_bytes(graph)
    rules = TextRules("", None, 32)
    write_bundle(folder, Bundle("hostile", _DIM, "float32", rules, rules))
    if rng.random() < 0.3:
        described = json.loads((folder / "bundle.json").read_bytes())
        where = rng.choice((described, described["query"], described["document"], described["files"]))
        where[rng.choice(list(where))] = rng.choice(
            (None, 0, -1, 2**40, 1e308, "../x", "/etc/passwd", "", [], {}, "\0")
        )
        (folder / "bundle.json").write_text(json.dumps(described), encoding="utf-8")


def _step(rng: random.Random) -> dict[str, Any]:
    pattern = rng.choice(
        ({"String": "試"}, {"String": ""}, {"Regex": rng.choice(("", ".", "x*", "(?=.)", "(a+)+$", "("))})
    )
    content = rng.choice(("", "a", "試試", "寺" * 100, "x" * 100_000))
    return rng.choice(
        (
            {"type": "Replace", "pattern": pattern, "content": content},
            {"type": "Prepend", "prepend": content},
            {"type": rng.choice(("NFKC", "NFD", "Lowercase", "ByteLevel", "StripAccents", "x"))},
        )
    )


def _graph(rng: random.Random) -> bytes:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    table = np.random.default_rng(0).standard_normal((len(_VOCABULARY), _DIM)).astype(np.float32)
    wrong = rng.choice(("", "", "nan", "outside", "shape", "rows", "type"))
    if wrong == "nan":
        table[rng.randrange(len(table)), rng.randrange(_DIM)] = rng.choice((np.nan, np.inf))
    if wrong == "rows":
        table = table[: rng.randrange(1, len(table))]
    if wrong == "shape":
        table = table[:, : rng.randrange(1, _DIM)]
    initializer = numpy_helper.from_array(table.astype(np.float64) if wrong == "type" else table, "table")
    if wrong == "outside":
        initializer.ClearField("raw_data")
        initializer.data_location = TensorProto.EXTERNAL
        initializer.external_data.add(
            key="location", value=rng.choice(("/etc/passwd", "../x", "model.onnx", "tokenizer.json"))
        )
    names = ("batch", "length")
    made = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
            helper.make_node("LpNormalization", ["rows"], ["token_vectors"], axis=-1, p=2),
        ],
        "hostile",
        [helper.make_tensor_value_info(name, TensorProto.INT64, names) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("token_vectors", TensorProto.FLOAT, [*names, rng.choice((_DIM, "any"))])],
        [initializer],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    data = bytearray(onnx.ModelProto.SerializeToString(model))
    if rng.random() < 0.3:
        at = rng.randrange(len(data))
        data[at : at + rng.randint(0, 4)] = bytes(rng.randrange(256) for _ in range(rng.randint(0, 4)))
    return bytes(data)
