"""A population's programs: the one visible place where functions of one member become those of all, and are compiled.

Whether members are one tree whose leaves have a leading member axis and one call moves all, or a list for each of which
the program of one is called, is the layout's to say: see parallel.py.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from finetune.member.batch_statistics import reestimate_step
from finetune.member.epoch import Report, Step, evaluate_best, train_one, train_steps, validate
from finetune.member.step import Member, Recipe, Shared, init_member, train_step
from finetune.population.parallel import ALL, MEMBERS, ORDER, OneDevice

Members = Any  # Member with leading member axes, or a list of Member


class Program:
    """A function compiled ahead of time, once for each set of argument shapes."""

    def __init__(self, jitted: Any):
        self.executables: dict[Any, Any] = {}
        self.seconds = 0.0  # that compiling has taken
        self._jitted = jitted

    def compiled(self, *arguments: Any) -> Any:
        """Returns the executable for arguments of these shapes; compiles it the first time."""
        key = _shapes(arguments)
        if self.executables.get(key) is None:
            started = time.monotonic()
            self.executables[key] = self._jitted.lower(*arguments).compile()
            self.seconds += time.monotonic() - started
        return self.executables[key]

    def __call__(self, *arguments: Any) -> Any:
        if jax.process_count() > 1:  # an executable of pmap takes global shapes there, its callable local ones
            self.executables.setdefault(_shapes(arguments), None)
            return self._jitted(*arguments)
        return self.compiled(*arguments)(*arguments)


def _shapes(arguments: Any) -> Any:
    leaves, structure = jax.tree.flatten(arguments)
    return structure, tuple((np.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)


class Programs(NamedTuple):
    """All that is done to a population.

    init: (shared, hparams [members]) -> members
    train: (members, shared, split, order, epoch, start, stop) -> members
    compile: (members, shared, split, order) -> the executable of `train`, not run
    reestimate: as train -> members with running averages of these micro-batches, where the recipe asks for them
    validate: (members, shared, split, order, stop, epoch) -> (members, Report of host arrays [members])
    test: (members, shared, split, order, stop) -> metrics of their best parameters {name: host array [members]}
    take: (members, indices) -> the members at the indices
    fetch: members -> one tree of host arrays [members, ...]
    put: that tree -> members
    compiled: the programs behind them, by name
    """

    init: Callable[..., Members]
    train: Callable[..., Members]
    compile: Callable[..., Any]
    reestimate: Callable[..., Members]
    validate: Callable[..., tuple[Members, Report]]
    test: Callable[..., dict[str, np.ndarray]]
    take: Callable[[Members, Sequence[int]], Members]
    fetch: Callable[[Members], Any]
    put: Callable[[Any], Members]
    compiled: dict[str, Program]


_INIT = (ALL, MEMBERS)  # shared, hparams
_TRAIN_STEPS = (MEMBERS, ALL, ALL, ORDER, ALL, ALL, ALL)  # members, shared, split, order, epoch, start, stop
_TRAIN_ONE = (MEMBERS, ALL, ALL, ORDER, ALL, ALL)  # members, shared, split, order, epoch, micro
_VALIDATE = (MEMBERS, ALL, ALL, ORDER, ALL, ALL)  # members, shared, split, order, stop, epoch
_TEST = (MEMBERS, ALL, ALL, ORDER, ALL)  # members, shared, split, order, stop


def over_members(
    recipe: Recipe, layout: OneDevice, function: Callable[..., Any], roles: tuple[str, ...]
) -> Callable[..., Any]:
    """Returns the function that applies one of a single member to all that a call moves."""
    return layout.over_members(functools.partial(function, recipe), roles)


def train_members(
    recipe: Recipe, layout: OneDevice, function: Callable[..., Member], roles: tuple[str, ...]
) -> Callable[..., Member]:
    """Returns the function that trains members by one of a single member, and tells it which seeds there are."""
    train = over_members(recipe, layout, function, roles)

    def train_all(members: Member, shared: Shared, *rest: Any) -> Member:
        seed = members.hparams.seed
        if seed.ndim == 0:  # a member alone has its own
            return train(members, shared, *rest)
        seeds = jnp.unique(seed, size=min(len(seed), recipe.seeds), fill_value=seed[0])
        return train(members, shared._replace(seeds=seeds), *rest)

    return train_all


def make_program(
    recipe: Recipe, layout: OneDevice, function: Callable[..., Any], roles: tuple[str, ...],
    donate: tuple[int, ...] = (), over: Callable[..., Any] = over_members,
) -> Program:  # fmt: skip
    """Returns the program of all members that a call moves; `over` is over_members or train_members."""
    return Program(layout.compile(over(recipe, layout, function, roles), roles, donate))


def make_programs(recipe: Recipe, layout: OneDevice, on_device: bool) -> Programs:
    """Returns the programs of a population that lies as `layout` says; on_device: where the loop over an epoch runs."""
    recipe = recipe._replace(batch_axis=layout.batch_axis)

    def stepping(step: Step) -> _Steps:
        calls, function, roles = (
            (_Steps, train_steps, _TRAIN_STEPS) if on_device else (_HostSteps, train_one, _TRAIN_ONE)
        )
        return calls(make_program(recipe, layout, functools.partial(function, step=step), roles, (0,), train_members))

    steps = stepping(train_step)
    compiled = {
        "init": make_program(recipe, layout, init_member, _INIT),
        "train": steps.program,
        "validate": make_program(recipe, layout, validate, _VALIDATE, (0,)),
        "test": make_program(recipe, layout, evaluate_best, _TEST),
    }
    init, check = layout.each(compiled["init"], _INIT), layout.each(compiled["validate"], _VALIDATE)
    train, test = layout.each(steps, _TRAIN_STEPS), layout.each(compiled["test"], _TEST)

    def validate_all(*arguments: Any) -> tuple[Members, Report]:
        members, report = check(*arguments)
        return members, layout.fetch(report)

    return Programs(
        init=lambda shared, hparams: init(shared, layout.put_members(hparams)),
        train=train,
        compile=train.compiled,
        reestimate=layout.each(stepping(reestimate_step), _TRAIN_STEPS),
        validate=validate_all,
        test=lambda members, *rest: layout.fetch(test(members, *rest)),
        take=layout.take,
        fetch=layout.fetch,
        put=layout.put_members,
        compiled=compiled,
    )


class _Steps:
    """Trains micro-batches start..stop of an epoch in one call."""

    def __init__(self, program: Program):
        self.program = program

    def __call__(self, members: Members, *arguments: Any) -> Members:
        return self.program(members, *arguments)

    def compiled(self, *arguments: Any) -> Any:
        return self.program.compiled(*arguments, *[np.int32(0)] * 3)


class _HostSteps(_Steps):
    """Trains micro-batches start..stop of an epoch with a call for each."""

    def __call__(self, members: Members, *arguments: Any) -> Members:
        *fixed, epoch, start, stop = arguments
        for micro in range(start, stop):
            members = self.program(members, *fixed, epoch, np.int32(micro))
        return members

    def compiled(self, *arguments: Any) -> Any:
        return self.program.compiled(*arguments, *[np.int32(0)] * 2)
