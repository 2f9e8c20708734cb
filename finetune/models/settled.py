"""Settings that are left to the weights: what these declare, or what is usual."""

import dataclasses

from finetune.config import Config, ModelConfig
from finetune.errors import UserError
from finetune.models import pretrained
from finetune.models.sentence_transformers import Declared

AUTO = "auto"
USUAL_POOLING = "mean"
USUAL_MAX_LENGTH = 128  # tokens


def settle(config: Config) -> tuple[Config, tuple[str, ...]]:
    """Returns the settings with pooling and max_length as they hold, and what the user is told of them, a line each.

    Raises UserError for a setting that contradicts what a directory of sentence-transformers declares.
    """
    declared = pretrained.declared(config.model)
    model = dataclasses.replace(config.model, pooling=_pooling(config.model, declared))
    data = dataclasses.replace(config.data, max_length=_max_length(config, declared))
    taken = {
        "model.pooling": declared.pooling if config.model.pooling == AUTO else None,
        "data.max_length": None if config.data.max_length else declared.max_length,
    }
    told = ", ".join(f"{name}={value}" for name, value in taken.items() if value is not None)
    notes = (f"{told}: as {config.model.pretrained} declares", *declared.notes) if told else declared.notes
    return dataclasses.replace(config, model=model, data=data), notes


def pooling(config: ModelConfig) -> str:
    """Returns how positions become one; raises UserError as `settle` does."""
    return _pooling(config, pretrained.declared(config)) if config.pooling == AUTO else config.pooling


def _pooling(config: ModelConfig, declared: Declared) -> str:
    if config.pooling == AUTO:
        return declared.pooling or USUAL_POOLING
    if declared.binding and declared.pooling not in (None, config.pooling):
        raise UserError(
            f"model.pooling is {config.pooling!r}, and {config.pretrained} declares {declared.pooling!r} in "
            f"modules.json, allowed: that, or {AUTO!r}; without modules.json it declares nothing"
        )
    return config.pooling


def _max_length(config: Config, declared: Declared) -> int:
    length = config.data.max_length
    if not length:
        return declared.max_length or USUAL_MAX_LENGTH
    if declared.binding and declared.max_length is not None and length > declared.max_length:
        raise UserError(
            f"data.max_length is {length}, and {config.model.pretrained} declares at most {declared.max_length} in "
            f"sentence_bert_config.json, allowed: 1 to {declared.max_length}, or 0, which takes it"
        )
    return length
