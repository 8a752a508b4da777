"""Making models: for now, the default model's bundle from the weights of multilingual-e5-small (`base_model`)."""

__all__: list[str] = []
