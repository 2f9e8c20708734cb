"""Rates by depth and by pattern: against formulas by hand, and against optax.multi_transform."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from finetune.config import Config, OptimizerConfig
from finetune.errors import UserError
from finetune.member import params, rates
from finetune.member.optimizer import make_optimizer, rate_factors
from finetune.member.step import Position, train_step
from tests.helpers import tasks

DEPTHS = {"stem": 4, "a/0": 3, "b": 2, "a/1": 1, "norm": 0, "head": 0}  # of a model with three blocks


def three_blocks() -> object:
    task = tasks._task(lambda key: {}, lambda *arguments: jnp.zeros(()))
    return task._replace(stem=("stem",), blocks=("a/0", "b", "a/1"))


def made(task, multipliers=(), trainable="all", layer_decay=False, parts=()):
    config = Config(optimizer=OptimizerConfig(multipliers=multipliers), parts=parts)
    shapes = params.abstract(task)
    paths = sorted(params.trainable_paths(trainable, task, shapes, params.named_parts(parts)))
    return config, shapes, rates.make_rates(config, task, shapes, paths, layer_decay)


def test_the_head_has_depth_0_and_each_block_below_it_one_more() -> None:
    task = three_blocks()
    for part, depth in DEPTHS.items():
        for path in (f"{part}/kernel", f"{part}/dense/bias", f"lora/{part}/dense/a"):
            assert rates.depth_of(path, task) == depth
    assert rates.depth_of("bb/kernel", task) == rates.depth_of("stems/kernel", task) == 0


def test_factors_by_hand() -> None:
    _, _, found = made(tasks.mlp(), ("stem/bias=3", "**/bias=0.5", "head=1"), layer_decay=True)
    factors = rate_factors(tasks.scalars(layer_decay=0.8), found, ())
    wanted = {
        "stem/kernel": 0.8**2, "stem/bias": 3 * 0.8**2, "block_0/kernel": 0.8, "block_0/bias": 0.5 * 0.8,
        "head/bias": 0.5,
    }  # fmt: skip
    assert {path: pytest.approx(float(factor)) for path, factor in factors.items()} == wanted


def test_factors_of_one_add_nothing_to_the_program() -> None:
    """The compiled step with multipliers of 1 is, text for text, the step without any."""
    task = tasks.mlp()
    split = tasks.data(4) | {"index": np.arange(4, dtype=np.int32), "weight": np.ones(4, np.float32)}
    position = Position(jnp.int32(0), jnp.int32(0), jnp.bool_(True))
    texts = []
    for found in (rates.NO_RATES, made(task, ("**/bias=1",))[2], made(task, ("**/bias=2",))[2]):
        recipe = tasks.make_recipe(task, "all", 8, 4, rates=found)
        shared = tasks.make_shared(recipe)
        member = tasks.start(recipe, shared)
        step = jax.jit(functools.partial(train_step, recipe))
        texts.append(step.lower(member, shared, split, position).as_text())
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("name", ["adamw", "sgd", "lion"])
@pytest.mark.parametrize("coupling", ["learning_rate", "independent"])
def test_updates_equal_multi_transform(name: str, coupling: str) -> None:
    """Each leaf has its own Optax optimizer there, whose learning rate is written out; decay beside it or within."""
    labels = {"stem/kernel": 0.45, "stem/bias": 0.9, "head/kernel": 1.0}  # 0.5·0.9, 1·0.9 for a decay of 0.9
    with jax.enable_x64(True):
        hparams = tasks.scalars(learning_rate=0.02, weight_decay=0.3, layer_decay=0.9)
        leaves = {path: jnp.linspace(-1.0, 2.0, 4).reshape(2, 2) for path in labels}
        gradients = {path: jnp.cos(3 * leaf) for path, leaf in leaves.items()}
        found = rates.Rates({"stem/kernel": 1, "stem/bias": 1}, {"stem/kernel": 0.5})
        config = OptimizerConfig(name=name, decay_coupling=coupling)
        factors = rate_factors(hparams, found, ())
        ours = make_optimizer(config, hparams, jnp.float64(0.7), dict.fromkeys(labels, True), factors)
        theirs = optax.multi_transform(
            {str(each): _by_optax(name, coupling, 0.7 * 0.02 * each) for each in labels.values()},
            {path: str(each) for path, each in labels.items()},
        )
        results = []
        for optimizer in (ours, theirs):
            after, state = leaves, optimizer.init(leaves)
            for _ in range(3):
                changes, state = optimizer.update(gradients, state, after)
                after = optax.apply_updates(after, changes)
            results.append(after)
        for path in labels:
            np.testing.assert_allclose(results[0][path], results[1][path], rtol=1e-12)


def _by_optax(name: str, coupling: str, rate: float) -> optax.GradientTransformation:
    direction = {
        "adamw": optax.scale_by_adam(), "sgd": optax.trace(0.9), "lion": optax.scale_by_lion(0.9, 0.999)
    }[name]  # fmt: skip
    if coupling == "independent":
        return optax.chain(direction, optax.scale(-rate), optax.add_decayed_weights(-0.7 * 0.3))
    return optax.chain(direction, optax.add_decayed_weights(0.3), optax.scale(-rate))


def test_multipliers_may_name_words_and_parts() -> None:
    found = made(tasks.mlp(), ("low=2", "last:1=3"), parts=("low=stem+!**/bias",))[2]
    assert found.multipliers == {"stem/kernel": 2} | {
        f"{part}/{leaf}": 3 for part in ("block_0", "head") for leaf in ("kernel", "bias")
    }
    assert made(tasks.mlp(), ("stem=2",), "head")[2] == rates.NO_RATES


@pytest.mark.parametrize(
    "multipliers, line",
    [
        (("stem",), "'stem', allowed: PATTERN=FACTOR"),
        (("stem=fast",), "'stem=fast', allowed"),
        (("stem=-1",), "allowed: PATTERN=FACTOR with a factor of 0 or more"),
        (("stem=inf",), "allowed"),
        (("=2",), "allowed"),
        (("stem=1", "stem=2"), "names 'stem' twice"),
        (("tail=2",), "'tail' hits nothing that trains, allowed: .* block_0, head"),
        (("stem=2",), "'stem' hits nothing that trains"),
        (("block_0=2", "block_0/bias=3"), "'block_0/bias' hits only what patterns before it hit"),
    ],
)
def test_multipliers_that_make_no_sense(multipliers: tuple[str, ...], line: str) -> None:
    task = tasks.mlp()
    shapes = params.abstract(task)
    config = Config(optimizer=OptimizerConfig(multipliers=multipliers))
    trained = [sorted(params.trainable_paths(spec, task, shapes)) for spec in ("head", "last:1")]
    with pytest.raises(UserError, match=line):
        rates.check(config, task, shapes, trained)


def test_a_factor_of_0_is_told_that_freezing_costs_less() -> None:
    task = tasks.mlp()
    config, shapes, _ = made(task, ("stem=0", "head=2"))
    [line] = rates.check(config, task, shapes, [["head/kernel"], sorted(shapes)])
    assert "'stem'" in line
    assert '"+!stem" in trainable' in line
