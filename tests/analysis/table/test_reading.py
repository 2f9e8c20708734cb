"""How a table was read: a table of runs with known axes, seeds and measured columns; where it is shown; flags."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest

from finetune.analysis.answer import analyse
from finetune.analysis.table.columns import Asked
from finetune.analysis.table.trials import Trials, from_frame, read_study, read_table
from finetune.errors import UserError
from finetune.report import __main__ as command
from finetune.report import interpretation, page
from tests.helpers import reports

RUNS = Path(__file__).parents[2] / "tables" / "wandb_hf_trainer.csv"


def test_a_table_of_hugging_faces_trainer() -> None:
    trials = read_table(RUNS, "eval/accuracy")
    assert trials.names == ["learning_rate", "per_device_train_batch_size"]
    assert (trials.maximize, trials.design, len(trials.frame)) == (True, "grid", 24)
    read = trials.reading
    assert read is not None
    assert (read.rows, read.used, read.seeds, read.not_used) == (24, 24, ("seed",), ())
    measured = "eval/loss Runtime total_flos eval/samples_per_second eval/steps_per_second train/global_step"
    measured += " train/grad_norm train/learning_rate train_samples_per_second gpu_memory_gb"
    assert set(read.measured) == set(measured.split())
    means = trials.frame.groupby(trials.names)["value"].mean()
    assert means.idxmax() == (3e-5, 32)
    assert means.max() == pytest.approx(0.8810, abs=1e-3)


def runs(state: str, tmp_path: Path) -> Trials:
    frame = pd.read_csv(RUNS)
    frame.loc[frame["eval/accuracy"].idxmax(), "State"] = state
    frame.to_csv(tmp_path / "runs.csv", index=False)
    return read_table(tmp_path / "runs.csv", "eval/accuracy")


@pytest.mark.parametrize(
    "state, status, why",
    [("running", "stopped", "still running"), ("preempted", "stopped", "preempted"), ("crashed", "failed", "crashed")],
)
def test_a_run_that_is_not_final_is_kept_and_no_evidence(state: str, status: str, why: str, tmp_path: Path) -> None:
    trials = runs(state, tmp_path)
    (row,) = trials.frame[trials.frame["status"] == status].to_dict("records")
    assert np.isnan([row["value"], row["utility"], row["test"]]).all()
    assert trials.reading is not None
    assert [(each.number, each.why) for each in trials.reading.not_used] == [(1, why)]
    assert f"23 of 24 with a result; 1 not used: {why}" in "\n".join(interpretation.lines(trials))


def test_the_reading_is_shown_first(tmp_path: Path) -> None:
    trials = runs("running", tmp_path)
    html = page.render(analyse(trials), [])
    first = html[html.index('<section id="answer">') : html.index("</section>")]
    for words in ("How this table was read", "1 not used: still running", "learning_rate, per_device_train_batch_size"):
        assert words in first
        assert words in "\n".join(interpretation.lines(trials))
    workdir = reports.write_study(tmp_path / "study")
    assert interpretation.block(read_study(workdir)) == ""


def test_the_command_says_how_a_table_was_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command._run([f"--trials={RUNS}", "--metric=eval/loss", f"--to={tmp_path}", "--ignore=Name,train/grad_norm"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "How this table was read:"
    assert any("eval/loss, lower is better (eval/loss names loss)" in line for line in lines[:8])
    assert all(len(line) <= 120 for line in lines[:12])


@pytest.mark.parametrize(
    "asked, said",
    [
        (
            Asked(hyperparameters=("learning_rat",)),
            "--hyperparameters is 'learning_rat', .* did you mean 'learning_rate'",
        ),
        (Asked(ignore=("Nmae",)), "--ignore is 'Nmae', .* did you mean 'Name'"),
        (Asked(seed_column="sead"), "--seed_column is 'sead', .* did you mean 'seed'"),
        (Asked(("learning_rate",), ("learning_rate",)), "'learning_rate' is given in --hyperparameters and --ignore"),
        (Asked(ignore=("eval/accuracy",)), "'eval/accuracy' is given in --metric and --ignore"),
        (Asked(hyperparameters=()), "--hyperparameters names no column"),
    ],
)
def test_typos_in_flags_are_one_line(asked: Asked, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_table(RUNS, "eval/accuracy", None, asked)


def test_what_is_said_of_columns_is_followed() -> None:
    trials = read_table(
        RUNS, "eval/accuracy", None, Asked(("learning_rate", "gpu_memory_gb"), ("eval/loss",), "Runtime")
    )
    assert trials.names == ["learning_rate", "gpu_memory_gb"]
    assert trials.reading is not None
    assert trials.reading.seeds == ("Runtime",)
    assert trials.reading.passed_over["as --ignore says"] == ("eval/loss",)
    assert "train/grad_norm" in trials.reading.passed_over["not named in --hyperparameters"]


@pytest.mark.parametrize("flags", [["--minimize", "--maximize"], ["--metric=x", "--ignore=a", "."]])
def test_flags_that_contradict(flags: list[str], tmp_path: Path) -> None:
    arguments = flags if "." in flags else [f"--trials={RUNS}", "--metric=eval/loss", *flags]
    with pytest.raises(UserError, match="one of both|--metric and --ignore given for a study"):
        command._run(arguments)


def test_numbers_that_nobody_chose_are_told_by_their_values() -> None:
    """Names that say nothing: distinct in every row, and different where all that was listed agrees."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame([(rate, seed) for rate in (0.1, 0.01) for seed in range(4)] * 2, columns=["lr", "seed"])
    frame = frame.assign(blob=rng.normal(size=16), accuracy=rng.uniform(size=16))
    found = from_frame(frame, "accuracy", False).reading
    assert found is not None
    assert (found.hyperparameters, found.measured) == (("lr",), ("blob",))
    drawn = frame.assign(lr=10 ** rng.uniform(-5, -1, 16), optimizer=["a", "b"] * 8)
    assert from_frame(drawn, "accuracy", False).names == ["lr", "blob", "optimizer"]  # a random search has others drawn


def test_names_that_sound_measured_and_were_chosen() -> None:
    """Passing them over would make repeats of rows that differ in them."""
    names = ["per_gpu_batch_size", "final_div_factor", "focal_loss_gamma", "model_id", "rank", "precision"]
    values = [(8, 16), (10, 100), (1, 2), ("a", "b"), (4, 8), (16, 32)]
    frame = pd.DataFrame(itertools.product(*values), columns=names).assign(accuracy=np.arange(64) / 64)
    assert from_frame(frame, "accuracy", False).names == names


def test_rows_of_a_setting_that_differ_in_what_may_have_been_chosen_are_no_repeats() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"params_lr": [0.1, 0.2] * 8, "value": rng.uniform(size=16), "user_attrs_size": rng.normal(size=16)}
    )
    assert from_frame(frame, "value", False).frame["seed"].nunique() == 8  # a number of its own in every row: measured
    with pytest.raises(UserError, match="rows are repeats but for 'user_attrs_data' .* --ignore=user_attrs_data"):
        from_frame(frame.assign(user_attrs_data=["a"] * 8 + ["b"] * 8), "value", False)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_direction_of_an_optuna_study_is_followed(direction: str, tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    study = optuna.create_study(
        storage=storage, study_name="a", direction=direction, sampler=optuna.samplers.TPESampler(seed=0)
    )
    study.optimize(lambda trial: trial.suggest_float("accuracy_weight", 0, 1), n_trials=12)
    trials = read_table(storage, "value")
    assert trials.maximize == (direction == "maximize")
    assert trials.frame.loc[trials.frame["utility"].idxmax(), "value"] == study.best_value
    assert trials.design == "adaptive"
    with pytest.raises(UserError, match=f"the Optuna study 'a' {direction}s it"):
        read_table(storage, "value", direction == "maximize")
    many = optuna.create_study(storage=storage, study_name="b", directions=["minimize", "maximize"])
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        many.set_metric_names(["cost", "gain"])
    many.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 1.0), n_trials=3)
    with pytest.raises(UserError, match=r"2 objectives, allowed: values_cost \(minimized\), values_gain \(maximized\)"):
        read_table(f"{storage}#b", "value")
    assert not read_table(f"{storage}#b", "values_cost").maximize
    assert not read_table(f"{storage}#b", "cost").maximize


def test_control_characters_do_not_end_the_process(tmp_path: Path) -> None:
    """The chart library ends the whole process at such a character, past any exception: so in a process of its own."""
    file = tmp_path / "runs.csv"
    file.write_bytes(b"l\x00r,kind\x1b,accuracy\n0.1,a\x1b[31m,0.7\n0.1,b,0.8\n0.01,a\x1b[31m,0.9\n0.01,b,0.95\n")
    arguments = [sys.executable, "-m", "finetune.report", f"--trials={file}", "--metric=accuracy"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-400:]
    assert "control characters" in done.stdout


def test_a_table_too_wide_to_look_at_is_refused(tmp_path: Path) -> None:
    names = ",".join(f"c{place}" for place in range(10_000))
    (tmp_path / "wide.csv").write_text(f"accuracy,{names}\n" + ("0.5" + ",1" * 10_000 + "\n") * 3)
    with pytest.raises(UserError, match="10,001 columns, more than 1,000"):
        read_table(tmp_path / "wide.csv", "accuracy")
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 100))).add_prefix("params_c").assign(accuracy=1.0)
    with pytest.raises(UserError, match="100 columns could be hyperparameters, .* --hyperparameters=NAME,NAME"):
        from_frame(frame, "accuracy", False)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_marked_encodings(encoding: str, ending: str, tmp_path: Path) -> None:
    text = {"csv": "lr,acc\n0.1,0.5\n0.2,0.6\n", "jsonl": '{"lr": 0.1, "acc": 0.5}\n{"lr": 0.2, "acc": 0.6}\n'}[ending]
    (tmp_path / f"a.{ending}").write_bytes(text.encode(encoding))
    assert read_table(tmp_path / f"a.{ending}", "acc").names == ["lr"]
    (tmp_path / f"b.{ending}").write_bytes(text.replace("lr", "é").encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8 at byte"):
        read_table(tmp_path / f"b.{ending}", "acc")


@pytest.mark.parametrize(
    "metric, test",
    [
        ("val", "test"),
        ("val_acc", "test_acc"),
        ("valid accuracy", "test accuracy"),
        ("eval/accuracy", "test/accuracy"),
        ("accuracy", "accuracy_test"),
        ("metrics.dev_f1", "metrics.test_f1"),
    ],
)
def test_the_metric_on_the_test_split_is_found(metric: str, test: str) -> None:
    frame = pd.DataFrame({"lr": [0.1, 0.2], metric: [1.0, 2.0], test: [3.0, 4.0], "test_other": [5.0, 6.0]})
    trials = from_frame(frame, metric, False)
    assert trials.frame["test"].tolist() == [3, 4]
    assert trials.names == ["lr"]
