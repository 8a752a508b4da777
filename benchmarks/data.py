"""Make the BEIR folders that the benchmarks read, from the public sources.

    python -m benchmarks.data ../data                              # all sets, fetched with git
    python -m benchmarks.data ../data --set jaquad --source ~/JaQuAD   # one set, from a clone that is there already

Each folder gets `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`) and `qrels/SPLIT.tsv`. A
source is fetched at the commit named below. The files are then compared with those that the published figures were
measured on, by their sha256; the exit status is 1 if they differ.

    jsquad-valid   1,145 paragraphs, 4,442 questions; JSQuAD v1.3, CC BY-SA 4.0; for evaluation only, never train on it
    jaquad         11,144 paragraphs, 31,748 training and 3,939 dev questions; CC BY-SA 3.0
    niilc-qa       766 evidence sentences, 652 questions; CC BY-SA 4.0; for evaluation only
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

Record = dict[str, str]


@dataclass
class Beir:
    """What a folder holds; the judgements are pairs of a query's and a document's id."""

    documents: list[Record] = field(default_factory=list)
    queries: list[Record] = field(default_factory=list)
    qrels: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def write(self, folder: Path) -> str:
        """Write the files; their sha256, one after the other."""
        contents = {"corpus.jsonl": _lines(self.documents), "queries.jsonl": _lines(self.queries)}
        for split, pairs in sorted(self.qrels.items()):
            rows = "".join(f"{query_id}\t{doc_id}\t1\n" for query_id, doc_id in pairs)
            contents[f"qrels/{split}.tsv"] = f"query-id\tcorpus-id\tscore\n{rows}"
        total = hashlib.sha256()
        (folder / "qrels").mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            data = text.encode()
            total.update(data)
            (folder / name).write_bytes(data)
        return total.hexdigest()


def jsquad(clone: Path) -> Beir:
    """Paragraphs are named by the start of their questions' ids; a context is `title [SEP] text`."""
    made = Beir(qrels={"dev": []})
    for _, paragraph in _squad(clone / "datasets" / "jsquad-v1.3" / "valid-v1.3.json"):
        title, text = paragraph["context"].split(" [SEP] ", 1)
        doc_id = "jsquad-" + paragraph["qas"][0]["id"].rpartition("q")[0]
        made.documents.append({"_id": doc_id, "title": title, "text": text})
        _add_questions(made, "dev", "jsquad-", doc_id, paragraph)
    return made


def jaquad(clone: Path) -> Beir:
    """Paragraphs are numbered within their split."""
    made = Beir(qrels={"dev": [], "train": []})
    for split in ("dev", "train"):
        number = 0
        for path in sorted((clone / "data" / split).glob("*.json")):
            for title, paragraph in _squad(path):
                doc_id = f"jaquad-{split}-{number:05d}"
                made.documents.append({"_id": doc_id, "title": title, "text": paragraph["context"]})
                _add_questions(made, split, "jaquad-", doc_id, paragraph)
                number += 1
    return made


def niilc(clone: Path) -> Beir:
    """The dev questions that have an evidence sentence; the evidence of the test questions answers none of them."""
    made = Beir(qrels={"dev": []})
    known: dict[tuple[str, str], str] = {}
    for split in ("dev", "test"):
        for question in ElementTree.parse(clone / "data" / f"NIILC-ECQA2015_{split}.xml").iter("question"):  # noqa: S314
            title, text = ((question.findtext(f"meta/{name}") or "").strip() for name in ("E.3", "E.5"))
            if not text:
                continue
            doc_id = known.setdefault((title, text), f"niilc-d{len(known):04d}")
            if len(known) > len(made.documents):
                made.documents.append({"_id": doc_id, "title": title, "text": text})
            if split == "dev":
                query_id = question.attrib["id"]
                made.queries.append({"_id": query_id, "text": (question.findtext("text") or "").strip()})
                made.qrels["dev"].append((query_id, doc_id))
    return made


@dataclass(frozen=True)
class Origin:
    """Where a set comes from, how it is made, and the sha256 of what the published figures were measured on."""

    url: str
    commit: str
    make: Callable[[Path], Beir]
    sha256: str


SETS = {
    "jsquad-valid": Origin(
        "https://github.com/yahoojapan/JGLUE",
        "6f071c0",
        jsquad,
        "b897f3347f06e9c65762e6ed8cec06efbb1260c738cb6cfaec017a3bfb3ab953",
    ),
    "jaquad": Origin(
        "https://github.com/SkelterLabsInc/JaQuAD",
        "23f5d72",
        jaquad,
        "8e1a3acd553e8d2b40f4ed23e590d4ba9e4e6c9c0c439e89892ec4d2a7447cda",
    ),
    "niilc-qa": Origin(
        "https://github.com/mynlp/niilc-qa",
        "b6d4796",
        niilc,
        "dd755a661f6e6303e80433cf7973b56eeb2c6be1966c7fb273d6b1801c46d323",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder that the sets' folders are made in")
    parser.add_argument("--set", dest="sets", choices=SETS, action="append", help="name of a set; by default all")
    parser.add_argument("--source", type=Path, help="a clone of the source of the one --set")
    options = parser.parse_args()
    names = options.sets or list(SETS)
    if options.source and len(names) != 1:
        parser.error("--source belongs to one --set")
    same = True
    for name in names:
        origin = SETS[name]
        with tempfile.TemporaryDirectory() as folder:
            made = origin.make(options.source or clone(origin, Path(folder)))
        equal = made.write(options.out / name) == origin.sha256
        counts = f"{len(made.documents):,} documents, {len(made.queries):,} queries"
        print(f"{name}: {counts}, {'the same' if equal else 'NOT the same'} as measured", flush=True)
        same &= equal
    sys.exit(0 if same else 1)


def clone(origin: Origin, folder: Path) -> Path:
    """Fetch a repository and check out its commit, in a folder."""
    git = ["git", "-C", str(folder)]
    subprocess.run([*git, "clone", "--quiet", "--no-checkout", origin.url, "."], check=True)
    subprocess.run([*git, "checkout", "--quiet", origin.commit], check=True)
    return folder


def _squad(path: Path) -> Iterator[tuple[str, dict]]:
    """Title of the article and paragraph, of a file in SQuAD's format."""
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            yield article["title"], paragraph


def _add_questions(made: Beir, split: str, prefix: str, doc_id: str, paragraph: dict) -> None:
    for question in paragraph["qas"]:
        query_id = prefix + question["id"]
        made.queries.append({"_id": query_id, "text": question["question"]})
        made.qrels[split].append((query_id, doc_id))


def _lines(records: list[Record]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


if __name__ == "__main__":
    main()
