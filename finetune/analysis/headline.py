"""The headline: at most ten lines that answer the question to somebody who knows nothing of the study."""

import re
from collections.abc import Sequence

import numpy as np

from finetune import records
from finetune.analysis.anova import NOISE, REST, Anova
from finetune.analysis.condition import condition
from finetune.analysis.decomposition import Share
from finetune.analysis.finding import (
    WARNING,
    Finding,
    count,
    listed,
    metric_words,
    number,
    percent,
    setting_words,
    value_words,
)
from finetune.analysis.interactions import Shift
from finetune.analysis.recommendation import Recommendation, Setting
from finetune.analysis.table import Trials

_LINES = 10
_VISIBLE = 0.005  # share of all differences below which a hyperparameter is said to make none
_MOST_AXES = 3  # named in a line
_FINDINGS = 2  # lines for them
_TOLD = (records.DIVERGED, records.FAILED, "epochs", "edge", "split")  # notes that are worth a line, in this order
_SHIFT = 1.0  # octaves by which a best rate must move to be worth a line
_CHEAPER = 0.95  # share of the cost of the best, below which a setting is called cheaper


def headline(
    trials: Trials,
    whole: Anova | None,
    good: Anova | None,
    shifts: tuple[Shift, ...],
    findings: tuple[Finding, ...],
    recommendation: Recommendation,
) -> tuple[str, ...]:
    """Returns at most ten lines: what was run, what mattered, what to use, how sure, what to know, what to try next."""
    lines = [_run(trials), *_mattered(trials, whole, good, recommendation), *_use(trials, recommendation)]
    lines.append(f"How sure: {recommendation.sentence}")
    last = [f"Try next: {recommendation.next_reason}"]
    if recommendation.next_command:
        last.append(f"    {recommendation.next_command}")
    room = _LINES - len(lines) - len(last)
    more = [*_shifted(shifts), *_told(findings, recommendation.next_reason)[:_FINDINGS]]
    return (*lines, *more[:room], *last)


def _run(trials: Trials) -> str:
    """Says what was run, and by what it is judged."""
    trained = len(trials.frame)
    settings = len(trials.frame[trials.names].drop_duplicates()) if trials.axes else 1
    seeds = trained / settings
    each = "trained once each" if seeds == 1 else f"trained with {count(int(seeds), 'seed')} each"
    if seeds != int(seeds):
        each = f"trained with {seeds:.1f} seeds each on average"
    aim = "higher" if trials.maximize else "lower"
    settings_words = f"{count(settings, 'setting')}, {each}" if trained > 1 else "one setting, trained once"
    return f"{count(trained, 'trial')}: {settings_words}; judged by {metric_words(trials)}, {aim} is better."


def _mattered(trials: Trials, whole: Anova | None, good: Anova | None, recommendation: Recommendation) -> list[str]:
    """Says which share of all differences each hyperparameter accounts for, and over which range."""
    varied = [f"{axis.name} ({_range(axis.describe())})" for axis in trials.axes]
    if not varied:
        return ["What mattered: unknown, since no hyperparameter varied."]
    if recommendation.best is None and recommendation.tied:
        return [f"What mattered: nothing by more than chance; varied were {listed(varied)}."]
    if whole is None:
        return [f"What mattered: too few results, or too much alike, to say; varied were {listed(varied)}."]
    shares = _shares(whole, {name: f" ({_range(text)})" for name, text in whole.ranges.items()})
    lines = [f"What mattered: {shares.replace(' %', ' % of all differences', 1)}."]
    if good is not None and good.trials < whole.trials and good.method == whole.method:
        cut = [f"{name} {_range(text)}" for name, text in good.ranges.items() if text != whole.ranges.get(name)]
        cut += [f"one {name}" for name in whole.ranges if name not in good.ranges]
        lines.append(f"Among the good settings ({listed(cut)}): {_shares(good, {})}.")
    return lines


def _range(text: str) -> str:
    """Returns a range without the number of its values."""
    return re.sub(r" \(\d+ values\)$", "", text)


def _shares(anova: Anova, ranges: dict[str, str]) -> str:
    """Returns the shares in words, largest first; those that chance may explain are named together."""
    found = [share for share in anova.shares if share.terms not in (NOISE, REST)]
    seen = [share for share in found if share.share >= _VISIBLE and share.low > 0]
    words = []
    for share in seen[:_MOST_AXES]:
        over = ranges.get(share.terms[0], "") if len(share.terms) == 1 else ""
        words.append(f"{' with '.join(share.terms)}{over} makes {_interval(share)}")
    named = {name for share in seen for name in share.terms}
    silent = [f"{name}{ranges.get(name, '')}" for name in anova.ranges if name not in named]
    if silent:
        words.append(f"{listed(silent, 'or')} makes none that stands out from chance")
    names = {NOISE: "chance, from seed to seed,", REST: "several together"}
    words += [f"{names[share.terms]} {_interval(share)}" for share in anova.shares if share.terms in names]
    return "; ".join(words)


def _interval(share: Share) -> str:
    if not np.isfinite([share.low, share.high]).all():
        return f"{percent(share.share)} %"
    return f"{percent(share.share)} % ({percent(share.low)} to {percent(share.high)} %)"


def _use(trials: Trials, recommendation: Recommendation) -> list[str]:
    """Says which setting to use, what it reached, and which others are as good."""
    best = recommendation.best
    if best is None:
        nothing = "whatever is cheapest or simplest: no setting stands out" if recommendation.tied else "nothing yet"
        return [f"Use: {nothing}."]
    name = setting_words(trials, best.values) or "the one setting there is"
    lines = [f"Use: {name}; {_reached(trials, best)}."]
    if len(recommendation.tied) > 1:
        lines.append(f"As good: {_alternatives(trials, recommendation)}.")
    return lines


def _reached(trials: Trials, setting: Setting) -> str:
    interval = f" ({number(setting.low)} to {number(setting.high)}, 95 % interval from {setting.seeds} seeds)"
    words = f"{metric_words(trials)} {number(setting.mean)}{interval if np.isfinite(setting.low) else ' in one run'}"
    if setting.test is None:
        return words
    plus_minus = f" ± {number(setting.test_half)}" if np.isfinite(setting.test_half) else ""
    return f"{words}, on the test split {number(setting.test)}{plus_minus}"


def _alternatives(trials: Trials, recommendation: Recommendation) -> str:
    """Returns the range of each axis among the settings that are as good, and the cheapest and most robust of them."""
    tied = recommendation.tied
    found = condition(trials)
    choices = list(found.by.values) if found and found.own else [None]
    parts = []
    for choice in choices:
        some = [each for each in tied if choice is None or (found and each.values[found.by.name] == choice)]
        parts += [_taken(trials, some)] if some else []
    words = f"{count(len(tied) - 1, 'other setting')} with {', or with '.join(parts)}"
    cheapest, robust = recommendation.cheapest, recommendation.robust
    if cheapest is not None and cheapest.cost and tied[0].cost and cheapest.cost < _CHEAPER * tied[0].cost:
        share = percent(cheapest.cost / tied[0].cost)
        words += f"; the cheapest is {setting_words(trials, cheapest.values)}, at {share} % of the cost"
    if robust is not None and robust is not tied[0]:
        words += f"; with most room for error around it: {setting_words(trials, robust.values)}"
    return words


def _taken(trials: Trials, settings: Sequence[Setting]) -> str:
    """Returns the range of each axis among some settings."""
    parts = []
    for axis in trials.axes:
        taken = {each.values[axis.name] for each in settings}
        values = [value_words(value) for value in axis.values if value in taken]
        span = f"{values[0]} to {values[-1]}" if axis.is_number and len(values) > 2 else listed(values[:6], "or")
        parts.append(f"{axis.name} {span}")
    return ", ".join(parts)


def _shifted(shifts: tuple[Shift, ...]) -> list[str]:
    """Says where the best learning rate depends on another hyperparameter, the clearest case only."""
    clear = [shift for shift in shifts if abs(shift.octaves) >= _SHIFT and shift.low * shift.high > 0]
    if not clear:
        return []
    shift = max(clear, key=lambda each: abs(each.octaves))
    values = shift.points["value"].tolist()
    first, last = (values[0], values[-1]) if shift.octaves > 0 else (values[-1], values[0])
    factors = sorted(2 ** abs(octaves) for octaves in (shift.low, shift.high))
    return [
        f"Tune together: the best {shift.rate} is {2 ** abs(shift.octaves):.2g} times ({factors[0]:.2g} to "
        f"{factors[1]:.2g}) as large with {shift.by} {value_words(last)} as with {value_words(first)}."
    ]


def _told(findings: tuple[Finding, ...], said: str) -> list[str]:
    """Returns the findings that are worth a line of the headline: warnings first."""
    rank = {kind: place for place, kind in enumerate(_TOLD)}
    others = [each for each in findings if each.sentence != said and each.kind != "noise"]
    others = [each for each in others if each.severity == WARNING or each.kind in rank]
    others.sort(key=lambda each: (each.severity != WARNING, rank.get(each.kind, 0)))
    return [f"{'Warning' if each.severity == WARNING else 'Note'}: {each.sentence}" for each in others]
