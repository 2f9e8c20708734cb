"""Points that fill the unit cube: a scrambled Sobol sequence, or at random. Asking for more keeps the first ones."""

import warnings

import numpy as np
from scipy.stats import qmc


def sobol(dimensions: int, count: int, seed: int) -> np.ndarray:
    """Returns the first `count` points, float64 [count, dimensions] in [0, 1), of an Owen-scrambled Sobol sequence.

    Best balanced where `count` is a power of two (Owen 2022, On dropping the first Sobol' point).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of counts that are no power of two: a wave is part of one
        return np.asarray(qmc.Sobol(dimensions, scramble=True, rng=seed).random(count))


def uniform(dimensions: int, count: int, seed: int) -> np.ndarray:
    """Returns the first `count` points, float64 [count, dimensions] in [0, 1), of a sequence drawn at random."""
    return np.random.default_rng(seed).random((count, dimensions))
