"""Spaces: what is typed, what points stand for, and what is refused."""

import numpy as np
import pytest

from finetune.config import Config
from finetune.errors import UserError
from finetune.search.space import parse
from finetune.trials.grid import make_trials

SPACE = [
    "learning_rate=log:1e-5:1e-1", "dropout=lin:0:0.3", "batch_size=16,32,64", "lora_rank@lora=log:1:64",
    "trainable=head,lora",
]  # fmt: skip


def test_a_point_is_an_assignment_and_what_belongs_to_another_choice_says_nothing():
    space = parse(SPACE, Config())
    assert [str(each) for each in space.dimensions] == [
        "trainable=head,lora", "learning_rate=log:1e-05:0.1", "dropout=lin:0:0.3", "batch_size=16,32,64",
        "lora_rank@lora=log:1:64",
    ]  # fmt: skip
    head = space.assignment([0.0, 0.5, 0.5, 0.99, 0.7])
    assert head == {"trainable": "head", "learning_rate": 0.001, "dropout": 0.15, "batch_size": 64}
    lora = space.assignment([0.5, 0.0, 0.0, 0.0, 0.0])
    assert lora == {"trainable": "lora", "learning_rate": 1e-5, "dropout": 0.0, "batch_size": 16, "lora_rank": 1}
    assert len(make_trials(Config(), {"seed": [0, 1]}, [head, lora])) == 4


def test_a_range_for_one_choice_takes_the_place_of_the_others():
    space = parse(["trainable=head,all", "learning_rate=log:1e-5:1e-3", "learning_rate@head=log:1e-3:1e-1"], Config())
    rates = [space.assignment([place, 0.5, 0.5])["learning_rate"] for place in (0.0, 0.9)]
    assert rates == [0.01, 0.0001]


def test_a_choice_may_be_that_of_the_config():
    assert parse(["lora_rank@lora=1,4"], Config(trainable="lora")).assignment([0.9]) == {"lora_rank": 4}


def test_whole_numbers_are_all_there_each_with_what_rounds_to_it():
    [linear] = parse(["epochs=lin:1:4"], Config()).dimensions
    [log] = parse(["lora_rank=log:1:4"], Config(trainable="lora")).dimensions
    places = (np.arange(100_000) + 0.5) / 100_000
    _, even = np.unique([linear.value(place) for place in places], return_counts=True)
    np.testing.assert_allclose(even / 1e5, [0.25] * 4, atol=1e-4)
    values, counts = np.unique([log.value(place) for place in places], return_counts=True)
    ends = np.log([0.5, 1.5, 2.5, 3.5, 4.5])
    np.testing.assert_allclose(counts / 1e5, np.diff(ends) / (ends[-1] - ends[0]), atol=1e-4)
    assert values.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "texts, line",
    [
        ([], "--space is missing, allowed: NAME=log"),
        (["learning_rate"], "--space is 'learning_rate', allowed: NAME=log"),
        (["learning_rate="], "--space is 'learning_rate='"),
        (["learning_rates=1,2"], "did you mean 'learning_rate'"),
        (["learning_rate=log:1e-1:1e-5"], "LOW < HIGH, and LOW > 0"),
        (["learning_rate=log:0:1"], "LOW > 0"),
        (["learning_rate=lin:1:1"], "allowed: lin:LOW:HIGH with LOW < HIGH"),
        (["learning_rate=lin:0:1:9"], "allowed: lin:LOW:HIGH"),
        (["learning_rate=lin:0:inf"], "learning_rate is inf"),
        (["dropout=lin:0:1"], "dropout is 1, allowed: 0 <= value < 1"),
        (["dropout=lin:-1:0.5"], "LOW < HIGH"),
        (["epochs=lin:1.5:3"], "allowed: whole numbers"),
        (["dropout=0,a"], "dropout is 'a'"),
        (["dropout=0,0.1", "dropout=lin:0:0.5"], "--space names 'dropout' twice"),
        (["lora_rank@lora=1,4"], "the choice after @ is 'lora'"),
        (["seed@head=0:1"], "seed is '0:1'"),
    ],
)
def test_spaces_that_make_no_sense(texts, line):
    with pytest.raises(UserError, match=line):
        parse(texts, Config())
