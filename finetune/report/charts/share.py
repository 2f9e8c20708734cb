"""What mattered: the share of each hyperparameter, of pairs and of chance in what differs between runs."""

import altair
import numpy as np

from finetune.analysis.answer import Answer
from finetune.analysis.statistics.anova import Anova, Share
from finetune.report import scale, theme
from finetune.report.figure import Figure, chart_of

_BARS = 10  # shares drawn; smaller ones are left out
_SMALL = 0.095  # share below which a decimal is shown
_DRAWN = 0.005  # share of a pair below which it is left out
_ROW = 30  # pixels of a bar
_REGIONS = {"all": "over all runs", "good": "among the good values"}


def figures(answer: Answer) -> list[Figure]:
    """Returns the shares over the whole range and over the good region, where they could be had."""
    whole, good, evidence = answer.anova, answer.good_anova, answer.evidence
    made = [_figure(whole, evidence.mattered)] if whole is not None else []
    if good is not None and evidence.differ:
        made.append(_figure(good, good.evident))
    return made


def term(terms: tuple[str, ...]) -> str:
    """Returns the name of a share."""
    if not terms:
        return "chance (seeds)"
    return "not explained" if terms == ("*",) else " × ".join(terms)


def percent(share: float) -> str:
    """Returns a share in percent."""
    return f"{100 * share:.1f} %" if 0 < share < _SMALL else f"{100 * share:.0f} %"


def message(anova: Anova, mattered: tuple[Share, ...]) -> str:
    """Returns what the shares say, of those that differ from chance (`mattered`)."""
    where = _REGIONS[anova.region]
    if not mattered:
        return f"No hyperparameter is shown to matter {where}"
    first, *others = mattered
    text = f"{term(first.terms)} explains {percent(first.share)} of the variance {where}"
    return text + (f", {term(others[0].terms)} {percent(others[0].share)}" if others else "")


def _method(anova: Anova) -> str:
    return "Exact decomposition" if anova.method == "exact" else anova.method[:1].upper() + anova.method[1:]


def _figure(anova: Anova, mattered: tuple[Share, ...]) -> Figure:
    drawn = [each for each in anova.shares if each.share >= _DRAWN or len(each.terms) < 2]
    rows = [
        {
            "term": term(each.terms),
            "share": each.share,
            "low": each.low,
            "high": each.high,
            "text": percent(each.share),
            "range": anova.ranges.get(each.terms[0], "") if len(each.terms) == 1 else "",
            "kind": "axis" if each in mattered else "chance",
            "end": float(np.nanmax([each.share, each.high])),
        }
        for each in drawn[:_BARS]
    ]
    for row in rows:
        row["label"] = f"{row['term']}|{row['range']}" if row["range"] else row["term"]
    chart = altair.layer(*_layers(rows)).properties(height=_ROW * len(rows) + 10)
    sure = ", 95 % intervals" if anova.method == "exact" else ""
    note = f"{_method(anova)} of {anova.trials:,} runs{sure}. Grey: chance may explain it. {anova.note}".strip()
    return Figure(f"shares_{anova.region}", "shares", message(anova, mattered), note, chart)


def _layers(rows: list[dict]) -> list[altair.Chart]:
    y = altair.Y(
        field="label",
        type="nominal",
        sort=None,
        title=None,
        axis=altair.Axis(labelExpr="split(datum.label, '|')", labelLimit=190, labelColor=theme.INK, labelLineHeight=12),
    )
    ticks = altair.Axis(labelExpr="format(100 * datum.value, '.0f') + ' %'", tickCount=5, title="share of the variance")
    x = altair.X(field="share", type="quantitative", scale=altair.Scale(domain=[0, 1.12], nice=False), axis=ticks)
    base = chart_of(rows).encode(y=y)
    lines = scale.tooltip(
        ("term", "share of", None), ("share", "share", ".1%"), ("low", "95 % from", ".1%"), ("high", "to", ".1%")
    )
    colour = scale.colours({"axis": theme.ACCENT, "chance": theme.RUN})
    bars = base.mark_bar(height=14, cornerRadiusEnd=2, opacity=0.85).encode(x=x, color=colour, tooltip=lines)
    interval = base.mark_rule(color=theme.INK, strokeWidth=1.2).encode(
        x=altair.X(field="low", type="quantitative"), x2=altair.X2(field="high")
    )
    texts = base.mark_text(align="left", dx=6).encode(
        x=altair.X(field="end", type="quantitative"), text=altair.Text(field="text", type="nominal")
    )
    return [bars, interval, texts]
