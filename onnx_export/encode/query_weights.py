"""Query weights: how much each token of a query counts in MaxSim.

The sum over query tokens i of w_i · max_j q_i · d_j is MaxSim with the vectors w_i q_i. So a weighted query is one
whose vectors are as long as their tokens weigh; documents, indexes and engines that take inner products know nothing of
it. The weighted sum is that of Weighted Chamfer (Garg et al., 2025, arXiv 2511.16106), which has a weight for every
piece of the vocabulary; here a small network tells it from the token's vector, and so from its context.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from ..errors import BundleError


class QueryWeights:
    """Weighs the tokens of queries; open one with `QueryWeights.load`.

    Args:
        session: of the graph ``token_vectors``, float32 (tokens, dim) → ``weights``, float32 (tokens, 1), above 0 and 1
            on average.
    """

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    @classmethod
    def load(cls, path: Path, dim: int) -> QueryWeights:
        """Load the graph in the file ``path``; raises BundleError if it is none for vectors of ``dim`` dimensions."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises bare exceptions of its own
            raise BundleError(f"{path}: the query weights cannot be loaded ({error})") from error
        takes = [(value.name, value.shape[-1]) for value in session.get_inputs()]
        gives = [value.name for value in session.get_outputs()]
        if takes != [("token_vectors", dim)] or gives != ["weights"]:
            raise BundleError(
                f"{path}: takes {takes} and returns {gives}; expected token_vectors of {dim} dimensions and weights; "
                "make the query weights again"
            )
        return cls(session)

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """One query's token vectors, float32 (tokens, dim), each as long as its token weighs."""
        if not len(vectors):
            return vectors
        (weights,) = self._session.run(None, {"token_vectors": vectors})
        return vectors * np.asarray(weights)
