"""Run an encoder bundle: texts → token vectors, with onnxruntime and tokenizers alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from .bundle import Bundle, read_bundle
from .errors import BundleError, InputError
from .tokenize import TextTokenizer, TokenizedText

DEFAULT_BUNDLE = Path(__file__).parent / "default_bundle"

# Padded tokens per run of the graph. Larger batches are no faster on a CPU and leave its caches.
_BATCH_TOKENS = 2048


class Encoder:
    """A ColBERT encoder on the CPU; open one with `Encoder.load`.

    Attributes:
        bundle: the bundle it runs.
    """

    def __init__(self, bundle: Bundle, session: onnxruntime.InferenceSession, tokenizer: Tokenizer) -> None:
        self.bundle = bundle
        self._session = session
        self._tokenize_query = TextTokenizer(tokenizer, bundle.query)
        self._tokenize_document = TextTokenizer(tokenizer, bundle.document)

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, *, threads: int | None = None) -> Encoder:
        """Load the bundle in folder ``path``, by default the one that ships inside.

        Args:
            path: a bundle folder, or None.
            threads: threads for one run of the graph; None takes all cores this process may use.

        Raises:
            BundleError: the bundle is missing, incomplete or altered.
            InputError: ``threads`` is less than 1.
        """
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}; it must be 1 or more")
        folder = DEFAULT_BUNDLE if path is None else Path(path)
        bundle = read_bundle(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or _usable_cores()
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(
                str(folder / bundle.graph), options, providers=["CPUExecutionProvider"]
            )
            tokenizer = Tokenizer.from_file(str(folder / bundle.tokenizer))
        except Exception as error:  # both libraries raise bare exceptions of their own
            raise BundleError(f"{folder}: the graph or the tokenizer cannot be loaded ({error})") from error
        _check_graph(session, bundle, folder / bundle.graph)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(bundle, session, tokenizer)

    @property
    def dim(self) -> int:
        """Length of a token vector."""
        return self.bundle.dim

    def encode_queries(self, texts: Iterable[str]) -> list[np.ndarray]:
        """Token vectors of each query: float32 (tokens, dim), unit length.

        Raises InputError for a query that is empty or not a str.
        """
        return self.encode_tokens(self._tokenize_query(_texts(texts)))

    def encode_documents(self, texts: Iterable[str]) -> list[np.ndarray]:
        """Token vectors of each document: float32 (tokens, dim), unit length.

        A document longer than ``bundle.document.max_length`` tokens is cut there; `tokenize_documents` tells
        which. Raises InputError for a document that is empty or not a str.
        """
        return self.encode_tokens(self.tokenize_documents(texts))

    def tokenize_documents(self, texts: Iterable[str]) -> list[TokenizedText]:
        """The first half of `encode_documents`."""
        return self._tokenize_document(_texts(texts))

    def encode_tokens(self, tokenized: Sequence[TokenizedText]) -> list[np.ndarray]:
        """The second half of `encode_queries` and `encode_documents`.

        Texts of like length run together, at most 2,048 padded tokens at a time, so working memory
        does not grow with the number of texts.
        """
        vectors: list[np.ndarray] = [np.empty((0, self.dim), np.float32)] * len(tokenized)
        for batch in _batches([len(text.ids) for text in tokenized]):
            length = max(len(tokenized[i].ids) for i in batch)
            ids = np.zeros((len(batch), length), np.int64)
            mask = np.zeros((len(batch), length), np.int64)
            for row, i in enumerate(batch):
                ids[row, : len(tokenized[i].ids)] = tokenized[i].ids
                mask[row, : len(tokenized[i].ids)] = 1
            (output,) = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
            for row, i in enumerate(batch):
                vectors[i] = np.asarray(output)[row, : len(tokenized[i].ids)][tokenized[i].keep]
        return vectors


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


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Positions grouped by length, longest first, so that the largest allocation comes first."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * lengths[batch[0]] > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
