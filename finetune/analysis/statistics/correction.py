"""What many tests at once may claim."""

import numpy as np


def holm(chances: np.ndarray, level: float) -> np.ndarray:
    """Returns which hypotheses fall, so that a true one falls with probability `level` at most (Holm 1979), bool [n].

    >>> holm(np.array([0.01, 0.04, 0.03]), 0.05)
    array([ True, False, False])
    """
    order = np.argsort(chances, kind="stable")
    left = len(chances) - np.arange(len(chances))
    fallen = np.zeros(len(chances), bool)
    fallen[order] = np.logical_and.accumulate(chances[order] <= level / left)
    return fallen
