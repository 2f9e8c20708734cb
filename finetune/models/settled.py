"""Settings that are left to the weights: what these declare, or what is usual."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from finetune.config import USUAL_MAX_LENGTH, Config, DataConfig, ModelConfig
from finetune.errors import UserError
from finetune.models.weights import pretrained
from finetune.models.weights.sentence_transformers import Declared

AUTO = "auto"
_USUAL_POOLING = "mean"


def settle(config: Config) -> tuple[Config, tuple[str, ...]]:
    """Returns the settings with pooling and those of texts and images as they hold, and what the user is told of them.

    Raises UserError for a setting that contradicts what a directory of sentence-transformers declares.
    """
    declared = pretrained.declared(config.model)
    model = dataclasses.replace(config.model, pooling=_pooling(config.model, declared))
    data = dataclasses.replace(config.data, max_length=_max_length(config, declared), **_images(config.data, declared))
    taken = {
        "model.pooling": declared.pooling if config.model.pooling == AUTO else None,
        "data.max_length": None if config.data.max_length else declared.max_length,
        **_taken(config.data, declared),
    }
    told = ", ".join(f"{name}={value}" for name, value in taken.items() if value is not None)
    notes = (f"{told}: as {config.model.pretrained} declares", *declared.notes) if told else declared.notes
    notes += tuple(_otherwise(config, declared))
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


def _images(data: DataConfig, declared: Declared) -> dict[str, Any]:
    """Returns the settings of how images are scaled, as they hold."""
    return {name: getattr(data, name) if _is_set(data, name) else value for name, value in _ours(declared).items()}


def _taken(data: DataConfig, declared: Declared) -> dict[str, Any]:
    """Returns the settings of images that are taken from the weights."""
    usual = _ours(Declared())
    return {
        f"data.{name}": value
        for name, value in _ours(declared).items()
        if value != usual[name] and not _is_set(data, name)
    }


def _otherwise(config: Config, declared: Declared) -> Iterator[str]:
    """Yields a line for each setting of images that is not what weights declare."""
    usual = _ours(Declared())
    for name, value in _ours(declared).items():
        given = getattr(config.data, name)
        if _is_set(config.data, name) and value not in (given, usual[name]):
            yield f"data.{name} is {given}, where {config.model.pretrained} declares {value}"


def _is_set(data: DataConfig, name: str) -> bool:
    return getattr(data, name) not in (0, AUTO)


def _ours(declared: Declared) -> dict[str, Any]:
    """Returns how weights declare that images are scaled, by this project's settings."""
    images = declared.images
    return {
        "image_size": images.image_size,
        "image_resampling": images.resampling,
        "image_crop": images.crop,
        "image_aspect": "kept" if images.keeps_aspect else "stretched",
    }


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
