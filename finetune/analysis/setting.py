"""A setting: one combination of hyperparameters, what it reached over seeds, and what it cost."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from finetune.analysis import robust
from finetune.analysis.cost import cost
from finetune.analysis.standing import Standing
from finetune.analysis.table import Trials
from finetune.analysis.variance import resolution


class Setting(NamedTuple):
    """One combination of axis values.

    mean, low, high: the metric on the validation split over seeds, with a 95 % t-interval (NaN with one seed). test:
    the mean metric on the test split, None if unknown; test_half: half of its interval. seeds: trials with a result.
    cost: mean of its trials. reach: for each axis the (lowest, highest) value that stays within one seed deviation of
    the best, others equal.
    """

    values: dict[str, Any]
    mean: float
    low: float
    high: float
    test: float | None
    test_half: float
    seeds: int
    ids: tuple[str, ...]
    cost: float | None
    reach: robust.Reach


def make_settings(trials: Trials, stands: Standing, places: Iterable[int]) -> tuple[Setting, ...]:
    """Returns the settings in these rows of `stands.table`, each with at least one result."""
    good = np.zeros(len(stands.table), bool)
    if stands.comparison is not None:
        means = stands.table["mean"].to_numpy()[stands.order]
        good[stands.order] = means >= means[0] - stands.comparison.deviation
    reach = robust.reaches(trials, stands.table, good)
    value, test, spent = (trials.frame["value"].to_numpy(), trials.frame["test"].to_numpy(), cost(trials).values)
    step, test_step = resolution(value), resolution(test)
    made = []
    for place in map(int, places):
        rows = stands.rows[place]
        mean, half = _interval(value[rows], step)
        test_mean, test_half = _interval(test[rows], test_step)
        setting_cost = _interval(spent[rows], 0.0)[0]
        made.append(
            Setting(
                values=stands.values(trials, place),
                mean=mean,
                low=mean - half,
                high=mean + half,
                test=None if math.isnan(test_mean) else test_mean,
                test_half=test_half,
                seeds=int(np.isfinite(value[rows]).sum()),
                ids=tuple(trials.frame["id"].to_numpy()[rows]),
                cost=None if math.isnan(setting_cost) else setting_cost,
                reach=reach[place],
            )
        )
    return tuple(made)


def _interval(values: np.ndarray, step: float) -> tuple[float, float]:
    """Returns (mean, half of its 95 % t-interval); values that agree are still known to a step only. NaN if unknown."""
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return (float(values[0]) if len(values) else math.nan), math.nan
    variance = max(float(np.var(values, ddof=1)), step**2 / 12)
    half = stats.t.ppf(0.975, len(values) - 1) * math.sqrt(variance / len(values))
    return float(values.mean()), float(half)
