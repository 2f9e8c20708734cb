"""Diagnosis of batch normalisation: whether the averages that evaluation uses lag behind what training saw."""

import numpy as np
import pandas as pd

from finetune.analysis.finding import WARNING, Finding, number

# As batch_statistics.py records them: the loss of one batch, by running averages and by its own statistics.
_RUNNING, _OF_BATCH = "running_loss", "batch_loss"
_FAR = 1.5  # times the loss by its own statistics; where averages have settled the two differ by a few percent


def lagging(curves: pd.DataFrame) -> Finding | None:
    """Returns what explains a validation loss above the training loss better than overfitting does, if it does."""
    if not {_RUNNING, _OF_BATCH} <= set(curves):
        return None
    ends = curves.groupby("id")[[_RUNNING, _OF_BATCH]].last().median()
    running, of_batch = float(ends[_RUNNING]), float(ends[_OF_BATCH])
    if not 0 < _FAR * of_batch < running < np.inf:
        return None
    sentence = (
        f"The running averages of batch normalisation lag: a validation batch has loss {number(running)} by them and "
        f"{number(of_batch)} by its own statistics, with the same weights. That is no overfitting: take the averages "
        "anew with --config.evaluation.batch_norm_batches=50, lower their momentum, or train for more updates."
    )
    return Finding("fit", WARNING, sentence)
