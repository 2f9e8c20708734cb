"""Analysis of variance of a full grid with repeats: sums of squares, shares of the variance, and their intervals."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from finetune.analysis.statistics.correction import holm
from finetune.analysis.statistics.variance import evenness, moderated, seed_noise

Terms = tuple[str, ...]
NOISE: Terms = ()  # chance: what differs between repeats of one setting
REST: Terms = ("*",)  # interactions of three axes and more
SEEDS: Terms = ("*seed",)  # what a seed does to all settings alike; part of the noise
RESIDUAL: Terms = ("*residual",)

LEVEL = 0.05  # the probability of a false claim, of all terms together
_DRAWS = 256
_BISECTIONS = 25
_SURELY = 0.05
_LEAST = 1e-12  # of the total sum of squares: below it are rounding errors


class Part(NamedTuple):
    """A sum of squares and its degrees of freedom."""

    squares: float
    freedom: float


class Share(NamedTuple):
    """The share of a term in the variance, and its 95 % interval, NaN where chance is not known.

    terms names one axis or two; () is chance, ("*",) is the rest. evident: whether the term differs from chance, by a
    test that is corrected for the number of terms; no sentence may name one that does not.
    """

    terms: Terms
    share: float
    low: float
    high: float
    evident: bool


def sums_of_squares(cube: np.ndarray, names: tuple[str, ...]) -> dict[Terms, Part]:
    """Returns the part of each axis, each pair, the rest, the seeds and the residual, as of a balanced factorial ANOVA.

    cube: utility [values of axis 1, ..., values of axis k, seeds]. Parts add up to the total; seeds are blocks.
    """
    *shape, seeds = cube.shape
    settings = cube[..., 0].size
    means = cube.mean(-1)
    deviation = means - means.mean()
    axes = range(len(shape))
    effects = [_marginal(deviation, (i,)) for i in axes]
    parts: dict[Terms, Part] = {}
    for i in axes:
        parts[names[i],] = Part(_squares(effects[i], cube.size), shape[i] - 1)
    for i, j in itertools.combinations(axes, 2):
        effect = _marginal(deviation, (i, j)) - effects[i] - effects[j]
        parts[names[i], names[j]] = Part(_squares(effect, cube.size), (shape[i] - 1) * (shape[j] - 1))
    between = seeds * float(np.sum(deviation**2))
    if len(shape) > 2:
        lower = Part(sum(part.squares for part in parts.values()), sum(part.freedom for part in parts.values()))
        parts[REST] = Part(max(0.0, between - lower.squares), settings - 1 - lower.freedom)
    if seeds > 1:
        by_seed = cube.reshape(settings, seeds).mean(0) - means.mean()
        parts[SEEDS] = Part(settings * float(np.sum(by_seed**2)), seeds - 1)
        within = float(np.sum((cube - means[..., None]) ** 2))
        parts[RESIDUAL] = Part(max(0.0, within - parts[SEEDS].squares), (settings - 1) * (seeds - 1))
    return parts


def _marginal(deviation: np.ndarray, kept: tuple[int, ...]) -> np.ndarray:
    return deviation.mean(tuple(i for i in range(deviation.ndim) if i not in kept), keepdims=True)


def _squares(effect: np.ndarray, trials: int) -> float:
    return float(np.mean(effect**2)) * trials


def shares(cube: np.ndarray, names: tuple[str, ...]) -> list[Share]:
    """Returns the share of each term in the variance of one trial drawn from the grid, largest first; [] if constant.

    cube: utility [values of axis 1, ..., values of axis k, seeds], NaN where there is no result; every setting has one.
    The variance of a term over the grid is (squares − freedom · residual variance) / trials, which chance does not
    inflate; shares below 0 are 0. Settings with unequal numbers of results count by their means (unweighted means,
    Yates 1934). With one result each, all interactions together are taken for chance (Tukey 1949): they are the rest.
    """
    if float(np.nansum((cube - np.nanmean(cube)) ** 2)) <= _LEAST * float(np.nansum(cube**2)):
        return []
    whole = bool(np.isfinite(cube).all())
    parts, noise = (_balanced if whole else _unbalanced)(cube, names)
    total = sum(part.squares for part in parts.values())
    terms = {terms: part for terms, part in parts.items() if terms not in (SEEDS, RESIDUAL)}
    if noise is None:  # one axis, one seed
        return [Share(each, part.squares / total, np.nan, np.nan, False) for each, part in terms.items()]
    variance = {each: (part.squares - part.freedom * noise.residual) / noise.trials for each, part in terms.items()}
    between = max(0.0, sum(variance.values()))
    positive = _nearest_positive(np.array([*variance.values()]), between)
    share = dict(zip(variance, (positive / (between + noise.variance)).tolist(), strict=True))
    share[NOISE] = noise.variance / (between + noise.variance)
    evident = evident_terms(terms, noise)
    found = []
    for each, (low, high) in _intervals(terms, noise).items():
        name = REST if noise.interactions and each == NOISE else each
        shown = each in evident and low > 0
        found.append(Share(name, share[each], min(low, share[each]), max(high, share[each]), shown))
    return sorted(found, key=lambda share: -share.share)


def _balanced(cube: np.ndarray, names: tuple[str, ...]) -> tuple[dict[Terms, Part], "Noise | None"]:
    parts = sums_of_squares(cube, names)
    single = RESIDUAL not in parts
    if single:
        parts = _without_interactions(parts)
    return parts, _noise(cube, parts, single) if RESIDUAL in parts else None


def _unbalanced(cube: np.ndarray, names: tuple[str, ...]) -> tuple[dict[Terms, Part], "Noise | None"]:
    """Returns the parts of means of settings, as if each had the harmonic mean of all numbers of results."""
    utility = cube.reshape(-1, cube.shape[-1])
    found = seed_noise(utility)
    means = np.nanmean(utility, axis=1) if found is None else found.means
    if found is None:
        return _balanced(means.reshape(*cube.shape[:-1], 1), names)
    repeats = len(means) / float(np.sum(1 / found.repeats))
    parts = {
        terms: Part(part.squares * repeats, part.freedom)
        for terms, part in sums_of_squares(means.reshape(*cube.shape[:-1], 1), names).items()
    }
    even = found.evenness
    freedom = float(found.weight @ found.effective_total)
    noise = Noise(
        found.pooled + found.of_seeds, freedom, found.pooled, freedom, found.total, even, found.weight,
        repeats * len(means), False,
    )  # fmt: skip
    return parts, noise


def _without_interactions(parts: Mapping[Terms, Part]) -> dict[Terms, Part]:
    """Returns the parts of the axes alone, and all others together as residual if there are any."""
    axes = {terms: part for terms, part in parts.items() if len(terms) == 1 and terms != REST}
    others = [part for terms, part in parts.items() if terms not in axes]
    residual = Part(sum(part.squares for part in others), sum(part.freedom for part in others))
    return axes | ({RESIDUAL: residual} if residual.freedom > 0 else {})


def interactions(cube: np.ndarray, names: tuple[str, ...]) -> Part | None:
    """Returns all interactions of a grid of single runs [..., 1] as one part; None of a single axis."""
    return _without_interactions(sums_of_squares(cube, names)).get(RESIDUAL)


def evident_terms(terms: Mapping[Terms, Part], noise: "Noise") -> set[Terms]:
    """Returns the terms that differ from chance by F tests, corrected for their number (Holm).

    Unequal variances lower the degrees of freedom (Box 1954), as far as each prior of `moderated` says.
    """
    tested = [each for each, part in terms.items() if part.freedom > 0]
    chances = [
        float(
            noise.weight
            @ stats.f.sf(
                terms[each].squares / terms[each].freedom / noise.residual,
                terms[each].freedom * noise.even,
                noise.residual_total * noise.even,
            )
        )
        for each in tested
    ]
    fallen = holm(np.array(chances), LEVEL)
    return {each for each, falls in zip(tested, fallen, strict=True) if falls}


def _nearest_positive(values: np.ndarray, total: float) -> np.ndarray:
    """Returns the numbers >= 0 that add up to `total` nearest to `values` (Held, Wolfe and Crowder 1974)."""
    descending = np.sort(values)[::-1]
    excess = (np.cumsum(descending) - total) / np.arange(1, len(values) + 1)
    return np.maximum(0.0, values - excess.max())


class Noise(NamedTuple):
    """Chance. residual is what is left of it within a seed, which is what disturbs comparisons of settings."""

    variance: float  # between repeats of a setting
    freedom: float
    residual: float
    residual_freedom: float  # as far as settings differ in noise
    residual_total: float
    even: np.ndarray  # [priors], 1 where settings have equal noise; weight: how likely each prior is
    weight: np.ndarray
    trials: float
    interactions: bool  # are what is taken for chance, since nothing was repeated


def _noise(cube: np.ndarray, parts: Mapping[Terms, Part], single: bool) -> Noise:
    """Returns the variance of chance with its effective degrees of freedom.

    Degrees of freedom follow Satterthwaite (1946), both for settings that differ in noise and for seeds that act on
    all settings alike; where those do so beyond doubt (F test), chance is known only as well as seeds are many.
    """
    settings, seeds = cube[..., 0].size, cube.shape[-1]
    rounding = _LEAST * sum(part.squares for part in parts.values())
    total = parts[RESIDUAL].freedom
    residual = max(parts[RESIDUAL].squares, rounding) / total
    if single:
        return Noise(residual, total, residual, total, total, np.ones(1), np.ones(1), cube.size, True)
    by_seed = cube.reshape(settings, seeds) - cube.mean(tuple(range(cube.ndim - 1)))
    squares = np.sum((by_seed - by_seed.mean(1, keepdims=True)) ** 2, axis=1)
    freedom = np.full(settings, total / settings)
    variances, known, weight = moderated(np.maximum(squares, rounding / settings), freedom)
    even = evenness(variances, known)
    variance_of_each = squares / (seeds - 1)
    fourth = float(np.sum(variance_of_each**2))
    unequal = (seeds + 1) * float(np.sum(variance_of_each)) ** 2 / fourth / (settings * (seeds - 1)) if fourth else 1.0
    residual_freedom = total * min(1.0, unequal)
    of_seeds = parts[SEEDS].squares / parts[SEEDS].freedom / settings
    of_residual = residual * (settings - 1) / settings
    variance = of_seeds + of_residual
    spread = of_seeds**2 / parts[SEEDS].freedom + of_residual**2 / residual_freedom
    shared = stats.f.sf(of_seeds * settings / residual, parts[SEEDS].freedom, residual_freedom) < _SURELY
    freedom_of_all = seeds - 1.0 if shared else variance**2 / spread
    return Noise(variance, freedom_of_all, residual, residual_freedom, total, even, weight, cube.size, False)


def _intervals(terms: Mapping[Terms, Part], noise: Noise) -> dict[Terms, tuple[float, float]]:
    """Returns 95 % generalised confidence intervals (Weerahandi 1993) of the shares.

    A sum of squares over the residual variance is noncentral chi-squared. Each draw of the pivots (chi-squared for the
    noise, uniform for the term and for all other terms together) is solved for the variances, and so for the share. A
    plain bootstrap over seeds would add chance to every term: its intervals miss small shares.
    """
    draws = _draws()
    residual = noise.residual * noise.residual_freedom / stats.chi2.ppf(1 - draws[0], noise.residual_freedom)
    variance = noise.variance * noise.freedom / stats.chi2.ppf(1 - draws[0], noise.freedom)
    everything = Part(sum(part.squares for part in terms.values()), sum(part.freedom for part in terms.values()))

    parts = [everything, *terms.values()]
    others = [Part(everything.squares - part.squares, everything.freedom - part.freedom) for part in parts]
    of_parts, of_others = (
        _solve(each, residual, stats.norm.ppf(uniform)) * residual / noise.trials
        for each, uniform in ((parts, draws[1]), (others, draws[2]))
    )
    found = of_parts / (of_parts + of_others + variance)
    found[0] = variance / (of_parts[0] + variance)
    low, high = np.quantile(found, [0.025, 0.975], axis=1).tolist()
    return dict(zip([NOISE, *terms], zip(low, high, strict=True), strict=True))


def _draws() -> np.ndarray:
    """Returns points that fill the unit cube evenly, [3, draws]: the same at every call."""
    return np.clip(stats.qmc.Sobol(3, rng=0).random(_DRAWS).T, 1e-9, 1 - 1e-9)


def _solve(parts: Sequence[Part], residual: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Returns the noncentrality [parts, draws] under which each sum of squares lies at the quantile `normal`, or 0."""
    squares, freedom = np.array(parts, float).T[..., None]
    observed, freedom = np.maximum(squares, 0.0) / residual, np.maximum(freedom, 1.0)
    low, high = np.zeros_like(observed), observed + 12 * np.sqrt(observed + 1) + 40
    none = (_normal_quantile(observed, freedom, low) <= normal) | (observed == 0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        too_small = _normal_quantile(observed, freedom, middle) > normal
        low, high = np.where(too_small, middle, low), np.where(too_small, high, middle)
    return np.where(none, 0.0, low)


def _normal_quantile(observed: np.ndarray, freedom: np.ndarray, noncentrality: np.ndarray) -> np.ndarray:
    """Returns the standard normal quantile of a noncentral chi-squared value (Sankaran 1963)."""
    mean, half_variance = freedom + noncentrality, freedom + 2 * noncentrality
    power = 1 - 2 * mean * (freedom + 3 * noncentrality) / (3 * half_variance**2)
    spread = half_variance / mean**2
    skew = (power - 1) * (1 - 3 * power)
    centre = 1 + power * spread * (power - 1 - 0.5 * (2 - power) * skew * spread)
    return ((observed / mean) ** power - centre) / (power * np.sqrt(2 * spread) * (1 + 0.5 * skew * spread))
