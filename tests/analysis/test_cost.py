"""Costs and budgets against definitions written out: every draw, and every pair of trials."""

import itertools

import numpy as np
import pandas as pd
import pytest

from finetune.analysis.cost import cost, expected_best, pareto
from finetune.analysis.recommendation import advise
from finetune.analysis.table import from_workdir
from finetune.analysis.table.trials import Trials, from_frame


def _trials(values: list[float], minimize: bool = False, **columns: object) -> Trials:
    frame = pd.DataFrame({"learning_rate": np.geomspace(1e-4, 1.0, len(values)), "score": values, **columns})
    return from_frame(frame, "score", minimize, hyperparameters=["learning_rate"])


@pytest.mark.parametrize("minimize", [False, True])
def test_expected_best_is_the_mean_over_all_draws(minimize: bool) -> None:
    values = [0.3, 0.9, 0.5, 0.5, 0.1]
    best = min if minimize else max
    table = expected_best(_trials(values, minimize)).set_index("n")
    assert list(table.index) == [1, 2, 3, 4, 5]
    for n in table.index:
        draws = [best(draw) for draw in itertools.product(values, repeat=n)]
        assert table.loc[n, "expected"] == pytest.approx(np.mean(draws), abs=1e-12)
        assert np.mean([table.loc[n, "low"] <= draw <= table.loc[n, "high"] for draw in draws]) >= 0.9


def test_a_trial_without_a_result_counts_as_the_worst() -> None:
    with_none, with_worst = expected_best(_trials([0.9, 0.2, np.inf])), expected_best(_trials([0.9, 0.2, 0.2]))
    pd.testing.assert_frame_equal(with_none, with_worst)
    assert expected_best(_trials([np.nan, np.nan])).empty


def test_front_holds_what_no_other_trial_beats() -> None:
    generator = np.random.default_rng(0)
    values, seconds = generator.integers(0, 20, 60) / 20, generator.integers(1, 15, 60).astype(float)
    trials = _trials(list(values), seconds=seconds)
    table = pareto(trials, cost(trials))
    assert set(table["unit"]) == {"seconds"}
    assert table["cost"].is_monotonic_increasing
    for row in table.itertuples():
        as_good = table[(table["cost"] <= row.cost) & (table["value"] >= row.value)]
        better = as_good[(as_good["cost"] < row.cost) | (as_good["value"] > row.value)]
        assert not (row.on_front and len(better))
        if not row.on_front:  # beaten, or the same as one that is on the front
            assert len(better) or as_good["on_front"].any()


def test_less_is_better_on_the_front_of_a_loss() -> None:
    trials = _trials([3.0, 1.0, 2.0], minimize=True, seconds=[1.0, 2.0, 3.0])
    table = pareto(trials, cost(trials))
    assert list(table["on_front"]) == [True, True, False]


def test_cost_is_the_first_that_is_known() -> None:
    assert cost(_trials([0.1, 0.2], flops=[1e9, 2e9], seconds=[np.nan, np.nan])).unit == "FLOPs"
    assert cost(_trials([0.1, 0.2], epochs=[3, 3])).unit == "epochs"
    unknown = _trials([0.1, 0.2])
    assert cost(unknown).unit == ""
    assert pareto(unknown, cost(unknown)).empty


def test_ranks_of_one_program_are_told_apart_by_what_they_train() -> None:
    """Rank 16 trains 1,000 of the head and 16 · 100 of adapters, rank 1 the head and 100; the program is one."""
    group = {"trials": 6, "chunk": 6, "seconds": 60.0, "signature": {"trainable": "lora"}}
    plan = {"groups": [group | {"trained_parameters": 2600, "adapter_parameters": 1600, "adapter_rank": 16}]}
    trained = {
        rank: from_workdir._cost({"trainable": "lora", "lora_rank": rank, "batch_size": 8}, plan)["trained_parameters"]
        for rank in (1, 4, 16)
    }
    assert trained == {1: 1100, 4: 1400, 16: 2600}
    rng = np.random.default_rng(0)
    rows = [
        {"rank": rank, "seed": seed, "score": 0.9 + 0.01 * rng.normal(), "seconds": 10.0, "trained_parameters": count}
        for rank, count in trained.items()
        for seed in range(3)
    ]
    found = advise(from_frame(pd.DataFrame(rows), "score", False, hyperparameters=["rank"]))
    assert found.cheapest is not None
    assert found.cheapest.values == {"rank": 1}
    assert found.choice is found.cheapest
