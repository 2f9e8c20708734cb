"""The evidence is weighed once for all that an answer says."""

import cProfile
import itertools
import pstats
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finetune.analysis.answer import analyse
from finetune.analysis.table.trials import Trials, from_frame

AXES = {"trainable": ("head", "all"), "learning_rate": (1e-4, 1e-3, 1e-2), "batch_size": (8, 16), "seed": range(3)}


def table(ranges_differ: bool) -> Trials:
    """Returns trials on a grid, or such that each value of `trainable` has rates of its own."""
    frame = pd.DataFrame(list(itertools.product(*AXES.values())), columns=list(AXES))
    if ranges_differ:
        frame["learning_rate"] /= np.where(frame["trainable"] == "all", 10, 1)
    frame["score"] = np.log10(frame["learning_rate"]) + np.random.default_rng(0).normal(size=len(frame))
    return from_frame(frame, "score", False)


@pytest.mark.parametrize("ranges_differ", [False, True])
def test_each_part_is_computed_once(ranges_differ: bool) -> None:
    trials, profile = table(ranges_differ), cProfile.Profile()
    answer = profile.runcall(analyse, trials)
    assert bool(answer.evidence.conditional) == ranges_differ
    calls = {f"{Path(file).stem}.{name}": times[1] for (file, _, name), times in pstats.Stats(profile).stats.items()}
    of_choices = len(AXES["trainable"]) * ranges_differ  # each choice has edges of its own
    assert calls["standing.standing"] == calls["paired.compare"] == 1 + of_choices
    once = ("condition.condition", "cost.cost", "robust.reaches", "evidence.weigh", "diagnosis.diagnose")
    assert {name: calls[name] for name in once} == dict.fromkeys(once, 1)
    assert calls["condition.within"] == len(AXES["trainable"])
    tables = 1 if ranges_differ else 2  # whose shares are told: all trials, and the good ones of a grid
    assert calls["anova.decompose"] == tables
    assert calls["anova.full_grid"] == 2  # of the trials, and of the good ones or of places in ranges
