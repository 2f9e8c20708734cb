"""A search as a study of Optuna: what Optuna reads of it, and what it reads of one that Optuna began."""

import math

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from finetune.config import Config
from finetune.errors import UserError
from finetune.search.journal import Journal
from finetune.search.search import Outcomes
from finetune.search.space import parse

SPACE = parse(["learning_rate=log:1e-5:1e-1", "batch_size=16,32", "epochs=lin:1:8"], Config())
optuna.logging.set_verbosity(optuna.logging.WARNING)


def storage(file):
    return JournalStorage(JournalFileBackend(str(file)))


def setting(rate, size=16, epochs=4):
    return {"learning_rate": rate, "batch_size": size, "epochs": epochs}


def opened(file, larger_is_better=True, space=SPACE):
    journal = Journal(f"journal:{file}", space)
    journal.begin(larger_is_better)
    return journal


def test_optuna_opens_what_is_written_and_its_best_trial_is_the_best_setting(tmp_path):
    journal = opened(tmp_path / "file", larger_is_better=False)
    told = [(setting(1e-3), -0.5), (setting(1e-2, 32), -0.3), (setting(1e-1), -math.inf)]
    found = Outcomes(told, [(setting(1e-5), 2, -0.9)])
    journal.write(Outcomes(told[:1], []), 0)
    journal.write(found, 0)
    opened(tmp_path / "file", larger_is_better=False).write(found, 0)  # nothing is there twice
    study = optuna.load_study(study_name=None, storage=storage(tmp_path / "file"))
    assert study.direction.name == "MINIMIZE"
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "FAIL", "PRUNED"]
    assert (study.best_trial.value, study.best_trial.params) == (0.3, setting(1e-2, 32))
    assert study.trials[3].intermediate_values == {2: 0.9}
    assert study.trials[0].distributions["learning_rate"].log
    study.optimize(lambda trial: trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True), n_trials=1)


def test_what_optuna_has_tried_is_told(tmp_path):
    study = optuna.create_study(storage=storage(tmp_path / "file"), study_name="theirs", direction="maximize")

    def objective(trial):
        rate = trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
        size = trial.suggest_categorical("batch_size", (16, 32))
        epochs = trial.suggest_int("epochs", 1, 8)
        if trial.number == 2:
            trial.report(0.25, 3)
            raise optuna.TrialPruned
        if trial.number == 3:
            trial.suggest_float("momentum", 0, 1)  # which the space does not vary
        return rate + size + epochs

    study.optimize(objective, n_trials=5)
    journal = opened(tmp_path / "file")
    found, elsewhere = journal.told(journal.before)
    trials = study.trials
    assert found.told == [(trials[place].params, trials[place].value) for place in (0, 1, 4)]
    assert found.stopped == [(trials[2].params, 3, 0.25)]
    assert elsewhere == 1
    narrow = parse(["learning_rate=log:1e-9:1e-8", "batch_size=16,32", "epochs=lin:1:8"], Config())
    assert opened(tmp_path / "file", space=narrow).told(5) == (Outcomes([], []), 5)


@pytest.mark.parametrize(
    "text, line",
    [
        ("sqlite:///a.db", "--optuna is 'sqlite:///a.db', allowed: journal:FILE"),
        ("journal:", "--optuna is 'journal:', allowed: journal:FILE"),
        ("journal:/nowhere/at/all", "in a directory that is there"),
    ],
)
def test_what_is_no_journal(text, line):
    with pytest.raises(UserError, match=line):
        Journal(text, SPACE)


def test_files_that_hold_something_else(tmp_path):
    (tmp_path / "text").write_text("learning_rate,accuracy\n0.1,0.5\n0.2,0.6\n")
    with pytest.raises(UserError, match="--optuna is .*text.*allowed: journal:FILE"):
        opened(tmp_path / "text")
    for name in ("one", "two"):
        optuna.create_study(storage=storage(tmp_path / "several"), study_name=name)
    with pytest.raises(UserError, match="with 2 studies, allowed: a file with one"):
        opened(tmp_path / "several")
    optuna.create_study(storage=storage(tmp_path / "minimize"), direction="minimize")
    with pytest.raises(UserError, match="a study that does not maximize one value"):
        opened(tmp_path / "minimize")
    study = optuna.create_study(storage=storage(tmp_path / "list"), direction="maximize")
    study.optimize(lambda trial: float(trial.suggest_categorical("learning_rate", ["0.1", "0.2"])), n_trials=1)
    with pytest.raises(UserError, match="--space=learning_rate=log:1e-05:0.1 is not what .* says of learning_rate"):
        opened(tmp_path / "list")
