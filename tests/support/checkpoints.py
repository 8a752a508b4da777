"""Tiny ColBERT checkpoints with random weights, in every published file format.

Each maker writes one folder and returns its path:

- ``stanford``: what colbert-ai saves; JaColBERT and colbertv2.0 are published so.
- ``pylate``: what PyLate up to 3.0 saves on top of sentence-transformers 5.
- ``multi_vector_encoder``: what sentence-transformers 6 saves for a ``MultiVectorEncoder``.

Files are written by hand and numbers come from NumPy alone, so that one call gives the same checkpoint in every
reference's environment (see ``references/``). A tensor depends on the seed, its name and its shape only: formats and
options made with one seed share their backbone, and pieces added to a vocabulary get further rows.

Options that override a JSON file take a dict; the value ``ABSENT`` removes the key. ``make`` takes all options as JSON.
"""

from __future__ import annotations

import json
import re
import string
import unicodedata
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

HIDDEN, LAYERS, INTERMEDIATE, POSITIONS, DIM = 32, 2, 64, 512, 16
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
UNUSED = [f"[unused{i}]" for i in range(10)]
PREFIXES = ("[Q] ", "[D] ")
CORPUS = Path(__file__).parents[2] / "plugin" / "sample" / "corpus.jsonl"
PUNCTUATION = list(string.punctuation)
# Left out of the vocabulary by `missing_punctuation`.
RARE_PUNCTUATION = "^`~|\\"
ENGLISH = """a an and are as at be by capital city for from has in is it japan known most of on or river search that the
    these this time to token tokyo was what where which with world year the The What Japan Tokyo
    ##ed ##er ##es ##ing ##ion ##ly ##s ##al ##in ##on ##en""".split()
ABSENT = "<absent>"

# config.json of a BERT, but for `architectures` and `vocab_size`
BERT = json.loads("""{
    "model_type": "bert", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 512, "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
    "attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1, "classifier_dropout": null, "pad_token_id": 0,
    "initializer_range": 0.02, "position_embedding_type": "absolute", "torch_dtype": "float32", "use_cache": true
}""")

# artifact.metadata as JaColBERTv2.4 has it, but for `dim`
METADATA = json.loads("""{
    "query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_token": "[質問s]", "doc_token": "[文書]",
    "ncells": null, "centroid_score_threshold": null, "ndocs": null, "nbits": 2, "similarity": "cosine", "bsize": 16,
    "lr": 3e-05, "nway": 32, "query_maxlen": 32, "attend_to_mask_tokens": false, "interaction": "colbert",
    "cap_padding": 0, "dim": 16, "doc_maxlen": 300, "mask_punctuation": true, "checkpoint": "bclavie/JaColBERT"
}""")

# config_sentence_transformers.json of PyLate, but for `skiplist_words`
PYLATE = json.loads("""{
    "model_type": "ColBERT",
    "__version__": {"sentence_transformers": "5.3.0", "transformers": "5.3.0", "pytorch": "2.13.0"},
    "prompts": {"query": "", "document": ""}, "default_prompt_name": null, "similarity_fn_name": "MaxSim",
    "query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": 32, "document_length": 180,
    "attend_to_expansion_tokens": false, "do_query_expansion": true
}""")

# tokenizer_config.json of each kind, but for the special tokens
TOKENIZERS = json.loads("""{
    "japanese": {
        "tokenizer_class": "BertJapaneseTokenizer", "model_max_length": 512, "do_lower_case": false,
        "do_word_tokenize": true, "do_subword_tokenize": true, "word_tokenizer_type": "mecab",
        "subword_tokenizer_type": "wordpiece", "never_split": null, "mecab_kwargs": {"mecab_dic": "unidic_lite"},
        "sudachi_kwargs": null, "jumanpp_kwargs": null
    },
    "bert": {
        "tokenizer_class": "BertTokenizer", "model_max_length": 512, "do_lower_case": true, "strip_accents": null,
        "tokenize_chinese_chars": true
    }
}""")

# tokenizer.json, but for the tokens
TOKENIZER_JSON = json.loads("""{
    "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
    "normalizer": {
        "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
        "lowercase": true
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "[SEP]", "type_id": 0}}
        ],
        "pair": [
            {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
            {"SpecialToken": {"id": "[SEP]", "type_id": 1}}
        ],
        "special_tokens": {
            "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
            "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}
        }
    },
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
    "model": {
        "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100
    }
}""")


# Vocabulary and tokenizer files


@lru_cache
def pieces(missing_punctuation: bool = False) -> tuple[str, ...]:
    """The vocabulary: special tokens, single characters whole and as continuations, frequent runs of the corpus."""
    with CORPUS.open(encoding="utf-8") as lines:
        text = unicodedata.normalize("NFKC", "\n".join(json.loads(line)["text"] for line in lines))
    ascii_characters = [chr(code) for code in range(0x21, 0x7F)]
    characters = ascii_characters + sorted({c for c in text if not c.isspace()} - set(ascii_characters))
    if missing_punctuation:
        characters = [c for c in characters if c not in RARE_PUNCTUATION]
    words = Counter(re.findall(r"[一-龯々]{2,4}|[ァ-ヴー]{2,8}|[A-Za-z]{2,10}", text))
    pairs = Counter(re.findall(r"(?=([ぁ-ん]{2}))", text))
    ordered = [
        *SPECIAL.values(),
        *UNUSED,
        *characters,
        *("##" + c for c in characters),
        *sorted(word for word, count in words.items() if count >= 3),
        *(form for pair, count in sorted(pairs.items()) if count >= 20 for form in (pair, "##" + pair)),
        *ENGLISH,
    ]
    return tuple(dict.fromkeys(ordered))


def _added(content: str, special: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    return {"content": content, **flags, "normalized": not special, "special": special}


def _write_tokenizer(
    folder: Path,
    kind: str,
    vocabulary: Sequence[str],
    *,
    added: Mapping[str, bool] | None = None,
    pad: str = "[PAD]",
    transformers: int = 4,
) -> None:
    """Write the files that transformers 4 or 5 writes. ``added`` says of each further token whether it is special."""
    known = {piece: index for index, piece in enumerate(vocabulary)}
    special = {**SPECIAL, "pad_token": pad}
    config: dict[str, Any] = {**TOKENIZERS[kind], **special}
    added = added or {}
    new = [token for token in added if token not in known]
    known |= {token: len(vocabulary) + number for number, token in enumerate(new)}
    entries = {known[token]: _added(token, True) for token in SPECIAL.values()}
    entries |= {known[token]: _added(token, is_special) for token, is_special in added.items()}
    if transformers == 5 and any(added.values()):
        config["extra_special_tokens"] = [token for token, is_special in added.items() if is_special]
    if kind == "bert":
        tokens = [{"id": index, **entry} for index, entry in sorted(entries.items())]
        model = {**TOKENIZER_JSON["model"], "vocab": {piece: index for index, piece in enumerate(vocabulary)}}
        _write_json(folder / "tokenizer.json", {**TOKENIZER_JSON, "added_tokens": tokens, "model": model})
    if kind == "japanese" or transformers == 4:
        (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in vocabulary), encoding="utf-8")
        config["added_tokens_decoder"] = {str(index): entry for index, entry in sorted(entries.items())}
    if kind == "japanese" and new:
        _write_json(folder / "added_tokens.json", {token: known[token] for token in new})
    if transformers == 4:
        _write_json(folder / "special_tokens_map.json", special)
    _write_json(folder / "tokenizer_config.json", config)


# Weights


def _normal(seed: int, name: str, *shape: int, scale: float) -> np.ndarray:
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return (generator.standard_normal(shape) * scale).astype(np.float32)


def backbone(rows: int, *, seed: int = 0, old_norm_names: bool = False) -> dict[str, np.ndarray]:
    """The tensors of a BERT whose vocabulary has ``rows`` entries, without a prefix."""
    shapes: dict[str, tuple[int, int]] = {"pooler.dense": (HIDDEN, HIDDEN)}
    norms = ["embeddings.LayerNorm"]
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        shapes |= {f"{at}attention.self.{part}": (HIDDEN, HIDDEN) for part in ("query", "key", "value")}
        shapes[f"{at}attention.output.dense"] = (HIDDEN, HIDDEN)
        shapes[f"{at}intermediate.dense"] = (INTERMEDIATE, HIDDEN)
        shapes[f"{at}output.dense"] = (HIDDEN, INTERMEDIATE)
        norms += [f"{at}attention.output.LayerNorm", f"{at}output.LayerNorm"]

    tensors = {}
    for part, size, scale in (("word", rows, 0.5), ("position", POSITIONS, 0.15), ("token_type", 2, 0.1)):
        name = f"embeddings.{part}_embeddings.weight"
        tensors[name] = _normal(seed, name, size, HIDDEN, scale=scale)
    for name, shape in shapes.items():
        # What a layer adds is about as large as what it gets, so that tokens of one text stay apart.
        scale = 0.12 if name.endswith("output.dense") else 0.3
        tensors[f"{name}.weight"] = _normal(seed, f"{name}.weight", *shape, scale=scale)
        tensors[f"{name}.bias"] = _normal(seed, f"{name}.bias", shape[0], scale=0.1)
    gain, shift = ("gamma", "beta") if old_norm_names else ("weight", "bias")
    for name in norms:
        tensors[f"{name}.{gain}"] = 1 + _normal(seed, f"{name}.weight", HIDDEN, scale=0.1)
        tensors[f"{name}.{shift}"] = _normal(seed, f"{name}.bias", HIDDEN, scale=0.1)
    return tensors


@dataclass(frozen=True)
class Layer:
    """One dense layer after the backbone, as ``modules.json`` lists them."""

    out: int = DIM
    bias: bool = False
    activation: str = "torch.nn.modules.linear.Identity"
    residual: bool = False


def _write_layer(folder: Path, layer: Layer, width: int, *, seed: int, safetensors: bool, config: Mapping) -> None:
    folder.mkdir()
    # The first layer of any format has the weight of the Stanford projection.
    name = "linear" if folder.name == "1_Dense" else folder.name
    tensors = {"linear.weight": _normal(seed, f"{name}.weight", layer.out, width, scale=0.3)}
    if layer.bias:
        tensors["linear.bias"] = _normal(seed, f"{name}.bias", layer.out, scale=0.3)
    if layer.residual and layer.out != width:
        tensors["residual.weight"] = _normal(seed, f"{name}.residual", layer.out, width, scale=0.3)
    _save_tensors(folder, tensors, safetensors)
    values = {"in_features": width, "out_features": layer.out, "bias": layer.bias}
    _write_json(folder / "config.json", {**values, "activation_function": layer.activation, **config})


def _save_tensors(folder: Path, tensors: Mapping[str, np.ndarray], safetensors: bool = True) -> None:
    if safetensors:
        save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
        return
    import torch

    state = {name: torch.from_numpy(value) for name, value in tensors.items()}
    for name in tensors:
        if name.endswith("position_embeddings.weight"):  # files of that age hold this buffer
            state[name.replace("position_embeddings.weight", "position_ids")] = torch.arange(POSITIONS)[None]
    torch.save(state, folder / "pytorch_model.bin")


# The folder's other files


def _write_json(path: Path, values: Any) -> None:
    if isinstance(values, dict):
        values = {key: value for key, value in values.items() if value != ABSENT}
    path.write_text(json.dumps(values, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _bert_config(rows: int, architectures: Sequence[str] | None, overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    chosen = ABSENT if architectures is None else list(architectures)
    return {**BERT, "architectures": chosen, "vocab_size": rows, **(overrides or {})}


def _write_modules(folder: Path, types: Sequence[str]) -> None:
    """``modules.json``: the first module lies at the root, the others in folders named after their class."""
    paths = ["", *(f"{number}_{name.rsplit('.', 1)[1]}" for number, name in enumerate(types) if number)]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": name}
        for number, (path, name) in enumerate(zip(paths, types, strict=True))
    ]
    _write_json(folder / "modules.json", modules)


def _new_folder(folder: Path | str) -> Path:
    folder = Path(folder)
    folder.mkdir(parents=True)
    return folder


# The three formats


def stanford(
    folder: Path | str,
    *,
    tokenizer: str = "japanese",
    architectures: Sequence[str] | None = ("BertModel",),
    metadata: Mapping[str, Any] | None = None,
    nested_metadata: bool = False,
    safetensors: bool = True,
    missing_punctuation: bool = False,
    old_norm_names: bool = False,
    config: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """The format of colbert-ai, with JaColBERTv2.4's settings; ``config`` overrides ``config.json``."""
    folder = _new_folder(folder)
    vocabulary = pieces(missing_punctuation)
    values = {**METADATA, **(metadata or {})}
    values = {key: value for key, value in values.items() if value != ABSENT}
    _write_json(folder / "artifact.metadata", {"config": values} if nested_metadata else values)
    _write_json(folder / "config.json", _bert_config(len(vocabulary), architectures, config))
    _write_tokenizer(folder, tokenizer, vocabulary)
    tensors = backbone(len(vocabulary), seed=seed, old_norm_names=old_norm_names)
    tensors = {f"bert.{name}": value for name, value in tensors.items()}
    tensors["linear.weight"] = _normal(seed, "linear.weight", DIM, HIDDEN, scale=0.3)
    _save_tensors(folder, tensors, safetensors)
    return folder


def pylate(
    folder: Path | str,
    *,
    tokenizer: str = "japanese",
    config: Mapping[str, Any] | None = None,
    dense: Sequence[Layer] = (Layer(),),
    transformers: int = 5,
    safetensors: bool = True,
    missing_punctuation: bool = False,
    old_norm_names: bool = False,
    seed: int = 0,
) -> Path:
    """PyLate's format; ``config`` overrides ``config_sentence_transformers.json``.

    The prefixes of ``config`` become added tokens, as in PyLate's own saves, and [MASK] is the padding token.
    """
    folder = _new_folder(folder)
    vocabulary = pieces(missing_punctuation)
    values = {**PYLATE, "skiplist_words": PUNCTUATION, **(config or {})}
    _write_json(folder / "config_sentence_transformers.json", values)
    chosen = [values["query_prefix"], values["document_prefix"]]
    prefixes = [default if p == ABSENT else p for p, default in zip(chosen, PREFIXES, strict=True)]
    added = {prefix: False for prefix in prefixes if prefix}
    rows = len(vocabulary) + len(added.keys() - set(vocabulary))
    _write_tokenizer(folder, tokenizer, vocabulary, added=added, pad="[MASK]", transformers=transformers)
    _write_json(folder / "config.json", _bert_config(rows, ("BertModel",), None))
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": POSITIONS, "do_lower_case": False})
    _save_tensors(folder, backbone(rows, seed=seed, old_norm_names=old_norm_names), safetensors)
    _write_modules(folder, ["sentence_transformers.models.Transformer", *["pylate.models.Dense.Dense"] * len(dense)])
    width = HIDDEN
    for number, layer in enumerate(dense, start=1):
        extra = {"use_residual": layer.residual}
        _write_layer(folder / f"{number}_Dense", layer, width, seed=seed, safetensors=safetensors, config=extra)
        width = layer.out
    return folder


def multi_vector_encoder(
    folder: Path | str,
    *,
    tokenizer: str = "japanese",
    markers: str = "unused",
    prompts: Mapping[str, str | None] | None = None,
    query_expansion: Mapping[str, Any] | None = None,
    transformer: Mapping[str, Any] | None = None,
    mask: Mapping[str, Any] | None = None,
    dense: Sequence[Layer] = (Layer(),),
    normalize: bool = True,
    missing_punctuation: bool = False,
    seed: int = 0,
) -> Path:
    """sentence-transformers 6. ``query_expansion`` needs strategy and length; None adds no mask tokens.

    ``markers`` says where the model came from: "unused" from a Stanford checkpoint ([unused0] and [unused1] are special
    tokens), "added" from a PyLate one ("[Q] " and "[D] " are added tokens), "none" from a plain BERT. ``prompts``
    replaces the prompts of that origin; ``transformer`` and ``mask`` override the configs of those two modules.
    """
    folder = _new_folder(folder)
    vocabulary = pieces(missing_punctuation)
    texts = {"unused": (f"{UNUSED[0]} ", f"{UNUSED[1]} "), "added": PREFIXES, "none": (None, None)}[markers]
    added = {"unused": dict.fromkeys(UNUSED[:2], True), "added": dict.fromkeys(PREFIXES, tokenizer == "bert")}
    rows = len(vocabulary) + (len(PREFIXES) if markers == "added" else 0)
    pad = "[MASK]" if markers == "added" else "[PAD]"
    _write_tokenizer(folder, tokenizer, vocabulary, added=added.get(markers), pad=pad, transformers=5)
    _write_json(folder / "config.json", _bert_config(rows, ("BertModel",), None))
    _save_tensors(folder, backbone(rows, seed=seed))
    values = {
        "model_type": "MultiVectorEncoder",
        "__version__": {"sentence_transformers": "6.2.0", "transformers": "5.23.0", "pytorch": "2.13.0"},
        "prompts": dict(prompts) if prompts is not None else {"query": texts[0], "document": texts[1]},
        "default_prompt_name": None,
        "similarity_fn_name": None,
    }
    _write_json(folder / "config_sentence_transformers.json", values)
    expansion = query_expansion and {"attend": False, "token": None, **query_expansion}
    values = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "module_output_name": "token_embeddings",
        "document_length": 180,
        "query_expansion": expansion or ABSENT,
        **(transformer or {}),
    }
    _write_json(folder / "sentence_bert_config.json", values)

    names = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
    width = HIDDEN
    for number, layer in enumerate(dense, start=1):
        extra = {**names, **({"use_residual": True} if layer.residual else {})}
        _write_layer(folder / f"{number}_Dense", layer, width, seed=seed, safetensors=True, config=extra)
        width = layer.out
    number = len(dense) + 1
    masking = {"skiplist_words": PUNCTUATION, "skiplist_tasks": ["document"], "keep_only_token_ids": None}
    (folder / f"{number}_MultiVectorMask").mkdir()
    _write_json(folder / f"{number}_MultiVectorMask" / "config.json", {**masking, **(mask or {})})
    if normalize:
        (folder / f"{number + 1}_Normalize").mkdir()
        _write_json(folder / f"{number + 1}_Normalize" / "config.json", names)
    here = "sentence_transformers."
    types = [
        f"{here}base.modules.transformer.Transformer",
        *[f"{here}base.modules.dense.Dense"] * len(dense),
        f"{here}multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
        *[f"{here}base.modules.normalize.Normalize"] * normalize,
    ]
    _write_modules(folder, types)
    return folder


def make(folder: Path | str, maker: str, options: Mapping[str, Any]) -> Path:
    """Call the maker of that name with options that were JSON: dense layers are dicts there."""
    layers = {"dense": [Layer(**layer) for layer in options["dense"]]} if "dense" in options else {}
    makers = {"stanford": stanford, "pylate": pylate, "multi_vector_encoder": multi_vector_encoder}
    return makers[maker](folder, **{**options, **layers})
