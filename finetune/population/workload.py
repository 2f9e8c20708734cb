"""A group before it is known how to run it: what its programs are made of, and what they read."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from finetune.member.params import Leaves
from finetune.member.step import Recipe, Shared
from finetune.population.feed import Feed, from_host, from_trunk
from finetune.population.parallel import OneDevice
from finetune.population.train import Splits
from finetune.trials.grid import Trial
from finetune.trunk.choice import HostSplit, Trunk, cut_frozen, cut_recipe, cut_splits


class Handed(NamedTuple):
    """The programs that take each batch from the host, where the group has such.

    feed: where batches come from, given the layout of the population.
    modes: those of vmap and loop in which the group runs this way.
    """

    recipe: Recipe
    shared: Shared
    feed: Callable[[OneDevice], Feed]
    modes: tuple[str, ...]


class Workload(NamedTuple):
    """A group's programs and data; arrays on the host."""

    recipe: Recipe
    trials: Sequence[Trial]  # those that may share a chunk
    shared: Shared
    splits: Splits
    eval_batch: int
    trained_bytes: int  # of the leaves that one member trains
    handed: Handed | None = None

    @property
    def stays_on_host(self) -> bool:
        """Whether the data do not fit on a device."""
        return self.handed is not None and "vmap" in self.handed.modes

    def is_handed(self, mode: str) -> bool:
        """Says whether a population in `mode` takes its batches from the host."""
        return self.handed is not None and mode in self.handed.modes


def make_workload(
    recipe: Recipe, trunk: Trunk, frozen: Leaves, pretrained: Leaves, splits: Sequence[HostSplit],
    features: Sequence[HostSplit], **rest: Any,
) -> Workload:  # fmt: skip
    """Returns the workload of a group; `splits` are train, validation and test, `rest` the other fields."""
    data = Splits(*cut_splits(splits, features, trunk))
    whole = Workload(recipe=recipe, shared=Shared(frozen, pretrained), splits=data, **rest)
    if trunk.train is None:
        return whole
    tail = cut_recipe(recipe, trunk), Shared(cut_frozen(frozen, trunk), pretrained)
    if trunk.mode == "shared":
        return whole._replace(handed=Handed(*tail, lambda layout: from_trunk(trunk, layout.put_all(frozen)), ("loop",)))
    cut = whole._replace(recipe=tail[0], shared=tail[1])
    return cut if trunk.place == "device" else cut._replace(handed=Handed(*tail, from_host, ("vmap", "loop")))
