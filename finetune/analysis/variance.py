"""Seed noise: how much a setting varies from seed to seed, told from few repeats by looking at all settings."""

from typing import NamedTuple

import numpy as np
from scipy import special

_ROUNDS, _EXACT = 100, 1e-6  # of the search for seed effects: its rounds, and when it ends, relative to the range
_NO_STEP = 1e-9  # values closer than this, relative to the largest, differ by rounding of floats
_PARTS = (1, 2, 3)  # the smallest step between values may be so many steps of the grid
_OFF_GRID = 0.01  # of a step


class Noise(NamedTuple):
    """Seed noise of settings, without what a seed does to all of them alike.

    variance, freedom: [settings], moderated variances and their degrees of freedom. means: [settings], freed of which
    seeds a setting had. pooled, total: the common variance and its degrees of freedom.
    """

    variance: np.ndarray
    freedom: np.ndarray
    means: np.ndarray
    pooled: float
    total: float


def seed_noise(utility: np.ndarray) -> Noise | None:
    """Returns the noise of settings [settings, seeds], NaN where there is no result; None where nothing was repeated.

    What a seed does to all settings alike is taken off by medians, which unstable settings do not move; of a seed that
    only one setting has had, it counts as noise.
    """
    utility = utility[:, np.isfinite(utility).any(axis=0)]
    known = np.isfinite(utility)
    others = known.sum(axis=0)
    repeats = known.sum(axis=1)
    left = np.where(others > 1, 1 - 1 / others, 1.0)  # of each value, once its seed's effect is taken off
    freedom = (known * left).sum(axis=1) * (1 - 1 / repeats)
    if not freedom.sum() > 0:
        return None
    adjusted = utility - _seed_effects(utility, others > 1)
    means = np.nanmean(adjusted, axis=1)
    squares = np.nansum((adjusted - means[:, None]) ** 2, axis=1)
    squares = np.maximum(squares, resolution(utility) ** 2 / 12 * freedom)  # the variance of rounding
    variance, moderate = moderated(squares, freedom)
    total = float(freedom.sum())
    return Noise(variance, moderate, means, float(squares.sum() / total), total)


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
    """Returns the step of the grid that values lie on, such as one example of a validation split; 0 if they do not."""
    places = np.unique(values[np.isfinite(values)])
    steps = np.diff(places)
    steps = steps[steps > _NO_STEP * np.abs(places).max(initial=0.0)]
    for parts in _PARTS if len(steps) else ():
        step = steps.min() / parts
        multiples = (places - places[0]) / step
        if np.abs(multiples - multiples.round()).max() < _OFF_GRID:
            return float(step)
    return 0.0


def moderated(squares: np.ndarray, freedom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (variances, degrees of freedom) of sums of squares, drawn up to their common value where they lie below.

    Empirical Bayes (Smyth 2004, Linear models and empirical Bayes methods): the more the variances agree, the more
    they are pooled. None is drawn below what a setting has shown itself: that would call unstable settings steady.
    """
    known, total = freedom > 0, float(freedom.sum())
    own = np.divide(squares, freedom, out=np.zeros(len(squares)), where=known)
    variance, prior = np.full(len(own), squares.sum() / total), np.inf
    if known.sum() >= 3 and own[known].all():
        half = freedom[known] / 2
        logs = np.log(own[known]) - special.digamma(half) + np.log(half)
        excess = float(np.var(logs, ddof=1) - special.polygamma(1, half).mean())
        if excess > 0:
            prior = 2 * _inverse_trigamma(excess)
            centre = np.exp(logs.mean() + special.digamma(prior / 2) - np.log(prior / 2))
            variance = (prior * centre + squares) / (prior + freedom)
    return np.maximum(variance, own), np.minimum(prior + freedom, total)


def _inverse_trigamma(value: float) -> float:
    """Returns x with trigamma(x) = value, by Newton's method (Smyth 2004, appendix)."""
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(special.polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(special.polygamma(2, x))
        x += step
        if -step / x < 1e-8:
            break
    return x
