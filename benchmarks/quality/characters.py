"""Whether a question with a character finds the document that has it, and not one that has another.

    python -m benchmarks.quality.characters

For each group of characters: the part whose question finds its own document before the document of another character,
over all sentences of `benchmarks.support.characters`. "neighbours" compares with the next character in the order of
Unicode, which mostly has the same radical; "others" with one far away. Then the part of variants, and of names, that
find the document with the other form before one with a third. Exhaustive MaxSim, uncompressed vectors.
"""

from __future__ import annotations

import argparse
import random
from datetime import date
from pathlib import Path

import numpy as np

from tansaku import Encoder

from ..support.characters import NAMES, TEMPLATES, told_apart, variant_pairs, variants_found, written
from ..support.machine import cpu_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--characters", type=int, help="take this many of a group, drawn with a fixed seed")
    parser.add_argument("--model", type=Path, help="an encoder bundle; by default the one that ships inside")
    options = parser.parse_args()

    encoder = Encoder.load(options.model)
    print(f"{date.today()}, {cpu_name()}, model {encoder.bundle.name} ({encoder.bundle.fingerprint})")
    groups = {
        "JIS X 0208": written("iso2022_jp", first=0x3000),
        "JIS X 0213": written("shift_jis_2004", first=0x3000),
        "code page 932": written("cp932", first=0x3000),
        "signs of JIS X 0213": [c for c in written("shift_jis_2004") if c < "\u3000"],
        "emoji": [chr(code) for code in [*range(0x1F300, 0x1F650), *range(0x1F680, 0x1F6D3), *range(0x1F910, 0x1F978)]],
        "kanji beyond (bytes)": [chr(code) for code in range(0x20000, 0x2A6D0)],
        "Hangul": [chr(code) for code in range(0xAC00, 0xD7A4)],
        "private use (bytes)": [chr(code) for code in range(0xE000, 0xF900)],
    }
    print(f"{'':<24}{'characters':>11}{'neighbours':>12}{'others':>9}")
    for name, characters in groups.items():
        if options.characters and options.characters < len(characters):
            start = random.Random(0).randrange(len(characters) - options.characters)
            characters = characters[start : start + options.characters]
        near = np.mean([told_apart(encoder, characters, template) for template in TEMPLATES])
        far = np.mean([told_apart(encoder, characters, t, apart=len(characters) // 2) for t in TEMPLATES])
        print(f"{name:<24}{len(characters):>11,}{near:>12.4f}{far:>9.4f}", flush=True)
    pairs = variant_pairs()
    if options.characters and options.characters < len(pairs):
        pairs = random.Random(0).sample(pairs, options.characters)
    for name, tested in (("variants", pairs), ("names", NAMES)):
        found = np.mean([variants_found(encoder, tested, template) for template in TEMPLATES])
        print(f"{name:<24}{len(tested):>11,}{'find the other form':>21}{found:>9.4f}", flush=True)


if __name__ == "__main__":
    main()
