"""What is tried of each extra where it is installed alone. Run as a script: extras.py NAME..., in an empty folder.

The script runs in environments without the packages of the tests. Each function is named as its extra; `base` is
tansaku without any. A failure is an exception.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import tansaku
from tansaku import Index, Searcher

TANSAKU = str(Path(sys.executable).with_name("tansaku"))
TEXTS = {"kyoto": "京都は794年から都だった。", "dog": "犬は嗅覚が鋭い動物である。", "sea": "海の水は塩辛い。"}
DOCUMENTS = [{"id": name, "title": name, "text": text} for name, text in TEXTS.items()]
QUERY = "昔の首都はどこ？"
PLACE = ("--db", "db", "--table", "docs")


def command(*arguments: str, given: str = "", fails: bool = False) -> str:
    """What a command of tansaku prints; with ``fails``, what it says on standard error when it ends with status 2."""
    ended = subprocess.run([TANSAKU, *arguments], input=given, capture_output=True, text=True, check=False)
    assert ended.returncode == (2 if fails else 0), f"{arguments}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.stderr if fails else ended.stdout


def write_documents() -> None:
    """The documents as docs.jsonl, their judgements as qrels.tsv and queries.jsonl."""
    lines = [json.dumps(document, ensure_ascii=False) for document in DOCUMENTS]
    Path("docs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    query = json.dumps({"_id": "q", "text": QUERY}, ensure_ascii=False)
    Path("queries.jsonl").write_text(query + "\n", encoding="utf-8")
    Path("qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\tkyoto\t1\n", encoding="utf-8")


def index() -> None:
    """Make the index that `PLACE` names, by the command."""
    write_documents()
    command("index", "docs.jsonl", *PLACE)


def rows(store: tansaku.RowStore[Any]) -> None:
    """Write and find rows in a database."""
    store.add([{"id": name, "text": text} for name, text in TEXTS.items()])
    assert store.search(QUERY, k=1)[0].id == "kyoto"


def excel() -> None:
    """Index a spreadsheet."""
    cells = "".join(
        f'<row r="{number}"><c r="A{number}" t="inlineStr"><is><t>{name}</t></is></c>'
        f'<c r="B{number}" t="inlineStr"><is><t>{text}</t></is></c></row>'
        for number, (name, text) in enumerate([("id", "text"), *TEXTS.items()], start=1)
    )
    space = "http://schemas.openxmlformats.org"
    with zipfile.ZipFile("docs.xlsx", "w") as book:
        book.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{space}/package/2006/relationships"><Relationship Id="r0" Type="{space}/'
            'officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        book.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{space}/spreadsheetml/2006/main" xmlns:r="{space}/officeDocument/2006/relationships">'
            '<sheets><sheet name="s" sheetId="1" r:id="r1"/></sheets></workbook>',
        )
        book.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{space}/package/2006/relationships"><Relationship Id="r1" Type="{space}/'
            'officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        )
        book.writestr(
            "xl/worksheets/sheet1.xml",
            f'<worksheet xmlns="{space}/spreadsheetml/2006/main"><sheetData>{cells}</sheetData></worksheet>',
        )
    command("index", "docs.xlsx", *PLACE)
    assert len(Index.open("db", "docs")) == len(TEXTS)


def base() -> None:
    """Index, search, rerank, change, and every public name but those of extras."""
    index()
    assert json.loads(command("search", QUERY, *PLACE, "--json"))["hits"][0]["id"] == "kyoto"
    command("info", *PLACE)
    command("delete", "--id", "sea", *PLACE)
    command("optimize", *PLACE)
    assert "tansaku" in command("--version")
    assert tansaku.Reranker().rerank(QUERY, list(TEXTS.values()))[0].index == 0
    assert len(Index.open("db", "docs")) == 2
    for missing, *arguments in (
        ("evaluate", "evaluate", "--queries", "queries.jsonl", "--qrels", "qrels.tsv", *PLACE),
        ("serve", "serve"),
        ("mcp", "mcp", *PLACE),
    ):
        assert f"tansaku[{missing}]" in command(*arguments, fails=True).replace("\n", "")


def evaluate() -> None:
    """`tansaku evaluate`."""
    index()
    assert "mrr@10   1.0000" in command("evaluate", "--queries", "queries.jsonl", "--qrels", "qrels.tsv", *PLACE)


def pooling() -> None:
    """`tansaku index --pool`."""
    write_documents()
    command("index", "docs.jsonl", *PLACE, "--pool", "2")
    assert Searcher.open("db", "docs").search(QUERY)


def japanese() -> None:
    """The word segmenter of Japanese BERT models."""
    import fugashi

    tagger = fugashi.Tagger()  # pyright: ignore[reportAttributeAccessIssue]
    assert tagger("京都は都だった")[0].surface == "京都"


def haystack() -> None:
    """The document store and its retriever."""
    from haystack import Document

    from tansaku.plugin.hosts.haystack import TansakuDocumentStore, TansakuRetriever

    store = TansakuDocumentStore("db", "docs")
    store.write_documents([Document(id=name, content=text) for name, text in TEXTS.items()])
    assert TansakuRetriever(store, top_k=1).run(QUERY)["documents"][0].id == "kyoto"


def langchain() -> None:
    """The vector store."""
    from tansaku.plugin.hosts.langchain import TansakuVectorStore

    store = TansakuVectorStore("db", "docs")
    store.add_texts(list(TEXTS.values()), ids=list(TEXTS))
    assert store.similarity_search(QUERY, k=1)[0].id == "kyoto"


def llama_index() -> None:
    """The retriever."""
    from tansaku.plugin.hosts.llama_index import TansakuRetriever

    Index.create("db", "docs", DOCUMENTS)
    assert TansakuRetriever(Searcher.open("db", "docs"), similarity_top_k=1).retrieve(QUERY)[0].node.node_id == "kyoto"


def mteb() -> None:
    """The models for MTEB, and the scores of one."""
    from tansaku.plugin.hosts.mteb import TansakuIndexModel, TansakuModel

    assert TansakuIndexModel
    model = TansakuModel()
    kyoto, dog = model.encoder.encode_documents([TEXTS["kyoto"], TEXTS["dog"]])
    first, second = model.similarity(model.encoder.encode_queries([QUERY]), [kyoto, dog])[0].tolist()
    assert first > second


def pylate() -> None:
    """The index for PyLate, under its retriever."""
    from pylate import retrieve  # pyright: ignore[reportMissingImports]

    from tansaku.plugin.hosts.pylate import TansakuIndex

    made, model = TansakuIndex(index_folder="db", index_name="docs"), tansaku.Encoder.load()
    made.add_documents(list(TEXTS), model.encode_documents(TEXTS.values()))
    queries: Any = model.encode_queries([QUERY])
    found = retrieve.ColBERT(index=made).retrieve(queries, k=2)
    assert next(hit["id"] for hit in found[0]) == "kyoto"


def postgres() -> None:
    """The adapters, their client and the client's pool; no server."""
    import psycopg
    import psycopg_pool

    from tansaku.plugin.hosts.postgres import PostgresSource
    from tansaku.plugin.hosts.rows.postgres import PostgresRows

    assert psycopg.pq.version()
    assert psycopg_pool.ConnectionPool
    assert PostgresSource
    assert PostgresRows


def chroma() -> None:
    """The adapter and its client, in a folder."""
    import chromadb
    from chromadb.config import Settings

    from tansaku.plugin.hosts.rows.chroma import ChromaRows

    client = chromadb.PersistentClient("chroma", settings=Settings(anonymized_telemetry=False))
    rows(ChromaRows.create(tansaku.Coder(), client, "docs"))


def milvus() -> None:
    """The adapter and its client, with Milvus Lite."""
    from pymilvus import MilvusClient

    from tansaku.plugin.hosts.rows.milvus import MilvusRows

    rows(MilvusRows.create(tansaku.Coder(), MilvusClient("milvus.db"), "docs"))


def duckdb() -> None:
    """The adapter, and a table of it."""
    from tansaku.plugin.hosts.rows.duckdb import DuckdbRows

    rows(DuckdbRows.create(tansaku.Coder(), ":memory:", "docs"))


def mroonga() -> None:
    """The adapter and its client; no server."""
    import pymysql

    from tansaku.plugin.hosts.mroonga import MroongaSource

    assert pymysql.paramstyle == "pyformat"
    assert MroongaSource


def qdrant() -> None:
    """The adapters and their client, in its local mode."""
    from qdrant_client import QdrantClient

    from tansaku.plugin.hosts.qdrant import QdrantSource
    from tansaku.plugin.hosts.rows.qdrant import QdrantRows
    from tansaku.plugin.hosts.rows.qdrant_multivector import QdrantMultivectorRows

    assert QdrantSource
    assert QdrantMultivectorRows
    rows(QdrantRows.create(tansaku.Coder(), QdrantClient(":memory:"), "docs"))


def ray() -> None:
    """What builds and serving on Ray import, and fragments; no cluster."""
    import pyarrow as pa
    import ray.data
    import ray.serve

    plan = tansaku.plan_rows("db", "docs", DOCUMENTS)
    batch = pa.RecordBatch.from_pylist(DOCUMENTS)
    assert tansaku.commit_rows(plan, tansaku.write_rows(plan, [tansaku.encode_rows(plan, batch).rows])) == len(TEXTS)
    assert ray.data.Dataset
    assert ray.serve.deployment


def serve() -> None:
    """`tansaku serve` answers a search."""
    index()
    port = "18765"
    service = subprocess.Popen([TANSAKU, "serve", "--port", port, *PLACE], stderr=subprocess.PIPE)
    try:
        body = json.dumps({"query": QUERY}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/search", body, {"Content-Type": "application/json"}, method="POST"
        )
        for _ in range(300):
            time.sleep(0.3)
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                    assert json.load(answer)["hits"][0]["id"] == "kyoto"
                break
            except OSError:  # it starts, or loads
                assert service.poll() is None, service.communicate()
        else:
            raise AssertionError("the service does not answer")
    finally:
        service.send_signal(signal.SIGINT)
        service.communicate()


def mcp() -> None:
    """`tansaku mcp` lists its tools over stdio."""
    index()
    capabilities = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    messages = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": capabilities},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
    ]
    server = subprocess.Popen([TANSAKU, "mcp", *PLACE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin
    assert server.stdout
    server.stdin.write("".join(json.dumps(message) + "\n" for message in messages))
    server.stdin.flush()
    answers = [json.loads(server.stdout.readline()) for _ in range(2)]
    server.communicate()
    assert "search" in [tool["name"] for tool in answers[1]["result"]["tools"]]


def client() -> None:
    """The client says which service does not answer."""
    said = ""
    try:
        tansaku.Client("http://127.0.0.1:9", tries=1).names()
    except tansaku.ClientError as error:
        said = str(error)
    assert "127.0.0.1:9" in said, said


def export() -> None:
    """`tansaku export` of the checkpoint that lies in the folder, if one does."""
    command("export", "checkpoint", "bundle")
    assert tansaku.Encoder.load("bundle").encode_queries(["都"])


def unigram() -> None:
    """Export a checkpoint with a Unigram tokenizer; the bundle's token ids are those of the checkpoint's own file."""
    from tokenizers import Tokenizer

    command("export", "checkpoint", "bundle")
    texts = [*TEXTS.values(), "１９９８年 ﾊﾝｶｸ ㈱探索\u3000テスト", "late interaction, 😀 ﬁ"]
    own = Tokenizer.from_file("checkpoint/tokenizer.json")
    for text, read in zip(texts, tansaku.Encoder.load("bundle").tokenize_documents(texts), strict=True):
        whole, marker = own.encode(text).ids, read.ids.tolist()[1]
        assert read.ids.tolist() == [whole[0], marker, *whole[1:]], text


def tensorboard() -> None:
    """The package that torch's writer of scalars needs; training brings torch."""
    from tensorboard.summary.writer import event_file_writer  # pyright: ignore[reportMissingImports]

    assert event_file_writer.EventFileWriter


def train() -> None:
    """The commands of training say what they want, and their modules can be imported."""
    import tansaku.training.run.trainer

    assert tansaku.training.run.trainer
    for name in ("train", "mine", "average", "weigh"):
        command(name, "--help")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        os.makedirs(name)
        os.chdir(name)
        if Path("../checkpoint").exists() and name in ("export", "unigram"):
            os.rename("../checkpoint", "checkpoint")
        globals()[name.replace("-", "_")]()
        os.chdir("..")
