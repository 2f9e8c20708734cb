"""How the settings of a table were chosen: a full grid, at random, by the results before them, or otherwise."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import spatial, stats

from finetune.analysis.table import names
from finetune.analysis.table.axis import MANY, Axis

GRID, RANDOM, ADAPTIVE, TABLE = "grid", "random", "adaptive", "table"

_TIMES = ("datetime_start", "start_time", "created", "_timestamp", "timestamp", "started", "date", "time_started")
_NEIGHBOURS = 5
_LEAST_SETTINGS = 20  # below it neither concentration nor evenness can be told from chance
_LEAST_CROWD = 32  # the first blocks of a Sobol sequence leave gaps that the next one fills, near to what is there
_MOST_SETTINGS = 600  # evenly spread over the order: enough to tell, and quick
_NEAR = 0.1  # of the range of an axis
_FALSE_ALARMS = 0.005  # share of random designs that are taken for adaptive ones
_UNEVEN = 0.01  # share of random designs that are taken for tables


class Design(NamedTuple):
    """kind: grid, random (even over the ranges, whatever the order), adaptive (later trials follow the results of
    earlier ones) or table (anything else, such as part of a grid); why: how that is known."""

    kind: str
    why: str


class Order(NamedTuple):
    """ranks: when each row came, int [rows]; forward: whether later is known to mean a larger rank."""

    ranks: np.ndarray
    forward: bool
    by: str


def order(whole: pd.DataFrame, identity: str | None, rows: pd.Index) -> Order:
    """Returns the order in which `rows` of a table came: by number, by time, else by row, in either direction."""
    frame = whole.loc[rows]
    bare = {names.bare(str(column)): column for column in reversed(frame.columns)}
    if identity is not None and pd.api.types.is_integer_dtype(frame[identity]) and frame[identity].is_unique:
        return Order(frame[identity].rank().to_numpy(int), True, str(identity))
    for name in _TIMES:
        if name in bare:
            cells = frame[bare[name]]
            numeric = pd.api.types.is_numeric_dtype(cells)
            times = cells if numeric else pd.to_datetime(cells, errors="coerce", utc=True, format="ISO8601")
            if times.notna().all() and times.is_unique:
                return Order(times.rank().to_numpy(int), True, str(bare[name]))
    return Order(np.arange(len(frame)), False, "row")


def design(frame: pd.DataFrame, axes: Sequence[Axis], came: Order | None, sampler: str | None) -> Design:
    """Returns how the settings of a table of trials were chosen.

    frame: the axes and utility, float with NaN where a trial has none; came: the order of its rows, None if nothing is
    known of it; sampler: an adaptive one that is known to have chosen the trials.
    """
    if sampler is not None:
        return Design(ADAPTIVE, f"the study says that {sampler} chose its trials by the results before them")
    if not axes:
        return Design(TABLE, "no hyperparameter varies")
    columns = [axis.name for axis in axes]
    settings = len(frame[columns].drop_duplicates())
    possible = np.prod([len(axis.values) for axis in axes], dtype=float)
    if settings == possible and not _is_sampled_alone(axes):
        return Design(GRID, "every combination of the values is there")
    if came is not None and (found := _concentrates(frame, axes, came)) is not None:
        return found
    sampled = any(axis.is_number and len(axis.values) > MANY for axis in axes)
    if not sampled and 2 * settings > possible:
        return Design(TABLE, f"{settings} of the {possible:,.0f} combinations of the values are there")
    if settings >= _LEAST_SETTINGS and _is_even(frame[columns].drop_duplicates(), axes):
        return Design(RANDOM, "settings lie evenly over the ranges, each hyperparameter whatever the others are")
    return Design(TABLE, "not every combination is there, and settings are not spread evenly over the ranges")


def _is_sampled_alone(axes: Sequence[Axis]) -> bool:
    """Says whether the only axis holds numbers that nobody lists: many, at uneven distances."""
    axis = axes[0]
    if len(axes) > 1 or not axis.is_number or len(axis.values) <= MANY:
        return False
    steps = np.diff(axis.positions([value for value in axis.values if value > 0 or axis.scale != "log"]))
    return bool(steps.max() > 1.5 * steps.min())


def _concentrates(frame: pd.DataFrame, axes: Sequence[Axis], came: Order) -> Design | None:
    """Returns an adaptive design if later trials lie where results are good, or close together, by more than chance.

    Were settings drawn whatever the results, the order would be independent of where each one lies and of what its
    neighbours reached, so that Spearman's test of either is exact. It is not asked of rows that someone has sorted.
    """
    table = frame.assign(came=came.ranks).sort_values("came", kind="stable")
    table = table.groupby([axis.name for axis in axes], sort=False).agg(utility=("utility", "mean")).reset_index()
    if len(table) < _LEAST_SETTINGS or table["utility"].notna().sum() <= 2 * _NEIGHBOURS or _is_sorted(table):
        return None
    table = table.iloc[np.linspace(0, len(table) - 1, min(len(table), _MOST_SETTINGS)).astype(int)]
    found = [(_promise(table, axes), "lie where results were good")]
    if len(table) >= _LEAST_CROWD:
        found.append((_crowding(table, axes), "lie close together"))
    for values, words in found:
        side = "greater" if came.forward else "two-sided"
        p = stats.spearmanr(np.arange(len(values)), values, alternative=side).pvalue if np.ptp(values) else 1.0
        if p <= _FALSE_ALARMS / 2:
            return Design(ADAPTIVE, f"settings that came later (by {came.by}) {words}, by more than chance (p {p:.1g})")
    return None


def _places(table: pd.DataFrame, axes: Sequence[Axis]) -> np.ndarray:
    """Returns where settings lie, float [settings, dimensions]: ranks of numbers in [0, 1], categories apart by 1."""
    places = []
    for axis in axes:
        if axis.is_number:
            ranks = stats.rankdata(table[axis.name].astype(float), method="dense")
            places.append(((ranks - 1) / max(ranks.max() - 1, 1))[:, None])
        else:
            places.append(np.eye(len(axis.values))[axis.indices(table[axis.name].tolist())] / np.sqrt(2))
    return np.concatenate(places, axis=1)


def _promise(table: pd.DataFrame, axes: Sequence[Axis]) -> np.ndarray:
    """Returns the mean rank of what the five nearest other settings with a result reached, float [settings]."""
    utility = table["utility"].to_numpy(float)
    distances = spatial.distance.squareform(spatial.distance.pdist(_places(table, axes)))
    np.fill_diagonal(distances, np.inf)
    distances[:, np.isnan(utility)] = np.inf
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :_NEIGHBOURS]
    return np.asarray(stats.rankdata(utility, nan_policy="omit")[nearest].mean(axis=1))


def _crowding(table: pd.DataFrame, axes: Sequence[Axis]) -> np.ndarray:
    """Returns the log of how many settings lie within a tenth of the range of each one, summed over axes."""
    total = np.zeros(len(table))
    for axis in axes:
        places = axis.positions(table[axis.name].tolist())
        reach = _NEAR * np.ptp(places) if axis.is_number else 0.0
        total += np.log((np.abs(places[:, None] - places) <= reach).sum(axis=1))
    return total


def _is_sorted(table: pd.DataFrame) -> bool:
    """Says whether rows were put in order by one of the columns: it never falls, never rises, or comes in blocks."""
    for column in table:
        cells = table[column].dropna()
        codes = pd.Series(pd.factorize(cells)[0] if cells.dtype == object else cells.to_numpy())
        blocks = int((codes != codes.shift()).sum())
        if codes.is_monotonic_increasing or codes.is_monotonic_decreasing or 1 < blocks == codes.nunique() < len(codes):
            return True
    return False


def _is_even(settings: pd.DataFrame, axes: Sequence[Axis]) -> bool:
    """Says whether settings look drawn at random: each axis even over its range, and none bound to another."""
    values = {axis.name: axis.positions(settings[axis.name].tolist()) for axis in axes}
    alone = [_uniform(values[axis.name], axis) for axis in axes]
    pairs = [_independent(values[a.name], values[b.name], a, b) for a, b in combinations(axes, 2)]
    return min(alone) * len(alone) >= _UNEVEN and (not pairs or min(pairs) * len(pairs) >= _UNEVEN)


def _uniform(values: np.ndarray, axis: Axis) -> float:
    """Returns the p-value of values that are spread evenly over the range, or over the list, of an axis."""
    if axis.is_number and len(axis.values) > MANY:
        return float(stats.kstest((values - values.min()) / np.ptp(values), "uniform").pvalue)
    return float(stats.chisquare(np.unique(values, return_counts=True)[1]).pvalue)


def _independent(one: np.ndarray, other: np.ndarray, first: Axis, second: Axis) -> float:
    """Returns the p-value of two axes whose values do not depend on each other."""
    if first.is_number and second.is_number:
        return float(stats.spearmanr(one, other).pvalue)
    if first.is_number or second.is_number:
        groups, numbers = (other, one) if first.is_number else (one, other)
        return float(stats.kruskal(*(numbers[groups == group] for group in np.unique(groups))).pvalue)
    return float(stats.chi2_contingency(pd.crosstab(one, other)).pvalue)
