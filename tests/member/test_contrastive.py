"""Texts that belong together: the loss over a batch and metrics of a split by hand, and members as they are alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune.member import metric
from finetune.member.objective import Loss, in_batch_cross_entropy, is_contrastive, make_objective, trained_loss
from finetune.member.params import abstract
from tests.helpers import tasks
from tests.helpers.training import EXAMPLES, population, relative


def drawn(count):
    return np.random.default_rng(2).normal(size=(count, 2, 4))


def cosines(outputs):
    unit = outputs / np.linalg.norm(outputs, axis=-1, keepdims=True)
    return unit[:, 0] @ unit[:, 1].T


def test_the_loss_is_that_of_finding_the_other_text_in_the_batch():
    outputs, weight = drawn(5), np.array([1, 1, 1, 1, 0])
    scores = np.exp(cosines(outputs) / 0.1)
    wanted = [-np.log(scores[place, place] / scores[place, :4].sum()) for place in range(4)]
    found = in_batch_cross_entropy(jnp.asarray(outputs), jnp.asarray(weight), temperature=0.1)
    np.testing.assert_allclose(found[:4], wanted, rtol=1e-5)
    # The copy of the first example that fills up a batch counts for nothing, and has a gradient of nothing.
    filled = jnp.asarray(outputs).at[4].set(outputs[0])

    def total(outputs):
        return jnp.where(weight > 0, in_batch_cross_entropy(outputs, jnp.asarray(weight)), 0).sum()

    gradient = jax.grad(total)(filled)
    assert np.isfinite(gradient).all()
    assert (gradient[4] == 0).all()


def test_metrics_are_of_the_places_among_all_texts_of_a_split():
    outputs, weight = drawn(70), np.repeat([1.0, 0.0], [60, 10])
    outputs[7, 1] = outputs[3, 1]  # a tie
    similar = cosines(outputs)[:60, :60]
    own = np.diagonal(similar)[:, None]
    more, same = (similar > own + 1e-9).sum(axis=1), (abs(similar - own) < 1e-9).sum(axis=1)
    arguments = jnp.asarray(outputs), jnp.zeros(70, jnp.int32), jnp.asarray(weight)
    found = {name: metric.as_metric(each).of(*arguments) for name, each in metric.CONTRASTIVE.items()}
    np.testing.assert_allclose(found["accuracy"], ((more == 0) / same).mean(), rtol=1e-5)
    np.testing.assert_allclose(found["reciprocal_rank"], (1 / (more + (same + 1) / 2)).mean(), rtol=1e-5)
    constant = metric.found_first(jnp.ones((8, 2, 3)), jnp.zeros(8), jnp.ones(8))
    np.testing.assert_allclose(constant, 1 / 8)


def paired():
    """Returns a task that reads its six features as two texts of three."""
    task = tasks.mlp(features=3)

    def apply(params, batch, dropout, keys):
        halves = batch["x"].reshape(-1, 2, 3)
        sides = [task.apply(params, {"x": halves[:, side]}, dropout, keys) for side in (0, 1)]
        return jnp.stack(sides, axis=1)

    objective = make_objective("contrastive")
    return task._replace(apply=apply, loss=objective.loss, metrics=objective.metrics)


ROWS = [{}, {"temperature": 0.5}, {"learning_rate": 0.1, "dropout": 0.2, "seed": 3, "epochs": 1}]


def trained(rows):
    task = paired()
    recipe = tasks.make_recipe(task, "all", EXAMPLES, 8, dropout=True)
    recipe = recipe._replace(trained_loss=trained_loss(task, emphasises=False), mixes=True)
    return population(rows, recipe, tasks.make_shared(recipe))


def test_a_population_equals_solo_runs(float64):
    rows = [tasks.row(batch_size=8, **changes) for changes in ROWS]
    members, reports = trained(rows)
    for place, row in enumerate(rows):
        alone, told = trained([row])
        for path in abstract(paired()):
            assert relative(members.params[path][place], alone.params[path][0]) < 1e-10, path
        last = int(row["epochs"]) - 1
        for name in ("loss", "accuracy", "reciprocal_rank"):
            np.testing.assert_allclose(reports[last].metrics[name][place], told[last].metrics[name][0], rtol=1e-10)
    assert relative(members.params["head/kernel"][1], members.params["head/kernel"][0]) > 1e-3


@pytest.mark.parametrize("temperature", [0.02, 0.3])
def test_training_minimises_at_the_members_temperature_and_tells_at_the_default(temperature):
    task, outputs = paired(), jnp.asarray(drawn(6), jnp.float32)
    batch = {"weight": jnp.ones(6), "label": jnp.zeros(6, jnp.int32)}
    found = trained_loss(task, emphasises=False)(outputs, batch, tasks.scalars(temperature=temperature), None)
    np.testing.assert_allclose(found, in_batch_cross_entropy(outputs, batch["weight"], 0.0, temperature), rtol=1e-6)
    told = task.loss(outputs, batch, jnp.zeros(()))
    np.testing.assert_allclose(told, in_batch_cross_entropy(outputs, batch["weight"], 0.0, 0.05), rtol=1e-6)
    assert is_contrastive(task)
    assert task.loss == Loss(in_batch_cross_entropy, 1.0, "weight")
