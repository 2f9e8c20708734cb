"""Which settings may be the best: each against the leader, on shared seeds, corrected for how many there are."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from finetune.analysis.table import Trials
from finetune.analysis.variance import Noise, seed_noise

LEVEL = 0.05  # the probability with which the truly best setting may be left out
POWER = 0.8  # the probability with which a number of seeds is to show a difference


class Repeats(NamedTuple):
    """Trials arranged by setting and seed.

    setting: int [trials], the row of each trial. utility: float [settings, seeds], NaN where there is no result.
    finished: bool [settings], whether every trial of a setting has a result.
    """

    setting: np.ndarray
    utility: np.ndarray
    finished: np.ndarray


class Comparison(NamedTuple):
    """Every setting against the leader, the one with the largest mean; arrays [settings].

    behind: how far the mean lies behind the leader's, on shared seeds. spread: the standard deviation of that
    difference from seed to seed. half: of the 95 % interval of `behind`, of all settings at once (Bonferroni). tied:
    whether chance may explain it. deviation: the leader's own standard deviation
    over seeds, without what seeds do to all settings alike. evident: whether settings differ at all (F test).
    """

    leader: int
    behind: np.ndarray
    spread: np.ndarray
    half: np.ndarray
    tied: np.ndarray
    deviation: float
    evident: bool

    def seeds_to_tell(self, setting: int) -> float:
        """Returns how many seeds would show the difference to `setting`, if it is as large as it looks."""
        if self.behind[setting] <= 0:
            return np.inf
        others = max(int(self.tied.sum()) - 1, 1)
        quantiles = stats.norm.isf(LEVEL / others) + stats.norm.ppf(POWER)
        return float(np.ceil((quantiles * self.spread[setting] / self.behind[setting]) ** 2)) + 1


def arrange(trials: Trials) -> Repeats:
    """Returns the trials by setting and seed; where settings share no seeds, repeats are paired in their order."""
    frame = trials.frame
    rows = np.zeros(len(frame), int)
    if trials.axes:
        rows = frame.groupby(trials.names, dropna=False, sort=False).ngroup().to_numpy()
    order = frame.groupby(rows).cumcount().to_numpy()
    labels = frame["seed"].astype(str).factorize()[0]
    crossed = labels.max(initial=0) < 2 * (order.max(initial=0) + 1)  # few labels, so that settings share them
    distinct = len(np.unique(rows * len(frame) + labels)) == len(frame)
    columns = labels if crossed and distinct else order
    values = frame["utility"].to_numpy(float)
    utility = np.full((rows.max(initial=-1) + 1, columns.max(initial=-1) + 1), np.nan)
    utility[rows, columns] = values
    finished = np.bincount(rows, ~np.isfinite(values), len(utility)) == 0
    return Repeats(rows, utility, finished)


def compare(utility: np.ndarray) -> Comparison | None:
    """Returns how settings [settings, seeds], each with a result, compare; None where nothing was repeated.

    Paired t statistics with moderated variances, one-sided, corrected by Holm (1979): the truly best setting is tied
    with a probability of at least 1 − LEVEL.
    """
    noise = seed_noise(utility)
    if noise is None:
        return None
    repeats = np.isfinite(utility).sum(axis=1)
    means = np.where(2 * repeats > repeats.max(), noise.means, -np.inf)  # a single lucky trial does not lead
    leader = int(np.argmax(means))
    shared = np.isfinite(utility) & np.isfinite(utility[leader])
    if not shared.any(axis=1).all():
        return compare(_in_order(utility))
    seeds = shared.sum(axis=1)
    behind = np.where(shared, utility[leader] - utility, 0.0).sum(axis=1) / seeds
    spread = np.sqrt(noise.variance + noise.variance[leader])
    scale = spread / np.sqrt(seeds)
    statistic = np.divide(behind, scale, out=np.where(behind > 0, np.inf, -np.inf), where=scale > 0)
    freedom = _freedom(noise, leader)
    chance = stats.t.sf(statistic, freedom)
    half = scale * stats.t.isf(LEVEL / 2 / max(len(behind) - 1, 1), freedom)
    chance[leader] = 1.0
    evident = _chance_of_no_difference(noise, repeats) < LEVEL
    tied = ~_holm(chance) if evident else np.ones(len(chance), bool)
    return Comparison(leader, behind, spread, half, tied, float(np.sqrt(noise.variance[leader])), evident)


def _in_order(utility: np.ndarray) -> np.ndarray:
    """Returns `utility` with the values of every row moved to its front."""
    return np.take_along_axis(utility, np.argsort(~np.isfinite(utility), axis=1, kind="stable"), axis=1)


def _freedom(noise: Noise, leader: int) -> np.ndarray:
    """Returns the degrees of freedom of variance + variance[leader] (Welch 1947), at most those of all data."""
    variance, freedom = noise.variance, np.maximum(noise.freedom, 1e-9)
    parts = variance**2 / freedom + variance[leader] ** 2 / freedom[leader]
    total = np.full(len(parts), noise.total)
    return np.minimum(np.divide((variance + variance[leader]) ** 2, parts, out=total.copy(), where=parts > 0), total)


def _holm(chance: np.ndarray) -> np.ndarray:
    """Returns which hypotheses fall; the leader, with a chance of 1, is not one of them."""
    order = np.argsort(chance, kind="stable")
    left = np.maximum(len(chance) - 1 - np.arange(len(chance)), 1)
    fallen = np.zeros(len(chance), bool)
    fallen[order] = np.logical_and.accumulate(chance[order] <= LEVEL / left)
    return fallen


def _chance_of_no_difference(noise: Noise, repeats: np.ndarray) -> float:
    """Returns the p-value of the F test of settings, seeds being blocks: 1 for a single setting.

    Unequal variances lower its degrees of freedom (Box 1954, Some theorems on quadratic forms).
    """
    between = len(repeats) - 1
    if not between:
        return 1.0
    squares = float(repeats @ (noise.means - np.average(noise.means, weights=repeats)) ** 2)
    if noise.pooled == 0:
        return float(squares == 0)
    even = noise.variance.sum() ** 2 / (noise.variance**2).sum() / len(repeats)  # 1 if all variances are equal
    return float(stats.f.sf(squares / between / noise.pooled, between * even, noise.total * even))
