"""Settings to try next: for a table, for a study, and what is refused."""

import csv
import io
import math
import sys

import numpy as np
import pandas as pd
import pytest

from finetune import propose
from finetune.analysis.table.trials import from_frame


def proposed(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["finetune propose", *map(str, arguments)])
    status = propose.main()
    found = capsys.readouterr()
    return status, list(csv.DictReader(io.StringIO(found.out))), found.err


def table(file):
    """A grid whose best rate is 1e-3 and whose best optimizer is sgd."""
    rows = [
        (f"{rate:g}", size, name, -abs(math.log10(rate) + 3) - (name != "sgd"))
        for rate in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
        for size in (16, 32, 64)
        for name in ("adamw", "sgd")
    ]
    pd.DataFrame(rows, columns=["lr", "batch", "optimizer", "accuracy"]).to_csv(file, index=False)
    return file


def test_settings_lie_within_what_was_tried_and_near_the_best(tmp_path, monkeypatch, capsys):
    arguments = [table(tmp_path / "runs.csv"), "--metric=accuracy", "--count=40"]
    status, rows, said = proposed(monkeypatch, capsys, *arguments)
    assert status == 0
    assert said == f"{len(rows)} settings to try next, after 30 judged by accuracy, higher is better\n"
    assert 20 < len(rows) <= 40
    rates = np.array([float(row["lr"]) for row in rows])
    assert 1e-5 <= rates.min() <= rates.max() <= 1e-1
    assert {row["batch"] for row in rows} <= {"16", "32", "64"}
    assert np.mean([row["optimizer"] == "sgd" for row in rows]) > 0.6
    assert np.median(np.abs(np.log10(rates) + 3)) < 1  # of an even choice it would be 1
    assert proposed(monkeypatch, capsys, *arguments)[1] == rows
    assert proposed(monkeypatch, capsys, *arguments, "--search_seed=1")[1] != rows


def test_of_a_search_its_space_counts():
    frame = pd.DataFrame({"learning_rate": [1e-3, 2e-3, 3e-3], "trainable": "lora", "accuracy": [0.1, 0.2, 0.9]})
    found = {"trainable": "head", "optimizer": {"name": "adamw", "schedule": "cosine"}}
    said = ["learning_rate=log:1e-6:1", "trainable=head,lora", "lora_rank@lora=1,2"]
    trials = from_frame(frame.assign(lora_rank=1), "accuracy", False)
    trials = trials._replace(provenance={"config": found, "search": {"space": said}})
    settings = propose.propose(trials, 30, 0)
    assert all(("lora_rank" in each) == (each["trainable"] == "lora") for each in settings)
    assert max(each["learning_rate"] for each in settings) > 3e-3


@pytest.mark.parametrize(
    "arguments, line",
    [
        ([], "arguments are '', allowed: one work directory or table"),
        (["{table}"], "--metric is missing"),
        (["{table}", "--metric=accuracy", "--count=0"], "count"),
        (["{directory}", "--metric=accuracy"], "--metric is given for a study"),
        (["{directory}"], "holds no trial that has ended"),
        (["{table}", "--metric=acc", "--minimize", "--maximize"], "--minimize and --maximize are given"),
        (["{directory}/none.csv", "--metric=accuracy"], "none.csv"),
    ],
)
def test_what_nothing_can_be_proposed_for(tmp_path, monkeypatch, capsys, arguments, line):
    names = {"table": table(tmp_path / "runs.csv"), "directory": tmp_path}
    status, rows, said = proposed(monkeypatch, capsys, *(each.format(**names) for each in arguments))
    assert (status, rows, len(said.splitlines())) == (2, [], 1)
    assert said.startswith("error: ")
    assert line in said
