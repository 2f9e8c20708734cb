"""Searches as studies: waves that follow results, finalists, and going on where it was stopped."""

import shutil

import pytest

from finetune.analysis.table.trials import read_study
from finetune.errors import UserError
from finetune.search.search import Search
from finetune.search.space import parse
from finetune.study.exploring import explore
from finetune.study.run import run
from tests.helpers.studies import digits, document, rows_of

SPACE = ["learning_rate=log:1e-4:1e-1", "batch_size=10,20"]


def config():
    found = digits("head", chunk=4, epochs_on_device="scan")
    found.hparams.epochs = 2
    found.trunk.mode = "cached"
    return found


def search(**changes):
    return Search(parse(SPACE, config()), "tpe", trials=8, waves=2, finalists=2, finalist_seeds=3)._replace(**changes)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("search") / "study"
    return workdir, explore(config(), workdir, search())


def test_each_wave_is_what_the_search_asks_for_after_the_results_before_it(searched):
    _, results = searched
    first = search().wave(0, [])
    told = [(setting, row["metrics"]["val_accuracy"]) for setting, row in zip(first, results.trials, strict=False)]
    asked = first + search().wave(1, told)
    found = [{name: row["hparams"][name] for name in ("learning_rate", "batch_size")} for row in results.trials[:8]]
    assert found == asked
    assert [row["hparams"]["seed"] for row in results.trials] == [0] * 8 + [1, 2] * 2


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


def test_one_that_is_left_goes_on_to_the_same_trials(searched, tmp_path):
    _, results = searched
    explore(config(), tmp_path / "study", search(), plan_only=True)
    run(config(), tmp_path / "study", {}, [setting | {"seed": 0} for setting in search().wave(0, [])])
    again = explore(config(), tmp_path / "study", search())
    assert [row["hparams"] for row in again.trials] == [row["hparams"] for row in results.trials]
    assert [row["metrics"] for row in again.trials] == [row["metrics"] for row in results.trials]


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
