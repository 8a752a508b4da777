"""The model card of a bundle that is exported without a card of its own."""

from __future__ import annotations

from ..encode.bundle import Bundle
from ..encode.rules import TextRules


def bundle_card(bundle: Bundle) -> str:
    """Markdown: where the model comes from, its text rules, and how far its vectors are from the checkpoint's."""
    parity = "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in bundle.parity.items())
    origin = "\n".join(f"- {name}: {value}" for name, value in bundle.origin.items())
    return f"""# {bundle.name}

A ColBERT encoder for tansaku: {bundle.precision}, {bundle.dim} dimensions, ONNX opset {bundle.opset}.

## Origin

{origin}

The weights have the licence of the checkpoint.

## Text rules

| | queries | documents |
|---|---|---|
{_rules_table(bundle.query, bundle.document)}

The weight of neighbouring tokens in a score is {bundle.phrase_weight} (0 is plain MaxSim).

## Parity with the checkpoint in torch

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
        attended = "attended" if expansion.attend else "not attended"
        masks = f"{expansion.rule}, {expansion.length}, {attended}"
    return [
        ("maximum length in tokens", str(rules.max_length)),
        ("marker", f"`{rules.marker}`" if rules.marker else "none"),
        ("prefix", f"`{rules.prefix}`" if rules.prefix else "none"),
        ("mask tokens", masks),
        ("skipped tokens", str(len(rules.skiplist))),
    ]
