"""Files of trials that others wrote: delimited text, JSON, Optuna storages, and damaged ones."""

import json
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest

from finetune.analysis.statistics.anova import anova
from finetune.analysis.table.trials import from_frame, read_table
from finetune.errors import UserError


def test_an_optuna_study_is_read_with_its_scales(tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("lr", 1e-3, 2e-3, log=True)
        layers = trial.suggest_int("layers", 1, 100)
        kind = trial.suggest_categorical("kind", ["a", "b", None])
        trial.set_user_attr("test_loss", rate)
        if trial.number == 3:
            raise optuna.TrialPruned
        return np.log(rate) + layers / 100 + (kind == "a")

    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(storage=storage, study_name="mine", sampler=sampler)
    study.optimize(objective, n_trials=12)
    trials = read_table(f"{storage}#mine", "value", True)
    assert {axis.name: axis.scale for axis in trials.axes} == {"lr": "log", "layers": "linear", "kind": "category"}
    assert trials.frame["status"].tolist() == ["complete"] * 3 + ["stopped"] + ["complete"] * 8
    assert trials.frame["value"].min() == study.best_value
    assert len(trials.frame["seconds"].dropna()) == 12
    for other in (Path(f"{storage}#mine"), tmp_path / "optuna.db"):
        pd.testing.assert_frame_equal(read_table(other, "value", True).frame, trials.frame)
    found = anova(trials)
    assert found is not None
    assert found.method == "random forest fANOVA"
    with pytest.raises(UserError, match="study in --trials is 'yours', allowed: mine"):
        read_table(f"{storage}#yours", "value", True)


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl"])
def test_formats_give_the_same_trials(tmp_path: Path, ending: str) -> None:
    frame = pd.DataFrame({"lr": [0.1, 0.01] * 3, "opt": ["a", "a", "b", "b", "a", "b"], "score": np.arange(6.0)})
    file = tmp_path / f"trials.{ending}"
    if ending == "csv":
        frame.to_csv(file, index=False)
    elif ending == "tsv":
        frame.to_csv(file, index=False, sep="\t")
    elif ending == "json":
        file.write_text(json.dumps({"trials": frame.to_dict("records")}))
    else:
        rows = [
            {"params": {"lr": row.lr, "opt": row.opt}, "metrics": {"score": row.score}} for row in frame.itertuples()
        ]
        file.write_text("\n".join(json.dumps(row) for row in rows))
    trials = read_table(file, "score", False)
    pd.testing.assert_frame_equal(trials.frame, from_frame(frame, "score", False).frame)


@pytest.mark.parametrize(
    "name,content,metric,message",
    [
        ("absent.csv", None, "score", "which is no file, allowed: a file ending in .csv, .tsv"),
        ("trials.xlsx", "x", "score", "ending of --trials is '.xlsx', allowed: .csv"),
        (
            "a.csv",
            "lr,accuracy\n1,2\n2,3\n",
            "acuracy",
            "--metric is 'acuracy', allowed: accuracy, lr; did you mean 'accuracy'",
        ),
        ("a.csv", "lr,score\n1,good\n2,bad\n", "score", "--metric=score holds 'good', allowed: a column of numbers"),
        ("a.csv", "lr,score\n", "score", "has no rows, allowed: a table with a row for each trial"),
        ("a.csv", "", "score", "which cannot be read"),
        ("a.json", "{", "score", "which cannot be read"),
        ("a.json", "[1]", "score", "no list of objects"),
        ("a.jsonl", "{\n", "score", "which cannot be read"),
        ("a.csv", "lr,score\n1,1\n1,2\n", "score", "no hyperparameter has two values, allowed: one that varies"),
        ("a.db", "not a database", "score", "allowed: an Optuna storage"),
    ],
)
def test_bad_tables_are_one_line(tmp_path: Path, name: str, content: str | None, metric: str, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as caught:
        read_table(tmp_path / name, metric, False)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
