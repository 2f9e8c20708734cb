"""The headline: at most ten lines that answer the question to somebody who knows nothing of the study."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from finetune.analysis.evidence import Evidence
from finetune.analysis.finding import (
    WARNING,
    Finding,
    count,
    listed,
    metric_words,
    number,
    percent,
    rounded,
    setting_words,
    span,
    value_words,
)
from finetune.analysis.interactions import Shift
from finetune.analysis.points import MEDIAN, Gain, Loss, within
from finetune.analysis.recommendation import Recommendation, Setting
from finetune.analysis.statistics.anova import NOISE, REST, Anova
from finetune.analysis.statistics.decomposition import Share
from finetune.analysis.table.design import ADAPTIVE
from finetune.analysis.table.trials import Trials
from finetune.storage import records

# Kinds of lines, beside those of findings: NOTE and WARNING.
RUN, MATTERED, GOOD, USE, TIED, POINTS, SURE = "run", "mattered", "good", "use", "tied", "points", "sure"
HALVING = "halving"
TOGETHER, NEXT, COMMAND = "together", "next", "command"
_FIRST = ("baseline", "collapsed", "confounded")  # warnings that come before everything else
_LINES = 10
_VISIBLE = 0.005  # share of all differences below which a hyperparameter is said to make none
_MOST_AXES = 3  # named in a line
_FINDINGS = 2  # lines for them
_TOLD = (records.DIVERGED, records.FAILED, "epochs", "edge", "split")  # notes that are worth a line, in this order
_SHIFT = 1.0  # octaves by which a best rate must move to be worth a line
_CHEAPER = 0.95  # share of the cost of the best, below which a setting is called cheaper


class Line(NamedTuple):
    """A line of the headline: its kind, what it is about, what it says of that, and the sign between the two."""

    kind: str
    label: str
    text: str
    sign: str = ":"

    def __str__(self) -> str:
        indent = " " * 4 * (self.kind == COMMAND)  # a command can be told by eye, and copied whole
        return f"{self.label}{self.sign} {self.text}" if self.label else f"{indent}{self.text}"


def headline(
    evidence: Evidence,
    shifts: tuple[Shift, ...],
    findings: tuple[Finding, ...],
    recommendation: Recommendation,
    gained: Gain | None,
    lost: Sequence[Loss],
    worth: float | None = None,
) -> tuple[Line, ...]:
    """Returns at most ten lines: what was run, what mattered, what to use, how sure, what to know, what to try next."""
    lines = [Line(RUN, "", _run(evidence)), *_mattered(evidence), *_use(evidence, recommendation)]
    lines += [*_points(evidence, gained, lost, worth), Line(SURE, "How sure", recommendation.sentence)]
    lines += [Line(HALVING, "Halving", each.sentence) for each in findings if each.kind == records.STOPPED]
    first = [_of(each) for each in findings if each.kind in _FIRST and each.severity == WARNING]
    last = [Line(NEXT, "Try next", recommendation.next_reason)]
    if recommendation.next_command:
        last.append(Line(COMMAND, "", recommendation.next_command))
    room = _LINES - len(lines) - len(first) - len(last)
    more = [*_shifted(shifts), *_told(findings, recommendation.next_reason)[:_FINDINGS]]
    return (lines[0], *first, *lines[1:], *more[: max(room, 0)], *last)


def _run(evidence: Evidence) -> str:
    """Says what was run, and by what it is judged."""
    trials, repeats = evidence.trials, [len(rows) for rows in evidence.stands.rows]
    low, high, trained = min(repeats), max(repeats), sum(repeats)
    each = "trained once each" if high == 1 else f"trained with {count(high, 'seed')} each"
    if low < high:
        each = f"trained with {low} to {high} seeds each"
    aim = "higher" if trials.maximize else "lower"
    settings = f"{count(len(repeats), 'setting')}, {each}" if trained > 1 else "one setting, trained once"
    return f"{count(trained, 'trial')}: {settings}; judged by {metric_words(trials)}, {aim} is better."


def _mattered(evidence: Evidence) -> list[Line]:
    """Says which share of the variance each hyperparameter accounts for, and over which range."""
    trials, whole = evidence.trials, evidence.whole
    varied = [f"{axis.name} ({_range(axis.describe())})" for axis in trials.axes]
    if not varied:
        text = "unknown, since no hyperparameter varied"
    elif trials.design == ADAPTIVE:
        chosen = "trials that were chosen by looking at the results of others"
        text = f"not to be read off {chosen}; varied were {listed(varied)}"
    elif evidence.stands.comparison is not None and not evidence.differ:
        text = f"nothing by more than chance; varied were {listed(varied)}"
    elif whole is None:
        text = f"too few results, or too much alike, to say; varied were {listed(varied)}"
    else:
        text = _shares(whole, evidence.mattered)
    return [Line(MATTERED, "What mattered", f"{text}."), *_mattered_among_good(evidence)]


def _mattered_among_good(evidence: Evidence) -> list[Line]:
    """Says the same of the good settings, where these are fewer."""
    whole, good = evidence.whole, evidence.good
    if whole is None or good is None or good.trials >= whole.trials or good.method != whole.method:
        return []
    if not evidence.differ or not good.evident:
        return []
    ends = [f"{name} {_range(text)}" for name, text in good.ranges.items() if text != whole.ranges.get(name)]
    ends += [f"one {name}" for name in whole.ranges if name not in good.ranges]
    shares = _shares(good._replace(ranges={}), good.evident)
    return [Line(GOOD, f"Among the good settings ({listed(ends)})", f"{shares}.")]


def _range(text: str) -> str:
    """Returns a range without the number of its values."""
    return re.sub(r" \(\d+ values\)$", "", text)


def _shares(anova: Anova, evident: Sequence[Share]) -> str:
    """Returns the shares of the variance in words, largest first; those that chance may explain are named together."""
    seen = [share for share in evident if share.share >= _VISIBLE]
    words: list[str] = []
    for share in seen[:_MOST_AXES]:
        over = _over(anova, share.terms[0]) if len(share.terms) == 1 else ""
        whole = " of the variance" if not words else ""
        words.append(f"{' with '.join(share.terms)}{over} makes {_interval(share, whole)}")
    named = {name for share in evident for name in share.terms}
    silent = [f"{name}{_over(anova, name)}" for name in anova.ranges if name not in named]
    if silent:
        words.append(f"{listed(silent, 'or')} makes none that stands out from chance")
    rest = "interactions or chance, which single runs do not tell apart," if anova.single else "three and more together"
    if anova.method != "exact":
        rest = "not explained, by chance or interaction,"
    names = {NOISE: "chance, from seed to seed,", REST: rest}
    told = [share for share in anova.shares if share.terms in names and share.share >= _VISIBLE]
    told = [share for share in told if share.terms == NOISE or share.evident or anova.single or anova.method != "exact"]
    words += [f"{names[share.terms]} {_interval(share)}" for share in told]
    return "; ".join(words)


def _over(anova: Anova, name: str) -> str:
    return f" ({_range(anova.ranges[name])})" if name in anova.ranges else ""


def _interval(share: Share, whole: str = "") -> str:
    if not np.isfinite([share.low, share.high]).all():
        return f"about {percent(share.share)} %{whole}"
    low, middle, high = (percent(each) for each in (share.low, share.share, share.high))
    return f"{middle} %{whole}" + ("" if low == high else f" ({low} to {high} %)")


def _points(evidence: Evidence, gained: Gain | None, lost: Sequence[Loss], worth: float | None) -> list[Line]:
    """Says in points of the metric what the choice gains, and what is lost with a hyperparameter left as it was."""
    if not evidence.differ:
        return []
    parts = []
    if gained is not None:
        median = f" ({setting_words(evidence.trials, gained.values)})" if gained.against == MEDIAN else ""
        words = f"{rounded(gained.gain, gained.high - gained.low)} ({span(gained.low, gained.high)})"
        parts.append(f"{words} over {gained.against}{median}")
    for each in [each for each in lost if each.low > 0][:_MOST_AXES]:
        words = f"{rounded(each.loss, each.high - each.low)} ({span(each.low, each.high)})"
        parts.append(f"{words} is lost with {each.axis} left at {value_words(each.value)}")
    if worth is not None:
        sure, perhaps = within(evidence, worth)
        parts.append(f"{sure:,} to {perhaps:,} settings lie less than {number(worth)} behind the best")
    return [Line(POINTS, "In points", f"{'; '.join(parts)}.")] if parts else []


def _use(evidence: Evidence, recommendation: Recommendation) -> list[Line]:
    """Says which setting to use, what it reached, and which others may be as good."""
    trials, choice = evidence.trials, recommendation.choice
    if choice is None:
        return [Line(USE, "Use", "nothing yet.")]
    name = setting_words(trials, choice.values) or "the one setting there is"
    if recommendation.best is None:
        why = "the cheapest" if choice is recommendation.cheapest else "the first by what was seen"
        return [Line(USE, "Use: any", f"{name} is {why}, with {_reached(trials, choice)}.", ";")]
    lines = [Line(USE, f"Use: {name}", f"{_reached(trials, choice)}.", ";")]
    if len(recommendation.tied) > 1:
        lines.append(Line(TIED, "As good", f"{_alternatives(evidence, recommendation)}."))
    return lines


def _reached(trials: Trials, setting: Setting) -> str:
    step, once = setting.high - setting.low, "best seen, ran once" if setting.seeds == 1 else ""
    words = f"{metric_words(trials)} {rounded(setting.mean, step)}"
    if np.isfinite(step):
        words += f" ({span(setting.low, setting.high)}, 95 % interval, {once or f'{setting.seeds} seeds'})"
    else:
        words += f", {once or f'mean of {setting.seeds} runs'}"
    if setting.lost:
        words += f", {setting.lost} of its {setting.lost + setting.seeds} runs failed"
    if setting.test is None:
        return words
    half = setting.test_half
    plus_minus = f" ± {rounded(half, half)}" if np.isfinite(half) else ""
    return f"{words}, on the test split {rounded(setting.test, half)}{plus_minus}"


def _alternatives(evidence: Evidence, recommendation: Recommendation) -> str:
    """Returns the range of each axis among the settings that are as good, and the cheapest and most robust of them."""
    trials, tied, found = evidence.trials, recommendation.tied, evidence.condition
    choices = list(found.by.values) if found and found.conditional else [None]
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


def _shifted(shifts: tuple[Shift, ...]) -> list[Line]:
    """Says where the best learning rate depends on another hyperparameter, the clearest case only."""
    clear = [shift for shift in shifts if abs(shift.octaves) >= _SHIFT and shift.evident]
    if not clear:
        return []
    shift = max(clear, key=lambda each: abs(each.octaves))
    values = shift.points["value"].tolist()
    first, last = (values[0], values[-1]) if shift.octaves > 0 else (values[-1], values[0])
    factors = sorted(2 ** abs(octaves) for octaves in (shift.low, shift.high))
    text = (
        f"the best {shift.rate} is {2 ** abs(shift.octaves):.2g} times ({factors[0]:.2g} to {factors[1]:.2g}) as large "
        f"with {shift.by} {value_words(last)} as with {value_words(first)}."
    )
    return [Line(TOGETHER, "Tune together", text)]


def _told(findings: tuple[Finding, ...], said: str) -> list[Line]:
    """Returns the findings that are worth a line of the headline: warnings first."""
    rank = {kind: place for place, kind in enumerate(_TOLD)}
    others = [each for each in findings if each.sentence != said and each.kind not in ("noise", *_FIRST)]
    others = [each for each in others if each.severity == WARNING or each.kind in rank]
    others.sort(key=lambda each: (each.severity != WARNING, rank.get(each.kind, 0)))
    return [_of(each) for each in others]


def _of(finding: Finding) -> Line:
    return Line(finding.severity, finding.severity.capitalize(), finding.sentence)
