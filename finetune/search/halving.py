"""Successive halving of trials that train together: at shares of their own epochs, the best of them go on.

Karnin et al. 2013; Jamieson and Talwalkar 2016. Those that would have been stopped are not, for a share of the trials
that chance chooses: they tell how often it is wrong to stop one.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from finetune.errors import UserError

_MOST_ETA = 100


class Runner(NamedTuple):
    """A trial on its way: the epochs that it is to train, and the best that it has reached, larger is better."""

    epochs: int
    value: float


class Verdict(NamedTuple):
    """What a rung says of a trial that does not go on: its place among `of` trials, the best `kept` of which do."""

    epoch: int
    value: float
    place: int
    of: int
    kept: int

    def in_words(self, epochs: int) -> str:
        """Returns the same as the reason why a trial has ended."""
        return f"stopped after epoch {self.epoch} of {epochs}: number {self.place} of {self.of}, {self.kept} went on"


class Halving(NamedTuple):
    """How trials are stopped.

    eta: one of so many goes on at a rung. start: where the first rung is, a share of a trial's epochs; the next one is
    eta times as far. control: the share of trials that are not stopped. most_rungs: 0 for as many as there are.
    """

    eta: int = 3
    start: float = 0.2
    control: float = 0.1
    most_rungs: int = 0

    def checked(self) -> "Halving":
        """Returns the rule; raises UserError for what stops nothing, or everything."""
        if not 2 <= self.eta <= _MOST_ETA:
            raise UserError(f"--halving is {self.eta}, allowed: 2 to {_MOST_ETA}, of which one goes on, or 0 for none")
        if not 0 < self.start < 1:
            raise UserError(f"--halving_start is {self.start:g}, allowed: 0 < share of a trial's epochs < 1")
        if not 0 <= self.control < 1:
            raise UserError(f"--halving_control is {self.control:g}, allowed: 0 <= share of the trials < 1")
        if self.most_rungs < 0:
            raise UserError(f"--halving_rungs is {self.most_rungs}, allowed: 1 or more, or 0 for as many as there are")
        return self

    def rungs(self, epochs: int) -> list[int]:
        """Returns after which epochs a trial of so many is compared; none that is its last."""
        found, share = list[int](), self.start
        while (epoch := math.ceil(round(share * epochs, 9))) < epochs:
            if not found or epoch > found[-1]:
                found.append(epoch)
            share *= self.eta
        return found[: self.most_rungs or None]

    def is_control(self, identity: str) -> bool:
        """Says whether a trial is never stopped: its id, a hash in hex, decides, so that no result can."""
        return int(identity, 16) < self.control * 16 ** len(identity)

    def verdicts(self, epoch: int, runners: Mapping[str, Runner]) -> dict[str, Verdict]:
        """Returns by id those of `runners` that do not go on after `epoch`, control trials among them.

        runners: all that train together and were not out before. Compared are those for which this is the same rung; of
        equals the earlier goes on.
        """
        cohorts: dict[int, list[str]] = defaultdict(list)
        for identity, runner in runners.items():
            rungs = self.rungs(runner.epochs)
            if epoch in rungs:
                cohorts[rungs.index(epoch)].append(identity)
        found = {}
        for cohort in cohorts.values():
            order, kept = sorted(cohort, key=lambda each: -runners[each].value), self.kept(len(cohort))
            for place, identity in enumerate(order[kept:], kept + 1):
                found[identity] = Verdict(epoch, runners[identity].value, place, len(cohort), kept)
        return found

    def kept(self, of: int) -> int:
        """Returns how many of a cohort go on."""
        return math.ceil(of / self.eta)

    def expected(self, horizons: Sequence[int]) -> list[int]:
        """Returns for how many epochs trials of these epochs will train that are compared with each other."""
        left = {f"{place:x}": Runner(epochs, -place) for place, epochs in enumerate(horizons)}
        trained = dict(zip(left, horizons, strict=True))
        for epoch in range(1, max(horizons, default=0)):
            out = list(self.verdicts(epoch, left))
            for identity in out[round(self.control * len(out)) :]:  # the first ones stand for the control
                trained[identity] = epoch
            left = {identity: runner for identity, runner in left.items() if identity not in out}
        return list(trained.values())
