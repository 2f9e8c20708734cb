"""Conditions: axes whose range depends on a choice, such as a learning rate of its own for each `trainable`."""

from typing import NamedTuple

import numpy as np

from finetune.analysis.table.axis import LINEAR, Axis, make_axis
from finetune.analysis.table.trials import Trials

CHOICES = ("trainable", "optimizer.name", "optimizer", "schedule")  # they change the program; the first that varies


class Condition(NamedTuple):
    """by: the axis whose values are compared each at its own best. own: names of axes that have a range for each."""

    by: Axis
    own: tuple[str, ...]


def condition(trials: Trials) -> Condition | None:
    """Returns by which choice trials are told apart, None where none varies; one that others depend on comes first."""
    axes = {axis.name: axis for axis in trials.axes if not axis.is_number}
    found = [Condition(axes[name], _own(trials, axes[name])) for name in CHOICES if name in axes]
    return next((each for each in found if each.own), found[0] if found else None)


def own_axes(trials: Trials) -> tuple[str, ...]:
    """Returns the names of the axes that have a range of their own for each value of another."""
    found = condition(trials)
    return found.own if found else ()


def comparable(trials: Trials, pair: tuple[str, str]) -> bool:
    """Says whether the cells of two axes may be read beside each other: else they are of different choices."""
    found = condition(trials)
    return found is None or found.by.name in pair or not set(pair) & set(found.own)


def _own(trials: Trials, by: Axis) -> tuple[str, ...]:
    """Returns axes whose values were said to depend on `by`, or do where each of its values has a full grid."""
    said = {
        name.partition("@")[0] for name in trials.provenance.get("axes") or {} if name.partition("@")[2] in by.values
    }
    parts = [within(trials, by, value) for value in by.values]
    gridded = trials.frame["seed"].nunique() > 1 and all(part.complete or not part.axes for part in parts)
    differ = [
        axis.name
        for axis in trials.axes
        if axis.name != by.name and len({frozenset(part.frame[axis.name]) for part in parts}) > 1
    ]
    return tuple(name for name in differ if name in said or (gridded and not trials.complete))


def within(trials: Trials, by: Axis, value: str) -> Trials:
    """Returns the trials with this value of `by`, with the ranges that they have."""
    frame = trials.frame[trials.frame[by.name] == value].reset_index(drop=True)
    made = [make_axis(axis.name, frame[axis.name].tolist(), axis.scale) for axis in trials.axes]
    fixed = {axis.name: axis.values[0] for axis in made if len(axis.values) == 1}
    axes = tuple(axis for axis in made if len(axis.values) > 1)
    return trials._replace(frame=frame, axes=axes, fixed=trials.fixed | fixed)


def by_place(trials: Trials) -> Trials:
    """Returns the trials with the place of a value within its own range, 1 the lowest, where ranges differ.

    So the rates of one choice are not taken for rates that others have tried.
    """
    found = condition(trials)
    if found is None or not found.own:
        return trials
    frame, axes = trials.frame.copy(), list(trials.axes)
    for number, axis in enumerate(axes):
        if axis.name in found.own:
            ranks = trials.frame.groupby(found.by.name, sort=False)[axis.name].rank(method="dense")
            frame[axis.name] = ranks.astype(int)
            axes[number] = Axis(axis.name, LINEAR, tuple(int(place) for place in np.unique(ranks)))
    return trials._replace(frame=frame, axes=tuple(axis for axis in axes if len(axis.values) > 1))
