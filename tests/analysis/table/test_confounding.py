"""Axes that always move together, and those that only seem to."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from finetune.analysis.table.axis import make_axis
from finetune.analysis.table.confounding import Confounded, confounded


def find(**columns: Any) -> tuple[Confounded, ...]:
    frame = pd.DataFrame(columns)
    return confounded(frame, [make_axis(name, frame[name].tolist()) for name in frame])


def random(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "lr": 10 ** rng.uniform(-5, -1, rows),
        "wd": rng.uniform(0, 1, rows),
        "batch": rng.choice([8, 16, 32], rows),
    }


def test_grids_and_random_searches_are_not_confounded() -> None:
    grid = dict(zip("abc", zip(*itertools.product((1, 2, 3), "xy", (0.1, 0.2)), strict=True), strict=True))
    assert find(**grid) == ()
    for rows in (4, 8, 30, 300):
        assert find(**random(rows)) == ()
        assert find(lr=random(rows)["lr"], batch=random(rows)["batch"]) == ()


def test_numbers_that_rise_together() -> None:
    """Spearman's correlation of y = x with the neighbours of six pairs exchanged: 1 - 6 * 12 / (60 * (60**2 - 1))."""
    lr = np.arange(60.0)
    wd = lr.copy()
    for place in range(0, 60, 10):
        wd[[place, place + 1]] = wd[[place + 1, place]]
    (found,) = find(lr=lr, wd=wd, dropout=random(60)["wd"])
    assert (found.first, found.second, found.kind) == ("lr", "wd", "rank correlation")
    assert found.strength == pytest.approx(1 - 6 * 12 / (60 * (60**2 - 1)))
    assert find(lr=lr, wd=np.random.default_rng(1).normal(lr, 30))[:1] == ()


def test_lists_of_which_one_gives_the_other() -> None:
    batch, seeds = [8, 16, 32] * 4, [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert find(batch=batch, lr=[3e-4, 1e-4, 2e-4] * 4, dropout=seeds) == (Confounded("batch", "lr", "function", 1.0),)
    assert find(batch=[8, 16, 32], optimizer=["a", "b", "c"]) == (Confounded("batch", "optimizer", "function", 1.0),)
    assert find(size=["s", "s", "l", "l"] * 3, width=[1, 2, 3, 4] * 3, dropout=seeds) == (
        Confounded("width", "size", "function", 1.0),
    )


def test_a_hyperparameter_of_one_choice_is_not_confounded_with_it() -> None:
    assert (
        find(
            optimizer=["sgd", "sgd", "adam"] * 3, momentum=["0.9", "0.5", "(none)"] * 3, lr=[1, 1, 1, 2, 2, 2, 3, 3, 3]
        )
        == ()
    )
