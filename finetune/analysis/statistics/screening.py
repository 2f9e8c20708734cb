"""Which hyperparameters matter where trials fill no grid: a rank test of each, corrected for how many there are."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from finetune.analysis.table.axis import Axis

_DRAWS = 1999
_LEAST = 8  # settings


def screen(axes: Sequence[Axis], values: dict[str, np.ndarray], utility: np.ndarray) -> dict[str, float]:
    """Returns the probability, for each axis, of an association as strong if the axis made no difference.

    values: of each axis, [settings]; utility: [settings]. The statistic is R² of the ranks of the utility on the place
    along the axis and its square, so that a best value inside the range is seen, or on the categories; its
    distribution is that under permutations. This holds where values were drawn without looking at results.
    """
    known = np.isfinite(utility)
    if known.sum() < _LEAST or not np.ptp(utility[known]) > 0:
        return {axis.name: 1.0 for axis in axes}
    ranks = stats.rankdata(utility[known])
    ranks = (ranks - ranks.mean()) / np.sqrt(((ranks - ranks.mean()) ** 2).sum())
    rng = np.random.default_rng(0)
    drawn = rng.permuted(np.tile(ranks, (_DRAWS, 1)), axis=1)
    chances = {}
    for axis in axes:
        basis = _basis(axis, np.asarray(values[axis.name])[known])
        observed = float(((basis.T @ ranks) ** 2).sum())
        as_strong = ((drawn @ basis) ** 2).sum(1) >= observed - 1e-12
        chances[axis.name] = float((1 + as_strong.sum()) / (1 + _DRAWS))
    return chances


def _basis(axis: Axis, values: np.ndarray) -> np.ndarray:
    """Returns orthonormal columns without a mean, [settings, columns]: what an axis can explain."""
    if axis.is_number:
        place = stats.rankdata(values)
        columns = np.stack([place, (place - place.mean()) ** 2], 1)
    else:
        columns = (values[:, None] == np.unique(values.astype(str))[None]).astype(float)
    columns = columns - columns.mean(0)
    left, size, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, size > 1e-9 * max(size.max(initial=0.0), 1e-300)]
