"""Answers to searches: what chose the trials decides what may be said of them."""

import numpy as np
import pandas as pd
import pytest

from finetune.analysis.answer import analyse
from finetune.analysis.table.design import ADAPTIVE, RANDOM, Design
from finetune.analysis.table.interpret import Found
from finetune.analysis.table.trials import from_frame


def searched(rng, kind=RANDOM, settings=32, finalists=8, seeds=5, spread=0.0):
    """A search whose runs have a deviation of 0.01 and settings one of `spread`, and its finalists."""
    rates = np.exp(rng.uniform(np.log(1e-5), np.log(1e-1), settings))
    truth = 0.8 + spread * rng.normal(size=settings)
    first = truth + 0.01 * rng.normal(size=settings)
    rows = [(rate, 0, value) for rate, value in zip(rates, first, strict=True)]
    for place in np.argsort(-first)[:finalists]:
        rows += [(rates[place], seed, truth[place] + 0.01 * rng.normal()) for seed in range(1, seeds)]
    frame = pd.DataFrame(rows, columns=["learning_rate", "seed", "accuracy"])
    trials = from_frame(frame, "accuracy", False, found=Found(design=Design(kind, "as the search says")))
    return trials._replace(search_seeds=(0,)), dict(zip(rates, truth, strict=True))


def test_finalists_are_judged_by_seeds_that_the_search_had_not_seen():
    """Of settings that are alike the best of 32 seen lies two deviations high: its interval must not."""
    held, naive = [], []
    for number in range(60):
        trials, truth = searched(np.random.default_rng(number))
        for found, told in ((held, trials), (naive, trials._replace(search_seeds=()))):
            choice = analyse(told).recommendation.choice
            found.append(choice.low <= truth[choice.values["learning_rate"]] <= choice.high)
            if told is trials:
                assert choice.seeds == 4
    assert np.mean(held) >= 0.88  # 0.95 less two standard errors and a half
    assert np.mean(naive) < np.mean(held) or np.mean(held) == 1.0


def test_the_mean_of_the_chosen_setting_is_free_of_the_luck_that_chose_it():
    shifts = []
    for number in range(60):
        trials, truth = searched(np.random.default_rng(number), finalists=1)
        choice = analyse(trials).recommendation.choice
        shifts.append(choice.mean - truth[choice.values["learning_rate"]])
    assert abs(np.mean(shifts)) < 3 * 0.005 / np.sqrt(60)  # a mean of four runs has a deviation of 0.005


def test_shares_are_of_the_settings_that_fill_the_space_and_of_no_adaptive_ones():
    trials, _ = searched(np.random.default_rng(0), spread=0.05)
    assert analyse(trials).anova.trials == 32
    adaptive, _ = searched(np.random.default_rng(0), ADAPTIVE, spread=0.05)
    answer = analyse(adaptive)
    assert answer.anova is None
    assert answer.recommendation.best_of_n.empty
    assert "not to be read off trials that were chosen by looking at the results of others" in "\n".join(
        answer.headline
    )


def test_the_answer_says_what_was_compared():
    trials, _ = searched(np.random.default_rng(1), spread=0.05)
    sentence = analyse(trials).recommendation.sentence
    assert "Finalists are judged by seeds that the search had not seen; the other 24 settings lay behind" in sentence
    assert analyse(trials).gain is None
    assert analyse(trials).losses == ()


def test_a_finalist_alone_is_not_the_only_setting_that_was_tried():
    trials, _ = searched(np.random.default_rng(3), finalists=1, spread=0.05)
    sentence = analyse(trials).recommendation.sentence
    assert sentence.startswith("One setting alone was a finalist, judged by 4 seeds")
    assert "Only one setting was tried" not in sentence


@pytest.mark.parametrize("finalists", [0, 2])
def test_a_search_that_has_no_finalists_yet(finalists):
    trials, _ = searched(np.random.default_rng(2), finalists=0)
    answer = analyse(trials._replace(search_seeds=(0,) if finalists else ()))
    assert len(answer.evidence.stands.order) == 32
    assert "ran once" in answer.recommendation.sentence
