"""Turns SQuAD-shaped JSON files, such as JaQuAD's, into documents, questions and judgements.

    python squad_to_documents.py JaQuAD/data/dev/*.json JaQuAD/data/train/*.json

Writes into the folder that it runs in: documents.jsonl with the first 5,000 paragraphs, questions.jsonl with 500 of
their questions, and judgements.tsv, which names the right paragraph of each question.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

DOCUMENTS, QUESTIONS = 5000, 500


def paragraphs(files: list[str]) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Each paragraph as a document, with its questions."""
    for file in files:
        for article in json.loads(Path(file).read_text(encoding="utf-8"))["data"]:
            for number, paragraph in enumerate(article["paragraphs"]):
                document = {
                    "id": f"{Path(file).stem}-{article['title']}-{number}",
                    "title": article["title"],
                    "text": paragraph["context"],
                }
                yield document, [entry["question"] for entry in paragraph["qas"]]


def main(files: list[str]) -> None:
    """Write the three files."""
    asked: list[tuple[str, str]] = []
    with open("documents.jsonl", "w", encoding="utf-8") as out:
        for count, (document, questions) in enumerate(paragraphs(files)):
            if count == DOCUMENTS:
                break
            out.write(json.dumps(document, ensure_ascii=False) + "\n")
            asked += [(question, document["id"]) for question in questions]
    step = max(1, len(asked) // QUESTIONS)
    with (
        open("questions.jsonl", "w", encoding="utf-8") as queries,
        open("judgements.tsv", "w", encoding="utf-8") as qrels,
    ):
        qrels.write("query-id\tcorpus-id\tscore\n")
        for number, (question, document_id) in enumerate(asked[::step][:QUESTIONS]):
            queries.write(json.dumps({"_id": f"q{number}", "text": question}, ensure_ascii=False) + "\n")
            qrels.write(f"q{number}\t{document_id}\t1\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Turns SQuAD-shaped JSON into documents, questions and judgements.")
    parser.add_argument("files", nargs="+", metavar="FILE", help="a JSON file in the shape of SQuAD")
    main(parser.parse_args().files)
