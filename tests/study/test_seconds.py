"""Where the time of a study goes: planned and spent under the same names, and nothing counted twice."""

from types import SimpleNamespace

import numpy as np
import pytest

from finetune.population.parallel import choose_layout
from finetune.study import plan, run, seconds
from finetune.trunk import feature_pass
from finetune.trunk.feature_store import FeatureStore
from tests.helpers.studies import digits, document
from tests.helpers.tasks import base_leaves, data, make_recipe, mlp
from tests.trunk.test_choice import trunk_of

PARTS = ["load", "trunk", "compile", "train", "eval", "report"]


def test_the_whole_of_what_is_planned():
    group = {"seconds": 8.0, "evaluation_seconds": 2.0, "compile_seconds": 3.0}
    trials = [SimpleNamespace(hparams={"epochs": epochs}) for epochs in (1, 9)]
    parts = seconds.planned(5.0, 30.0, [group, group], trials)
    assert list(parts) == PARTS
    assert parts | {"report": 0.0} == dict(zip(PARTS, (5.0, 30.0, 6.0, 12.0, 4.0, 0.0), strict=True))
    large = [SimpleNamespace(hparams={"epochs": 200})] * 3000
    assert parts["report"] < seconds.planned(0.0, 0.0, [], large)["report"]


def test_compiling_on_the_way_is_neither_training_nor_evaluating():
    programs = {"init": 1.0, "train": 4.0, "validate": 2.0, "test": 3.0}
    compiled = seconds.compiling({name: SimpleNamespace(seconds=spent) for name, spent in programs.items()})
    assert seconds.of_training(100.0, 20.0, compiled) == {"compile": 10.0, "train": 75.0, "eval": 15.0}


@pytest.mark.parametrize("mode, sizes, expected", [("vmap", 1, 2), ("vmap", 3, 2 * (5 + 2) + 3 * 2), ("loop", 3, 2)])
def test_programs_are_compiled_again_for_smaller_populations(mode, sizes, expected):
    """By hand: 5 s to compile training and 2 s to compile validation for each smaller size, 2 s to test at each."""
    compiled = {name: SimpleNamespace(seconds=spent) for name, spent in (("train", 5.0), ("validate", 2.0))}
    group = SimpleNamespace(layout=choose_layout(mode, 3, 1), programs=SimpleNamespace(compiled=compiled))
    assert plan._compile_seconds(group, sizes) == expected


def test_a_pass_takes_what_its_batches_and_compiling_take(tmp_path, monkeypatch):
    recipe, split = make_recipe(mlp(), "head", examples=10, micro_batch=2), data(10)
    trunks, store = [trunk_of(recipe, split, mode="cached")], FeatureStore(tmp_path, 0)
    passing = feature_pass.Pass(trunks, base_leaves(mlp()), [split] * 3, 2, store)
    clock = [0.0]

    def batch(number, index, positions):
        clock.append(clock[-1] + (2.0 if len(clock) > 1 else 32.0))
        return np.zeros(2)

    monkeypatch.setattr(passing, "_batch", batch)
    monkeypatch.setattr(feature_pass, "time", SimpleNamespace(monotonic=lambda: clock[-1]))
    assert passing.batches == 15
    programs = len(set(map(frozenset, passing._missing)))
    assert passing.estimated_seconds() == 15 * 2.0 + programs * 30.0


def test_a_study_says_what_was_planned_beside_what_came_out(tmp_path, capsys):
    run.run(digits(), tmp_path, {"learning_rate": [0.01, 0.1], "epochs": [1, 2, 8]})
    found = document(tmp_path, "summary.json")
    assert list(found["planned"]) == PARTS
    assert sorted(found["seconds"]) == sorted(PARTS)
    assert all(value >= 0 for value in (found["planned"] | found["seconds"]).values())
    planned = document(tmp_path, "plan.json")
    assert planned["seconds_by_part"] == found["planned"]
    assert planned["seconds"] == pytest.approx(sum(found["planned"].values()))
    assert f"in all about {planned['seconds']:.0f} s (load " in capsys.readouterr().out
    assert found["seconds"]["compile"] > 0
