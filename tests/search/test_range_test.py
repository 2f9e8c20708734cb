"""Range tests of learning rates: which rates are tried, and what is proposed."""

import math

import pytest

from finetune.config import Config
from finetune.errors import UserError
from finetune.search.halving import Halving
from finetune.search.range_test import Ends, ends
from finetune.search.search import Search
from finetune.search.space import parse
from finetune.trials.grid import make_trials

RATES = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]


def test_rates_are_even_in_the_logarithm_and_train_an_epoch_without_a_schedule():
    search = Search(parse(["learning_rate=log:1e-6:1"], Config()), "range", trials=7).checked()
    found = make_trials(Config(), {}, search.wave(0, []))
    assert [trial.hparams["learning_rate"] for trial in found] == pytest.approx(RATES)
    assert {(trial.hparams["epochs"], trial.hparams["warmup_fraction"]) for trial in found} == {(1, 0.0)}
    assert {trial.choices["schedule"] for trial in found} == {"constant"}


@pytest.mark.parametrize(
    "losses, epochs, expected",
    [
        # The largest fall is 1.3; 0.13 or more from 1e-4 to 1e-2, and the lower end may be 10 times lower.
        ([2.3, 2.29, 2.1, 1.0, 1.2, 2.5, math.inf], 10, Ends(1e-5, 1e-2, (False, False))),
        ([2.3, 2.29, 2.1, 1.0, 1.2, 2.5, math.inf], 1, Ends(1e-4, 1e-2, (False, False))),
        ([2.3, 2.0, 1.5, 1.0, 0.9, 0.8, 0.7], 1, Ends(1e-5, 1.0, (True, True))),
        # One that learns by luck beyond a rate that does not is left out.
        ([2.3, 2.3, 2.0, 1.0, math.inf, 1.1, math.inf], 1, Ends(1e-4, 1e-3, (False, False))),
        ([2.3, 2.3, 2.4, 2.5, math.inf, math.inf, math.inf], 1, None),
        ([math.inf] * 7, 1, None),
    ],
)
def test_the_ends_are_where_the_loss_has_fallen_by_a_tenth_of_its_largest_fall(losses, epochs, expected):
    assert ends(RATES, losses, epochs) == expected


def test_what_is_proposed_can_be_typed():
    assert str(Ends(1.2e-5, 0.01, (False, False))) == "--space=learning_rate=log:1.2e-05:0.01"


@pytest.mark.parametrize(
    "texts, changed, line",
    [
        (
            ["learning_rate=1e-3,1e-2"],
            {},
            "--space names learning_rate with --search=range, allowed: learning_rate=log",
        ),
        (["learning_rate=log:1e-3:1", "dropout=0,0.1"], {}, "--space names learning_rate, dropout with --search=range"),
        (["weight_decay=log:1e-3:1"], {}, "--space names weight_decay with --search=range"),
        (["learning_rate=log:1e-3:1"], {"waves": 2}, "--waves is given with --search=range"),
        (["learning_rate=log:1e-3:1"], {"finalists": 2}, "--finalists is given with --search=range"),
        (["learning_rate=log:1e-3:1"], {"halving": Halving()}, "--halving is given with --search=range"),
        (["learning_rate=log:1e-3:1"], {"trials": 2}, "--trials is 2 with --search=range, allowed: 3 or more"),
    ],
)
def test_range_tests_that_make_no_sense(texts, changed, line):
    with pytest.raises(UserError, match=line):
        Search(parse(texts, Config()), "range")._replace(**changed).checked()
