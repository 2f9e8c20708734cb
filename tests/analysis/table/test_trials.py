"""Tables of trials as they are found: studies of ours, tables of others, and what may be wrong with them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from finetune.analysis.answer import analyse
from finetune.analysis.table.axis import Axis, make_axis
from finetune.analysis.table.trials import Trials, from_frame, read_study, read_table
from finetune.errors import UserError
from finetune.storage import records


def scales(trials: Trials) -> dict[str, str]:
    return {axis.name: axis.scale for axis in trials.axes}


@pytest.mark.parametrize(
    "values,scale",
    [
        ([1e-5, 1e-4, 1e-3], "log"),
        ([1e-8, 1e4], "log"),
        ([0, 0.001, 0.1], "log"),
        ([8, 16, 32, 64], "log"),
        ([0, 0.1, 0.2], "linear"),
        ([0.9, 0.99, 0.999], "linear"),
        ([0, 0.1], "linear"),
        ([-1, 0, 100], "linear"),
        (np.random.default_rng(0).uniform(0, 1, 1000).tolist(), "linear"),
        ((10 ** np.random.default_rng(0).uniform(-5, -1, 1000)).tolist(), "log"),
        (["adam", "sgd"], "category"),
        ([True, False], "category"),
    ],
)
def test_scale_of_an_axis(values: list[Any], scale: str) -> None:
    assert make_axis("x", values).scale == scale


@pytest.mark.parametrize(
    "name, values, scale",
    [
        ("lr", [0.001, 0.005, 0.01], "log"),
        ("optimizer.learningRate", [0.001, 0.005, 0.01], "log"),
        ("weight_decay", [0, 0.01, 0.05, 0.1], "log"),
        ("learning_rate", [1e-5, 2e-5, 3e-5, 4e-5, 5e-5], "linear"),
        ("dropout_rate", [0.01, 0.05, 0.1], "linear"),
        ("layer_decay", [0.1, 0.5, 0.9], "linear"),
        ("lr", [-0.1, 0.001, 0.01], "linear"),
    ],
)
def test_rates_and_decays_are_searched_by_factors(name: str, values: list[float], scale: str) -> None:
    assert make_axis(name, values).scale == scale


def test_positions_on_axes() -> None:
    decay = make_axis("weight_decay", [0.1, 0.0, 0.001, 0.01])
    assert decay == Axis("weight_decay", "log", (0, 0.001, 0.01, 0.1))
    np.testing.assert_allclose(decay.positions(decay.values), [-4, -3, -2, -1])
    assert make_axis("optimizer", ["sgd", "adam", "sgd"]).position("adam") == 1
    assert make_axis("dropout", [0.0, 0.2, 0.1]).position(0.2) == 0.2
    assert [decay.format(value) for value in decay.values] == ["0", "0.001", "0.01", "0.1"]
    assert decay.describe() == "0 to 0.1 (4 values)"


def write_study(workdir: Path, rows: list[dict[str, Any]]) -> None:
    config = {"config": {"evaluation": {"metric": "accuracy"}}, "command": ["finetune"], "axes": {}}
    records.write(workdir / "config.json", config)
    group = {"signature": {"trainable": "head", "micro_batch": 8}, "trials": 4, "chunk": 2}
    plan = {"groups": [{**group, "seconds": 8.0, "flops": 400.0, "bytes": 10}]}
    records.write(workdir / "plan.json", plan)
    records.append(workdir / "trials.jsonl", rows)


def trial(rate: float, seed: int, accuracy: float | None, status: str = "complete", **more: Any) -> dict[str, Any]:
    metrics = (
        {} if accuracy is None else {"val_accuracy": accuracy, "val_loss": 1 - accuracy, "test_accuracy": accuracy}
    )
    best = None if accuracy is None else {"epoch": 3, "step": 9, "value": accuracy}
    hparams = {"learning_rate": rate, "batch_size": 16, "epochs": 5, "seed": seed, "data_seed": 0, "trainable": "head"}
    row = {"id": f"{rate}-{seed}", "hparams": {**hparams, **more}, "status": status, "metrics": metrics, "best": best}
    return {**row, "steps": 15, "reason": None}


def test_a_study_of_ours(tmp_path: Path) -> None:
    rows = [trial(rate, seed, 0.5 + 100 * rate + 0.01 * seed) for rate in (1e-3, 3e-3) for seed in (0, 1)]
    lost = trial(1e-2, 0, 0.3, "diverged"), trial(1e-2, 1, None, "failed")
    write_study(tmp_path, [trial(1e-3, 0, 0.0), *rows, *lost])
    curves = [{"id": "0.001-0", "epoch": 1, "train_loss": loss} for loss in (9.0, 1.0)]
    records.append(tmp_path / "curves.jsonl", curves)
    trials = read_study(tmp_path)
    assert (trials.metric, trials.maximize, trials.complete) == ("val_accuracy", True, True)
    assert trials.axes == (Axis("learning_rate", "log", (0.001, 0.003, 0.01)),)
    assert trials.fixed == {"batch_size": 16, "epochs": 5, "trainable": "head"}
    np.testing.assert_allclose(trials.frame["value"], [0.6, 0.61, 0.8, 0.81, np.nan, np.nan])
    np.testing.assert_allclose(trials.filled, [0.6, 0.61, 0.8, 0.81, 0.6, np.nan])
    assert trials.frame["status"].tolist() == ["complete"] * 4 + ["diverged", "failed"]
    assert trials.frame["seed"].tolist() == [0, 1] * 3
    assert trials.frame[["seconds", "flops", "bytes"]].to_numpy().tolist() == [[2, 100, 5]] * 6
    assert trials.frame[["best_epoch", "epochs"]].iloc[0].tolist() == [3, 5]
    assert trials.curves.to_dict("records") == [curves[1]]
    assert trials.provenance["command"] == ["finetune"]


def test_a_study_without_a_trial_that_has_ended_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no trial that has ended, allowed: the work directory of a study"):
        read_study(tmp_path)


def test_seed_and_data_seed_that_both_vary_are_one_label(tmp_path: Path) -> None:
    rows = [trial(rate, seed, 0.5) for rate in (1e-3, 1e-2) for seed in (0, 1)]
    rows += [
        {**trial(rate, seed, 0.5, data_seed=1), "id": f"{rate}{seed}b"} for rate in (1e-3, 1e-2) for seed in (0, 1)
    ]
    write_study(tmp_path, rows)
    trials = read_study(tmp_path)
    assert trials.frame["seed"].nunique() == 4
    assert trials.complete


def test_settings_are_means_best_first() -> None:
    frame = pd.DataFrame({"x": [1, 1, 2, 2, 2], "seed": [0, 1, 0, 1, 2], "score": [5.0, 6.0, 1.0, 2.0, np.inf]})
    settings = from_frame(frame, "score", False).settings()
    assert settings["x"].tolist() == [1, 2]
    assert settings["n"].tolist() == [2, 3]
    values = [[5.0, 6.0], [1.0, 2.0, 1.0]]
    for row, numbers in zip(settings.itertuples(), values, strict=True):
        assert (row.mean, row.std) == pytest.approx((np.mean(numbers), np.std(numbers, ddof=1)))
    assert settings["diverged"].tolist() == pytest.approx([0, 1 / 3])


def test_columns_that_are_no_hyperparameters_are_passed_over_and_named(tmp_path: Path) -> None:
    rng, n = np.random.default_rng(0), 40
    frame = pd.DataFrame(
        {
            "Name": [f"run-{i}" for i in range(n)],
            "State": ["finished"] * (n - 2) + ["crashed", "running"],
            "Created": [f"2026-01-{1 + i % 28:02d}T10:00:00" for i in range(n)],
            "Runtime": rng.uniform(10, 20, n),
            "git_commit": [f"{i:040x}" for i in range(n)],
            "lr": np.repeat([1e-8, 1e-4, 1.0, 1e4], n // 4),
            "label_smoothing": np.tile([0.0, 0.1], n // 2),
            "epochs": np.repeat([1, 2], n // 2),
            "train_batch_size": np.tile([8, 8, 16, 16], n // 4),
            "activation": np.tile(["relu", "gelu"], n // 2),
            "width": 128,
            "val_acc": rng.uniform(0, 1, n),
            "test_acc": rng.uniform(0, 1, n),
            "best_val_acc": rng.uniform(0, 1, n),
            "train_loss": rng.uniform(0, 1, n),
            "f1": rng.uniform(0, 1, n),
            "_step": range(n),
        }
    )
    frame.to_csv(tmp_path / "runs.csv", index=False)
    trials = read_table(tmp_path / "runs.csv", "val_acc", False)
    expected = {
        "lr": "log",
        "label_smoothing": "linear",
        "epochs": "linear",
        "train_batch_size": "linear",
        "activation": "category",
    }
    assert scales(trials) == expected
    assert trials.fixed == {"width": 128}
    assert trials.frame["status"].tolist() == ["complete"] * (n - 2) + ["failed", "stopped"]
    assert trials.frame["value"].isna().tolist() == [False] * (n - 2) + [True, True]
    np.testing.assert_allclose(trials.frame["test"][: n - 2], frame["test_acc"][: n - 2])
    np.testing.assert_allclose(trials.frame["seconds"], frame["Runtime"])
    notes = " ".join(trials.notes)
    assert all(name in notes for name in ("Name", "Created", "git_commit", "best_val_acc", "f1", "_step"))
    assert "1 trials are no evidence: still running" in notes


@pytest.mark.parametrize("prefix", ["params_", "param_", "config.", "config/", "hparams.", "params."])
def test_prefixes_name_the_hyperparameters(prefix: str) -> None:
    frame = pd.DataFrame(
        {f"{prefix}C": [1, 10, 100], f"{prefix}time": [1, 2, 3], "other": [1, 2, 3], "score": [1.0, 2, 3]}
    )
    trials = from_frame(frame, "score", False)
    assert trials.names == ["C", "time"]
    assert trials.notes == ("columns passed over (without the prefix of a hyperparameter): other",)


def test_grid_search_of_scikit_learn() -> None:
    from sklearn.datasets import load_iris
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    search = GridSearchCV(SVC(), {"C": [0.1, 1, 10], "kernel": ["linear", "rbf"]}, cv=3).fit(
        *load_iris(return_X_y=True)
    )
    trials = from_frame(pd.DataFrame(search.cv_results_), "mean_test_score", False)
    assert scales(trials) == {"C": "log", "kernel": "category"}
    best = trials.settings().iloc[0]
    assert {"C": best["C"], "kernel": best["kernel"]} == search.best_params_


def test_missing_cells() -> None:
    n = 20
    frame = pd.DataFrame(
        {"lr": np.geomspace(1e-5, 1e-1, n), "act": ["relu", None] * (n // 2), "momentum": [0.9, None] * 10}
    )
    frame = frame.assign(score=np.arange(n, dtype=float))
    frame.loc[3, "lr"] = np.nan
    trials = from_frame(frame, "score", False)
    assert len(trials.frame) == n - 1
    assert trials.axes[1].values == ("relu", "(none)")
    assert trials.axes[2].values == ("0.9", "(none)")
    assert "1 trials without a value of lr are left out" in trials.notes
    assert "10 missing cells of act are (none)" in trials.notes
    assert "momentum is taken as categories: 50% of its cells are missing" in trials.notes


def test_results_that_are_missing_or_infinite_are_trials_without_a_result() -> None:
    frame = pd.DataFrame({"x": [1, 2, 3, 4], "loss": ["0.5", "nan", "inf", "OOM"]})
    trials = from_frame(frame, "loss", True)
    assert trials.frame["status"].tolist() == ["complete", "diverged", "diverged", "failed"]
    assert trials.frame["utility"].notna().tolist() == [True, False, False, False]
    np.testing.assert_array_equal(trials.filled, [-0.5, -0.5, -0.5, np.nan])


def test_repeats_without_seeds_are_counted() -> None:
    frame = pd.DataFrame({"x": [1, 2, 1, 2], "score": [1.0, 2, 3, 4]})
    for seeds in (None, [42] * 4, [5, 6, 7, 8]):
        trials = from_frame(frame if seeds is None else frame.assign(seed=seeds), "score", False)
        assert trials.frame["seed"].tolist() == [0, 0, 1, 1]
        assert trials.complete


def test_a_trial_that_repeats_another_with_its_seed_is_noted_and_the_grid_not_full() -> None:
    frame = pd.DataFrame({"x": [1, 1, 2, 2, 2, 2], "seed": [0, 1, 0, 1, 0, 1], "score": np.arange(6.0)})
    trials = from_frame(frame, "score", False)
    assert "2 trials repeat the hyperparameters and the seed of another" in trials.notes
    assert not trials.complete


def test_five_trials_and_twenty_thousand(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n in (5, 20_000):
        frame = pd.DataFrame(
            {"lr": 10 ** rng.uniform(-8, 4, n), "layers": rng.integers(1, 5, n), "score": rng.uniform(size=n)}
        )
        frame.to_csv(tmp_path / "trials.csv", index=False)
        trials = read_table(tmp_path / "trials.csv", "score", False)
        assert len(trials.frame) == n
        assert len(trials.settings()) == n
        assert trials.names == ["lr", "layers"]


def test_a_trial_that_starts_from_another_counts_what_that_one_took(tmp_path: Path) -> None:
    first, second, third = (trial(rate, 0, 0.5) for rate in (1e-3, 3e-3, 1e-2))
    write_study(tmp_path, [first, second | {"parent": first["id"]}, third | {"parent": second["id"]}])
    frame = read_study(tmp_path).frame
    assert frame["seconds"].tolist() == [2, 4, 6]
    assert frame["flops"].tolist() == [100, 200, 300]


@pytest.mark.parametrize("name", ["lost", "results"])
def test_a_hyperparameter_may_be_called_as_what_an_answer_counts(name: str) -> None:
    rows = [{"lr": lr, name: other, "score": lr} for lr in (0.01, 0.1, 1.0) for other in (0.0, 0.1, 0.5) for _ in "ab"]
    answer = analyse(from_frame(pd.DataFrame(rows), "score", False, hyperparameters=["lr", name]))
    assert answer.recommendation.best.values["lr"] == 1.0
