"""A trial of any model is a solo run: what it computes depends on no other trial."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune.config import Config
from finetune.errors import UserError
from finetune.member.params import abstract
from finetune.study import traits
from finetune.study.plan import group_trials, make_recipe
from finetune.study.traits import Traits
from finetune.trials.grid import Trial, make_trials
from finetune.trials.hparams import OWN_RATES
from tests.helpers import tasks
from tests.helpers.training import EXAMPLES, population, relative
from tests.own import habits

TASKS = {
    "linen": lambda: habits.linen("mode"),
    "nnx": lambda: habits.of_nnx("mode"),
    "functions": habits.functions,
    "bfloat16": lambda: habits.linen("mode", dtype="bfloat16"),
    "scan": lambda: habits.linen("scan"),
    "linen noise": lambda: habits.linen("noise"),
    "nnx noise": lambda: habits.of_nnx("noise"),
    "batch": lambda: habits.linen("batch"),
}
CHOICES = {"trainable": "all", "optimizer.name": "sgd", "schedule": "constant"}
SPLIT = tasks.data(EXAMPLES)


def results(task, rows):
    """Returns the validation loss and the leaves of every row, as a study groups and trains them."""
    found, shapes = traits.find(task, SPLIT), abstract(task)
    trials = found.resolved([Trial(row, CHOICES) for row in rows])
    done = {}
    for group in group_trials(trials, task, shapes, {}, found.mixed):
        recipe = make_recipe(Config(), task, shapes, group, EXAMPLES, found.mixed)._replace(metric="accuracy")
        members, reports = population([trial.hparams for trial in group], recipe, tasks.make_shared(recipe))
        for i, trial in enumerate(group):
            leaves = {path: leaf[i] for path, leaf in members.params.items()}
            done[trial.id("")] = float(reports[-1].metrics["loss"][i]), leaves
    return [done[trial.id("")] for trial in trials]


@pytest.mark.parametrize("kind", TASKS)
def test_a_trial_beside_others_is_the_trial_alone(kind):
    task, row = TASKS[kind](), tasks.row(dropout=0.0, learning_rate=0.1)
    others = [row | {"dropout": 0.3}, row | {"batch_size": 6}]
    (loss, leaves), (other, _), _ = results(task, [row, *others])
    ((alone, expected),) = results(task, [row])
    tolerance = 1e-2 if kind == "bfloat16" else 1e-5  # of its rounding
    np.testing.assert_allclose(loss, alone, rtol=tolerance)
    for path, leaf in expected.items():
        assert relative(leaves[path], leaf) < tolerance, path
    assert (other != loss) == (kind == "scan")  # the only one whose layers read the trial's dropout


def test_training_runs_in_training_mode_whatever_the_dropout():
    """A network that gives a quarter of its outputs in training, against a network that always does."""
    row = tasks.row(dropout=0.0, momentum=0.0, warmup_fraction=0.0)
    task = habits.linen("mode")
    quarter = habits.linen("none")
    quarter = quarter._replace(loss=lambda logits, batch, smoothing: task.loss(logits / 4, batch, smoothing))
    (_, leaves), (_, expected) = results(task, [row])[0], results(quarter, [row])[0]
    for path, leaf in expected.items():
        assert relative(leaves[path], leaf) < 1e-5, path


def test_own_rates_hold_where_none_is_set():
    row = tasks.row(learning_rate=0.1)
    task = habits.linen("dropout")
    rows = [row | {"dropout": rate} for rate in (OWN_RATES, 0.25, 0.6, 0.0)]
    own, same, more, none = (loss for loss, _ in results(task, rows))
    assert own == same
    assert len({own, more, none}) == 3
    np.testing.assert_allclose(results(task, rows[:1])[0][0], own, rtol=1e-5)


def test_what_is_mixed_is_found():
    for task in (habits.linen("noise"), habits.linen("attention"), habits.of_nnx("noise")):
        assert "random_numbers_of_the_batch" in traits.find(task, SPLIT).mixed
    assert "reduce_sum" in traits.find(habits.linen("batch"), SPLIT).mixed
    for task in (habits.linen("scan"), habits.linen("dropout"), habits.linen("mode"), habits.of_nnx("mode")):
        assert traits.find(task, SPLIT).mixed == ""
    assert traits.find(habits.functions(), SPLIT) == traits.NONE


def test_a_batch_that_draws_for_itself_draws_anew():
    batch = {"x": jnp.asarray(tasks.data(6)["x"])}
    for task in (habits.linen("noise"), habits.linen("attention"), habits.of_nnx("noise")):
        params = task.init(jax.random.key(0))
        keys = jax.random.split(jax.random.key(1), 12)
        one, again, other = (task.apply(params, batch, 0.0, part) for part in (keys[:6], keys[:6], keys[6:]))
        np.testing.assert_array_equal(one, again)
        assert (one != other).all()
        assert (one != task.apply(params, batch, 0.0, None)).all()


def test_rates_are_found_and_told():
    assert traits.find(habits.linen("scan"), SPLIT).rates == {"layers/Dropout_0": 0.5}
    found = Traits(traits.find(habits.linen("dropout"), SPLIT).rates, "")
    assert found.rates == {"Dropout_0": 0.25}
    trials = {rate: Trial(tasks.row(dropout=rate), CHOICES) for rate in (OWN_RATES, 0.0, 0.3)}
    assert "as the model was built, 0.25 at Dropout_0" in found.lines([trials[OWN_RATES]])[0]
    assert "takes the place of" in found.lines([trials[0.0], trials[0.3]])[0]
    assert found.lines(list(trials.values()))[0].endswith(", -1 keeps it")
    sizes = [Trial(tasks.row(batch_size=size), CHOICES) for size in (4, 8)]
    assert traits.NONE.lines(sizes) == []
    assert traits.NONE._replace(mixed="why").lines(sizes) == ["each batch size trains apart, since why"]
    assert traits.NONE._replace(mixed="why").lines(sizes[:1]) == []


def test_dropout_that_is_not_set_is_none_without_rates():
    unset, none = (Trial(tasks.row(dropout=rate), CHOICES) for rate in (OWN_RATES, 0.0))
    assert traits.NONE.resolved([unset]) == [none]
    assert Traits({"drop": 0.5}, "").resolved([unset, none]) == [unset, none]
    with pytest.raises(UserError, match="dropout is -1, allowed for a model without dropout layers"):
        traits.NONE.resolved([unset, none])
    with pytest.raises(UserError, match="'drop' was built with rate 1, allowed: 0 <= value < 1"):
        Traits({"drop": 1.0}, "").resolved([unset])
    assert make_trials(Config(), {})[0].hparams["dropout"] == 0
    with pytest.raises(UserError, match="dropout is -1, allowed for model.name='bert'"):
        make_trials(Config(), {"dropout": [OWN_RATES, 0.0]})


def test_batches_that_draw_are_not_split_over_devices():
    task, rows = habits.linen("noise"), [Trial(tasks.row(), CHOICES)]
    found = traits.find(task, SPLIT)
    assert make_recipe(Config(), task, abstract(task), rows, EXAMPLES, found.mixed).mixes
    assert not make_recipe(Config(), task, abstract(task), rows, EXAMPLES).mixes
