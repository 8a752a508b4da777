"""Run an encoder bundle: texts → token vectors, with onnxruntime and tokenizers alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from ..cores import usable_cores
from ..errors import BundleError, InputError
from .bundle import Bundle, read_bundle
from .query_weights import QueryWeights
from .segmenter import load_segmenter
from .tokenize import Span, TextTokenizer, TokenizedText

DEFAULT_BUNDLE = Path(__file__).parents[1] / "default_bundle"

# Tokens per run of the graph: what passes between two operators then stays in a core's cache. 128 to 1,024 are
# as fast here, 2,048 is a fifth slower.
_TOKENS_PER_RUN = 512

# ONNX Runtime would fuse Add and LayerNormalization into an operator that takes eight times as long on a CPU.
SLOW_FUSIONS = ["SkipLayerNormFusion"]


class Encoder:
    """A ColBERT encoder on the CPU; open one with `Encoder.load`.

    Attributes:
        bundle: the bundle it runs.
    """

    def __init__(
        self,
        bundle: Bundle,
        session: onnxruntime.InferenceSession,
        tokenizer: Tokenizer,
        query_weights: QueryWeights | None = None,
        *,
        threads: int = 1,
    ) -> None:
        self.bundle = bundle
        self._session = session
        self._query_weights = query_weights
        self._threads = threads
        segmenter = load_segmenter(bundle.segmenter, tokenizer)
        self._tokenize_query = TextTokenizer(tokenizer, bundle.query, segmenter)
        self._tokenize_document = TextTokenizer(tokenizer, bundle.document, segmenter)

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, *, threads: int | None = None) -> Encoder:
        """Load the bundle in folder ``path``, by default the one that ships inside.

        Args:
            path: a bundle folder, or None.
            threads: runs of the graph at the same time; None takes as many as this process may use cores. Each run
                takes one thread: for many texts that is twice as fast as several threads in each run.

        Raises:
            BundleError: the bundle is missing, incomplete or altered.
            InputError: ``threads`` is less than 1.
            MissingExtraError: the bundle's tokenizer needs an extra that is not installed.
        """
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}; it must be 1 or more")
        folder = DEFAULT_BUNDLE if path is None else Path(path)
        bundle = read_bundle(folder)
        threads = threads or usable_cores()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(
                str(folder / bundle.graph),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=SLOW_FUSIONS,
            )
            tokenizer = Tokenizer.from_file(str(folder / bundle.tokenizer))
        except Exception as error:  # both libraries raise bare exceptions of their own
            raise BundleError(f"{folder}: the graph or the tokenizer cannot be loaded ({error})") from error
        _check_graph(session, bundle, folder / bundle.graph)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        weights = bundle.query_weights and QueryWeights.load(folder / bundle.query_weights, bundle.dim)
        return cls(bundle, session, tokenizer, weights or None, threads=threads)

    @property
    def dim(self) -> int:
        """Length of a token vector."""
        return self.bundle.dim

    def encode_queries(self, texts: Iterable[str]) -> list[np.ndarray]:
        """Token vectors of each query: float32 (tokens, dim), unit length.

        If the bundle has query weights, vectors are as long as their tokens weigh, 1 on average over a query: MaxSim is
        to be taken of inner products, not of cosines.

        Mask tokens that the bundle's rules add have vectors too. A query longer than ``bundle.query.max_length``
        tokens is cut there; `tokenize_queries` tells which. Raises InputError for a query that is empty or not a str.
        """
        vectors = self.encode_tokens(self.tokenize_queries(texts))
        return vectors if self._query_weights is None else [self._query_weights(matrix) for matrix in vectors]

    def encode_documents(self, texts: Iterable[str]) -> list[np.ndarray]:
        """Token vectors of each document: float32 (tokens, dim), unit length.

        A document longer than ``bundle.document.max_length`` tokens is cut there; `tokenize_documents` tells
        which. Raises InputError for a document that is empty or not a str.
        """
        return self.encode_tokens(self.tokenize_documents(texts))

    def tokenize_queries(self, texts: Iterable[str]) -> list[TokenizedText]:
        """The first half of `encode_queries`; weights, if there are any, come after `encode_tokens`."""
        return self._tokenize_query(_texts(texts))

    def tokenize_documents(self, texts: Iterable[str]) -> list[TokenizedText]:
        """The first half of `encode_documents`."""
        return self._tokenize_document(_texts(texts))

    def count_document_tokens(self, texts: Iterable[str]) -> list[int]:
        """Tokens of each document before it is cut; one of more than ``bundle.document.max_length`` is cut."""
        return self._tokenize_document.count(_texts(texts))

    def query_spans(self, text: str) -> list[Span]:
        """For each vector of a query, where in ``text`` its token stands; see `TextTokenizer.spans`."""
        return self._tokenize_query.spans(text)

    def document_spans(self, text: str) -> list[Span]:
        """For each vector of a document, where in ``text`` its token stands; see `TextTokenizer.spans`."""
        return self._tokenize_document.spans(text)

    def encode_tokens(self, tokenized: Sequence[TokenizedText]) -> list[np.ndarray]:
        """The second half of `encode_queries` and `encode_documents`.

        Texts of one length run together, at most 512 tokens at a time in each thread, so working memory does not grow
        with the number of texts.
        """
        vectors: list[np.ndarray] = [np.empty((0, self.dim), np.float32)] * len(tokenized)

        def encode(run: list[int]) -> None:
            (output,) = self._session.run(None, graph_inputs([tokenized[i] for i in run]))
            for row, i in enumerate(run):
                vectors[i] = np.asarray(output)[row][tokenized[i].keep]

        all_runs = list(runs(tokenized, _TOKENS_PER_RUN))
        if self._threads == 1 or len(all_runs) == 1:
            for run in all_runs:
                encode(run)
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                list(pool.map(encode, all_runs))
        return vectors


def graph_inputs(texts: Sequence[TokenizedText]) -> dict[str, np.ndarray]:
    """What the graph takes for ``texts``: int64 (texts, longest), filled up with zeros that nothing attends to."""
    shape = len(texts), max(len(text.ids) for text in texts)
    ids, attention = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)] = text.ids
        attention[row, : len(text.ids)] = text.attention
    return {"input_ids": ids, "attention_mask": attention}


def runs(texts: Sequence[TokenizedText], limit: int) -> Iterator[list[int]]:
    """Positions of the texts that run together, longest first, so that the largest allocation comes first.

    All texts of a run have one length, so nothing is padded, and as many attended positions, so that all take one
    way through the graph: a text's vectors are then the same to the last bit alone and beside others. A run has at
    most ``limit`` tokens, unless it is one text alone.
    """
    shapes = [(len(text.ids), int(text.attention.sum())) for text in texts]
    run: list[int] = []
    for i in sorted(range(len(shapes)), key=lambda i: shapes[i], reverse=True):
        if run and (shapes[i] != shapes[run[0]] or (len(run) + 1) * shapes[i][0] > limit):
            yield run
            run = []
        run.append(i)
    if run:
        yield run


def _texts(texts: Iterable[str]) -> list[str]:
    # A str is a sequence of str too: its characters would be encoded one by one.
    if isinstance(texts, str):
        raise InputError("expected a list of texts, got one str; put it in a list")
    return list(texts)


def _check_graph(session: onnxruntime.InferenceSession, bundle: Bundle, path: Path) -> None:
    inputs = sorted(value.name for value in session.get_inputs())
    shape = session.get_outputs()[0].shape
    dim = shape[-1] if len(shape) == 3 else "no"
    if len(shape) != 3 or inputs != ["attention_mask", "input_ids"] or (isinstance(dim, int) and dim != bundle.dim):
        raise BundleError(
            f"{path}: takes {', '.join(inputs)} and returns vectors of {dim} dimensions; expected attention_mask, "
            f"input_ids and {bundle.dim}, as bundle.json says; export the checkpoint again"
        )
