"""Stratified, seeded choice of examples: the same on every machine and with every version of NumPy."""

import numpy as np

from finetune.data.permutation import permutation


def stratify(labels: np.ndarray, total: int, key: tuple[int, ...], leave: int = 0) -> np.ndarray:
    """Returns a mask bool [N] of `total` examples, drawn from each class of `labels` int [N] in proportion.

    `key` seeds the draw. At least `leave` examples of every class are not drawn. A class that can give any gives one
    at least, if `total` suffices. `total` is at most `room(labels, leave)`.
    """
    counts = np.bincount(labels)
    quota = quotas(counts, total, np.maximum(counts - leave, 0))
    order = permutation(len(labels), key)
    grouped = order[np.argsort(labels[order], kind="stable")]
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = np.zeros(len(labels), bool)
    chosen[grouped[rank < np.repeat(quota, counts)]] = True
    return chosen


def room(labels: np.ndarray, leave: int) -> int:
    """Returns how many examples can be drawn if `leave` of every class are not."""
    return int(np.maximum(np.bincount(labels) - leave, 0).sum())


def quotas(counts: np.ndarray, total: int, limits: np.ndarray) -> np.ndarray:
    """Returns how many of `total` fall to each class [C]: in proportion to `counts`, at most `limits`.

    The largest remainders are rounded up (Hamilton's method), in whole numbers so that no rounding differs between
    machines. Classes with a limit above 0 get one at least, if `total` suffices.
    """
    assert total <= limits.sum()
    # total · counts / sum(counts) in units of one sum(counts)-th.
    exact = counts.astype(np.int64) * total
    unit = int(counts.sum())
    least = (limits > 0).astype(np.int64) * (total >= np.count_nonzero(limits))
    quota = np.clip(exact // unit, least, limits)
    while (missing := total - int(quota.sum())) != 0:
        owed = exact - quota * unit
        if missing > 0:
            quota[np.argmax(np.where(quota < limits, owed, np.iinfo(np.int64).min))] += 1
        else:
            quota[np.argmin(np.where(quota > least, owed, np.iinfo(np.int64).max))] -= 1
    return quota
