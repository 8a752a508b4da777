"""Run an encoder bundle: texts → token vectors, with onnxruntime and tokenizers only."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from ..cores import usable_cores
from ..errors import BundleError, InputError
from ..kinds import check_whole
from .bundle import Bundle, read_bundle
from .external_data import names_other_files
from .find_bundle import DEFAULT_BUNDLE
from .growth import MAX_GROWTH, growth
from .patterns import problem
from .query_weights import QueryWeights
from .run import run_graph
from .segmenter import load_segmenter
from .tokenize import Span, TextTokenizer, TokenizedText, tokenizer_errors

# Tokens per run of the graph. What passes between two operators then stays in a core's cache: 128 to 1,024 tokens are
# equally fast, 2,048 a fifth slower (measured on an AMD EPYC).
_TOKENS_PER_RUN = 512

# ONNX Runtime would fuse Add and LayerNormalization into an operator that takes eight times as long on a CPU.
SLOW_FUSIONS = ["SkipLayerNormFusion"]

_PROBE = "試験"  # a text that every bundle must encode


@dataclass(frozen=True)
class _Opened:
    """A bundle as it is loaded in one process."""

    process: int
    session: onnxruntime.InferenceSession
    query_weights: QueryWeights | None
    tokenize_query: TextTokenizer
    tokenize_document: TextTokenizer


class Encoder:
    """A ColBERT encoder on the CPU; `Encoder.load` opens one.

    May be used from several threads at the same time. A process that is forked from the one that loaded it loads the
    bundle again when it first encodes. Pickled, an encoder is the place of its bundle: whoever unpickles it loads that.

    Attributes:
        bundle: the bundle that it runs.

    Example:
        >>> from tansaku import Encoder
        >>> encoder = Encoder.load()
        >>> (query,) = encoder.encode_queries(["梅雨がないのはどこですか"])
        >>> (document,) = encoder.encode_documents(["北海道には梅雨がない。"])
        >>> query.shape[1], document.dtype
        (128, dtype('float32'))
        >>> score = (query @ document.T).max(axis=1).sum()  # MaxSim
        >>> bool(score > 0)
        True
    """

    _folder: Path | None = None  # where it was loaded from

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
        self._threads = threads
        segmenter = load_segmenter(bundle.segmenter, tokenizer)
        self._opened = _Opened(
            os.getpid(),
            session,
            query_weights,
            TextTokenizer(tokenizer, bundle.query, segmenter),
            TextTokenizer(tokenizer, bundle.document, segmenter),
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, *, threads: int | None = None) -> Encoder:
        """Load a bundle.

        Args:
            path: the bundle's folder, as `export_checkpoint` writes it; None loads the model that ships with tansaku.
            threads: number of runs of the graph at the same time; None means one for each core that this process may
                use. Each run takes one thread: for many texts that is twice as fast as several threads in each run.

        Returns:
            The encoder.

        Raises:
            BundleError: the bundle is missing, incomplete or altered; its graph needs other files; its tokenizer makes
                texts many times longer or may take too long; or it does not encode a sentence as vectors of
                ``bundle.dim`` finite numbers.
            InputError: ``threads`` is less than 1.
            MissingExtraError: the bundle's word segmenter needs an extra that is not installed.
        """
        if threads is not None:
            check_whole("threads", threads)
        folder = DEFAULT_BUNDLE if path is None else Path(path)
        bundle = read_bundle(folder)
        threads = threads or usable_cores()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised; their text comes from the file
        for name in filter(None, (bundle.graph, bundle.query_weights)):
            _check_alone(folder / name)
        _check_tokenizer(folder / bundle.tokenizer)
        try:
            session = onnxruntime.InferenceSession(
                str(folder / bundle.graph),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=SLOW_FUSIONS,
                enable_fallback=0,  # to the same provider; it prints to stdout, where MCP talks
            )
            with tokenizer_errors():
                tokenizer = Tokenizer.from_file(str(folder / bundle.tokenizer))
        except Exception as error:  # both libraries raise bare exceptions of their own
            raise BundleError(
                f"{folder}: the graph or the tokenizer cannot be loaded ({error}); copy the bundle again"
            ) from error
        _check_graph(session, bundle, folder / bundle.graph)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        weights = None
        if bundle.query_weights is not None:
            weights = QueryWeights.load(folder / bundle.query_weights, bundle.dim)
        try:
            encoder = cls(bundle, session, tokenizer, weights, threads=threads)
        except BundleError as error:  # of the segmenter or the text rules, which do not know the folder
            raise BundleError(f"{folder}: {error}") from error
        encoder._folder = folder.absolute()
        encoder._probe()
        return encoder

    def __reduce__(self) -> tuple[Any, ...]:
        if self._folder is None:
            raise InputError(
                f"the encoder {self.bundle.name!r} was not loaded from a bundle and cannot be pickled; load it"
            )
        folder = None if self._folder == DEFAULT_BUNDLE.absolute() else self._folder
        return _load_again, (folder, self._threads, self.bundle.scoring_fingerprint)

    def elsewhere(self, threads: int) -> Callable[[], Encoder]:
        """A function that loads this encoder in another process; it can be pickled.

        Args:
            threads: number of runs of the graph at the same time there.

        Returns:
            The function. It raises BundleError if another bundle, or none, is in that place.

        Raises:
            InputError: the encoder was not loaded from a bundle.
        """
        _, (folder, _, fingerprint) = self.__reduce__()
        return partial(_load_again, folder, threads, fingerprint)

    def _probe(self) -> None:
        """Encode a short text by both rules, which is what a search does first: some hundredths of a second."""
        try:
            self.encode_queries([_PROBE])
            self.encode_documents([_PROBE])
        except BundleError as error:
            raise BundleError(f"{self._folder}: {error}") from error

    @property
    def _parts(self) -> _Opened:
        """What runs in this process: at a fork, threads of the parent may have held locks of all this for ever."""
        if self._opened.process != os.getpid():
            if self._folder is None:
                raise InputError(
                    f"the encoder {self.bundle.name!r} was made before this process was forked, and not loaded from a "
                    "bundle; load one here with `Encoder.load`"
                )
            self._opened = _load_again(self._folder, self._threads, self.bundle.scoring_fingerprint)._opened
        return self._opened

    @property
    def folder(self) -> Path | None:
        """Folder of the bundle that it was loaded from; None for an encoder that was made in another way."""
        return self._folder

    @property
    def dim(self) -> int:
        """Length of a token vector."""
        return self.bundle.dim

    def encode_queries(self, texts: Iterable[str]) -> list[np.ndarray]:
        """Encode queries as token vectors.

        Args:
            texts: the queries. One of more than ``bundle.query.max_length`` tokens is cut there;
                `TokenizedText.truncated` of `tokenize_queries` shows which.

        Returns:
            For each query an array, float32 (tokens, dim). Mask tokens that the bundle's rules add are among the
            tokens. Vectors have unit length; if the bundle has query weights, each vector is as long as its token's
            weight, 1 on average over a query. MaxSim of a weighted query takes inner products, not cosines.

        Raises:
            InputError: a query is empty or not a str, or ``texts`` is one str; the message gives its position.
        """
        return self.encode_query_tokens(self.tokenize_queries(texts))

    def encode_query_tokens(self, tokenized: Sequence[TokenizedText]) -> list[np.ndarray]:
        """Encode tokenized queries: the second half of `encode_queries`.

        Args:
            tokenized: what `tokenize_queries` gave.

        Returns:
            As `encode_queries`.

        Raises:
            BundleError: as `encode_tokens`.
        """
        vectors = self.encode_tokens(tokenized)
        weigh = self._parts.query_weights
        return vectors if weigh is None else [weigh(matrix) for matrix in vectors]

    def encode_documents(self, texts: Iterable[str]) -> list[np.ndarray]:
        """Encode documents as token vectors.

        Args:
            texts: the documents. One of more than ``bundle.document.max_length`` tokens is cut there;
                `TokenizedText.truncated` of `tokenize_documents` shows which.

        Returns:
            For each document an array, float32 (tokens, dim), of vectors of unit length.

        Raises:
            InputError: a document is empty or not a str, or ``texts`` is one str; the message gives its position.
        """
        return self.encode_tokens(self.tokenize_documents(texts))

    def tokenize_queries(self, texts: Iterable[str]) -> list[TokenizedText]:
        """Tokenize queries: the first half of `encode_queries`; `encode_query_tokens` is the second.

        Args:
            texts: the queries.

        Returns:
            The tokens of each query.

        Raises:
            InputError: as `encode_queries`.
        """
        return self._parts.tokenize_query(_texts(texts))

    def tokenize_documents(self, texts: Iterable[str]) -> list[TokenizedText]:
        """Tokenize documents: the first half of `encode_documents`.

        Args:
            texts: the documents.

        Returns:
            The tokens of each document.

        Raises:
            InputError: as `encode_documents`.
        """
        return self._parts.tokenize_document(_texts(texts))

    def count_document_tokens(self, texts: Iterable[str]) -> list[int]:
        """Count the tokens of each document before it is cut.

        Args:
            texts: the documents.

        Returns:
            For each document its number of tokens. One of more than ``bundle.document.max_length`` is cut by
            `encode_documents`.

        Raises:
            InputError: as `encode_documents`.
        """
        return self._parts.tokenize_document.count(_texts(texts))

    def query_spans(self, text: str) -> list[Span]:
        """Find where in a query the token of each of its vectors stands.

        Args:
            text: the query.

        Returns:
            For each vector that `encode_queries` gives for ``text``: the positions of the token's first character and
            of the one after its last, or None for a marker, end or mask token.

        Raises:
            InputError: as `encode_queries`.
        """
        return self._parts.tokenize_query.spans(text)

    def document_spans(self, text: str) -> list[Span]:
        """Find where in a document the token of each of its vectors stands.

        Args:
            text: the document.

        Returns:
            As `query_spans`, for the vectors that `encode_documents` gives.

        Raises:
            InputError: as `encode_documents`.
        """
        return self._parts.tokenize_document.spans(text)

    def encode_tokens(
        self, tokenized: Sequence[TokenizedText], note: Callable[[int], None] | None = None
    ) -> list[np.ndarray]:
        """Encode tokenized texts, without query weights: the second half of `encode_documents`.

        Texts of one length run together, at most 512 tokens at a time in each thread, so working memory does not grow
        with the number of texts.

        Args:
            tokenized: what `tokenize_queries` or `tokenize_documents` gave.
            note: called now and then, in this thread, with the number of texts that are done.

        Returns:
            For each text the vectors that it keeps: float32 (tokens, dim), unit length, without query weights.

        Raises:
            BundleError: the graph cannot be run, or its vectors have another shape or are not finite.
        """
        session = self._parts.session
        vectors: list[np.ndarray] = [np.empty((0, self.dim), np.float32)] * len(tokenized)

        def encode(run: list[int]) -> int:
            inputs = graph_inputs([tokenized[i] for i in run])
            output = run_graph(session, self.bundle.name, inputs, (*inputs["input_ids"].shape, self.dim))
            for row, i in enumerate(run):
                vectors[i] = output[row][tokenized[i].keep]
            return len(run)

        def count(lengths: Iterable[int]) -> None:
            for done in accumulate(lengths):
                if note is not None:
                    note(done)

        all_runs = list(runs(tokenized, _TOKENS_PER_RUN))
        if self._threads == 1 or len(all_runs) == 1:
            count(map(encode, all_runs))
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                count(pool.map(encode, all_runs))
        return vectors


def _load_again(folder: Path | None, threads: int, fingerprint: str) -> Encoder:
    encoder = Encoder.load(folder, threads=threads)
    if encoder.bundle.scoring_fingerprint != fingerprint:
        raise BundleError(
            f"{folder or DEFAULT_BUNDLE}: another bundle has taken the place of the one that was loaded before the "
            "fork or pickled; put that one back, or load this one with `Encoder.load`"
        )
    return encoder


def graph_inputs(texts: Sequence[TokenizedText]) -> dict[str, np.ndarray]:
    """The graph's inputs for ``texts``: int64 (texts, longest), padded with zeros that no token attends to."""
    shape = len(texts), max(len(text.ids) for text in texts)
    ids, attention = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)] = text.ids
        attention[row, : len(text.ids)] = text.attention
    return {"input_ids": ids, "attention_mask": attention}


def runs(texts: Sequence[TokenizedText], limit: int) -> Iterator[list[int]]:
    """Positions of the texts that run together, longest first, so that the largest allocation comes first.

    All texts of a run have the same length, so nothing is padded, and the same number of attended positions, so all
    take the same branch of the graph. A text's vectors are then the same to the last bit, whatever other texts are
    encoded with it. A run has at most ``limit`` tokens, or one text.
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
        raise InputError("expected a list of texts, found one str; put it in a list")
    return list(texts)


def _check_alone(path: Path) -> None:
    """Refuse a graph that keeps values in other files: those have no sha256, and any path may be named."""
    try:
        others = names_other_files(path)
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{path.parent}: the graph or the tokenizer cannot be loaded ({path.name}: {error}); copy the bundle again"
        ) from error
    if others:
        raise BundleError(
            f"{path}: keeps its weights in other files, which bundle.json cannot vouch for; save the graph as one "
            "file, or export the checkpoint again"
        )


def _check_tokenizer(path: Path) -> None:
    try:
        content = json.loads(path.read_bytes())
        factor, slow = growth(content), problem(content)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(
            f"{path.parent}: the graph or the tokenizer cannot be loaded ({path.name}: {error}); copy the bundle again"
        ) from error
    if factor > MAX_GROWTH:
        raise BundleError(
            f"{path}: may make a text {factor:,.0f} times as long; at most {MAX_GROWTH:,.0f} times is allowed: "
            "use another tokenizer"
        )
    if slow:
        raise BundleError(
            f"{path}: {slow}; use another tokenizer, or write the pattern without repetitions that overlap"
        )


def _check_graph(session: onnxruntime.InferenceSession, bundle: Bundle, path: Path) -> None:
    try:
        inputs = sorted(value.name for value in session.get_inputs())
        shape = session.get_outputs()[0].shape
    except (ValueError, IndexError) as error:  # a name that is not UTF-8, or no output
        raise BundleError(f"{path}: cannot be read ({error}); copy the bundle again") from error
    dim = shape[-1] if len(shape) == 3 else "no"
    if len(shape) != 3 or inputs != ["attention_mask", "input_ids"] or (isinstance(dim, int) and dim != bundle.dim):
        raise BundleError(
            f"{path}: takes {', '.join(inputs)} and returns vectors of {dim} dimensions; expected attention_mask, "
            f"input_ids and {bundle.dim} dimensions, as bundle.json says; export the checkpoint again"
        )
