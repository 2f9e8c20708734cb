"""Tables whose answer is known: what each must say, on every page of its answer alike."""

from pathlib import Path

import pytest

from finetune.analysis.answer import Answer, analyse
from finetune.analysis.table.trials import read_table

TABLES = Path(__file__).parents[2] / "tables"


@pytest.fixture(scope="module")
def read():
    found: dict[str, Answer] = {}

    def answer(name: str) -> Answer:
        if name not in found:
            found[name] = analyse(read_table(TABLES / f"{name}.csv", "accuracy", False))
        return found[name]

    return answer


def test_a_default_with_more_seeds_than_the_others_does_not_win(read) -> None:
    """Means 0.6999 (5 seeds), 0.8012, 0.8997 and 0.851 (2 each), of a deviation near 0.0015."""
    answer = read("default_5_seeds_others_2")
    assert answer.recommendation.best.values == {"learning_rate": 0.001}
    assert answer.recommendation.best.mean == pytest.approx(0.8997)
    assert answer.recommendation.confident
    assert "This setting is the best with 95 % confidence" in answer.recommendation.sentence
    assert answer.gain is not None
    assert 0.09 < answer.gain.low < 0.8997 - 0.8012 < answer.gain.high < 0.11


def test_a_grid_of_single_runs_names_what_its_interactions_do_not_explain(read) -> None:
    answer = read("single_run_grid")
    assert [share.terms for share in answer.evidence.mattered] == [("learning_rate",)]
    lines = "\n".join(answer.headline)
    assert "learning_rate (0.0001 to 0.01) makes 99 % of the variance" in lines
    assert "weight_decay (0 to 0.3) makes none that stands out from chance" in lines
    assert "Use: learning_rate 0.001" in lines
    assert "best seen, ran once" in lines
    assert "nan" not in lines


def test_few_repeats_tell_what_differs_by_more_than_they_do(read) -> None:
    """Three settings ran twice, 0.0004 to 0.0018 apart; settings differ by 0.2."""
    answer = read("few_repeats")
    assert answer.recommendation.best.values["learning_rate"] == 0.001
    assert {each.values["learning_rate"] for each in answer.recommendation.tied} == {0.001}
    assert "It ran once" in answer.recommendation.sentence
    assert [share.terms for share in answer.evidence.mattered] == [("learning_rate",)]


def test_of_noise_nothing_is_claimed(read) -> None:
    answer = read("noise_random_search")
    assert answer.evidence.mattered == ()
    lines = "\n".join(answer.headline)
    assert "makes none that stands out from chance" in lines
    assert "best seen, ran once" in lines
    assert sum(share.share for share in answer.anova.shares) == pytest.approx(1)


def test_arms_and_settings_have_one_verdict(read) -> None:
    answer = read("arms_contradiction_A")
    tied = {each.values["optimizer"] for each in answer.recommendation.tied}
    assert {arm.value for arm in answer.arms.arms if arm.tied} == tied == {"adamw", "lion"}
    assert "worse by more than chance: sgd" in answer.arms.sentences[0]


def test_runs_that_failed_are_told_apart_from_settings(read) -> None:
    """18 of 105 runs lie below 0.54, the others above 0.6; the rate is the same for all settings."""
    answer = read("bimodal_failed_runs")
    frame = answer.trials.frame
    failed = answer.evidence.stands.failures
    assert failed.collapsed.sum() == (frame["value"] < 0.58).sum() == 18
    assert failed.anywhere
    assert answer.headline[1].startswith("Warning: 18 runs of 105 (17 %) failed")
    best = answer.recommendation.best  # the best mean of those that did not fail, of which 2 of 5 runs failed
    means = frame[frame["value"] > 0.58].groupby(["learning_rate", "weight_decay"])["value"].mean()
    assert best.mean == pytest.approx(means.max())
    assert "2 of its 5 runs failed" in "\n".join(answer.headline)
