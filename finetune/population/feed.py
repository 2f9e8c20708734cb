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
from finetune.population.programs import Listed, Members, Program, Programs, over_members, train_members
from finetune.trunk.choice import Trunk
from finetune.trunk.cut import Cut

Split = dict[str, Any]
Batches = Callable[[Split, Order, int], dict[str, Any]]  # (split, order, row) -> a batch on the device


class Feed(NamedTuple):
    """Where batches come from, in training and in evaluation."""

    train: Batches
    evaluate: Batches


def from_host(layout: OneDevice) -> Feed:
    """Returns the feed that reads splits of host arrays."""

    def batch(split: Split, order: Order, row: int) -> dict[str, Any]:
        return layout.put_all(read(split, jax.tree.map(np.asarray, order), row))

    return Feed(batch, batch)


def from_trunk(trunk: Trunk, frozen: Leaves) -> Feed:
    """Returns the feed that runs the trunk on batches of splits on the device; `frozen` are all frozen leaves."""
    assert trunk.train is not None
    assert trunk.evaluate is not None
    return Feed(_computed(trunk.train, trunk.judged, frozen), _computed(trunk.evaluate, trunk.judged, frozen))


def _computed(cut: Cut, judged: Iterable[str], frozen: Leaves) -> Batches:
    def compute(frozen: Leaves, split: Split, order: Order, row: jax.Array) -> dict[str, Any]:
        batch = read(split, order, row)
        kept = {name: batch[name] for name in (*cut.reads, *judged, "label", "index", "weight")}
        return cut.trunk(frozen, batch) | kept

    program = jax.jit(compute)
    return lambda split, order, row: program(frozen, split, order, np.int32(row))


_STEP = (MEMBERS, ALL, ALL, ALL)  # members, shared, batch, position
_SUMS = (MEMBERS, ALL, ALL)  # members, shared, batch
_JUDGE = (MEMBERS, MEMBERS, ALL)  # members, sums, epoch
_FINISH = (MEMBERS,)  # sums


def fed(programs: Programs, recipe: Recipe, metric: str, layout: OneDevice, feed: Feed, mode: str) -> Programs:
    """Returns `programs` of a population with those replaced that read data; `mode` is vmap or loop."""

    def program(function: Callable[..., Any], roles: tuple[str, ...], donate: tuple[int, ...] = ()) -> Any:
        if mode == "loop":
            return Listed(recipe, function, roles, donate)
        vmapped = train_members if function in (train_step, reestimate_step) else over_members
        return Program(layout.compile(vmapped(recipe, function, roles), roles, donate))

    handed = _Handed(
        step=program(train_step, _STEP, donate=(0,)),
        reestimate=program(reestimate_step, _STEP, donate=(0,)),
        sums=program(_sums, _SUMS),
        best_sums=program(_best_sums, _SUMS),
        judge=program(functools.partial(_judge, metric), _JUDGE, donate=(0,)),
        finish=program(finish, _FINISH),
        feed=feed,
        fetch=programs.fetch,
    )
    return programs._replace(
        train=handed.train,
        compile=handed.compiled,
        reestimate=handed.reestimate,
        validate=handed.validate,
        test=handed.test,
        compiled={"init": programs.compiled["init"], **handed.programs},
    )


class _Handed:
    """The loops over the batches of an epoch and of a split, on the host; members are a tree or a list."""

    def __init__(
        self, step: Any, reestimate: Any, sums: Any, best_sums: Any, judge: Any, finish: Any, feed: Feed,
        fetch: Callable[[Any], Any],
    ):  # fmt: skip
        self._reestimate = reestimate
        self._step, self._sums, self._best_sums, self._judge = step, sums, best_sums, judge
        self._finish, self._feed, self._fetch = finish, feed, fetch

    @property
    def programs(self) -> dict[str, Program]:
        """The programs behind it, by name."""
        by_name = {"train": self._step, "validate": self._sums, "test": self._best_sums}
        return {name: getattr(each, "program", each) for name, each in by_name.items()}

    def train(
        self, members: Members, shared: Shared, split: Split, order: Order, epoch: Any, start: Any, stop: Any
    ) -> Members:
        return self._over_rows(self._step, members, shared, split, order, epoch, range(start, stop))

    def reestimate(
        self, members: Members, shared: Shared, split: Split, order: Order, epoch: Any, start: Any, stop: Any
    ) -> Members:
        return self._over_rows(self._reestimate, members, shared, split, order, epoch, range(start, stop))

    def _over_rows(
        self, step: Any, members: Members, shared: Shared, split: Split, order: Order, epoch: Any, rows: range
    ) -> Members:
        for row in rows:
            members = step(members, shared, *self._batch(split, order, epoch, row))
        return members

    def compiled(self, members: Members, shared: Shared, split: Split, order: Order) -> Any:
        return self._step.compiled(members, shared, *self._batch(split, order, 0, 0))

    def validate(self, members: Members, shared: Shared, *rest: Any) -> tuple[Members, Report]:
        *data, epoch = rest
        found = self._judge(members, self._over(self._sums, members, shared, *data), epoch)
        members, report = map(list, zip(*found, strict=True)) if isinstance(found, list) else found
        return members, self._fetch(report)

    def test(self, members: Members, *rest: Any) -> dict[str, np.ndarray]:
        return dict(self._fetch(self._finish(self._over(self._best_sums, members, *rest))))

    def _batch(self, split: Split, order: Order, epoch: Any, row: int) -> tuple[dict[str, Any], Position]:
        position: Any = np.int32(epoch), np.int32(row), np.bool_(row == order.examples.shape[0] - 1)
        return self._feed.train(split, order, row), Position(*position)

    def _over(self, sums: Any, members: Members, shared: Shared, split: Split, order: Order, stop: Any) -> Any:
        """Returns the sums of loss and metrics over the first `stop` batches, and what was gathered of them."""
        totals = sums(members, shared, self._feed.evaluate(split, order, 0))
        for row in range(1, stop):
            totals = _add(totals, sums(members, shared, self._feed.evaluate(split, order, row)))
        return totals


def _sums(recipe: Recipe, member: Member, shared: Shared, batch: Any) -> dict[str, jax.Array]:
    return eval_step(recipe, effective(recipe, member.leaves, member.hparams), shared, batch)


def _best_sums(recipe: Recipe, member: Member, shared: Shared, batch: Any) -> dict[str, jax.Array]:
    return eval_step(recipe, effective(recipe, member.best.params, member.hparams), shared, batch)


def _judge(metric: str, recipe: Recipe, member: Member, sums: Any, epoch: Any) -> tuple[Member, Report]:
    return judge(recipe, metric, member, finish(recipe, sums), epoch)


def _add(totals: Any, more: Any) -> Any:
    """Returns what two parts of a split give together; of a list of members, each one's."""
    if isinstance(totals, list):
        return [_add(*pair) for pair in zip(totals, more, strict=True)]
    sums = ({name: value for name, value in each.items() if name != "gathered"} for each in (totals, more))
    return {**_add_sums(*sums), "gathered": totals["gathered"] + more["gathered"]}


@jax.jit
def _add_sums(totals: Any, more: Any) -> Any:
    return jax.tree.map(jnp.add, totals, more)
