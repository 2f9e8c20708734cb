"""Searches as studies: waves that follow results, finalists, and going on where it was stopped."""

import collections
import shutil
import signal
from types import SimpleNamespace

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from finetune import report
from finetune.analysis.table.trials import read_study
from finetune.errors import UserError
from finetune.population import measure
from finetune.search.search import Search
from finetune.search.space import parse
from finetune.study import exploring
from finetune.study import run as study
from finetune.study.budget import Budget
from finetune.study.exploring import explore
from finetune.study.run import run
from finetune.trunk import feature_pass
from tests.helpers import killed
from tests.helpers.killed import searched_config as config
from tests.helpers.killed import tpe as search
from tests.helpers.studies import document, rows_of


@pytest.fixture(scope="module")
def calls():
    """How often the search of these tests has loaded data, run what is frozen, compiled groups, and reported."""
    return collections.Counter()


@pytest.fixture(scope="module")
def searched(tmp_path_factory, calls):
    workdir = tmp_path_factory.mktemp("search") / "study"
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((study, "load"), (feature_pass.Pass, "_batch"), (measure, "choose"), (report, "write")):
            patch.setattr(owner, name, counted(getattr(owner, name), name, calls))
        return workdir, explore(config(), workdir, search(), optuna=f"journal:{workdir.parent / 'journal'}")


def counted(function, name, calls):
    def call(*arguments, **options):
        calls[name] += 1
        return function(*arguments, **options)

    return call


def test_each_wave_is_what_the_search_asks_for_after_the_results_before_it(searched):
    _, results = searched
    first = search().wave(0, [])
    told = [(setting, row["metrics"]["val_accuracy"]) for setting, row in zip(first, results.trials, strict=False)]
    asked = first + search().wave(1, told)
    found = [{name: row["hparams"][name] for name in ("learning_rate", "batch_size")} for row in results.trials[:8]]
    assert found == asked
    assert [row["hparams"]["seed"] for row in results.trials] == [0] * 8 + [1, 2] * 2


def test_a_search_is_one_study(searched, calls):
    workdir, _ = searched
    assert (calls["load"], calls["write"]) == (1, 1)
    assert calls["choose"] == 1  # the second wave and the finalists have the programs of the first
    summary, plan = document(workdir, "summary.json"), document(workdir, "plan.json")
    assert summary["trunk_passes"] == 1
    assert (summary["trials"], summary["complete"], plan["trials"]) == (12, 12, 12)
    assert summary["compiles"]["train"] == 1
    assert summary["planned"]["train"] > 0


def test_a_search_that_is_killed_goes_on_to_the_same_bits(searched, tmp_path):
    with killed.served() as run:
        assert run(tmp_path / "study", "wave", 2, searched="tpe") == -signal.SIGKILL
        assert len(rows_of(tmp_path / "study")) == 4  # the first wave
        assert run(tmp_path / "study", "record", 3, searched="tpe") == -signal.SIGKILL
        assert run(tmp_path / "study", searched="tpe") == 0
    for name in ("trials.jsonl", "curves.jsonl"):
        found, expected = (sorted(rows_of(each, name), key=str) for each in (tmp_path / "study", searched[0]))
        assert found == expected


def test_finalists_are_the_best_of_all_waves(searched):
    _, results = searched
    accuracy = [row["metrics"]["val_accuracy"] for row in results.trials[:8]]
    best = sorted(range(8), key=lambda place: -accuracy[place])[:2]
    rates = [row["hparams"]["learning_rate"] for row in results.trials]
    assert rates[8::2] == [rates[place] for place in best]


def test_the_same_again_trains_nothing_and_more_finalists_go_on(searched):
    workdir, results = searched
    before = (workdir / "trials.jsonl").read_bytes()
    assert explore(config(), workdir, search()).trials == results.trials
    assert (workdir / "trials.jsonl").read_bytes() == before
    more = explore(config(), workdir, search(finalists=3))
    assert len(more.trials) == len(results.trials) + 2
    assert len(rows_of(workdir)) == len(more.trials)
    assert document(workdir, "search.json")["finalists"] == 3


def test_the_search_opens_in_optuna_and_its_best_trial_is_ours(searched):
    workdir, results = searched
    found = optuna.load_study(study_name=None, storage=journal_storage(workdir.parent / "journal"))
    assert len(found.trials) == 8
    best = max(results.trials[:8], key=lambda row: row["metrics"]["val_accuracy"])
    assert found.best_value == best["metrics"]["val_accuracy"]
    assert found.best_params == {name: best["hparams"][name] for name in ("learning_rate", "batch_size")}


def test_a_study_begun_in_optuna_goes_on(tmp_path):
    begun = optuna.create_study(storage=journal_storage(tmp_path / "journal"), direction="maximize")
    begun.optimize(
        lambda trial: (
            -trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
            * trial.suggest_categorical("batch_size", (10, 20))
        ),
        n_trials=12,
    )
    told = [(trial.params, trial.value) for trial in begun.trials]
    theirs = search(trials=2, waves=1, finalists=0)
    results = explore(config(), tmp_path / "study", theirs, optuna=f"journal:{tmp_path / 'journal'}")
    asked = theirs.wave(0, told)
    found = [{name: row["hparams"][name] for name in ("learning_rate", "batch_size")} for row in results.trials]
    assert found == asked != theirs.wave(0, [])
    again = explore(config(), tmp_path / "study", theirs, optuna=f"journal:{tmp_path / 'journal'}")
    assert again.trials == results.trials
    assert len(optuna.load_study(study_name=None, storage=journal_storage(tmp_path / "journal")).trials) == 14


def test_what_optuna_has_is_neither_tried_again_nor_changed(searched, tmp_path):
    workdir, _ = searched
    journal = f"journal:{workdir.parent / 'journal'}"
    with pytest.raises(UserError, match="--seeds is 2 with --optuna, allowed: 1, as the search was begun"):
        explore(config(), workdir, search(), seeds=2, optuna=journal)
    explore(config(), tmp_path / "one", search(method="sobol", trials=2, waves=1, finalists=0), optuna=f"{journal}_2")
    with pytest.raises(UserError, match="--search_seed is 0, whose sobol settings --optuna holds already"):
        explore(
            config(), tmp_path / "two", search(method="sobol", trials=2, waves=1, finalists=0), optuna=f"{journal}_2"
        )


def journal_storage(file):
    return JournalStorage(JournalFileBackend(str(file)))


def test_one_that_is_left_goes_on_to_the_same_trials(searched, tmp_path):
    _, results = searched
    explore(config(), tmp_path / "study", search(), plan_only=True)
    run(config(), tmp_path / "study", {}, [setting | {"seed": 0} for setting in search().wave(0, [])])
    again = explore(config(), tmp_path / "study", search())
    assert [row["hparams"] for row in again.trials] == [row["hparams"] for row in results.trials]
    assert [row["metrics"] for row in again.trials] == [row["metrics"] for row in results.trials]


def test_a_search_ends_with_its_time_and_goes_on_with_more(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Budget, "_seconds_a_run", lambda time: 10.0)
    explore(config(), tmp_path / "study", search(finalists=0), plan_only=True, minutes=1.0)
    assert "in 1 minutes fit 1 of 2 waves, 4 of 8 settings" in capsys.readouterr().out
    assert len(explore(config(), tmp_path / "study", search(finalists=0), minutes=0.5).trials) == 4
    assert "note: 1 of 2 waves fit into 0.5 minutes" in capsys.readouterr().out
    assert len(explore(config(), tmp_path / "study", search(finalists=0), minutes=60.0).trials) == 8


def test_a_range_test_proposes_and_gives_no_answer(tmp_path, capsys):
    space = parse(["learning_rate=log:1e-6:10"], config())
    results = explore(config(), tmp_path / "study", Search(space, "range", trials=4))
    said = capsys.readouterr().out
    assert "search next, in trainings of 2 epochs: --space=learning_rate=log:" in said
    assert "best" not in said
    assert [row["hparams"]["epochs"] for row in results.trials] == [1] * 4
    assert not (tmp_path / "study" / "report.html").exists()
    with pytest.raises(UserError, match="holds a range test of learning rates, which has no answer"):
        read_study(tmp_path / "study")


@pytest.mark.parametrize("losses, hint", [((0.7, 0.7, 0.7), "try higher ones"), ((0.7, 0.8, 28.0), "only lose")])
def test_a_range_test_without_a_proposal_says_which_way(capsys, losses, hint):
    rows = [
        {"status": "complete", "hparams": {"learning_rate": 10.0**place}, "metrics": {"val_loss": loss}}
        for place, loss in enumerate(losses)
    ]
    exploring._say_ends(2, SimpleNamespace(trials=rows))
    assert hint in capsys.readouterr().out.replace("\n", " ")


def test_the_answer_knows_how_trials_were_chosen(searched, tmp_path):
    workdir, _ = searched
    trials = read_study(workdir)
    assert (trials.design, trials.search_seeds) == ("adaptive", (0,))
    shutil.copytree(workdir, tmp_path / "study")
    run(config(), tmp_path / "study", {"learning_rate": [1e-3, 2e-3, 3e-3]})
    trials = read_study(tmp_path / "study")
    assert trials.search_seeds == ()  # there are settings that the search has not chosen
    assert trials.reading.design.why != "8 settings by tpe in 2 waves"


def test_a_directory_that_holds_something_else(searched, tmp_path):
    workdir, _ = searched
    with pytest.raises(UserError, match="a search with seed 0, not 1, allowed: a new directory, or that search with"):
        explore(config(), workdir, search(seed=1))
    run(config(), tmp_path / "grid", {"learning_rate": [1e-3]})
    with pytest.raises(UserError, match="holds a study without --space, allowed: a new directory"):
        explore(config(), tmp_path / "grid", search())
