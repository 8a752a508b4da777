"""Every host takes the options of a search by the same names, with the same defaults."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest

from tansaku import SearchOptions
from tansaku.plugin.hosts.haystack import TansakuRetriever as HaystackRetriever
from tansaku.plugin.hosts.langchain import TansakuRetriever as LangChainRetriever
from tansaku.plugin.hosts.llama_index import TansakuRetriever as LlamaIndexRetriever
from tansaku.plugin.mcp.server import _Tools

OPTIONS = {field.name: field.default for field in fields(SearchOptions)}
# What a host calls `k`, and its own default.
NUMBER_OF_HITS = {"haystack": ("top_k", 10), "langchain": ("k", 4), "llama_index": ("similarity_top_k", 10)}


def parameters(function: Any) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


GIVEN: dict[str, Mapping[str, Any]] = {
    "haystack": parameters(HaystackRetriever.__init__),
    "langchain": {name: field.default for name, field in LangChainRetriever.model_fields.items()},
    "llama_index": parameters(LlamaIndexRetriever.__init__),
    "mcp": parameters(_Tools.search),
}


@pytest.mark.parametrize("host", GIVEN)
def test_a_host_has_every_option_with_its_default(host):
    name, default = NUMBER_OF_HITS.get(host, ("k", 10))
    expected = {name if option == "k" else option: value for option, value in OPTIONS.items()} | {name: default}
    assert {option: GIVEN[host].get(option, "absent") for option in expected} == expected
