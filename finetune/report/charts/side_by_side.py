"""Settings, arms or studies in rows: the mean of each with its interval, and every run."""

from typing import Any

import altair
import pandas as pd

from finetune.analysis.table.trials import Trials
from finetune.report import scale, theme
from finetune.report.figure import chart_of


def drawn(trials: Trials, rows: pd.DataFrame, runs: pd.DataFrame, name: str, height: int) -> Any:
    """Returns the chart of rows with the columns of, kind (see theme.STANDING), setting, mean, low, high, n (runs).

    runs: of, y (its value), seed, id. name: what `of` is. height: of a row, in pixels.
    """
    form = scale.digits(trials.frame["value"])
    every = pd.concat([runs["y"], rows["mean"], rows["low"], rows["high"]]).astype(float)
    x = scale.of_metric(trials, scale.visible(every, trials.maximize), "mean", altair.X)
    labels = altair.Axis(labelLimit=200, labelColor=theme.INK)
    y = altair.Y(field="of", type="nominal", sort=list(rows["of"]), title=None, axis=labels)
    base = chart_of(rows).encode(y=y, color=scale.colours(theme.STANDING))
    bars = base.mark_rule(strokeWidth=2, clip=True).encode(**scale.interval(x["scale"]))
    lines = scale.tooltip(
        *[("of", name, None)] * (name != "setting"), ("setting", "setting", None), ("mean", "mean", form),
        ("low", "95 %", form), ("high", "to", form), ("n", "runs", ".0f"),
    )  # fmt: skip
    dots = base.mark_point(filled=True, size=60, opacity=1, clip=True).encode(x=x, tooltip=lines)
    each = chart_of(runs).mark_point(size=16, filled=True, color=theme.RUN, opacity=1, fillOpacity=0.6, clip=True)
    over = scale.tooltip(("of", name, None), ("y", trials.metric, form), ("seed", "seed", None), ("id", "id", None))
    points = each.encode(y=y, x=altair.X(field="y", type="quantitative", scale=x["scale"]), tooltip=over)
    return altair.layer(points, bars, dots).properties(height=height * len(rows))


def runs_of(trials: Trials, rows: dict[str, str]) -> pd.DataFrame:
    """Returns the runs with a value of some trials; rows: id -> the row that it is of."""
    runs = trials.frame[trials.frame["id"].isin(rows)].dropna(subset=["value"])
    return pd.DataFrame(
        {"of": runs["id"].map(rows), "y": runs["value"], "id": runs["id"], "seed": runs["seed"].astype(str)}
    )
