"""The table of all runs: columns as JSON for the page's script, which sorts and filters them, and its place."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from finetune.analysis.answer import Answer
from finetune.analysis.table.trials import Trials
from finetune.report import scale

_COSTS = {"best_epoch": "best epoch", "train_loss": "train loss", "val_loss": "val loss", "seconds": "seconds"}
_REPEATED = 0.5  # share of distinct texts below which a column is written as numbers of a list


def columns(answer: Answer) -> dict[str, Any]:
    """Returns the columns of one study as JSON holds them, with the ids of its best setting; best runs first."""
    best = answer.recommendation.best
    return {"columns": _columns(answer.trials, answer.trials.frame), "best": list(best.ids) if best else []}


def columns_of_all(answers: Sequence[Answer], names: Sequence[str]) -> dict[str, Any]:
    """Returns the columns of several studies, those that the first has, with the name of the study as one more."""
    parts = [
        answer.trials.frame.assign(**answer.trials.fixed, study=name)
        for answer, name in zip(answers, names, strict=True)
    ]
    frame = pd.concat(parts, ignore_index=True)
    return {"columns": _columns(answers[0].trials, frame), "best": []}


def _columns(trials: Trials, frame: pd.DataFrame) -> list[dict[str, Any]]:
    frame = frame.sort_values("utility", ascending=False, kind="stable", na_position="last")
    labels = (
        {"id": "id", "study": "study"} | {name: name for name in trials.names} | {"seed": "seed", "status": "status"}
    )
    shown = {
        name: label for name, label in labels.items() if name in frame and (name != "seed" or frame[name].nunique() > 1)
    }
    made = [_column(name, label, frame[name]) for name, label in shown.items()]
    best_first = {"digits": _digits(trials.frame["value"]), "down": trials.maximize}
    made.append(_column(trials.metric, trials.metric.replace("_", " "), frame["value"]) | best_first)
    if "test" in frame and frame["test"].notna().any():
        made.append(_column("test", "test", frame["test"]) | best_first)
    known = {column["name"] for column in made}
    return made + [
        _column(name, label, frame[name]) | ({"digits": _digits(frame[name])} if name.endswith("loss") else {})
        for name, label in _COSTS.items()
        if name in frame and name not in known and frame[name].nunique() > 1
    ]


def _digits(values: pd.Series) -> int | None:
    form = scale.digits(values)
    return int(form[1:-1]) if form.endswith("f") else None


def _column(name: str, label: str, values: pd.Series) -> dict[str, Any]:
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    column = {"name": name, "label": label, "number": numeric}
    if numeric:
        return column | {"values": [_number(value) for value in values.to_numpy()]}
    codes, levels = pd.factorize(values.astype(str))
    if len(levels) < _REPEATED * len(values):
        return column | {"values": codes.tolist(), "levels": levels.tolist()}
    return column | {"values": values.astype(str).tolist()}


def _number(value: np.floating | np.integer) -> int | float | None:
    if not np.isfinite(value):
        return None
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else float(f"{value:.7g}")


def place(runs: dict[str, Any]) -> str:
    """Returns the tools and the empty table that the page's script fills."""
    heads = "".join(_head(column) for column in runs["columns"])
    example = next((column["name"] for column in runs["columns"][1:] if column["number"]), "seed")
    hint = escape(f"an id, a word, or {example}>0.001")
    return (
        '<div class="tools"><label for="filter">Filter</label>'
        f'<input type="search" id="filter" placeholder="{hint}" autocomplete="off" spellcheck="false">'
        '<span id="seen" role="status"></span></div>'
        '<div class="scroll" tabindex="0" role="region" aria-label="all runs">'
        f'<table id="table"><thead><tr>{heads}</tr></thead><tbody></tbody></table></div>'
        '<button type="button" id="more" class="more" hidden>show more</button>'
    )


def cells(texts: Sequence[str], tag: str) -> str:
    """Returns the cells of a row as HTML."""
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)


def _head(column: dict[str, Any]) -> str:
    style = ' class="number"' if column["number"] else ""
    return f'<th scope="col"{style}><button type="button">{escape(column["label"])}</button></th>'
