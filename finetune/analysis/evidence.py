"""The evidence: what every sentence, chart and table of an answer rests on, computed once."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from finetune.analysis.condition import by_place, own_axes
from finetune.analysis.standing import Standing, standing
from finetune.analysis.statistics.anova import Anova, anova, cube
from finetune.analysis.statistics.decomposition import Share
from finetune.analysis.statistics.paired import arrange
from finetune.analysis.statistics.variance import Noise, seed_noise
from finetune.analysis.table.trials import Trials

_MOST = 0.5  # share of settings that must have been repeated to be most of them


class Evidence(NamedTuple):
    """What trials show.

    trials: as read. counted: without the utility of runs that collapsed, which count as failures. stands: every setting
    and which may be the best. noise: of all settings of a full grid, in the order of stands.table; None if unknown.
    whole, good: the shares over all values and over the good ones, None where there are none. own: names of axes with a
    range of their own for each choice.
    """

    trials: Trials
    counted: Trials
    stands: Standing
    noise: Noise | None
    whole: Anova | None
    good: Anova | None
    own: tuple[str, ...]

    @property
    def has_results(self) -> bool:
        return bool(len(self.stands.order))

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

    def place_of(self, setting: pd.Series) -> int:
        """Returns the row of stands.table with the axis values of `setting`."""
        same = np.ones(len(self.stands.table), bool)
        for axis in self.trials.axes:
            same &= self.stands.table[axis.name].to_numpy() == axis.indices([setting[axis.name]])[0]
        return int(np.flatnonzero(same)[0])


def weigh(trials: Trials) -> Evidence:
    """Returns the evidence of any table of trials."""
    stands, own = standing(trials), own_axes(trials)
    counted = _without_collapsed(trials, stands)
    whole = good = None
    if len(stands.order):
        whole = anova(by_place(counted))
        if whole is not None and own:
            ranges = {name: "each choice its own range" if name in own else text for name, text in whole.ranges.items()}
            note = f"{' and '.join(own)} counts by its place in the range of each choice."
            whole = whole._replace(ranges=ranges, note=f"{whole.note} {note}".strip())
        good = anova(counted, region="good") if not own else None
    return Evidence(trials, counted, stands, _noise(counted), whole, good, own)


def _without_collapsed(trials: Trials, stands: Standing) -> Trials:
    collapsed = stands.failures.collapsed[stands.place]
    return trials._replace(frame=trials.frame.assign(utility=trials.frame["utility"].mask(collapsed)))


def _noise(counted: Trials) -> Noise | None:
    """Returns the noise of all settings, one that diverged counting as the worst result."""
    if not counted.axes or cube(counted) is None:
        return None
    filled = counted._replace(frame=counted.frame.assign(utility=counted.filled))
    return seed_noise(arrange(filled).utility, counted.step)
