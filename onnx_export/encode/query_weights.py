"""Query weights: how much each token of a query counts in MaxSim.

The sum over query tokens i of w_i · max_j q_i · d_j is MaxSim with the vectors w_i q_i. So in a weighted query each
vector is as long as its token's weight. Documents, indexes and engines that take inner products need no change. The
weighted sum is that of Weighted Chamfer (Garg et al., 2025, arXiv 2511.16106), which has one weight for each token of
the vocabulary; here a small network computes it from the token's vector, and so from its context.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from ..errors import BundleError
from .run import run_graph


class QueryWeights:
    """Weighs the tokens of queries; `QueryWeights.load` opens one.

    Args:
        session: runs the graph ``token_vectors``, float32 (tokens, dim) → ``weights``, float32 (tokens, 1). The weights
            are above 0 and 1 on average.
    """

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    @classmethod
    def load(cls, path: Path, dim: int) -> QueryWeights:
        """Load a graph of query weights.

        Args:
            path: its file.
            dim: length of the bundle's token vectors.

        Raises:
            BundleError: the file is not such a graph, or not for vectors of ``dim`` dimensions.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised; their text comes from the file
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            takes = [(value.name, value.shape[-1]) for value in session.get_inputs()]
            gives = [value.name for value in session.get_outputs()]
        except Exception as error:  # onnxruntime raises bare exceptions of its own
            raise BundleError(f"{path}: the query weights cannot be loaded ({error}); copy the bundle again") from error
        if takes != [("token_vectors", dim)] or gives != ["weights"]:
            raise BundleError(
                f"{path}: takes {takes} and returns {gives}; expected token_vectors of {dim} dimensions and weights; "
                "train the query weights again"
            )
        return cls(session)

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """One query's token vectors, float32 (tokens, dim), each multiplied by its token's weight.

        Raises:
            BundleError: the graph cannot be run, or its weights have another shape or are not finite.
        """
        if not len(vectors):
            return vectors
        return vectors * run_graph(self._session, "query weights", {"token_vectors": vectors}, (len(vectors), 1))
