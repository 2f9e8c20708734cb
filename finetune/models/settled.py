"""Settings that are left to the weights: what these declare, or what is usual."""

import dataclasses

from finetune.config import USUAL_MAX_LENGTH, Config, ModelConfig
from finetune.errors import UserError
from finetune.models.weights import pretrained
from finetune.models.weights.sentence_transformers import Declared

AUTO = "auto"
_USUAL_POOLING = "mean"


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
        return declared.pooling or _USUAL_POOLING
    if declared.binding and declared.pooling not in (None, config.pooling):
        raise UserError(
            f"model.pooling is {config.pooling!r}, and modules.json of {config.pretrained} declares "
            f"{declared.pooling!r}, allowed: that, or {AUTO!r}; without modules.json nothing is declared"
        )
    return config.pooling


def _max_length(config: Config, declared: Declared) -> int:
    length = config.data.max_length
    if not length:
        return declared.max_length or USUAL_MAX_LENGTH
    if declared.binding and declared.max_length is not None and length > declared.max_length:
        raise UserError(
            f"data.max_length is {length}, and sentence_bert_config.json of {config.model.pretrained} declares at most "
            f"{declared.max_length}, allowed: up to that, or 0, which takes it"
        )
    return length
