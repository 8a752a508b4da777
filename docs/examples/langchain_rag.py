"""Answer a question from retrieved documents with LangChain; leaves nothing behind.

pip install 'tansaku[langchain]'
python langchain_rag.py
"""

import tempfile

from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from tansaku.plugin.hosts.langchain import TansakuVectorStore

documents = [
    Document("金閣寺は室町時代に足利義満が建てた。", id="kinkaku", metadata={"source": "寺院"}),
    Document("二条城は徳川家康が京都に築いた城である。", id="nijo", metadata={"source": "城"}),
    Document("琵琶湖は日本で最も大きい湖である。", id="biwa", metadata={"source": "湖"}),
]
folder = tempfile.TemporaryDirectory()  # keep the database in a folder of yours
store = TansakuVectorStore(folder.name, "rag")
store.add_documents(documents)

prompt = ChatPromptTemplate.from_template("次の文書だけを使って答えてください。\n\n{context}\n\n質問: {question}")
model = FakeListChatModel(responses=["足利義満です。"])  # your own chat model here


def context(found: list[Document]) -> str:
    """The retrieved texts, for the prompt."""
    return "\n".join(document.page_content for document in found)


retriever = store.as_retriever(search_kwargs={"k": 1})
chain = {"context": retriever | context, "question": RunnablePassthrough()} | prompt | model | StrOutputParser()
question = "金閣寺を建てたのは誰ですか"
print(context(retriever.invoke(question)))
print(chain.invoke(question))
folder.cleanup()
