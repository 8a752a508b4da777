"""Nodes of LlamaIndex as documents of an index, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ....indexer.read.documents import Document as StoredDocument
from ....onnx_export.errors import InputError, MissingExtraError

try:
    from llama_index.core.schema import BaseNode, Document, MetadataMode, TextNode
    from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
except ImportError as error:
    raise MissingExtraError("llama-index-core", "llama-index") from error

from ...search.results import Hit
from .._framework_table import check_columns

NODE_COLUMN = "llama_index_node"  # the whole node, JSON
REF_DOC_COLUMN = "llama_index_ref_doc"  # id of the document that a node is a part of; "" if there is none
OWN_COLUMNS = (NODE_COLUMN, REF_DOC_COLUMN)


def node_records(nodes: Iterable[BaseNode], *, columns: Sequence[str] = ()) -> list[dict[str, Any]]:
    r"""Documents for `Index.create`, `add` and `upsert` that hold nodes; `TansakuRetriever` gives the nodes back.

    What is searched is what LlamaIndex would embed: the text, and the metadata that is not excluded from embeddings.

    Args:
        nodes: the nodes, none of them empty.
        columns: keys of the metadata to have columns of their own, for conditions (``where="year < 1950"``).

    Returns:
        A document for each node.

    Raises:
        InputError: a node that JSON cannot keep, or a name in ``columns`` that the index itself uses.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> (record,) = node_records([TextNode(id_="a", text="京都", metadata={"year": 794})], columns=["year"])
        >>> record["id"], record["text"], record["year"]
        ('a', 'year: 794\n\n京都', 794)
    """
    check_columns(columns, (NODE_COLUMN,))
    return [{**{name: node.metadata.get(name) for name in columns}, **as_record(node)} for node in nodes]


def as_record(node: BaseNode) -> dict[str, Any]:
    """A node as a document of an index: id, the text that is searched, and the whole node.

    Raises:
        InputError: JSON cannot keep the node.
    """
    return {
        "id": node.node_id,
        "text": node.get_content(MetadataMode.EMBED),
        NODE_COLUMN: _node_json(node),
    }


def _node_json(node: BaseNode) -> str:
    try:
        whole = node_to_metadata_dict(node)
        return json.dumps({name: whole[name] for name in ("_node_content", "_node_type")}, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"node {node.node_id!r} holds a value that JSON cannot keep ({error}); use text or numbers"
        ) from error


def node_of(row: Hit | StoredDocument) -> BaseNode:
    """The node that a row of an index holds whole, or else one of the row's id, text and columns."""
    if content := row.fields.get(NODE_COLUMN):
        stored = json.loads(content)
        if stored["_node_type"] == Document.class_name():  # LlamaIndex's function makes a TextNode of it
            return Document.from_json(stored["_node_content"])
        return metadata_dict_to_node(stored)
    title = {"title": row.title} if row.title else {}
    fields = {name: value for name, value in row.fields.items() if name not in OWN_COLUMNS}
    return TextNode(id_=row.id, text=row.text, metadata={**fields, **title})


def metadata_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of the node in a document as `Index.documents` yields it, see `node_of`."""
    if content := record.get(NODE_COLUMN):
        return json.loads(json.loads(content)["_node_content"])["metadata"]
    return {name: value for name, value in record.items() if value and name not in ("id", "text", *OWN_COLUMNS)}
