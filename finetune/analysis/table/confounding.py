"""Axes that cannot be told apart because their values always move together."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import pandas as pd

from finetune.analysis.table.axis import MANY, Axis
from finetune.analysis.table.cells import NONE

_TOGETHER = 0.9  # of |rank correlation|: above it less than a fifth of the variance is either one's own
_LEAST_PAIRS = 5  # for a correlation: fewer sampled numbers line up by chance


class Confounded(NamedTuple):
    """Two axes whose effects no analysis of these settings can tell apart.

    kind is "rank correlation", with the correlation as strength, or "function": `second` has one value for each value
    of `first`, and strength is 1.
    """

    first: str
    second: str
    kind: str
    strength: float


def confounded(frame: pd.DataFrame, axes: Sequence[Axis]) -> tuple[Confounded, ...]:
    """Returns the pairs of axes that move together over the distinct settings of `frame`, in the order of the axes.

    frame has a column for each axis. Where a hyperparameter exists for some trials only, those without it do not count.
    """
    settings = frame[[axis.name for axis in axes]].drop_duplicates()
    found = [_pair(settings, one, other) for one, other in combinations(axes, 2)]
    return tuple(each for each in found if each is not None)


def _pair(settings: pd.DataFrame, one: Axis, other: Axis) -> Confounded | None:
    both = settings[[one.name, other.name]]
    both = both[~both.isin([NONE]).any(axis=1)]
    pairs = both.drop_duplicates()
    if min(pairs[one.name].nunique(), pairs[other.name].nunique()) < 2:
        return None
    for first, second in ((one, other), (other, one)):
        if len(pairs) == pairs[first.name].nunique() and _is_listed(first, second, settings, pairs):
            return Confounded(first.name, second.name, "function", 1.0)
    if one.is_number and other.is_number and len(pairs) >= _LEAST_PAIRS:
        strength = _rank_correlation(both, one, other)
        if abs(strength) > _TOGETHER:
            return Confounded(one.name, other.name, "rank correlation", strength)
    return None


def _is_listed(axis: Axis, other: Axis, settings: pd.DataFrame, pairs: pd.DataFrame) -> bool:
    """Says whether that `axis` determines `other` means something: a number drawn anew for every setting always does.

    It does where values are met again as anything else differs, or where nothing else differs at all.
    """
    values = len(pairs)
    if values > MANY:
        return False
    alone = len(settings.columns) == 2 and pairs[other.name].nunique() == values
    numbers = axis.is_number and other.is_number
    return 2 * values <= len(settings) or (alone and (not numbers or abs(_rank_correlation(pairs, axis, other)) == 1))


def _rank_correlation(frame: pd.DataFrame, one: Axis, other: Axis) -> float:
    return round(float(frame[one.name].astype(float).corr(frame[other.name].astype(float), method="spearman")), 12)
