"""Arms compared each at its own best: tables made by hand, where the best of each and the distances are known."""

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finetune.analysis.answer import analyse
from finetune.analysis.arms import Arms, arms
from finetune.analysis.condition import by_place, condition, within
from finetune.analysis.evidence import weigh
from finetune.analysis.statistics.paired import compare
from finetune.analysis.table.trials import Trials, from_frame
from finetune.report import document

RATES = {"head": (1e-3, 1e-2, 1e-1, 1.0), "all": (1e-6, 1e-5, 1e-4, 1e-3), "bias": (1e-4, 1e-3, 1e-2, 1e-1)}
BEST = {"head": (1e-1, 0.90), "all": (1e-3, 0.95), "bias": (1e-2, 0.9497)}  # rate and score; of `all` at its end
COSTS = {"head": (10, 1.0, 1e5), "all": (1000, 10.0, 3e6), "bias": (50, 6.0, 2e5)}  # parameters, seconds, bytes
NAMES = ["trainable", "learning_rate", "weight_decay"]
COMMAND = ["/x/finetune/__main__.py", "--config=c.py", "--workdir=w", "--grid=trainable=head,all,bias", "--seeds=3"]
COMMAND += [f"--grid=learning_rate@{arm}={','.join(map(str, rates))}" for arm, rates in RATES.items()]


def _arms(trials: Trials) -> Arms | None:
    return arms(weigh(trials))


def table(rates=RATES, seeds=3, noise=0.001) -> pd.DataFrame:
    """Each arm falls by 0.02 for every decade squared from its best rate, and by 0.01·weight_decay."""
    random = np.random.default_rng(0)
    rows = []
    for arm in rates:
        best, top = BEST[arm]
        for rate, decay, seed in itertools.product(rates[arm], (0.0, 0.1), range(seeds)):
            score = top - 0.02 * np.log10(rate / best) ** 2 - 0.01 * decay + 0.003 * seed + noise * random.normal()
            costs = dict(zip(("trained_parameters", "seconds", "bytes"), COSTS[arm], strict=True))
            rows.append(dict(zip([*NAMES, "seed", "score"], (arm, rate, decay, seed, score), strict=True)) | costs)
    return pd.DataFrame(rows)


def trials_of(frame: pd.DataFrame, **more):
    return from_frame(frame, "score", False, hyperparameters=NAMES, **{"provenance": {"command": COMMAND}} | more)


def test_each_arm_at_its_own_best_ranked() -> None:
    frame = table()
    compared = _arms(trials_of(frame.assign(test_score=frame["score"] - 0.5)))
    assert [arm.value for arm in compared.arms] == ["all", "bias", "head"]
    assert compared.conditional == ("learning_rate",)
    first, second, third = compared.arms
    for arm in compared.arms:
        rate, top = BEST[arm.value]
        assert arm.setting.values == {"learning_rate": rate, "weight_decay": 0.0}
        assert arm.setting.mean == pytest.approx(top + 0.003, abs=0.002)  # seeds add 0, 0.003 and 0.006
        assert arm.setting.test == pytest.approx(arm.setting.mean - 0.5)
        assert (arm.trained_parameters, arm.seconds, arm.bytes) == COSTS[arm.value]
        assert (arm.settings, arm.trials, arm.lost) == (8, 24, 0)
    means = frame[frame["weight_decay"] == 0].groupby(["trainable", "learning_rate"])["score"].mean()
    for arm in (second, third):
        assert arm.behind == pytest.approx(means["all", 1e-3] - means[arm.value, BEST[arm.value][0]])
    assert (first.behind, first.low, first.first) == (0, 0, True)
    assert (second.tied, third.tied) == (True, False)
    assert second.low == 0 < second.behind < second.high
    assert 0.04 < third.low < third.behind < third.high
    assert (first.edges, second.edges, third.edges) == ((("learning_rate", "largest"),), (), ())


def test_intervals_pair_seeds_and_count_all_arms() -> None:
    """What a seed does to all arms alike is no part of the interval, and more arms make it wider."""
    found = [_arms(trials_of(table(noise=noise))).arms[2] for noise in (0.004, 0.0004)]
    wide, narrow = (arm.high - arm.behind for arm in found)
    assert narrow < 0.003 < wide  # seeds alone move every arm by 0.003
    # Noise of deviation 1, 100 seeds, 40 arms: 3.4233 is the normal quantile of 1 - 0.05 / 2 / 40 / 2, the last 2 since
    # differences seed by seed are looked at beside pooled ones.
    utility = np.random.default_rng(2).normal(size=(41, 100)) + 5 * np.random.default_rng(3).normal(size=100)
    compared = compare(utility)
    _, upper = compared.bounds(np.full(41, compared.leader), np.arange(41), 0.05 / 2 / 40, 0.05 / 2 / 40)
    half = np.delete(upper - compared.behind, compared.leader)
    assert np.median(half) == pytest.approx(3.4233 * math.sqrt(2 / 100), rel=0.06)


def test_sentences_name_the_best_the_cheapest_and_what_is_at_an_end() -> None:
    lines = _arms(trials_of(table())).sentences
    assert lines[0].startswith("Each at its own best setting, trainable all comes first with score 0.95")
    assert "chance may explain how far bias lies behind; worse by more than chance: head (by 0.05" in lines[0]
    assert lines[1] == (
        "bias, which may be as good, takes 60 % of the time of all and trains 5.0 % as many parameters."
    )
    assert "learning_rate with all, where the best value lies at an end of its own range" in lines[2]
    assert lines[-1].startswith("learning_rate had a range of its own for each trainable; the best setting of each")


def test_arms_without_results_or_repeats() -> None:
    frame = table()
    compared = _arms(trials_of(frame.assign(score=frame["score"].where(frame["trainable"] != "head"))))
    assert [(arm.value, arm.lost) for arm in compared.arms] == [("all", 0), ("bias", 0), ("head", 24)]
    assert compared.arms[2].setting is None
    assert any("head (24 of 24 trials)" in line for line in compared.sentences)
    single = _arms(trials_of(table(seeds=1), provenance={"axes": {"learning_rate@head": []}}))
    assert all(math.isnan(arm.behind) for arm in single.arms)
    assert "luck cannot be told from merit" in single.sentences[0]
    assert _arms(trials_of(frame[frame["trainable"] == "head"])) is None
    assert _arms(trials_of(frame.assign(score=np.nan))) is None


def test_ranges_that_differ_are_a_condition_and_full_or_sampled_grids_are_none() -> None:
    assert condition(trials_of(table())).conditional == ("learning_rate",)
    full = trials_of(table(dict.fromkeys(RATES, RATES["bias"])))
    assert (condition(full).by.name, condition(full).conditional) == ("trainable", ())
    frame = table()
    sampled = frame.assign(learning_rate=10 ** np.random.default_rng(1).uniform(-5, 0, len(frame)))
    assert condition(trials_of(sampled)).conditional == ()
    half = trials_of(frame[:40], provenance={"axes": {"learning_rate@head": [1]}})  # while it still trains
    assert condition(half).conditional == ("learning_rate",)


def test_one_range_is_not_compared_with_another() -> None:
    """Where each has its own range, the value of a rate says nothing: its place is what counts, on a full grid."""
    trials = trials_of(table())
    placed = by_place(trials, condition(trials))
    assert placed.complete
    assert not trials.complete
    for arm, rates in RATES.items():
        part = placed.frame[trials.frame["trainable"] == arm]
        assert dict(zip(trials.frame["learning_rate"][part.index], part["learning_rate"], strict=True)) == {
            rate: place for place, rate in enumerate(rates, start=1)
        }
    answer = analyse(trials)
    assert answer.anova.method == "exact"
    assert answer.anova.ranges["learning_rate"] == "each choice its own range"
    assert {effect.axis.name for effect in answer.effects} == {"trainable", "weight_decay"}
    assert answer.shifts == ()
    assert ("learning_rate", "weight_decay") not in answer.heat_maps
    assert ("trainable", "learning_rate") in answer.heat_maps
    assert within(trials, condition(trials).by, "head").axes[0].values == RATES["head"]


def test_edges_and_commands_are_of_each_arm() -> None:
    answer = analyse(trials_of(table()))
    assert answer.recommendation.best.values == {"trainable": "all", "learning_rate": 1e-3, "weight_decay": 0.0}
    [edge] = [finding for finding in answer.findings if finding.kind == "edge"]
    assert edge.sentence.startswith("With trainable all: the best learning_rate, 0.001, is the largest that was tried")
    assert edge.command == (
        "python -m finetune --config=c.py --workdir=w --grid=trainable=all --grid=learning_rate=0.003,0.01 --seeds=3"
    )


def test_the_page_shows_the_arms(tmp_path: Path) -> None:
    page = document.write(analyse(trials_of(table())), tmp_path, refresh=5).read_text()
    assert "<h2>Each trainable at its own best</h2>" in page
    assert "<td>learning_rate 0.001 (largest tried), weight_decay 0</td>" in page
    assert "<td>all</td>" in page
    assert "may be as good</td>" in page
    assert "<td>1,000</td><td>10</td><td>3 MB</td>" in page
