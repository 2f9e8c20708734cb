"""How far the numbers can be trusted: failing runs, trivial predictors, the validation split, the ranking on test."""

import numpy as np
from scipy import stats

from finetune.analysis.evidence import Evidence
from finetune.analysis.finding import NOTE, WARNING, Finding, count, listed, metric_words, number, percent
from finetune.analysis.standing import Standing
from finetune.analysis.table.trials import Trials

_LEAST_SETTINGS = 5  # whose ranking can be looked at
_RELATED = 0.7  # rank correlation of validation and test from which the ranking is said to hold


def collapsed(evidence: Evidence) -> list[Finding]:
    """Says how many runs collapsed far below the others of their setting, and whether a hyperparameter decides that."""
    failed, frame = evidence.stands.failures, evidence.trials.frame
    runs = failed.collapsed[evidence.stands.place]
    if not runs.any():
        return []
    ends = listed([number(end) for end in (frame["value"][runs].min(), frame["value"][runs].max())], "to")
    blame = f"how often depends on {listed(failed.depends)}" if failed.depends else "no setting is to blame"
    sentence = (
        f"{count(int(runs.sum()), 'run')} of {len(runs):,} ({percent(runs.mean())} %) failed: at {ends} they lie far "
        f"below the other runs of their settings; {blame}. Means and intervals are of the runs that did not fail."
    )
    return [Finding("collapsed", WARNING, sentence)]


def confounded(trials: Trials) -> list[Finding]:
    """Says which hyperparameters move together, so that their effects cannot be told apart."""
    pairs = trials.reading.confounded if trials.reading is not None else ()
    sentence = "{} and {} move together: what one does cannot be told from what the other does."
    return [
        Finding("confounded", WARNING, sentence.format(pair.first, pair.second), pair.first)
        for pair in pairs
        if {pair.first, pair.second} <= set(trials.names)
    ]


def against_baseline(evidence: Evidence) -> list[Finding]:
    """Says if the best setting does not beat the trivial predictor, such as the majority class."""
    trials, stands = evidence.trials, evidence.stands
    baseline = ((trials.provenance.get("summary") or {}).get("baseline") or {}).get(trials.metric)
    if baseline is None:
        return []
    sign = 1 if trials.maximize else -1
    best = int(stands.order[0])
    low = stands.interval(best, len(stands.tied))[0]
    mean = float(stands.table["mean"].iat[best])
    reached = f"{metric_words(trials)} {number(sign * mean)}, without looking at the input {number(baseline)}"
    if (low if np.isfinite(low) else mean) > sign * baseline:
        return [Finding("baseline", NOTE, f"The best setting reaches {reached}.")]
    return [Finding("baseline", WARNING, f"No setting beats the trivial prediction by more than chance: {reached}.")]


def split_error(trials: Trials, stands: Standing) -> list[Finding]:
    """Says how far a metric may be off: the validation split is a sample, and the best epoch was chosen on it."""
    examples = (trials.provenance.get("splits") or {}).get("validation")
    share = float(stands.table["mean"].to_numpy()[stands.order[0]])
    if not examples or trials.metric != "val_accuracy" or not 0 <= share <= 1:
        return []
    half = 1.96 * np.sqrt(share * (1 - share) / examples)
    sentence = (
        f"With {examples:,} validation examples {metric_words(trials)} itself is known to ±{number(half)}, one example "
        f"being {number(1 / examples)}: settings share most of that error, so that they differ by less."
    )
    if "best_epoch" in trials.frame:
        sentence += " It is that of the best epoch, chosen on the same examples, and so a little too high."
    return [Finding("split", NOTE, sentence)]


def agreement(evidence: Evidence) -> list[Finding]:
    """Says whether the test split ranks the settings as the validation split does."""
    trials, stands = evidence.trials, evidence.stands
    every = trials.frame["test"].to_numpy(float)
    test = np.array([every[stands.rows[place]].mean() for place in stands.order])
    known = np.isfinite(test)
    if known.sum() < _LEAST_SETTINGS or not np.ptp(test[known]) > 0:
        return []
    utility = (1 if trials.maximize else -1) * test[known]
    means = stands.table["mean"].to_numpy()[stands.order][known]
    if not np.ptp(means) > 0:
        return []
    related = float(stats.spearmanr(means, utility).statistic)
    rank, behind = int((utility > utility[0]).sum()) + 1, float(utility.max() - utility[0])
    sentence = (
        f"The test split ranks the settings {'as' if related >= _RELATED else 'otherwise than'} the validation split "
        f"does (rank correlation {related:.2f}): the setting chosen on validation is number {rank} of "
        f"{known.sum():,} there, {number(behind)} behind the first."
    )
    return [Finding("agreement", NOTE, sentence)]
