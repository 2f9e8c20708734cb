"""The answer to a table of trials: every analysis of it, and ten lines in plain words."""

import html
from typing import NamedTuple

import pandas as pd

from finetune.analysis.arms import Arms, arms
from finetune.analysis.cost import pareto
from finetune.analysis.diagnosis import Finding, diagnose
from finetune.analysis.effects import Effect, effects
from finetune.analysis.evidence import Evidence, weigh
from finetune.analysis.headline import Line, headline
from finetune.analysis.interactions import Shift, interactions
from finetune.analysis.points import Gain, Loss, gain, losses
from finetune.analysis.recommendation import Recommendation, recommend
from finetune.analysis.statistics.anova import Anova
from finetune.analysis.table.trials import Trials


class Answer(NamedTuple):
    """Everything that is said about a table of trials; parts that it does not allow are None or empty."""

    trials: Trials
    evidence: Evidence
    effects: tuple[Effect, ...]
    anova: Anova | None
    good_anova: Anova | None
    shifts: tuple[Shift, ...]
    heat_maps: dict[tuple[str, str], pd.DataFrame]
    findings: tuple[Finding, ...]
    recommendation: Recommendation
    gain: Gain | None
    losses: tuple[Loss, ...]
    pareto: pd.DataFrame
    arms: Arms | None
    lines: tuple[Line, ...]

    def __repr__(self) -> str:
        return "\n".join(self.headline)

    def _repr_html_(self) -> str:
        """Returns the headline as a notebook shows it."""
        parts = ((html.escape(line.label), line.sign, html.escape(line.text)) for line in self.lines)
        shown = (f"<b>{label}</b>{sign} {text}" if label else text for label, sign, text in parts)
        return "".join(f"<p>{each}</p>" for each in shown)

    @property
    def headline(self) -> tuple[str, ...]:
        """The lines as they are printed."""
        return tuple(map(str, self.lines))


def analyse(trials: Trials, worth: float | None = None) -> Answer:
    """Returns the answer to any table of trials, one trial or thousands, with results or without.

    worth: the smallest difference of the metric that matters in practice; None: as the study says, or any does.
    """
    if worth is None:
        worth = ((trials.provenance.get("config") or {}).get("evaluation") or {}).get("worth") or None
    evidence = weigh(trials)
    findings = diagnose(evidence)
    recommendation = recommend(evidence, findings)
    shifts, heat_maps = interactions(evidence) if evidence.has_results else ((), {})
    gained, lost = gain(evidence), losses(evidence)
    return Answer(
        trials,
        evidence,
        effects(evidence) if evidence.has_results else (),
        evidence.whole,
        evidence.good,
        shifts,
        heat_maps,
        findings,
        recommendation,
        gained,
        lost,
        pareto(trials, evidence.cost),
        arms(evidence),
        headline(evidence, shifts, findings, recommendation, gained, lost, worth),
    )
