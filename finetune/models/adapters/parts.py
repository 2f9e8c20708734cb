"""What a user's model is called with, and the names of its parts, where the user does not say."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from finetune.errors import UserError, one_of
from finetune.member.params import flatten, matches
from finetune.member.task import Batch

Call = Callable[[Any, Batch, bool], Any]  # (model, batch, train) -> outputs

# What modules call their switch between training and evaluation -> its value in training.
_SWITCHES = {"train": True, "training": True, "is_training": True, "deterministic": False}


def zeros(example: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Returns a batch of one example, all zeros."""
    return {name: jnp.zeros((1, *item.shape), item.dtype) for name, item in example.items()}


def usual_call(model: type | Callable[..., Any], example: Mapping[str, Any]) -> Call:
    """Returns how a model with one input is called: model(x), with its switch for training if it has one.

    Raises UserError for data with several arrays.
    """
    if len(example) != 1:
        raise UserError(
            f"the model reads {', '.join(example)}, allowed without `call`: one array; "
            "give call=lambda model, batch, train: ..."
        )
    (name,) = example
    parameters = inspect.signature(model.__call__ if isinstance(model, type) else model).parameters
    switches = {switch: value for switch, value in _SWITCHES.items() if switch in parameters}

    def call(module: Any, batch: Batch, train: bool) -> Any:
        return module(batch[name], **{switch: value == train for switch, value in switches.items()})

    return call


def last_part(params: Mapping[str, Any], order: Mapping[str, int] | None = None) -> str:
    """Returns the path of the last part of nested `params` that holds a matrix: of the first level that has several.

    order: place of each top-level name, where that of the dict is another one.
    """
    path: list[str] = []
    while isinstance(params, Mapping):
        parts = [name for name, part in params.items() if any(leaf.ndim >= 2 for leaf in jax.tree.leaves(part))]
        if not parts or (path and len(parts) < len(params)):
            break  # nothing below, or a layer: its matrix and what belongs to it
        chosen = parts[-1] if order is None or path else max(parts, key=lambda name: order.get(name, -1))
        path.append(chosen)
        if len(parts) > 1:
            break
        params = params[chosen]
    if not path:
        raise UserError("the model has no matrix that could be its head, allowed: head=PATH of the part that is new")
    return "/".join(path)


def check(paths: Sequence[str], stem: Sequence[str], blocks: Sequence[str], head: str) -> None:
    """Raises UserError for a part that names no parameter of `paths`."""
    for role, parts in (("stem", stem), ("blocks", blocks), ("head", (head,))):
        for part in parts:
            if not any(matches(part, path) for path in paths):
                raise one_of(role, part, list(dict.fromkeys(path.split("/")[0] for path in paths)))


def check_names(params: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Raises UserError where a part of a model has the name of a collection of its state."""
    for name in state:
        if name in params:
            raise UserError(f"the model has a part and a collection that are called {name!r}, allowed: another name")


def flat_weights(weights: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Returns a user's weights as {path: array}: nested or flat, the parameters under "params" or by themselves."""
    if weights is None:
        return None
    tree = dict(weights)
    tree = {**tree.pop("params", {}), **tree}
    return flatten(tree)
