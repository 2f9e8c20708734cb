"""Models: each becomes a `Task` of pure functions; the core knows nothing else of them."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from finetune.config import POOLINGS, ModelConfig
from finetune.errors import UserError, one_of
from finetune.member.objective import Objective
from finetune.member.task import Task
from finetune.models import (
    bert,
    clip,
    convnext,
    deberta,
    dinov2,
    efficientnet,
    modernbert,
    mpnet,
    resnet,
    settled,
    siglip,
    vit,
)
from finetune.models.adapters.linen import from_linen
from finetune.models.block import ACTIVATIONS, at_least_float32
from finetune.models.weights import pretrained
from finetune.models.weights.families import FAMILIES

_FROM_SCRATCH: dict[str, ModuleType] = {"bert": bert, "vit": vit, "efficientnet": efficientnet}
MODELS: dict[str, ModuleType] = _FROM_SCRATCH | {
    "roberta": bert,
    "xlm-roberta": bert,
    "camembert": bert,
    "distilbert": bert,
    "electra": bert,
    "mpnet": mpnet,
    "modernbert": modernbert,
    "deberta-v2": deberta,
    "deit": vit,
    "dinov2": dinov2,
    "dinov2_with_registers": dinov2,
    "clip_vision_model": clip,
    "siglip_vision_model": siglip,
    "convnext": convnext,
    "resnet": resnet,
}
_ANY = "bert"  # what model.name is unless it is set: the model is then what the weights are of
# Sizes of a foreign file may be anything: beyond these, shapes alone would take for ever or overflow.
_MOST_BLOCKS, _LARGEST = 1000, 2**24
_FRACTIONS = {"epsilon": 1, "global_theta": 1e12, "local_theta": 1e12}  # and the most that they may be
_MAY_BE_0: tuple[str, ...] = ("token_types", "padding", "class_tokens", "registers", "is_gated")
_MAY_BE_0 += ("is_bottleneck", "strides_first", "strides_early", "is_live")
_OF_STAGES = ("depths", "widths")  # a number for each
_PIXELS = ("mean", "deviation")  # numbers for each channel


def build(
    config: ModelConfig,
    classes: int,
    example: Mapping[str, jax.ShapeDtypeStruct],
    objective: Objective | None = None,
    per_position: bool = False,
) -> Task:
    """Returns the model that `config` describes, with `classes` outputs.

    example: shape and dtype of ONE example by data key, without batch axis: text {"input_ids": [T] integer,
        "length": [] integer}, images {"image": [H, W, C] uint8 or float32}.
    objective: classification by accuracy, unless given.
    per_position: whether outputs are [B, T, classes], one for each position, and not [B, classes].
    Raises UserError for sizes that are missing or do not fit together, the checkpoint, or the data.
    """
    sizes = architecture(config)
    name = sizes.pop("model")
    model, pooling = MODELS[name], "none" if per_position else settled.pooling(config)
    if model.INPUT not in example and name != config.name:
        raise UserError(
            f"model.pretrained is {config.pretrained!r}, weights of a {name!r}, allowed with model.name="
            f"{config.name!r} for data with {', '.join(example)}: those of a model that reads them"
        )
    if model.INPUT not in example:
        reads = ", ".join(name for name, other in _FROM_SCRATCH.items() if other.INPUT in example) or "none"
        raise UserError(f"model.name is {config.name!r}, allowed for data with {', '.join(example)}: {reads}")
    model.check(sizes, example[model.INPUT].shape)
    poolings = FAMILIES[name].poolings if name in FAMILIES else POOLINGS
    if pooling not in ("none", *poolings):
        raise UserError(f"model.pooling is {pooling!r}, allowed for a {name!r}: {', '.join(poolings)}")
    dtype = jnp.dtype(config.dtype)
    module = model.module(
        classes=classes,
        pooling=pooling,
        dropout_at=config.dropout_at,
        dtype=dtype,
        param_dtype=at_least_float32(dtype),
        **{size: tuple(value) if isinstance(value, list) else value for size, value in sizes.items()},
    )
    stages = sizes.get("depths", ())
    numbers = [f"{stage}_{n}" for stage, depth in enumerate(stages) for n in range(depth)]
    blocks = tuple(f"block_{number}" for number in numbers or range(sizes["depth"]))
    return from_linen(
        module, example, stem=model.STEM, blocks=blocks, head="head", fixed=model.FIXED, objective=objective
    )


def architecture(config: ModelConfig) -> dict[str, Any]:
    """Returns "model" and every size that `config` and its checkpoint settle, as plain JSON values.

    A work directory keeps it under "architecture" in its config.json, so that a later study can start from it.
    Raises UserError for an unknown model, and for sizes that are missing, impossible, or other than the checkpoint's.
    """
    if config.name not in MODELS:
        raise one_of("model.name", config.name, _FROM_SCRATCH)
    found = _found(config)
    model = found["model"]
    given = {size: getattr(config, size) for size in MODELS[model].SIZES}
    _check(found, config)
    for size, value in given.items():
        if value not in (0, found[size]):
            raise UserError(f"model.{size} is {value}, allowed with {config.pretrained!r}: {found[size]}, or 0")
    return found if config.batch_norm == "frozen" else {**found, **_live(model)}


def _live(model: str) -> dict[str, int]:
    if "is_live" not in (FAMILIES[model].optional if model in FAMILIES else ()):
        having = ", ".join(name for name, family in FAMILIES.items() if "is_live" in family.optional)
        raise UserError(f"model.batch_norm is 'live' with a {model!r}, allowed with: {having}")
    return {"is_live": 1}


def _found(config: ModelConfig) -> dict[str, Any]:
    """Returns what the checkpoint, or without one `config`, says of the architecture, of a model that is allowed."""
    stored = pretrained.architecture(config)
    if stored is None:
        if config.name not in _FROM_SCRATCH:
            allowed = f"that with model.pretrained, or {', '.join(_FROM_SCRATCH)}"
            raise UserError(f"model.name is {config.name!r} without weights, allowed: {allowed}")
        model = _FROM_SCRATCH[config.name]
        return {"model": config.name, **{size: getattr(config, size) for size in model.SIZES}, **model.DEFAULTS}
    found = stored.get("model")
    if found != config.name and not (config.name == _ANY and found in MODELS):
        raise UserError(
            f"model.pretrained is {config.pretrained!r}, weights of a {found!r}, "
            f"allowed with model.name={config.name!r}: its own weights, or empty"
        )
    return stored


def _names(model: str) -> set[str]:
    """Returns what an architecture must hold."""
    if model not in FAMILIES:
        return {"model", *MODELS[model].SIZES, *MODELS[model].DEFAULTS}
    return {"model", *FAMILIES[model].architecture}


def _check(found: dict[str, Any], config: ModelConfig) -> None:
    source = f"weights of {config.pretrained!r}" if config.pretrained else "random weights"
    names, given = _names(found["model"]), set(found)
    if found["model"] in FAMILIES:
        names |= given & {*FAMILIES[found["model"]].optional}
    if given != names:
        wrong = sorted(given ^ names)
        raise UserError(
            f"{source}: sizes {', '.join(wrong)} are missing or unknown, allowed: {', '.join(sorted(names))}"
        )
    if found.get("activation", "gelu") not in ACTIVATIONS:
        raise one_of(f"model.activation of {source}", found["activation"], ACTIVATIONS)
    for name in names - {"model", "activation", *_PIXELS, *_OF_STAGES}:
        _check_size(name, found[name], source)
    for name in names & {*_OF_STAGES}:
        if not isinstance(found[name], list) or len(found[name]) != len(found["depths"]):
            raise UserError(f"model.{name} of {source} is {str(found[name])[:60]}, allowed: a number for each stage")
        for value in found[name]:
            _check_size(name, value, source)
    for name in names & {*_PIXELS}:
        if not isinstance(found[name], list) or len(found[name]) != found["channels"]:
            allowed = f"a number for each of {found['channels']} channels"
            raise UserError(f"model.{name} of {source} is {str(found[name])[:60]}, allowed: {allowed}")
    if "heads" in names and found["width"] % found["heads"]:
        raise UserError(f"model.heads is {found['heads']}, allowed: divisors of the width, {found['width']}")


def _check_size(name: str, value: Any, source: str) -> None:
    most = _FRACTIONS.get(name, _MOST_BLOCKS if name in ("depth", "depths") else _LARGEST)
    kind, allowed = (float, "above 0") if name in _FRACTIONS else (int, "a whole number, 1 or more")
    least_is_0 = name in _MAY_BE_0 and value == 0
    if type(value) is not kind or not (0 < value <= most or least_is_0):
        raise UserError(f"model.{name} of {source} is {value!r}, allowed: {allowed}, at most {most}")
