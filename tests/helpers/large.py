"""Makes a finished study of any size without training it: python -m tests.helpers.large WORKDIR TRIALS EPOCHS.

A small study of one setting is trained; its files are then written again for as many trials as asked for, with made-up
curves. Starting the command that it prints finds nothing to do.
"""

import math
import sys
from pathlib import Path

import numpy as np

from finetune.storage import records
from finetune.study import run
from finetune.trials import grid
from tests.helpers import studies


def axes(trials, epochs):
    """Returns a grid of so many trials."""
    return {"learning_rate": [float(rate) for rate in np.geomspace(1e-4, 1e-1, trials // 5)], "seed": [*range(5)],
            "epochs": [epochs]}  # fmt: skip


def make(workdir, trials, epochs):
    """Writes the work directory of a finished study of `axes(trials, epochs)`."""
    config = studies.digits()
    run.run(config, workdir, axes(5, epochs))
    row = records.read_trials(workdir)[0]
    document = records.read_document(workdir / "plan.json")
    fingerprint = records.read_document(workdir / "config.json")["fingerprint"]
    every = {each.id(fingerprint): each for each in grid.make_trials(config, axes(trials, epochs))}
    document["groups"][0] |= {"trials": trials, "members": [list(every)]}
    records.write(workdir / "plan.json", document)
    (workdir / "curves.jsonl").unlink()
    (workdir / "trials.jsonl").unlink()
    rows, curves = [], []
    chance = np.random.default_rng(0)
    for identity, trial in every.items():
        peak = 0.9 - 0.1 * abs(math.log10(trial.hparams["learning_rate"] / 3e-3)) + 0.01 * chance.normal()
        values = peak * (1 - np.exp(-np.arange(1, epochs + 1) / epochs * 5)) + 0.005 * chance.normal(size=epochs)
        curve = [
            {"id": identity, "epoch": epoch, "step": epoch * 2, "train_loss": 2 - value, "val_loss": 2.1 - value,
             "val_accuracy": value}
            for epoch, value in enumerate(values.tolist(), 1)
        ]  # fmt: skip
        best = max(curve, key=lambda each: each["val_accuracy"])
        metrics = {name: value for name, value in best.items() if "_" in name}
        rows.append(
            row | {
                "id": identity, "hparams": {**trial.hparams, **trial.choices}, "seed": trial.hparams["seed"],
                "metrics": metrics | {"test_loss": best["val_loss"], "test_accuracy": best["val_accuracy"]},
                "best": {"epoch": best["epoch"], "step": best["step"], "value": best["val_accuracy"]}, "last": {},
                "steps": 2 * epochs,
            }
        )  # fmt: skip
        curves += curve
    records.append(workdir / "trials.jsonl", rows)
    records.append(workdir / "curves.jsonl", curves)


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
