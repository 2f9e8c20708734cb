"""Whole studies of digits, from a config to the files of a work directory."""

import itertools
import json
import math
import shutil

import jax
import numpy as np
import pytest

from finetune.storage import checkpoint
from finetune.study import run, training
from tests.helpers.studies import EXAMPLES, NUMBERS, VIT, close, digits, document, rows_of

AXES = {"learning_rate": [0.003, 0.03], "batch_size": [8, 16], "epochs": [1, 2], "seed": [0, 1]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The work directory of a finished study of AXES."""
    workdir = tmp_path_factory.mktemp("finished") / "study"
    assert run.run(digits(), workdir, AXES).exit_status == 0
    return workdir


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it that a test may change."""
    return shutil.copytree(finished, tmp_path / "study")


def test_every_trial_once(finished):
    rows = rows_of(finished)
    settings = [tuple(row["hparams"][axis] for axis in AXES) for row in rows]
    assert sorted(settings) == sorted(itertools.product(*AXES.values()))
    assert len({row["id"] for row in rows}) == len(rows)
    assert {(row["status"], row["reason"], row["group"]) for row in rows} == {("complete", None, 0)}
    for row in rows:
        assert row["seed"] == row["hparams"]["seed"]
        assert row["steps"] == row["hparams"]["epochs"] * math.ceil(EXAMPLES / row["hparams"]["batch_size"])
        assert set(NUMBERS) <= row["metrics"].keys()


def test_curves_agree_with_trials(finished):
    curves = rows_of(finished, "curves.jsonl")
    for trial in rows_of(finished):
        rows = [row for row in curves if row["id"] == trial["id"]]
        assert [row["epoch"] for row in rows] == list(range(1, trial["hparams"]["epochs"] + 1))
        assert rows[-1]["step"] == trial["steps"]
        accuracies = [row["val_accuracy"] for row in rows]
        best = rows[accuracies.index(max(accuracies))]
        assert (trial["best"]["epoch"], trial["best"]["step"]) == (best["epoch"], best["step"])
        for name in ("train_loss", "val_loss", "val_accuracy"):
            assert trial["metrics"][name] == best[name]
            assert trial["last"][name] == rows[-1][name]
    assert len(curves) == sum(trial["hparams"]["epochs"] for trial in rows_of(finished))


def test_documents(finished):
    config = document(finished, "config.json")
    assert config.keys() >= {"config", "versions", "devices", "description"}
    assert config["config"]["model"]["width"] == VIT["width"]
    assert config["axes"] == AXES
    assert config["started_by"] is None  # from Python: there is no command to go on with
    assert len(config["description"]["data"]) == 64

    plan = document(finished, "plan.json")
    assert plan["trials"] == 16
    assert len(plan["groups"]) == 1
    group = plan["groups"][0]
    assert group.keys() >= {"signature", "trials", "chunk", "mode", "trunk", "bytes", "flops"}
    assert (group["trials"], group["chunk"], group["mode"]) == (16, 16, "vmap")

    summary = document(finished, "summary.json")
    assert [summary[key] for key in ("trials", "complete", "diverged", "failed")] == [16, 16, 0, 0]
    assert summary["compiles"]["train"] >= 1
    assert summary["seconds"].keys() >= {"load", "compile", "train"}


def test_best_weights_are_kept(finished):
    directory = finished / "checkpoints" / "trials"
    ranked = sorted((row["best"]["value"] for row in rows_of(finished)), reverse=True)
    kept = [row for row in rows_of(finished) if (directory / row["id"]).is_dir()]
    assert sorted((row["best"]["value"] for row in kept), reverse=True) == ranked[:3]
    assert {each.name for row in kept for each in (directory / row["id"]).iterdir()} == {"best", "last"}


def test_the_same_command_again_trains_nothing(copied, monkeypatch):
    before = {name: (copied / name).read_bytes() for name in ("trials.jsonl", "curves.jsonl")}
    monkeypatch.setattr(training, "train_chunk", lambda *arguments: pytest.fail("something is trained"))
    results = run.run(digits(), copied, AXES)
    assert results.exit_status == 0
    assert len(results.trials) == 16
    assert {name: (copied / name).read_bytes() for name in before} == before
    assert document(copied, "summary.json")["complete"] == 16


def test_table_has_a_row_for_each_trial(copied):
    table = run.run(digits(), copied, AXES).table()
    expected = {row["id"]: row for row in rows_of(copied)}
    assert set(table["id"]) == expected.keys()
    for _, row in table.iterrows():
        trial = expected[row["id"]]
        assert row["learning_rate"] == trial["hparams"]["learning_rate"]
        assert row["test_accuracy"] == trial["metrics"]["test_accuracy"]
        assert (row["best_epoch"], row["steps"]) == (trial["best"]["epoch"], trial["steps"])


def test_an_extended_grid_trains_what_is_new(copied):
    before = (copied / "trials.jsonl").read_text()
    results = run.run(digits(), copied, AXES | {"learning_rate": [*AXES["learning_rate"], 0.01]})
    assert len(results.trials) == 24
    after = (copied / "trials.jsonl").read_text()
    assert after.startswith(before)
    new = rows_of(copied)[16:]
    assert [row["hparams"]["learning_rate"] for row in new] == [0.01] * 8


def test_a_missing_trial_runs_again_with_the_same_result(copied):
    rows = rows_of(copied)
    lines = (copied / "trials.jsonl").read_text().splitlines(keepends=True)
    (copied / "trials.jsonl").write_text("".join(lines[:5] + lines[6:]))
    results = run.run(digits(), copied, AXES)
    again = rows_of(copied)
    assert (len(again), len(results.trials)) == (16, 16)
    assert again[:15] == rows[:5] + rows[6:]
    close(again[15:], rows[5:6], 1e-5)


def test_a_line_cut_short_runs_again(copied):
    rows = rows_of(copied)
    text = (copied / "trials.jsonl").read_text()
    (copied / "trials.jsonl").write_text(text[:-100])
    run.run(digits(), copied, AXES)
    whole = [line for line in (copied / "trials.jsonl").read_text().splitlines() if line.endswith("}")]
    close([json.loads(line) for line in whole], rows, 1e-5)


@pytest.mark.parametrize(
    "execution",
    [{"chunk": 5}, {"mode": "loop"}, {"mode": "loop", "epochs_on_device": "step"}, {"devices": 0}],
    ids=["chunks", "loop", "loop stepped", "all devices"],
)
def test_execution_does_not_change_results(finished, tmp_path, execution):
    run.run(digits(**execution), tmp_path / "study", AXES)
    close(rows_of(tmp_path / "study"), rows_of(finished), 1e-5)
    group = document(tmp_path / "study", "plan.json")["groups"][0]
    if "chunk" in execution:
        assert (group["chunk"] <= 5, group["chunks"] >= 4) == (True, True)
    if "mode" in execution:
        assert group["mode"] == "loop"


def test_a_diverging_trial_is_a_result(tmp_path):
    config = digits("last:1")
    config.optimizer.name = "sgd"
    config.hparams.epochs = 2
    results = run.run(config, tmp_path / "study", {"learning_rate": [0.1, 1e30], "seed": [0, 1]})
    assert results.exit_status == 0
    for row in rows_of(tmp_path / "study"):
        if row["hparams"]["learning_rate"] == 0.1:
            assert (row["status"], row["reason"]) == ("complete", None)
        else:
            assert row["status"] == "diverged"
            assert "not finite at update" in row["reason"]
    summary = document(tmp_path / "study", "summary.json")
    assert [summary[key] for key in ("complete", "diverged", "failed")] == [2, 2, 0]


def test_plan_only_trains_nothing(tmp_path, capsys):
    results = run.run(digits(), tmp_path / "study", AXES, plan_only=True)
    assert (results.exit_status, results.trials) == (0, [])
    assert document(tmp_path / "study", "plan.json")["trials"] == 16
    assert {each.name for each in (tmp_path / "study").iterdir()} == {"config.json", "lock", "plan.json"}


def test_a_sweep_pairs_axes(tmp_path):
    sweep = [{"learning_rate": 0.01, "batch_size": 8}, {"learning_rate": 0.02, "trainable": "bias"}]
    config = digits()
    config.hparams.epochs, config.hparams.batch_size = 1, 20
    run.run(config, tmp_path / "study", {"seed": [0, 1]}, sweep)
    found = sorted(
        tuple(row["hparams"][name] for name in ("learning_rate", "batch_size", "trainable", "seed"))
        for row in rows_of(tmp_path / "study")
    )
    assert found == [(0.01, 8, "head", 0), (0.01, 8, "head", 1), (0.02, 20, "bias", 0), (0.02, 20, "bias", 1)]
    assert document(tmp_path / "study", "plan.json")["trials"] == 4
    assert len(document(tmp_path / "study", "plan.json")["groups"]) == 2


def test_a_study_starts_from_the_best_weights_of_another(tmp_path):
    first = digits("all")
    first.data.classes = tuple("01234")
    first.data.train_examples = 0
    run.run(first, tmp_path / "first", {"learning_rate": [1e-4, 3e-3], "epochs": [3]})
    second = digits("head")
    second.data.classes, second.data.train_examples = tuple("56789"), 50
    second.model.pretrained = str(tmp_path / "first")
    for size in ("width", "depth", "heads", "mlp_width", "patch_size"):
        setattr(second.model, size, 0)
    second.hparams.epochs = 1
    run.run(second, tmp_path / "second")

    best = max(rows_of(tmp_path / "first"), key=lambda row: row["best"]["value"])["id"]
    saved = checkpoint.load(tmp_path / "first" / "checkpoints" / "trials" / best / "best")
    base = checkpoint.load(tmp_path / "second" / "checkpoints" / "base")
    drawn = checkpoint.load(tmp_path / "first" / "checkpoints" / "base")
    assert saved.keys() == base.keys()
    for path, leaf in base.items():
        same = np.array_equal(leaf, saved[path])
        assert same if not path.startswith("head/") else path == "head/bias" or not same
        assert path.startswith("head/") or not np.array_equal(leaf, drawn[path])
    assert document(tmp_path / "second", "config.json")["architecture"]["width"] == VIT["width"]


def test_out_of_memory_goes_on_in_smaller_chunks(tmp_path, monkeypatch):
    axes = {"learning_rate": [0.003, 0.03], "seed": [0, 1]}
    expected = run.run(digits(), tmp_path / "plenty", axes)
    train_chunk, sizes = training.train_chunk, []

    def scarce(group, population, *rest):
        sizes.append(population.size)
        if population.size > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")
        return train_chunk(group, population, *rest)

    monkeypatch.setattr(training, "train_chunk", scarce)
    found = run.run(digits(), tmp_path / "scarce", axes)
    assert sizes == [4, 2, 2]
    close(found.trials, expected.trials, 1e-5)


def test_results_have_a_row_for_each_asked_assignment_in_that_order(copied):
    asked = [
        {"learning_rate": 0.03, "batch_size": 16, "epochs": 2, "seed": 1},
        {"learning_rate": 0.003, "batch_size": 8, "epochs": 1, "seed": 0},
        {"learning_rate": np.float32(0.03), "batch_size": np.int64(16), "epochs": 2.0, "seed": "1"},  # the first again
        {"learning_rate": 0.03, "batch_size": 8, "epochs": 1, "seed": 0},
    ]
    found = run.run(digits(), copied, sweep=asked)
    rows = [{name: float(value) for name, value in each.items()} for each in asked]
    rows[2]["learning_rate"] = 0.03
    assert [{name: row["hparams"][name] for name in AXES} for row in found.trials] == rows
    assert found.table()[list(AXES)].astype(float).to_dict("records") == rows
    by_id = {row["id"]: row["metrics"]["val_loss"] for row in rows_of(copied)}
    assert found.table()["val_loss"].tolist() == [by_id[row["id"]] for row in found.trials]
    assert len(set(found.table()["val_loss"])) == 3
