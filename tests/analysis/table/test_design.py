"""How settings were chosen: grids, random searches of many kinds, searches that follow results, and anything else."""

import itertools
from collections.abc import Callable

import numpy as np
import optuna
import pandas as pd
import pytest
from scipy.stats import qmc

from finetune.analysis.table.axis import make_axis
from finetune.analysis.table.design import Order, design, order


def kind(frame: pd.DataFrame, forward: bool = True, sampler: str | None = None) -> str:
    axes = [make_axis(name, frame[name].tolist()) for name in frame if name != "utility"]
    return design(frame, axes, Order(np.arange(len(frame)), forward, "row"), sampler).kind


def with_utility(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    return frame.assign(utility=-((np.log10(frame["lr"]) + 3) ** 2) + 0.1 * rng.normal(size=len(frame)))


def grid(rates: int = 5) -> pd.DataFrame:
    frame = pd.DataFrame(itertools.product(np.geomspace(1e-5, 1e-1, rates), (8, 16, 32, 64), range(2)))
    return with_utility(frame.set_axis(["lr", "batch", "layers"], axis=1), np.random.default_rng(0))


def test_grids() -> None:
    rng = np.random.default_rng(0)
    assert (
        kind(grid()) == kind(grid().sample(frac=1, random_state=0)) == kind(pd.concat([grid(), grid()[:9]])) == "grid"
    )
    assert kind(grid()[:33]) == "table"  # part of a grid, in the order of loops, stopped before the end
    assert kind(grid().query("(lr < 1e-4) | (batch == 8)")) == "table"
    assert kind(with_utility(pd.DataFrame({"lr": np.geomspace(1e-5, 1, 20)}), rng)) == "grid"
    assert kind(with_utility(pd.DataFrame({"lr": 10 ** rng.uniform(-5, 0, 40)}), rng)) == "random"
    assert kind(grid()[:3]) == "table"


def uniform(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    frame = pd.DataFrame({"lr": 10 ** rng.uniform(-5, -1, rows), "dropout": rng.uniform(0, 0.5, rows)})
    return frame.assign(optimizer=rng.choice(["adam", "sgd"], rows))


def listed(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"lr": rng.choice(np.geomspace(1e-5, 0.1, 9), rows), "batch": rng.choice(2 ** np.arange(9), rows)}
    )


def sobol(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    points = qmc.Sobol(2, rng=rng).random(64)[:rows]
    return pd.DataFrame({"lr": 10 ** (-5 + 4 * points[:, 0]), "dropout": points[:, 1]})


@pytest.mark.parametrize("draw, rows", [(uniform, 36), (listed, 40), (sobol, 48)])
def test_random_searches_are_seldom_taken_for_adaptive_ones(
    draw: Callable[[np.random.Generator, int], pd.DataFrame], rows: int
) -> None:
    """At most 1 % are: of 120 studies at most 5, which so many do not exceed in 99.8 % of cases (binomial)."""
    rng = np.random.default_rng(4)
    found = [kind(with_utility(draw(rng, rows), rng), forward=False) for _ in range(120)]
    assert found.count("adaptive") <= 5
    assert found.count("random") >= 108


def test_a_search_that_follows_its_results_is_noticed_by_its_order_alone() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial: optuna.Trial) -> float:
        rate, dropout = trial.suggest_float("lr", 1e-5, 1e-1, log=True), trial.suggest_float("dropout", 0, 0.5)
        return (np.log10(rate) + 3) ** 2 + (dropout - 0.2) ** 2

    for seed in range(3):
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, multivariate=False))
        study.optimize(objective, n_trials=80)
        frame = pd.DataFrame([trial.params | {"utility": -trial.value} for trial in study.trials])
        assert kind(frame) == "adaptive"
        assert kind(frame[::-1].reset_index(drop=True), forward=False) == "adaptive"  # the newest row first
        assert kind(frame.sample(frac=1, random_state=0)) != "adaptive"


def test_rows_that_were_sorted_say_nothing_about_the_order() -> None:
    rng = np.random.default_rng(0)
    frame = with_utility(uniform(rng, 60), rng)
    for column in ("utility", "lr", "optimizer"):
        assert kind(frame.sort_values(column, kind="stable")) == "random"


def test_what_a_study_says_of_its_sampler_is_believed() -> None:
    assert kind(grid(), sampler="TPE") == "adaptive"


def test_the_order_of_trials_is_that_of_numbers_or_times_before_that_of_rows() -> None:
    frame = pd.DataFrame(
        {"number": [2, 0, 1], "Created": ["2026-01-03T00:00:00", "2026-01-01T00:00:00", "2026-01-02T00:00:00"]}
    )
    assert (
        order(frame, "number", frame.index).ranks.tolist()
        == order(frame[["Created"]], None, frame.index).ranks.tolist()
        == [3, 1, 2]
    )
    assert order(frame, None, frame.index).forward
    assert not order(frame[["number"]], None, frame.index).forward
