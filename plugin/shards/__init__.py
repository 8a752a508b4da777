"""An index whose rows several servers search, each a part of them: in this process, or on a Ray cluster."""

from .searcher import ShardedSearcher, ShardLostError

__all__ = ["ShardLostError", "ShardedSearcher"]
