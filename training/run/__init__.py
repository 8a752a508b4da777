"""A training from first step to saved checkpoint: loop, state, evaluation, averaging."""
