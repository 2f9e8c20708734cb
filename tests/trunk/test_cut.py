"""A trunk and a tail compute what the whole model does, from one small feature."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune.jaxpr.program import flatten
from finetune.member.params import abstract, partition, unflatten
from finetune.models.bert import Bert
from finetune.trunk.cut import Cut
from finetune.trunk.feature_pass import features_of
from tests.helpers.cuts import (
    DENSE,
    DEPTH,
    IMAGE,
    MLP,
    SIZES,
    TEXT,
    TOKENS,
    WIDTH,
    Setup,
    batch_of,
    bert,
    cut,
    draw,
    example_keys,
    products,
    struct,
    task_of,
    vit,
)

pytestmark = pytest.mark.usefixtures("float64")


def whole_and_split(setup, size):
    """Returns (gradients of a weighted sum, outputs) of the whole model, and of the tail on features."""

    def run(forward, frozen, batch, keys):
        def loss(params):
            outputs = forward(params, frozen, batch, 0.3, keys)
            return (outputs * jnp.arange(1.0, 1 + outputs.size).reshape(outputs.shape)).sum(), outputs

        return jax.grad(loss, has_aux=True)(setup.params)

    @jax.jit  # both at once, which takes less time to compile
    def both(constants, batch, keys):
        features = setup.cut.trunk(setup.frozen, batch)
        carried = {name: batch[name] for name in setup.cut.reads} | features | {"weight": jnp.ones(size)}
        return run(setup.forward, setup.frozen, batch, keys), run(setup.cut.tail, constants, carried, keys)

    keys = example_keys(size) if setup.keys else None
    return both(setup.cut.constants(setup.frozen), batch_of(setup.example, size), keys)


def assert_same(setup, size=4):
    whole, split = whole_and_split(setup, size)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), whole, split)
    # A constant added to all keys cancels in the softmax.
    changed = {path: leaf for path, leaf in whole[0].items() if not path.endswith("key/bias")}
    assert all(np.abs(leaf).max() > 1e-9 for leaf in changed.values())


def shapes(setup):
    return [feature.shape for feature in setup.cut.features.values()]


def tail_products(setup, size=4):
    batch = batch_of(setup.example, size)
    features = jax.eval_shape(setup.cut.trunk, setup.frozen, batch)
    arguments = (setup.params, setup.cut.constants(setup.frozen), {**batch, **features}, 0.1)
    keys = example_keys(size) if setup.keys else None
    return products(flatten(jax.make_jaxpr(lambda *arguments: setup.cut.tail(*arguments, keys))(*arguments)))


# Per block: query, key, value, scores, mixed, output, up, down.
CASES = [  # model, spec, shape of the one feature, matrix products in the tail
    (bert, "head", (WIDTH,), 1),
    (bert, "last:1", (TOKENS, WIDTH), 8 + 1),
    (bert, "last:2", (TOKENS, WIDTH), 16 + 1),
    (bert, "bias", (TOKENS, WIDTH), 16 + 1),  # the sum of the embeddings, before its norm adds a bias
    (bert, "norm", (TOKENS, WIDTH), 16 + 1),
    (bert, "block_0/mlp", (TOKENS, WIDTH), 2 + 8 + 1),  # what enters this MLP is also the residual stream
    (vit, "head", (WIDTH,), 1),
    (vit, "last:1", (5, WIDTH), 8 + 1),
    (vit, "bias", (4, WIDTH), 16 + 1),  # the projected patches; the class token is no feature
    (vit, "norm", (4, WIDTH), 16 + 1),
    (vit, "block_0/mlp", (5, WIDTH), 2 + 8 + 1),
]


@pytest.mark.parametrize(("model", "spec", "shape", "in_tail"), CASES)
def test_the_tail_computes_what_the_whole_model_does_from_one_small_feature(model, spec, shape, in_tail):
    setup = Setup(*model(dropout_at="head"), spec, keys=True)
    assert_same(setup)
    for each in (setup, Setup(*model(dropout_at="head"), spec, keys=False)):
        assert shapes(each) == [shape]
        assert {feature.dtype for feature in each.cut.features.values()} == {np.dtype("float64")}
        assert tail_products(each) == in_tail
        assert each.cut.refused is None


@pytest.mark.parametrize("model", [bert, vit])
def test_a_batch_of_one_example_is_as_good_as_any(model):
    assert_same(Setup(*model(dropout_at="head"), "last:1", keys=True), size=1)


def test_nothing_but_features_is_read_of_a_batch_by_a_head_and_lengths_by_a_block():
    assert Setup(*bert(), "head").cut.reads == set()
    assert Setup(*bert(), "last:1").cut.reads == {"length"}
    assert Setup(*bert(), "all").cut.reads == {"input_ids", "length"}
    assert Setup(*bert(), "all").cut.features == {}


def test_the_tail_is_given_no_leaf_of_the_trunk():
    setup = Setup(*bert(), "head+block_1/mlp")
    leaves = {name for name in setup.cut.constants(setup.frozen) if not name.startswith("constant:")}
    assert all(name.startswith("block_1/mlp_norm") for name in leaves)


def test_flops_are_those_of_the_formula():
    """2·m·n·k for each product; the rest is left out, and small at these sizes: hence the tolerance."""
    width, tokens, size, mlp = 384, 32, 4, 1536
    sizes = {"classes": 3, "width": width, "depth": DEPTH, "heads": 2, "mlp_width": mlp, "positions": tokens}
    model = Bert(**sizes, vocabulary=50, token_types=2, epsilon=1e-5)
    example = {"input_ids": struct((tokens,), jnp.int32), "length": struct((), jnp.int32)}
    setup = Setup(model, example, "last:1")
    shapes = [jax.tree.map(lambda a: struct(a.shape, jnp.float32), a) for a in (setup.params, setup.frozen)]
    cut = Cut(setup.forward, *shapes, example, struct((), jnp.float32), False)
    batch = {name: struct((size, *one.shape), one.dtype) for name, one in example.items()}
    features = jax.eval_shape(cut.trunk, shapes[1], batch)
    constants = jax.eval_shape(cut.constants, shapes[1])
    tail_batch = {name: batch[name] for name in cut.reads} | features

    def flops(function, *arguments):
        return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]

    rows = size * tokens
    block = 2 * rows * (4 * width * width + 2 * width * mlp) + 2 * 2 * rows * tokens * width
    forward = lambda *arguments: cut.tail(*arguments, 0.0, None)  # noqa: E731
    assert flops(cut.trunk, shapes[1], batch) == pytest.approx(block, rel=0.05)
    assert flops(forward, shapes[0], constants, tail_batch) == pytest.approx(block, rel=0.05)
    # Of the backward pass the first block that trains needs no gradient of its input: query, key and value save one.
    gradient = jax.grad(lambda *arguments: forward(*arguments).sum())
    backward = 3 * block - 2 * rows * 3 * width * width
    assert flops(gradient, shapes[0], constants, tail_batch) == pytest.approx(backward, rel=0.08)


def test_dropout_in_the_trunk_leaves_what_comes_before_it():
    setup = Setup(*bert(dropout_at="all"), "head", keys=True)
    assert_same(setup)
    # The embeddings are looked up without a key; every product comes after their dropout.
    assert shapes(setup) == [(TOKENS, WIDTH)]
    assert tail_products(setup) == DEPTH * (DENSE + 2) + 1
    evaluation = Setup(*bert(dropout_at="all"), "head", keys=False)
    assert shapes(evaluation) == [(WIDTH,)]


def test_after_an_augmentation_that_depends_on_a_key_there_are_no_features():
    task = task_of(*vit(dropout_at="head"))

    def forward(params, frozen, batch, dropout, keys):
        flip = jax.vmap(jax.random.bernoulli)(keys)[:, None, None, None]
        images = jnp.where(flip, batch["image"][:, :, ::-1], batch["image"])
        return task.apply(unflatten({**frozen, **params}), {"image": images}, dropout, keys)

    params, frozen = partition(draw(abstract(task)), frozenset({"head/kernel", "head/bias"}))
    found = cut(forward, params, frozen, IMAGE, keys=True)
    assert found.features == {}
    assert found.reads == {"image"}


def test_what_a_hyperparameter_touches_is_in_the_tail():
    def forward(params, frozen, batch, dropout, keys):
        x = jnp.tanh(batch["x"] @ frozen["first"])
        return jnp.tanh((x * (1 - dropout)) @ frozen["second"]) @ params["head"]

    frozen = {"first": jnp.ones((3, 5)), "second": jnp.ones((5, 2))}
    found = cut(forward, {"head": jnp.ones((2, 1))}, frozen, {"x": struct((3,), jnp.float64)})
    assert [feature.shape for feature in found.features.values()] == [(5,)]


def test_members_in_a_vmapped_tail_equal_each_alone():
    setup = Setup(*bert(dropout_at="head"), "last:1", keys=True)
    batch = batch_of(TEXT, 4)
    constants, carried = setup.cut.constants(setup.frozen), {**batch, **jax.jit(setup.cut.trunk)(setup.frozen, batch)}
    members = {path: jnp.stack([leaf, leaf * 1.1, leaf - 0.1]) for path, leaf in setup.params.items()}
    rates, keys = jnp.array([0.0, 0.2, 0.5]), jnp.stack([example_keys(4)] * 3)

    def gradient(forward, params, frozen, batch, rate, keys):
        return jax.grad(lambda params: (forward(params, frozen, batch, rate, keys) ** 2).sum())(params)

    together = jax.jit(
        jax.vmap(lambda params, rate, keys: gradient(setup.cut.tail, params, constants, carried, rate, keys))
    )(members, rates, keys)
    alone = jax.jit(lambda params, *rest: gradient(setup.forward, params, setup.frozen, batch, *rest))
    for index in range(3):
        member = {path: leaf[index] for path, leaf in members.items()}
        for path, leaf in alone(member, rates[index], keys[index]).items():
            np.testing.assert_allclose(together[path][index], leaf, rtol=1e-10, atol=1e-12)


def test_features_of_an_example_do_not_depend_on_the_batch_it_is_in():
    setup = Setup(*vit(), "last:1")
    batch = batch_of(IMAGE, 7)
    trunk = jax.jit(setup.cut.trunk)
    (whole,) = trunk(setup.frozen, batch).values()
    for rows in ([3], [6, 3, 0]):
        (part,) = trunk(setup.frozen, {"image": batch["image"][jnp.array(rows)]}).values()
        np.testing.assert_allclose(part, whole[jnp.array(rows)], rtol=1e-12, atol=1e-13)


def test_training_and_evaluation_share_features_and_groups_share_one_pass():
    training, evaluation = (Setup(*bert(dropout_at="head"), "head", keys) for keys in (True, False))
    assert training.cut.key == evaluation.cut.key
    assert training.cut.features == evaluation.cut.features
    groups = [Setup(*bert(dropout_at="head"), spec) for spec in ("head", "last:1", "last:2")]
    assert len({group.cut.key for group in groups}) == 3
    together = features_of(group.cut for group in groups)
    batch, frozen = batch_of(TEXT, 4), {**groups[2].frozen, **groups[0].frozen}
    features = together(frozen, batch)
    assert len(features) == 3
    for group in groups:
        for name, alone in group.cut.trunk(group.frozen, batch).items():
            np.testing.assert_array_equal(features[name], alone)
    # The deepest trunk has all blocks; the others add nothing.
    assert products(flatten(jax.make_jaxpr(together)(frozen, batch))) == DEPTH * (DENSE + 2)


def test_the_key_is_that_of_the_program_in_every_process():
    code = (
        "import jax; from tests.helpers import cuts\n"
        "with jax.enable_x64(True): print(cuts.Setup(*cuts.bert(dropout_at='head'), 'last:1').cut.key)"
    )
    here = Setup(*bert(dropout_at="head"), "last:1").cut.key
    there = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert here == there
    sizes = SIZES | {"vocabulary": 11, "positions": 9, "token_types": 2, "epsilon": 1e-6}
    other = Bert(**sizes, dtype=jnp.float64, param_dtype=jnp.float64, dropout_at="head")
    assert Setup(other, TEXT, "last:1").cut.key != here


def test_bfloat16_kernels_of_the_tail_are_cast_once():
    setup = Setup(
        Bert(**SIZES, vocabulary=11, positions=9, token_types=2, epsilon=1e-5, dtype=jnp.bfloat16),
        TEXT,
        "head+block_1/mlp/up",
    )
    constants = setup.cut.constants(setup.frozen)
    assert (MLP, WIDTH) in {leaf.shape for leaf in constants.values() if leaf.dtype == jnp.bfloat16}
    assert not any(leaf.shape == (MLP, WIDTH) and leaf.dtype != jnp.bfloat16 for leaf in constants.values())
    assert {feature.dtype for feature in setup.cut.features.values()} == {np.dtype(jnp.bfloat16)}


def test_custom_derivatives_in_the_tail_are_kept():
    @jax.custom_vjp
    def doubled(x):
        return x

    doubled.defvjp(lambda x: (x, None), lambda _, gradient: (2 * gradient,))

    def forward(params, frozen, batch, dropout, keys):
        return jax.jit(doubled)((batch["x"] @ frozen["kernel"]) @ params["head"])

    params, frozen = {"head": jnp.ones((3, 1))}, {"kernel": jnp.eye(3)}
    found = cut(forward, params, frozen, {"x": struct((3,), jnp.float64)})
    batch = {"x": jnp.arange(6.0).reshape(2, 3)}
    features = found.trunk(frozen, batch)
    gradient = jax.grad(lambda params: found.tail(params, {}, features, 0.0, None).sum())(params)["head"]
    np.testing.assert_allclose(gradient[:, 0], 2 * (np.arange(3.0) + np.arange(3.0, 6.0)))
