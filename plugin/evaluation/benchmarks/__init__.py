"""Public Japanese benchmarks: each file reads one family in its published form and names its measures."""
