"""Programs that are handed each batch: where the data do not lie on the device, or the host computes for all members.

The programs of programs.py read batches from a split on the device. Here the host makes each batch, in one of two ways:

    `from_host`   reads it from features in host memory or in files,
    `from_trunk`  computes its features, once for all members of a list.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from finetune.member.batch_statistics import reestimate_step
from finetune.member.epoch import Order, Report, finish, judge, read
from finetune.member.params import Leaves
from finetune.member.step import Member, Position, Recipe, Shared, effective, eval_step, train_step
from finetune.population.parallel import ALL, MEMBERS, OneDevice
from finetune.population.programs import Members, Programs, make_program, train_members
from finetune.trunk.choice import Trunk
from finetune.trunk.cut import Cut

Split = dict[str, Any]
Batches = Callable[[Split, Order, int], dict[str, Any]]  # (split, order, micro) -> a batch on the device


class Feed(NamedTuple):
    """Where batches come from, in training and in evaluation."""

    train: Batches
    evaluate: Batches


def from_host(layout: OneDevice) -> Feed:
    """Returns the feed that reads splits of host arrays."""

    def batch(split: Split, order: Order, micro: int) -> dict[str, Any]:
        return layout.put_all(read(split, jax.tree.map(np.asarray, order), micro))

    return Feed(batch, batch)


def from_trunk(trunk: Trunk, frozen: Leaves) -> Feed:
    """Returns the feed that runs the trunk on batches of splits on the device; `frozen` are all frozen leaves."""
    assert trunk.train is not None
    assert trunk.evaluate is not None
    return Feed(_computed(trunk.train, trunk.judged, frozen), _computed(trunk.evaluate, trunk.judged, frozen))


def _computed(cut: Cut, judged: Iterable[str], frozen: Leaves) -> Batches:
    def compute(frozen: Leaves, split: Split, order: Order, micro: jax.Array) -> dict[str, Any]:
        batch = read(split, order, micro)
        kept = {name: batch[name] for name in (*cut.reads, *judged, "label", "index", "weight")}
        return cut.trunk(frozen, batch) | kept

    program = jax.jit(compute)
    return lambda split, order, micro: program(frozen, split, order, np.int32(micro))


_STEP = (MEMBERS, ALL, ALL, ALL)  # members, shared, batch, position
_SUMS = (MEMBERS, ALL, ALL)  # members, shared, batch
_JUDGE = (MEMBERS, MEMBERS, ALL)  # members, sums, epoch
_FINISH = (MEMBERS,)  # sums
_ADD = (MEMBERS, MEMBERS)  # sums, sums


def fed(programs: Programs, recipe: Recipe, layout: OneDevice, feed: Feed) -> Programs:
    """Returns `programs` of a population with those replaced that read data."""

    program = functools.partial(make_program, recipe, layout)
    step, again = (program(each, _STEP, (0,), train_members) for each in (train_step, reestimate_step))
    sums, best_sums = (program(each, _SUMS) for each in (_sums, _best_sums))
    train, reestimate = (_Steps(layout.each(each, _STEP), feed.train) for each in (step, again))
    whole, best = (
        _Split(layout.each(each, _SUMS), layout.each(_add, _ADD), feed.evaluate) for each in (sums, best_sums)
    )
    check = layout.each(program(_judge, _JUDGE, (0,)), _JUDGE)
    end = layout.each(program(finish, _FINISH), _FINISH)

    def validate(members: Members, shared: Shared, *rest: Any) -> tuple[Members, Report]:
        *data, epoch = rest
        members, report = check(members, whole(members, shared, *data), epoch)
        return members, programs.fetch(report)

    return programs._replace(
        train=train,
        compile=train.compiled,
        reestimate=reestimate,
        validate=validate,
        test=lambda members, *rest: programs.fetch(end(best(members, *rest))),
        compiled={"init": programs.compiled["init"], "train": step, "validate": sums, "test": best_sums},
    )


class _Steps:
    """The loop over the batches of an epoch, on the host."""

    def __init__(self, step: Any, batches: Batches):
        self._step, self._batches = step, batches

    def __call__(
        self, members: Members, shared: Shared, split: Split, order: Order, epoch: Any, start: Any, stop: Any
    ) -> Members:
        for micro in range(start, stop):
            members = self._step(members, shared, *self._batch(split, order, epoch, micro))
        return members

    def compiled(self, members: Members, shared: Shared, split: Split, order: Order) -> Any:
        """Returns the executable of a step."""
        return self._step.compiled(members, shared, *self._batch(split, order, 0, 0))

    def _batch(self, split: Split, order: Order, epoch: Any, micro: int) -> tuple[dict[str, Any], Position]:
        position: Any = np.int32(epoch), np.int32(micro), np.bool_(micro == order.examples.shape[0] - 1)
        return self._batches(split, order, micro), Position(*position)


class _Split:
    """The loop over the first batches of a split: sums of loss and metrics, and what was gathered of them."""

    def __init__(self, sums: Any, add: Any, batches: Batches):
        self._sums, self._add, self._batches = sums, add, batches

    def __call__(self, members: Members, shared: Shared, split: Split, order: Order, stop: Any) -> Any:
        totals = self._sums(members, shared, self._batches(split, order, 0))
        for micro in range(1, stop):
            totals = self._add(totals, self._sums(members, shared, self._batches(split, order, micro)))
        return totals


def _sums(recipe: Recipe, member: Member, shared: Shared, batch: Any) -> dict[str, jax.Array]:
    return eval_step(recipe, effective(recipe, member.leaves, member.hparams), shared, batch)


def _best_sums(recipe: Recipe, member: Member, shared: Shared, batch: Any) -> dict[str, jax.Array]:
    return eval_step(recipe, effective(recipe, member.best.params, member.hparams), shared, batch)


def _judge(recipe: Recipe, member: Member, sums: Any, epoch: Any) -> tuple[Member, Report]:
    return judge(recipe, member, finish(recipe, sums), epoch)


def _add(totals: Any, more: Any) -> Any:
    """Returns what two parts of a split give together."""
    sums = ({name: value for name, value in each.items() if name != "gathered"} for each in (totals, more))
    return {**_add_sums(*sums), "gathered": totals["gathered"] + more["gathered"]}


@jax.jit
def _add_sums(totals: Any, more: Any) -> Any:
    return jax.tree.map(jnp.add, totals, more)
