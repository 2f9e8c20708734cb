"""A command that is told to stop, that is killed, or that has no space: it leaves in time, and goes on later."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import finetune
from tests.helpers.mistakes import VIT
from tests.helpers.studies import rows_of

ROOT = Path(finetune.__file__).parent.parent
pytestmark = pytest.mark.slow  # each starts several processes

GRID = ["--grid=learning_rate=1e-3,1e-2", "--seeds=2"]


def start(tmp_path, *flags, devices=1, **options):
    """Starts the command line on digits."""
    (tmp_path / "config.py").write_text(VIT)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment["XLA_FLAGS"] = os.environ["XLA_FLAGS"].replace("device_count=8", f"device_count={devices}")
    command = [sys.executable, "-m", "finetune", f"--config={tmp_path}/config.py", f"--workdir={tmp_path}/study"]
    command += ["--config.trunk.mode=cached", "--config.execution.epochs_on_device=scan", *GRID, *flags]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, **options)


def finish(process):
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    return output


@pytest.mark.parametrize(
    "number, status, before, after", [(signal.SIGTERM, 143, 2, 1), (signal.SIGINT, 130, 1, 2)], ids=["TERM", "INT"]
)
def test_a_signal_while_it_trains(tmp_path, number, status, before, after):
    long = ["--config.hparams.epochs=100000", "--config.checkpoint.interval_seconds=3600"]
    process = start(tmp_path, *long, devices=before)
    curves = tmp_path / "study" / "curves.jsonl"
    while not curves.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    started = time.monotonic()
    process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    assert time.monotonic() - started < 10
    assert process.returncode == status
    line = errors.splitlines()[-1]
    assert line.startswith(f"stopped by {number.name}; what is done is kept, and the same command goes on: ")
    assert line.endswith(" ".join(["--config.checkpoint.interval_seconds=3600"]))
    reached = max(row["epoch"] for row in rows_of(tmp_path / "study", "curves.jsonl"))
    assert (tmp_path / "study" / "checkpoints" / "population" / "000001" / "manifest.json").exists()

    again = start(tmp_path, *long, devices=after)
    while max([row["epoch"] for row in rows_of(tmp_path / "study", "curves.jsonl")]) <= reached:
        assert again.poll() is None, again.communicate()
        time.sleep(0.05)
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=60)
    epochs = [row["epoch"] for row in rows_of(tmp_path / "study", "curves.jsonl")]
    assert sorted(epochs) == sorted([*range(1, max(epochs) + 1)] * 4)  # every epoch once, of every trial


@pytest.mark.parametrize("what", ["checkpoint", "records"])
def test_a_disk_that_fills(tmp_path, what):
    study, size, longer = tmp_path / "study", 4_500, ["--config.hparams.epochs=20"]
    if what == "records":  # what is written before them is there already
        finish(start(tmp_path, "--config.hparams.epochs=60"))
        size = (study / "curves.jsonl").stat().st_size + 100
    else:
        finish(start(tmp_path, "--plan_only"))
        size = (study / "config.json").stat().st_size + 300  # which is written before them
    process = start(tmp_path, *longer)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))  # it still imports
    errors = process.communicate(timeout=200)[1]
    assert process.returncode == 2, errors
    line = errors.splitlines()[-1]
    assert line.startswith("error: ")
    assert ("curves.jsonl" if what == "records" else "checkpoints") in line
    assert "cannot be written" in line
    assert line.endswith("allowed: a disk with space; the same command then continues the study")
    finish(start(tmp_path, *longer))
    rows = rows_of(study)
    assert len({row["id"] for row in rows}) == len(rows) == (8 if what == "records" else 4)
    assert {row["status"] for row in rows} == {"complete"}


def test_the_second_command_is_told_of_the_first(tmp_path):
    first = start(tmp_path, "--config.hparams.epochs=100000")
    while not (tmp_path / "study" / "lock").exists() or not (tmp_path / "study" / "lock").read_text():
        time.sleep(0.05)
    second = start(tmp_path)
    errors = second.communicate(timeout=60)[1]
    assert second.returncode == 2
    assert f"in use by process {first.pid} since " in errors.splitlines()[-1]
    first.kill()
    first.communicate()
