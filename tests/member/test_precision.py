"""Sums are taken in float32 or wider, whatever a model computes in: expected values are NumPy's in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune.member.epoch import evaluate, make_order
from finetune.member.metric import Metric, macro_f1
from finetune.member.precision import widened
from finetune.member.step import Shared
from finetune.member.task import Task
from finetune.population.parallel import OneDevice
from finetune.population.programs import make_programs
from finetune.trials import hparams
from tests.helpers import tasks
from tests.helpers.training import train_population


def echo(dtype, **changes):
    """Returns a task whose logits are its input in `dtype`."""
    task = tasks.mlp()
    metrics = {
        **task.metrics,
        "narrow": lambda logits, batch: (logits.argmax(-1) == batch["label"]).astype(dtype),
        "count": lambda logits, batch: logits.argmax(-1) == batch["label"],
        "macro_f1": Metric(macro_f1, of_split=True),
    }
    apply = lambda params, batch, dropout, keys: batch["x"].astype(dtype)  # noqa: E731
    return task._replace(apply=apply, metrics=metrics, **changes)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_metrics_of_many_examples_do_not_saturate(dtype):
    number = 60_000
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, number).astype(np.int32)
    x = random.normal(size=(number, 3)) + 1.5 * np.eye(3)[labels]
    recipe = tasks.make_recipe(echo(dtype), "all", 8, 4)
    order = make_order(np.arange(number), 128)
    run = jax.jit(lambda split, order: evaluate(recipe, {}, Shared({}, {}), split, order, len(order.examples)))
    found = run({"x": x.astype(np.float32), "label": labels}, order)
    logits = np.asarray(jnp.asarray(x, np.float32).astype(dtype).astype(np.float32), np.float64)
    right = (logits.argmax(1) == labels).mean()
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(number), labels]
    assert 0.6 < right < 0.9
    for name in ("accuracy", "narrow", "count"):
        np.testing.assert_allclose(found[name], right, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(found["loss"], losses.mean(), rtol=1e-5)
    counts = np.zeros((3, 3))
    np.add.at(counts, (labels, logits.argmax(1)), 1)
    f1 = 2 * np.diagonal(counts) / (counts.sum(0) + counts.sum(1))
    np.testing.assert_allclose(found["macro_f1"], f1.mean(), rtol=1e-5)


def narrow_sum():
    """Returns a task of one bfloat16 parameter, whose loss is that parameter, in bfloat16."""
    init = lambda key: {"head": {"kernel": jnp.zeros((1, 1), jnp.bfloat16)}}  # noqa: E731
    apply = lambda params, batch, *_: jnp.zeros((len(batch["x"]), 1), jnp.bfloat16) + params["head"]["kernel"]  # noqa: E731
    loss = lambda outputs, batch, smoothing: outputs[:, 0].astype(jnp.bfloat16)  # noqa: E731
    return Task(init, apply, loss, {"accuracy": lambda outputs, batch: outputs[:, 0]}, (), (), "head")


def test_mean_gradients_of_bfloat16_parameters():
    """The gradient of each example is 1, and so is the mean of 1,000 micro-batches of one example."""
    batch_size, options = 1000, {"accumulates": True, "name": "sgd", "schedule": "constant"}
    recipe = tasks.make_recipe(narrow_sum(), "all", batch_size, 1, **options)
    rows = [tasks.row(batch_size=batch_size, epochs=1, learning_rate=0.5, momentum=0.0, warmup_fraction=0.0)]
    programs = make_programs(recipe, OneDevice(), True)
    shared = Shared({}, {})
    members = programs.init(shared, hparams.stack(rows, 1))
    members, _ = train_population(programs, recipe, shared, members, (0,))
    kernel = members.params["head/kernel"]
    assert kernel.dtype == jnp.bfloat16
    assert int(members.updates[0]) == 1
    np.testing.assert_array_equal(np.asarray(kernel, np.float32), [[[-0.5]]])


def test_what_is_wide_or_counted_stays():
    tree = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2), "c": jnp.ones(2, jnp.int8), "d": jnp.ones(2, bool)}
    assert [leaf.dtype.name for leaf in widened(tree).values()] == ["float32", "float32", "int8", "bool"]
    with jax.enable_x64(True):
        assert widened(np.ones(2, np.float64)).dtype == np.float64
