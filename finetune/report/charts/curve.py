"""How runs trained: learning curves of all runs and of the chosen setting, and loss on both splits."""

import altair
import numpy as np
import pandas as pd

from finetune.analysis.answer import Answer
from finetune.report import scale, theme
from finetune.report.figure import HEIGHT, Figure, chart_of

_RUNS = 120  # curves drawn
_EPOCHS = 60  # points of a curve
_VALUES = 8  # curves of one chart by value


def figures(answer: Answer) -> list[Figure]:
    """Returns the learning curves, none if the epochs are not known."""
    curves = _thinned(answer.trials.curves)
    if curves.empty:
        return []
    metric = f"val_{answer.trials.metric.removeprefix('val_')}"
    made = [_all_runs(answer, curves, metric), _by_value(answer, curves, metric), _fit(answer, curves)]
    return [figure for figure in made if figure is not None]


def _thinned(curves: pd.DataFrame) -> pd.DataFrame:
    if curves.empty or curves["epoch"].nunique() <= _EPOCHS:
        return curves
    epochs = np.sort(curves["epoch"].unique())
    kept = epochs[np.unique(np.linspace(0, len(epochs) - 1, _EPOCHS).round().astype(int))]
    return curves[curves["epoch"].isin(kept)]


def _chosen(answer: Answer) -> set[str]:
    best = answer.recommendation.best
    return set(best.ids) if best is not None else set()


def _epochs() -> altair.X:
    limits = altair.Scale(nice=False, zero=False)
    return altair.X(
        field="epoch", type="quantitative", title="epoch", scale=limits, axis=altair.Axis(tickMinStep=1, tickCount=8)
    )


def _all_runs(answer: Answer, curves: pd.DataFrame, metric: str) -> Figure | None:
    trials, chosen = answer.trials, _chosen(answer)
    if metric not in curves:
        return None
    shown = set(scale.drawn(trials.frame, _RUNS)["id"]) | chosen
    part = curves[curves["id"].isin(shown)].dropna(subset=[metric])
    if part.empty:
        return None
    rows = pd.DataFrame({"id": part["id"], "epoch": part["epoch"], "y": part[metric]})
    domain = scale.visible(trials.frame["value"], trials.maximize)
    y = scale.of_metric(trials, domain)
    lines = scale.tooltip(
        ("id", "id", None), ("epoch", "epoch", ".0f"), ("y", metric, scale.digits(trials.frame["value"]))
    )
    is_best, leaves = rows["id"].isin(chosen), rows["id"].isin(rows.loc[~rows["y"].between(*sorted(domain)), "id"])
    layers = []
    for colour, width, opacity, clip, kept in (  # drawing a file takes 10 ms for every line that is clipped
        (theme.RUN, 1.0, 0.28, True, ~is_best & leaves),
        (theme.RUN, 1.0, 0.28, False, ~is_best & ~leaves),
        (theme.BEST, 2.0, 0.95, True, is_best & leaves),
        (theme.BEST, 2.0, 0.95, False, is_best & ~leaves),
    ):
        if not kept.any():
            continue
        base = chart_of(rows[kept]).encode(
            x=_epochs(), y=y, detail=altair.Detail(field="id", type="nominal"), tooltip=lines
        )
        layers.append(base.mark_line(color=colour, strokeWidth=width, strokeOpacity=opacity, clip=clip))
    title = "Runs of the best setting reach the top and stay there"
    at = (
        trials.frame.loc[trials.frame["id"].isin(chosen), "best_epoch"] if "best_epoch" in trials.frame else pd.Series()
    )
    if at.notna().any():
        title = f"The best setting peaks at epoch {at.mean():.3g} of {curves['epoch'].max():.0f}"
    note = f"Vermilion: the best setting, a line a seed. Grey: other runs. {scale.drawn_note(trials.frame, _RUNS)}"
    return Figure("curves", "training", title, note.strip(), altair.layer(*layers).properties(height=HEIGHT))


def _by_value(answer: Answer, curves: pd.DataFrame, metric: str) -> Figure | None:
    """Returns the median curve of each value of the hyperparameter that matters most."""
    trials = answer.trials
    sized = [each for each in answer.effects if each.kind == "marginal" and len(each.axis.values) <= _VALUES]
    if metric not in curves or not sized:
        return None
    axis = max(sized, key=lambda each: np.nan_to_num(each.size)).axis
    joined = curves[["id", "epoch", metric]].merge(trials.frame[["id", axis.name]], on="id")
    medians = joined.groupby([axis.name, "epoch"], sort=False)[metric].median().dropna().reset_index()
    if medians.empty:
        return None
    order = [scale.label(axis, value) for value in axis.values]
    rows = pd.DataFrame(
        {"epoch": medians["epoch"], "y": medians[metric], "setting": [scale.label(axis, v) for v in medians[axis.name]]}
    )
    domain = scale.visible(trials.frame["value"], trials.maximize)
    form = scale.digits(trials.frame["value"])
    colour = altair.Color(
        field="setting",
        type="ordinal" if axis.is_number else "nominal",
        sort=order,
        scale=altair.Scale(domain=order, range=theme.steps(len(order), axis.is_number)),
        legend=altair.Legend(title=axis.name, columns=4, symbolType="stroke"),
    )
    lines = scale.tooltip(("setting", axis.name, None), ("epoch", "epoch", ".0f"), ("y", "median", form))
    base = chart_of(rows)
    chart = base.mark_line(strokeWidth=2, clip=True).encode(
        x=_epochs(), y=scale.of_metric(trials, domain), color=colour, tooltip=lines
    )
    title = f"How fast each {axis.name} gets there"
    return Figure(
        "curves_by_value", "training", title, "Median over all runs of a value.", chart.properties(height=HEIGHT)
    )


def _fit(answer: Answer, curves: pd.DataFrame) -> Figure | None:
    """Returns loss on the training and the validation split for the best setting."""
    part = curves[curves["id"].isin(_chosen(answer))]
    names = [name for name in ("train_loss", "val_loss") if name in part and part[name].notna().any()]
    if len(names) < 2:
        return None
    long = part.melt(["id", "epoch"], names, "split", "y").dropna(subset=["y"])
    rows = long.groupby(["split", "epoch"])["y"].agg(["mean", "min", "max"]).reset_index()
    rows["split"] = rows["split"].map({"train_loss": "training", "val_loss": "validation"})
    colour = altair.Color(
        field="split",
        type="nominal",
        scale=altair.Scale(domain=["training", "validation"], range=[theme.RUN, theme.BEST]),
        legend=altair.Legend(title=None, symbolType="stroke"),
    )
    lines = scale.tooltip(("split", "split", None), ("epoch", "epoch", ".0f"), ("mean", "mean loss", ".4f"))
    base = chart_of(rows).encode(x=_epochs(), color=colour)
    ticks = altair.Axis(tickCount=5)
    y = altair.Y(field="mean", type="quantitative", title="loss", axis=ticks, scale=altair.Scale(zero=False))
    band = base.mark_area(fillOpacity=0.18).encode(
        y=altair.Y(field="min", type="quantitative", scale=altair.Scale(zero=False)), y2=altair.Y2(field="max")
    )
    chart = altair.layer(band, base.mark_line(strokeWidth=2).encode(y=y, tooltip=lines)).properties(height=HEIGHT)
    return Figure(
        "fit", "training", _fit_message(part), "The best setting: mean over seeds, band from least to most.", chart
    )


def _fit_message(part: pd.DataFrame) -> str:
    losses = part.groupby("epoch")["val_loss"].mean().dropna()
    if losses.empty or losses.idxmin() == losses.index.max():
        return "Validation loss falls to the last epoch: longer training may help"
    return f"Validation loss is lowest at epoch {losses.idxmin():.0f} of {losses.index.max():.0f}"
