"""A task of the user's own, from a config file or from Python: built, checked, and named by a hash."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from finetune import config as settings
from finetune.config import Config, ModelConfig
from finetune.errors import UserError, one_of
from finetune.jaxpr.batch_axis import SIZES, Mixed, axes_of
from finetune.jaxpr.program import Program, alike, names, trace
from finetune.member.metric import LOSS, as_metric
from finetune.member.params import abstract, flatten, matches, unflatten, without_state
from finetune.member.step import seed_key
from finetune.member.task import Task
from finetune.models.weights import pretrained

# (number of classes, shape and dtype of ONE example by data key) -> Task
MakeTask = Callable[[int, dict[str, jax.ShapeDtypeStruct]], Task]

OwnTask = Task | MakeTask

ARCHITECTURE = settings.OWN_MODEL  # what config.json calls a model that finetune does not know


def checked(config: Config) -> Config:
    """Returns the settings of a study of the user's own task, which read none of a model.

    Raises UserError for a setting of the models that finetune knows: nothing would read it.
    """
    _check_settings(config.model)
    return dataclasses.replace(config, model=ModelConfig(name=ARCHITECTURE, pretrained=""))


def build(make: OwnTask, classes: int, example: dict[str, jax.ShapeDtypeStruct], chosen_on: str) -> Task:
    """Returns the task that a user has made; raises UserError for one that cannot be built, or lacks the metric."""
    try:
        task = make if isinstance(make, Task) else make(classes, example)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's function raises
        raise UserError(f"task(classes, example): {_line(error)}") from error
    if not isinstance(task, Task):
        raise UserError(f"task(classes, example) returns {task!r}, allowed: a finetune.Task, as from_linen makes one")
    if chosen_on not in ("", LOSS, *task.metrics):
        raise one_of("evaluation.metric", chosen_on, (LOSS, *task.metrics))
    return task


def _check_settings(model: ModelConfig) -> None:
    defaults = dict(settings.fields(ModelConfig()))
    for name, value in settings.fields(model):
        if value != defaults[name] and not (name == "pretrained" and value == ""):
            raise UserError(
                f"model.{name} is {value!r}, allowed with a task of your own: its default, {defaults[name]!r}; "
                "the task brings its own model, and its weights by weights="
            )


def weights(task: Task, shapes: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
    """Returns the weights that a task brings, {path: array}, of all but the head, {} if none.

    Raises UserError where they do not fit the model.
    """
    if task.weights is None:
        return {}
    wanted = {path: leaf for path, leaf in shapes.items() if not matches(task.head, path)}
    found = {path: np.asarray(leaf) for path, leaf in task.weights.items() if not matches(task.head, path)}
    pretrained.compare(found, wanted, Path("the task"))
    return {path: found[path].astype(leaf.dtype) for path, leaf in wanted.items()}


def program_hash(task: Task, split: Mapping[str, np.ndarray]) -> str:
    """Returns a hash (hex) of all that a task computes: parameters, outputs, loss and metrics, on a batch of two.

    It is the same in every process, of one version of JAX. `split` holds the arrays of the data with their labels.
    Raises UserError, one line, for what the user's model raises when it runs.
    """
    batch = {name: jax.ShapeDtypeStruct((2, *array.shape[1:]), array.dtype) for name, array in split.items()}
    batch["weight"] = jax.ShapeDtypeStruct((2,), np.float32)
    scalar = jax.ShapeDtypeStruct((), jnp.zeros(()).dtype)
    key = jax.eval_shape(seed_key, 0, 0)
    keys = jax.ShapeDtypeStruct((2,), key.dtype)
    try:
        arguments = abstract(task), batch, scalar, keys
        hashes = [hash_of(lambda key: flatten(task.init(key)), key)]
        hashes += [hash_of(_computes(task, with_keys), *arguments) for with_keys in (False, True)]
    except UserError:
        raise
    except Exception as error:  # whatever the user's model raises
        raise UserError(f"the task does not run on a batch of the data: {_line(error)}") from error
    hashes += _gradient_hashes(task, *arguments)
    better = sorted((name, as_metric(metric).larger_is_better) for name, metric in task.metrics.items())
    roles = repr((task.stem, task.blocks, task.head, task.state, task.fixed, better))
    return hashlib.sha256("\n".join([roles, *hashes]).encode()).hexdigest()


def evaluation_mixes(task: Task, split: Mapping[str, np.ndarray]) -> bool:
    """Says whether what an example is evaluated to may depend on the others of its batch, and so on the batch size."""
    try:
        two, three = (_evaluation(task, split, size) for size in SIZES)
    except Exception:  # whatever the user's model raises on one of these sizes
        return True
    if not alike(two, three):
        return True
    of_batch = len(split) + 1
    axes = axes_of(two, three, [0] * of_batch + [None] * (len(two.inputs) - of_batch))
    return any(isinstance(axes[value], Mixed) for value in two.outputs)


def _evaluation(task: Task, split: Mapping[str, np.ndarray], size: int) -> Program:
    metrics = [metric for metric in map(as_metric, task.metrics.values()) if not metric.of_split]

    def evaluate(batch: Any, leaves: Any, scalar: jax.Array) -> Any:
        outputs = task.apply(unflatten(leaves), batch, scalar, None)
        return outputs, task.loss(outputs, batch, scalar), [metric.of(outputs, batch) for metric in metrics]

    batch = {name: jax.ShapeDtypeStruct((size, *array.shape[1:]), array.dtype) for name, array in split.items()}
    batch["weight"] = jax.ShapeDtypeStruct((size,), np.float32)
    return trace(evaluate, batch, abstract(task), jax.ShapeDtypeStruct((), jnp.zeros(()).dtype))[0]


def check_trained(make: OwnTask, classes: int, inputs: Mapping[str, jax.ShapeDtypeStruct], program: str) -> None:
    """Raises UserError unless a task computes what the one did whose `program_hash` is `program`.

    inputs: shape and dtype of one example's arrays in training, its label's too.
    """
    example = {name: leaf for name, leaf in inputs.items() if name != "label"}
    split = {name: np.zeros((1, *leaf.shape), leaf.dtype) for name, leaf in inputs.items()}
    if program_hash(build(make, classes, example, ""), split) != program:
        raise UserError(
            "--config defines a task that computes something else than the one that was trained, in its parameters, "
            "outputs, loss or metrics, allowed: the config file of the study as it was"
        )


def _computes(task: Task, with_keys: bool) -> Callable[..., Any]:
    def compute(leaves: Any, batch: Any, scalar: jax.Array, keys: jax.Array) -> Any:
        params, given = unflatten(leaves), keys if with_keys else None
        outputs = task.apply(params, batch, scalar, given)
        split = outputs, batch["label"], batch["weight"]
        metrics = {name: as_metric(metric) for name, metric in task.metrics.items()}
        found = {
            name: metric.of(*split) if metric.of_split else metric.of(outputs, batch)
            for name, metric in metrics.items()
        }
        computed = {"outputs": outputs, "loss": task.loss(outputs, batch, scalar), "metrics": found}
        if task.update is not None:
            trained = without_state(leaves, task)
            of_head = frozenset(path for path in trained if matches(task.head, path))
            computed["update"] = [
                task.update(params, batch, scalar, given, paths) for paths in (frozenset(trained), of_head)
            ]
        return computed

    return compute


def _gradient_hashes(task: Task, leaves: Any, *rest: Any) -> list[str]:
    """Returns hashes of the gradient by the parameters, in which rules of custom derivatives are spelt out.

    Where it cannot be had, as through a loop in a part that is frozen, that by each of them for which it can.
    """
    parameters = without_state(leaves, task)
    real = [path for path, leaf in parameters.items() if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    try:
        return [hash_of(_gradient(task, real), leaves, *rest)]
    except UserError:
        raise
    except Exception:  # whatever JAX or the model raises where no derivative is defined
        return [_gradient_hash_or_none(task, path, leaves, *rest) for path in real]


def _gradient_hash_or_none(task: Task, path: str, *arguments: Any) -> str:
    try:
        return hash_of(_gradient(task, [path]), *arguments)
    except UserError:
        raise
    except Exception:  # the same: this leaf cannot train
        return f"{path} has none"


def _gradient(task: Task, paths: list[str]) -> Callable[..., Any]:
    def gradient(leaves: Any, batch: Any, scalar: jax.Array, keys: jax.Array) -> Any:
        def loss(trained: Any) -> jax.Array:
            arguments = unflatten({**leaves, **trained}), batch, scalar, keys
            if task.update is None:
                outputs = task.apply(*arguments)
            else:
                outputs, _ = task.update(*arguments, frozenset(paths))
            return jnp.sum(task.loss(outputs, batch, scalar))

        return jax.grad(loss)({path: leaves[path] for path in paths})

    return gradient


def hash_of(function: Callable[..., Any], *arguments: Any) -> str:
    """Returns a hash (hex) of what a function computes of arguments of these shapes, the same in every process."""
    program, shapes = trace(function, *arguments)
    inputs = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(arguments)]
    computed = names(program, inputs)
    outputs = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    lines = [f"{name} {computed[value]}" for name, value in zip(outputs, program.outputs, strict=True)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _line(error: BaseException) -> str:
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0] if first else ''}"
