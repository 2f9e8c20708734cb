"""The README's first command, as a user types it, on real weights and data."""

import json
import os
import subprocess
import sys
from collections import defaultdict

import numpy as np
import pytest


@pytest.mark.assets
def test_quickstart_answers(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-m", "finetune", "--config=configs/quickstart.py", f"--workdir={tmp_path}"]
    command.append("--config.trunk.store_gigabytes=0")  # nothing is taken from an earlier run
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr
    assert "the best of 21 settings by validation accuracy" in done.stdout
    lines = done.stdout.splitlines()
    assert lines[-1] == f"Report: {tmp_path}/report.html"
    (used,) = (line for line in lines if line.startswith("Use: "))
    assert "learning_rate 0.003" in used or "learning_rate 0.01" in used  # as the header of the config says

    rows = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows) == 63
    settings = defaultdict(list)
    for row in rows:
        settings[row["hparams"]["learning_rate"], row["hparams"]["weight_decay"]].append(row["metrics"])
    assert {len(of_seeds) for of_seeds in settings.values()} == {3}
    best = max(settings.values(), key=lambda of_seeds: np.mean([metrics["val_accuracy"] for metrics in of_seeds]))
    # Linear probes of this encoder on 1,500 labels and up to 128 tokens reach 0.96.
    assert np.mean([metrics["test_accuracy"] for metrics in best]) >= 0.945
    started_by = json.loads((tmp_path / "config.json").read_text())["started_by"]
    assert started_by.pop("search") == []
    assert started_by == {"program": ["python", "-m", "finetune"], "flags": command[3:], "grid": {}, "seeds": None}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["compiles"]["train"] == summary["trunk_passes"] == 1
