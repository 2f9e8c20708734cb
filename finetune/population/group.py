"""A group: trials that share programs, before it is known how they run on this machine, and after."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from finetune.member.step import Recipe, Shared
from finetune.population.feed import fed, from_host, from_trunk
from finetune.population.parallel import OneDevice
from finetune.population.programs import Programs, make_programs
from finetune.trials.grid import Trial
from finetune.trunk.choice import HostSplit, Trunk, cut_frozen, cut_recipe, cut_splits


class Splits(NamedTuple):
    """The data: name -> array, leading axis examples."""

    train: dict[str, Any]
    validation: dict[str, Any]
    test: dict[str, Any]


class Execution(NamedTuple):
    """How a group runs. mode: vmap or loop; on_device: whether the loop over an epoch runs on the device."""

    mode: str
    on_device: bool
    size: int  # members of a chunk, ghosts included
    reason: str


class Cost(NamedTuple):
    """What one chunk costs, as measured: seconds of a step (micro-batch) for all members, FLOPs of one, peak bytes."""

    train_step_seconds: float
    eval_step_seconds: float
    train_step_flops: float
    eval_step_flops: float
    bytes: int


def _not_chosen(*arguments: Any) -> NoReturn:
    raise AssertionError(f"how the group runs is not chosen yet: {len(arguments)} arguments")


_NO_PROGRAMS = Programs._make([*[_not_chosen] * 9, {}])


class Group(NamedTuple):
    """Trials that share programs, and what these are made of and read; from `layout` on, how they run, once measured.

    Arrays are on the host until the group is `laid_out`.
    """

    trials: Mapping[str, Trial]  # by id, that are left to train
    recipe: Recipe
    trunk: Trunk
    shared: Shared
    splits: Splits
    eval_batch: int  # examples a forward pass
    trained_bytes: int  # of the leaves that one member trains
    number: int = 0  # among the groups of a study
    signature: Mapping[str, Any] = {}  # what its programs depend on
    layout: OneDevice = OneDevice()
    programs: Programs = _NO_PROGRAMS
    execution: Execution = Execution("", False, 0, "")
    cost: Cost = Cost(0.0, 0.0, 0.0, 0.0, 0)
    one_member_step_seconds: float | None = None  # of training, where the one-member program was timed

    @property
    def is_measured(self) -> bool:
        """Whether it is known how the group runs."""
        return self.execution.size > 0

    @property
    def stays_on_host(self) -> bool:
        """Whether the data do not fit on a device, so that each batch is handed to the programs."""
        return self.trunk.mode == "cached" and self.trunk.place == "host"

    @property
    def hands_to_each(self) -> bool:
        """Whether members that train one after the other are handed each batch: their trunk is computed once."""
        return self.stays_on_host or (self.trunk.mode == "shared" and self.trunk.train is not None)


def by_order(trials: Iterable[Trial]) -> list[list[Trial]]:
    """Returns trials that read the data in the same order together, those of like length beside each other."""
    found: dict[float | int, list[Trial]] = {}
    for trial in sorted(trials, key=lambda each: each.hparams["epochs"]):
        found.setdefault(trial.hparams["data_seed"], []).append(trial)
    return list(found.values())


def with_features(group: Group, features: Sequence[HostSplit]) -> Group:
    """Returns the group that reads cached `features`, as the pass over the data gave them for all groups."""
    if group.trunk.mode != "cached":
        return group
    return _tail(group)._replace(splits=Splits(*cut_splits(group.splits, features, group.trunk)))


def laid_out(group: Group, layout: OneDevice, on_device: bool) -> Group:
    """Returns the group with its programs, not compiled yet, and its data on the devices, if they belong there."""
    feed = None
    if group.stays_on_host:
        feed = from_host(layout)
    elif group.hands_to_each and not layout.together and not on_device:
        feed = from_trunk(group.trunk, layout.put_all(group.shared.frozen))
        group = _tail(group)
    programs = make_programs(group.recipe, layout, on_device)
    return group._replace(
        layout=layout,
        programs=fed(programs, group.recipe, layout, feed) if feed else programs,
        shared=layout.put_all(group.shared),
        splits=group.splits if group.stays_on_host else layout.put_all(group.splits),
    )


def _tail(group: Group) -> Group:
    """Returns the group whose programs are the tails behind the trunk."""
    shared = group.shared._replace(frozen=cut_frozen(group.shared.frozen, group.trunk))
    return group._replace(recipe=cut_recipe(group.recipe, group.trunk), shared=shared)
