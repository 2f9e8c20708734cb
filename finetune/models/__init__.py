"""Models: each becomes a `Task` of pure functions; the core knows nothing else of them."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from finetune.config import ModelConfig
from finetune.errors import UserError, one_of
from finetune.member.objective import Objective
from finetune.member.task import Task
from finetune.models import bert, efficientnet, settled, vit
from finetune.models.adapters.linen import from_linen
from finetune.models.block import at_least_float32
from finetune.models.weights import pretrained

MODELS: dict[str, ModuleType] = {"bert": bert, "vit": vit, "efficientnet": efficientnet}
# Sizes of a foreign file may be anything: beyond these, shapes alone would take for ever or overflow.
_MOST_BLOCKS, _LARGEST = 1000, 2**24


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
    model = MODELS[sizes.pop("model")]
    if model.INPUT not in example:
        reads = ", ".join(name for name, other in MODELS.items() if other.INPUT in example) or "none"
        raise UserError(f"model.name is {config.name!r}, allowed for data with {', '.join(example)}: {reads}")
    model.check(sizes, example[model.INPUT].shape)
    dtype = jnp.dtype(config.dtype)
    module = model.module(
        classes=classes,
        pooling="none" if per_position else settled.pooling(config),
        dropout_at=config.dropout_at,
        dtype=dtype,
        param_dtype=at_least_float32(dtype),
        **sizes,
    )
    blocks = tuple(f"block_{index}" for index in range(sizes["depth"]))
    return from_linen(
        module, example, stem=model.STEM, blocks=blocks, head="head", fixed=model.FIXED, objective=objective
    )


def architecture(config: ModelConfig) -> dict[str, Any]:
    """Returns "model" and every size that `config` and its checkpoint settle, as plain JSON values.

    A work directory keeps it under "architecture" in its config.json, so that a later study can start from it.
    Raises UserError for an unknown model, and for sizes that are missing, impossible, or other than the checkpoint's.
    """
    if config.name not in MODELS:
        raise one_of("model.name", config.name, MODELS)
    model = MODELS[config.name]
    given = {size: getattr(config, size) for size in model.SIZES}
    stored = pretrained.architecture(config)
    if stored is None:
        found = {"model": config.name, **given, **model.DEFAULTS}
    else:
        found = stored
        if stored.get("model") != config.name:
            raise UserError(
                f"model.pretrained is {config.pretrained!r}, weights of a {stored.get('model')!r}, "
                f"allowed with model.name={config.name!r}: its own weights, or empty"
            )
    _check(found, {"model", *model.SIZES, *model.DEFAULTS}, config)
    for size, value in given.items():
        if value not in (0, found[size]):
            raise UserError(f"model.{size} is {value}, allowed with {config.pretrained!r}: {found[size]}, or 0")
    return found


def _check(found: dict[str, Any], names: set[str], config: ModelConfig) -> None:
    source = f"weights of {config.pretrained!r}" if config.pretrained else "random weights"
    if set(found) != names:
        wrong = sorted(set(found) ^ names)
        raise UserError(
            f"{source}: sizes {', '.join(wrong)} are missing or unknown, allowed: {', '.join(sorted(names))}"
        )
    for name in names - {"model"}:
        most = 1 if name == "epsilon" else _MOST_BLOCKS if name == "depth" else _LARGEST
        kind, allowed = (float, "above 0") if name == "epsilon" else (int, "a whole number, 1 or more")
        if type(found[name]) is not kind or not 0 < found[name] <= most:
            raise UserError(f"model.{name} of {source} is {found[name]!r}, allowed: {allowed}, at most {most}")
    if "heads" in names and found["width"] % found["heads"]:
        raise UserError(f"model.heads is {found['heads']}, allowed: divisors of the width, {found['width']}")
