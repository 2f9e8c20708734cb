"""How much of what varies is due to each hyperparameter, to each pair, and to chance."""

from typing import NamedTuple

import numpy as np

from finetune.analysis import decomposition, importance
from finetune.analysis.decomposition import NOISE, REST, Share
from finetune.analysis.importance import GOOD
from finetune.analysis.table import Trials

__all__ = ["NOISE", "REST", "Anova", "Share", "anova", "good_region"]

_LEAST_TRIALS = 8  # fewer say nothing about shares
_WORST, _MOST = 0.05, 0.5  # the worst trials, and the share of the variance above which they decide everything


class Anova(NamedTuple):
    """Shares of the variance among trials drawn from the searched ranges, largest first.

    method: "exact" on full grids, else "random forest fANOVA" or "PED-ANOVA"; region: "all" or "good"; ranges: name of
    the axis -> what was searched, such as `0.0001 to 0.1 (7 values)`.
    """

    method: str
    region: str
    shares: tuple[Share, ...]
    ranges: dict[str, str]
    trials: int
    note: str


def anova(trials: Trials, region: str = "all") -> Anova | None:
    """Returns the shares of axes, pairs, the rest and chance; None if there are too few trials or none differ.

    region "good" restricts the ranges as `good_region` does; there tables that are no full grid are analysed by what
    sets their best quarter apart.
    """
    cut = good_region(trials) if region == "good" else trials
    if not cut.axes or len(cut.frame) < _LEAST_TRIALS or not np.isfinite(cut.filled).all():
        return None
    if cut.complete:
        method, (found, note) = "exact", _exact(cut)
    elif region == "good":
        cut = trials
        method, (found, note) = "PED-ANOVA", importance.best_quarter(trials)
    else:
        method, (found, note) = "random forest fANOVA", importance.forest(cut)
    if not found:
        return None
    notes = [note, _outliers(cut), _extent(trials, cut) if region == "good" and cut.complete else ""]
    ranges = {axis.name: axis.describe() for axis in cut.axes}
    return Anova(method, region, tuple(found), ranges, len(cut.frame), " ".join(each for each in notes if each))


def cube(trials: Trials) -> np.ndarray:
    """Returns the utilities of a full grid, [values of axis 1, ..., values of axis k, seeds]."""
    places = [axis.indices(trials.frame[axis.name].to_numpy()) for axis in trials.axes]
    labels, seeds = np.unique(trials.frame["seed"].astype(str), return_inverse=True)
    utilities = np.empty([*(len(axis.values) for axis in trials.axes), len(labels)])
    utilities[(*places, seeds)] = trials.filled
    return utilities


def _exact(trials: Trials) -> tuple[list[Share], str]:
    utilities = cube(trials)
    note = ""
    if utilities.shape[-1] == 1:
        note = (
            "One trial a setting: chance is not known, it is part of every share; repeat with seeds to tell it apart."
        )
    return decomposition.shares(utilities, tuple(trials.names)), note


def _outliers(trials: Trials) -> str:
    """Returns a warning where few trials make up most of the variance, so that the shares are theirs."""
    squares = np.sort((trials.filled - trials.filled.mean()) ** 2 * (trials.filled < trials.filled.mean()))[::-1]
    worst = max(1, int(_WORST * len(squares)))
    part = squares[:worst].sum() / max(np.sum((trials.filled - trials.filled.mean()) ** 2), np.finfo(float).tiny)
    return f"The worst {worst} trials make up {part:.0%} of the variance: see the good region." if part > _MOST else ""


def _extent(trials: Trials, cut: Trials) -> str:
    if len(cut.frame) == len(trials.frame):
        return "Every value is within reach of the best: the good region is the whole grid."
    return (
        f"Only values that one of the best {GOOD:.0%} of settings has: {len(cut.frame)} of {len(trials.frame)} trials."
    )


def good_region(trials: Trials) -> Trials:
    """Returns the trials within reach of the best: values that one of the best quarter of all settings has.

    Numbers between two such values are kept too, so a full grid stays one; an axis left with one value is fixed.
    """
    settings = trials.settings()
    best = settings.head(max(2, int(np.ceil(GOOD * len(settings)))))
    axes, fixed, inside = [], dict(trials.fixed), np.ones(len(trials.frame), bool)
    for axis in trials.axes:
        reached = best[axis.name]
        if axis.is_number:
            values = tuple(value for value in axis.values if reached.min() <= value <= reached.max())
        else:
            values = tuple(value for value in axis.values if value in set(reached))
        inside &= trials.frame[axis.name].isin(values).to_numpy()
        if len(values) > 1:
            axes.append(axis._replace(values=values))
        else:
            fixed[axis.name] = values[0]
    frame = trials.frame[inside].reset_index(drop=True)
    return trials._replace(frame=frame, axes=tuple(axes), fixed=fixed)
