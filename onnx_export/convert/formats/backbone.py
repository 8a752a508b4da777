"""The transformer under a checkpoint's projection, loaded by transformers, without any code of the repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from ...errors import CheckpointError
from .files import Settings, read_settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Each of these is exported, and compared with torch, by the tests.
BACKBONES = (
    "bert",
    "camembert",
    "deberta-v2",
    "distilbert",
    "electra",
    "modernbert",
    "mpnet",
    "roberta",
    "xlm-roberta",
)

# These count positions from behind the padding token's id, so a text has that many positions fewer.
_POSITIONS_AFTER_PADDING = ("camembert", "mpnet", "roberta", "xlm-roberta")


class ModelConfig(Settings):
    """The fields of a model's config.json that tansaku reads itself."""

    model_type: Any = None
    auto_map: Any = None
    tokenizer_class: Any = None


def load_backbone(folder: Path) -> PreTrainedModel:
    """The encoder in ``folder``, in float32 and evaluation mode, without a head.

    Raises:
        CheckpointError: the model type is not in `BACKBONES`, the model needs code of its own, or weights are missing
            or have other shapes than ``config.json`` says.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{path}: missing, so this is not a checkpoint")
    declared = read_settings(path, ModelConfig)
    if declared.auto_map is not None:
        raise CheckpointError(f"{path}: this model has code of its own ({declared.auto_map}); tansaku does not run it")
    if declared.model_type not in BACKBONES:
        raise CheckpointError(f"{path}: unknown model_type {declared.model_type!r}; use one of {', '.join(BACKBONES)}")
    verbosity, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        backbone, report = AutoModel.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            attn_implementation="eager",
            ignore_mismatched_sizes=True,  # refused by name below
            output_loading_info=True,
        )
    except Exception as error:  # transformers raises whatever its parts raise
        raise CheckpointError(f"{folder}: transformers cannot load this model ({error})") from error
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()
    _check_complete(folder, report)
    return backbone.eval()


def _check_complete(folder: Path, report: dict[str, Any]) -> None:
    # The pooler is for sentence classification; its weights are often left out, and nothing here uses it.
    missing = sorted(str(name) for name in report["missing_keys"] if "pooler." not in str(name))
    mismatched = sorted(str(name) for name, *_ in report["mismatched_keys"])
    if missing or mismatched:
        named = missing or mismatched
        raise CheckpointError(
            f"{folder}: {len(named)} weights are {'missing' if missing else 'of another shape than config.json says'}, "
            f"such as {named[0]}; the model would run on random numbers: copy the checkpoint again"
        )


def attention_of(backbone: PreTrainedModel) -> str:
    """The implementation of a backbone's attention, such as "eager" or "sdpa"."""
    return backbone.config._attn_implementation or "eager"  # transformers has no public name for it


def positions(config: PreTrainedConfig) -> int:
    """The longest sequence that the backbone reads, in tokens."""
    longest = config.max_position_embeddings
    if config.model_type in _POSITIONS_AFTER_PADDING:
        longest -= config.pad_token_id + 1
    return longest
