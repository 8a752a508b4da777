"""`python -m tansaku.training.default_model`."""

from .recipe import main

main()
