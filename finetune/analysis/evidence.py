"""The evidence: what every sentence, chart and table of an answer rests on, computed once."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from finetune.analysis import robust
from finetune.analysis.condition import Condition, by_place, condition
from finetune.analysis.cost import Cost, cost
from finetune.analysis.standing import Standing, standing
from finetune.analysis.statistics.anova import Anova, anova, decompose, full_grid
from finetune.analysis.statistics.decomposition import Share
from finetune.analysis.statistics.variance import Noise, seed_noise
from finetune.analysis.table.trials import Trials

_MOST = 0.5  # share of settings that must have been repeated to be most of them


class Evidence(NamedTuple):
    """What trials show.

    trials: as read. counted: without the utility of runs that collapsed, which count as failures. condition: the choice
    that trials are told apart by. stands: every setting and which may be the best. settings: of counted,
    their means freed of which seeds each has where they fill a grid. cells: those of a full grid, one that diverged
    counting as the worst, see `full_grid`. noise: of its settings. whole, good: the
    shares over all values and over the good ones. noise and reach have settings in the order of stands.table; cost is
    of each trial. None where something is unknown, or there is none.
    """

    trials: Trials
    counted: Trials
    condition: Condition | None
    stands: Standing
    settings: pd.DataFrame
    cells: np.ndarray | None
    noise: Noise | None
    whole: Anova | None
    good: Anova | None
    reach: list[robust.Reach]
    cost: Cost

    @property
    def has_results(self) -> bool:
        return bool(len(self.stands.order))

    @property
    def conditional(self) -> tuple[str, ...]:
        """Names of axes with a range of their own for each choice."""
        return self.condition.conditional if self.condition else ()

    @property
    def mattered(self) -> tuple[Share, ...]:
        """The shares of hyperparameters and pairs that may be named: what chance does not explain."""
        if self.whole is None or (self.repeated and not self.stands.evident):
            return ()
        return self.whole.evident

    @property
    def repeated(self) -> bool:
        """Whether most settings were repeated, so that repeats tell whether settings differ at all."""
        return bool(self.stands.comparison is not None and (self.stands.table["results"] > 1).mean() >= _MOST)

    @property
    def differ(self) -> bool:
        """Whether anything has been shown to make a difference."""
        return self.stands.evident or bool(self.mattered)

    def comparable(self, pair: tuple[str, str]) -> bool:
        """Says whether the cells of two axes may be read beside each other: else they are of different choices."""
        return self.condition is None or self.condition.by.name in pair or not set(pair) & set(self.conditional)

    def place_of(self, setting: pd.Series) -> int:
        """Returns the row of stands.table with the axis values of `setting`."""
        same = np.ones(len(self.stands.table), bool)
        for axis in self.trials.axes:
            same &= self.stands.table[axis.name].to_numpy() == axis.indices([setting[axis.name]])[0]
        return int(np.flatnonzero(same)[0])


def weigh(trials: Trials) -> Evidence:
    """Returns the evidence of any table of trials."""
    found, stands = condition(trials), standing(trials)
    collapsed = stands.failures.collapsed[stands.place]
    counted = trials._replace(frame=trials.frame.assign(utility=trials.frame["utility"].mask(collapsed)))
    filled = np.full(stands.utility.shape, np.nan)
    filled[stands.place] = counted.filled
    cells = full_grid(trials.axes, _places(trials, stands), filled)
    whole = good = None
    spread = counted._replace(frame=counted.frame[trials.chosen_by]) if trials.chosen_by.any() else counted
    if len(stands.order) and found and found.conditional:
        whole = _of_places(spread, found)
    elif len(stands.order) and spread is not counted:
        whole = anova(spread)  # finalists are not drawn from the ranges
    elif len(stands.order):
        whole, good = decompose(counted, cells), anova(counted, "good")
    noise = seed_noise(filled, counted.step) if cells is not None else None
    reach = robust.reaches(trials, stands.table, stands.good)
    settings, spent = _freed(counted, stands, noise), cost(trials)
    return Evidence(trials, counted, found, stands, settings, cells, noise, whole, good, reach, spent)


def _places(trials: Trials, stands: Standing) -> tuple[np.ndarray, ...]:
    """Returns the place of each setting's value on each axis, in the order of stands.table."""
    return tuple(stands.table[name].to_numpy() for name in trials.names)


def _freed(counted: Trials, stands: Standing, noise: Noise | None) -> pd.DataFrame:
    """Returns the settings, best first; on a full grid their means are freed of which seeds each setting has."""
    settings = counted.settings()
    if noise is None:
        return settings
    means = np.empty([len(axis.values) for axis in counted.axes])
    means[_places(counted, stands)] = noise.means
    places = tuple(axis.indices(settings[axis.name].to_numpy()) for axis in counted.axes)
    settings = settings.assign(mean=means[places])
    return settings.sort_values("mean", ascending=False, kind="stable", ignore_index=True)


def _of_places(counted: Trials, found: Condition) -> Anova | None:
    """Returns the shares where a value of a conditional axis counts by its place in the range of its choice."""
    whole = anova(by_place(counted, found))
    if whole is None:
        return None
    names = found.conditional
    ranges = {name: "each choice its own range" if name in names else text for name, text in whole.ranges.items()}
    note = f"{' and '.join(names)} counts by its place in the range of each choice."
    return whole._replace(ranges=ranges, note=f"{whole.note} {note}".strip())
