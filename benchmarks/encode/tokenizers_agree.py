"""Token ids without transformers against transformers' own, over every sentence of the corpora.

    python -m benchmarks.encode.tokenizers_agree --data ../shared/data [--texts N]

Two tokenizers, since no published one can be had offline: a BertJapaneseTokenizer (MeCab, unidic-lite, WordPiece), of
JaColBERT's kind, with a vocabulary of 32,768 pieces trained on the corpora, and a BertTokenizer with the same pieces.
Prints how many sentences were compared and how many differ, which should be none.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from tansaku import TextRules
from tansaku.onnx_export.convert.formats.tokenizer import load_tokenizer
from tansaku.onnx_export.encode.segmenter import MecabSegmenter, load_segmenter
from tansaku.onnx_export.encode.tokenize import TextTokenizer
from tansaku.onnx_export.files import read_lines

from ..support.machine import cpu_name

CORPORA = ("jsquad-valid", "niilc-qa", "jaquad", "queries-ja", "kyoto-wiki-ja", "msdocs-ja")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"[unused{i}]" for i in range(10))]
JAPANESE = {
    "tokenizer_class": "BertJapaneseTokenizer",
    "do_lower_case": False,
    "word_tokenizer_type": "mecab",
    "subword_tokenizer_type": "wordpiece",
    "mecab_kwargs": {"mecab_dic": "unidic_lite"},
}
ENGLISH = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
LONGEST = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--texts", type=int, help="of each file, spread evenly; by default all")
    options = parser.parse_args()
    print(f"{date.today()}, {cpu_name()}")
    sentences = list(dict.fromkeys(read_sentences(options.data, options.texts)))
    vocabulary = train(sentences[:: max(1, len(sentences) // 50_000)])
    with tempfile.TemporaryDirectory() as name:
        for config in (JAPANESE, ENGLISH):
            folder = Path(name) / config["tokenizer_class"]
            folder.mkdir()
            (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
            (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
            (folder / "config.json").write_text(json.dumps({"model_type": "bert"}), encoding="utf-8")
            compare(folder, sentences)


def compare(folder: Path, sentences: list[str]) -> None:
    theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    loaded = load_tokenizer(folder)
    segment = load_segmenter(loaded.segmenter, loaded.tokenizer)
    ours = TextTokenizer(loaded.tokenizer, TextRules("", None, LONGEST), segment)
    seconds = {"theirs": 0.0, "ours": 0.0}
    different = []
    for start in range(0, len(sentences), 1000):
        batch = sentences[start : start + 1000]
        marks = [time.perf_counter()]
        expected = [theirs(text)["input_ids"] for text in batch]
        marks.append(time.perf_counter())
        found = [text.ids.tolist() for text in ours(batch)]
        marks.append(time.perf_counter())
        seconds["theirs"] += marks[1] - marks[0]
        seconds["ours"] += marks[2] - marks[1]
        different += [text for text, a, b in zip(batch, expected, found, strict=True) if a != b]
    rates = {name: f"{len(sentences) / value:,.0f}" for name, value in seconds.items()}
    print(
        f"{folder.name}: {len(sentences):,} sentences, {len(different)} different; sentences/s: "
        f"transformers {rates['theirs']}, tansaku {rates['ours']}"
    )
    for text in different[:10]:
        print(f"  {text!r}")


def read_sentences(data: Path, count: int | None) -> Iterator[str]:
    for corpus in CORPORA:
        for path in (data / corpus / "corpus.jsonl", data / corpus / "queries.jsonl"):
            lines = list(read_lines(path)) if path.exists() else []
            for line in lines[:: max(1, len(lines) // count) if count else 1]:
                record = json.loads(line)
                for text in (record.get("title") or "", record["text"]):
                    yield from filter(str.strip, re.split(r"(?<=[。！？\n])", text))


def train(sentences: list[str]) -> list[str]:
    """32,768 WordPiece pieces over MeCab's words."""
    segment = MecabSegmenter([])
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(vocab_size=32_768, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator((" ".join(segment(text)) for text in sentences), trainer)
    pieces = tokenizer.get_vocab()
    return sorted(pieces, key=pieces.__getitem__)


if __name__ == "__main__":
    main()
