"""What int8 costs the model inside: parity and ranking against float32, and which parts would be better left in float.

    python -m benchmarks.encode.int8 --data ../shared/data [--set jsquad-valid --set jaquad]

Needs the extra `base-model`. The checkpoint is built as for the bundle. First table: mean and smallest cosine with
torch, and size, where one kind of weight stays in float32. Then exhaustive MaxSim at both precisions over the same
texts; of a large corpus the judged documents and others spread evenly.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Collection
from datetime import date
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tansaku import Encoder, Source
from tansaku.indexer.read.documents import DocumentReader
from tansaku.onnx_export.convert.checkpoint import Checkpoint
from tansaku.onnx_export.convert.export import export_checkpoint
from tansaku.onnx_export.convert.parity import measure_parity
from tansaku.onnx_export.convert.quantize import quantize
from tansaku.onnx_export.convert.trace import token_vectors_module
from tansaku.plugin.evaluation.judgements import judged_queries, read_qrels, read_queries
from tansaku.plugin.evaluation.measures import measure
from tansaku.training.default_model.base_model import DIM, LAYERS, base_checkpoint, kept_pieces, sample_passages
from tansaku.training.default_model.e5_weights import packaged_weights, read_e5_weights

from ..quality.quality import exhaustive_run
from ..support.machine import cpu_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", dest="sets", action="append")
    parser.add_argument("--documents", type=int, default=4000)
    parser.add_argument("--queries", type=int, default=1000)
    options = parser.parse_args()
    print(f"{date.today()}, {cpu_name()}")
    weights = read_e5_weights(packaged_weights())
    kept = kept_pieces(weights, options.data)
    checkpoint = base_checkpoint(weights, kept, layers=LAYERS, dim=DIM, passages=sample_passages(options.data))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for precision in ("float32", "int8"):
            export_checkpoint(checkpoint, folder / precision, precision=precision)
        show_parts(checkpoint, folder)
        encoders = {precision: Encoder.load(folder / precision) for precision in ("float32", "int8")}
        for set_name in options.sets or ("jsquad-valid", "jaquad"):
            show_ranking(options.data / set_name, encoders, options)


def show_parts(checkpoint: Checkpoint, folder: Path) -> None:
    model = onnx.load(folder / "float32" / "model.onnx")
    module = token_vectors_module(checkpoint)
    print(f"\n{'left in float32':<32}{'mean cosine':>12}{'smallest':>10}{'MB':>8}")
    for part, names in {"nothing": [], **parts(model, checkpoint)}.items():
        path = folder / "part.onnx"
        onnx.save(quantize(with_constants(model, names)), path)
        parity = measure_parity(path, module, checkpoint)
        size = path.stat().st_size / 1e6
        print(f"{part:<32}{parity['mean_cosine']:>12.5f}{parity['min_cosine']:>10.4f}{size:>8.1f}", flush=True)


def with_constants(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """A copy whose weights ``names`` are Constant nodes, which `quantize` leaves in float32."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    weights = list(changed.graph.initializer)
    nodes = [helper.make_node("Constant", [], [w.name], value=w) for w in weights if w.name in names]
    nodes += list(changed.graph.node)
    del changed.graph.initializer[:], changed.graph.node[:]
    changed.graph.initializer.extend(w for w in weights if w.name not in names)
    changed.graph.node.extend(nodes)
    return changed


def parts(model: onnx.ModelProto, checkpoint: Checkpoint) -> dict[str, list[str]]:
    """Names of the weights of each kind, told by their shapes."""
    hidden, dim = checkpoint.backbone.config.hidden_size, checkpoint.dim
    shapes = {
        "attention products": (hidden, hidden),
        "feed-forward, first product": (hidden, 4 * hidden),
        "feed-forward, second product": (4 * hidden, hidden),
        "projection": (hidden, dim),
    }
    found = {part: [] for part in (*shapes, "embeddings")}
    for tensor in model.graph.initializer:
        shape = numpy_helper.to_array(tensor).shape
        for part, expected in shapes.items():
            if shape == expected:
                found[part].append(tensor.name)
        if len(shape) == 2 and shape[1] == hidden and shape[0] > 4 * hidden:
            found["embeddings"].append(tensor.name)
    return found


def show_ranking(folder: Path, encoders: dict[str, Encoder], options: argparse.Namespace) -> None:
    qrels = read_qrels(folder / "qrels" / "dev.tsv")
    queries = judged_queries(read_queries(folder / "queries.jsonl"), qrels)
    chosen = spread(list(queries), options.queries)
    queries = {query_id: queries[query_id] for query_id in chosen}
    qrels = {query_id: qrels[query_id] for query_id in chosen}
    judged = {document_id for judgements in qrels.values() for document_id in judgements}
    every = list(DocumentReader(Source(folder / "corpus.jsonl")))
    others = spread([d for d in every if d.id not in judged], options.documents - len(judged))
    documents = [d for d in every if d.id in judged] + others
    print(f"\n{folder.name} dev: {len(documents):,} documents, {len(queries):,} queries")
    vectors: dict[str, list[np.ndarray]] = {}
    for precision, encoder in encoders.items():
        vectors[precision] = encoder.encode_documents([document.encoded_text for document in documents])
        asked = dict(zip(queries, encoder.encode_queries(list(queries.values())), strict=True))
        values = measure(exhaustive_run([d.id for d in documents], vectors[precision], asked), qrels)
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        print(f"{precision:<8} {metrics}", flush=True)
    sums = [(a * b).sum(axis=1) for a, b in zip(*vectors.values(), strict=True)]
    cosines = np.concatenate(sums)
    print(
        f"cosine of int8 with float32 over {len(cosines):,} vectors: mean {cosines.mean():.5f}, min {cosines.min():.4f}"
    )


def spread(items: list, count: int) -> list:
    """``count`` of ``items``, evenly spaced, or all."""
    if count >= len(items):
        return items
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, max(count, 0))]


if __name__ == "__main__":
    main()
