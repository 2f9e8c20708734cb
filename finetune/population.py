"""Many members at once: the one visible place where step.py's functions are vmapped, looped, compiled and donated.

Two sets of programs do the same for a population. `vmapped`: members are one tree whose leaves have a leading member
axis, and one call moves all. `looped`: members are a list, and the one-member program is called for each.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from finetune.hparams import Hparams
from finetune.parallel import ALL, MEMBERS, ORDER, OneDevice
from finetune.params import Leaves
from finetune.step import Member, Position, Recipe, Shared, eval_step, init_member, keep_best, train_step

Split = dict[str, jax.Array]  # a split of the data, leading axis: examples
Members = Any  # Member with leading member axes, or a list of Member


class Order(NamedTuple):
    """Which examples make up which batch of a pass: both arrays [batches, examples a batch]."""

    examples: jax.Array  # int32, places in the split
    weight: jax.Array  # 1, or 0 where the last batch is padded


def make_order(permutation: np.ndarray, batch_size: int) -> Order:
    """Returns `permutation` [N] cut into batches, the last one padded."""
    batches = -(-len(permutation) // batch_size)
    index = np.zeros(batches * batch_size, np.int32)
    index[: len(permutation)] = permutation
    weight = (np.arange(len(index)) < len(permutation)).astype(np.float32)
    return Order(index.reshape(batches, -1), weight.reshape(batches, -1))


def epoch_order(data_seed: int, epoch: int, examples: int, batch_size: int) -> Order:
    """Returns the order of an epoch: a permutation that depends on nothing but the seed and the epoch."""
    permutation = np.random.Generator(np.random.PCG64([data_seed, epoch])).permutation(examples)
    return make_order(permutation, batch_size)


def _read(split: Split, order: Order, row: jax.Array) -> Split:
    index = order.examples[row]
    batch = {name: array[index] for name, array in split.items()}
    return batch | {"index": index, "weight": order.weight[row]}


def train_one(
    recipe: Recipe, member: Member, shared: Shared, split: Split, order: Order, epoch: jax.Array, row: jax.Array
) -> Member:
    """Returns a member after one micro-batch: row `row` of `order`."""
    return train_step(
        recipe, member, shared, _read(split, order, row), Position(epoch, row, row == order.examples.shape[0] - 1)
    )


def train_rows(
    recipe: Recipe,
    member: Member,
    shared: Shared,
    split: Split,
    order: Order,
    epoch: jax.Array,
    start: jax.Array,
    stop: jax.Array,
) -> Member:
    """Returns a member after the micro-batches start..stop of an epoch, in a loop that runs on the device.

    The bounds are data, so that the two steps that are timed and a whole epoch are one program.
    """

    def body(row: jax.Array, member: Member) -> Member:
        return train_one(recipe, member, shared, split, order, epoch, row)

    return jax.lax.fori_loop(start, stop, body, member)


def evaluate(
    recipe: Recipe, params: Leaves, shared: Shared, split: Split, order: Order, stop: jax.Array
) -> dict[str, jax.Array]:
    """Returns the mean loss and metrics of one member over the first `stop` batches of a split."""

    def batch_sums(row: jax.Array) -> dict[str, jax.Array]:
        return eval_step(recipe, params, shared, _read(split, order, row))

    def body(row: jax.Array, sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return jax.tree.map(jnp.add, sums, batch_sums(row))

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(batch_sums, stop))
    sums = jax.lax.fori_loop(0, stop, body, zeros)
    examples = sums.pop("examples")
    return {name: _all_mean(recipe, total, examples) for name, total in sums.items()}


def _all_mean(recipe: Recipe, total: jax.Array, examples: jax.Array) -> jax.Array:
    if recipe.batch_axis is not None:
        total, examples = jax.lax.psum((total, examples), recipe.batch_axis)
    return total / examples


class Report(NamedTuple):
    """How a member stands after an epoch: scalars, or arrays [members]."""

    metrics: dict[str, Any]  # on the validation split
    train_loss: Any  # mean over the epoch
    updates: Any
    diverged_update: Any
    diverged_quantity: Any
    best_value: Any
    best_epoch: Any


def validate(
    recipe: Recipe,
    metric: str,
    member: Member,
    shared: Shared,
    split: Split,
    order: Order,
    stop: jax.Array,
    epoch: jax.Array,
) -> tuple[Member, Report]:
    """Returns a member that keeps its best parameters by `metric`, and how it stands; `epoch` is how many are done."""
    metrics = evaluate(recipe, member.params, shared, split, order, stop)
    value = -metrics["loss"] if metric == "loss" else metrics[metric]
    member = keep_best(member, value.astype(member.best.value.dtype), epoch)
    report = Report(
        metrics=metrics,
        train_loss=member.loss_sum / jnp.maximum(member.loss_examples, 1),
        updates=member.updates,
        diverged_update=member.diverged_update,
        diverged_quantity=member.diverged_quantity,
        best_value=member.best.value,
        best_epoch=member.best.epoch,
    )
    zero = jnp.zeros_like(member.loss_sum)
    return member._replace(loss_sum=zero, loss_examples=zero), report


class Program:
    """A function compiled ahead of time, once for each set of argument shapes, with the cost of doing so."""

    def __init__(self, name: str, jitted: Any):
        self.name = name
        self.compile_seconds = 0.0
        self.executables: dict[Any, Any] = {}
        self._jitted = jitted

    def compiled(self, *arguments: Any) -> Any:
        """Returns the executable for arguments of these shapes; compiles it the first time."""
        leaves, structure = jax.tree.flatten(arguments)
        key = (structure, tuple((np.shape(leaf), jnp.result_type(leaf)) for leaf in leaves))
        if key not in self.executables:
            started = time.monotonic()
            self.executables[key] = self._jitted.lower(*arguments).compile()
            self.compile_seconds += time.monotonic() - started
        return self.executables[key]

    def __call__(self, *arguments: Any) -> Any:
        return self.compiled(*arguments)(*arguments)


class Programs(NamedTuple):
    """All that is done to a population.

    init: (shared, hparams [members]) -> members
    train: (members, shared, split, order, epoch, start, stop) -> members
    validate: (members, shared, split, order, stop, epoch) -> (members, Report of host arrays [members])
    test: (members, shared, split, order, stop) -> metrics of their best parameters {name: host array [members]}
    take: (members, indices) -> the members at the indices
    fetch: members -> one tree of host arrays [members, ...]
    compiled: the programs behind them, by name
    """

    init: Callable[..., Members]
    train: Callable[..., Members]
    validate: Callable[..., tuple[Members, Report]]
    test: Callable[..., dict[str, np.ndarray]]
    take: Callable[[Members, Sequence[int]], Members]
    fetch: Callable[[Members], Any]
    compiled: dict[str, Program]


_INIT = (ALL, MEMBERS)  # shared, hparams
_TRAIN_ROWS = (MEMBERS, ALL, ALL, ORDER, ALL, ALL, ALL)  # members, shared, split, order, epoch, start, stop
_TRAIN_ONE = (MEMBERS, ALL, ALL, ORDER, ALL, ALL)  # members, shared, split, order, epoch, row
_VALIDATE = (MEMBERS, ALL, ALL, ORDER, ALL, ALL)  # members, shared, split, order, stop, epoch
_TEST = (MEMBERS, ALL, ALL, ORDER, ALL)  # best parameters, shared, split, order, stop


def _compile(name: str, recipe: Recipe, function: Callable[..., Any], roles: tuple[str, ...], layout: OneDevice,
             donate: tuple[int, ...] = ()) -> Program:  # fmt: skip
    """Returns the program that applies a function of one member to all of them."""
    axes = tuple(0 if role == MEMBERS else None for role in roles)
    return Program(name, layout.compile(jax.vmap(functools.partial(function, recipe), axes), roles, donate))


def vmapped(recipe: Recipe, metric: str, layout: OneDevice, epochs_on_device: bool) -> Programs:
    """Returns the programs that move all members in one call, laid out over devices by `layout`."""
    recipe = recipe._replace(batch_axis=layout.batch_axis)
    init = _compile("init", recipe, init_member, _INIT, layout)
    rows = _compile("train", recipe, train_rows, _TRAIN_ROWS, layout, donate=(0,))
    one = _compile("train", recipe, train_one, _TRAIN_ONE, layout, donate=(0,))
    check = _compile("validate", recipe, _with_metric(metric), _VALIDATE, layout, donate=(0,))
    test = _compile("test", recipe, evaluate, _TEST, layout)

    def validated(*arguments: Any) -> tuple[Members, Report]:
        members, report = check(*arguments)
        return members, layout.fetch(report)

    return Programs(
        init=lambda shared, hparams: init(shared, layout.put_members(hparams)),
        train=rows if epochs_on_device else _stepped(one),
        validate=validated,
        test=lambda members, *rest: layout.fetch(test(members.best.params, *rest)),
        take=layout.take,
        fetch=layout.fetch,
        compiled={"init": init, "train": rows if epochs_on_device else one, "validate": check, "test": test},
    )


def looped(recipe: Recipe, metric: str, layout: OneDevice, epochs_on_device: bool) -> Programs:
    """Returns the programs that call the one-member program for each member of a list."""
    init = Program("init", jax.jit(functools.partial(init_member, recipe)))
    rows = Program("train", jax.jit(functools.partial(train_rows, recipe), donate_argnums=0))
    one = Program("train", jax.jit(functools.partial(train_one, recipe), donate_argnums=0))
    check = Program("validate", jax.jit(functools.partial(_with_metric(metric), recipe), donate_argnums=0))
    test = Program("test", jax.jit(functools.partial(evaluate, recipe)))
    train = rows if epochs_on_device else _stepped(one)

    def init_all(shared: Shared, hparams: Hparams) -> list[Member]:
        return [init(shared, Hparams(*scalars)) for scalars in zip(*hparams, strict=True)]

    def validate_all(members: list[Member], *rest: Any) -> tuple[list[Member], Report]:
        pairs = [check(member, *rest) for member in members]
        return [member for member, _ in pairs], stack(jax.device_get([report for _, report in pairs]))

    return Programs(
        init=init_all,
        train=lambda members, *rest: [train(member, *rest) for member in members],
        validate=validate_all,
        test=lambda members, *rest: stack(jax.device_get([test(each.best.params, *rest) for each in members])),
        take=lambda members, indices: [members[i] for i in indices],
        fetch=lambda members: stack(jax.device_get(members)),
        compiled={"init": init, "train": rows if epochs_on_device else one, "validate": check, "test": test},
    )


def stack(trees: Sequence[Any]) -> Any:
    """Returns a list of like trees of host arrays as one tree with a leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _with_metric(metric: str) -> Callable[..., tuple[Member, Report]]:
    def check(recipe: Recipe, *arguments: Any) -> tuple[Member, Report]:
        return validate(recipe, metric, *arguments)

    return check


def _stepped(one: Program) -> Callable[..., Any]:
    def train(members: Any, shared: Shared, split: Split, order: Order, epoch: int, start: int, stop: int) -> Any:
        for row in range(start, stop):
            members = one(members, shared, split, order, epoch, np.int32(row))
        return members

    return train
