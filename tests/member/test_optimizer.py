"""Schedules at points computed by hand; updates against NumPy and against Optax's own optimizers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from finetune.config import OptimizerConfig
from finetune.member.optimizer import make_optimizer, unit_schedule
from tests.helpers import formulas, tasks

PARAMS = {"kernel": np.array([[0.5, -1.0], [2.0, 0.25]]), "bias": np.array([1.0, -3.0])}
DECAYED = {"kernel": True, "bias": False}
STEPS = 4


def gradients_at(step: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(step)
    return {path: random.normal(size=leaf.shape) for path, leaf in PARAMS.items()}


@pytest.mark.parametrize(
    "name, update, total, warmup_fraction, wanted",
    [
        ("constant", 0, 20, 0.0, 1.0),
        ("constant", 19, 20, 0.0, 1.0),
        ("constant", 0, 20, 0.1, 0.5),
        ("constant", 1, 20, 0.1, 1.0),
        ("constant", 4, 20, 1.0, 0.25),
        ("constant", 19, 20, 1.0, 1.0),
        ("linear", 0, 20, 0.0, 1.0),
        ("linear", 5, 20, 0.0, 0.75),
        ("linear", 19, 20, 0.0, 0.05),
        ("linear", 0, 20, 0.1, 0.5),
        ("linear", 2, 20, 0.1, 1.0),
        ("linear", 11, 20, 0.1, 0.5),
        ("linear", 19, 20, 0.1, 1 / 18),
        ("linear", 9, 20, 1.0, 0.5),
        ("cosine", 0, 20, 0.0, 1.0),
        ("cosine", 10, 20, 0.0, 0.5),
        ("cosine", 5, 20, 0.0, (1 + 0.5**0.5) / 2),
        ("cosine", 0, 20, 0.1, 0.5),
        ("cosine", 1, 20, 0.1, 1.0),
        ("cosine", 14, 20, 0.1, 0.25),
        ("cosine", 19, 20, 1.0, 1.0),
        ("cosine", 0, 1, 0.1, 1.0),
    ],
)
def test_unit_schedule_by_hand(name: str, update: int, total: int, warmup_fraction: float, wanted: float) -> None:
    got = unit_schedule(name, jnp.int32(update), jnp.int32(total), jnp.float32(warmup_fraction))
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_unit_schedule_stays_between_zero_and_one(name: str) -> None:
    schedule = jax.jit(functools.partial(unit_schedule, name))
    for total in (1, 2, 7, 100):
        for fraction in (0.0, 0.03, 0.1, 0.5, 1.0):
            scales = np.asarray(schedule(jnp.arange(100), jnp.int32(total), jnp.float32(fraction)))[:total]
            assert 0 < scales.min() <= scales.max() <= 1


@pytest.fixture(params=["adamw", "sgd", "lion"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("coupling", ["learning_rate", "independent"])
@pytest.mark.parametrize("clip_norm", [0.0, 0.5, 100.0])
def test_updates_equal_the_formula(name: str, coupling: str, clip_norm: float) -> None:
    changes = {
        "learning_rate": 0.02, "weight_decay": 0.3, "clip_norm": clip_norm, "momentum": 0.7, "beta1": 0.8, "beta2": 0.95
    }  # fmt: skip
    with jax.enable_x64(True):
        hparams = tasks.scalars(**changes)
        params = jax.tree.map(jnp.asarray, PARAMS)
        expected, by_hand = PARAMS, formulas.Optimizer(name, tasks.row(**changes), {"kernel"}, coupling)
        config = OptimizerConfig(name=name, decay_coupling=coupling)
        state = make_optimizer(config, hparams, jnp.float64(0), DECAYED).init(params)
        for step in range(STEPS):
            scale = 1 - step / STEPS
            optimizer = make_optimizer(config, hparams, jnp.float64(scale), DECAYED)
            changes_by_path, state = optimizer.update(gradients_at(step), state, params)
            params = optax.apply_updates(params, changes_by_path)
            expected = by_hand.update(expected, gradients_at(step), scale)
            for path in params:
                np.testing.assert_allclose(params[path], expected[path], rtol=1e-12)


def test_a_learning_rate_of_zero_leaves_every_bit(name: str) -> None:
    hparams = tasks.scalars(learning_rate=0.0, weight_decay=0.5)
    optimizer = make_optimizer(OptimizerConfig(name=name), hparams, jnp.float32(1), DECAYED)
    params = {path: jnp.asarray(leaf, jnp.float32) for path, leaf in PARAMS.items()}
    gradients = {path: leaf.astype(np.float32) for path, leaf in gradients_at(0).items()}
    changes, _ = optimizer.update(gradients, optimizer.init(params), params)
    after = optax.apply_updates(params, changes)
    for path in params:
        np.testing.assert_array_equal(after[path], params[path])


def test_decay_alone_shrinks_the_leaves_that_decay(name: str) -> None:
    zeros = {path: np.zeros(leaf.shape, np.float32) for path, leaf in PARAMS.items()}
    params = {path: jnp.asarray(leaf, jnp.float32) for path, leaf in PARAMS.items()}
    for coupling, share in (("learning_rate", 0.5 * 0.1 * 0.2), ("independent", 0.5 * 0.2)):
        config = OptimizerConfig(name=name, decay_coupling=coupling)
        hparams = tasks.scalars(learning_rate=0.1, weight_decay=0.2)
        optimizer = make_optimizer(config, hparams, jnp.float32(0.5), DECAYED)
        changes, _ = optimizer.update(zeros, optimizer.init(params), params)
        after = optax.apply_updates(params, changes)
        np.testing.assert_allclose(after["kernel"], (1 - share) * PARAMS["kernel"], rtol=1e-6)
        np.testing.assert_array_equal(after["bias"], params["bias"])


@pytest.mark.parametrize(
    "ours, theirs",
    [
        ("adamw", optax.adamw(0.01, weight_decay=0.1, mask=DECAYED)),
        ("sgd", optax.chain(optax.add_decayed_weights(0.0), optax.sgd(0.01, momentum=0.9))),
        ("lion", optax.lion(0.01, b2=0.999, weight_decay=0.1, mask=DECAYED)),
    ],
)
def test_defaults_equal_optax(ours: str, theirs: optax.GradientTransformation) -> None:
    hparams = tasks.scalars(weight_decay=0.0 if ours == "sgd" else 0.1)
    optimizer = make_optimizer(OptimizerConfig(name=ours), hparams, jnp.float32(1), DECAYED)
    results = []
    for each in (optimizer, theirs):
        params = {path: jnp.asarray(leaf, jnp.float32) for path, leaf in PARAMS.items()}
        state = each.init(params)
        for step in range(STEPS):
            gradients = {path: jnp.asarray(leaf, jnp.float32) for path, leaf in gradients_at(step).items()}
            changes, state = each.update(gradients, state, params)
            params = optax.apply_updates(params, changes)
        results.append(params)
    for path in PARAMS:
        np.testing.assert_allclose(results[0][path], results[1][path], rtol=1e-6)
