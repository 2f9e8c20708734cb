"""The next experiment: which values an axis lacks, and the command that trains them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetune.analysis.evidence import Evidence
from finetune.analysis.finding import value_words
from finetune.analysis.table.axis import LINEAR, LOG
from finetune.analysis.table.trials import Axis, Trials
from finetune.trials.command import Command, parse, written

_BELOW_ONE = ("dropout", "label_smoothing", "momentum", "beta1", "beta2", "warmup_fraction")
_COUNTS = ("batch_size", "epochs")
_DOUBLED = "batch_size"  # even where two values are too few to see that
_REGULARISERS = {"weight_decay": (0.0, 0.01, 0.1), "dropout": (0.0, 0.1, 0.2), "label_smoothing": (0.0, 0.1)}
_MOST_SETTINGS, _MOST_NAMED = 32, 3  # of one command, and of one line of text
_STEP = 1.5  # a half-decade value this many times the last one is the next, not the same again


def beyond(axis: Axis, upward: bool) -> tuple[float, ...]:
    """Returns the two next values past an end of an axis of numbers, nearest first; fewer where no more are allowed.

    Half-decade steps (1, 3, 10, 30, ...) on a log axis, factors for whole numbers, equal steps on a linear axis.
    """
    positive = [value for value in axis.values if value > 0]
    if axis.scale == LINEAR and axis.name != _DOUBLED:
        return _equal_steps(axis, upward)
    if axis.name in _COUNTS or (all(value == int(value) for value in positive) and positive[-1] > 1):
        return _factors(positive, upward)
    if not upward and len(positive) < len(axis.values):
        return ()  # zero was tried: there is nothing below
    exponents = np.arange(-40, 41)
    lattice = [float(f"{digit}e{exponent}") for exponent in exponents for digit in (1, 3)]
    end = positive[-1] if upward else positive[0]
    found = [value for value in lattice if (value > end * _STEP if upward else value < end / _STEP)]
    return tuple(found[:2] if upward else found[:-3:-1])


def _factors(values: Sequence[float], upward: bool) -> tuple[float, ...]:
    ratios = np.divide(values[1:], values[:-1])
    factor = max(2, round(float(np.median(ratios)))) if len(ratios) else 2
    if upward:
        return int(values[-1] * factor), int(values[-1] * factor**2)
    return tuple(int(value) for value in (values[0] / factor, values[0] / factor**2) if value == int(value))


def _equal_steps(axis: Axis, upward: bool) -> tuple[float, ...]:
    step = float(np.median(np.diff(axis.values)))
    end = axis.values[-1] if upward else axis.values[0]
    found = [float(f"{end + (step if upward else -step) * i:.6g}") for i in (1, 2)]
    below_one = axis.name in _BELOW_ONE or (axis.values[0] >= 0 and axis.values[-1] <= 1)
    found = [value for value in found if value < 1 or not below_one]
    found = [value for value in found if value >= 0 or axis.values[0] < 0]
    if axis.name in _COUNTS:
        return tuple(int(value) for value in found if value >= 1 and value == int(value))
    return tuple(found)


def between(axis: Axis, value: float) -> tuple[float, ...]:
    """Returns the values halfway between `value` and its neighbours on the searched scale, two significant digits."""
    place = axis.values.index(value)
    here = axis.position(value)
    found = []
    for neighbour in (place - 1, place + 1):
        if 0 <= neighbour < len(axis.values):
            middle = axis.at((here + axis.position(axis.values[neighbour])) / 2)
            found.append(round(middle) if axis.name in _COUNTS else float(f"{middle:.2g}"))
    return tuple(each for each in dict.fromkeys(found) if each not in axis.values)


def around(axis: Axis, value: float, lower: bool) -> list[float]:
    """Returns `value` and its neighbours on an axis; if `lower`, `value` and three half-decades below it."""
    if lower:
        single = Axis(axis.name, axis.scale, (value,))
        first = beyond(single, upward=False)
        return sorted([value, *first, *beyond(single._replace(values=first[-1:]), upward=False)[:1]])
    place = axis.values.index(value)
    return list(axis.values[max(0, place - 1) : place + 2])


def first_values(name: str, value: Any) -> list[Any]:
    """Returns the values to start with on an axis that has had only one value."""
    if name in _REGULARISERS:
        return [each for each in _REGULARISERS[name] if each != value]
    if name == "trainable":
        return [each for each in ("last:1", "head") if each != value][:1]
    if name in _COUNTS:
        return sorted({max(1, int(value) // 2), 2 * int(value)})
    return [float(f"{value * factor:.2g}") for factor in (0.1, 0.3, 3, 10)] if value else [1e-4, 1e-3, 1e-2]


def smaller_rates(trials: Trials) -> dict[str, Sequence[float]]:
    """Returns the two half-decades below the smallest learning rate that was tried, as an axis; {} if unknown."""
    fixed = trials.fixed.get("learning_rate", 0)
    axes = [axis for axis in trials.axes if axis.name.rsplit(".")[-1] in ("learning_rate", "lr") and axis.is_number]
    axes += [Axis("learning_rate", LOG, (fixed,))] if isinstance(fixed, int | float) and fixed > 0 else []
    return {axis.name: sorted(values) for axis in axes[:1] if (values := beyond(axis, upward=False))}


def started(trials: Trials) -> Command | None:
    """Returns the command that started the study of these trials; None of a table, and of a study from Python."""
    known = trials.provenance
    if "started_by" in known:
        return Command(**known["started_by"]) if known["started_by"] else None
    return parse(known.get("command") or [])  # a study that was begun before its command was kept in parts


def command(trials: Trials, grid: Mapping[str, Sequence[Any]], seeds: int | None = None) -> str:
    """Returns what to type to train `grid`, with the seeds 0 to `seeds` − 1 or else those of before.

    The command of the study with these axes in place of its own; for a table from elsewhere, the values to try.
    """
    before = started(trials)
    if before is not None and before.search:  # whose ranges are not those of a grid: beside what is varied, the best
        best = trials.settings().iloc[0]
        grid = {axis.name: [axis.values[axis.indices([best[axis.name]])[0]]] for axis in trials.axes} | dict(grid)
    if before is not None:
        return str(before.training(grid, seeds))
    tried = [f"{name} = {', '.join(map(written, values))}" for name, values in grid.items()]
    return "; ".join([*tried, *([f"{seeds} seeds each"] if seeds else [])])


def grid_of(evidence: Evidence, settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Returns the grid that the first of these settings span, as many as make up half of it or more."""
    for some in range(min(len(settings), _MOST_SETTINGS), 0, -1):
        parts = _parts(evidence, settings[:some])
        size = sum(np.prod([len(values) for values in part.values()], dtype=float) for part in parts)
        if size <= max(2 * some, 1):
            return spanned(evidence, settings[:some])
    return {}


def spanned(evidence: Evidence, settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Returns the axes of the smallest grid that holds these settings.

    An axis of which each choice has a range of its own is named as --grid takes it, learning_rate@head, where the
    settings have several choices.
    """
    parts, found = _parts(evidence, settings), evidence.condition
    if len(parts) == 1 or found is None:
        return parts[0]
    whole = _values(evidence.trials.axes, settings)
    grid = {name: values for name, values in whole.items() if name not in found.conditional}
    for part in parts:
        grid |= {f"{name}@{part[found.by.name][0]}": part[name] for name in found.conditional}
    return grid


def _parts(evidence: Evidence, settings: Sequence[Mapping[str, Any]]) -> list[dict[str, list[Any]]]:
    """Returns the axes of the grids that hold these settings, one for each choice that has ranges of its own."""
    axes, found = evidence.trials.axes, evidence.condition
    whole = _values(axes, settings)
    if found is None or not found.conditional:
        return [whole]
    name, parts = found.by.name, []
    for choice in whole[name]:
        part = _values(axes, [each for each in settings if each[name] == choice])
        parts.append(whole | {name: [choice]} | {each: part[each] for each in found.conditional})
    return parts or [whole]


def _values(axes: Sequence[Axis], settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {
        axis.name: [value for value in axis.values if any(each[axis.name] == value for each in settings)]
        for axis in axes
    }


def repeat(evidence: Evidence, settings: Sequence[Mapping[str, Any]], seeds: int) -> str:
    """Returns what to type to train settings with the seeds 0 to `seeds` − 1."""
    trials = evidence.trials
    if started(trials):
        return command(trials, grid_of(evidence, settings), seeds)
    if len(settings) > _MOST_NAMED:
        return f"all {len(settings)} settings that may be the best, with {seeds} seeds each"
    texts = [", ".join(f"{axis.name}={value_words(each[axis.name])}" for axis in trials.axes) for each in settings]
    return f"{' | '.join(texts)}, with {seeds} seeds each"
