"""Studies side by side: the best of each, runs in pairs, and each hyperparameter's effect in all of them."""

import altair
import numpy as np
import pandas as pd

from finetune.analysis.effects import Effect
from finetune.analysis.table.axis import Axis
from finetune.report import scale, theme
from finetune.report.charts import side_by_side
from finetune.report.comparison import Comparison, Pairs
from finetune.report.figure import HEIGHT, Figure, chart_of

_PAIRS = 1500  # drawn in one chart
_ROW = 34  # pixels of a study


def figures(compared: Comparison) -> list[Figure]:
    """Returns the charts of a comparison."""
    pairs = [_paired(compared, each) for each in compared.pairs if len(each.frame)]
    return [*_best(compared), *pairs, *_effects(compared)]


def _colour(compared: Comparison) -> altair.Color:
    names = list(compared.names)
    colours = altair.Scale(domain=names, range=theme.steps(len(names), ordered=False))
    legend = altair.Legend(title=None, labelLimit=260, columns=3)
    return altair.Color(field="study", type="nominal", scale=colours, legend=legend)


def _best(compared: Comparison) -> list[Figure]:
    trials = compared.answers[0].trials
    studies = zip(compared.names, compared.answers, strict=True)
    shown = [(name, each.trials, best) for name, each in studies if (best := each.recommendation.best) is not None]
    if not shown:
        return []
    rows = pd.DataFrame(
        {"of": name, "kind": "tied", "mean": best.mean, "low": best.low, "high": best.high,
         "n": best.seeds, "setting": scale.setting(of, best.values)}
        for name, of, best in shown
    )  # fmt: skip
    runs = pd.concat([side_by_side.runs_of(of, dict.fromkeys(best.ids, name)) for name, of, best in shown])
    chart = side_by_side.drawn(trials, rows, runs, "study", _ROW)
    note = "Mean of the best setting over its seeds, 95 % interval, a dot a run."
    return [Figure("best_of_each", "studies", "The best setting of each study", note, chart)]


def _paired(compared: Comparison, pairs: Pairs) -> Figure:
    trials = compared.answers[0].trials
    frame = pairs.frame if len(pairs.frame) <= _PAIRS else pairs.frame.sample(_PAIRS, random_state=0)
    every = pd.concat([frame["first"], frame["other"]])
    low, high = scale.visible(every, trials.maximize)
    limits = altair.Scale(domain=[low, high], nice=False, zero=False)
    ticks = altair.Axis(tickCount=5, format=scale.ticks(scale.digits(every)))
    x = altair.X(field="first", type="quantitative", title=compared.names[0], scale=limits, axis=ticks)
    y = altair.Y(field="other", type="quantitative", title=pairs.other, scale=limits, axis=ticks)
    form = scale.digits(every)
    lines = scale.tooltip(
        ("id", f"id in {compared.names[0]}", None), ("first", compared.names[0], form), ("other", pairs.other, form)
    )
    points = chart_of(frame).mark_point(
        filled=True, size=26, opacity=1, fillOpacity=0.55, color=theme.ACCENT, clip=True
    )
    ends = chart_of([{"first": low, "other": low}, {"first": high, "other": high}])
    equal = ends.mark_line(color=theme.MUTED, strokeDash=[4, 3], strokeWidth=1.2)
    chart = altair.layer(equal.encode(x=x, y=y), points.encode(x=x, y=y, tooltip=lines)).properties(height=HEIGHT + 60)
    better = "above" if trials.maximize else "below"
    higher = np.mean((pairs.frame["other"] > pairs.frame["first"]) == trials.maximize)
    note = f"Same {pairs.by}; {better} the line {pairs.other} is better."
    title = f"{pairs.other} lies ahead in {100 * higher:.0f} % of {len(pairs.frame):,} pairs"
    if not pairs.low * pairs.high > 0:
        title += ", which chance may explain"
    return Figure(f"pairs_{pairs.other}", "studies", title, note, chart)


def _effects(compared: Comparison) -> list[Figure]:
    """Returns one chart for each axis of numbers that at least two studies have."""
    known: dict[str, list[tuple[str, Effect]]] = {}
    for name, answer in zip(compared.names, compared.answers, strict=True):
        for effect in answer.effects:
            if effect.kind == "isolated" and effect.axis.is_number:
                known.setdefault(effect.axis.name, []).append((name, effect))
    return [_effect(compared, axis, each) for axis, each in known.items() if len(each) > 1]


def _effect(compared: Comparison, name: str, effects: list[tuple[str, Effect]]) -> Figure:
    trials = compared.answers[0].trials
    values = sorted({value for _, effect in effects for value in effect.axis.values})
    axis = Axis(name, effects[0][1].axis.scale, tuple(values))
    rows = pd.concat([effect.points.assign(study=study) for study, effect in effects]).dropna(subset=["mean"])
    rows["x"], rows["y"] = axis.positions(rows["value"]), rows["mean"]
    rows["setting"] = [scale.label(axis, value) for value in rows["value"]]
    domain = scale.visible(rows["mean"], trials.maximize)
    form = scale.digits(trials.frame["value"])
    lines = scale.tooltip(("study", "study", None), ("setting", name, None), ("y", "best over the others", form))
    base = chart_of(rows[["study", "x", "y", "low", "high", "setting"]])
    base = base.encode(x=scale.of_axis(axis, title=name), color=_colour(compared))
    y = scale.of_metric(trials, domain)
    band = base.mark_area(fillOpacity=0.15, clip=True).encode(**scale.interval(y["scale"], "y"))
    line = base.mark_line(strokeWidth=2.2, clip=True).encode(y=y)
    dots = base.mark_point(filled=True, size=40, opacity=1, clip=True).encode(y=y, tooltip=lines)
    chart = altair.layer(band, line, dots).properties(height=HEIGHT)
    return Figure(f"compared_{name}", "studies", f"{name} in each study", "Best over the others, 95 % band.", chart)
