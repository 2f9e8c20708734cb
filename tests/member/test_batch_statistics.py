"""Running averages: how far they lag is measured as Flax alone does, and those taken anew are NumPy's."""

import flax.linen as nn
import jax
import numpy as np
import optax
import pandas as pd
import pytest

from finetune import from_linen
from finetune.analysis.lag import lagging
from finetune.member.epoch import epoch_order
from finetune.member.params import unflatten
from finetune.population.parallel import OneByOne, OneDevice
from finetune.population.programs import make_programs
from finetune.trials import hparams
from tests.helpers import tasks
from tests.helpers.training import EXAMPLES, VALIDATION, population, train_population
from tests.own.networks import EXAMPLE, recipe_of


class Slow(nn.Module):
    """Normalises inputs that are far from 0, with averages that take hundreds of updates to get there."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(not train, momentum=0.99, name="norm")(10 * x + 40)
        return nn.Dense(tasks.CLASSES, name="head")(nn.Dropout(0.5, deterministic=not train)(x))


MEAN, VAR = "batch_stats/norm/mean", "batch_stats/norm/var"
ROW = tasks.row(learning_rate=0.03, dropout=0.4)


@pytest.mark.parametrize("layout", [OneDevice(), OneByOne()])
@pytest.mark.parametrize("rows", [2, 7])
def test_averages_taken_anew_are_those_of_the_examples(layout, rows):
    recipe = recipe_of(from_linen(Slow(), EXAMPLE), [ROW], "all")
    shared, programs = tasks.make_shared(recipe), make_programs(recipe, layout, True)
    members = programs.init(shared, hparams.stack([ROW, ROW | {"epochs": 0}], 2))
    order, split = epoch_order(0, 0, EXAMPLES, 4), tasks.data(EXAMPLES)
    members = programs.reestimate(members, shared, split, order, np.int32(0), np.int32(0), np.int32(rows))
    state = programs.fetch(members).state
    read = 10 * split["x"][order.examples[:rows][order.weight[:rows] > 0]] + 40  # the last batch is padded
    assert len(read) == min(4 * rows, EXAMPLES)
    np.testing.assert_allclose(state[MEAN][0], read.mean(0), rtol=1e-4)
    np.testing.assert_allclose(state[VAR][0], read.var(0), rtol=1e-4)
    np.testing.assert_array_equal(state[MEAN][1], 0)  # a member that does not train keeps what it has


def test_a_lag_is_seen_and_mended():
    task = from_linen(Slow(), EXAMPLE)
    recipe = recipe_of(task, [ROW], "all")
    shared = tasks.make_shared(recipe)
    members, reports = population([ROW], recipe, shared)
    tree = unflatten({path: leaf[0] for path, leaf in members.leaves.items()})
    variables = {"batch_stats": tree.pop("batch_stats"), "params": tree}
    first = {name: array[:4] for name, array in tasks.data(VALIDATION).items()}  # the first batch of the validation
    for name, train in (("running_loss", False), ("batch_loss", True)):
        with nn.intercept_methods(lambda call, x, _, context: x[0] if "Dropout" in str(context.module) else call(*x)):
            logits, _ = Slow().apply(variables, first["x"], train, mutable=["batch_stats"], rngs={"dropout": KEY})
        expected = optax.softmax_cross_entropy_with_integer_labels(logits, first["label"]).mean()
        np.testing.assert_allclose(reports[-1].modes[name][0], expected, rtol=1e-4, err_msg=name)
    lag = lagging(curves(reports[-1]))
    assert "lag" in lag.sentence
    assert "overfits" not in lag.sentence

    programs = make_programs(recipe, OneDevice(), True)
    members = programs.init(shared, hparams.stack([ROW], 1))
    members, late = train_population(programs, recipe, shared, members, (0,))
    order = epoch_order(0, 1, EXAMPLES, 4)
    members = programs.reestimate(members, shared, tasks.data(EXAMPLES), order, np.int32(1), np.int32(0), np.int32(7))
    _, mended = train_population(programs._replace(train=lambda members, *_: members), recipe, shared, members, (1,))
    assert mended[0].metrics["loss"][0] < late[0].metrics["loss"][0] / 2
    assert lagging(curves(mended[0])) is None


KEY = jax.random.key(0)


def curves(report):
    return pd.DataFrame([{"id": "a", **{name: float(values[0]) for name, values in report.modes.items()}}])


def test_nothing_is_said_of_models_without():
    assert lagging(pd.DataFrame([{"id": "a", "val_loss": 1.0}])) is None
