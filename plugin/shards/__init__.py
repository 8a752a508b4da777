"""An index whose rows several servers search, each a part of them: in this process, or on a Ray cluster."""

from .on_ray import open_on_ray
from .searcher import ShardedSearcher, ShardLostError

__all__ = ["ShardLostError", "ShardedSearcher", "open_on_ray"]
