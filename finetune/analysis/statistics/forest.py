"""Shares of the variance where trials fill no grid: by a random forest, and which of them are more than chance."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from finetune.analysis.statistics.correction import holm
from finetune.analysis.statistics.decomposition import LEVEL, NOISE, REST, Share, Terms
from finetune.analysis.statistics.screening import screen
from finetune.analysis.table.axis import MANY, Axis
from finetune.analysis.table.trials import Trials

_MOST_SETTINGS = 1000  # that are looked at: more take longer and tell little more
_TREES = 48
_POINTS, _POINTS_OF_PAIRS = 32, 8  # on an axis of many values
_SURFACE, _BACKGROUND = 2048, 64  # random settings: for the variance of the surface, to average other axes over
_PAIRED = 4  # axes whose pairs are looked at, those with the largest shares

Shares = dict[Terms, float]


def forest(trials: Trials) -> tuple[list[Share], str]:
    """Returns the shares by functional ANOVA of a random forest (Hutter, Hoos and Leyton-Brown 2014), and a note.

    The forest stands for the surface over the searched ranges, uniform on the scale of each axis. It counts only as
    far as it predicts settings that it was not fitted to (out-of-bag R²): what it cannot predict is rest. The share of
    chance is known where settings were repeated. Which axes are evident is told by `screen`, not by the forest.
    """
    settings = _sample(trials)
    values = {axis.name: settings[axis.name].to_numpy() for axis in trials.axes}
    chances = screen(trials.axes, values, settings["mean"].to_numpy(float))
    fallen = holm(np.array([*chances.values()]), LEVEL)
    evident = {name for name, falls in zip(chances, fallen, strict=True) if falls}
    whole = _decompose(trials.axes, settings)
    found = [
        Share(terms, share, np.nan, np.nan, len(terms) == 1 and terms[0] in evident) for terms, share in whole.items()
    ]
    note = (
        "No full grid: rough shares of a random forest's surface, without intervals; which hyperparameters differ from "
        "chance is told by a permutation test. What the forest does not predict is chance or interaction."
    )
    return sorted(found, key=lambda share: -share.share), note


def _sample(trials: Trials) -> pd.DataFrame:
    settings = trials.settings()
    return settings.sample(_MOST_SETTINGS, random_state=0) if len(settings) > _MOST_SETTINGS else settings


def _decompose(axes: Sequence[Axis], settings: pd.DataFrame) -> Shares:
    """Returns the shares of a forest fitted to `settings`, and of the pairs of the axes with the largest shares."""
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
    surface = _surface_shares(axes, points, model.predict)
    found = {terms: share * max(0.0, min(predicted, 1.0)) for terms, share in surface.items()}
    if chance is not None:
        found[NOISE] = min(chance / total, 1 - sum(found.values()))
    return {**found, REST: max(0.0, 1 - sum(found.values()))}


def _chance(settings: pd.DataFrame) -> float | None:
    """Returns the variance between repeats of a setting, None if none was repeated."""
    repeated = settings[settings["n"] > 1]
    return float(np.average(repeated["std"] ** 2, weights=repeated["n"] - 1)) if len(repeated) else None


def _surface_shares(axes: Sequence[Axis], points: np.ndarray, predict: Callable[[np.ndarray], np.ndarray]) -> Shares:
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
    largest = sorted(place, key=lambda name: -shares[name,])[:_PAIRED]
    for a, b in itertools.combinations([name for name in place if name in largest], 2):
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
