"""Trained weights back in the framework that a model of the user's own is written in."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from finetune.member.params import abstract, flatten, unflatten
from finetune.member.task import Task
from finetune.models.adapters import parts
from finetune.models.adapters.nnx import rebuilder, tree_of
from finetune.models.weights import exported, pretrained

Weights = str | Path | Mapping[str, Any]  # a directory that finetune.export wrote, or {path: array}, nested or flat


def to_nnx(make: Callable[[nnx.Rngs], nnx.Module], weights: Weights) -> nnx.Module:
    """Returns the NNX module that make(rngs) builds, in evaluation mode, with trained weights and running averages.

    make: what `from_nnx` was given. Raises UserError for weights that do not fit the module.
    """
    leaves, where = _read(weights)
    pretrained.compare(leaves, flatten(jax.eval_shape(lambda: tree_of(make(nnx.Rngs(0))))), where)
    module = rebuilder(make)(unflatten(leaves))
    module.eval()
    return module


def to_linen(task: Task, weights: Weights) -> dict[str, Any]:
    """Returns trained weights as the variables of a Linen module: module.apply(variables, ...).

    task: what `from_linen` made of the module. Raises UserError for weights that do not fit it.
    """
    leaves, where = _read(weights)
    pretrained.compare(leaves, abstract(task), where)
    tree = unflatten(leaves)
    state = {name: tree.pop(name) for name in task.state}
    return {"params": tree, **state}


def _read(weights: Weights) -> tuple[dict[str, Any], Path]:
    """Returns {path: array}, and where they are from."""
    if isinstance(weights, Mapping):
        return parts.flat_weights(weights) or {}, Path("the mapping")
    return exported.parameters(Path(weights)), Path(weights)
