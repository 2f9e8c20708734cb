"""Flax Linen modules as tasks."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from finetune.objective import Objective, classification
from finetune.task import Batch, Params, Task


def from_linen(
    module: nn.Module,
    example: Mapping[str, jax.ShapeDtypeStruct],
    stem: tuple[str, ...],
    blocks: tuple[str, ...],
    head: str,
    objective: Objective | None = None,
    fixed: tuple[str, ...] = (),
) -> Task:
    """Returns a task from a Linen module called as module(batch, dropout, keys) -> outputs.

    example: shape and dtype of ONE example by data key, without batch axis; stem, blocks, head, fixed: as in
        `Task`.
    objective: classification, with logits [B, C] for outputs, unless given.
    """

    def init(key: jax.Array) -> Params:
        batch = {name: jnp.zeros((1, *item.shape), item.dtype) for name, item in example.items()}
        return module.init(key, batch, 0.0, None)["params"]

    def apply(params: Params, batch: Batch, dropout: jax.Array | float, keys: jax.Array | None) -> Any:
        return module.apply({"params": params}, batch, dropout, keys)

    objective = objective or classification()
    return Task(init, apply, objective.loss, objective.metrics, stem, blocks, head, fixed)
