"""Studies of a user's own model from a config file, as a user would run them."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from finetune import predict
from finetune.errors import UserError
from finetune.export import directory
from finetune.models.weights import exported, from_study
from finetune.population import train
from finetune.study import run
from tests.helpers.studies import document, rows_of
from tests.study.test_resume import Crash, by_id, crash_after

HERE = Path(__file__).parents[1] / "own"
AXES = {"learning_rate": [0.01, 0.05], "dropout": [0.0, 0.3], "epochs": [1, 2], "seed": [0, 1]}


def prepared(kind, trainable="all"):
    """Returns the config of a study on one device, and its task."""
    module = runpy.run_path(str(HERE / f"{kind}_config.py"))
    config = module["get_config"]()
    config.trainable = trainable
    config.execution.mode, config.execution.devices, config.execution.epochs_on_device = "vmap", 1, "scan"
    config.checkpoint.interval_seconds = 0.0
    return config, module["task"]


def test_a_network_with_statistics_that_is_left_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    config, task = prepared("nnx")
    run.run(config, tmp_path / "whole", AXES, task=task)
    with monkeypatch.context() as patch:
        crash_after(patch, train, "_train_epoch", 1)
        with pytest.raises(Crash):
            run.run(config, tmp_path / "left", AXES, task=task)
    assert run.run(config, tmp_path / "left", AXES, task=task).exit_status == 0
    assert by_id(tmp_path / "left") == by_id(tmp_path / "whole")
    assert len(by_id(tmp_path / "whole")) == 16
    assert "<html" in (tmp_path / "whole" / "report.html").read_text()[:2000].lower()
    # What is kept holds the running averages of the best epoch, which are no more what they were built as.
    best = from_study.parameters(tmp_path / "whole")
    assert not np.allclose(best["batch_stats/norm/mean"], 0)
    directory.export(tmp_path / "whole", tmp_path / "exported")
    assert "of the study: build its task again" in (tmp_path / "exported" / "README.md").read_text()
    assert "batch_stats/norm/mean" in exported.parameters(tmp_path / "exported")
    with pytest.raises(UserError, match="a model of your own"):
        predict.load(tmp_path / "exported")
    config, other = prepared("linen")
    with pytest.raises(UserError, match="differs in architecture"):
        run.run(config, tmp_path / "whole", AXES, task=other)


def test_a_head_on_frozen_statistics_reads_the_cache(tmp_path):
    config, task = prepared("linen", "head")
    config.trunk.mode = "cached"
    run.run(config, tmp_path / "cached", {"learning_rate": [0.01, 0.05], "dropout": [0.0, 0.3]}, task=task)
    assert document(tmp_path / "cached", "plan.json")["groups"][0]["trunk"] == "cached"
    assert {row["status"] for row in rows_of(tmp_path / "cached")} == {"complete"}


def test_the_command_line_trains_what_the_config_file_defines(tmp_path):
    flags = ["--grid=learning_rate=0.01,0.05", "--seeds=2", "--config.execution.mode=loop"]
    command = [sys.executable, "-m", "finetune", f"--config={HERE / 'functions_config.py'}", f"--workdir={tmp_path}/w"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "model: 1,194 parameters" in done.stdout  # 64·16 + 16·10 + 10
    assert len(rows_of(tmp_path / "w")) == 4
    wrong = subprocess.run([*command, "--config.model.width=3"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: model.width is 3, allowed with a task of your own")
