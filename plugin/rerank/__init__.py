"""Documents that another engine found, ranked by MaxSim: `Reranker` on its own, `HostSearch` behind an engine."""
