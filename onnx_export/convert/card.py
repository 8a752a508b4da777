"""The model card of a bundle that was made without one of its own."""

from __future__ import annotations

from ..encode.bundle import Bundle
from ..encode.rules import TextRules


def bundle_card(bundle: Bundle) -> str:
    """Markdown: what the model is, what it does to texts, and how near its vectors are to the checkpoint's."""
    parity = "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in bundle.parity.items())
    origin = "\n".join(f"- {name}: {value}" for name, value in bundle.origin.items())
    return f"""# {bundle.name}

A ColBERT encoder for tansaku: {bundle.precision}, {bundle.dim} dimensions, ONNX opset {bundle.opset}.

## Origin

{origin}

The licence of the weights is that of the checkpoint.

## Texts

| | queries | documents |
|---|---|---|
{_rules_table(bundle.query, bundle.document)}

A token's neighbours count {bundle.phrase_weight} in a score; 0 is MaxSim.

## Parity with the checkpoint, in torch

| | |
|---|---|
{parity}
"""


def _rules_table(query: TextRules, document: TextRules) -> str:
    return "\n".join(
        f"| {name} | {left} | {right} |"
        for (name, left), (_, right) in zip(_described(query), _described(document), strict=True)
    )


def _described(rules: TextRules) -> list[tuple[str, str]]:
    expansion = rules.expansion
    masks = "none"
    if expansion:
        attended = "attended to" if expansion.attend else "not attended to"
        masks = f"{expansion.rule}, {expansion.length}, {attended}"
    return [
        ("longest, in tokens", str(rules.max_length)),
        ("marker", f"`{rules.marker}`" if rules.marker else "none"),
        ("prefix", f"`{rules.prefix}`" if rules.prefix else "none"),
        ("mask tokens", masks),
        ("tokens without a vector", str(len(rules.skiplist))),
    ]
