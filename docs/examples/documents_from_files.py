"""Turns a folder of PDF, Word, PowerPoint and HTML files into documents, with markitdown.

    pip install 'markitdown[pdf,docx,pptx]'
    python documents_from_files.py reports/

Writes documents.jsonl into the folder that it runs in. The id of a document is the path of its file, so that the same
file replaces its document the next time. Files without text, such as scanned pages, are named and left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from markitdown import MarkItDown, MarkItDownException

SUFFIXES = (".pdf", ".docx", ".pptx", ".html", ".htm")


def main(folder: Path) -> None:
    """Write the file."""
    converter = MarkItDown(enable_plugins=False)
    written, left_out = 0, 0
    with open("documents.jsonl", "w", encoding="utf-8") as out:
        for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
            name = path.relative_to(folder).as_posix()
            try:
                found = converter.convert_local(path)
            except MarkItDownException as error:
                print(f"{name}: left out ({error})", file=sys.stderr)
                left_out += 1
                continue
            if not found.markdown.strip():
                print(f"{name}: left out (no text in it; scanned pages need OCR)", file=sys.stderr)
                left_out += 1
                continue
            document = {"id": name, "title": found.title or path.stem, "text": found.markdown, "kind": path.suffix[1:]}
            out.write(json.dumps(document, ensure_ascii=False) + "\n")
            written += 1
    print(f"{written} documents written to documents.jsonl, {left_out} files left out")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the files; folders below it are read too")
    main(parser.parse_args().folder)
