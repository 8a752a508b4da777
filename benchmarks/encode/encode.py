"""Encoding speed: tansaku against torch and sentence-transformers' ONNX backend, on the same texts and threads.

    python -m benchmarks.encode.encode --data ../shared/data [--peer-python PYTHON]

Two models with random weights (speed does not depend on them): the shape of the model inside (12 layers of 384) and
JaColBERT's (12 of 768). Documents are passages of four corpora, queries the questions of `jsquad-valid`; every system
goes from text to token vectors. Each figure is the median of several rounds, in which all systems take turns. torch
runs padded batches of two sizes, of which the better counts; tansaku pads nothing. The ceiling is one large int8
product in ONNX Runtime; attention is not counted in it.

PYTHON is the interpreter of an environment with requirements-encode-peer.txt.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers import BertConfig, BertModel

from tansaku import Encoder, TextRules
from tansaku.onnx_export.convert.checkpoint import Checkpoint, linear_projection
from tansaku.onnx_export.convert.export import export_checkpoint
from tansaku.onnx_export.convert.trace import token_vectors_module
from tansaku.onnx_export.encode.encoder import graph_inputs
from tansaku.onnx_export.files import read_lines

from ..support.machine import cpu_name

CORPORA = ("jsquad-valid", "jaquad", "kyoto-wiki-ja", "msdocs-ja")
SHAPES = {"inside": (12, 384), "jacolbert": (12, 768)}  # layers, hidden
DIM, LENGTH = 128, 300
TORCH_RUNS = (256, 2048)  # tokens
PEER = Path(__file__).with_name("encode_peer.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-python", type=Path)
    options = parser.parse_args()
    print(f"{date.today()}, {cpu_name()}, onnxruntime {onnxruntime.__version__}, torch {torch.__version__}")
    show_start()
    documents = [
        text for name in CORPORA for text in read(options.data / name / "corpus.jsonl", options.documents // 4)
    ]
    queries = read(options.data / "jsquad-valid" / "queries.jsonl", options.queries)
    for shape in options.shape or SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            measure_shape(shape, documents, queries, Path(folder), options)


def measure_shape(
    shape: str, documents: list[str], queries: list[str], folder: Path, options: argparse.Namespace
) -> None:
    checkpoint = random_checkpoint(*SHAPES[shape])
    for precision in ("float32", "int8"):
        export_checkpoint(checkpoint, folder / precision, precision=precision)
    write_sentence_transformer(checkpoint, folder / "peer")
    tokens = [len(text.ids) for text in Encoder.load(folder / "int8").tokenize_documents(documents)]
    layers, hidden = SHAPES[shape]
    operations = 2 * (layers * 12 * hidden**2 + hidden * DIM)
    print(f"\n{shape}: {layers} layers of {hidden}; {len(tokens)} documents of {np.mean(tokens):.0f} tokens on average")
    for threads in options.threads:
        torch.set_num_threads(threads)
        encoders = {p: Encoder.load(folder / p, threads=threads) for p in ("float32", "int8")}
        module = token_vectors_module(checkpoint)
        systems: dict[str, Callable[[list[str]], object]] = {
            **{f"torch float32, runs of {n}": torch_encode(module, encoders["float32"], n) for n in TORCH_RUNS},
            **{f"tansaku {p}": encoder.encode_documents for p, encoder in encoders.items()},
        }
        seconds = take_turns({name: lambda e=e: e(documents) for name, e in systems.items()}, options.rounds)
        rates = {name: sum(tokens) / value for name, value in seconds.items()}
        if options.peer_python:
            rates |= peer_rates(options, folder / "peer", documents, threads, sum(tokens))
        torch_rate = max(rate for name, rate in rates.items() if name.startswith("torch"))
        limit = ceiling(threads)
        print(f"\n{threads} thread(s); int8 ceiling {limit / 1e9:.0f} GOP/s")
        print(f"{'documents':<44}{'tokens/s':>10}{'of torch':>10}{'of ceiling':>12}")
        for name, rate in rates.items():
            print(f"{name:<44}{rate:>10,.0f}{rate / torch_rate:>9.2f}x{rate * operations / limit:>12.0%}")
        show_queries(queries, encoders, module, options.rounds)


def random_checkpoint(layers: int, hidden: int) -> Checkpoint:
    encoder = Encoder.load()
    tokenizer = encoder._parts.tokenize_query._tokenizer
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=12,
        intermediate_size=4 * hidden,
        initializer_range=0.05,
    )
    return Checkpoint(
        name="random",
        backbone=BertModel(config, add_pooling_layer=False).eval(),
        projection=linear_projection(torch.randn(DIM, hidden)),
        tokenizer=tokenizer,
        query=TextRules("", None, LENGTH),
        document=TextRules("", None, LENGTH),
    )


def torch_encode(module: torch.nn.Module, encoder: Encoder, limit: int) -> Callable[[list[str]], object]:
    forward = torch_run(module)

    def encode(texts: list[str]) -> None:
        tokenized = encoder.tokenize_documents(texts)
        for run in padded_runs([len(text.ids) for text in tokenized], limit):
            output = forward(graph_inputs([tokenized[i] for i in run]))
            for row, i in enumerate(run):
                output[row, : len(tokenized[i].ids)][tokenized[i].keep]

    return encode


def take_turns(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def show_queries(queries: list[str], encoders: dict[str, Encoder], module: torch.nn.Module, rounds: int) -> None:
    """One query at a time, warm: p50 and p95 in milliseconds, whole and by step."""
    print(f"{'one query, ms':<44}{'p50':>10}{'p95':>10}   tokenize/run/post p50")
    systems = {
        "torch float32": (encoders["float32"], torch_run(module)),
        **{f"tansaku {name}": (encoder, ort_run(encoder)) for name, encoder in encoders.items()},
    }
    steps: dict[str, list[tuple[float, ...]]] = {name: [] for name in systems}
    for _ in range(rounds):
        for name, (encoder, run) in systems.items():
            for query in queries:
                marks = [time.perf_counter()]
                tokenized = encoder.tokenize_queries([query])
                marks.append(time.perf_counter())
                output = run(graph_inputs(tokenized))
                marks.append(time.perf_counter())
                output[0, : len(tokenized[0].ids)][tokenized[0].keep]
                marks.append(time.perf_counter())
                steps[name].append((*np.diff(marks), marks[-1] - marks[0]))
    whole = {name: np.percentile(np.array(values)[:, -1], [50, 95]) * 1e3 for name, values in steps.items()}
    for name, values in steps.items():
        parts = " / ".join(f"{v:.2f}" for v in np.median(np.array(values)[:, :3], axis=0) * 1e3)
        gain = whole["torch float32"][0] / whole[name][0]
        print(f"{name:<44}{whole[name][0]:>10.2f}{whole[name][1]:>10.2f}   {parts}   {gain:.2f}x torch")


def torch_run(module: torch.nn.Module) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    @torch.inference_mode()
    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        return module(*(torch.from_numpy(inputs[name]) for name in ("input_ids", "attention_mask"))).numpy()

    return run


def ort_run(encoder: Encoder) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    return lambda inputs: np.asarray(encoder._parts.session.run(None, inputs)[0])


def ceiling(threads: int) -> float:
    """int8 operations a second of one product that fits the cache, the best of many."""
    rows, inner, columns = 256 * threads, 1536, 1536
    weights = [
        numpy_helper.from_array(np.random.default_rng(0).integers(-64, 64, (inner, columns), dtype=np.int8), "w"),
        numpy_helper.from_array(np.array(1, np.float32), "a_scale"),
        numpy_helper.from_array(np.ones(columns, np.float32), "w_scale"),
        numpy_helper.from_array(np.array(128, np.uint8), "zero"),
    ]
    node = helper.make_node(
        "MatMulIntegerToFloat", ["a", "w", "a_scale", "w_scale", "zero"], ["o"], domain="com.microsoft"
    )
    a = helper.make_tensor_value_info("a", TensorProto.UINT8, ["rows", inner])
    o = helper.make_tensor_value_info("o", TensorProto.FLOAT, ["rows", columns])
    graph = helper.make_graph([node], "ceiling", [a], [o], weights)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = {"a": np.full((rows, inner), 7, np.uint8)}
    seconds = []
    for _ in range(60):
        started = time.perf_counter()
        session.run(None, values)
        seconds.append(time.perf_counter() - started)
    return 2 * rows * inner * columns / min(seconds)


def padded_runs(lengths: list[int], limit: int) -> Iterator[list[int]]:
    """Positions by length, as many together as ``limit`` tokens allow with their padding."""
    run: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if run and (len(run) + 1) * lengths[run[0]] > limit:
            yield run
            run = []
        run.append(i)
    if run:
        yield run


def write_sentence_transformer(checkpoint: Checkpoint, folder: Path) -> None:
    """The same backbone and tokenizer as sentence-transformers loads them; its vectors stay unprojected."""
    checkpoint.backbone.save_pretrained(folder)
    checkpoint.tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "model_max_length": LENGTH}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    settings = {"max_seq_length": LENGTH, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings), encoding="utf-8")


def peer_rates(
    options: argparse.Namespace, model: Path, texts: list[str], threads: int, tokens: int
) -> dict[str, float]:
    request = {"model": str(model), "texts": texts, "threads": threads, "rounds": options.rounds}
    command = [str(options.peer_python), str(PEER)]
    done = subprocess.run(
        command, input=json.dumps(request), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    return {f"{name} ({answer['versions']})": tokens / seconds for name, seconds in answer["seconds"].items()}


def show_start() -> None:
    """Seconds from starting Python to a loaded default encoder."""
    code = "from tansaku import Encoder; Encoder.load()"
    for label, program in (("nothing else", "pass"), ("import and load the default bundle", code)):
        seconds = []
        for _ in range(7):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            seconds.append(time.perf_counter() - started)
        print(f"start of Python, {label}: median {statistics.median(seconds):.2f} s")


def read(path: Path, count: int) -> list[str]:
    """``count`` texts spread evenly over the file."""
    lines = list(read_lines(path))
    step = max(1, len(lines) // count)
    return [json.loads(line)["text"] for line in lines[::step][:count]]


if __name__ == "__main__":
    main()
