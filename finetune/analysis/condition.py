"""Conditions: axes whose range depends on a choice, such as a learning rate of its own for each `trainable`."""

from typing import NamedTuple

import numpy as np

from finetune.analysis.table.axis import LINEAR, Axis, make_axis
from finetune.analysis.table.trials import Trials

CHOICES = ("trainable", "optimizer.name", "optimizer", "schedule")  # they change the program; the first that varies


class Condition(NamedTuple):
    """by: the axis whose values are compared each at its best. parts: the trials with each of them, see `within`.

    conditional: names of axes that have a range of their own for each value of `by`.
    """

    by: Axis
    parts: dict[str, Trials]
    conditional: tuple[str, ...]


def condition(trials: Trials) -> Condition | None:
    """Returns by which choice trials are told apart, None where none varies; one that others depend on comes first."""
    axes = {axis.name: axis for axis in trials.axes if not axis.is_number}
    found = [_by(trials, axes[name]) for name in CHOICES if name in axes]
    return next((each for each in found if each.conditional), found[0] if found else None)


def _by(trials: Trials, by: Axis) -> Condition:
    """Returns the condition of axes that were said to depend on `by`, or do where each value has a full grid."""
    said = {
        name.partition("@")[0] for name in trials.provenance.get("axes") or {} if name.partition("@")[2] in by.values
    }
    parts = {value: within(trials, by, value) for value in by.values}
    gridded = trials.frame["seed"].nunique() > 1 and all(part.complete or not part.axes for part in parts.values())
    differ = [
        axis.name
        for axis in trials.axes
        if axis.name != by.name and len({frozenset(part.frame[axis.name]) for part in parts.values()}) > 1
    ]
    conditional = tuple(name for name in differ if name in said or (gridded and not trials.complete))
    return Condition(by, parts, conditional)


def within(trials: Trials, by: Axis, value: str) -> Trials:
    """Returns the trials with this value of `by`, with the ranges that they have."""
    frame = trials.frame[trials.frame[by.name] == value].reset_index(drop=True)
    made = [make_axis(axis.name, frame[axis.name].tolist(), axis.scale) for axis in trials.axes]
    fixed = {axis.name: axis.values[0] for axis in made if len(axis.values) == 1}
    axes = tuple(axis for axis in made if len(axis.values) > 1)
    return trials._replace(frame=frame, axes=axes, fixed=trials.fixed | fixed)


def by_place(trials: Trials, found: Condition) -> Trials:
    """Returns the trials with the place of a conditional value within its own range, 1 the lowest.

    So the rates of one choice are not taken for rates that others have tried.
    """
    frame, axes = trials.frame.copy(), list(trials.axes)
    for number, axis in enumerate(axes):
        if axis.name in found.conditional:
            ranks = trials.frame.groupby(found.by.name, sort=False)[axis.name].rank(method="dense")
            frame[axis.name] = ranks.astype(int)
            axes[number] = Axis(axis.name, LINEAR, tuple(int(place) for place in np.unique(ranks)))
    return trials._replace(frame=frame, axes=tuple(axis for axis in axes if len(axis.values) > 1))
