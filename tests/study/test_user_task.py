"""A user's own task: what it is made of, what it is called by, and what is told of one that cannot be used."""

import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune import Config, from_functions, from_linen, from_nnx
from finetune.config import ModelConfig
from finetune.errors import UserError
from finetune.member.dense import at_dense
from finetune.member.metric import Metric
from finetune.member.params import abstract, trainable_paths
from finetune.models.adapters.parts import last_part
from finetune.models.weights.pretrained import leaves_hash
from finetune.study import user_task
from tests.helpers import tasks
from tests.own.networks import EXAMPLE, NNX, Linen, linen_task, nnx_task

SPLIT = tasks.data(8)


def plain(scale=1.0, weights=None):
    table = scale * np.ones((6, 3), np.float32)

    def init(key):
        return {"first": {"kernel": jax.random.normal(key, (6, 6))}, "zero": {"kernel": jnp.zeros((6, 3))}}

    def apply(params, batch, dropout, keys):
        return jnp.tanh(batch["x"] @ params["first"]["kernel"]) @ (params["zero"]["kernel"] + table)

    return from_functions(init, apply, weights=weights)


def test_parts_are_found():
    assert linen_task().head == "out"
    assert nnx_task().head == "out"
    assert plain().head == "zero"
    matrix, vector = jnp.zeros((2, 2)), jnp.zeros(2)
    layer = {"kernel": matrix, "bias": vector}
    assert last_part({"only": {"a": layer, "b": layer}}) == "only/b"
    assert last_part({"only": layer, "scale": vector}) == "only"
    assert last_part({"a": matrix, "b": matrix, "c": vector}) == "b"
    paths = set(abstract(nnx_task()))
    assert {"denses/0/kernel", "out/bias", "norms/1/scale", "batch_stats/norms/1/var"} <= paths


def test_hooks_reach_dense_layers_of_both_kinds():
    for task, names in ((linen_task(), ["dense_0", "dense_1", "out"]), (nnx_task(), ["denses/0", "denses/1", "out"])):
        seen = []
        params = task.init(jax.random.key(0))
        with at_dense(lambda path, x, y, seen=seen: seen.append((path, x.shape, y.shape)) or y):
            task.apply(params, {"x": jnp.asarray(SPLIT["x"])}, 0.0, None)
        assert seen == [(names[0], (8, 6), (8, 5)), (names[1], (8, 5), (8, 5)), (names[2], (8, 5), (8, 3))]


def test_the_hash_follows_the_program_and_its_constants():
    one = user_task.program_hash(plain(), SPLIT)
    assert one == user_task.program_hash(plain(), SPLIT)
    others = [plain(2.0), plain()._replace(head="first"), linen_task(), nnx_task()]
    others.append(plain()._replace(loss=lambda logits, batch, smoothing: -logits[:, 0]))
    assert len({one, *(user_task.program_hash(task, SPLIT) for task in others)}) == 6


def straight(scale):
    """Returns a function whose values are those of `doubled`, and whose derivative is `scale`."""

    @jax.custom_vjp
    def function(x):
        return 2 * x

    function.defvjp(lambda x: (2 * x, None), lambda _, g: (scale * g,))
    return function


def tangent(scale):
    """Returns the same with a rule for forward mode."""

    @jax.custom_jvp
    def function(x):
        return 2 * x

    function.defjvp(lambda primals, tangents: (2 * primals[0], scale * tangents[0]))
    return function


def called_back(factor):
    """Returns a function of x that Python computes, and that has no derivative; all are called `f`."""

    def f(x):
        return np.asarray(factor * x, np.float32)

    def function(x):
        return jax.pure_callback(f, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    return function


def layered(function, in_loss=False, frozen=False):
    """Returns a task that applies `function` to the outputs of its first layer, to its loss, or to its inputs."""
    task = plain()

    def apply(params, batch, dropout, keys):
        x = function(batch["x"]) if frozen else batch["x"]
        hidden = x @ params["first"]["kernel"]
        return (hidden if in_loss or frozen else function(hidden)) @ params["zero"]["kernel"]

    def loss(outputs, batch, smoothing):
        return task.loss(function(outputs) if in_loss else outputs, batch, smoothing)

    return task._replace(apply=apply, loss=loss)


def directed(larger):
    return plain()._replace(metrics={"error": Metric(lambda outputs, batch: outputs[:, 0], larger_is_better=larger)})


def updated(factor):
    """Returns a task whose update scales what it gives in training, where only the head trains."""

    def update(params, batch, dropout, keys, trained):
        scale = factor if trained == {"zero/kernel"} else 1.0
        return scale * batch["x"] @ params["first"]["kernel"] @ params["zero"]["kernel"], {}

    return plain()._replace(update=update)


TWINS = {  # each pair differs in training or in choosing, and in nothing that a forward pass shows
    "fixed": (plain(), plain()._replace(fixed=("first",))),
    "direction": (directed(True), directed(False)),
    "custom_vjp": (layered(straight(1.0)), layered(straight(3.0))),
    "custom_jvp": (layered(tangent(1.0)), layered(tangent(3.0))),
    "custom_vjp of the loss": (layered(straight(1.0), in_loss=True), layered(straight(3.0), in_loss=True)),
    "pure_callback": (layered(called_back(1.0), frozen=True), layered(called_back(3.0), frozen=True)),
    "pure_callback in what trains": (layered(called_back(1.0)), layered(called_back(3.0))),
    "update": (updated(1.0), updated(3.0)),
}


@pytest.mark.parametrize("pair", TWINS)
def test_the_hash_holds_what_training_alone_shows(pair):
    one, other = TWINS[pair]
    assert (
        user_task.program_hash(one, SPLIT) == user_task.program_hash(one, SPLIT) != user_task.program_hash(other, SPLIT)
    )


def test_a_rule_counts_where_a_part_has_no_derivative():
    def task(scale):
        return layered(lambda x: called_back(1.0)(straight(scale)(x)), in_loss=False)._replace(
            loss=lambda outputs, batch, smoothing: straight(scale)(outputs)[:, 0]
        )

    assert user_task.program_hash(task(1.0), SPLIT) != user_task.program_hash(task(3.0), SPLIT)


def test_what_cannot_be_compared_between_processes_is_refused():
    generator = np.random.default_rng(0)
    with pytest.raises(UserError, match="holds Generator.*cannot be compared between processes"):
        user_task.program_hash(layered(called_back(generator), frozen=True), SPLIT)


OTHERS = (plain(), *(one for one, _ in TWINS.values()))


def test_the_hash_is_the_same_in_another_process():
    code = (
        "from tests.helpers import tasks; from tests.own.networks import linen_task, nnx_task;"
        "from tests.study import test_user_task; from finetune.study import user_task;"
        "print(*(user_task.program_hash(t, tasks.data(8)) for t in (linen_task(), nnx_task(), *test_user_task.OTHERS)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    here = [user_task.program_hash(task, SPLIT) for task in (linen_task(), nnx_task(), *OTHERS)]
    assert done.stdout.split() == here


def test_weights_are_of_all_but_the_head():
    variables = Linen().init(jax.random.key(3), jnp.ones((1, 6)), train=False)
    task = linen_task(weights=variables)
    found = user_task.weights(task, abstract(task))
    assert set(abstract(task)) - set(found) == {"out/kernel", "out/bias"}
    np.testing.assert_array_equal(found["dense_1/kernel"], variables["params"]["dense_1"]["kernel"])
    np.testing.assert_array_equal(found["batch_stats/norm_0/var"], np.ones(5))
    module = NNX(nnx_rngs(5))
    task = nnx_task(weights=module)
    np.testing.assert_array_equal(
        user_task.weights(task, abstract(task))["denses/1/kernel"], module.denses[1].kernel[...]
    )
    hashes = {
        leaves_hash(user_task.weights(each, abstract(each))) for each in (task, nnx_task(weights=NNX(nnx_rngs(6))))
    }
    assert len(hashes) == 2


def nnx_rngs(seed):
    from flax import nnx

    return nnx.Rngs(seed)


class Greedy(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x) + self.missing


def build(make):
    return user_task.build(make, 3, EXAMPLE, "accuracy")


MISTAKES = {
    "no blocks": (lambda: trainable_paths("last:1", plain(), abstract(plain())), "names no blocks"),
    "head": (lambda: from_linen(Linen(), EXAMPLE, head="outt"), "head is 'outt'.*'out'"),
    "blocks": (lambda: from_nnx(NNX, EXAMPLE, blocks=("dense/0",)), "blocks is 'dense/0'"),
    "several arrays": (lambda: from_linen(Linen(), EXAMPLE | {"y": EXAMPLE["x"]}), "x, y.*call="),
    "raises": (lambda: build(lambda classes, example: from_linen(Greedy(), example)), "task.classes.*missing"),
    "no task": (lambda: build(lambda classes, example: 3), "returns 3.*from_linen"),
    "a setting of other models": (
        lambda: user_task.checked(Config(model=ModelConfig(width=32))),
        "model.width is 32.*default",
    ),
    "weights": (lambda: user_task.weights(plain(weights={}), abstract(plain())), "the task.*missing: first/kernel"),
    "does not run": (lambda: user_task.program_hash(plain(), tasks.data(8, 5)), "does not run on a batch"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_in_one_line(mistake):
    action, words = MISTAKES[mistake]
    with pytest.raises(UserError, match=words) as caught:
        action()
    assert "\n" not in str(caught.value)
