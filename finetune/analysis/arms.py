"""Arms: the values of a choice that changes the program, such as `trainable`, each compared at its own best setting."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from finetune.analysis import experiment
from finetune.analysis.condition import Condition
from finetune.analysis.cost import known
from finetune.analysis.evidence import Evidence
from finetune.analysis.finding import count, listed, metric_words, number, percent
from finetune.analysis.setting import Setting, make_settings
from finetune.analysis.table.trials import Axis, Trials

_LEAST_VALUES = 3  # of a range that has an inside
_CHEAPER = 0.95  # share of the best arm's seconds below which another is called cheaper


class Arm(NamedTuple):
    """One value of the choice at the best of its own settings.

    setting: None where no trial has come to a result that counts. settings, trials, lost: how many there were, and came
    to none. behind, low, high: how far the best of its settings lies behind the best of all, with the 95 % interval
    that holds for all arms at once, whichever settings are truly the best; NaN where unknown. tied: whether one of its
    settings may be the best of all. first: whether it has the one with the largest mean.
    trained_parameters, seconds and bytes of a trial: None where unknown. edges: (axis, end) of the best values that lie
    at an end of the arm's own range.
    """

    value: str
    setting: Setting | None
    axes: tuple[Axis, ...]
    settings: int
    trials: int
    lost: int
    behind: float
    low: float
    high: float
    tied: bool
    first: bool
    trained_parameters: float | None
    seconds: float | None
    bytes: float | None
    edges: tuple[tuple[str, str], ...]

    @property
    def worse(self) -> bool:
        """Whether it lies behind the best by more than chance."""
        return not self.first and not self.tied and math.isfinite(self.behind)


class Arms(NamedTuple):
    """The arms, best first; conditional names the axes of which each arm has a range of its own."""

    by: Axis
    conditional: tuple[str, ...]
    arms: tuple[Arm, ...]
    sentences: tuple[str, ...]


def arms(evidence: Evidence) -> Arms | None:
    """Returns the arms of the first choice that varies; None where none does or nothing came to a result."""
    trials, found = evidence.trials, evidence.condition
    if found is None or not evidence.has_results:
        return None
    made = [_arm(evidence, found.by, value, part) for value, part in found.parts.items()]
    sign = 1 if trials.maximize else -1
    made.sort(key=lambda arm: (not arm.first, -sign * arm.setting.mean if arm.setting else math.inf))
    return Arms(found.by, found.conditional, tuple(made), _sentences(trials, found, made))


def _arm(evidence: Evidence, by: Axis, value: str, part: Trials) -> Arm:
    """Returns an arm, as it stands among all settings of the study."""
    stands = evidence.stands
    mine = np.flatnonzero(stands.table[by.name].to_numpy()[stands.order] == by.values.index(value))
    best = make_settings(evidence, stands.order[mine[:1]], len(mine))[0] if len(mine) else None
    if best:
        best = best._replace(values={name: each for name, each in best.values.items() if name != by.name})
    behind = low = high = math.nan
    if best and stands.comparison is not None:
        behind, low, high = stands.comparison.behind_best(mine, len(by.values))
    settings = int((stands.table[by.name] == by.values.index(value)).sum())
    return Arm(
        value,
        best,
        part.axes,
        settings=settings,
        trials=len(part.frame),
        lost=int(part.frame["utility"].isna().sum()),
        behind=behind,
        low=low,
        high=high,
        tied=bool(stands.comparison is not None and stands.comparison.tied[mine].any()),
        first=bool(len(mine) and mine[0] == 0),
        trained_parameters=_mean(part, "trained_parameters"),
        seconds=_mean(part, "seconds"),
        bytes=_mean(part, "bytes"),
        edges=_edges(part.axes, best) if best else (),
    )


def _mean(part: Trials, name: str) -> float | None:
    values = known(part, name)
    return None if values is None else float(np.nanmean(values))


def _edges(axes: Sequence[Axis], best: Setting) -> tuple[tuple[str, str], ...]:
    """Returns (name, end) of each axis whose best value is at an end of several, unless nothing lies beyond."""
    found = []
    for axis in axes:
        if axis.is_number and len(axis.values) >= _LEAST_VALUES:
            for place, end in ((0, "smallest"), (-1, "largest")):
                at_end = best.values[axis.name] == axis.values[place]
                if at_end and experiment.beyond(axis, upward=place == -1):
                    found.append((axis.name, end))
    return tuple(found)


def _sentences(trials: Trials, found: Condition, made: Sequence[Arm]) -> tuple[str, ...]:
    """Says which arm is best, which others may be, what the cheapest of them saves, and what to keep in mind."""
    name, conditional = found.by.name, found.conditional
    best, *others = [arm for arm in made if arm.setting]
    lines = [_ranked(trials, name, best, others)]
    lines += _saved(best, [arm for arm in others if arm.tied])
    edges = [f"{axis} with {arm.value}" for arm in made for axis, _ in arm.edges]
    if edges:
        lines.append(
            f"Not at its best yet, perhaps: {listed(edges)}, where the best value lies at an end of its own range."
        )
    lost = [f"{arm.value} ({arm.lost} of {count(arm.trials, 'trial')})" for arm in made if arm.lost]
    lines += [f"Without a result: {listed(lost)}."] if lost else []
    chosen = f"{listed(conditional)} had a range of its own for each {name}; the best" if conditional else "The best"
    lines.append(
        f"{chosen} setting of each was chosen on the validation split, among "
        f"{_span([arm.settings for arm in made])} settings; the test split had no say in it."
    )
    return tuple(lines)


def _ranked(trials: Trials, name: str, best: Arm, others: Sequence[Arm]) -> str:
    """Says how the arms rank."""
    assert best.setting
    reached = f"{metric_words(trials)} {number(best.setting.mean)}"
    tied = [arm.value for arm in others if arm.tied]
    worse = [f"{arm.value} (by {number(arm.behind)})" for arm in others if arm.worse]
    line = f"Each at its own best setting, {name} {best.value} comes first with {reached}"
    if not others:
        return f"{line}: no other has come to a result."
    if not tied and not worse:
        return f"{line}; nothing was repeated, so luck cannot be told from merit."
    parts = [f"chance may explain how far {listed(tied)} {'lies' if len(tied) == 1 else 'lie'} behind"] if tied else []
    parts += [f"worse by more than chance: {listed(worse)}"] if worse else []
    return f"{line}; {'; '.join(parts)}."


def _saved(best: Arm, tied: Sequence[Arm]) -> list[str]:
    """Says what the cheapest of the arms that may be as good saves."""
    priced = [arm for arm in tied if arm.seconds]
    cheapest = min(priced, key=lambda arm: arm.seconds or 0.0, default=None)
    if cheapest is None or not cheapest.seconds or not best.seconds or cheapest.seconds > _CHEAPER * best.seconds:
        return []
    spent = percent(cheapest.seconds / best.seconds)
    words = f"{cheapest.value}, which may be as good, takes {spent} % of the time of {best.value}"
    if cheapest.trained_parameters and best.trained_parameters:
        ratio = cheapest.trained_parameters / best.trained_parameters
        words += f" and trains {f'{ratio:.2g} times' if ratio > 1 else f'{percent(ratio)} %'} as many parameters"
    return [f"{words}."]


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
