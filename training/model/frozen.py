"""The layers below the trained ones: they give the same result for a text at every step, so it is computed once.

The result, the hidden states at the first trained layer, is kept in a folder in bfloat16: 2 bytes for each dimension of
a token. Trainings that start from the same weights share it.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import struct
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from torch import nn

from ...onnx_export.encode.tokenize import TokenizedText
from ...onnx_export.errors import InputError

_RECORD = struct.Struct("<16sQI")  # of the index: key of a text, number of its first token, number of its tokens


class SplitBackbone:
    """A backbone cut in two below its trained layers. The lower part is frozen and runs without dropout.

    Args:
        backbone: a backbone whose layers are in one ModuleList and take the hidden states first; see `check`.
        trained: number of upper layers that are trained.
        precision: number format of the lower part.

    Raises:
        InputError: the backbone has fewer layers.
    """

    def __init__(self, backbone: nn.Module, trained: int, precision: torch.dtype = torch.float32) -> None:
        self._backbone, self._precision = backbone, precision
        self.kept: HiddenStates | None = None  # keeps the output of the lower part
        self._owner, self._name = _layers_of(backbone)
        layers = list(getattr(self._owner, self._name))
        if trained > len(layers):
            raise InputError(f"optimizer.trained_layers is {trained}; the model has {len(layers)} layers")
        backbone.requires_grad_(False)
        self._upper = nn.ModuleList(layers[len(layers) - trained :])
        self._upper.requires_grad_(True)

    def lower(self, texts: Sequence[TokenizedText], inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Hidden states at the first trained layer, without gradients.

        Args:
            texts: the texts, by which results are kept.
            inputs: the same texts, as the backbone takes them.

        Returns:
            float32 (texts, longest, hidden).
        """
        kept = self.kept
        found = [None if kept is None else kept.get(text) for text in texts]
        hidden = {i: states for i, states in enumerate(found) if states is not None}
        missing = [i for i in range(len(texts)) if i not in hidden]
        device = inputs["input_ids"].device
        if missing:
            chosen = torch.tensor(missing, device=device)
            computed = self._run_lower({name: array[chosen] for name, array in inputs.items()})
            for i, states in zip(missing, computed, strict=True):
                # In bfloat16 also if it is not kept, so that the numbers are the same.
                hidden[i] = states[: len(texts[i].ids)].to(torch.bfloat16)
                if kept is not None:
                    kept.put(texts[i], hidden[i])
        ordered = [hidden[i].to(device) for i in range(len(texts))]
        return nn.utils.rnn.pad_sequence(ordered, batch_first=True).float()

    def upper(self, hidden: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """The backbone's output for the hidden states that `lower` gave: (texts, longest, hidden)."""
        if not len(self._upper):
            return hidden
        lower_and_upper = getattr(self._owner, self._name)
        given = self._upper[0].register_forward_pre_hook(
            lambda _, args, kwargs: _with_first(args, kwargs, hidden), with_kwargs=True
        )
        setattr(self._owner, self._name, self._upper)
        try:
            return self._backbone(**inputs).last_hidden_state
        finally:
            setattr(self._owner, self._name, lower_and_upper)
            given.remove()

    def states(self, hidden: torch.Tensor, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Hidden states from `lower` and after each upper layer: 1 + trained times (texts, longest, hidden)."""
        reached = [hidden]
        hooks = [layer.register_forward_hook(lambda *given: reached.append(_first(given[-1]))) for layer in self._upper]
        try:
            self.upper(hidden, inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return reached

    def with_copied_layers(self) -> SplitBackbone:
        """The same lower part with a copy of the upper layers as they are now; the copy is never trained."""
        other = copy.copy(self)
        other._upper = copy.deepcopy(self._upper).requires_grad_(False).eval()
        return other

    @torch.no_grad()
    def _run_lower(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        low = self._precision != torch.float32
        with _evaluating(self._backbone), torch.autocast(inputs["input_ids"].device.type, self._precision, enabled=low):
            if not len(self._upper):
                return self._backbone(**inputs).last_hidden_state
            reached = self._upper[0].register_forward_pre_hook(_stop, with_kwargs=True)
            try:
                self._backbone(**inputs)
            except _Reached as stopped:
                return stopped.hidden
            finally:
                reached.remove()
        raise InputError(
            "the layers of this backbone do not take the hidden states first; leave out optimizer.trained_layers"
        )

    def check(self, inputs: dict[str, torch.Tensor]) -> None:
        """Check that both parts, one after the other, give the result of the whole backbone.

        Raises:
            InputError: they do not.
        """
        with _evaluating(self._backbone), torch.no_grad():
            whole = self._backbone(**inputs).last_hidden_state
            parts = self.upper(self._run_lower(inputs).float(), inputs)
        there = inputs["attention_mask"].bool()
        tolerance = 1e-3 if self._precision == torch.float32 else 0.1
        if not torch.allclose(whole[there], parts[there], rtol=tolerance, atol=tolerance):
            raise InputError(
                f"{type(self._backbone).__name__} cannot be cut at a layer; leave out optimizer.trained_layers"
            )

    def fingerprint(self) -> str:
        """Hash of the lower part's weights and its precision: 16 hexadecimal digits."""
        upper = {id(weight) for weight in self._upper.parameters()}
        layers = len(getattr(self._owner, self._name))
        about = f"{type(self._backbone).__name__} {layers} {len(self._upper)} {self._precision}"
        digest = hashlib.sha256(about.encode())
        for name, weight in sorted(self._backbone.named_parameters()):
            if id(weight) not in upper:
                digest.update(name.encode())
                digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


class HiddenStates:
    """Hidden states of texts on disk: a file that grows, and an index beside it. Only one process may write to it.

    Args:
        folder: folder of both files, made if it does not exist. The complete part of what an interrupted run left is
            used.
        size: number of dimensions of a hidden state.
    """

    def __init__(self, folder: Path, size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._bytes = folder, 2 * size
        self._size = size
        self._hidden = (folder / "hidden.bin").open("a+b")
        self._index = (folder / "index.bin").open("a+b")
        weakref.finalize(self, _close, self._hidden, self._index)
        self._places: dict[bytes, tuple[int, int]] = {}
        self._read_index()

    def __len__(self) -> int:
        return len(self._places)

    def get(self, text: TokenizedText) -> torch.Tensor | None:
        """The hidden states of a text, bfloat16 (tokens, size); None if they are not kept."""
        place = self._places.get(_key(text))
        if place is None:
            return None
        start, length = place
        self._hidden.seek(start * self._bytes)
        raw = bytearray(self._hidden.read(length * self._bytes))
        return torch.frombuffer(raw, dtype=torch.bfloat16).view(length, self._size)

    def put(self, text: TokenizedText, hidden: torch.Tensor) -> None:
        """Keep the hidden states of a text.

        Args:
            text: the text.
            hidden: bfloat16 (tokens, size).

        Raises:
            InputError: another process has written to the folder.
        """
        key = _key(text)
        if key in self._places:
            return
        if self._hidden.seek(0, 2) != self._tokens * self._bytes:
            raise InputError(f"{self._folder}: another training writes here; name another optimizer.activations")
        # The states before the index: an entry of the index is then complete.
        self._hidden.write(hidden.contiguous().cpu().view(torch.int16).numpy().tobytes())
        self._hidden.flush()
        self._places[key] = self._tokens, len(hidden)
        self._index.write(_RECORD.pack(key, self._tokens, len(hidden)))
        self._index.flush()
        self._tokens += len(hidden)

    def _read_index(self) -> None:
        self._index.seek(0)
        there = self._hidden.seek(0, 2) // self._bytes
        self._tokens = 0
        whole = 0
        content = self._index.read()
        for key, start, length in _RECORD.iter_unpack(content[: len(content) // _RECORD.size * _RECORD.size]):
            if start != self._tokens or start + length > there:
                break
            self._places[key] = start, length
            self._tokens = start + length
            whole += 1
        self._index.truncate(whole * _RECORD.size)
        self._hidden.truncate(self._tokens * self._bytes)


def _close(*files: BinaryIO) -> None:
    for file in files:
        file.close()


class _Reached(Exception):  # noqa: N818
    """Raised to stop at the first trained layer."""

    def __init__(self, hidden: torch.Tensor) -> None:
        self.hidden = hidden


def _stop(_: nn.Module, args: tuple, kwargs: dict) -> None:
    raise _Reached(args[0] if args else kwargs["hidden_states"])


def _with_first(args: tuple, kwargs: dict, hidden: torch.Tensor) -> tuple[tuple, dict]:
    return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})


def _first(output: torch.Tensor | tuple) -> torch.Tensor:
    """The hidden states in what a layer returns."""
    return output[0] if isinstance(output, tuple) else output


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def _layers_of(backbone: nn.Module) -> tuple[nn.Module, str]:
    """The module that owns the stack of layers, and the name of the attribute."""
    stacks = [
        (len(child), owner, name)
        for owner in backbone.modules()
        for name, child in owner.named_children()
        if isinstance(child, nn.ModuleList)
    ]
    if not stacks:
        raise InputError("the layers of this backbone were not found; leave out optimizer.trained_layers")
    _, owner, name = max(stacks, key=lambda stack: stack[0])
    return owner, name


def _key(text: TokenizedText) -> bytes:
    digest = hashlib.blake2b(text.ids.tobytes(), digest_size=16)
    digest.update(text.attention.tobytes())
    return digest.digest()
