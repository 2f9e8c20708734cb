"""Arms side by side: each at its own best, and the metric over the learning rates that each has tried."""

from typing import Any

import altair
import numpy as np
import pandas as pd

from finetune.analysis.answer import Answer
from finetune.analysis.arms import Arms
from finetune.analysis.table.axis import Axis
from finetune.report import scale, theme
from finetune.report.charts import side_by_side
from finetune.report.figure import HEIGHT, Figure, chart_of

_ROW = 26  # pixels of an arm
_MOST = 8  # lines that can be told apart


def figures(answer: Answer) -> list[Figure]:
    """Returns the arms with their intervals and every seed, and a line for each arm over its learning rates."""
    compared = answer.arms
    if compared is None:
        return []
    made = [_ranked(answer, compared), _rates(answer, compared)]
    return [figure for figure in made if figure is not None]


def _ranked(answer: Answer, compared: Arms) -> Figure | None:
    trials = answer.trials
    shown = [(arm, arm.setting) for arm in compared.arms if arm.setting]
    rows = pd.DataFrame(
        {"of": arm.value, "kind": "best" if number == 0 else "tied" if arm.tied else "other", "mean": best.mean,
         "low": best.low, "high": best.high, "n": best.seeds,
         "setting": scale.setting(trials, {**trials.fixed, **best.values})}
        for number, (arm, best) in enumerate(shown)
    )  # fmt: skip
    runs = side_by_side.runs_of(trials, {identity: arm.value for arm, best in shown for identity in best.ids})
    chart = side_by_side.drawn(trials, rows, runs, compared.by.name, _ROW)
    title = f"{compared.by.name}: {shown[0][0].value} comes first, each at its own best setting"
    note = "Mean, 95 % interval, a dot a run. Blue: chance may explain the distance to the first."
    return Figure("arms", "arms", title, note, chart)


def _rates(answer: Answer, compared: Arms) -> Figure | None:
    """Returns the best that each arm reaches at each of the learning rates that it has tried."""
    trials = answer.trials
    axis = next((each for each in trials.axes if each.name.rpartition(".")[2] in ("learning_rate", "lr")), None)
    if axis is None or not axis.is_number or len(compared.arms) > _MOST or len(axis.values) > 4 * _MOST:
        return None
    rows = _best_at(answer, compared, axis)
    form = scale.digits(trials.frame["value"])
    order = [arm.value for arm in compared.arms]
    domain = scale.visible(pd.Series([row["mean"] for row in rows]), trials.maximize)
    # A mark for each arm too, so that a line can be told without its colour.
    arm: dict[str, Any] = {"field": "arm", "type": "nominal", "sort": order, "title": compared.by.name}
    x = scale.of_axis(axis, title=axis.name)
    base = chart_of(rows).encode(x=x, y=scale.of_metric(trials, domain, "mean"), color=altair.Color(**arm))
    lines = base.mark_line(strokeWidth=2, clip=True)
    over = scale.tooltip(
        ("arm", compared.by.name, None), ("setting", axis.name, None), ("mean", "mean", form), ("n", "runs", ".0f")
    )
    dots = base.mark_point(filled=True, size=44, opacity=1, clip=True).encode(
        shape=altair.Shape(**arm, legend=None), tooltip=over
    )
    rings = chart_of([row for row in rows if row["top"]]).mark_point(
        size=150, strokeWidth=2, color=theme.BEST, opacity=1
    )
    rings = rings.encode(x=x, y=scale.of_metric(trials, domain, "mean"))
    note = "The best over the other hyperparameters, a mean over seeds; a ring is an arm's own best."
    if axis.name in compared.conditional:
        note += " Each has tried only the rates that are drawn."
    chart = altair.layer(lines, dots, rings).properties(height=HEIGHT)
    return Figure("arms_rates", "arms", f"Where the best {axis.name} of each {compared.by.name} lies", note, chart)


def _best_at(answer: Answer, compared: Arms, axis: Axis) -> list[dict[str, object]]:
    trials = answer.trials
    settings = trials.settings().dropna(subset=["mean"])
    best = settings.drop_duplicates([compared.by.name, axis.name])  # settings come best first
    sign = 1 if trials.maximize else -1
    tops = {(arm.value, arm.setting.values.get(axis.name)) for arm in compared.arms if arm.setting}
    return [
        {"arm": arm, "x": float(position), "setting": scale.label(axis, value), "mean": sign * mean, "n": int(n),
         "top": (arm, value) in tops}
        for arm, value, position, mean, n in zip(
            best[compared.by.name], best[axis.name], np.asarray(axis.positions(best[axis.name])), best["mean"],
            best["n"], strict=True,
        )
    ]  # fmt: skip
