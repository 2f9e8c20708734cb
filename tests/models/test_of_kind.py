"""Examples of several texts: a member beside others is the member alone."""

import jax.numpy as jnp
import numpy as np

from finetune.member.objective import make_objective
from finetune.member.params import abstract
from finetune.models import of_kind
from tests.helpers import tasks
from tests.helpers.training import EXAMPLES, population, relative

TEXTS = 3
ROWS = [{}, {"learning_rate": 0.1, "seed": 3}, {"dropout": 0.3, "label_smoothing": 0.1, "epochs": 1}]


def chosen():
    """Returns a task that reads its six features as three texts of two, and scores each."""
    each = tasks.mlp(features=2)
    read = each._replace(apply=lambda params, batch, *rest: each.apply(params, {"x": batch["input_ids"]}, *rest))
    several = of_kind._one_score(of_kind._of_each(read))

    def apply(params, batch, dropout, keys):
        texts = batch["x"].reshape(-1, TEXTS, 2)
        return several.apply(params, {"input_ids": texts, "length": jnp.ones(texts.shape[:2])}, dropout, keys)

    objective = make_objective("choice")
    return several._replace(apply=apply, loss=objective.loss, metrics=objective.metrics)


def test_a_population_equals_solo_runs(float64):
    rows = [tasks.row(batch_size=4, **changes) for changes in ROWS]
    # By SGD, since the head's bias has a gradient of nothing but rounding, which Adam would make steps of.
    recipe = tasks.make_recipe(chosen(), "all", EXAMPLES, 4, dropout=True, name="sgd")
    members, reports = population(rows, recipe, tasks.make_shared(recipe))
    for place, row in enumerate(rows):
        alone, told = population([row], recipe, tasks.make_shared(recipe))
        for path in abstract(chosen()):
            assert relative(members.params[path][place], alone.params[path][0]) < 1e-10, path
        last = int(row["epochs"]) - 1
        for name in ("loss", "accuracy"):
            np.testing.assert_allclose(reports[last].metrics[name][place], told[last].metrics[name][0], rtol=1e-10)
    assert relative(members.params["head/kernel"][1], members.params["head/kernel"][0]) > 1e-3
