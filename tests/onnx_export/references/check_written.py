"""What tansaku writes, loaded by the libraries whose formats it is: the same token ids, kept rows and vectors.

    python tests/onnx_export/references/check_written.py write FOLDER                            # with tansaku
    python tests/onnx_export/references/check_written.py pylate|colbert|sentence-transformers FOLDER OUT.json

The first writes models of several backbones and tokenizers in both formats, and what tansaku makes of some sentences
with them. The second compares, in that library's own environment (README.md here says how to make it).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[3]))

# Backbone and tokenizer, as they are published together.
KINDS = [
    ("bert", "japanese"),
    ("bert", "bert"),
    ("modernbert", "bpe"),
    ("xlm-roberta", "unigram"),
    ("distilbert", "bert"),
    ("deberta-v2", "unigram"),
    ("electra", "japanese"),
    ("roberta", "bpe"),
    ("camembert", "unigram"),
    ("mpnet", "bert"),
]
# Which formats a library loads.
LOADS = {"colbert": ["stanford"], "pylate": ["pylate", "stanford"], "sentence-transformers": ["pylate", "stanford"]}
_SKIPLIST = (
    "Stanford's format says punctuation or none; PyLate's list for this vocabulary is another, kept by tansaku only"
)
_MARKER = "it writes Stanford's markers as text with a space behind, and these markers have a space of their own"
DIFFERENT = {
    **{
        (library, f"{name}/stanford"): _SKIPLIST
        for library in ("colbert", "sentence-transformers")
        for name in ("xlm-roberta-unigram", "deberta-v2-unigram", "camembert-unigram")
    },
    **{("sentence-transformers", f"{name}/stanford"): _MARKER for name in ("modernbert-bpe", "roberta-bpe")},
}
# Sums run in another order, and in other kernels of attention.
TOLERANCE = 2e-5
SENTENCES = 25


def write(folder: Path) -> None:
    """Write models in both formats, and the sentences as tansaku encodes them."""
    import torch

    from tansaku import load_checkpoint
    from tansaku.onnx_export.convert.sentences import sentences
    from tansaku.onnx_export.convert.trace import token_vectors_module
    from tansaku.onnx_export.encode.encoder import graph_inputs
    from tansaku.onnx_export.encode.segmenter import load_segmenter
    from tansaku.onnx_export.encode.tokenize import TextTokenizer
    from tansaku.training.run.saving import save_model
    from tests.support import backbones

    texts = sentences()[:: len(sentences()) // SENTENCES]
    (folder / "texts.json").parent.mkdir(parents=True)
    (folder / "texts.json").write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    for kind, tokenizer in KINDS:
        place = folder / f"{kind}-{tokenizer}"
        checkpoint = load_checkpoint(backbones.make(place / "source", kind, tokenizer))
        arrays: dict[str, Any] = {}
        segmenter = load_segmenter(checkpoint.segmenter, checkpoint.tokenizer)
        for role, rules in (("query", checkpoint.query), ("document", checkpoint.document)):
            rows = TextTokenizer(checkpoint.tokenizer, rules, segmenter)(texts)
            with torch.inference_mode():
                output = token_vectors_module(checkpoint)(*map(torch.from_numpy, graph_inputs(rows).values())).numpy()
            for number, row in enumerate(rows):
                arrays[f"{role}/{number}/ids"] = row.ids
                arrays[f"{role}/{number}/kept"] = row.keep
                arrays[f"{role}/{number}/vectors"] = output[number, : len(row.ids)][row.keep]
        np.savez(place / "expected.npz", **arrays)
        for form in ("stanford", "pylate"):
            save_model(checkpoint, place / form, form)


def check(library: str, folder: Path, out: Path) -> None:
    """Load each model with a library, and write down how far its ids and vectors are from tansaku's."""
    import torch
    from make_golden import ENCODERS, versions  # pyright: ignore[reportMissingImports] (beside this file)

    torch.set_num_threads(1)
    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    for kind, tokenizer in KINDS:
        place = folder / f"{kind}-{tokenizer}"
        with np.load(place / "expected.npz") as expected:
            for form in LOADS[library]:
                try:
                    encoded = ENCODERS[library](str(place / form), texts, {})
                except Exception as error:  # whatever the library raises is the result
                    found[f"{place.name}/{form}"] = f"{type(error).__name__}: {str(error).splitlines()[:1]}"
                    continue
                found[f"{place.name}/{form}"] = compare(encoded, expected)
                print(place.name, form, found[f"{place.name}/{form}"], flush=True)  # noqa: T201
    different = {name: why for (of, name), why in DIFFERENT.items() if of == library}
    result = {"versions": versions(library), "models": found, "different": different}
    out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    faults = [name for name, seen in found.items() if not (isinstance(seen, dict) and fits(seen))]
    if set(faults) != set(different):
        sys.exit(f"{library} differs in {', '.join(faults)}; expected: {', '.join(different)}")


def fits(seen: dict[str, float]) -> bool:
    """Whether a model was read as tansaku reads it."""
    return seen["equal_ids"] == seen["equal_kept"] == seen["texts"] and seen["max_difference"] <= TOLERANCE


def compare(encoded: dict[str, Any], expected: Any) -> dict[str, float]:
    """How many texts have the same ids and kept rows, and the largest difference of a vector of those."""
    equal_ids = equal_kept = texts = 0
    largest = 0.0
    for role, rows in encoded.items():
        for number, row in enumerate(rows):
            ids, kept, vectors = (expected[f"{role}/{number}/{part}"] for part in ("ids", "kept", "vectors"))
            texts += 1
            same_ids = row.ids.tolist() == ids.tolist()
            same_kept = same_ids and row.kept.tolist() == kept.tolist()
            equal_ids += same_ids
            equal_kept += same_kept
            if same_kept:
                largest = max(largest, float(np.abs(row.vectors - vectors).max()))
    return {"texts": texts, "equal_ids": equal_ids, "equal_kept": equal_kept, "max_difference": round(largest, 8)}


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        check(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
