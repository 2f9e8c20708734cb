"""A search: the settings of each wave, as a function of the results of those before it, and the finalists."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from finetune.errors import UserError, one_of
from finetune.search import range_test, sequence, tpe
from finetune.search.halving import Halving
from finetune.search.space import LOG, Space
from finetune.trials.assignment import Assignment

SOBOL, RANDOM, TPE, RANGE = "sobol", "random", "tpe", "range"
METHODS = (SOBOL, RANDOM, TPE)  # beside a range test, which finds no setting
_MOST_TRIALS = 100_000
_FEWEST_RATES = 3  # of a range test
_LARGEST_SEED = 2**31 - 1

Told = Sequence[tuple[Assignment, float]]  # settings in the order tried, and what each reached: larger is better
Stopped = Sequence[tuple[Assignment, int, float]]  # settings, when they were stopped, and what they had reached by then


class Outcomes(NamedTuple):
    """What settings have come to."""

    told: list[tuple[Assignment, float]]
    stopped: list[tuple[Assignment, int, float]]

    def after(self, before: "Outcomes") -> "Outcomes":
        """Returns these behind others that came before."""
        return Outcomes(before.told + self.told, before.stopped + self.stopped)


class Search(NamedTuple):
    """How settings are looked for.

    trials: settings in all, tried in so many `waves`. seed: of the points. finalists: the best so many settings get
    finalist_seeds seeds each, 0 = none.
    """

    space: Space
    method: str = SOBOL
    trials: int = 64
    waves: int = 1
    seed: int = 0
    finalists: int = 0
    finalist_seeds: int = 5
    halving: Halving | None = None

    def checked(self) -> "Search":
        """Returns the search; raises UserError for what cannot be searched."""
        if self.method not in (*METHODS, RANGE):
            raise one_of("--search", self.method, (*METHODS, RANGE))
        if self.method == RANGE:
            self._check_range()
        limits = {
            "trials": (self.trials, 1, _MOST_TRIALS), "waves": (self.waves, 1, self.trials),
            "search_seed": (self.seed, 0, _LARGEST_SEED), "finalists": (self.finalists, 0, self.trials),
            "finalist_seeds": (self.finalist_seeds, 2, 1000),
        }  # fmt: skip
        for name, (value, low, high) in limits.items():
            if not low <= value <= high:
                raise UserError(f"--{name} is {value}, allowed: {low} to {high}")
        if self.method == SOBOL and self.trials & (self.trials - 1):
            near = 2 ** int(math.log2(self.trials))
            raise UserError(f"--trials is {self.trials}, allowed with --search=sobol: a power of two, such as {near} "
                            f"or {2 * near}")  # fmt: skip
        if self.halving is not None:
            self.halving.checked()
        return self

    def _check_range(self) -> None:
        """Raises UserError for what a range test of learning rates has no use for."""
        names = [dimension.key for dimension in self.space.dimensions]
        if names != [range_test.RATE] or self.space.dimensions[0].kind != LOG:
            raise UserError(f"--space names {', '.join(names)} with --search=range, allowed: "
                            f"{range_test.RATE}=log:LOW:HIGH alone")  # fmt: skip
        for name, value in {"waves": self.waves - 1, "finalists": self.finalists, "halving": self.halving}.items():
            if value:
                raise UserError(f"--{name} is given with --search=range, allowed: --trials and --seeds")
        if self.trials < _FEWEST_RATES:
            raise UserError(f"--trials is {self.trials} with --search=range, allowed: {_FEWEST_RATES} or more rates")

    def until(self, wave: int) -> int:
        """Returns how many settings have been asked for when wave number `wave`, from 0, is."""
        return self.trials * (wave + 1) // self.waves

    def wave(self, number: int, told: Told, stopped: Stopped = ()) -> list[Assignment]:
        """Returns the settings of wave `number`, from 0; `told` and `stopped` are those of all waves before it.

        Settings that were there before are left out: where all dimensions are lists, points may stand for the same one.
        """
        if self.method == RANGE:
            return range_test.settings(self.space.dimensions[0], self.trials)
        first, last = self.until(number - 1), self.until(number)
        if self.method == TPE and (number or told or stopped):  # a first wave may follow trials from elsewhere
            found = tpe.ask(self.space, told, last - first, (self.seed + number) % _LARGEST_SEED, stopped)
        else:
            fill = sequence.uniform if self.method == RANDOM else sequence.sobol
            found = [self.space.assignment(point) for point in fill(len(self.space.dimensions), last, self.seed)]
            found = found[first:]
        before = {_key(setting) for setting, _ in told} | {_key(setting) for setting, _, _ in stopped}
        new = {_key(setting): setting for setting in found if _key(setting) not in before}
        return list(new.values())

    def best(self, told: Told) -> list[Assignment]:
        """Returns the finalists: the settings that reached most, the earlier one of equals; none that diverged."""
        order = sorted(range(len(told)), key=lambda place: -told[place][1])
        return [told[place][0] for place in order[: self.finalists] if told[place][1] > -math.inf]


def _key(setting: Assignment) -> tuple[tuple[str, object], ...]:
    return tuple(sorted(setting.items()))
