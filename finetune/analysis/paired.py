"""Which settings may be the best: each against all others, on shared seeds, corrected for how many there are."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from finetune.analysis.table import Trials
from finetune.analysis.variance import Noise, seed_noise

LEVEL = 0.05  # the probability with which the truly best setting may be left out
POWER = 0.8  # the probability with which a number of seeds is to show a difference
_PAIRED = 4  # shared seeds from which the differences seed by seed are looked at too
_RIVALS = 64  # settings, the best ones, that others are compared with
_TRIES = 16  # settings of a part, its best ones, that may be its best


class Repeats(NamedTuple):
    """Trials arranged by setting and seed.

    setting, column: int [trials], where each trial stands. utility: float [settings, seeds], NaN without a result.
    """

    setting: np.ndarray
    column: np.ndarray
    utility: np.ndarray


class Comparison(NamedTuple):
    """How settings compare; arrays [settings].

    leader: the one with the largest mean. behind: how far each mean lies behind the leader's. tied: whether it may be
    the best one: the truly best is tied with a probability of at least 1 − LEVEL. evident: whether settings differ at
    all. deviation: the leader's own standard deviation over seeds, without what seeds do to all settings alike.
    """

    utility: np.ndarray
    noise: Noise
    leader: int
    behind: np.ndarray
    tied: np.ndarray
    evident: bool
    chance: float
    deviation: float

    def seeds_to_tell(self, setting: int) -> float:
        """Returns how many seeds would show the difference to `setting`, if it is as large as it looks."""
        if self.behind[setting] <= 0:
            return np.inf
        others = max(int(self.tied.sum()) - 1, 1)
        quantiles = stats.norm.isf(LEVEL / others) + stats.norm.ppf(POWER)
        spread = np.sqrt(self.noise.typical[[self.leader, setting]].sum())
        return float(np.ceil((quantiles * spread / self.behind[setting]) ** 2)) + 1

    def bounds(self, first: np.ndarray, second: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ends of the intervals that hold mean[first] − mean[second] with probability 1 − level each."""
        difference, shared, error = _differences(self.utility, self.noise, first, second)
        part = level / (1 + shared.any())
        half = self.noise.of_difference(first, second).half(part / 2)
        plain = self.noise.means[first] - self.noise.means[second]
        by_seed = np.where(shared, stats.t.isf(level / 4, np.maximum(self._seeds(first, second) - 1, 1)) * error, np.inf)
        return np.maximum(plain - half, difference - by_seed), np.minimum(plain + half, difference + by_seed)

    def _seeds(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return (np.isfinite(self.utility[first]) & np.isfinite(self.utility[second])).sum(-1)

    def behind_best(self, part: np.ndarray) -> tuple[float, float, float]:
        """Returns (how far the best of some settings lies behind the best of all, ends of its 95 % interval).

        part: places of settings. The interval holds whichever settings are truly the best, for all parts at once: it
        comes from intervals of all differences together (Bonferroni).
        """
        order = np.argsort(-self.noise.means, kind="stable")
        rivals, tries = order[:_RIVALS], part[np.argsort(-self.noise.means[part], kind="stable")][:_TRIES]
        pairs = len(self.behind) * (len(self.behind) - 1) / 2
        first, second = np.repeat(rivals, len(tries)), np.tile(tries, len(rivals))
        low, high = self.bounds(first, second, LEVEL / max(pairs, 1))
        same = first == second
        low, high = (np.where(same, 0.0, each).reshape(len(rivals), len(tries)) for each in (low, high))
        least = max(0.0, float(low.min(1).max())) if self.evident else 0.0
        most = max(0.0, float(high.min(1).max()))
        return float(self.behind[part].min()), least, most


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
    utility = np.full((rows.max(initial=-1) + 1, columns.max(initial=-1) + 1), np.nan)
    utility[rows, columns] = frame["utility"].to_numpy(float)
    return Repeats(rows, columns, utility)


def compare(utility: np.ndarray, step: float | None = None) -> Comparison | None:
    """Returns how settings [settings, seeds], each with a result, compare; None where nothing was repeated.

    A setting may be the best unless another one is better than it beyond chance (multiple comparisons with the best,
    Hsu 1984): differences of means over moderated variances, one-sided, corrected for the number of others; from
    4 shared seeds the differences seed by seed as well, for half of the probability each. step: see `seed_noise`.
    """
    noise = seed_noise(utility, step)
    if noise is None:
        return None
    leader = int(np.argmax(noise.means))
    behind = noise.means[leader] - noise.means
    chance = _chance_of_no_difference(noise)
    tied = np.ones(len(behind), bool)
    if chance < LEVEL:
        tied = ~_beaten(utility, noise)
    deviation = float(np.sqrt(noise.typical[leader]))
    return Comparison(utility, noise, leader, behind, tied, chance < LEVEL, chance, deviation)


def _beaten(utility: np.ndarray, noise: Noise) -> np.ndarray:
    """Returns which settings lie behind another one by more than chance, bool [settings]."""
    order = np.argsort(-noise.means, kind="stable")
    beaten = np.zeros(len(order), bool)
    for rival in order[:_RIVALS]:
        if beaten[rival]:
            continue
        others = np.flatnonzero(~beaten & (noise.means < noise.means[rival]))
        beaten[others] |= _chances(utility, noise, np.full(len(others), rival), others) < LEVEL / (len(order) - 1)
    return beaten


def _chances(utility: np.ndarray, noise: Noise, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the probability under no difference that `first` lies as far ahead of `second`, one-sided."""
    plain = noise.of_difference(first, second).chance(noise.means[first] - noise.means[second])
    difference, shared, error = _differences(utility, noise, first, second)
    if not shared.any():
        return plain
    seeds = (np.isfinite(utility[first]) & np.isfinite(utility[second])).sum(-1)
    statistic = np.divide(difference, error, out=np.sign(difference) * np.inf, where=error > 0)
    by_seed = np.where(shared, stats.t.sf(statistic, np.maximum(seeds - 1, 1)), 1.0)
    return np.minimum(1.0, 2 * np.minimum(plain, by_seed))


def _differences(
    utility: np.ndarray, noise: Noise, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (means of differences seed by seed, whether seeds suffice to look at them, their standard errors)."""
    apart = utility[first] - utility[second]
    known = np.isfinite(apart)
    seeds = known.sum(-1)
    shared = seeds >= _PAIRED
    mean = np.where(known, apart, 0.0).sum(-1) / np.maximum(seeds, 1)
    squares = np.where(known, (apart - mean[:, None]) ** 2, 0.0).sum(-1)
    floor = 1e-24 * np.maximum(noise.pooled, 1e-300)
    return mean, shared, np.sqrt(np.maximum(squares, floor) / np.maximum(seeds - 1, 1) / np.maximum(seeds, 1))


def _chance_of_no_difference(noise: Noise) -> float:
    """Returns the p-value of the F test of settings, seeds being blocks: 1 for a single setting.

    Unequal variances lower its degrees of freedom (Box 1954, Some theorems on quadratic forms), for each prior.
    """
    between = len(noise.repeats) - 1
    if not between:
        return 1.0
    squares = float(noise.repeats @ (noise.means - np.average(noise.means, weights=noise.repeats)) ** 2)
    if noise.pooled == 0:
        return float(squares == 0)
    variance = noise.variance
    even = variance.sum(1) ** 2 / (variance**2).sum(1) / variance.shape[1]  # 1 if all variances are equal
    statistic = squares / between / noise.pooled
    return float(noise.weight @ stats.f.sf(statistic, between * even, noise.total * even))
