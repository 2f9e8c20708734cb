"""The recommendation on surfaces whose best setting is known, and on tables where nothing can be known."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from finetune.analysis.recommendation import advise
from finetune.analysis.statistics import paired
from finetune.analysis.statistics.variance import moderated
from finetune.analysis.table.trials import Trials, from_frame
from finetune.trials.grid import parse_axes

_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
_DECAYS = (0.0, 0.01, 0.1)
_COMMAND = ["/somewhere/finetune/__main__.py", "--config=configs/quickstart.py", "--workdir=runs/a b"]
Surface = Callable[[float, float, int], float]


def _grid(surface: Surface, seeds: int = 3, command: Sequence[str] | None = None, **columns: Any) -> Trials:
    rows = [
        {"learning_rate": rate, "weight_decay": decay, "seed": seed, "score": surface(rate, decay, seed), **columns}
        for rate, decay, seed in itertools.product(_RATES, _DECAYS, range(seeds))
    ]
    names = ["learning_rate", "weight_decay", *columns]
    provenance = {"command": list(command)} if command else {}
    return from_frame(pd.DataFrame(rows), "score", False, hyperparameters=names, provenance=provenance)


def _noise(size: float, seed: int = 0) -> Callable[[], float]:
    generator = np.random.default_rng(seed)
    return lambda: float(size * generator.normal())


def _study(generator: np.random.Generator, flat: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Returns (true means [settings], utilities [settings, seeds]) of a study drawn at random."""
    settings, seeds = int(generator.choice([7, 21, 60])), int(generator.integers(3, 6))
    place = np.linspace(0, 1, settings)
    shapes = (-4 * (place - 0.6) ** 2, -3 * place, generator.normal(0, 0.3, settings), -np.where(place > 0.5, 9, 0.1))
    truth = np.zeros(settings) if flat else shapes[generator.integers(len(shapes))]
    deviations = (np.full(settings, 0.5), 0.5 * np.exp(generator.normal(0, 0.5, settings)), 0.1 + 0.5 * place)
    own = deviations[0 if flat else generator.integers(len(deviations))][:, None] * generator.normal(
        size=(settings, seeds)
    )
    common = generator.choice([0.0, 1.5]) * generator.normal(size=seeds)
    return truth, truth[:, None] + own + common


def test_truly_best_setting_is_among_the_tied_in_200_studies() -> None:
    generator = np.random.default_rng(0)
    hits, shares = [], []
    for _ in range(200):
        truth, utility = _study(generator)
        compared = paired.compare(utility)
        assert compared is not None
        hits.append(compared.tied[truth == truth.max()].any())
        shares.append(compared.tied.mean())
    assert np.mean(hits) >= 0.95
    assert np.mean(shares) < 0.75  # it does not hold everything


def test_chance_alone_recommends_nothing_in_200_studies() -> None:
    generator = np.random.default_rng(1)
    compared = [paired.compare(_study(generator, flat=True)[1]) for _ in range(200)]
    assert np.mean([each is not None and not each.evident for each in compared]) >= 0.95


def test_two_settings_are_compared_as_by_a_paired_t_test() -> None:
    generator = np.random.default_rng(2)
    for _ in range(100):
        first, second = generator.normal([[0.0], [1.0]], 1.0, (2, 5)) + generator.normal(size=5)
        compared = paired.compare(np.stack([first, second]))
        assert compared is not None
        assert compared.evident == (stats.ttest_rel(first, second).pvalue < 0.05)


def test_shared_seeds_tell_more_than_independent_ones() -> None:
    generator = np.random.default_rng(3)
    tied = []
    for scale in (0.0, 2.0):
        seeds = generator.normal(size=4)
        shuffled = np.stack([generator.permutation(seeds) for _ in range(21)])
        utility = -np.linspace(0, 3, 21)[:, None] + 0.3 * generator.normal(size=(21, 4))
        together, apart = paired.compare(utility + scale * seeds), paired.compare(utility + scale * shuffled)
        assert together is not None
        assert apart is not None
        tied.append((together.tied.sum(), apart.tied.sum()))
    assert tied[1][0] < 10 < tied[1][1]


def test_variances_that_agree_are_pooled_and_unstable_ones_are_not() -> None:
    generator = np.random.default_rng(4)
    squares = generator.chisquare(2, 50)
    variance, freedom, weight = moderated(squares, np.full(50, 2.0))
    assert weight @ variance == pytest.approx(np.full(50, squares.sum() / 100), rel=0.5)
    assert (weight @ np.minimum(freedom, 100) > 20).all()
    squares[:25] *= 1e4
    variance, freedom, weight = moderated(squares, np.full(50, 2.0))
    typical = weight @ variance
    assert typical[25:].max() < 0.05 * typical[:25].mean()
    assert (weight @ freedom < 5).all()


def test_as_many_seeds_as_it_asks_for_show_the_difference() -> None:
    generator = np.random.default_rng(5)
    compared = paired.compare(np.stack([generator.normal(0.0, 1, 200), generator.normal(1.0, 1, 200)]))
    assert compared is not None
    needed = int(compared.seeds_to_tell(int(1 - compared.leader)))
    assert 10 <= needed <= 18  # (z(0.95) + z(0.8))² · 2 / 1² = 12.4
    compared = [paired.compare(generator.normal([[0.0], [1.0]], 1.0, (2, needed))) for _ in range(200)]
    assert np.mean([each is not None and each.tied.sum() == 1 for each in compared]) > 0.6


def test_a_clear_best_is_recommended_with_its_metrics() -> None:
    noise = _noise(0.001)
    trials = _grid(lambda rate, decay, _: 0.9 - 0.1 * abs(np.log10(rate) + 2) - decay + noise())
    found = advise(trials)
    assert found.best is not None
    assert found.best.values == {"learning_rate": 0.01, "weight_decay": 0}
    assert found.confident
    assert found.tied == (found.best,)
    own = trials.frame[(trials.frame["learning_rate"] == 0.01) & (trials.frame["weight_decay"] == 0)]
    # 21 settings of equal noise and 3 seeds tell it with 21 · 2 degrees of freedom, less 2 for what seeds do to all.
    low, high = stats.t.interval(0.95, 40, own["value"].mean(), 0.001 / np.sqrt(3))
    assert (found.best.low, found.best.high) == pytest.approx((low, high), abs=0.3 * (high - low))
    assert found.best.ids == tuple(own["id"])


def test_noise_recommends_nothing_and_says_how_many_seeds_would() -> None:
    noise = _noise(0.01)
    found = advise(_grid(lambda *_: 0.9 + noise()))
    assert found.best is None
    assert len(found.tied) == 21
    assert not found.confident
    assert found.seeds_needed is not None
    assert f"about {found.seeds_needed} seeds" in found.sentence


def test_single_runs_are_not_trusted() -> None:
    found = advise(_grid(lambda rate, decay, _: -abs(np.log10(rate) + 2) - decay, seeds=1))
    assert found.best is not None
    assert found.best.values["learning_rate"] == 0.01
    assert not found.confident
    assert found.tied == ()
    assert "ran once" in found.sentence
    assert found.seeds_needed == 3


def test_a_loss_is_minimised() -> None:
    noise = _noise(0.001)
    trials = _grid(lambda rate, decay, _: (np.log10(rate) + 2) ** 2 + decay + noise())
    frame = trials.frame.drop(columns=["utility", "status", "test", "id"])
    found = advise(from_frame(frame, "value", True, hyperparameters=trials.names))
    assert found.best is not None
    assert found.best.values == {"learning_rate": 0.01, "weight_decay": 0}


def test_settings_that_diverge_are_left_out() -> None:
    noise = _noise(0.001)
    trials = _grid(lambda rate, decay, seed: np.inf if rate > 0.02 and not seed else 0.9 + rate + noise())
    found = advise(trials)
    assert {setting.values["learning_rate"] for setting in found.tied} == {0.01}
    assert "6 settings with failed runs" in found.sentence
    nothing = advise(_grid(lambda *_: np.nan))
    assert (nothing.best, nothing.tied, nothing.confident) == (None, (), False)


def test_more_seeds_for_some_settings_are_used() -> None:
    noise = _noise(0.003)
    surface = {rate: 0.9 - 0.02 * abs(place - 4) for place, rate in enumerate(_RATES)}
    frame = pd.DataFrame(
        {"learning_rate": rate, "seed": seed, "score": surface[rate] + 0.1 * seed + noise()}
        for rate in _RATES
        for seed in range(12 if rate in (0.003, 0.01) else 3)
    )
    found = advise(from_frame(frame, "score", False))
    assert [setting.values for setting in found.tied] == [{"learning_rate": 0.01}]
    assert found.best is not None
    assert found.best.seeds == 12


def test_the_order_of_rows_changes_nothing() -> None:
    noise = _noise(0.01)
    trials = _grid(lambda rate, decay, _: -0.02 * abs(np.log10(rate) + 2) + noise())
    frame = trials.frame.drop(columns=["utility", "status", "test"])
    shuffled = frame.sample(frac=1, random_state=0)
    found = [advise(from_frame(each, "value", False, hyperparameters=trials.names)) for each in (frame, shuffled)]
    assert found[0].sentence == found[1].sentence
    assert {str(each.values) for each in found[0].tied} == {str(each.values) for each in found[1].tied}


def test_cheapest_and_most_robust_of_the_tied() -> None:
    noise = _noise(0.001)
    frame = pd.DataFrame(
        {"learning_rate": rate, "epochs": epochs, "seed": seed, "score": (5e-4 < rate < 0.05) + noise()}
        for rate, epochs, seed in itertools.product(_RATES, (5, 10), range(3))
    )
    found = advise(from_frame(frame, "score", False, hyperparameters=["learning_rate", "epochs"]))
    assert {setting.values["learning_rate"] for setting in found.tied} == {1e-3, 3e-3, 1e-2, 3e-2}
    assert found.cheapest is not None
    assert found.cheapest.values["epochs"] == 5
    assert found.robust is not None
    assert found.robust.values["learning_rate"] in (3e-3, 1e-2)


def _axes(command: str | None) -> dict[str, list[float | int | str]]:
    """Returns the axes of a command, as finetune itself reads them."""
    assert command is not None
    flags = command.replace("'", "").split(" --")
    grids = [flag.removeprefix("grid=") for flag in flags if flag.startswith("grid=")]
    seeds = [int(flag.removeprefix("seeds=")) for flag in flags if flag.startswith("seeds=")]
    return parse_axes(grids, seeds[0] if seeds else None)


def test_best_at_an_edge_is_followed_by_two_half_decades() -> None:
    noise = _noise(0.001)
    command = [*_COMMAND, "--grid=learning_rate=log:1e-4:1e-1:7", "--grid", "weight_decay=0,0.01,0.1", "--seeds=3"]
    found = advise(_grid(lambda rate, decay, _: 0.1 * np.log10(rate) + noise(), command=command))
    assert _axes(found.next_command) == {
        "learning_rate": [0.3, 1.0],
        "weight_decay": [0.0, 0.01, 0.1],
        "seed": [0, 1, 2],
    }
    assert found.next_command is not None
    assert found.next_command.startswith(
        "python -m finetune --config=configs/quickstart.py '--workdir=runs/a b' --grid"
    )
    assert "0.1, is the largest" in found.next_reason


def test_a_lone_peak_is_refined() -> None:
    noise = _noise(0.001)
    surface: Surface = lambda rate, decay, _: -abs(np.log10(rate) + 2) + noise()  # noqa: E731
    axes = _axes(advise(_grid(surface, command=_COMMAND)).next_command)
    assert axes == {"learning_rate": [0.0055, 0.017], "weight_decay": [0.0, 0.01, 0.1]}


def test_single_runs_are_repeated() -> None:
    found = advise(_grid(lambda rate, *_: -abs(np.log10(rate) + 2), seeds=1, command=_COMMAND))
    assert _axes(found.next_command) == {"seed": [0, 1, 2]}


def test_noise_is_followed_by_more_seeds() -> None:
    noise = _noise(0.01)
    found = advise(_grid(lambda *_: 0.9 + noise(), command=_COMMAND))
    axes = _axes(found.next_command)
    assert axes.pop("seed") == list(range(found.seeds_needed or 0))
    assert axes == {"learning_rate": list(_RATES), "weight_decay": list(_DECAYS)}


def test_divergence_everywhere_is_followed_by_smaller_rates() -> None:
    found = advise(_grid(lambda *_: np.nan, command=_COMMAND))
    assert _axes(found.next_command)["learning_rate"] == [1e-5, 3e-5]


def test_what_is_settled_is_followed_by_what_was_never_varied() -> None:
    # Two values tie in the middle: nothing to extend, to refine or to repeat.
    noise = _noise(0.001)
    surface: Surface = lambda rate, *_: -min(abs(np.log10(rate) + 2), abs(np.log10(rate) + 1.523))  # noqa: E731
    found = advise(_grid(lambda *each: surface(*each) + noise(), command=_COMMAND, batch_size=32))
    axes = _axes(found.next_command)
    assert axes["batch_size"] == [16, 64]
    assert len(axes["learning_rate"]) == 3
    assert "batch_size was 32" in found.next_reason


def test_a_table_from_elsewhere_gets_values_to_try() -> None:
    noise = _noise(0.001)
    found = advise(_grid(lambda rate, *_: 0.1 * np.log10(rate) + noise()))
    assert found.next_command == "learning_rate = 0.3, 1"
