"""Where every setting stands: its mean, its repeats, its failures, and whether it may be the best."""

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from finetune.analysis.statistics.failures import Failures, failures
from finetune.analysis.statistics.paired import LEVEL, Comparison, arrange, compare
from finetune.analysis.statistics.variance import seed_noise
from finetune.analysis.table.trials import Trials
from finetune.storage import records

_TOP = 0.1  # share of settings that count as near the best where nothing was repeated


class Standing(NamedTuple):
    """Settings in order of appearance, and how they compare.

    table: one row a setting: for each axis the place of its value, n (trials with a result or a divergence), results
    (those that count), lost (those that diverged or collapsed), mean (utility of those that count). rows: the trials of
    each setting, and place: the (setting, column) of each trial. order: settings that can be chosen, best first.
    utility: [settings, repeats], NaN where nothing counts. comparison: of those in `order`, in that order; None where
    nothing was repeated.
    """

    table: pd.DataFrame
    rows: list[np.ndarray]
    place: tuple[np.ndarray, np.ndarray]
    order: np.ndarray
    utility: np.ndarray
    failures: Failures
    comparison: Comparison | None

    @property
    def evident(self) -> bool:
        """Whether settings differ by more than chance: in their results, or in how often their runs fail."""
        left_out = len(self.order) < int((self.table["n"] > 0).sum()) and bool(self.failures.depends)
        return self.comparison is not None and (self.comparison.evident or left_out)

    @property
    def tied(self) -> np.ndarray:
        """The settings that may be the best, the leader first; none where nothing was repeated."""
        if self.comparison is None:
            return self.order[:0]
        return self.order[self.comparison.tied]

    @property
    def near(self) -> np.ndarray:
        """The settings to look at: those tied, or the first tenth where nothing was repeated."""
        return self.tied if self.comparison is not None else self.order[: math.ceil(len(self.order) * _TOP)]

    @property
    def good(self) -> np.ndarray:
        """Which settings lie within one deviation over seeds of the best, bool [settings]."""
        good = np.zeros(len(self.table), bool)
        if self.comparison is not None:
            means = self.table["mean"].to_numpy()[self.order]
            good[self.order] = means >= means[0] - self.comparison.deviation
        return good

    def trials_near(self) -> np.ndarray:
        """Returns the rows of the trials of `near`."""
        return np.concatenate([self.rows[setting] for setting in self.near]) if len(self.near) else np.array([], int)

    def values(self, trials: Trials, setting: int) -> dict[str, Any]:
        """Returns the values of a setting's axes, as the axes hold them."""
        return {axis.name: axis.values[self.table[axis.name].iat[setting]] for axis in trials.axes}

    def interval(self, setting: int, among: int) -> tuple[float, float]:
        """Returns the 95 % interval of what a setting reaches over seeds, as utility; NaN where that is not known.

        among: the number of settings of which it is the best seen. Such a one has had luck: the lower end allows for
        that (Bonferroni). What seeds do to all settings alike is known only as well as seeds are many.
        """
        place = np.flatnonzero(self.order == setting)
        if self.comparison is None or not len(place):
            return math.nan, math.nan
        noise = self.comparison.noise
        error = noise.of_mean(place)
        common = 0.0
        if noise.seeds > 1:
            common = float(stats.t.isf(LEVEL / 2, noise.seeds - 1)) * math.sqrt(
                noise.of_seeds / noise.repeats[place[0]]
            )
        mean = float(noise.means[place[0]])
        down, up = (float(error.half(LEVEL / 2 / parts)[0]) for parts in (max(among, 1), 1))
        return mean - math.hypot(common, down), mean + math.hypot(common, up)


def standing(trials: Trials) -> Standing:
    """Returns where every setting stands."""
    repeats = arrange(trials)
    first = pd.Series(repeats.setting).drop_duplicates().index.to_numpy()
    diverged = np.zeros(repeats.utility.shape, bool)
    diverged[repeats.setting, repeats.column] = (trials.frame["status"] == records.DIVERGED).to_numpy()
    of_first = trials.frame.iloc[first]
    values = {axis.name: of_first[axis.name].to_numpy() for axis in trials.axes}
    failed = failures(repeats.utility, diverged, trials.axes, values)
    used = np.zeros(repeats.utility.shape, bool)  # a run by which its setting was chosen is no evidence for it
    used[repeats.setting, repeats.column] = ~trials.chosen_by
    utility = np.where(failed.lost | ~used, np.nan, repeats.utility)
    counts = np.isfinite(utility).sum(axis=1)
    sums = np.nansum(utility, axis=1)
    means = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    table = pd.DataFrame(
        {axis.name: axis.indices(trials.frame[axis.name].to_numpy()[first]) for axis in trials.axes}
        | {"n": counts + failed.of_setting, "results": counts, "lost": failed.of_setting, "mean": means}
    )
    order = _candidates(counts, failed)
    order = order[np.argsort(-means[order], kind="stable")]
    noise = seed_noise(utility[order], trials.step) if len(order) else None
    if noise is not None:  # means freed of which seeds a setting had
        order = order[np.argsort(-noise.means, kind="stable")]
    comparison = compare(utility[order], trials.step) if noise is not None else None
    rows = trials.frame.groupby(repeats.setting, sort=True).indices
    place = repeats.setting, repeats.column
    return Standing(table, [rows[i] for i in range(len(counts))], place, order, utility, failed, comparison)


def _candidates(counts: np.ndarray, failed: Failures) -> np.ndarray:
    """Returns the settings that can be chosen: those without failures, unless failures fall anywhere."""
    some = counts > 0
    safe = some & (failed.of_setting == 0)
    return np.flatnonzero(some if failed.anywhere or not safe.any() else safe)
