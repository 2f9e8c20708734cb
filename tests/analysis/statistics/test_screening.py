"""The rank test of random designs: its level and its power by simulation."""

import numpy as np

from finetune.analysis.statistics.correction import holm
from finetune.analysis.statistics.screening import screen
from finetune.analysis.table.axis import make_axis


def _chances(rng: np.random.Generator, signal) -> dict[str, float]:
    values = {name: rng.random(60) for name in "abc"} | {"kind": np.array(["x", "y", "z"])[rng.integers(3, size=60)]}
    axes = [make_axis(name, each.tolist()) for name, each in values.items()]
    part = signal(values["a"])
    part = (part - part.mean()) / (part.std() or 1.0)
    return screen(axes, values, part + np.sqrt(3) * rng.normal(size=60))


def test_of_noise_a_hyperparameter_is_named_in_one_study_of_twenty() -> None:
    rng = np.random.default_rng(0)
    named = [holm(np.array([*_chances(rng, np.zeros_like).values()]), 0.05).any() for _ in range(200)]
    assert np.mean(named) <= 0.09  # 0.05 and two standard errors


def test_a_quarter_of_the_variance_is_named_be_it_rising_or_humped() -> None:
    rng = np.random.default_rng(1)
    for signal in (lambda x: x, lambda x: -((x - 0.5) ** 2)):
        found = [_chances(rng, signal) for _ in range(60)]
        assert np.mean([each["a"] < 0.05 / 4 for each in found]) >= 0.8
        assert np.mean([each["b"] < 0.05 / 4 for each in found]) <= 0.06


def test_few_or_equal_results_show_nothing() -> None:
    axis = make_axis("a", [1.0, 2.0, 3.0])
    assert screen([axis], {"a": np.arange(1.0, 4)}, np.arange(3.0)) == {"a": 1.0}
    assert screen([axis], {"a": np.tile(np.arange(1.0, 4), 5)}, np.ones(15)) == {"a": 1.0}
