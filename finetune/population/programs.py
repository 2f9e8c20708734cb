"""A population's programs: the one visible place where functions of one member are vmapped, looped and compiled.

Two sets of programs do the same. `vmapped`: members are one tree whose leaves have a leading member axis, and one call
moves all. `looped`: members are a list, and the one-member program is called for each.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from finetune.member.batch_statistics import reestimate_step
from finetune.member.epoch import Report, Step, evaluate_best, train_one, train_rows, validate
from finetune.member.step import Member, Recipe, Shared, init_member, train_step
from finetune.population.parallel import ALL, MEMBERS, ORDER, OneDevice
from finetune.trials.hparams import Hparams

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
_TRAIN_ROWS = (MEMBERS, ALL, ALL, ORDER, ALL, ALL, ALL)  # members, shared, split, order, epoch, start, stop
_TRAIN_ONE = (MEMBERS, ALL, ALL, ORDER, ALL, ALL)  # members, shared, split, order, epoch, row
_VALIDATE = (MEMBERS, ALL, ALL, ORDER, ALL, ALL)  # members, shared, split, order, stop, epoch
_TEST = (MEMBERS, ALL, ALL, ORDER, ALL)  # members, shared, split, order, stop


def over_members(recipe: Recipe, function: Callable[..., Any], roles: tuple[str, ...]) -> Callable[..., Any]:
    """Returns the function that applies one of a single member to all of them."""
    axes = tuple(0 if role == MEMBERS else None for role in roles)
    return jax.vmap(functools.partial(function, recipe), axes)


def train_members(recipe: Recipe, function: Callable[..., Member], roles: tuple[str, ...]) -> Callable[..., Member]:
    """Returns the function that trains all members by one of a single member, and tells it which seeds there are."""
    train = over_members(recipe, function, roles)

    def train_all(members: Member, shared: Shared, *rest: Any) -> Member:
        seed = members.hparams.seed
        seeds = jnp.unique(seed, size=min(len(seed), recipe.seeds), fill_value=seed[0])
        return train(members, shared._replace(seeds=seeds), *rest)

    return train_all


class Listed:
    """The program of one member, called for each of a list; results are lists."""

    def __init__(self, recipe: Recipe, function: Callable[..., Any], roles: tuple[str, ...], donate: Any = ()):
        self.program = Program(jax.jit(functools.partial(function, recipe), donate_argnums=donate))
        self._roles = roles

    def __call__(self, *arguments: Any) -> list[Any]:
        number = len(arguments[self._roles.index(MEMBERS)])
        return [self.program(*self._of_one(i, arguments)) for i in range(number)]

    def compiled(self, *arguments: Any) -> Any:
        """Returns the executable for arguments of these shapes."""
        return self.program.compiled(*self._of_one(0, arguments))

    def _of_one(self, i: int, arguments: Sequence[Any]) -> list[Any]:
        return [value[i] if role == MEMBERS else value for value, role in zip(arguments, self._roles, strict=True)]


def vmapped(recipe: Recipe, metric: str, layout: OneDevice, on_device: bool) -> Programs:
    """Returns the programs that move all members in one call, laid out over devices by `layout`."""
    recipe = recipe._replace(batch_axis=layout.batch_axis)
    init = Program(layout.compile(over_members(recipe, init_member, _INIT), _INIT))

    def stepping(step: Step) -> _Rows | _Steps:
        calls, function, roles = (_Rows, train_rows, _TRAIN_ROWS) if on_device else (_Steps, train_one, _TRAIN_ONE)
        over = train_members(recipe, functools.partial(function, step=step), roles)
        return calls(Program(layout.compile(over, roles, donate=(0,))))

    train, reestimate = stepping(train_step), stepping(reestimate_step)
    validating = over_members(recipe, _validate_by(metric), _VALIDATE)
    check = Program(layout.compile(validating, _VALIDATE, donate=(0,)))
    test = Program(layout.compile(over_members(recipe, evaluate_best, _TEST), _TEST))

    def validate_all(*arguments: Any) -> tuple[Members, Report]:
        members, report = check(*arguments)
        return members, layout.fetch(report)

    return Programs(
        init=lambda shared, hparams: init(shared, layout.put_members(hparams)),
        train=train,
        compile=train.compiled,
        reestimate=reestimate,
        validate=validate_all,
        test=lambda members, *rest: layout.fetch(test(members, *rest)),
        take=layout.take,
        fetch=layout.fetch,
        put=layout.put_members,
        compiled={"init": init, "train": train.program, "validate": check, "test": test},
    )


def looped(recipe: Recipe, metric: str, layout: OneDevice, on_device: bool) -> Programs:
    """Returns the programs that call the one-member program for each member of a list, on one device."""
    del layout
    init = Program(jax.jit(functools.partial(init_member, recipe)))

    def stepping(step: Step) -> _Rows | _Steps:
        calls, function = (_Rows, train_rows) if on_device else (_Steps, train_one)
        return calls(Program(jax.jit(functools.partial(function, recipe, step=step), donate_argnums=0)))

    train, reestimate = stepping(train_step), stepping(reestimate_step)
    check = Program(jax.jit(functools.partial(_validate_by(metric), recipe), donate_argnums=0))
    test = Program(jax.jit(functools.partial(evaluate_best, recipe)))

    def init_all(shared: Shared, hparams: Hparams) -> list[Member]:
        return [init(shared, Hparams(*scalars)) for scalars in zip(*hparams, strict=True)]

    def validate_all(members: list[Member], *rest: Any) -> tuple[list[Member], Report]:
        pairs = [check(member, *rest) for member in members]
        return [member for member, _ in pairs], stack(jax.device_get([report for _, report in pairs]))

    return Programs(
        init=init_all,
        train=lambda members, *rest: [train(member, *rest) for member in members],
        compile=lambda members, *rest: train.compiled(members[0], *rest),
        reestimate=lambda members, *rest: [reestimate(member, *rest) for member in members],
        validate=validate_all,
        test=lambda members, *rest: stack(jax.device_get([test(each, *rest) for each in members])),
        take=lambda members, indices: [members[i] for i in indices],
        fetch=lambda members: stack(jax.device_get(members)),
        put=unstack,
        compiled={"init": init, "train": train.program, "validate": check, "test": test},
    )


class _Rows:
    """Trains rows start..stop of an epoch in one call."""

    def __init__(self, program: Program):
        self.program = program

    def __call__(self, members: Members, *arguments: Any) -> Members:
        return self.program(members, *arguments)

    def compiled(self, *arguments: Any) -> Any:
        return self.program.compiled(*arguments, *[np.int32(0)] * 3)


class _Steps:
    """Trains rows start..stop of an epoch with a call for each."""

    def __init__(self, program: Program):
        self.program = program

    def __call__(self, members: Members, *arguments: Any) -> Members:
        *fixed, epoch, start, stop = arguments
        for row in range(start, stop):
            members = self.program(members, *fixed, epoch, np.int32(row))
        return members

    def compiled(self, *arguments: Any) -> Any:
        return self.program.compiled(*arguments, *[np.int32(0)] * 2)


def stack(trees: Sequence[Any]) -> Any:
    """Returns a list of like trees of host arrays as one tree with a leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def unstack(tree: Any) -> list[Any]:
    """Returns a tree of host arrays with a leading axis as a list of trees on the device."""
    leaves, structure = jax.tree.flatten(tree)
    return [jax.tree.unflatten(structure, map(jnp.asarray, each)) for each in zip(*leaves, strict=True)]


def _validate_by(metric: str) -> Callable[..., tuple[Member, Report]]:
    return lambda recipe, *arguments: validate(recipe, metric, *arguments)
