"""A member over an epoch: the order in which it reads a split, the loop over micro-batches, and the validation.

Still ONE member, pure and un-jitted; population/programs.py makes a population of it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from finetune.data.permutation import permutation
from finetune.member import batch_statistics
from finetune.member.metric import as_metric, larger_is_better
from finetune.member.params import Leaves
from finetune.member.step import Member, Position, Recipe, Shared, effective, eval_step, keep_best, train_step

_STREAM = 1  # of random words: another one than those of the draws in data/dataset.py
Split = dict[str, jax.Array]  # a split of the data, leading axis: examples
Step = Callable[[Recipe, Member, Shared, Any, Position], Member]


class Order(NamedTuple):
    """Which examples make up which batch of a pass: both arrays [batches, examples a batch]."""

    examples: Any  # int32, places in the split
    weight: Any  # 1, or 0 where the last batch is padded


def make_order(examples: np.ndarray, batch_size: int) -> Order:
    """Returns `examples`, indices [N], cut into batches, the last one padded."""
    batches = -(-len(examples) // batch_size)
    index = np.zeros(batches * batch_size, np.int32)
    index[: len(examples)] = examples
    weight = (np.arange(len(index)) < len(examples)).astype(np.float32)
    return Order(index.reshape(batches, -1), weight.reshape(batches, -1))


def epoch_order(data_seed: int, epoch: int, examples: int, batch_size: int) -> Order:
    """Returns the order of an epoch: a permutation that depends on nothing but the seed and the epoch."""
    return make_order(permutation(examples, (data_seed, epoch, _STREAM)), batch_size)


def read(split: Any, order: Order, micro: Any) -> dict[str, Any]:
    """Returns batch `micro` of an order: arrays of the split, and the "index" and "weight" of its examples."""
    index = order.examples[micro]
    batch = {name: array[index] for name, array in split.items()}
    return batch | {"index": index, "weight": order.weight[micro]}


def train_one(
    recipe: Recipe, member: Member, shared: Shared, split: Split, order: Order, epoch: jax.Array, micro: jax.Array,
    step: Step = train_step,
) -> Member:  # fmt: skip
    """Returns a member after one micro-batch: batch `micro` of `order`."""
    return step(
        recipe, member, shared, read(split, order, micro), Position(epoch, micro, micro == order.examples.shape[0] - 1)
    )


def train_steps(
    recipe: Recipe,
    member: Member,
    shared: Shared,
    split: Split,
    order: Order,
    epoch: jax.Array,
    start: jax.Array,
    stop: jax.Array,
    step: Step = train_step,
) -> Member:
    """Returns a member after the micro-batches start..stop of an epoch, in a loop that runs on the device.

    The bounds are data, so that the two steps that are timed and a whole epoch are one program.
    """

    def body(micro: jax.Array, member: Member) -> Member:
        return train_one(recipe, member, shared, split, order, epoch, micro, step)

    return jax.lax.fori_loop(start, stop, body, member)


def evaluate(
    recipe: Recipe, params: Leaves, shared: Shared, split: Split, order: Order, stop: jax.Array
) -> dict[str, jax.Array]:
    """Returns the mean loss and the metrics of `effective` parameters over the first `stop` batches of a split."""

    def batch_sums(micro: jax.Array) -> tuple[dict[str, jax.Array], Any]:
        sums = eval_step(recipe, params, shared, read(split, order, micro))
        gathered = sums.pop("gathered")
        return sums, gathered

    def body(micro: jax.Array, found: tuple[dict[str, jax.Array], Any]) -> tuple[dict[str, jax.Array], Any]:
        sums, gathered = batch_sums(micro)
        put = jax.tree.map(lambda whole, part: whole.at[micro].set(part), found[1], gathered)
        return jax.tree.map(jnp.add, found[0], sums), put

    batches, shapes = order.examples.shape[0], jax.eval_shape(batch_sums, stop)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes[0])
    places = jax.tree.map(lambda leaf: jnp.zeros((batches, *leaf.shape), leaf.dtype), shapes[1])
    sums, gathered = jax.lax.fori_loop(0, stop, body, (zeros, places))
    gathered = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), gathered)
    if recipe.batch_axis is not None:
        sums = jax.lax.psum(sums, recipe.batch_axis)
        gathered = jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, recipe.batch_axis, tiled=True), gathered)
    return finish(recipe, {**sums, "gathered": gathered})


def finish(recipe: Recipe, found: dict[str, Any]) -> dict[str, jax.Array]:
    """Returns loss and metrics of a split, given the sums over it and all that was gathered, as `eval_step` gives."""
    sums = {name: total for name, total in found.items() if name not in ("examples", "gathered")}
    means = {name: total / found["examples"] for name, total in sums.items()}
    if not found["gathered"]:
        return means
    whole = jax.tree.map(lambda *parts: jnp.concatenate(parts), *found["gathered"])
    metrics = {name: as_metric(metric) for name, metric in recipe.task.metrics.items()}
    return means | {
        name: metric.of(whole["outputs"], whole["label"], whole["weight"])
        for name, metric in metrics.items()
        if metric.of_split
    }


class Report(NamedTuple):
    """How a member stands after an epoch: scalars, or arrays [members]."""

    metrics: dict[str, Any]  # on the validation split
    train_loss: Any  # mean over the epoch
    updates: Any
    diverged_update: Any
    diverged_quantity: Any
    best_value: Any
    best_epoch: Any
    modes: dict[str, Any]  # as `batch_statistics.losses` gives, of the first batch of the validation split


def validate(
    recipe: Recipe, member: Member, shared: Shared, split: Split, order: Order, stop: jax.Array, epoch: jax.Array
) -> tuple[Member, Report]:
    """Returns a member that keeps its best parameters, and how it stands; `epoch` is how many are done."""
    params = effective(recipe, member.leaves, member.hparams)
    modes = batch_statistics.losses(recipe, params, shared, read(split, order, 0))
    member, report = judge(recipe, member, evaluate(recipe, params, shared, split, order, stop), epoch)
    return member, report._replace(modes=modes)


def evaluate_best(
    recipe: Recipe, member: Member, shared: Shared, split: Split, order: Order, stop: jax.Array
) -> dict[str, jax.Array]:
    """Returns the mean loss and metrics of a member's best parameters over the first `stop` batches of a split."""
    return evaluate(recipe, effective(recipe, member.best.params, member.hparams), shared, split, order, stop)


def judge(recipe: Recipe, member: Member, metrics: dict[str, jax.Array], epoch: jax.Array) -> tuple[Member, Report]:
    """Returns a member that keeps its best parameters, given its metrics, and how it stands."""
    value = metrics[recipe.metric]
    value = value if larger_is_better(recipe.task.metrics, recipe.metric) else -value
    member = keep_best(member, value.astype(member.best.value.dtype), epoch)
    report = Report(
        metrics=metrics,
        train_loss=member.loss_sum / jnp.maximum(member.loss_examples, 1),
        updates=member.updates,
        diverged_update=member.diverged_update,
        diverged_quantity=member.diverged_quantity,
        best_value=member.best.value,
        best_epoch=member.best.epoch,
        modes={},
    )
    zero = jnp.zeros_like(member.loss_sum)
    return member._replace(loss_sum=zero, loss_examples=zero), report
