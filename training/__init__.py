"""The JaColBERTv2.5 recipe: distillation into a multi-vector model, averaging, and how the model inside was made.

Needs the extra ``train``.
"""
