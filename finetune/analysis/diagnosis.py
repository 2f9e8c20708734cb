"""Diagnosis of a search, by the questions of the Deep Learning Tuning Playbook: each answer a sentence with numbers."""

from collections.abc import Mapping, Sequence

import numpy as np

from finetune.analysis import experiment
from finetune.analysis.evidence import Evidence
from finetune.analysis.finding import NOTE, WARNING, Finding, count, listed, number, percent, value_words
from finetune.analysis.learning_curves import diagnose_training
from finetune.analysis.standing import Standing, standing
from finetune.analysis.table.axis import MANY
from finetune.analysis.table.trials import Axis, Trials
from finetune.analysis.trust import against_baseline, agreement, collapsed, confounded, split_error
from finetune.storage import records

__all__ = ["Finding", "diagnose"]

SEEDS = 3  # the fewest that say something about noise
_LEAST_VALUES = 4  # of an axis that can be too coarse near its best
_LEAST_SETTINGS = 20  # of a random search that can have its best at an edge
_LEAST_TRIALS = 50  # of a random search whose best tenth can be counted
_FLAT = 0.8  # share of an axis that settings near the best take if it makes no difference
_OUTER = 0.05  # share of a sampled axis that is its edge


def diagnose(evidence: Evidence) -> tuple[Finding, ...]:
    """Returns what is worth knowing about a search, warnings first."""
    trials, stands = evidence.trials, evidence.stands
    found = [*_lost(trials), *_stopped(trials), *collapsed(evidence), *confounded(trials)]
    if len(stands.order):
        found += [
            *against_baseline(evidence),
            *_noise(evidence),
            *_edges(trials, stands, leave_out=evidence.conditional),
            *_edges_of_choices(evidence),
            *_cliffs(trials, stands),
            *_coverage(evidence),
            *diagnose_training(evidence),
            *split_error(trials, stands),
            *agreement(evidence),
        ]
    return tuple(sorted(found, key=lambda finding: finding.severity != WARNING))


def _lost(trials: Trials) -> list[Finding]:
    """Says how many trials diverged or failed, and where."""
    status = trials.frame["status"].to_numpy()
    found = []
    for kind, words in ((records.DIVERGED, "diverged"), (records.FAILED, "came to no result")):
        lost = status == kind
        if not lost.any():
            continue
        place = "" if lost.all() else _where(trials, lost)
        sentence = f"{lost.sum():,} of {count(len(lost), 'trial')} ({percent(lost.mean())} %) {words}{place}."
        if lost.all():
            grid = experiment.smaller_rates(trials)
            sentence += " Smaller learning rates may not." if grid else ""
            found.append(Finding(kind, WARNING, sentence, None, experiment.command(trials, grid) if grid else None))
        else:
            found.append(Finding(kind, WARNING if lost.mean() > 0.5 else NOTE, sentence))
    return found


def _stopped(trials: Trials) -> list[Finding]:
    """Says how many trials were stopped on their way, and how often that was wrong."""
    stops = trials.stops
    if stops is None:
        return []
    words = f"{stops.stopped:,} of {count(stops.trials, 'trial')} were stopped on their way"
    if not stops.spared:
        return [Finding(records.STOPPED, NOTE, f"{words}; how often that was wrong is unknown without a control.")]
    low, high = stops.interval
    were = "was" if stops.spared == 1 else "were"
    sentence = (
        f"{words}. Of the {stops.spared:,} that would have been and {were} not, as a control, {stops.wrong:,} ended "
        f"better than the best that went on: {percent(low)} to {percent(high)} % of stops are wrong."
    )
    return [Finding(records.STOPPED, NOTE, sentence)]


def _where(trials: Trials, lost: np.ndarray) -> str:
    """Returns the axis values at which most were lost, as the end of a sentence; "" if it happened everywhere."""
    best: tuple[float, str] = (0.5, "")
    for axis in trials.axes:
        bins = axis.bins(trials.frame[axis.name].to_numpy())
        values = sorted(set(bins), key=axis.position)
        shares = np.array([lost[bins == value].mean() for value in values])
        contrast = float(shares.max() - shares.min())
        most = [value for value, share in zip(values, shares, strict=True) if share >= shares.max() / 2]
        if contrast > best[0]:
            inside = np.isin(bins, np.array(most, bins.dtype))
            words = _span(axis, most, values)
            best = contrast, f", {lost[inside].sum():,} of them among the {inside.sum():,} with {axis.name} {words}"
    return best[1]


def _span(axis: Axis, some: list, values: list) -> str:
    """Returns `0.1 and above`, `0.001 and below` or the values one by one."""
    if axis.is_number and len(some) < len(values):
        if some == values[-len(some) :]:
            return f"{value_words(some[0])}{' and above' if len(some) > 1 else ''}"
        if some == values[: len(some)]:
            return f"{value_words(some[-1])}{' and below' if len(some) > 1 else ''}"
    return listed([value_words(value) for value in some[:6]], "or")


def _noise(evidence: Evidence) -> list[Finding]:
    """Says whether differences are larger than seed noise."""
    trials, stands, compared = evidence.trials, evidence.stands, evidence.stands.comparison
    if len(stands.order) < 2:
        return []
    if compared is None:
        command = experiment.repeat(evidence, [stands.values(trials, place) for place in stands.order[:3]], SEEDS)
        if len(stands.table) <= 30 and experiment.started(trials):
            command = experiment.command(trials, {}, SEEDS)
        sentence = (
            f"All {count(len(stands.table), 'setting')} ran once, so the best may have been lucky: "
            "repeat the best with other seeds."
        )
        return [Finding("noise", WARNING, sentence, "seed", command)]
    means = stands.table["mean"].to_numpy()[stands.order]
    words = (
        f"The same setting moves by {number(compared.deviation)} from seed to seed (standard deviation, near the "
        f"best); the best and the worst setting are {number(means.max() - means.min())} apart"
    )
    if compared.evident:
        return [Finding("noise", NOTE, f"{words}: more than chance.")]
    return [Finding("noise", WARNING, f"{words}: chance alone explains that.", "seed")]


def _edges_of_choices(evidence: Evidence) -> list[Finding]:
    """Says the same of axes that have a range of their own for each choice, choice by choice; the best one warns."""
    stands, condition, found = evidence.stands, evidence.condition, []
    if condition is None or not condition.conditional:
        return []
    name = condition.by.name
    leader = stands.values(evidence.trials, int(stands.order[0]))[name]
    for value, part in condition.parts.items():
        others = tuple(axis.name for axis in part.axes if axis.name not in condition.conditional)
        of_part = standing(part)
        for each in _edges(part, of_part, others, {name: [value]}) if len(of_part.order) else ():
            sentence = f"With {name} {value}: {each.sentence[0].lower()}{each.sentence[1:]}"
            found.append(each._replace(sentence=sentence, severity=each.severity if value == leader else NOTE))
    return found


def _edges(
    trials: Trials, stands: Standing, leave_out: Sequence[str] = (), beside: Mapping[str, Sequence[str]] | None = None
) -> list[Finding]:
    """Says which axes have their best at an end of what was searched, with the values that lie beyond."""
    found = []
    for axis in trials.axes:
        if axis.name in leave_out:
            continue
        if not axis.is_number or (stands.comparison is not None and not stands.comparison.evident):
            continue
        if len(axis.values) == len(stands.table) < _LEAST_SETTINGS and len(trials.axes) > 1:
            continue  # a few settings drawn at random: each value has been tried once, with others beside it
        ends, near = axis.positions((axis.values[0], axis.values[-1])), stands.table[axis.name].to_numpy()[stands.near]
        positions = axis.positions([axis.values[place] for place in near])
        sampled, span = len(axis.values) > MANY, ends[1] - ends[0]
        taken = np.ptp(positions) / span if sampled else len(np.unique(near)) / len(axis.values)
        if taken >= _FLAT:
            continue
        margin = _OUTER * span if sampled else 0.0
        inside = (ends[0] + margin < positions) & (positions < ends[1] - margin)
        for upward in (True, False):
            values, distance = experiment.beyond(axis, upward), abs(positions[0] - ends[int(upward)])
            if distance <= margin and values:
                grid = {**(beside or {}), axis.name: sorted(values)}
                found.append(_edge(axis, upward, values, not inside.any(), experiment.command(trials, grid)))
    return found


def _edge(axis: Axis, upward: bool, values: tuple[float, ...], alone: bool, command: str) -> Finding:
    """Returns the finding of a best value at an end; `alone` if no value further inside is as good."""
    end = value_words(axis.values[-1 if upward else 0])
    words = f"The best {axis.name}, {end}, is the {'largest' if upward else 'smallest'} that was tried"
    if len(axis.values) > MANY:
        words = f"The best {axis.name} lies at the {'upper' if upward else 'lower'} end of the range, {end}"
    if not alone:
        return Finding("edge", NOTE, f"{words}; values further inside are as good.", axis.name)
    sentence = f"{words}; {listed([value_words(value) for value in values], 'or')} may be better."
    return Finding("edge", WARNING, sentence, axis.name, command)


def _cliffs(trials: Trials, stands: Standing) -> list[Finding]:
    """Says where one step from the best setting, other axes as they are, trials came to no result."""
    best, found = int(stands.order[0]), []
    diverged = (trials.frame["status"] == records.DIVERGED).to_numpy()
    places = stands.table[trials.names].to_numpy() - stands.table[trials.names].to_numpy()[best]  # steps from the best
    for axis, away in zip(trials.axes, places.T, strict=True):
        if not axis.is_number or len(axis.values) > MANY:
            continue
        for step, word in ((1, "above"), (-1, "below")):
            beside = np.flatnonzero((away == step) & ((places != 0).sum(1) == 1))
            rows = [row for setting in beside for row in stands.rows[setting]]
            if lost := int(sum(diverged[row] for row in rows)):
                value = value_words(axis.values[stands.table[axis.name].iat[best] + step])
                words = f"{lost} of {count(len(rows), 'trial')} diverged: the range ends there."
                sentence = f"One step {word} the best {axis.name}, at {value}, {words}"
                found.append(Finding("diverged", NOTE, sentence, axis.name))
    return found


def _coverage(evidence: Evidence) -> list[Finding]:
    """Says where only one value of an axis is good, so that a better one may lie between it and its neighbours."""
    trials, stands, compared = evidence.trials, evidence.stands, evidence.stands.comparison
    if compared is None:
        good = len(stands.near)
        if len(stands.order) < _LEAST_TRIALS or all(len(axis.values) <= MANY for axis in trials.axes):
            return []
        return [Finding("coverage", NOTE, f"{good} of {len(stands.order):,} trials make up the best tenth.")]
    if not compared.evident:
        return []
    found = []
    for axis in trials.axes:
        if axis.name in evidence.conditional:
            continue  # what lies beside a value is of another choice
        places = np.unique(stands.table[axis.name].to_numpy()[stands.tied])
        inside = 0 < places[0] < len(axis.values) - 1
        if not axis.is_number or not _LEAST_VALUES <= len(axis.values) <= MANY or len(places) > 1 or not inside:
            continue
        value = axis.values[places[0]]
        if values := experiment.between(axis, value):
            sentence = (
                f"Of {len(axis.values)} values of {axis.name} only {value_words(value)} is among the best: "
                f"{listed([value_words(each) for each in values], 'or')} beside it may be better."
            )
            grid = experiment.grid_of(evidence, [stands.values(trials, place) for place in stands.tied])
            command = experiment.command(trials, grid | {axis.name: sorted(values)})
            found.append(Finding("coverage", NOTE, sentence, axis.name, command))
    return found
