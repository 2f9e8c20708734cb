"""Which settings may be the best: each against all others, on shared seeds, corrected for how many there are."""

from typing import NamedTuple

import numpy as np
from scipy import special, stats

from finetune.analysis.statistics.variance import Noise, seed_noise
from finetune.analysis.table.trials import Trials

LEVEL = 0.05  # the probability with which the truly best setting may be left out
POWER = 0.8  # the probability with which a number of seeds is to show a difference
_PAIRED = 4  # shared seeds from which the differences seed by seed are looked at too
_LEAST = 1e-9  # of the common variance, which the variance of differences seed by seed is not below
_SAME = 1e-12  # of the largest mean, by which means differ that are the same but for rounding
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

    def bounds(
        self, first: np.ndarray, second: np.ndarray, chance_below: float, chance_above: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ends of intervals of mean[first] − mean[second], outside of which it lies with these chances."""
        return -self._reach(second, first, chance_below), self._reach(first, second, chance_above)

    def _reach(self, first: np.ndarray, second: np.ndarray, chance: float) -> np.ndarray:
        """Returns the upper ends of mean[first] − mean[second], beyond which it lies with this chance."""
        by_seed = _by_seed(self.utility, self.noise, first, second)
        half = self.noise.of_difference(first, second).half(chance / (1 + by_seed.shared.any()))
        plain = self.noise.means[first] - self.noise.means[second] + half
        return np.minimum(plain, np.where(by_seed.shared, by_seed.mean + by_seed.half(chance / 2), np.inf))

    def behind_best(self, part: np.ndarray, parts: int = 1) -> tuple[float, float, float]:
        """Returns (how far the best of some settings lies behind the best of all, ends of its 95 % interval).

        part: places of settings; parts: for how many such parts at once the intervals are to hold. It holds whichever
        settings are truly the best. The lower end takes the rival that leads by most over all of the part, and allows
        for having chosen that rival; the upper end takes the setting of the part that lies nearest, and allows for
        having chosen that one (Bonferroni).
        """
        order = np.argsort(-self.noise.means, kind="stable")
        rivals, tries = order[:_RIVALS], part[np.argsort(-self.noise.means[part], kind="stable")][:_TRIES]
        first, second = np.repeat(rivals, len(tries)), np.tile(tries, len(rivals))
        level = LEVEL / 2 / parts
        low, high = self.bounds(first, second, level / max(len(order) - 1, 1), level / len(part))
        same = first == second
        low, high = (np.where(same, 0.0, each).reshape(len(rivals), len(tries)) for each in (low, high))
        least = max(0.0, float(low.min(1).max())) if self.evident else 0.0
        return float(self.behind[part].min()), least, max(least, float(high.min(1).max()))


class BySeed(NamedTuple):
    """Differences of settings seed by seed [pairs]: means, standard errors, seeds, and whether these are enough."""

    mean: np.ndarray
    error: np.ndarray
    seeds: np.ndarray
    shared: np.ndarray

    def chance(self) -> np.ndarray:
        """Returns the one-sided probability of a difference as large; 1 where there are too few seeds."""
        statistic = np.divide(self.mean, self.error, out=np.zeros_like(self.mean), where=self.error > 0)
        return np.where(self.shared, special.stdtr(np.maximum(self.seeds - 1, 1), -statistic), 1.0)

    def half(self, chance: float) -> np.ndarray:
        """Returns the error that is exceeded with this one-sided probability."""
        return special.stdtrit(np.maximum(self.seeds - 1, 1), 1 - chance) * self.error


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
    by_seed = _by_seed(utility, noise, first, second)
    return np.minimum(1.0, 2 * np.minimum(plain, by_seed.chance())) if by_seed.shared.any() else plain


def _by_seed(utility: np.ndarray, noise: Noise, first: np.ndarray, second: np.ndarray) -> BySeed:
    apart = utility[first] - utility[second]
    known = np.isfinite(apart)
    seeds = known.sum(-1)
    mean = np.where(known, apart, 0.0).sum(-1) / np.maximum(seeds, 1)
    squares = np.where(known, (apart - mean[:, None]) ** 2, 0.0).sum(-1)
    squares = np.maximum(squares, _LEAST * noise.pooled * seeds)  # seeds that agree to the last digit
    error = np.sqrt(squares / np.maximum(seeds - 1, 1) / np.maximum(seeds, 1))
    return BySeed(mean, error, seeds, seeds >= _PAIRED)


def _chance_of_no_difference(noise: Noise) -> float:
    """Returns the p-value of the F test of settings, seeds being blocks: 1 for a single setting.

    Unequal variances lower its degrees of freedom (Box 1954, Some theorems on quadratic forms), for each prior.
    """
    between = len(noise.repeats) - 1
    if not between or np.ptp(noise.means) <= _SAME * np.abs(noise.means).max():
        return 1.0
    squares = float(noise.repeats @ (noise.means - np.average(noise.means, weights=noise.repeats)) ** 2)
    if noise.pooled == 0:
        return float(squares == 0)
    statistic = squares / between / noise.pooled
    return float(noise.weight @ stats.f.sf(statistic, between * noise.evenness, noise.effective_total))
