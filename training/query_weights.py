"""Query weights learned from judgements: how much each token of a query should count; all vectors stay as they are.

Every judged query is ranked by plain MaxSim over a pool of passages; its relevant passage and the best of the others
are kept, each as one similarity per query token. Weights are then a small network of a token's vector (see
`onnx_export.convert.query_weights_graph`), trained to put the relevant passage first.
The similarities take most of the time, encoding the passages the rest.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ..onnx_export.encode.encoder import Encoder
from ..onnx_export.progress import Progress, no_progress
from .errors import TrainingDataError

_QUERIES_PER_STEP = 64
_PASSAGES_PER_BATCH = 64  # whose similarities with queries are computed together
_QUERY_TOKENS_PER_BATCH = 512  # of those queries
_NEIGHBOURS = 16  # passages that stay together in a pool
_HELD_OUT = 0.1  # share of the queries
_SOFTPLUS_OF_ONE = 0.5413  # where softplus is 1


@dataclass(frozen=True)
class WeightsPlan:
    """How much is learned from, and how.

    Attributes:
        questions: largest number of judged queries.
        pool: number of passages that a query is ranked among.
        negatives: number of other passages that are kept for a query, the best ones.
        units: number of units of the network's hidden layer.
        epochs: largest number of epochs; the one that does best on held-out queries counts.
        learning_rate: learning rate of Adam.
        strength: share of the learned weights that is applied, 0 to 1. Below 1 weights are nearer to 1, which is safer
            for queries of other kinds than the judged ones.
        seed: seed of all random draws.
    """

    questions: int = 9_600
    pool: int = 3_200
    negatives: int = 64
    units: int = 64
    epochs: int = 4
    learning_rate: float = 2e-3
    strength: float = 0.5
    seed: int = 12345


class WeightsNetwork(torch.nn.Module):
    """A query token's weight from its vector: one hidden layer.

    Args:
        dim: length of a vector.
        units: number of units of the hidden layer.
    """

    def __init__(self, dim: int, units: int) -> None:
        super().__init__()
        self.hidden, self.out = torch.nn.Linear(dim, units), torch.nn.Linear(units, 1)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Numbers whose softplus is the weight, float32 (…, 1), for vectors, float32 (…, dim)."""
        return self.out(functional.gelu(self.hidden(vectors)))


@dataclass(frozen=True)
class FittedWeights:
    """A network, and its results on queries that it was not trained on.

    Attributes:
        network: the network that gives the weights.
        questions: number of queries it was trained on.
        held_out: number of queries it was not trained on.
        before: hit@1 of the held-out queries among their kept passages, without weights.
        after: the same with weights.
        strength: share of the weights that is applied.
    """

    network: WeightsNetwork
    questions: int
    held_out: int
    before: float
    after: float
    strength: float

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, float]:
        """The arguments of `add_query_weights` after the bundle."""
        hidden, out = self.network.hidden, self.network.out
        parts = [part.detach().numpy() for part in (hidden.weight, hidden.bias, out.weight[0], out.bias)]
        return parts[0], parts[1], parts[2], float(parts[3][0]), self.strength


@dataclass(frozen=True)
class _Similarities:
    """Query tokens with their similarities to the passages of their query: what the network is trained on.

    Attributes:
        vectors: float32 (tokens, dim).
        best: MaxSim of each token with its query's passages, the relevant one first: float32 (tokens, 1 + negatives).
        lengths: int64 (queries,), number of tokens of each query; they lie one after the other.
    """

    vectors: torch.Tensor
    best: torch.Tensor
    lengths: torch.Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def owners(self) -> torch.Tensor:
        """The query that each token belongs to: int64 (tokens,)."""
        return torch.repeat_interleave(torch.arange(len(self)), self.lengths)

    def of(self, numbers: torch.Tensor) -> _Similarities:
        """The part that belongs to some queries, given by number."""
        lengths = self.lengths[numbers]
        ends = lengths.cumsum(0)
        first = (self.lengths.cumsum(0) - self.lengths)[numbers]
        rows = torch.arange(int(lengths.sum())) + torch.repeat_interleave(first - (ends - lengths), lengths)
        return _Similarities(self.vectors[rows], self.best[rows], lengths)

    def scores(self, weights: torch.Tensor | None = None) -> torch.Tensor:
        """MaxSim of the queries with their passages, the relevant one first: float32 (queries, 1 + negatives).

        Args:
            weights: float32 (tokens, 1); None gives all tokens the same.
        """
        best = self.best if weights is None else weights * self.best
        return torch.zeros(len(self), best.shape[1]).index_add(0, self.owners, best)

    def weights(self, network: WeightsNetwork) -> torch.Tensor:
        """The network's weights of the tokens: float32 (tokens, 1), above 0."""
        return functional.softplus(network(self.vectors))

    def applied(self, network: WeightsNetwork, strength: float) -> torch.Tensor:
        """Those weights as `add_query_weights` applies them: 1 on average over a query, nearer to 1 by ``strength``."""
        weights = self.weights(network)
        sums = torch.zeros(len(self), 1).index_add(0, self.owners, weights)
        return 1 - strength + strength * weights / (sums / self.lengths[:, None])[self.owners]


def fit_query_weights(
    encoder: Encoder,
    queries: Mapping[str, str],
    passages: Mapping[str, str],
    judgements: Mapping[str, Mapping[str, int]],
    *,
    plan: WeightsPlan | None = None,
    progress: Progress = no_progress,
    note: Callable[[str], None] | None = None,
) -> FittedWeights:
    """Learn how much the tokens of queries should count.

    Args:
        encoder: encoder whose query vectors are weighted; weights that it has already are ignored.
        queries: query id → text.
        passages: passage id → text. Neighbours beside one another make hard negatives.
        judgements: query id → passage id → grade.
        plan: amounts and settings; None takes the defaults of `WeightsPlan`.
        progress: called with the stage "weigh" as passages get their similarities with the queries.
        note: called with a line of text about each part of the work.

    Returns:
        The network, with its results on held-out queries.

    Raises:
        TrainingDataError: there are too few judged queries or passages, or the weights do not help.
    """
    plan, note = plan or WeightsPlan(), note or (lambda _: None)
    pools = _pools(queries, passages, judgements, plan)
    total, parts = sum(len(pool) for _, pool in pools), []
    for number, (asked, pool) in enumerate(pools):
        note(f"{len(asked):,} questions among {len(pool):,} passages")
        texts = [queries[query] for query, _ in asked]
        numbers = {passage: place for place, passage in enumerate(pool)}
        relevant = [[numbers[first], *_others(numbers, judgements[query], first)] for query, first in asked]
        if len(pool) < plan.negatives + max(map(len, relevant)):
            raise TrainingDataError(
                f"{len(pool)} passages are too few: a query needs {plan.negatives} that are not relevant; give more"
            )

        def show(done: int, before: int = number * len(pool)) -> None:
            progress("weigh", before + done, total, 0)

        parts.append(_similarities(encoder, texts, [passages[p] for p in pool], relevant, plan.negatives, show))
    data = _Similarities(*(torch.cat([getattr(p, name) for p in parts]) for name in ("vectors", "best", "lengths")))
    order = torch.from_numpy(np.random.default_rng(plan.seed).permutation(len(data)))
    held_out, trained_on = order.tensor_split([int(len(data) * _HELD_OUT)])
    if not len(held_out):
        raise TrainingDataError(
            f"{len(data)} judged queries are too few to learn weights from and to hold some out; give more"
        )
    others = data.of(held_out)
    before = _hits(others.scores())
    network = _train(data, trained_on, others, plan, note)
    with torch.no_grad():
        after = _hits(others.scores(others.applied(network, plan.strength)))
    if after < before:
        raise TrainingDataError(
            f"the weights do not help: hit@1 of {len(held_out):,} held-out queries is {before:.4f} without and "
            f"{after:.4f} with them; the bundle is not changed"
        )
    return FittedWeights(network, len(trained_on), len(held_out), before, after, plan.strength)


def _pools(
    queries: Mapping[str, str],
    passages: Mapping[str, str],
    judgements: Mapping[str, Mapping[str, int]],
    plan: WeightsPlan,
) -> list[tuple[list[tuple[str, str]], list[str]]]:
    """Queries with a relevant passage of the pool, and the pool; until there are enough queries."""
    drawn = random.Random(plan.seed)  # noqa: S311
    ids = list(passages)
    asking: dict[str, list[str]] = {}
    for query, found in judgements.items():
        for passage, grade in found.items() if query in queries else ():
            if grade > 0 and passage in passages:
                asking.setdefault(passage, []).append(query)
    blocks = [ids[start : start + _NEIGHBOURS] for start in range(0, len(ids), _NEIGHBOURS)]
    drawn.shuffle(blocks)
    blocks.sort(key=lambda block: not any(passage in asking for passage in block))
    shuffled = [passage for block in blocks for passage in block]
    most = min(plan.pool, len(shuffled))
    pools, left = [], plan.questions
    for start in range(0, len(shuffled) - most + 1, most):
        pool = shuffled[start : start + most]
        asked = [(query, passage) for passage in pool for query in asking.get(passage, ())]
        asked = drawn.sample(asked, min(left, len(asked)))
        left -= len(asked)
        if asked:
            pools.append((asked, pool))
        if left <= plan.questions // 10:  # another pool would be encoded for little
            break
    if not pools:
        raise TrainingDataError("no judged query has its relevant passage in the collection")
    return pools


def _others(numbers: Mapping[str, int], found: Mapping[str, int], first: str) -> list[int]:
    """The numbers of the passages of a pool that are relevant beside the first."""
    return [numbers[p] for p, grade in found.items() if grade > 0 and p != first and p in numbers]


@torch.inference_mode()
def _similarities(
    encoder: Encoder,
    queries: Sequence[str],
    passages: Sequence[str],
    relevant: Sequence[list[int]],
    negatives: int,
    show: Callable[[int], None],
) -> _Similarities:
    """Similarities of queries with the first of their relevant passages and the best that are not relevant."""
    asked = encoder.encode_tokens(encoder.tokenize_queries(queries))
    lengths = torch.tensor([len(vectors) for vectors in asked])
    vectors = torch.from_numpy(np.concatenate(asked))
    best = torch.empty(len(vectors), len(passages), dtype=torch.float16)
    for start in range(0, len(passages), _PASSAGES_PER_BATCH):
        found = [torch.from_numpy(v) for v in encoder.encode_documents(passages[start : start + _PASSAGES_PER_BATCH])]
        # Short ones are padded with their own first vector, which does not change MaxSim.
        longest = max(map(len, found))
        filled = torch.stack([torch.cat([v, v[:1].expand(longest - len(v), -1)]) for v in found])
        for row in range(0, len(vectors), _QUERY_TOKENS_PER_BATCH):
            products = (vectors[row : row + _QUERY_TOKENS_PER_BATCH] @ filled.flatten(0, 1).T).unflatten(
                1, filled.shape[:2]
            )
            best[row : row + _QUERY_TOKENS_PER_BATCH, start : start + len(found)] = products.amax(dim=-1)
        show(start + len(found))
    owners = torch.repeat_interleave(torch.arange(len(asked)), lengths)
    scores = torch.zeros(len(asked), len(passages)).index_add_(0, owners, best.float())
    for row, numbers in enumerate(relevant):
        scores[row, numbers] = -torch.inf
    first = torch.tensor([numbers[:1] for numbers in relevant])
    others = scores.topk(negatives, dim=1).indices
    kept = best.gather(1, torch.cat([first, others], dim=1)[owners])
    return _Similarities(vectors, kept.float(), lengths)


def _train(
    data: _Similarities,
    trained_on: torch.Tensor,
    held_out: _Similarities,
    plan: WeightsPlan,
    note: Callable[[str], None],
) -> WeightsNetwork:
    """The network as it was after the epoch that did best on ``held_out``."""
    random = torch.Generator().manual_seed(plan.seed)
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        network = WeightsNetwork(data.vectors.shape[1], plan.units)
    # Nearly all weights are 1 at first.
    network.out.weight.data.mul_(0.1)
    network.out.bias.data.fill_(_SOFTPLUS_OF_ONE)
    sharpness = torch.nn.Parameter(torch.ones(()))
    optimizer = torch.optim.Adam([*network.parameters(), sharpness], lr=plan.learning_rate)

    def loss_of(some: _Similarities) -> torch.Tensor:
        scores = some.scores(some.weights(network))
        return functional.cross_entropy(sharpness.exp() * scores, torch.zeros(len(some), dtype=torch.int64))

    least, chosen = float("inf"), network.state_dict()
    for epoch in range(1, plan.epochs + 1):
        for numbers in trained_on[torch.randperm(len(trained_on), generator=random)].split(_QUERIES_PER_STEP):
            optimizer.zero_grad()
            loss_of(data.of(numbers)).backward()
            optimizer.step()
        with torch.no_grad():
            loss = float(loss_of(held_out))
        note(f"epoch {epoch}: loss of held-out queries {loss:.4f}")
        if loss < least:
            least, chosen = loss, {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(chosen)
    return network.requires_grad_(False)


def _hits(scores: torch.Tensor) -> float:
    """The share of queries whose first passage scores highest."""
    return float((scores[:, :1] > scores[:, 1:]).all(dim=1).float().mean())
