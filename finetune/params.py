"""Parameters by path: which of them train, which decay, and how the two parts of a tree are taken apart and joined.

Inside the core a parameter tree is flat: {"block_0/attention/query/kernel": array}. Nested dicts appear only where a
model is called.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax
from flax import traverse_util

from finetune.errors import UserError
from finetune.task import Params, Task

Leaves = dict[str, jax.Array]  # path, components joined by "/" -> array


def flatten(params: Params) -> dict[str, Any]:
    """Returns nested `params` as {path: leaf}."""
    return traverse_util.flatten_dict(params, sep="/")


def unflatten(leaves: Mapping[str, Any]) -> Params:
    """Returns {path: leaf} as nested dicts."""
    return traverse_util.unflatten_dict(dict(leaves), sep="/")


def abstract(task: Task) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shape and dtype of every parameter of `task` by path; computes nothing."""
    return flatten(jax.eval_shape(task.init, jax.random.key(0)))


def partition(leaves: Mapping[str, Any], trainable: frozenset[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (trainable, frozen), two parts of `leaves`."""
    return (
        {path: leaf for path, leaf in leaves.items() if path in trainable},
        {path: leaf for path, leaf in leaves.items() if path not in trainable},
    )


def matches(pattern: str, path: str) -> bool:
    """Says whether `pattern` names `path` or a subtree that holds it.

    Components are compared whole; "*" stands for any characters within one, "**" for any number of components.

    >>> matches("block_5", "block_5/mlp/up/kernel"), matches("block_5", "block_50/mlp/up/kernel")
    (True, False)
    >>> matches("**/bias", "block_5/mlp/up/bias"), matches("block_*/mlp", "block_5/mlp/up/bias")
    (True, True)
    """
    expression = ""
    for component in pattern.strip("/").split("/"):
        if component == "**":
            expression += "(?:[^/]+/)*"
        else:
            expression += "[^/]*".join(re.escape(part) for part in component.split("*")) + "/"
    return re.match(expression, path + "/") is not None


def trainable_paths(spec: str, task: Task, shapes: Mapping[str, jax.ShapeDtypeStruct]) -> frozenset[str]:
    """Returns the paths that train under `spec`: terms joined by "+", each a name or a path pattern.

    Names: all, head, last:K (the last K blocks and all that follows them), bias, norm. A term after "!" freezes what
    it hits. The head is new and trains unless frozen by name. Raises UserError for a term that hits nothing, and for
    a selection that trains nothing.
    """
    shapes = without_state(shapes, task)
    chosen: set[str] = {path for path in shapes if matches(task.head, path)}
    for term in filter(None, (part.strip() for part in spec.split("+"))):
        freezes, name = term.startswith("!"), term.removeprefix("!")
        hit = _hit(name, task, shapes)
        if not hit:
            parts = ", ".join(dict.fromkeys(path.split("/")[0] for path in shapes))
            raise UserError(
                f"trainable is {spec!r}: {term!r} hits no parameter, allowed: all, head, last:K, bias, norm, "
                f"or path patterns over {parts}"
            )
        chosen = chosen - hit if freezes else chosen | hit
    if not chosen or not spec.strip():
        raise UserError(f"trainable is {spec!r}: nothing trains, allowed: a selection that trains something")
    return frozenset(chosen)


def _hit(name: str, task: Task, shapes: Iterable[str]) -> set[str]:
    if name == "all":
        return set(shapes)
    if name == "head":
        return {path for path in shapes if matches(task.head, path)}
    if name == "bias":
        return {path for path in shapes if path.split("/")[-1] == "bias"}
    if name == "norm":
        return {path for path in shapes if any("norm" in part for part in path.lower().split("/")[:-1])}
    if name.startswith("last:"):
        return _last(name, task, shapes)
    return {path for path in shapes if matches(name, path)}


def _last(name: str, task: Task, shapes: Iterable[str]) -> set[str]:
    count = name.removeprefix("last:")
    if not task.blocks:
        raise UserError(
            f"trainable is {name!r}, but the model names no blocks, allowed: all, head, bias, norm, patterns"
        )
    if not count.isdecimal() or not 1 <= int(count) <= len(task.blocks):
        raise UserError(f"trainable is {name!r}, allowed: last:1 to last:{len(task.blocks)}")
    frozen = task.stem + task.blocks[: -int(count)]
    return {path for path in shapes if not any(matches(prefix, path) for prefix in frozen)}


def without_state(leaves: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """Returns those of `leaves` that are parameters."""
    return {path: leaf for path, leaf in leaves.items() if path.split("/")[0] not in task.state}


def live_state(task: Task, leaves: Iterable[str], trained: Collection[str]) -> tuple[str, ...]:
    """Returns the paths of the state that changes while `trained` train; the rest is frozen.

    State COLLECTION/LAYER/NAME follows the parameters of LAYER, or, if it has none, of what holds it: a normalisation
    layer whose scale and bias are frozen keeps its running averages, and normalises by them.
    """
    paths = list(leaves)
    parameters = [path for path in paths if path.split("/")[0] not in task.state]

    def lives(path: str) -> bool:
        layer = path.split("/")[1:-1]
        while layer:
            own = [each for each in parameters if each.startswith("/".join(layer) + "/")]
            if own:
                return not set(trained).isdisjoint(own)
            layer.pop()
        return not set(trained).isdisjoint(parameters)

    return tuple(path for path in sorted(set(paths).difference(parameters)) if lives(path))


def decayed_paths(pattern: str, shapes: Mapping[str, Any]) -> frozenset[str]:
    """Returns the paths of the leaves that decay: "matrices" (two axes or more) or "all"."""
    return frozenset(path for path, leaf in shapes.items() if pattern == "all" or len(leaf.shape) >= 2)


def count(shapes: Mapping[str, Any]) -> int:
    """Returns the number of scalars in `shapes`."""
    return sum(leaf.size for leaf in shapes.values())
