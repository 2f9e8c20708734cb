"""How sure the best is: the best settings with every seed, and what more trials would have brought."""

import altair
import numpy as np
import pandas as pd

from finetune.analysis.answer import Answer
from finetune.analysis.setting import make_settings
from finetune.report import scale, theme
from finetune.report.charts import side_by_side
from finetune.report.figure import HEIGHT, Figure, chart_of

_SETTINGS = 16  # best settings drawn
_ROW = 22  # pixels of a setting
_NEARLY = 0.05  # of the gain that is left


def figures(answer: Answer) -> list[Figure]:
    """Returns the best settings with their intervals and every seed, and the expected best of n trials."""
    made = [_settings(answer), _best_of_n(answer)]
    return [figure for figure in made if figure is not None]


def _settings(answer: Answer) -> Figure | None:
    trials, stands = answer.trials, answer.evidence.stands
    if not len(stands.order) or not trials.axes:
        return None
    shown = make_settings(answer.evidence, stands.order[:_SETTINGS])
    sign = 1 if trials.maximize else -1
    worst = min(scale.visible(pd.Series([sign * each.mean for each in shown]), True))
    shown = tuple(each for each in shown if sign * each.mean >= worst)
    names = [scale.setting(trials, each.values) for each in shown]
    tied = {scale.setting(trials, each.values) for each in answer.recommendation.tied}
    best = answer.recommendation.best
    top = scale.setting(trials, best.values) if best else ""
    kinds = ["best" if name == top else "tied" if name in tied else "other" for name in names]
    rows = pd.DataFrame(
        {"of": name, "setting": name, "kind": kind, "mean": each.mean, "low": each.low, "high": each.high,
         "n": each.seeds}
        for name, kind, each in zip(names, kinds, shown, strict=True)
    )  # fmt: skip
    of = {identity: name for name, each in zip(names, shown, strict=True) for identity in each.ids}
    chart = side_by_side.drawn(trials, rows, side_by_side.runs_of(trials, of), "setting", _ROW)
    title = f"{len(tied)} settings may be the best" if len(tied) > 1 else "One setting is best, with 95 % confidence"
    if tied and not answer.evidence.stands.evident:
        title = "No setting is better than another by more than chance"
    if not tied:
        title = "The best settings seen; none was repeated, so the first may have been lucky"
    note = (
        f"{' · '.join(axis.name for axis in trials.axes)}: mean, 95 % interval, a dot a run. Blue: may be the best too."
    )
    return Figure("settings", "certainty", title, note, chart)


def _best_of_n(answer: Answer) -> Figure | None:
    trials, table = answer.trials, answer.recommendation.best_of_n
    if table is None or len(table) < 2:
        return None
    form = scale.digits(trials.frame["value"])
    base = chart_of(table[["n", "expected", "low", "high"]])
    places = altair.Axis(values=scale.round_numbers(1, float(table["n"].max())), format=",.0f", labelOverlap="greedy")
    limits = altair.Scale(type="log", nice=False)
    x = altair.X(field="n", type="quantitative", title="trials drawn at random", scale=limits, axis=places)
    low, high = table["expected"].min(), table["expected"].max()
    margin = 0.1 * (high - low) or 0.01
    y_scale = altair.Scale(domain=[low - margin, high + margin], zero=False, nice=False)
    ticks = altair.Axis(tickCount=5, format=scale.ticks(form))
    title = f"best {scale.metric_name(trials)}"
    y = altair.Y(field="expected", type="quantitative", title=title, scale=y_scale, axis=ticks)
    lines = scale.tooltip(
        ("n", "trials", ".0f"), ("expected", "expected best", form), ("low", "from", form), ("high", "to", form)
    )
    band = base.mark_area(color=theme.ACCENT, fillOpacity=0.18, clip=True).encode(x=x, **scale.interval(y_scale, "y"))
    line = base.mark_line(color=theme.ACCENT, strokeWidth=2.2, clip=True).encode(x=x, y=y)
    dots = base.mark_point(filled=True, color=theme.ACCENT, size=26, opacity=1).encode(x=x, y=y, tooltip=lines)
    chart = altair.layer(band, line, dots).properties(height=HEIGHT)
    return Figure(
        "best_of_n",
        "certainty",
        _best_message(table),
        "Mean of the best of n trials; 90 % of draws lie in the band.",
        chart,
    )


def _best_message(table: pd.DataFrame) -> str:
    """Returns how many trials bring nearly all of what the whole search brought."""
    first, last = table["expected"].iloc[0], table["expected"].iloc[-1]
    near = table[np.abs(table["expected"] - last) <= _NEARLY * abs(last - first)]
    return (
        f"{near['n'].iloc[0]:,.0f} random trials would have brought 95 % of the gain of all {table['n'].iloc[-1]:,.0f}"
    )
