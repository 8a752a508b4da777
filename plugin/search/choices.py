"""The words that search options may be. The command line's help shows them, so this module imports nothing heavy."""

from __future__ import annotations

from typing import Literal

RecallName = Literal["fast", "balanced", "exact"]
Recall = RecallName | float
"""How much of an index is examined: a name, or the share of exact MaxSim's best that is expected of the hits."""
LEAST_RECALL = 0.9  # as a number
SourceName = Literal["lists", "text", "fused"]
ScoreMode = Literal["mean", "raw", "logit"]
"""Scale of a score.

- "raw": MaxSim, the sum over the query's tokens of weight × similarity.
- "mean": MaxSim divided by the number of query tokens: a mean cosine, −1 to 1.
- "logit": the mean's log-odds, ln(mean / (1 − mean)), for callers that apply a sigmoid to scores.

The order of documents is the same on all of them.
"""
