"""Searches: the same whenever they are asked, waves that go on, and finalists."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import qmc

from finetune.config import Config
from finetune.errors import UserError
from finetune.search.search import METHODS, Search
from finetune.search.sequence import sobol, uniform
from finetune.search.space import parse

RATE = ["learning_rate=log:1e-5:1e-1", "batch_size=16,32,64"]


def reached(setting):
    """One best rate, 1e-3, and one best batch size, 32."""
    return -abs(math.log10(setting["learning_rate"]) + 3) - 0.1 * (setting["batch_size"] != 32)


def run(search, waves):
    told = []
    for number in range(waves):
        told += [(setting, reached(setting)) for setting in search.wave(number, told)]
    return told


def test_the_first_points_stay_and_a_power_of_two_fills_every_box():
    np.testing.assert_array_equal(sobol(3, 64, 7)[:16], sobol(3, 16, 7))
    np.testing.assert_array_equal(uniform(3, 64, 7)[:16], uniform(3, 16, 7))
    assert not np.array_equal(sobol(3, 16, 7), sobol(3, 16, 8))
    for axis in sobol(4, 64, 0).T:  # one point in each of 64 intervals: a (t, 6, 4)-net is so in one dimension
        assert sorted((axis * 64).astype(int)) == list(range(64))
    assert qmc.discrepancy(sobol(4, 256, 0)) < qmc.discrepancy(uniform(4, 256, 0)) / 2


@pytest.mark.parametrize("method", METHODS)
def test_a_search_is_a_function_of_its_seed_and_of_what_was_reached(method):
    space = parse(RATE, Config())
    search = Search(space, method, trials=32, waves=4, seed=3).checked()
    told = run(search, 4)
    assert told == run(search, 4)
    assert told[:16] == run(search, 2)
    assert len(told) == 32
    assert told != run(search._replace(seed=4), 4)
    if method != "tpe":
        assert told == run(search._replace(waves=1), 1)


def test_tpe_gathers_near_the_best():
    search = Search(parse(RATE, Config()), "tpe", trials=96, waves=6).checked()
    distances = [-value for _, value in run(search, 6)]
    assert np.median(distances[48:]) < 0.5 * np.median(distances[:16])


def test_tpe_lives_with_trials_that_diverged_and_with_choices():
    space = parse(["trainable=head,lora", "lora_rank@lora=log:1:64", *RATE], Config())
    search = Search(space, "tpe", trials=32, waves=2).checked()
    first = [
        (setting, -math.inf if place % 2 else reached(setting)) for place, setting in enumerate(search.wave(0, []))
    ]
    second = search.wave(1, first)
    assert len(second) == 16
    assert all(("lora_rank" in setting) == (setting["trainable"] == "lora") for setting in second)
    everything_diverged = [(setting, -math.inf) for setting, _ in first]
    assert len(search.wave(1, everything_diverged)) == 16


def test_tpe_knows_settings_that_were_stopped():
    """Those that got further are better, and all that ended are better than those."""
    search = Search(parse(["learning_rate=log:1e-5:1e-1"], Config()), "tpe", trials=64, waves=2).checked()
    first = search.wave(0, [])
    order = sorted(first, key=lambda setting: setting["learning_rate"])
    stopped = [(setting, 2 + place // 12, 0.9) for place, setting in enumerate(order)]  # the largest rates got further
    second = search.wave(1, [], stopped)
    rates = [setting["learning_rate"] for setting in second]
    assert len(rates) == 32
    assert set(rates).isdisjoint(setting["learning_rate"] for setting in first)
    assert np.median(np.log10(rates)) > -3 + 0.5  # the middle of the range is -3


def test_a_setting_is_asked_for_once():
    search = Search(parse(["batch_size=16,32", "epochs=lin:1:2"], Config()), trials=16, waves=2).checked()
    told = [(setting, 0.0) for setting in search.wave(0, [])]
    assert {tuple(setting.values()) for setting, _ in told} == set(itertools.product([16, 32], [1, 2]))
    assert search.wave(1, told) == []


def test_finalists_are_the_best_and_none_that_diverged():
    search = Search(parse(RATE, Config()), trials=4, finalists=3).checked()
    told = [({"learning_rate": rate}, value) for rate, value in ((1, 0.2), (2, -math.inf), (3, 0.5), (4, 0.2))]
    assert [each["learning_rate"] for each in search.best(told)] == [3, 1, 4]
    assert len(search._replace(finalists=4).best(told)) == 3


@pytest.mark.parametrize(
    "changed, line",
    [
        ({"method": "sobool"}, "--search is 'sobool'.*did you mean 'sobol'"),
        ({"trials": 0}, "--trials is 0, allowed: 1 to"),
        ({"trials": 100}, "--trials is 100, allowed with --search=sobol: a power of two, such as 64 or 128"),
        ({"waves": 0}, "--waves is 0"),
        ({"waves": 65}, "--waves is 65, allowed: 1 to 64"),
        ({"seed": -1}, "--search_seed is -1"),
        ({"finalists": 65}, "--finalists is 65, allowed: 0 to 64"),
        ({"finalists": 2, "finalist_seeds": 1}, "--finalist_seeds is 1, allowed: 2 to"),
    ],
)
def test_searches_that_make_no_sense(changed, line):
    with pytest.raises(UserError, match=line):
        Search(parse(RATE, Config()))._replace(**changed).checked()
