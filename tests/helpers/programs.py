"""Small random programs: lists of steps over values of a few types, for every batch size, in double precision.

A step is (name of an operation, place, ...). A place counts back among the values of the type that the operation takes,
so that every list of steps is a program.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tests.helpers.cuts import struct
from tests.helpers.operations import LAYERS, OPERATIONS, ROWS, WIDTH

EXAMPLE = {"x": struct((WIDTH,), jnp.float64), "ids": struct((), jnp.int32), "flags": struct((WIDTH,), jnp.bool_)}
TYPES = "xyztilcsk"


def leaves_of(seed=0):
    """Returns (trainable, frozen) leaves."""
    random = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(random.normal(0, 0.6, shape))  # noqa: E731
    trainable = {"kernel": normal(WIDTH, WIDTH), "bias": normal(WIDTH)}
    frozen = {
        "first": normal(WIDTH, WIDTH), "second": normal(WIDTH, WIDTH), "shift": normal(WIDTH),
        "scale": jnp.asarray(0.7), "table": normal(ROWS, WIDTH), "layers": normal(LAYERS, WIDTH, WIDTH),
        "steps": jnp.asarray(2, jnp.int32),
    }  # fmt: skip
    return trainable, frozen


def forward_of(steps, kept=()):
    """Returns the forward pass that runs `steps`; outputs are a head on the last x, and `kept`, (type, place)s."""

    def forward(params, frozen, batch, dropout, keys):
        leaves = {**frozen, **params}
        x = batch["x"]
        pool = {
            "x": [x], "i": [batch["ids"]], "l": [batch["flags"]],
            "k": [leaves["first"], leaves["second"], leaves["kernel"]], "c": [leaves["shift"], leaves["bias"]],
            "s": [leaves["scale"], dropout], "y": [x.T], "z": [x.reshape(-1)], "t": [jnp.stack([x, x + 1, x * x], 1)],
        }  # fmt: skip
        environment = {**leaves, "keys": keys, "rate": dropout}
        for name, *places in steps:
            takes, gives, function = OPERATIONS[name]
            found = [pool[type_][-1 - place % len(pool[type_])] for type_, place in zip(takes, places, strict=False)]
            pool[gives].append(function(environment, *found))
        logits = pool["x"][-1] @ leaves["kernel"] + leaves["bias"][None]
        return {"logits": logits, "kept": [pool[type_][-1 - place % len(pool[type_])] for type_, place in kept]}

    return forward


def data(examples, seed=1):
    random = np.random.default_rng(seed)
    return {
        "x": random.normal(size=(examples, WIDTH)),
        "ids": random.integers(0, ROWS, examples).astype(np.int32),
        "flags": random.random((examples, WIDTH)) < 0.5,
    }


def loss_of(outputs):
    """Returns a number to which every entry of the outputs counts differently."""
    total = 0.0
    for leaf in jax.tree.leaves(outputs):
        weights = jnp.cos(jnp.arange(leaf.size, dtype=jnp.float64)).reshape(leaf.shape)
        total += jnp.sum(weights * jnp.tanh(0.1 * leaf.astype(jnp.float64)))
    return total
