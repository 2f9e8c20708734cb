"""Halving: where rungs are, who goes on, and what it costs."""

import hashlib

import numpy as np
import pytest

from finetune.errors import UserError
from finetune.search.halving import Halving, Runner, Verdict


@pytest.mark.parametrize(
    "rule, epochs, rungs",
    [
        (Halving(3, 0.2), 10, [2, 6]),  # 0.2 and 0.6 of 10; 1.8 is beyond
        (Halving(3, 0.1), 30, [3, 9, 27]),
        (Halving(2, 0.25), 3, [1, 2]),  # 0.75 and 1.5, rounded up
        (Halving(2, 0.1), 2, [1]),  # 0.2, 0.4 and 0.8 are one rung
        (Halving(3, 0.2), 1, []),
        (Halving(3, 0.1, 0.1, 1), 30, [3]),
    ],
)
def test_rungs_are_shares_of_a_trials_own_epochs(rule, epochs, rungs):
    assert rule.rungs(epochs) == rungs


def test_the_best_third_goes_on_and_of_equals_the_earlier():
    runners = {name: Runner(10, value) for name, value in zip("abcdef", (0.1, 0.5, 0.5, 0.5, 0.9, 0.2), strict=True)}
    assert Halving(3).verdicts(1, runners) == {}
    found = Halving(3).verdicts(2, runners)
    assert {name: verdict.place for name, verdict in found.items()} == {"c": 3, "d": 4, "f": 5, "a": 6}
    assert found["f"] == Verdict(2, 0.2, 5, 6, 2)
    assert found["f"].in_words(10) == "stopped after epoch 2 of 10: number 5 of 6, 2 went on"


def test_only_those_at_the_same_rung_are_compared():
    runners = {"a": Runner(10, 0.1), "b": Runner(10, 0.2), "c": Runner(4, 0.0), "d": Runner(30, 0.9)}
    assert Halving(2, 0.2).verdicts(2, runners).keys() == {"a"}  # rung 0 of ten epochs, rung 1 of four, none of thirty


def test_a_trial_that_has_reached_nothing_is_out():
    assert Halving(2).verdicts(2, {"a": Runner(10, -np.inf), "b": Runner(10, -5.0)}).keys() == {"a"}


def test_chance_chooses_the_control():
    ids = [hashlib.sha256(str(number).encode()).hexdigest()[:12] for number in range(4000)]
    share = np.mean([Halving(control=0.1).is_control(identity) for identity in ids])
    assert abs(share - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 4000)
    assert not any(Halving(control=0.0).is_control(identity) for identity in ids)


def test_what_it_is_expected_to_cost():
    """By hand: of 27, 18 stop after 2 epochs of 10, 6 of the other 9 after 6, and 3 come to their end."""
    assert sorted(Halving(3, 0.2, 0.0).expected([10] * 27)) == [2] * 18 + [6] * 6 + [10] * 3
    assert sum(Halving(3, 0.2, 0.1).expected([10] * 27)) == 2 * 16 + 6 * 5 + 10 * 6
    assert Halving().expected([1, 1, 1]) == [1, 1, 1]


@pytest.mark.parametrize(
    "rule, line",
    [
        (Halving(1), "--halving is 1, allowed: 2 to 100"),
        (Halving(-3), "--halving is -3"),
        (Halving(3, 0.0), "--halving_start is 0, allowed: 0 < share"),
        (Halving(3, 1.0), "--halving_start is 1"),
        (Halving(3, 0.2, 1.0), "--halving_control is 1, allowed: 0 <= share"),
        (Halving(3, float("nan")), "--halving_start is nan"),
        (Halving(3, most_rungs=-1), "--halving_rungs is -1, allowed: 1 or more"),
    ],
)
def test_rules_that_make_no_sense(rule, line):
    with pytest.raises(UserError, match=line):
        rule.checked()
