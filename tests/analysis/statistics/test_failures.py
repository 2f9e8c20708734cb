"""Failing runs: modes are told from noise, and whether failures depend on anything."""

import numpy as np
import pandas as pd

from finetune.analysis.evidence import weigh
from finetune.analysis.statistics.failures import collapses, failures
from finetune.analysis.table.axis import make_axis
from finetune.analysis.table.trials import from_frame


def _bimodal(rng: np.random.Generator, share: float = 0.12) -> tuple[np.ndarray, np.ndarray]:
    """Returns (utilities [20, 10], which runs failed): deviation 0.01, those that fail 0.15 lower."""
    failed = rng.random((20, 10)) < share
    return 0.9 + 0.01 * rng.normal(size=(20, 10)) - 0.15 * failed, failed


def test_a_low_mode_is_found_run_by_run() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        utility, failed = _bimodal(rng)
        np.testing.assert_array_equal(collapses(utility), failed)


def test_noise_has_no_low_mode_however_unequal() -> None:
    rng, seen = np.random.default_rng(1), 0
    for _ in range(100):
        deviation = np.exp(rng.normal(0, 0.7, (20, 1))) if rng.random() < 0.5 else rng.choice([0.1, 1.0], (20, 1))
        seen += collapses(deviation * rng.normal(size=(20, 5))).any()
    assert seen <= 4


def test_failures_that_fall_anywhere_are_told_from_those_of_an_axis() -> None:
    rng = np.random.default_rng(2)
    rate = np.repeat([1e-4, 1e-3, 1e-2, 1e-1], 5)
    axis = make_axis("rate", rate.tolist())
    utility, _ = _bimodal(rng)
    found = failures(utility, np.zeros(utility.shape, bool), (axis,), {"rate": rate})
    assert (found.depends, found.anywhere) == ((), True)
    diverged = (rate[:, None] == 1e-1) & (rng.random((20, 10)) < 0.5)
    found = failures(np.where(diverged, np.nan, 0.9), diverged, (axis,), {"rate": rate})
    assert (found.depends, found.anywhere) == (("rate",), False)
    one = np.zeros((20, 10), bool)
    one[3, :7] = True
    found = failures(np.where(one, np.nan, 0.9), one, (), {})
    assert (found.depends, found.anywhere) == (("setting",), False)


def test_a_run_that_failed_for_another_reason_is_no_evidence() -> None:
    """Out of memory says nothing of a setting: 0.01 is better in all of its runs that ended."""
    rows = [(0.01, 0, 0.95, "finished"), (0.01, 1, 0.951, "finished"), (0.01, 2, None, "crashed")]
    rows += [(0.1, seed, score, "finished") for seed, score in enumerate((0.60, 0.61, 0.60))]
    frame = pd.DataFrame(rows, columns=["learning_rate", "seed", "score", "status"])
    stands = weigh(from_frame(frame, "score", False)).stands
    assert stands.values(from_frame(frame, "score", False), int(stands.order[0])) == {"learning_rate": 0.01}
    assert len(stands.order) == 2
    assert stands.evident
    diverged = frame.assign(status=frame["status"].replace("crashed", "diverged"))
    assert len(weigh(from_frame(diverged, "score", False)).stands.order) == 1  # a divergence says something of it
