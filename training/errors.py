"""What can go wrong in training, below `tansaku.onnx_export.TansakuError`.

TansakuError
└── InputError
    ├── ConfigError          a training configuration with an unknown key or a value that cannot be used
    └── TrainingDataError    groups, queries or passages that cannot be trained on; names the file and the line
"""

from __future__ import annotations

from ..onnx_export.errors import InputError


class ConfigError(InputError):
    """A configuration that cannot be used; the message names the file and the key."""


class TrainingDataError(InputError):
    """Data that cannot be trained on; the message names the file, the line or the id."""
