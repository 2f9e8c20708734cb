"""Seed noise: how much a setting varies from seed to seed, told from few repeats by looking at all settings."""

from typing import NamedTuple

import numpy as np
from scipy import special, stats

_ROUNDS, _EXACT = 100, 1e-6  # of the search for seed effects: its rounds, and when it ends, relative to the range
_NO_STEP = 1e-9  # values closer than this, relative to the largest, differ by rounding of floats
_LATTICE = 5  # distinct values that must lie on a grid before their smallest gap is taken for its step
_OFF_GRID = 0.01  # of a step
_DECIMALS = 12  # digits that are looked at for how values were rounded
_PRIORS = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, np.inf])  # degrees of freedom of what settings have in common
_SCALES = 40  # steps of the search for the common variance
_HALVINGS = 34  # of the interval that holds a quantile


class Noise(NamedTuple):
    """Seed noise of settings, without what a seed does to all of them alike.

    means: [settings], freed of which seeds a setting had. repeats: [settings], results of each. variance, freedom:
    [priors, settings], of what is known of each setting's variance if settings have as much in common as each prior
    says; weight: [priors], how likely that is. pooled, total: the common variance and its degrees of freedom.
    of_seeds, seeds: the variance of what a seed does to all settings alike, and how many seeds tell it; 0 and 0 if
    settings share none.
    """

    means: np.ndarray
    repeats: np.ndarray
    variance: np.ndarray
    freedom: np.ndarray
    weight: np.ndarray
    pooled: float
    total: float
    of_seeds: float
    seeds: int

    @property
    def typical(self) -> np.ndarray:
        """The variance of one result of each setting, [settings]: over the priors, as likely as they are."""
        return self.weight @ self.variance

    @property
    def evenness(self) -> np.ndarray:
        """By how much unequal variances lower the degrees of freedom between settings, [priors]: 1 if all are equal."""
        return evenness(self.variance, self.freedom)

    @property
    def effective_total(self) -> np.ndarray:
        """What unequal variances leave of `total`, [priors]."""
        return self.total * evenness(self.variance, self.freedom, centred=self.seeds > 0)

    def of_mean(self, settings: np.ndarray) -> "Spread":
        """Returns what is known of the error of means of settings, without what seeds do to all alike."""
        return Spread(
            self.variance[:, settings] / self.repeats[settings], self.freedom[:, settings], self.weight, self.total
        )

    def of_difference(self, first: np.ndarray, second: np.ndarray) -> "Spread":
        """Returns what is known of the error of differences between means of settings (Welch 1947)."""
        return combine([self.of_mean(first), self.of_mean(second)])

    def of_average(self, settings: np.ndarray, weight: np.ndarray) -> "Spread":
        """Returns what is known of the error of one weighted sum of means of settings (Satterthwaite 1946)."""
        parts = self.variance[:, settings] * weight**2 / self.repeats[settings]
        freedom = _satterthwaite(parts.sum(1), (parts**2 / np.maximum(self.freedom[:, settings], 1e-9)).sum(1))
        return Spread(parts.sum(1)[:, None], freedom[:, None], self.weight, self.total)


class Spread(NamedTuple):
    """Variances of estimates [priors, estimates], with degrees of freedom: a mixture of t distributions for each."""

    variance: np.ndarray
    freedom: np.ndarray
    weight: np.ndarray
    total: float

    def chance(self, difference: np.ndarray) -> np.ndarray:
        """Returns the probability of an error of at least `difference`, one-sided, [estimates]."""
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = np.where(self.variance > 0, difference / np.sqrt(self.variance), np.sign(difference) * np.inf)
        statistic = np.where(difference == 0, 0.0, statistic)
        return self.weight @ special.stdtr(np.minimum(self.freedom, self.total), -statistic)

    def half(self, chance: float) -> np.ndarray:
        """Returns the error that is exceeded with this one-sided probability, [estimates]."""
        deviation, freedom = np.sqrt(self.variance), np.minimum(self.freedom, self.total)
        high = (special.stdtrit(freedom, 1 - chance / len(self.weight)) * deviation).max(0) + 1e-300
        low = np.zeros_like(high)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            too_likely = self.chance(middle) > chance
            low, high = np.where(too_likely, middle, low), np.where(too_likely, high, middle)
        return high


def evenness(variances: np.ndarray, freedom: np.ndarray, centred: bool = True) -> np.ndarray:
    """Returns by how much unequal variances [priors, settings] lower degrees of freedom (Box 1954): 1 if equal.

    freedom: of what is known of each. As much as variances are unknown they may be unequal: the square of one that is
    estimated with f degrees of freedom is expected to be 1 + 2 / f times the square of the estimate. centred: whether
    the mean of the settings is taken off, of results or of a seed; two settings then vary equally, however unequal.
    """
    settings, total = variances.shape[1], variances.sum(1)
    squares = (variances**2 * (1 + 2 / np.maximum(freedom, 1e-9))).sum(1)
    if centred and settings > 1:
        left = total**2 * (1 - 1 / settings) ** 2 / (settings - 1)
        squares = squares * (1 - 2 / settings) + total**2 / settings**2
    else:
        left, squares = total**2, squares * settings
    return np.minimum(1.0, np.divide(left, squares, out=np.ones(len(variances)), where=squares > 0))


def combine(spreads: list[Spread]) -> Spread:
    """Returns what is known of sums of independent errors."""
    variance = np.sum([each.variance for each in spreads], axis=0)
    squares = np.sum([each.variance**2 / np.maximum(each.freedom, 1e-9) for each in spreads], axis=0)
    return Spread(variance, _satterthwaite(variance, squares), spreads[0].weight, spreads[0].total)


def _satterthwaite(variance: np.ndarray, squares: np.ndarray) -> np.ndarray:
    return np.divide(variance**2, squares, out=np.full_like(variance, np.inf), where=squares > 0)


def seed_noise(utility: np.ndarray, step: float | None = None) -> Noise | None:
    """Returns the noise of settings [settings, seeds], NaN where there is no result; None where nothing was repeated.

    What a seed does to all settings alike is taken off by medians, which unstable settings do not move; of a seed that
    only one setting has had, it counts as noise. step: what results are rounded to, such as one example of a split.
    """
    utility = utility[:, np.isfinite(utility).any(axis=0)]
    known = np.isfinite(utility)
    others, repeats = known.sum(axis=0), known.sum(axis=1)
    left = np.where(others > 1, 1 - 1 / others, 1.0)  # of each value, once its seed's effect is taken off
    freedom = (known * left).sum(axis=1) * (1 - 1 / repeats)
    if not freedom.sum() > 0:
        return None
    effects = _seed_effects(utility, others > 1)
    adjusted = utility - effects
    means = np.nanmean(adjusted, axis=1)
    squares = np.nansum((adjusted - means[:, None]) ** 2, axis=1)
    rounding = (resolution(utility) if step is None else step) ** 2 / 12  # the variance of rounding
    squares = np.maximum(squares, rounding * freedom)
    variance, moderate, weight = moderated(squares, freedom)
    pooled, total = float(squares.sum() / freedom.sum()), float(freedom.sum())
    shared = effects[others > 1]
    of_seeds = max(0.0, float(np.var(shared, ddof=1)) - pooled / len(utility)) if len(shared) > 1 else 0.0
    return Noise(means, repeats, variance, moderate, weight, pooled, total, of_seeds, len(shared))


def _seed_effects(utility: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Returns what each seed does to all settings alike, [seeds]; 0 for one that is not shared.

    Means of settings and medians of seeds by turns (Tukey's median polish), since not every setting has every seed.
    """
    effects = np.zeros(utility.shape[1])
    for _ in range(_ROUNDS):
        means = np.nanmean(utility - effects, axis=1, keepdims=True)
        before, effects = effects, np.where(shared, np.nanmedian(utility - means, axis=0), 0.0)
        effects[shared] -= effects[shared].mean() if shared.any() else 0.0
        if np.abs(effects - before).max() <= _EXACT * np.ptp(utility[np.isfinite(utility)]):
            break
    return effects


def resolution(values: np.ndarray) -> float:
    """Returns the step that values are rounded to: of a grid that many of them lie on, else of their decimals.

    The smallest gap of few values is what they differ by, not what they are rounded to.
    """
    places = np.unique(values[np.isfinite(values)])
    if not len(places):
        return 0.0
    steps = np.diff(places)
    steps = steps[steps > _NO_STEP * np.abs(places).max(initial=0.0)]
    if len(steps) >= _LATTICE - 1:
        multiples = (places - places[0]) / steps.min()
        if np.abs(multiples - multiples.round()).max() < _OFF_GRID:
            return float(steps.min())
    for decimals in range(_DECIMALS):
        if np.array_equal(np.round(places, decimals), places):
            return 10.0**-decimals
    return 0.0


def t_interval(values: np.ndarray, level: float = 0.05) -> tuple[float, float]:
    """Returns (mean, half of its t-interval) of those values that are known, NaN where too few are.

    Values that agree are still rounded, by `resolution`.
    """
    step, values = resolution(values), values[np.isfinite(values)]
    if len(values) < 2:
        return (float(values[0]) if len(values) else np.nan), np.nan
    variance = max(float(np.var(values, ddof=1)), step**2 / 12)
    half = stats.t.ppf(1 - level / 2, len(values) - 1) * np.sqrt(variance / len(values))
    return float(values.mean()), float(half)


def moderated(squares: np.ndarray, freedom: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (variances, degrees of freedom [priors, settings] each, weights [priors]) of sums of squares [settings].

    Empirical Bayes (Smyth 2004, Linear models and empirical Bayes methods): variances of settings are drawn from a
    scaled inverse chi-squared distribution with as many degrees of freedom as the prior says, the more the more they
    agree. Few repeats do not tell how many these are: all that are likely are kept, as likely as they are.
    """
    known = freedom > 0
    observed, f = squares[known] / freedom[known], freedom[known]
    if not observed.any():  # settings without noise
        shape = (len(_PRIORS), len(squares))
        return np.zeros(shape), np.full(shape, freedom.sum()), np.full(len(_PRIORS), 1 / len(_PRIORS))
    scales, likelihood = np.array([_fit(observed, f, prior) for prior in _PRIORS]).T
    weight = np.exp(likelihood - likelihood.max())
    prior = np.where(np.isinf(_PRIORS), 1e9, _PRIORS)[:, None]
    variance = (prior * scales[:, None] + squares) / (prior + freedom)
    return variance, np.minimum(prior + freedom, 1e9), weight / weight.sum()


def _fit(observed: np.ndarray, freedom: np.ndarray, prior: float) -> tuple[float, float]:
    """Returns (the common variance under which variances `observed` are most likely, their log likelihood)."""
    if np.isinf(prior):
        scale = float(freedom @ observed / freedom.sum())
        return scale, float(_log_gamma(observed, freedom, scale).sum())
    low, high = np.log(max(observed.min(), observed.max() * 1e-12)), np.log(observed.max())
    grid = np.exp(np.linspace(low, high, _SCALES) if high > low else np.array([low]))
    found = _log_f(observed[:, None] / grid, freedom[:, None], prior) - np.log(grid)
    totals = found.sum(0)
    return float(grid[totals.argmax()]), float(totals.max())


def _log_gamma(observed: np.ndarray, freedom: np.ndarray, scale: float) -> np.ndarray:
    """Returns log densities of scale · chi-squared / freedom."""
    half = freedom / 2
    x = np.maximum(observed, scale * 1e-12)
    return half * np.log(half / scale) - special.gammaln(half) + (half - 1) * np.log(x) - half * x / scale


def _log_f(ratio: np.ndarray, freedom: np.ndarray, prior: float) -> np.ndarray:
    """Returns log densities of the F distribution."""
    a, b = freedom / 2, prior / 2
    x = np.maximum(ratio, 1e-12)
    odds = freedom / prior
    return a * np.log(odds) + (a - 1) * np.log(x) - (a + b) * np.log1p(odds * x) - _log_beta(a, b)


def _log_beta(a: np.ndarray, b: float) -> np.ndarray:
    return special.gammaln(a) + special.gammaln(b) - special.gammaln(a + b)
