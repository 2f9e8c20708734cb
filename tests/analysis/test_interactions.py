"""The best learning rate as another hyperparameter changes, on surfaces whose best rates are known; maps of pairs."""

import numpy as np
import pandas as pd
import pytest

from finetune.analysis.evidence import weigh
from finetune.analysis.interactions import Shift, interactions
from finetune.analysis.table.trials import Trials, from_frame

RATES, BATCHES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1), (8, 16, 64, 256)


def _of(trials: Trials) -> tuple[tuple[Shift, ...], dict[tuple[str, str], pd.DataFrame]]:
    return interactions(weigh(trials))


def parabolas(exponent: float, noise: float, seeds: int, seed: int = 0) -> Trials:
    """Returns a grid in which accuracy falls with the square of log rate from a best rate ~ batch size ** exponent."""
    grid = [(rate, batch, label) for rate in RATES for batch in BATCHES for label in range(seeds)]
    frame = pd.DataFrame(grid, columns=["learning_rate", "batch_size", "seed"])
    best = np.log10(1e-3) + exponent * np.log10(frame["batch_size"] / 64)
    frame["accuracy"] = 0.9 - 0.05 * (np.log10(frame["learning_rate"]) - best) ** 2
    frame["accuracy"] += noise * np.random.default_rng(seed).normal(size=len(frame))
    return from_frame(frame, "accuracy", False)


def shift(trials: Trials, by: str = "batch_size") -> Shift:
    shifts, _ = _of(trials)
    return next(each for each in shifts if each.by == by)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_best_rate_octaves_and_exponent_of_a_parabola_are_exact(exponent: float) -> None:
    found = shift(parabolas(exponent, noise=0.0, seeds=2))
    truth = 1e-3 * (np.array(BATCHES) / 64) ** exponent
    np.testing.assert_allclose(found.points["best"], truth, rtol=1e-6)
    assert found.points["value"].tolist() == list(BATCHES)
    assert found.octaves == pytest.approx(5 * exponent, abs=1e-6)  # batch size 8 to 256
    assert found.exponent == pytest.approx(exponent, abs=1e-6)
    assert not found.points["at_edge"].any()


def test_intervals_cover_the_true_shift_and_exponent() -> None:
    covered = []
    for seed in range(40):
        found = shift(parabolas(0.5, noise=0.01, seeds=3, seed=seed))
        assert found.exponent_low is not None
        assert found.exponent_high is not None
        covered.append([found.low <= 2.5 <= found.high, found.exponent_low <= 0.5 <= found.exponent_high])
    assert np.mean(covered, 0).min() >= 0.85


def test_a_best_rate_at_the_edge_stays_there_and_is_marked() -> None:
    trials = parabolas(0.0, noise=0.0, seeds=2)
    falling = trials._replace(frame=trials.frame.assign(utility=-np.log10(trials.frame["learning_rate"])))
    points = shift(falling).points
    assert points["at_edge"].all()
    np.testing.assert_allclose(points["best"], 1e-5)


def test_without_repeats_the_interval_is_unknown() -> None:
    found = shift(parabolas(0.5, noise=0.0, seeds=1))
    assert found.octaves == pytest.approx(2.5)
    assert np.isnan([found.low, found.high]).all()
    assert found.points[["low", "high"]].isna().all(axis=None)


def test_categories_shift_the_rate_too_and_have_no_exponent() -> None:
    grid = [(rate, part, seed) for rate in RATES for part in ("all", "head") for seed in (0, 1)]
    frame = pd.DataFrame(grid, columns=["lr", "trainable", "seed"])
    best = frame["trainable"].map({"all": -4.0, "head": -2.0})
    frame["loss"] = (np.log10(frame["lr"]) - best) ** 2
    found = shift(from_frame(frame, "loss", True), by="trainable")
    np.testing.assert_allclose(found.points["best"], [1e-4, 1e-2])
    assert found.octaves == pytest.approx(2 * np.log2(10))
    assert found.exponent is None


def test_a_random_search_has_a_shift() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"lr": 10 ** rng.uniform(-5, -1, 3000), "opt": rng.choice(["adam", "sgd"], 3000)})
    best = frame["opt"].map({"adam": -3.5, "sgd": -2.5})
    frame["score"] = -((np.log10(frame["lr"]) - best) ** 2) + 0.3 * rng.normal(size=3000)
    found = shift(from_frame(frame, "score", False), by="opt")
    sign = 1 if found.points["value"].iloc[0] == "adam" else -1
    assert sign * found.octaves == pytest.approx(np.log2(10), abs=0.5)
    assert min(found.low, found.high) < found.octaves < max(found.low, found.high)


def test_no_shift_without_a_learning_rate_or_with_gaps() -> None:
    trials = parabolas(0.5, noise=0.0, seeds=2)
    frame = trials.frame[~((trials.frame["batch_size"] == 8) & (trials.frame["learning_rate"] == 1e-3))]
    assert _of(trials._replace(frame=frame.reset_index(drop=True)))[0] == ()
    other = from_frame(
        trials.frame.rename(columns={"learning_rate": "width"}), "value", False, hyperparameters=["width"]
    )
    assert _of(other) == ((), {})


@pytest.mark.parametrize("minimize", [False, True])
def test_maps_hold_mean_best_count_and_divergence_of_each_cell(minimize: bool) -> None:
    frame = pd.DataFrame(
        {
            "x": [1, 1, 1, 1, 2, 2],
            "y": ["a", "a", "b", "b", "a", "a"],
            "z": [0, 1, 0, 1, 0, 1],
            "score": [0.1, 0.3, 0.5, 0.9, 0.7, np.inf],
        }
    )
    _, maps = _of(from_frame(frame, "score", minimize))
    assert list(maps) == [("x", "y"), ("x", "z"), ("y", "z")]
    table = maps["x", "y"]
    worst = 0.9 if minimize else 0.1
    assert table[["a", "b"]].to_numpy().tolist() == [[1, "a"], [1, "b"], [2, "a"]]
    np.testing.assert_allclose(table["mean"], [0.2, 0.7, (0.7 + worst) / 2])
    np.testing.assert_allclose(table["best"], [0.1, 0.5, 0.7] if minimize else [0.3, 0.9, 0.7])
    assert table["n"].tolist() == [2, 2, 2]
    assert table["diverged"].tolist() == [0, 0, 0.5]
