"""A user's own task: what it is made of, what it is called by, and what is told of one that cannot be used."""

import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tasks
from own.networks import EXAMPLE, NNX, Linen, linen_task, nnx_task

from finetune import Config, from_functions, from_linen, from_nnx, own
from finetune.config import ModelConfig
from finetune.errors import UserError
from finetune.models.layers import at_dense
from finetune.models.parts import last_part
from finetune.models.pretrained import leaves_hash
from finetune.params import abstract, trainable_paths

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
    one = own.program_hash(plain(), SPLIT)
    assert one == own.program_hash(plain(), SPLIT)
    others = [plain(2.0), plain()._replace(head="first"), linen_task(), nnx_task()]
    others.append(plain()._replace(loss=lambda logits, batch, smoothing: -logits[:, 0]))
    assert len({one, *(own.program_hash(task, SPLIT) for task in others)}) == 6


def test_the_hash_is_the_same_in_another_process():
    code = (
        "import tasks; from own.networks import linen_task, nnx_task; from finetune import own; import test_own;"
        "print(*(own.program_hash(t, tasks.data(8)) for t in (linen_task(), nnx_task(), test_own.plain())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    here = [own.program_hash(task, SPLIT) for task in (linen_task(), nnx_task(), plain())]
    assert done.stdout.split() == here


def test_weights_are_of_all_but_the_head():
    variables = Linen().init(jax.random.key(3), jnp.ones((1, 6)), train=False)
    task = linen_task(weights=variables)
    found = own.weights(task, abstract(task))
    assert set(abstract(task)) - set(found) == {"out/kernel", "out/bias"}
    np.testing.assert_array_equal(found["dense_1/kernel"], variables["params"]["dense_1"]["kernel"])
    np.testing.assert_array_equal(found["batch_stats/norm_0/var"], np.ones(5))
    module = NNX(nnx_rngs(5))
    task = nnx_task(weights=module)
    np.testing.assert_array_equal(own.weights(task, abstract(task))["denses/1/kernel"], module.denses[1].kernel[...])
    hashes = {leaves_hash(own.weights(each, abstract(each))) for each in (task, nnx_task(weights=NNX(nnx_rngs(6))))}
    assert len(hashes) == 2


def nnx_rngs(seed):
    from flax import nnx

    return nnx.Rngs(seed)


class Greedy(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x) + self.missing


def build(make):
    return own.build(make, 3, EXAMPLE, "accuracy")


MISTAKES = {
    "no blocks": (lambda: trainable_paths("last:1", plain(), abstract(plain())), "names no blocks"),
    "head": (lambda: from_linen(Linen(), EXAMPLE, head="outt"), "head is 'outt'.*'out'"),
    "blocks": (lambda: from_nnx(NNX, EXAMPLE, blocks=("dense/0",)), "blocks is 'dense/0'"),
    "several arrays": (lambda: from_linen(Linen(), EXAMPLE | {"y": EXAMPLE["x"]}), "x, y.*call="),
    "raises": (lambda: build(lambda classes, example: from_linen(Greedy(), example)), "task.classes.*missing"),
    "no task": (lambda: build(lambda classes, example: 3), "returns 3.*from_linen"),
    "a setting of other models": (
        lambda: own.checked(Config(model=ModelConfig(width=32))),
        "model.width is 32.*default",
    ),
    "weights": (lambda: own.weights(plain(weights={}), abstract(plain())), "the task.*missing: first/kernel"),
    "does not run": (lambda: own.program_hash(plain(), tasks.data(8, 5)), "does not run on a batch"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_in_one_line(mistake):
    action, words = MISTAKES[mistake]
    with pytest.raises(UserError, match=words) as caught:
        action()
    assert "\n" not in str(caught.value)
