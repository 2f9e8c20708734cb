"""Effects in points of the metric, against what the surface says."""

import itertools

import numpy as np
import pandas as pd

from finetune.analysis import points
from finetune.analysis.answer import analyse
from finetune.analysis.evidence import weigh
from finetune.analysis.table.trials import Trials, from_frame

RATES, DECAYS = (1e-4, 1e-3, 1e-2), (0.0, 0.01, 0.1)


def _trials(noise: float = 0.002, **provenance) -> Trials:
    """The rate takes 0.1 a decade away from 1e-3, the decay nothing."""
    rng = np.random.default_rng(0)
    rows = [
        (rate, decay, seed, 0.9 - 0.1 * abs(np.log10(rate) + 3) + noise * rng.normal())
        for rate, decay, seed in itertools.product(RATES, DECAYS, range(4))
    ]
    frame = pd.DataFrame(rows, columns=["learning_rate", "weight_decay", "seed", "val_accuracy"])
    return from_frame(frame, "val_accuracy", False, provenance=provenance)


def test_gain_over_the_default_and_what_is_lost_without_tuning() -> None:
    evidence = weigh(_trials(config={"hparams": {"learning_rate": 1e-2, "weight_decay": 0.0}}))
    gained = points.gain(evidence)
    assert gained.against == points.DEFAULT
    assert gained.values == {"learning_rate": 1e-2, "weight_decay": 0.0}
    assert gained.low < 0.1 < gained.high
    assert gained.high - gained.low < 0.02
    rate, decay = points.losses(evidence)
    assert (rate.axis, rate.value) == ("learning_rate", 1e-2)
    assert rate.low < 0.1 < rate.high
    assert (decay.axis, decay.low) == ("weight_decay", 0.0)
    assert decay.high < 0.02


def test_without_a_default_the_median_setting_stands_in() -> None:
    gained = points.gain(weigh(_trials()))
    assert gained.against == points.MEDIAN
    assert gained.values["learning_rate"] in (1e-4, 1e-2)


def test_nothing_is_lost_with_a_value_that_one_setting_alone_has() -> None:
    """The decay goes with the rate: which of the two costs 0.1 cannot be told."""
    frame = _trials().frame
    together = pd.DataFrame({"learning_rate": np.repeat(RATES, 4), "weight_decay": np.repeat(DECAYS, 4)})
    together = together.assign(seed=np.tile(range(4), 3), val_accuracy=frame["utility"].to_numpy()[:12])
    together["val_accuracy"] -= 0.1 * np.abs(np.log10(together["learning_rate"]) + 3)
    evidence = weigh(from_frame(together, "val_accuracy", False))
    assert points.gain(evidence).low > 0.05
    assert points.losses(evidence) == ()


def test_what_matters_in_practice_counts_the_settings_within_it() -> None:
    trials = _trials()
    assert points.within(weigh(trials), 0.05) == (3, 3)
    assert points.within(weigh(trials), 0.5) == (9, 9)
    assert points.within(weigh(trials), 1e-9)[0] == 0
    assert "3 settings lie less than 0.0500 behind the best" in "\n".join(analyse(trials, worth=0.05).headline)


def test_nothing_is_said_in_points_where_chance_explains_it() -> None:
    assert "In points" not in "\n".join(analyse(_trials(noise=2.0)).headline)


def test_marginal_means_are_freed_of_which_seeds_a_value_has():
    """Seed 1 is 0.1 worse for all; the runs of one value with it are missing: the value is no better for that."""
    rows = [
        (rate, decay, seed, 0.8 - 0.1 * (seed == 1)) for rate in (0.1, 0.2) for decay in (0, 1) for seed in range(4)
    ]
    rows = [row for row in rows if not (row[0] == 0.1 and row[2] == 1)]
    noise = np.random.default_rng(0).normal(0, 0.001, len(rows))
    values = [(*row[:3], row[3] + error) for row, error in zip(rows, noise, strict=True)]
    frame = pd.DataFrame(values, columns=["learning_rate", "weight_decay", "seed", "accuracy"])
    answer = analyse(from_frame(frame, "accuracy", False))
    effect = next(each for each in answer.effects if (each.axis.name, each.kind) == ("learning_rate", "marginal"))
    assert effect.size < 0.002
    assert not answer.evidence.mattered


def test_settings_that_differ_by_rounding_alone_are_the_same():
    rows = [(rate, seed, 0.1 * seed + 0.3 + 1e-17 * rate) for rate in (1, 2, 3) for seed in range(3)]
    frame = pd.DataFrame(rows, columns=["learning_rate", "seed", "accuracy"])
    frame["accuracy"] = frame["accuracy"] * (1 + 1e-16 * frame["learning_rate"])
    answer = analyse(from_frame(frame, "accuracy", False))
    assert "All 3 settings came out the same" in answer.recommendation.sentence
