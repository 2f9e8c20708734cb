"""Each finding on a table made so that it is true, and its absence where it is not."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from finetune.analysis import experiment
from finetune.analysis.diagnosis import Finding, diagnose
from finetune.analysis.evidence import weigh
from finetune.analysis.table.axis import make_axis
from finetune.analysis.table.trials import Trials, from_frame
from finetune.trials import hparams
from finetune.trials.grid import parse_axis

_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
_COMMAND = {"command": ["finetune/__main__.py", "--config=c.py", "--workdir=w"]}


def _trials(
    surface: Callable[[float, float], float],
    seeds: int = 3,
    noise: float = 0.001,
    rates: Sequence[float] = _RATES,
    **more: Any,
) -> Trials:
    generator = np.random.default_rng(0)
    rows = [
        {"id": f"{rate}/{decay}/{seed}", "learning_rate": rate, "weight_decay": decay, "seed": seed}
        | {"val_accuracy": surface(rate, decay) + noise * generator.normal()}
        for rate, decay, seed in itertools.product(rates, (0.0, 0.01, 0.1), range(seeds))
    ]
    return _from(pd.DataFrame(rows), **more)


def _from(frame: pd.DataFrame, **more: Any) -> Trials:
    names = ["learning_rate", "weight_decay"]
    return from_frame(frame, "val_accuracy", False, hyperparameters=names, **{"provenance": _COMMAND, **more})


def _peak(rate: float, decay: float = 0.0) -> float:
    return 0.9 - 0.1 * abs(np.log10(rate) + 2)


def _found(trials: Trials, kind: str) -> list[Finding]:
    return [finding for finding in diagnose(weigh(trials)) if finding.kind == kind]


def test_best_at_an_upper_edge_names_what_lies_beyond() -> None:
    (edge,) = _found(_trials(lambda rate, _: 0.1 * np.log10(rate)), "edge")
    assert (edge.severity, edge.axis) == ("warning", "learning_rate")
    assert edge.sentence == "The best learning_rate, 0.1, is the largest that was tried; 0.3 or 1 may be better."
    assert edge.command == "python -m finetune --config=c.py --workdir=w --grid=learning_rate=0.3,1"


def test_best_at_a_lower_edge_names_what_lies_below() -> None:
    (edge,) = _found(_trials(lambda rate, _: -0.1 * np.log10(rate)), "edge")
    assert "0.0001, is the smallest that was tried; 3e-05 or 1e-05 may be better" in edge.sentence


def test_an_edge_that_is_as_good_as_the_inside_is_only_noted() -> None:
    level = {0.03: 0.6, 0.1: 0.602}  # two deviations of the noise apart
    (edge,) = _found(_trials(lambda rate, decay: level.get(rate, 0.5) - 0.05 * (decay != 0.01)), "edge")
    assert (edge.severity, edge.command) == ("note", None)
    assert "0.1, is the largest that was tried; values further inside are as good" in edge.sentence


def test_best_inside_or_at_zero_is_no_edge() -> None:
    assert not _found(_trials(lambda rate, decay: _peak(rate) - decay), "edge")


def test_an_axis_without_effect_has_no_edge() -> None:
    assert not _found(_trials(lambda rate, decay: _peak(rate)), "edge")
    assert not _found(_trials(lambda *_: 0.9), "edge")


def test_divergence_is_counted_and_placed() -> None:
    trials = _trials(lambda rate, _: np.nan if rate > 0.02 else _peak(rate))
    trials = trials._replace(frame=trials.frame.replace({"status": {"failed": "diverged"}}))
    share, cliff = _found(trials, "diverged")
    words = "18 of 63 trials (29 %) diverged, 18 of them among the 18 with learning_rate 0.03 and above."
    assert share.sentence == words
    assert cliff.sentence.startswith("One step above the best learning_rate, at 0.03, 3 of 3 trials diverged")


def test_no_result_at_all_asks_for_smaller_rates() -> None:
    (lost,) = _found(_trials(lambda *_: np.nan), "failed")
    assert lost.sentence.startswith("63 of 63 trials (100 %) came to no result.")
    assert lost.command is not None
    assert lost.command.endswith("--grid=learning_rate=1e-05,3e-05")


def test_seed_noise_is_measured_and_compared() -> None:
    (noise,) = _found(_trials(lambda rate, _: _peak(rate), noise=0.01, seeds=20), "noise")
    assert noise.severity == "note"
    deviation = float(noise.sentence.split("moves by ")[1].split(" ")[0])
    assert deviation == pytest.approx(0.01, rel=0.35)
    (chance,) = _found(_trials(lambda *_: 0.9, noise=0.01), "noise")
    assert chance.severity == "warning"
    assert "chance alone explains that" in chance.sentence


def test_single_runs_are_named_and_repeated() -> None:
    (noise,) = _found(_trials(lambda rate, _: _peak(rate), seeds=1), "noise")
    assert noise.sentence.startswith("All 21 settings ran once")
    assert noise.command == "python -m finetune --config=c.py --workdir=w --seeds=3"


def test_a_lone_good_value_is_too_coarse() -> None:
    (coarse,) = _found(_trials(lambda rate, _: _peak(rate)), "coverage")
    assert coarse.sentence.startswith("Of 7 values of learning_rate only 0.01 is among the best: 0.0055 or 0.017")
    assert not _found(_trials(lambda rate, _: float(0.002 < rate < 0.02)), "coverage")


def _with_curves(metric: Sequence[float], train: Sequence[float], validation: Sequence[float]) -> Trials:
    """Returns a study whose trials all have these values of epoch 1, 2, ..."""
    trials = _trials(lambda rate, _: _peak(rate))
    epochs = np.arange(1, len(metric) + 1)
    curve = {"epoch": epochs, "val_accuracy": metric, "train_loss": train, "val_loss": validation}
    curves = pd.concat([pd.DataFrame({"id": identity, **curve}) for identity in trials.frame["id"]], ignore_index=True)
    frame = trials.frame.assign(
        best_epoch=int(np.argmax(metric)) + 1, epochs=len(metric), val_accuracy=trials.frame["value"]
    )
    return _from(frame.drop(columns=["value", "utility", "status", "test"]), curves=curves)


_FALLING = np.linspace(1.0, 0.1, 20)


def test_a_best_epoch_that_came_early() -> None:
    rising = np.minimum(np.arange(20), 5) / 10
    (late,) = _found(_with_curves(rising, _FALLING, _FALLING + 0.5), "epochs")
    assert "best at epoch 6 of 20" in late.sentence
    assert "no better at the end: 9 epochs should do" in late.sentence
    (worse,) = _found(_with_curves(rising - np.arange(20) * 0.01, _FALLING, _FALLING), "epochs")
    assert "0.1400 worse at the end" in worse.sentence


def test_a_best_epoch_that_came_last() -> None:
    (short,) = _found(_with_curves(np.arange(20) / 20, _FALLING, _FALLING), "epochs")
    assert short.severity == "warning"
    assert "best at epoch 20 of 20" in short.sentence
    assert "still gained 0.2000 in the last fifth" in short.sentence
    assert short.command is not None
    assert "--grid=epochs=40" in short.command
    level = np.concatenate([np.arange(15) / 15, 1 + np.arange(5) * 1e-6])
    (enough,) = _found(_with_curves(level, _FALLING, _FALLING), "epochs")
    assert "levelled off" in enough.sentence


def test_overfitting_and_underfitting() -> None:
    metric = np.arange(20) / 20
    rising = np.concatenate([np.linspace(1.0, 0.5, 10), np.linspace(0.5, 0.8, 10)])
    (over,) = _found(_with_curves(metric, _FALLING, rising), "fit")
    assert over.severity == "warning"
    assert "ends at 0.1000, validation loss at 0.8000, up from 0.5000: overfits" in over.sentence
    (under,) = _found(_with_curves(metric, _FALLING, _FALLING), "fit")
    assert "no gap" in under.sentence
    (gap,) = _found(_with_curves(metric, _FALLING, _FALLING + 0.4), "fit")
    assert "a gap of 0.4000" in gap.sentence


def test_the_error_of_a_small_validation_split() -> None:
    splits = {"validation": 400}
    (split,) = _found(_trials(lambda *_: 0.9, noise=0.0, provenance={**_COMMAND, "splits": splits}), "split")
    assert "400 validation examples" in split.sentence
    assert "±0.0294" in split.sentence  # 1.96 · √(0.9 · 0.1 / 400)


@pytest.mark.parametrize(
    "name, values, up, down",
    [
        ("learning_rate", (1e-4, 1e-3), (3e-3, 1e-2), (3e-5, 1e-5)),
        ("learning_rate", (0.0002, 0.002, 0.02), (0.1, 0.3), (0.0001, 3e-5)),
        ("weight_decay", (0.0, 1e-3, 1e-2), (0.03, 0.1), ()),
        ("dropout", (0.0, 0.1, 0.2), (0.3, 0.4), ()),
        ("label_smoothing", (0.7, 0.8, 0.9), (), (0.6, 0.5)),
        ("batch_size", (8, 16, 32), (64, 128), (4, 2)),
        ("batch_size", (1, 8), (64, 512), ()),
        ("epochs", (5, 10, 15), (20, 25), ()),
    ],
)
def test_values_beyond_an_axis_are_allowed_ones(
    name: str, values: tuple[float, ...], up: tuple[float, ...], down: tuple[float, ...]
) -> None:
    axis = make_axis(name, values)
    for upward, expected in ((True, up), (False, down)):
        found = experiment.beyond(axis, upward)
        assert found == pytest.approx(expected)
        hparams.check({name: found[-1]} if found else {})
        if found:
            assert parse_axis(f"{name}={','.join(map(str, found))}")[1] == list(found)


def test_a_command_of_a_chain_names_the_arms_that_it_starts_from() -> None:
    trials = _trials(lambda rate, decay: rate)
    command = experiment.command(trials, {"trainable": ["all", "head>last:1>all"]})
    assert command.endswith("'--grid=trainable=all,head,head>last:1,head>last:1>all'")
