"""Which layers and dimensions the first default model should keep, and how much of the vocabulary covers what.

    python -m benchmarks.quality.base_model --data ../shared/data

One int8 export for each number of layers, with all 384 principal components; fewer dimensions are the first ones of
these, brought to unit length again, as the projection would. Exhaustive MaxSim over uncompressed vectors, for the first
500 questions of each set.
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import date
from pathlib import Path

import numpy as np

from tansaku import Encoder, Source
from tansaku.indexer.read.documents import DocumentReader
from tansaku.onnx_export.convert.export import export_checkpoint
from tansaku.plugin.evaluation.judgements import judged_queries, read_qrels, read_queries
from tansaku.plugin.evaluation.measures import measure
from tansaku.training.default_model.base_model import CORPORA, base_checkpoint, kept_pieces, read_texts, sample_passages
from tansaku.training.default_model.e5_weights import packaged_weights, read_e5_weights
from tansaku.training.default_model.vocabulary import build_tokenizer, count_pieces, jis_kanji

from ..support.machine import cpu_name
from .quality import exhaustive_run

SETS = ("jsquad-valid", "niilc-qa")
QUERIES = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--layers", type=int, nargs="+", default=[11, 12])
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 96, 128])
    options = parser.parse_args()
    print(f"{date.today()}, {cpu_name()}")

    weights = read_e5_weights(packaged_weights())
    kept = kept_pieces(weights, options.data)
    show_coverage(weights, kept, options.data)
    passages = sample_passages(options.data)
    print(f"\n{'layers':>6}{'dim':>5}" + "".join(f"{name + ' ' + m:>22}" for name in SETS for m in ("hit@1", "hit@3")))
    for layers in options.layers:
        checkpoint = base_checkpoint(weights, kept, layers=layers, dim=weights.hidden, passages=passages)
        with tempfile.TemporaryDirectory() as folder:
            export_checkpoint(checkpoint, Path(folder) / "bundle")
            encoder = Encoder.load(Path(folder) / "bundle")
        encoded = {name: encode_set(options.data / name, encoder) for name in SETS}
        for dim in options.dims:
            cells = ""
            for ids, documents, queries, qrels in encoded.values():
                short_queries = {query_id: cut(vectors, dim) for query_id, vectors in queries.items()}
                run = exhaustive_run(ids, [cut(vectors, dim) for vectors in documents], short_queries)
                values = measure(run, qrels)
                cells += f"{values['hit@1']:>22.4f}{values['hit@3']:>22.4f}"
            print(f"{layers:>6}{dim:>5}{cells}", flush=True)


def show_coverage(weights, kept: np.ndarray, data: Path) -> None:  # noqa: ANN001
    tokenizer = build_tokenizer([weights.pieces[i] for i in kept], weights.scores[kept])
    whole = build_tokenizer(weights.pieces, weights.scores)
    print(f"\n{len(kept):,} of {len(weights.pieces):,} pieces kept")
    for name in (*CORPORA, "jsquad-valid", "niilc-qa"):
        counts, before = (count_pieces(t, read_texts(data / name)) for t in (tokenizer, whole))
        unknown, unknown_before = counts[tokenizer.token_to_id("<unk>")], before[weights.unk_id]
        print(
            f"{name:<14}{counts.sum():>12,} tokens ({counts.sum() / before.sum() - 1:+.3%} against the whole), "
            f"unknown {unknown / counts.sum():.4%} (whole: {unknown_before / before.sum():.4%})"
        )
    kept_characters = {weights.pieces[i] for i in kept}
    known = set(weights.pieces)
    for name, codec in (("JIS X 0208", "iso2022_jp"), ("JIS X 0213", "shift_jis_2004")):
        kanji = jis_kanji(codec)
        in_base, in_kept = sum(k in known for k in kanji), sum(k in kept_characters for k in kanji)
        print(f"{name}: {len(kanji):,} kanji, {in_base:,} of them in the base vocabulary, {in_kept:,} kept")


def encode_set(folder: Path, encoder: Encoder):  # noqa: ANN201
    documents = list(DocumentReader(Source(folder / "corpus.jsonl")))
    qrels = read_qrels(folder / "qrels" / "dev.tsv")
    queries = judged_queries(read_queries(folder / "queries.jsonl"), qrels)
    queries = dict(list(queries.items())[:QUERIES])
    vectors = encoder.encode_documents([document.encoded_text for document in documents])
    query_vectors = dict(zip(queries, encoder.encode_queries(list(queries.values())), strict=True))
    return [d.id for d in documents], vectors, query_vectors, {query_id: qrels[query_id] for query_id in queries}


def cut(vectors: np.ndarray, dim: int) -> np.ndarray:
    short = vectors[:, :dim]
    return np.ascontiguousarray(short / np.linalg.norm(short, axis=1, keepdims=True))


if __name__ == "__main__":
    main()
