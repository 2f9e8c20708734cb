"""Hyperparameters that came later: a trial that is without one is called what it was called before."""

import hashlib
import json

from finetune import config as settings
from finetune.config import Config
from finetune.storage import records
from finetune.trials.grid import from_row, make_trials
from finetune.trials.hparams import NAMES


def test_a_trial_without_focal_loss_is_what_it_was():
    plain, focal = make_trials(Config(), {"focal_gamma": [0.0, 2.0]})
    before = {name: value for name, value in plain.hparams.items() if name not in ("focal_gamma", "temperature")}
    content = json.dumps(["study", before, plain.choices], sort_keys=True)
    assert plain.id("study") == hashlib.sha256(content.encode()).hexdigest()[:12]
    assert plain.told == before | plain.choices
    assert focal.told == before | plain.choices | {"focal_gamma": 2.0}
    assert focal.id("study") != plain.id("study")
    for trial in (plain, focal):
        assert from_row(trial.told) == trial


def test_rows_have_the_same_hyperparameters():
    rows = [{"hparams": {"a": 1}}, {"hparams": {"a": 2, "focal_gamma": 2.0}}]
    assert [row["hparams"] for row in records.completed(rows)] == [{"a": 1, "focal_gamma": 0}, rows[1]["hparams"]]
    assert records.completed(rows[:1])[0] is rows[0]


def test_what_rows_do_not_tell_is_the_default():
    later = {
        name.removeprefix("hparams."): value for name, value in settings.fields(Config()) if name in settings.LATER
    }
    assert {name: value for name, value in later.items() if name in NAMES} == records.LATER
