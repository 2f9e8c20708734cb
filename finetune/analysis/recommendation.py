"""The recommendation: which setting to use, which others may be as good, how sure that is, and what to try next."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from finetune.analysis import diagnosis, experiment, robust
from finetune.analysis.cost import expected_best
from finetune.analysis.evidence import Evidence, weigh
from finetune.analysis.finding import Finding, count, number
from finetune.analysis.setting import Setting, make_settings
from finetune.analysis.standing import Standing
from finetune.analysis.table.trials import Trials

__all__ = ["Recommendation", "Setting", "advise", "recommend"]

_MOST_SEEDS = 100  # more are not worth a difference that small
_USUAL_SEEDS = 20  # the most that a next experiment asks for
_FIRST = ("diverged", "failed", "edge", "noise", "epochs", "coverage", "seeds", "fit")  # what is most worth doing
# Hyperparameters worth varying, cheap ones first.
_LEVERS = ("learning_rate", "batch_size", "trainable", "epochs", "weight_decay", "dropout", "label_smoothing")


class Recommendation(NamedTuple):
    """What to use and what to do next.

    best: None if no setting stands out. choice: what is used and exported: the best, or the cheapest where none stands
    out; None only if no trial came to a result. tied: the settings that may be the truly best one, which is among them
    with a probability of at least 95 %, best first; empty where nothing was repeated. cheapest, robust: of the tied
    ones. confident: one setting is left. seeds_needed: how many seeds would tell the best from the second (or, where
    nothing stands out, the best from the worst); None if more than 100. best_of_n: see `cost.expected_best`.
    """

    best: Setting | None
    choice: Setting | None
    tied: tuple[Setting, ...]
    cheapest: Setting | None
    robust: Setting | None
    confident: bool
    sentence: str
    seeds_needed: int | None
    best_of_n: pd.DataFrame
    next_command: str | None
    next_reason: str


def advise(trials: Trials) -> Recommendation:
    """Returns the recommendation for a table of trials, the same as its answer has."""
    evidence = weigh(trials)
    return recommend(evidence, diagnosis.diagnose(evidence))


def recommend(evidence: Evidence, findings: Sequence[Finding]) -> Recommendation:
    """Returns the recommendation; `findings` are those of `diagnose`."""
    trials, stands = evidence.trials, evidence.stands
    budget = expected_best(trials)
    if not evidence.has_results:
        sentence = f"Nothing can be recommended: no trial of {len(trials.frame):,} came to a result."
        command, reason = next_experiment(evidence, findings, None)
        return Recommendation(None, None, (), None, None, False, sentence, None, budget, command, reason)
    repeated, single = stands.comparison is not None, len(stands.table) == 1
    tied = make_settings(evidence, stands.tied)
    leader = tied[0] if tied else make_settings(evidence, stands.order[:1])[0]
    needed = seeds_needed(stands)
    command, reason = next_experiment(evidence, findings, needed)
    cheapest = _cheapest(tied)
    best = leader if stands.evident or single or not repeated else None
    return Recommendation(
        best=best,
        choice=best or cheapest or _surest(trials, tied) or leader,
        tied=tied,
        cheapest=cheapest,
        robust=_most_robust(trials, tied),
        confident=stands.evident and len(tied) == 1 and not single,
        sentence=_sentence(evidence, needed) + _finalists(evidence),
        seeds_needed=needed,
        best_of_n=budget,
        next_command=command,
        next_reason=reason,
    )


def _surest(trials: Trials, tied: Sequence[Setting]) -> Setting | None:
    """Returns the setting whose interval begins highest: one that ran once does not win by luck."""
    return max(tied, key=lambda each: each.low if trials.maximize else -each.high, default=None)


def _cheapest(tied: Sequence[Setting]) -> Setting | None:
    """Returns the cheapest of the settings, the better one of equals; None unless costs are known and differ.

    Of settings that cost as much, such as ranks of one program, it is the one that trains the fewest parameters.
    """
    prices = [(each.cost, each.trained_parameters or 0.0) for each in tied if each.cost is not None]
    if len(prices) < len(tied) or len(set(prices)) < 2:
        return None
    return tied[prices.index(min(prices))]


def _most_robust(trials: Trials, tied: tuple[Setting, ...]) -> Setting | None:
    """Returns the tied setting with the most room around it, the better one of equals; None if none has any."""
    rooms = [robust.room(trials, each.values, each.reach) for each in tied]
    if not rooms or max(rooms) <= (0.0, 0.0):
        return None
    return tied[rooms.index(max(rooms))]


def seeds_needed(stands: Standing) -> int | None:
    """Returns how many seeds would say more; None if the best stands alone, or if no sensible number would."""
    compared = stands.comparison
    if len(stands.order) < 2:
        return None
    if compared is None:
        return diagnosis.SEEDS
    others = np.flatnonzero(compared.tied)[1:]
    if not len(others):
        return None
    rival = min if stands.evident else max  # to tell the best from the second, or from anything at all
    needed = compared.seeds_to_tell(int(rival(others, key=lambda place: compared.behind[place])))
    seeds = int(stands.table["n"].max())
    return max(int(needed), seeds + 1) if needed <= _MOST_SEEDS else None


def _sentence(evidence: Evidence, needed: int | None) -> str:
    """Says how sure the recommendation is."""
    stands = evidence.stands
    settings, lost = int((stands.table["n"] > 0).sum()), int((stands.table["n"] > 0).sum()) - len(stands.order)
    seeds = _seeds(stands)
    left_out = f" Left out: {count(lost, 'setting')} with failed runs." if lost else ""
    if settings == 1 and evidence.trials.chosen_by.any():
        return f"One setting alone was a finalist, judged by {seeds}: there is no other to compare it with on these."
    if settings == 1:
        return f"Only one setting was tried, with {seeds}: there is nothing to compare it with."
    if len(stands.order) == 1:
        return f"Of {settings} settings only this one has come to a result in all its trials."
    if stands.comparison is None:
        return (
            f"Each of {settings:,} settings ran once, so the best seen may have been lucky: "
            f"that takes {diagnosis.SEEDS} seeds or more.{left_out}"
        )
    more = f"about {needed} seeds would" if needed else f"even {_MOST_SEEDS} seeds would not"
    largest = number(float(stands.comparison.behind.max()))
    if not stands.evident and largest == "0":
        return f"All {len(stands.order):,} settings came out the same, with {seeds}.{left_out}"
    if not stands.evident:
        return (
            f"No setting is better than another by more than chance: {len(stands.order):,} settings with {seeds}; "
            f"{more} show the largest difference seen, {largest}.{left_out}"
        )
    tied = len(stands.tied)
    once = " It ran once: repeat it." if stands.table["n"].iat[int(stands.order[0])] == 1 else ""
    if tied == 1:
        others = "the other one is" if len(stands.order) == 2 else f"the other {len(stands.order) - 1:,} settings are"
        return f"This setting is the best with 95 % confidence: {others} worse by more than chance.{once}{left_out}"
    if tied == len(stands.order):
        tell = f"{more} tell the first two apart.{once}{left_out}"
        return f"None of {tied:,} settings can be ruled out as the best, with {seeds}; {tell}"
    return (
        f"The best of {settings:,} settings is one of {tied:,} with 95 % confidence ({seeds}); "
        f"{more} tell the first two apart.{once}{left_out}"
    )


def _finalists(evidence: Evidence) -> str:
    """Says by what the settings were judged that a search has brought to the end; "" where none was."""
    if not evidence.trials.chosen_by.any():
        return ""
    behind = len(evidence.stands.table) - len(evidence.stands.order)
    return (
        f" Finalists are judged by seeds that the search had not seen; the other {count(behind, 'setting')} lay behind "
        "them in it."
    )


def _seeds(stands: Standing) -> str:
    n = stands.table["n"][stands.table["n"] > 0]
    low, high = int(n.min()), int(n.max())
    return f"{low} to {high} seeds" if low < high else count(high, "seed") + " each" * (high > 1)


def next_experiment(evidence: Evidence, findings: Sequence[Finding], needed: int | None) -> tuple[str | None, str]:
    """Returns (what to type, why) of the experiment that is most worth running."""
    trials, stands = evidence.trials, evidence.stands
    found = {finding.kind: finding for finding in reversed(findings) if finding.command}
    for kind in _FIRST:
        if kind in found:
            return found[kind].command, found[kind].sentence
        if kind == "seeds" and needed and needed <= _USUAL_SEEDS and len(stands.tied) > 1:
            settings = [stands.values(trials, place) for place in stands.tied]
            reason = "tell the first two apart" if stands.evident else "show whether any setting is better"
            return experiment.repeat(evidence, settings, needed), f"{needed} seeds would {reason}."
    return _lever(evidence)


def _lever(evidence: Evidence) -> tuple[str | None, str]:
    """Returns (command, reason) of the first hyperparameter that has not been varied, with the learning rate."""
    trials, stands, found = evidence.trials, evidence.stands, evidence.condition
    levers = [name for name in _LEVERS if name != "trainable" or experiment.started(trials)]
    name = next((name for name in levers if name in trials.fixed), None)
    if name is None or not len(stands.order):
        alone = "Vary a hyperparameter, the learning rate first, with 3 seeds."
        more = "Nothing within the searched range promises more: widen it, or vary another hyperparameter."
        return None, more if trials.axes else alone
    best = stands.values(trials, int(stands.order[0]))
    grid: dict[str, Sequence[Any]] = {**experiment.grid_of(evidence, [best])}
    axes = found.parts[best[found.by.name]].axes if found and found.conditional else trials.axes
    axis = next((axis for axis in axes if axis.name == "learning_rate"), None)
    if axis is not None:
        grid["learning_rate"] = experiment.around(axis, best["learning_rate"], lower=name == "trainable")
    value = trials.fixed[name]
    beside = ", with the learning rate beside it" if axis is not None else ""
    reason = f"{name} was {value} in every trial: it is the next to vary{beside}."
    if name == "trainable":
        reason += " It may take long: --plan_only says how long."
    seeds = diagnosis.SEEDS if stands.comparison is None else None
    return experiment.command(trials, {**grid, name: experiment.first_values(name, value)}, seeds), reason
