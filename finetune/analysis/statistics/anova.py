"""How much of what varies is due to each hyperparameter, to each pair, and to chance."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from finetune.analysis.statistics import decomposition, forest
from finetune.analysis.statistics.decomposition import NOISE, REST, Share
from finetune.analysis.statistics.paired import arrange
from finetune.analysis.table.axis import Axis
from finetune.analysis.table.design import ADAPTIVE
from finetune.analysis.table.trials import Trials

__all__ = ["NOISE", "REST", "Anova", "Share", "anova", "good_region"]

_LEAST_TRIALS = 8  # fewer say nothing about shares
GOOD = 0.25  # share of the settings that count as good
_SINGLE = "Each setting ran once: interactions, which are small as a rule, stand for chance (Tukey 1949)."
_WORST, _MOST = 0.05, 0.5  # the worst trials, and the share of the variance above which they decide everything


class Anova(NamedTuple):
    """Shares of the variance among trials drawn from the searched ranges, largest first.

    method: "exact" on full grids, else "random forest fANOVA"; region: "all" or "good"; ranges: name of the axis ->
    what was searched, such as `0.0001 to 0.1 (7 values)`; single: whether nothing was repeated, so that interactions
    stand for chance.
    """

    method: str
    region: str
    shares: tuple[Share, ...]
    ranges: dict[str, str]
    trials: int
    note: str
    single: bool

    @property
    def evident(self) -> tuple[Share, ...]:
        """The shares of hyperparameters and pairs that differ from chance."""
        return tuple(share for share in self.shares if share.evident and share.terms not in (NOISE, REST))


def anova(trials: Trials, region: str = "all") -> Anova | None:
    """Returns the shares of axes, pairs, the rest and chance; None if there are too few trials or none differ.

    region "good" restricts the ranges of a full grid as `good_region` does.
    """
    cut = good_region(trials) if region == "good" else trials
    found = decompose(cut, cube(cut), region)
    if found is None or region != "good":
        return found
    return found._replace(note=f"{found.note} {_extent(trials, cut)}".strip())


def decompose(cut: Trials, cells: np.ndarray | None, region: str = "all") -> Anova | None:
    """Returns the shares of trials whose `cube` is `cells`.

    Trials that were chosen by looking at results are not drawn from the ranges: they have no shares.
    """
    if not cut.axes or np.isfinite(cut.filled).sum() < _LEAST_TRIALS or cut.design == ADAPTIVE:
        return None
    single = True
    if cells is not None:
        single = bool((np.isfinite(cells).sum(-1) < 2).all())
        method, found, note = "exact", decomposition.shares(cells, tuple(cut.names)), _SINGLE if single else ""
    elif region == "good":
        return None
    else:
        method, (found, note) = "random forest fANOVA", forest.forest(cut)
    if not found:
        return None
    ranges = {axis.name: axis.describe() for axis in cut.axes}
    said = f"{note} {_outliers(cut)}".strip()
    return Anova(method, region, tuple(found), ranges, int(np.isfinite(cut.filled).sum()), said, single)


def cube(trials: Trials) -> np.ndarray | None:
    """Returns the utilities of a full grid, see `full_grid`; None where a combination of values has no result."""
    repeats = arrange(trials._replace(frame=trials.frame.assign(utility=trials.filled)))
    first = pd.Series(repeats.setting).drop_duplicates().index.to_numpy()
    places = tuple(axis.indices(trials.frame[axis.name].to_numpy()[first]) for axis in trials.axes)
    return full_grid(trials.axes, places, repeats.utility)


def full_grid(axes: Sequence[Axis], places: tuple[np.ndarray, ...], utility: np.ndarray) -> np.ndarray | None:
    """Returns utilities [values of axis 1, ..., values of axis k, repeats] of a full grid, NaN where none counts.

    places: of each setting's value on each axis; utility: [settings, repeats]. None without axes, and where a
    combination of values has no result.
    """
    shape = tuple(len(axis.values) for axis in axes)
    if not axes or np.prod(shape, dtype=float) > len(utility):
        return None
    utilities = np.full((*shape, utility.shape[1]), np.nan)
    utilities[places] = utility
    return utilities if np.isfinite(utilities).any(-1).all() else None


def _outliers(trials: Trials) -> str:
    """Returns a warning where few trials make up most of the variance, so that the shares are theirs."""
    utility = trials.filled[np.isfinite(trials.filled)]
    squares = (utility - utility.mean()) ** 2
    worst = max(1, int(_WORST * len(squares)))
    low = np.sort(squares * (utility < utility.mean()))[::-1]
    part = low[:worst].sum() / max(squares.sum(), np.finfo(float).tiny)
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
            low, high = reached.min(), reached.max()
            values = tuple(value for value in axis.values if low <= value <= high)
        else:
            values = tuple(value for value in axis.values if value in set(reached))
        inside &= trials.frame[axis.name].isin(values).to_numpy()
        if len(values) > 1:
            axes.append(axis._replace(values=values))
        else:
            fixed[axis.name] = values[0]
    frame = trials.frame[inside].reset_index(drop=True)
    return trials._replace(frame=frame, axes=tuple(axes), fixed=fixed)
