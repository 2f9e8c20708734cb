"""The answer to a table of trials: every analysis of it, and ten lines in plain words."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from finetune.analysis.anova import Anova, anova
from finetune.analysis.arms import Arms, arms
from finetune.analysis.condition import by_place, comparable, own_axes
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
    arms: Arms | None
    headline: tuple[str, ...]


def analyse(trials: Trials) -> Answer:
    """Returns the answer to any table of trials, one trial or thousands, with results or without."""
    has_results = bool(np.isfinite(trials.frame["utility"]).any())
    own = own_axes(trials)
    whole = _whole(trials, own) if has_results else None
    good = anova(trials, region="good") if has_results and not own else None
    shifts, heat_maps = interactions(trials) if has_results else ((), {})
    shifts = tuple(shift for shift in shifts if shift.rate not in own and shift.by not in own)
    heat_maps = {pair: each for pair, each in heat_maps.items() if comparable(trials, pair)}
    findings, recommendation = diagnose(trials), recommend(trials)
    return Answer(
        trials,
        tuple(each for each in effects(trials) if each.axis.name not in own) if has_results else (),
        whole,
        good,
        shifts,
        heat_maps,
        findings,
        recommendation,
        pareto(trials),
        arms(trials),
        headline(trials, whole, good, shifts, findings, recommendation),
    )


def _whole(trials: Trials, own: tuple[str, ...]) -> Anova | None:
    """Returns the shares of all trials; values of axes with ranges of their own count by their place in these."""
    found = anova(by_place(trials))
    if found is None or not own:
        return found
    ranges = {name: "each choice its own range" if name in own else text for name, text in found.ranges.items()}
    note = f"{' and '.join(own)} counts by its place in the range of each choice."
    return found._replace(ranges=ranges, note=f"{found.note} {note}".strip())
