"""The answer to a table of trials: every analysis of it, and ten lines in plain words."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from finetune.analysis.anova import Anova, anova
from finetune.analysis.cost import pareto
from finetune.analysis.diagnosis import Finding, diagnose
from finetune.analysis.effects import Effect, effects
from finetune.analysis.headline import headline
from finetune.analysis.interactions import Shift, interactions
from finetune.analysis.recommendation import Recommendation, recommend
from finetune.analysis.table import Trials


class Answer(NamedTuple):
    """Everything that is said about a table of trials; parts that it does not allow are None or empty."""

    trials: Trials
    effects: tuple[Effect, ...]
    anova: Anova | None
    good_anova: Anova | None
    shifts: tuple[Shift, ...]
    heat_maps: dict[tuple[str, str], pd.DataFrame]
    findings: tuple[Finding, ...]
    recommendation: Recommendation
    pareto: pd.DataFrame
    headline: tuple[str, ...]


def analyse(trials: Trials) -> Answer:
    """Returns the answer to any table of trials, one trial or thousands, with results or without."""
    has_results = bool(np.isfinite(trials.frame["utility"]).any())
    whole = anova(trials) if has_results else None
    good = anova(trials, region="good") if has_results else None
    shifts, heat_maps = interactions(trials) if has_results else ((), {})
    findings, recommendation = diagnose(trials), recommend(trials)
    return Answer(
        trials,
        effects(trials) if has_results else (),
        whole,
        good,
        shifts,
        heat_maps,
        findings,
        recommendation,
        pareto(trials),
        headline(trials, whole, good, shifts, findings, recommendation),
    )
