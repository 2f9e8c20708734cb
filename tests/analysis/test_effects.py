"""Effects of single hyperparameters: means by hand, intervals by simulation."""

import numpy as np
import pandas as pd
import pytest

from finetune.analysis.effects import Effect, effects
from finetune.analysis.evidence import weigh
from finetune.analysis.table.trials import Trials, from_frame
from tests.helpers import surfaces
from tests.helpers.surfaces import AXES, BATCH, DECAY, RATE, SURFACES


def effect(trials: Trials, axis: str, kind: str) -> Effect:
    return next(each for each in effects(weigh(trials)) if (each.axis.name, each.kind) == (axis, kind))


def test_means_are_those_of_a_pivot_table() -> None:
    trials = surfaces.trials(surfaces.cubes(SURFACES["interacting"], studies=1, seeds=3)[0])
    means = trials.frame.groupby(list(AXES))["value"].mean()
    for axis in AXES:
        points = effect(trials, axis, "marginal").points
        np.testing.assert_allclose(points["mean"], trials.frame.groupby(axis)["value"].mean())
        np.testing.assert_allclose(effect(trials, axis, "isolated").points["mean"], means.groupby(axis).max())
        assert points["n"].tolist() == trials.frame.groupby(axis).size().tolist()
        assert points["value"].tolist() == list(AXES[axis])


def test_effects_are_in_units_of_a_metric_that_is_minimized() -> None:
    cube = surfaces.cubes(SURFACES["additive"], studies=1, seeds=3)[0]
    for kind in ("marginal", "isolated"):
        up, down = (effect(surfaces.trials(cube, minimize), RATE, kind) for minimize in (False, True))
        np.testing.assert_allclose(up.points["mean"], -down.points["mean"])
        np.testing.assert_allclose(up.points["low"], -down.points["high"])
        assert up.size == pytest.approx(down.size)
    loss = surfaces.trials(cube, minimize=True).frame.groupby(list(AXES))["value"].mean()
    best = effect(surfaces.trials(cube, minimize=True), BATCH, "isolated").points["mean"]
    np.testing.assert_allclose(best, loss.groupby(BATCH).min())


def test_size_is_the_largest_mean_less_the_smallest() -> None:
    marginal = effect(surfaces.trials(SURFACES["additive"].means[..., None]), DECAY, "marginal")
    contrast = np.sqrt(0.2) * surfaces.contrast(DECAY)
    assert marginal.size == pytest.approx(contrast.max() - contrast.min())


@pytest.mark.parametrize("axis", [RATE, BATCH])
def test_intervals_over_seeds_cover_the_true_mean(axis: str) -> None:
    surface, covered = SURFACES["noisy"], []
    truth = surface.means.mean(tuple(i for i, name in enumerate(AXES) if name != axis))
    for cube in surfaces.cubes(surface, studies=60, seeds=3, seed=2):
        points = effect(surfaces.trials(cube), axis, "marginal").points
        expected = points["mean"].mean() + truth - truth.mean()  # how far each value lies from the overall mean
        covered.extend((points["low"] <= expected) & (expected <= points["high"]))
    assert 0.9 <= np.mean(covered) <= 0.99


def test_isolated_interval_holds_the_mean_of_the_setting_although_it_was_chosen() -> None:
    """Of 9 equal settings the one seen best lies above the truth: its interval must hold it all the same."""
    covered = []
    for cube in surfaces.cubes(SURFACES["noise"], studies=60, seeds=3, seed=5):
        points = effect(surfaces.trials(cube), RATE, "isolated").points
        covered.extend((points["low"] <= 0) & (points["high"] >= 0))
    assert np.mean(covered) >= 0.92


def test_without_repeats_the_best_setting_has_no_interval_and_means_vary_over_settings() -> None:
    cube = surfaces.cubes(SURFACES["additive"], studies=1, seeds=1)[0]
    trials = surfaces.trials(cube)
    assert effect(trials, RATE, "isolated").points[["low", "high"]].isna().all(axis=None)
    points = effect(trials, RATE, "marginal").points
    assert (points["low"] < points["mean"]).all()
    assert (points["mean"] < points["high"]).all()


def test_sampled_axes_are_binned_on_the_searched_scale() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"learning_rate": 10 ** rng.uniform(-5, -1, 4000), "score": rng.normal(size=4000)})
    found = effect(from_frame(frame, "score", False), "learning_rate", "marginal")
    assert found.axis.scale == "log"
    assert len(found.points) == 8
    assert found.points["n"].tolist() == [500] * 8
    # Medians of eight equal bins of a uniform distribution on (-5, -1).
    np.testing.assert_allclose(found.points["position"], np.arange(-4.75, -1, 0.5), atol=0.05)
    np.testing.assert_allclose(found.points["value"], 10 ** found.points["position"])


def test_divergence_counts_as_the_worst_seen() -> None:
    frame = pd.DataFrame({"x": [1, 1, 2, 2], "seed": [0, 1, 0, 1], "accuracy": [0.5, 0.7, 0.9, np.inf]})
    assert effect(from_frame(frame, "accuracy", False), "x", "marginal").points["mean"].tolist() == [0.6, 0.7]
    loss = effect(from_frame(frame, "accuracy", True), "x", "marginal").points["mean"]
    assert loss.tolist() == [0.6, 0.9]


def test_same_input_gives_same_output() -> None:
    trials = surfaces.trials(surfaces.cubes(SURFACES["noisy"], studies=1, seeds=3)[0])
    for one, other in zip(effects(weigh(trials)), effects(weigh(trials)), strict=True):
        pd.testing.assert_frame_equal(one.points, other.points)


def test_trials_that_all_diverged_have_no_means() -> None:
    trials = surfaces.trials(np.full((5, 3, 3, 2), np.nan))
    assert effect(trials, RATE, "marginal").points["mean"].isna().all()
