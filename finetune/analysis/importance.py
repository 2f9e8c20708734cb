"""Shares of the variance where trials fill no grid: by a random forest, and by what sets the best trials apart."""

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from finetune.analysis.axis import MANY, Axis
from finetune.analysis.decomposition import NOISE, REST, Share, Terms
from finetune.analysis.table import Trials

GOOD = 0.25  # share of the settings that count as good
_MOST_SETTINGS = 1000  # that are looked at: more take longer and tell little more
_HALVES = 12  # fits to half of the settings, whose spread is the uncertainty of the fit to all
_TREES = 48
_POINTS, _POINTS_OF_PAIRS = 32, 8  # on an axis of many values
_SURFACE, _BACKGROUND = 2048, 64  # random settings: for the variance of the surface, to average other axes over
_PAIRED = 4  # axes whose pairs are looked at, those with the largest shares

Shares = dict[Terms, float]


def forest(trials: Trials) -> tuple[list[Share], str]:
    """Returns the shares by functional ANOVA of a random forest (Hutter, Hoos and Leyton-Brown 2014), and a note.

    The forest stands for the surface over the searched ranges, uniform on the scale of each axis. It counts only as
    far as it predicts settings that it was not fitted to (out-of-bag R²): what it cannot predict is rest. The share of
    chance is known where settings were repeated.
    """
    settings = _sample(trials)
    whole = _decompose(trials.axes, settings, None)
    pairs = [terms for terms in whole if len(terms) == 2]
    found = _with_intervals(settings, whole, lambda half: _decompose(trials.axes, half, pairs))
    note = "No full grid: shares of a random forest's surface; the rest holds what it cannot predict"
    return found, note + ("." if NOISE in whole else ", chance included.")


def best_quarter(trials: Trials) -> tuple[list[Share], str]:
    """Returns the shares of the axes in what sets the best quarter of settings apart, and a note.

    PED-ANOVA (Watanabe, Bansal and Hutter 2023) as Optuna computes it, scaled so that they add up to 1.
    """
    settings = _sample(trials)
    whole = _apart(trials.axes, settings)
    found = _with_intervals(settings, whole, lambda half: _apart(trials.axes, half))
    return found, "No full grid: what sets the best quarter of settings apart; shares add up to 1 even if it is chance."


def _sample(trials: Trials) -> pd.DataFrame:
    settings = trials.settings()
    return settings.sample(_MOST_SETTINGS, random_state=0) if len(settings) > _MOST_SETTINGS else settings


def _with_intervals(settings: pd.DataFrame, whole: Shares, fit: Callable[[pd.DataFrame], Shares]) -> list[Share]:
    """Returns shares, largest first, with the 95 % intervals that fits to random halves of the settings give."""
    if not whole:
        return []
    rng = np.random.default_rng(0)
    halves = [fit(settings.iloc[rng.permutation(len(settings))[: len(settings) // 2]]) for _ in range(_HALVES)]
    found = []
    for terms, share in whole.items():
        half_width = 1.96 * float(np.std([half.get(terms, 0.0) for half in halves], ddof=1))
        clipped = min(1.0, max(0.0, share))
        found.append(Share(terms, clipped, max(0.0, clipped - half_width), min(1.0, clipped + half_width)))
    return sorted(found, key=lambda share: -share.share)


def _decompose(axes: Sequence[Axis], settings: pd.DataFrame, pairs: Sequence[Terms] | None) -> Shares:
    """Returns the shares of a forest fitted to `settings`; pairs None: those of the axes with the largest shares."""
    from sklearn.ensemble import RandomForestRegressor  # slow to import

    points = np.stack([axis.positions(settings[axis.name].to_numpy()) for axis in axes], 1)
    target, repeats = settings["mean"].to_numpy(float), settings["n"].to_numpy(float)
    chance = _chance(settings)
    between = float(target.var(ddof=1))
    total = between + (0.0 if chance is None else chance * (1 - float(np.mean(1 / repeats))))
    if total <= 0:
        return {}
    leaf = max(2, math.isqrt(len(target)) // 4)  # the more settings, the more of chance can be averaged out
    model = RandomForestRegressor(_TREES, min_samples_leaf=leaf, oob_score=True, random_state=0).fit(points, target)
    predicted = float(model.oob_score_) * between / total  # below 0 where a constant predicts better: then all is rest
    surface = _surface_shares(axes, points, model.predict, pairs)
    found = {terms: share * predicted for terms, share in surface.items()}
    if chance is not None:
        found[NOISE] = min(chance / total, 1 - sum(found.values()))
    return {**found, REST: 1 - sum(found.values())}


def _chance(settings: pd.DataFrame) -> float | None:
    """Returns the variance between repeats of a setting, None if none was repeated."""
    repeated = settings[settings["n"] > 1]
    return float(np.average(repeated["std"] ** 2, weights=repeated["n"] - 1)) if len(repeated) else None


def _surface_shares(
    axes: Sequence[Axis], points: np.ndarray, predict: Callable[[np.ndarray], np.ndarray], pairs: Sequence[Terms] | None
) -> Shares:
    """Returns the shares of axes and of pairs in the variance of `predict` over the searched ranges."""
    rng = np.random.default_rng(0)
    background = np.stack([_draw(axis, points[:, i], rng) for i, axis in enumerate(axes)], 1)
    variance = float(predict(background).var())
    background = background[:_BACKGROUND]
    if variance <= 0:
        return {(axis.name,): 0.0 for axis in axes}

    def mean(count: int, *chosen: int) -> np.ndarray:
        levels = [_levels(axes[i], points[:, i], count) for i in chosen]
        grid = np.stack(np.meshgrid(*levels, indexing="ij"), -1)
        rows = np.broadcast_to(background, (*grid.shape[:-1], *background.shape)).copy()
        rows[..., list(chosen)] = grid[..., None, :]
        return predict(rows.reshape(-1, len(axes))).reshape(rows.shape[:-1]).mean(-1)

    shares: Shares = {(axis.name,): float(mean(_POINTS, i).var()) / variance for i, axis in enumerate(axes)}
    place = {axis.name: i for i, axis in enumerate(axes)}
    if pairs is None:
        largest = sorted(place, key=lambda name: -shares[name,])[:_PAIRED]
        pairs = list(itertools.combinations([name for name in place if name in largest], 2))
    for a, b in pairs:
        joint = mean(_POINTS_OF_PAIRS, place[a], place[b])
        joint = joint - joint.mean(0) - joint.mean(1, keepdims=True) + joint.mean()
        shares[a, b] = float(joint.var()) / variance
    excess = max(1.0, sum(shares.values()))  # of random sampling
    return {terms: share / excess for terms, share in shares.items()}


def _levels(axis: Axis, positions: np.ndarray, count: int) -> np.ndarray:
    if len(axis.values) <= MANY or not axis.is_number:
        return axis.positions(axis.values)
    edges = np.linspace(positions.min(), positions.max(), count + 1)
    return (edges[1:] + edges[:-1]) / 2


def _draw(axis: Axis, positions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if len(axis.values) <= MANY or not axis.is_number:
        return rng.choice(axis.positions(axis.values), _SURFACE)
    return rng.uniform(positions.min(), positions.max(), _SURFACE)


def _apart(axes: Sequence[Axis], settings: pd.DataFrame) -> Shares:
    import optuna  # slow to import

    columns = {axis.name: _column(axis, settings[axis.name].to_numpy()) for axis in axes}
    distributions = {name: distribution for name, (_, distribution) in columns.items()}
    found = [
        optuna.trial.create_trial(
            params={name: values[i] for name, (values, _) in columns.items()}, distributions=distributions, value=value
        )
        for i, value in enumerate(settings["mean"].tolist())
    ]
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(direction="maximize")
        study.add_trials(found)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=GOOD)
        parts = evaluator.evaluate(study)
    optuna.logging.set_verbosity(verbosity)
    total = sum(parts.values())
    return {(name,): float(parts[name]) / total for name in columns} if total > 0 else {}


def _column(axis: Axis, values: np.ndarray) -> tuple[list[Any], Any]:
    """Returns (values, distribution) of an axis for Optuna: positions of numbers, indices of categories."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if axis.is_number and len(axis.values) > MANY:
        positions = axis.positions(values)
        ends = axis.positions([axis.values[0], axis.values[-1]])
        return positions.tolist(), FloatDistribution(float(ends[0]), float(ends[1]))
    return axis.indices(values).tolist(), CategoricalDistribution(tuple(range(len(axis.values))))
