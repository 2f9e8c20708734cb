"""A loss and metrics of the user's own, pure functions, for a model of finetune: checked, and named by a hash."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from finetune.errors import UserError
from finetune.jaxpr.batch_axis import SIZES, mixed
from finetune.jaxpr.program import trace
from finetune.member.metric import LOSS, Metric, as_metric
from finetune.member.objective import NO_OBJECTIVE, OwnObjective
from finetune.member.params import abstract, unflatten
from finetune.member.precision import widened
from finetune.member.task import Task
from finetune.study.user_task import hash_of

_SIGNATURES = {LOSS: "loss(outputs, batch, label_smoothing)"}


def checked(loss: Any, metrics: Any, has_task: bool) -> OwnObjective:
    """Returns what a user gives as `loss` and `metrics`, None for none; raises UserError unless they can be those."""
    if loss is None and metrics is None:
        return NO_OBJECTIVE
    if has_task:
        raise UserError(
            "both task and loss or metrics are given, allowed: objective= of the adapter that makes the task"
        )
    if loss is not None and not callable(loss):
        raise UserError(f"loss is {loss!r}, allowed: a function, {_SIGNATURES[LOSS]}")
    metrics = {} if metrics is None else metrics
    if not isinstance(metrics, Mapping):
        raise UserError(f"metrics is {metrics!r}, allowed: a dict of functions (outputs, batch) or finetune.Metric")
    for name, each in metrics.items():
        if not isinstance(name, str) or name in ("", LOSS) or not (callable(each) or isinstance(each, Metric)):
            raise UserError(
                f"metrics holds {name!r}: {each!r}, allowed: a name other than {LOSS}, and a function (outputs, batch) "
                "or a finetune.Metric"
            )
    return OwnObjective(loss, dict(metrics))


class Found(NamedTuple):
    """What is found out of an objective of the user's own by tracing it; nothing is declared.

    mixed: why the loss of an example depends on the others of its batch, or "". described: what results depend on.
    """

    mixed: str
    described: dict[str, Any]


def find(task: Task, own: OwnObjective, split: Mapping[str, np.ndarray], batch_size: int) -> Found:
    """Returns what there is to know of the objective of a task that trains on batches of `split`.

    batch_size: of evaluations, on which results depend if examples mix in them. Raises UserError, one line, for what
    the functions raise, and for values that are not one of each example.
    """
    if own == NO_OBJECTIVE:
        return Found("", {})
    losses, means = _losses(task), _means(task)
    small, large = (_batch(task, split, size) for size in SIZES)
    _check(task, own, small)
    inputs = [0 if path[0].idx < 2 else None for path, _ in jax.tree_util.tree_leaves_with_path(small)]
    in_training = mixed(trace(losses, *small)[0], trace(losses, *large)[0], inputs)
    evaluated = mixed(trace(means, *small)[0], trace(means, *large)[0], inputs)
    hashes = [hash_of(_all(task), *small), hash_of(_gradient(task), *small)]
    better = sorted((name, as_metric(metric).larger_is_better) for name, metric in task.metrics.items())
    told: dict[str, Any] = {"objective": hashlib.sha256("\n".join([repr(better), *hashes]).encode()).hexdigest()}
    if evaluated:
        told["evaluation.batch_size"] = batch_size
    return Found(in_training, told)


def _batch(task: Task, split: Mapping[str, np.ndarray], size: int) -> tuple[Any, Any, Any]:
    """Returns the shapes of outputs, batch and label_smoothing for so many examples."""
    batch = {name: jax.ShapeDtypeStruct((size, *array.shape[1:]), array.dtype) for name, array in split.items()}
    batch["weight"] = jax.ShapeDtypeStruct((size,), np.float32)

    def run(leaves: Any, batch: Any) -> Any:
        return widened(task.apply(unflatten(leaves), batch, 0.0, None))

    return jax.eval_shape(run, abstract(task), batch), batch, jax.ShapeDtypeStruct((), jnp.zeros(()).dtype)


def _losses(task: Task) -> Callable[..., Any]:
    return lambda outputs, batch, smoothing: task.loss(outputs, batch, smoothing)


def _means(task: Task) -> Callable[..., Any]:
    metrics = [metric for metric in map(as_metric, task.metrics.values()) if not metric.of_split]
    return lambda outputs, batch, smoothing: [
        task.loss(outputs, batch, smoothing), *(metric.of(outputs, batch) for metric in metrics)
    ]  # fmt: skip


def _of(metric: Metric, outputs: Any, batch: Any) -> Any:
    return metric.of(outputs, batch["label"], batch["weight"]) if metric.of_split else metric.of(outputs, batch)


def _all(task: Task) -> Callable[..., Any]:
    metrics = {name: as_metric(metric) for name, metric in sorted(task.metrics.items())}
    return lambda outputs, batch, smoothing: (
        task.loss(outputs, batch, smoothing), {name: _of(each, outputs, batch) for name, each in metrics.items()}
    )  # fmt: skip


def _gradient(task: Task) -> Callable[..., Any]:
    """Returns the gradient by the outputs, in which rules of custom derivatives are spelt out."""
    return jax.grad(lambda outputs, batch, smoothing: jnp.sum(task.loss(outputs, batch, smoothing)))


def _check(task: Task, own: OwnObjective, arguments: tuple[Any, Any, Any]) -> None:
    _, batch, _ = arguments
    examples = (batch["label"].shape[0],)
    if own.loss is not None:
        _check_one(_SIGNATURES[LOSS], task.loss, arguments, examples)
    for name, metric in own.metrics.items():
        each = as_metric(metric)
        signature = f"metric {name!r} of {'outputs, labels, weight' if each.of_split else 'outputs, batch'}"
        _check_one(signature, lambda a, b, _, each=each: _of(each, a, b), arguments, () if each.of_split else examples)


def _check_one(what: str, function: Any, arguments: tuple[Any, ...], shape: tuple[int, ...]) -> None:
    try:
        found = jax.eval_shape(function, *arguments)
    except UserError:
        raise
    except Exception as error:  # whatever the user's function raises
        first = (str(error).strip().splitlines() or [""])[0]
        raise UserError(f"{what}: {type(error).__name__}: {first}") from error
    if getattr(found, "shape", None) != shape or not jnp.issubdtype(found.dtype, jnp.number):
        told = [f"{leaf.dtype} {list(leaf.shape)}" for leaf in jax.tree.leaves(found)]
        allowed = "one number" if shape == () else "a number for each example"
        raise UserError(
            f"{what} gives {', '.join(told)} for {arguments[1]['label'].shape[0]} examples, allowed: {allowed}"
        )
