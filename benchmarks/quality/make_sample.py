"""Cut the sample corpus out of JSQuAD: the first paragraphs of each article, 300 in all, one question for each.

python -m benchmarks.quality.make_sample --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tansaku.plugin.evaluation.judgements import read_qrels, read_queries, read_records

PARAGRAPHS = 300
PER_ARTICLE = 10
TARGET = Path(__file__).parents[2] / "plugin" / "sample"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data / "jsquad-valid"

    articles: dict[str, list[dict[str, str]]] = {}
    for _, document in read_records(folder / "corpus.jsonl"):
        articles.setdefault(document["title"], []).append(document)
    corpus: list[dict[str, str]] = []
    for paragraphs in articles.values():
        corpus += paragraphs[:PER_ARTICLE]
    corpus = corpus[:PARAGRAPHS]
    chosen = {document["_id"] for document in corpus}

    texts = read_queries(folder / "queries.jsonl")
    question_of: dict[str, str] = {}
    for query_id, grades in read_qrels(folder / "qrels" / "dev.tsv").items():
        for doc_id in grades:
            if doc_id in chosen:
                question_of.setdefault(doc_id, query_id)

    write_jsonl(TARGET / "corpus.jsonl", corpus)
    write_jsonl(TARGET / "queries.jsonl", [{"_id": q, "text": texts[q]} for q in question_of.values()])
    judgements = "".join(f"{query_id}\t{doc_id}\t1\n" for doc_id, query_id in question_of.items())
    (TARGET / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + judgements, encoding="utf-8")
    print(f"{len(corpus)} paragraphs, {len(question_of)} questions")


def write_jsonl(path: Path, records: list[dict[str, str]]) -> None:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
