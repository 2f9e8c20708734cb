"""What the values of a column say of it: chosen before a run, or measured during it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from finetune.analysis.table.axis import MANY

_CROSSED = 0.8  # share of all combinations with the other columns that a chosen column was tried in
_DISTINCT = 0.9  # share of rows with a value of their own in a column that nobody listed
_DISTINCT_OF_MANY = 0.5  # the same, where there are more values than anybody lists
_REPEATED = 0.5  # share of rows that agree with another one in all that was listed
_DIFFERING = 0.9  # share of such rows that a measured column tells apart


def is_numeric(column: pd.Series) -> bool:
    """Says whether all cells that are there are numbers; flags are none."""
    if column.dtype != object:
        return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return all(isinstance(cell, int | float | np.number) and not isinstance(cell, bool) for cell in column.dropna())


def is_chosen(frame: pd.DataFrame, column: str, others: Sequence[str], known: bool) -> bool:
    """Says whether the values of `column` were listed and tried with (nearly) each combination of the listed others.

    So are the values of a grid; those of a machine, a folder or a counter happen to differ. Where the name is `known`
    as that of a hyperparameter, a list is enough.
    """
    if known or not any(varies(frame[other]) for other in others):
        return is_listed(frame[column])
    listed = [other for other in others if is_listed(frame[other])]
    values, combinations = frame[column].nunique(), len(frame[listed].drop_duplicates())
    pairs = len(frame[[*listed, column]].drop_duplicates())
    crossed = pairs >= _CROSSED * values * combinations and combinations > 1
    return bool(crossed and 1 < values <= MANY and 2 * values <= len(frame))


def by_values(frame: pd.DataFrame, columns: Sequence[str], unnamed: Sequence[str], seeds: Sequence[str]) -> list[str]:
    """Returns those of the `unnamed` columns whose numbers were measured.

    Such a column is nearly distinct in every row and differs between rows that agree in all that was listed. That is
    also so of a number drawn at random beside listed ones: it is told apart where seeds vary or where every number
    with the name of a hyperparameter was listed, and never where one such number was drawn as well.
    """
    listed = [column for column in columns if is_listed(frame[column])]
    known = [
        column for column in columns if column not in unnamed and is_numeric(frame[column]) and varies(frame[column])
    ]
    seeded = any(varies(frame[seed]) for seed in seeds)
    if not listed or not all(column in listed for column in known) or not (known or seeded):
        return []
    groups = frame.groupby(listed, dropna=False).ngroup().to_numpy()
    repeated = pd.Series(groups).duplicated(keep=False).to_numpy()
    if repeated.mean() < _REPEATED:
        return []
    return [column for column in unnamed if column not in listed and _differs(frame[column], groups, repeated)]


def _differs(column: pd.Series, groups: np.ndarray, repeated: np.ndarray) -> bool:
    """Says whether nearly every repeated row has a number that no other row of its group has."""
    if not is_numeric(column) or not varies(column):
        return False
    values = pd.factorize(column)[0]
    _, pairs, counts = np.unique(groups * (values.max() + 2) + values, return_inverse=True, return_counts=True)
    return bool((counts[pairs] == 1)[repeated].mean() >= _DIFFERING)


def is_listed(column: pd.Series) -> bool:
    """Says whether a column varies and its values are few: not one of its own in (nearly) every row."""
    distinct, rows = column.nunique(), column.notna().sum()
    many = distinct >= _DISTINCT * rows or (distinct > MANY and distinct >= _DISTINCT_OF_MANY * rows)
    return distinct > 1 and not (many and is_numeric(column))


def is_counted(column: pd.Series) -> bool:
    """Says whether a column holds a number of its own in nearly every row, as counters and measurements do."""
    return is_numeric(column) and varies(column) and not is_listed(column)


def varies(column: pd.Series) -> bool:
    """Says whether a column has two values."""
    return column.nunique() > 1
