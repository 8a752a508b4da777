"""Tiny random checkpoints of every backbone with every kind of tokenizer, in PyLate's format, and a cross-encoder."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from . import checkpoints

HIDDEN, POSITIONS = checkpoints.HIDDEN, 80
SMALL: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.3,  # enough for attention to tell tokens apart
    "pad_token_id": 0,
}
# These count positions from the padding token's id on.
AFTER_PADDING = {**SMALL, "max_position_embeddings": POSITIONS + 2, "pad_token_id": 1}
DISENTANGLED = {"relative_attention": True, "position_buckets": 16, "pos_att_type": ["p2c", "c2p"]}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": SMALL,
    "camembert": AFTER_PADDING,
    "deberta-v2": {**SMALL, **DISENTANGLED, "norm_rel_ebd": "layer_norm", "share_att_key": True},
    "distilbert": {"dim": HIDDEN, "n_layers": 1, "n_heads": 2, "hidden_dim": 64, "initializer_range": 0.3}
    | {"max_position_embeddings": POSITIONS},
    "electra": {**SMALL, "embedding_size": 24},
    # One layer with global attention, one with local: 32 tokens to each side, so that all masks see the text.
    "modernbert": {**SMALL, "num_hidden_layers": 2, "global_attn_every_n_layers": 2, "local_attention": 64},
    "mpnet": AFTER_PADDING,
    "roberta": AFTER_PADDING,
    "xlm-roberta": AFTER_PADDING,
}
SPECIAL = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
MARKERS = ("[Q] ", "[D] ")


@lru_cache
def _corpus() -> tuple[str, ...]:
    with checkpoints.CORPUS.open(encoding="utf-8") as lines:
        return tuple(json.loads(line)["text"] for line in lines)


@lru_cache
def unigram() -> str:
    """tokenizer.json of the kind of XLM-R, whose class transformers 5 builds anew when it reads one."""
    tokenizer = Tokenizer(models.Unigram())
    pieces = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pieces])
    tokenizer.decoder = decoders.Metaspace()
    trainer: Any = trainers.UnigramTrainer(
        vocab_size=3000,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        unk_token="<unk>",  # noqa: S106
        show_progress=False,
    )
    return _finished(tokenizer, trainer)


@lru_cache
def bpe() -> str:
    """tokenizer.json of the kind of ModernBERT: BPE over bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    return _finished(tokenizer, trainer)


def _finished(tokenizer: Tokenizer, trainer: Any) -> str:
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", special=True)])
    tokenizer.add_tokens([AddedToken(marker, normalized=False) for marker in MARKERS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer.to_str()


# The class that each is published with. Transformers 5 writes TokenizersBackend, which transformers 4 does not know.
FAST: dict[str, tuple[Callable[[], str], dict[str, Any]]] = {
    "unigram": (unigram, {"tokenizer_class": "XLMRobertaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}),
    "bpe": (bpe, {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", "extra_special_tokens": ["<mask>"]}),
}
TOKENIZERS = ("japanese", "bert", *FAST)


def make(folder: Path, kind: str = "bert", tokenizer: str = "japanese", **options: Any) -> Path:
    """A checkpoint in PyLate's format.

    Args:
        folder: the folder to make.
        kind: a backbone of `CONFIGS`.
        tokenizer: one of `TOKENIZERS`.
        options: those of `checkpoints.pylate`.
    """
    plain = tokenizer if tokenizer not in FAST else "bert"
    lengths = {"query_length": 32, "document_length": 64}
    markers = MARKERS if tokenizer in FAST else ("[unused0]", "[unused1]")
    config = {"query_prefix": markers[0], "document_prefix": markers[1], **lengths, **options.pop("config", {})}
    checkpoints.pylate(folder, tokenizer=plain, config=config, **options)
    if tokenizer in FAST:
        for name in ("vocab.txt", "special_tokens_map.json"):
            (folder / name).unlink(missing_ok=True)
        written, settings = FAST[tokenizer]
        (folder / "tokenizer.json").write_text(written(), encoding="utf-8")
        content = {**SPECIAL, "model_max_length": 512, **settings}
        (folder / "tokenizer_config.json").write_text(json.dumps(content), encoding="utf-8")
        rows = Tokenizer.from_str(written()).get_vocab_size()
    else:
        rows = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    backbone(kind, rows).save_pretrained(folder)
    return folder


def backbone(kind: str, rows: int) -> Any:
    """A random encoder with so many tokens, the same one every time."""
    torch.manual_seed(17)
    special = {"bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
    config = AutoConfig.for_model(kind, vocab_size=rows, **{**special, **CONFIGS[kind]})
    return _stirred(AutoModel.from_config(config, attn_implementation="eager"))


def cross_encoder(folder: Path) -> Path:
    """A random BERT with one output for a pair of texts, as sentence-transformers reads it."""
    checkpoints.stanford(folder, tokenizer="bert")
    (folder / "artifact.metadata").unlink()
    torch.manual_seed(17)
    config = AutoConfig.for_model("bert", vocab_size=len(checkpoints.pieces()), num_labels=1, **CONFIGS["bert"])
    model = _stirred(AutoModelForSequenceClassification.from_config(config))
    model.classifier.weight.data *= 10.0  # its logits leave the range of probabilities
    model.save_pretrained(folder)
    return folder


def _stirred(model: Any) -> Any:
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)  # biases are zero and gains are one otherwise
    return model.eval()
