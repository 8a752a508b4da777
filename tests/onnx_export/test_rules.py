"""[MASK] expansion by its four rules, and text rules as JSON."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tansaku import Expansion, TextRules
from tansaku.onnx_export.validation import describe_errors

from ..support.strategies import rules as text_rules

TOKENS = st.integers(0, 10_000)
LENGTHS = st.integers(1, 512)


# How many masks


@pytest.mark.parametrize(
    ("tokens", "paper", "shipped"),
    [
        # Up to the next multiple of 32; where that is fewer than 8, 8.
        (3, 29, 8),
        (7, 25, 8),
        (8, 24, 8),
        (9, 23, 23),
        (16, 16, 16),
        (23, 9, 9),
        (24, 8, 8),
        (25, 8, 7),
        (31, 8, 1),
        (32, 8, 8),
        (33, 31, 8),
        (40, 24, 8),
        (41, 23, 23),
        (56, 8, 8),
        (57, 8, 7),
        (63, 8, 1),
        (64, 8, 8),
        (65, 31, 8),
        (300, 20, 20),
        (512, 8, 8),
    ],
)
def test_masks_of_the_dynamic_rules(tokens, paper, shipped):
    assert Expansion("[MASK]", "paper").masks(tokens) == paper
    assert Expansion("[MASK]", "shipped").masks(tokens) == shipped


@pytest.mark.parametrize("rule", ["fixed", "minimum"])
@pytest.mark.parametrize(
    ("tokens", "length", "masks"),
    [(3, 32, 29), (31, 32, 1), (32, 32, 0), (33, 32, 0), (500, 32, 0), (3, 48, 45), (3, 1, 0)],
)
def test_masks_of_the_rules_that_fill_up(rule, tokens, length, masks):
    assert Expansion("[MASK]", rule, length).masks(tokens) == masks


@settings(derandomize=True, deadline=None, max_examples=300)
@given(tokens=TOKENS, length=LENGTHS)
def test_paper_rule_fills_to_a_multiple_with_eight_masks_at_least_else_adds_just_eight(tokens, length):
    masks = Expansion("[MASK]", "paper", length).masks(tokens)
    assert masks >= 8
    assert masks == 8 or (tokens + masks) % length == 0
    assert masks < max(length, 9)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(tokens=TOKENS, length=LENGTHS)
def test_shipped_rule_adds_eight_just_beyond_a_multiple_else_fills_to_the_next(tokens, length):
    masks = Expansion("[MASK]", "shipped", length).masks(tokens)
    if tokens % length <= 8:
        assert masks == 8
    else:
        assert 0 < masks < length - 8
        assert (tokens + masks) % length == 0


@settings(derandomize=True, deadline=None, max_examples=300)
@given(tokens=TOKENS, length=LENGTHS, rule=st.sampled_from(["fixed", "minimum"]))
def test_other_rules_reach_the_length_and_never_go_beyond(tokens, length, rule):
    masks = Expansion("[MASK]", rule, length).masks(tokens)
    assert masks >= 0
    assert tokens + masks == max(tokens, length)


@pytest.mark.parametrize("rule", ["", "Paper", "dynamic", None, 3])
def test_unknown_rule_is_refused_with_the_known_ones_named(rule):
    with pytest.raises(
        ValueError, match=r"unknown expansion rule .*; use one of fixed, minimum, paper, shipped"
    ) as raised:
        Expansion("[MASK]", rule)
    assert repr(rule) in str(raised.value)


# From JSON

RULES: dict[str, Any] = {
    "prefix": "質問: ",
    "marker": "[Q]",
    "max_length": 48,
    "skiplist": ["。", "、"],
    "expansion": {"token": "[MASK]", "rule": "shipped", "length": 16, "attend": True},
    "strip": True,
}


def parse_rules(content: Any) -> TextRules:
    """As `read_bundle` checks the rules of a bundle."""
    return TypeAdapter(TextRules).validate_json(json.dumps(content))


def refused(content: Any) -> str:
    """What is wrong with ``content``."""
    with pytest.raises(ValidationError) as raised:
        parse_rules(content)
    return describe_errors(raised.value)


def changed(**changes: Any) -> dict[str, Any]:
    return {**RULES, **changes}


def changed_expansion(**changes: Any) -> dict[str, Any]:
    return changed(expansion={**RULES["expansion"], **changes})


def test_every_field_is_read():
    expansion = Expansion("[MASK]", "shipped", length=16, attend=True)
    assert parse_rules(RULES) == TextRules("質問: ", "[Q]", 48, ("。", "、"), expansion, strip=True)


def test_fields_left_out_have_the_defaults_of_the_class():
    rules = parse_rules({"prefix": "", "marker": None, "max_length": 1})
    assert rules == TextRules("", None, 1)
    assert (rules.skiplist, rules.expansion, rules.strip) == ((), None, False)
    short = parse_rules(changed(expansion={"token": "[MASK]", "rule": "paper"}))
    assert short.expansion == Expansion("[MASK]", "paper", length=32, attend=False)


def test_no_expansion_may_be_said():
    assert parse_rules(changed(expansion=None)).expansion is None


@settings(derandomize=True, deadline=None, max_examples=100)
@given(rules=text_rules)
def test_rules_survive_json(rules):
    assert parse_rules(json.loads(json.dumps(dataclasses.asdict(rules)))) == rules


@pytest.mark.parametrize("content", [None, 3, True, "rules", [], [["prefix", ""]]], ids=repr)
def test_what_is_no_object_is_refused(content):
    assert refused(content) == f"the content is {content!r}; it must be an object"


@pytest.mark.parametrize("content", [False, 0, "paper", [], ["[MASK]", "paper"]], ids=repr)
def test_expansion_that_is_no_object_is_refused(content):
    assert refused(changed(expansion=content)) == f"expansion is {content!r}; it must be an object"


@pytest.mark.parametrize("field", ["prefix", "marker", "max_length"])
def test_missing_rule_is_refused_by_name(field):
    assert refused({name: value for name, value in RULES.items() if name != field}) == f"{field} is missing"


@pytest.mark.parametrize("field", ["token", "rule"])
def test_missing_field_of_an_expansion_is_refused_by_name(field):
    expansion = {name: value for name, value in RULES["expansion"].items() if name != field}
    assert refused(changed(expansion=expansion)) == f"expansion.{field} is missing"


@pytest.mark.parametrize(
    "content", [changed(pooling="mean"), changed_expansion(pooling="mean")], ids=["rules", "expansion"]
)
def test_unknown_field_is_refused_by_name(content):
    assert refused(content).endswith("pooling is not a known field")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prefix", None),
        ("prefix", 3),
        ("prefix", True),
        ("marker", 0),
        ("marker", False),
        ("marker", ["[Q]"]),
        ("max_length", True),
        ("max_length", 0),
        ("max_length", -1),
        ("max_length", 32.0),
        ("max_length", float("nan")),
        ("max_length", "32"),
        ("max_length", None),
        ("skiplist", None),
        ("skiplist", "。、"),
        ("skiplist", {"。": 1}),
        ("strip", 0),
        ("strip", 1),
        ("strip", None),
        ("strip", "false"),
    ],
)
def test_rule_of_a_wrong_type_is_refused_by_name(field, value):
    assert refused(changed(**{field: value})).startswith(f"{field} is {value!r}; it must be ")


@pytest.mark.parametrize("token", [None, 3, True, ["。"]], ids=repr)
def test_skipped_token_that_is_no_str_is_refused_by_its_position(token):
    assert refused(changed(skiplist=["。", token])).startswith(f"skiplist[1] is {token!r}; it must be ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("token", None),
        ("token", 4),
        ("rule", None),
        ("rule", 1),
        ("rule", ["paper"]),
        ("length", True),
        ("length", 0),
        ("length", -32),
        ("length", 32.0),
        ("length", "32"),
        ("length", None),
        ("attend", 0),
        ("attend", 1),
        ("attend", None),
    ],
)
def test_field_of_an_expansion_of_a_wrong_type_is_refused_by_name(field, value):
    message = refused(changed_expansion(**{field: value}))
    assert re.match(rf"expansion(\.|: ){field} is {re.escape(repr(value))}; it must be ", message)


@pytest.mark.parametrize("rule", ["", "Fixed", "longest"])
def test_unknown_expansion_rule_is_refused_by_name(rule):
    message = refused(changed_expansion(rule=rule))
    assert message == f"expansion.rule is '{rule}'; it must be 'fixed', 'minimum', 'paper' or 'shipped'"


def test_only_the_first_five_faults_are_named():
    message = refused({f"more{i}": 1 for i in range(6)})
    assert message.count("is missing") + message.count("is not a known field") == 5
    assert message.endswith(", and 4 more")
