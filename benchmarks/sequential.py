"""Training one trial as it is usually done in JAX, and done well: what the sweep is measured against.

A pure Optax step with the frozen leaves apart, so that the backward pass ends where they begin; hyperparameters are
arguments, so that the program is compiled once for all trials; buffers are donated. The frozen forward pass runs in
every step. AdamW, no dropout, no penalties. Nothing of finetune's steps, loops and splits is used.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from finetune.member.params import Leaves
from finetune.member.step import Recipe

Scalars = dict[str, float]


class State(NamedTuple):
    """A trial while it trains."""

    params: Leaves
    optimizer_state: optax.OptState
    updates: jax.Array  # int32


def start(recipe: Recipe, hparams: Scalars, params: Leaves) -> State:
    """Returns the state before the first update, with a copy of the trained leaves."""
    params = jax.tree.map(jnp.copy, params)
    return State(params, _optimizer(recipe, hparams, 0.0).init(params), jnp.int32(0))


def _optimizer(recipe: Recipe, hparams: Scalars, rate: Any) -> optax.GradientTransformation:
    decays = {path: path in recipe.decayed for path in recipe.paths}
    return optax.chain(
        optax.scale_by_adam(hparams["beta1"], hparams["beta2"], recipe.optimizer.epsilon),
        optax.add_decayed_weights(hparams["weight_decay"], decays),
        optax.scale(-rate),
    )


def _rate(recipe: Recipe, hparams: Scalars, update: jax.Array) -> jax.Array:
    """Returns the learning rate at an update: linear warm-up, then a cosine to zero."""
    total = hparams["epochs"] * math.ceil(recipe.examples / recipe.micro_batch)
    warmup = hparams["warmup_fraction"] * total
    rise = jnp.minimum(1.0, (update + 1) / jnp.maximum(warmup, 1.0))
    share = jnp.clip((update - warmup) / jnp.maximum(total - warmup, 1.0), 0.0, 1.0)
    return hparams["learning_rate"] * rise * (1 + jnp.cos(jnp.pi * share)) / 2


def step(recipe: Recipe, state: State, hparams: Scalars, frozen: Leaves, batch: dict[str, jax.Array]) -> State:
    """Returns the state after an update on `batch`."""

    def loss(params: Leaves) -> jax.Array:
        outputs = recipe.forward(params, frozen, batch, 0.0, None)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, batch["label"]).mean()

    gradients = jax.grad(loss)(state.params)
    optimizer = _optimizer(recipe, hparams, _rate(recipe, hparams, state.updates))
    changes, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.params)
    return State(optax.apply_updates(state.params, changes), optimizer_state, state.updates + 1)


Train = Callable[[State, Scalars, Leaves, dict[str, Any], np.ndarray], State]


def stepped(recipe: Recipe) -> Train:
    """Returns the training over `rows` [batches, B] of a split with a call for each batch."""
    program = jax.jit(functools.partial(step, recipe), donate_argnums=0)
    read = jax.jit(lambda split, index: {name: array[index] for name, array in split.items()})

    def train(state: State, hparams: Scalars, frozen: Leaves, split: dict[str, Any], rows: np.ndarray) -> State:
        for index in rows:
            state = program(state, hparams, frozen, read(split, index))
        return state

    return train


def scanned(recipe: Recipe) -> Train:
    """Returns the training over `rows` [batches, B] of a split in one call, the loop on the device."""

    def train(state: State, hparams: Scalars, frozen: Leaves, split: dict[str, Any], rows: np.ndarray) -> State:
        def body(state: State, index: jax.Array) -> tuple[State, None]:
            return step(recipe, state, hparams, frozen, {name: array[index] for name, array in split.items()}), None

        return jax.lax.scan(body, state, rows)[0]

    return jax.jit(train, donate_argnums=0)
