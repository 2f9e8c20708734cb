"""Permutations that are the same on every machine and with every version of NumPy."""

import numpy as np


def permutation(count: int, key: tuple[int, ...]) -> np.ndarray:
    """Returns the numbers 0 to `count` - 1, int64 [count], in a random order that `key` alone decides.

    They are sorted by the words of a PCG64 generator (O'Neill 2014) seeded with `key`, of equal words the first first:
    NumPy promises that a bit generator's raw stream stays what it is, and promises nothing of Generator.permutation.
    """
    return np.argsort(np.random.PCG64(key).random_raw(count), kind="stable")
