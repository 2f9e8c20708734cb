"""Diagnosis of training itself, of the trials near the best: too long, too short, overfitting, underfitting."""

import numpy as np
import pandas as pd

from finetune.analysis import experiment
from finetune.analysis.cost import known
from finetune.analysis.evidence import Evidence
from finetune.analysis.finding import NOTE, WARNING, Finding, metric_words, number
from finetune.analysis.lag import lagging
from finetune.analysis.table.trials import Trials

_EARLY, _LATE = 0.5, 0.9  # share of the epochs after which the best one came
_TAIL = 0.2  # the end of training, over which progress is measured
_LEAST_EPOCHS = 4  # fewer say nothing about early or late
_RISE = 0.05  # of the validation loss above its lowest, relative: overfitting
_GAP = 0.05  # of validation loss above training loss, relative: below it the model could fit more


def diagnose_training(evidence: Evidence) -> list[Finding]:
    """Returns what the curves of the trials near the best say, as far as they are known."""
    near = evidence.stands.trials_near()
    curves = _curves(evidence.trials, near)
    lag = lagging(curves)
    return [*_length(evidence, near, curves), *([lag] if lag else _fit(evidence, near, curves))]


def _curves(trials: Trials, near: np.ndarray) -> pd.DataFrame:
    """Returns the curves of those trials whose curve has every column that is needed; empty if there are none."""
    if trials.curves.empty or trials.metric not in trials.curves:
        return pd.DataFrame()
    ids = set(trials.frame["id"].to_numpy()[near])
    return trials.curves[trials.curves["id"].isin(ids)].sort_values(["id", "epoch"], kind="stable")


def _length(evidence: Evidence, near: np.ndarray, curves: pd.DataFrame) -> list[Finding]:
    """Says whether the best epoch came early or last, and whether the metric still rose then."""
    trials, stands = evidence.trials, evidence.stands
    best, epochs = known(trials, "best_epoch"), known(trials, "epochs")
    if best is None or epochs is None:
        return []
    pairs = np.array([(best[row], epochs[row]) for row in near if best[row] <= epochs[row]])
    if not len(pairs) or np.median(pairs[:, 1]) < _LEAST_EPOCHS:
        return []
    epoch, total = np.median(pairs, axis=0)
    gain, lost = _tail(trials, curves)
    deviation = stands.comparison.deviation if stands.comparison else 0.0
    name = metric_words(trials).capitalize()
    words = f"{name} was best at epoch {epoch:g} of {total:g} (median of the trials near the best)"
    if epoch <= _EARLY * total:
        after = f"and was {number(lost)} worse at the end" if lost > deviation else "and no better at the end"
        shorter = max(2, round(1.5 * float(epoch)))
        return [Finding("epochs", NOTE, f"{words} {after}: {shorter} epochs should do.", "epochs")]
    if epoch < _LATE * total:
        return []
    if not gain > deviation:
        return [Finding("epochs", NOTE, f"{words}, where it had levelled off: long enough.", "epochs")]
    grid = experiment.grid_of(evidence, [stands.values(trials, setting) for setting in stands.near])
    command = experiment.command(trials, grid | {"epochs": [2 * int(total)]})
    sentence = f"{words} and still gained {number(gain)} in the last fifth: train longer."
    return [Finding("epochs", WARNING, sentence, "epochs", command)]


def _tail(trials: Trials, curves: pd.DataFrame) -> tuple[float, float]:
    """Returns (mean gain in the last fifth, mean loss since the best epoch) of the metric; NaN if unknown."""
    if curves.empty:
        return np.nan, np.nan
    utility = curves[trials.metric] * (1 if trials.maximize else -1)
    table = curves.assign(utility=utility)
    ends = table.groupby("id").agg(last=("utility", "last"), best=("utility", "max"), epochs=("epoch", "max"))
    start = table[table["epoch"] <= np.ceil((1 - _TAIL) * table["id"].map(ends["epochs"]))]
    gain = ends["last"] - start.groupby("id")["utility"].last()
    return float(gain.mean()), float((ends["best"] - ends["last"]).mean())


def _fit(evidence: Evidence, near: np.ndarray, curves: pd.DataFrame) -> list[Finding]:
    """Says how training and validation loss compare at the end, or at the best epoch where there are no curves."""
    trials = evidence.trials
    if not {"train_loss", "val_loss"} <= set(curves):
        train, validation = known(trials, "train_loss"), known(trials, "val_loss")
        if train is None or validation is None or not np.isfinite(train[near] + validation[near]).any():
            return []
        train_loss, val_loss = float(np.nanmedian(train[near])), float(np.nanmedian(validation[near]))
        words = f"Training loss {number(train_loss)}, validation loss {number(val_loss)} near the best"
        return [Finding("fit", NOTE, f"{words}: a gap of {number(val_loss - train_loss)}.")]
    runs = curves.groupby("id")
    ends = runs[["train_loss", "val_loss"]].last().median()
    lowest = float(runs["val_loss"].min().median())
    train_loss, val_loss = float(ends["train_loss"]), float(ends["val_loss"])
    words = f"Training loss ends at {number(train_loss)}, validation loss at {number(val_loss)}"
    if val_loss > lowest * (1 + _RISE) and train_loss < val_loss:
        sentence = f"{words}, up from {number(lowest)}: overfits; train shorter or regularise more."
        return [Finding("fit", WARNING, sentence, None, _regularised(evidence, near))]
    if 0 < val_loss <= train_loss * (1 + _GAP):
        return [
            Finding("fit", NOTE, f"{words}: no gap, so the model could fit more; train longer or train more of it.")
        ]
    return [Finding("fit", NOTE, f"{words}: a gap of {number(val_loss - train_loss)}, without a rise at the end.")]


def _regularised(evidence: Evidence, near: np.ndarray) -> str | None:
    """Returns the command that adds a regulariser which no trial has had."""
    trials = evidence.trials
    frame = trials.frame.iloc[near]
    grid = experiment.spanned(evidence, frame[trials.names].drop_duplicates().to_dict("records"))
    missing = [name for name in ("weight_decay", "dropout", "label_smoothing") if trials.fixed.get(name) == 0]
    return experiment.command(trials, grid | {missing[0]: experiment.first_values(missing[0], 0)}) if missing else None
