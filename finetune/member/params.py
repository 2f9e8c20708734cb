"""Parameters by path: which of them train, which decay, and how the two parts of a tree are taken apart and joined.

Inside the core a parameter tree is flat: {"block_0/attention/query/kernel": array}. Nested dicts appear only where a
model is called.
"""

import itertools
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax
from flax import traverse_util

from finetune.errors import UserError
from finetune.member.task import Params, Task
from finetune.trials import chain

Leaves = dict[str, jax.Array]  # path, components joined by "/" -> array
WORDS = ("all", "head", "last:K", "first:K", "bias", "norm", "lora")  # of `trainable`


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


def named_parts(texts: Iterable[str]) -> dict[str, str]:
    """Returns the selections of `config.parts`, each NAME=SPEC, by name; raises UserError for one that is no such."""
    parts: dict[str, str] = {}
    for text in texts:
        name, _, spec = (part.strip() for part in text.partition("="))
        if not re.fullmatch(r"[A-Za-z][\w.-]*", name) or not spec:
            raise UserError(f"parts holds {text!r}, allowed: NAME=SPEC, such as queries=block_*/attention/query")
        if name in WORDS or name in parts:
            raise UserError(f"parts holds {text!r}, allowed: a name that is new, unlike {', '.join((*WORDS, *parts))}")
        parts[name] = spec
    return parts


def trainable_paths(
    spec: str, task: Task, shapes: Mapping[str, jax.ShapeDtypeStruct], parts: Mapping[str, str] | None = None
) -> frozenset[str]:
    """Returns the paths that train under `spec`: terms joined by "+", each a word, a name of `parts`, or a pattern.

    Words: all, head, last:K (the last K blocks and all that follows them), first:K (the stem and the first K blocks),
    bias, norm. A term after "!" freezes what it hits. The head is new and trains unless frozen by name; what the task
    says is fixed never trains. Raises UserError for a term that hits nothing, and for a selection that trains nothing.
    """
    shapes = without_state(shapes, task)
    shapes = {path: leaf for path, leaf in shapes.items() if not any(matches(each, path) for each in task.fixed)}
    head = {path for path in shapes if matches(task.head, path)}
    chosen = _select(f"trainable is {spec!r}", spec, head, task, shapes, parts or {})
    if not chosen or not spec.strip():
        raise UserError(f"trainable is {spec!r}: nothing trains, allowed: a selection that trains something")
    return frozenset(chosen)


def stage_paths(
    spec: str, task: Task, shapes: Mapping[str, jax.ShapeDtypeStruct], parts: Mapping[str, str] | None = None
) -> frozenset[str]:
    """Returns the paths that train in the last stage of a chain `spec`, such as "head>all"; one stage is a chain too.

    Raises UserError for a stage that leaves out what the one before it has trained: that would be frozen, and yet
    differ between trials.
    """
    stages = chain.stages(spec)
    if not all(stages) and len(stages) > 1:
        raise UserError(f"trainable is {spec!r}, which has an empty stage, allowed: stages such as head>all")
    if len(stages) > 1 and any(chain.adapts(stage) for stage in stages):
        raise UserError(f"trainable is {spec!r}, a chain that holds lora, allowed in a chain: all other words")
    chosen = trainable_paths(stages[0], task, shapes, parts)
    for before, stage in itertools.pairwise(stages):
        earlier, chosen = chosen, trainable_paths(stage, task, shapes, parts)
        if lost := sorted(earlier - chosen):
            raise UserError(
                f"trainable is {spec!r}: {before!r} trains {lost[0]!r} and {stage!r} does not, "
                f"allowed: a stage that trains all that the one before it trains, such as {before}+{stage}"
            )
    return chosen


def _select(
    where: str, spec: str, chosen: set[str], task: Task, shapes: Iterable[str], parts: Mapping[str, str]
) -> set[str]:
    """Returns `chosen` with and without what the terms of `spec` hit; errors begin with `where`."""
    for term in filter(None, (part.strip() for part in spec.split("+"))):
        freezes, name = term.startswith("!"), term.removeprefix("!").strip()
        hit = hits(name, task, shapes, parts, where)
        if not hit:
            tops = ", ".join(dict.fromkeys(path.split("/")[0] for path in shapes))
            raise UserError(
                f"{where}: {term!r} hits no parameter, allowed: {', '.join((*WORDS, *parts))}, "
                f"or path patterns over {tops}"
            )
        chosen = chosen - hit if freezes else chosen | hit
    return chosen


def hits(
    name: str, task: Task, shapes: Iterable[str], parts: Mapping[str, str] | None = None, where: str = "trainable"
) -> set[str]:
    """Returns the paths that a word, a name of `parts` or a pattern hits; a part may name those before it."""
    if parts and name in parts:
        before = {each: parts[each] for each in list(parts)[: list(parts).index(name)]}
        return _select(f"{where}, where part {name!r} is {parts[name]!r}", parts[name], set(), task, shapes, before)
    if name == "all":
        return set(shapes)
    if name == "head":
        return {path for path in shapes if matches(task.head, path)}
    if name == "bias":
        return {path for path in shapes if path.split("/")[-1] == "bias"}
    if name == "norm":
        return {path for path in shapes if any("norm" in part for part in path.lower().split("/")[:-1])}
    if name.startswith(("last:", "first:")):
        return _blocks(name, task, shapes, where)
    return {path for path in shapes if matches(name, path)}


def _blocks(name: str, task: Task, shapes: Iterable[str], where: str) -> set[str]:
    end, _, count = name.partition(":")
    if not task.blocks:
        raise UserError(f"{where}: {name!r}, but the model names no blocks, allowed: all, head, bias, norm, patterns")
    if not count.isdecimal() or not 1 <= int(count) <= len(task.blocks):
        raise UserError(f"{where}: {name!r} is no term, allowed: {end}:1 to {end}:{len(task.blocks)}")
    if end == "first":
        trained = task.stem + task.blocks[: int(count)]
        return {path for path in shapes if any(matches(prefix, path) for prefix in trained)}
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
