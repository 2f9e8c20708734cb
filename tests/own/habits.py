"""Networks of the user's own with the habits that modules have: modes, own random numbers, loops over layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from finetune import from_functions, from_linen, from_nnx
from tests.helpers import tasks

EXAMPLE = {"x": jax.ShapeDtypeStruct((tasks.FEATURES,), "float32")}
WIDTH = 8


class Layer(nn.Module):
    """A dense layer and dropout, as nn.scan calls it."""

    train: bool
    dense: bool = True

    @nn.compact
    def __call__(self, x, _):
        x = jnp.tanh(nn.Dense(x.shape[-1])(x)) if self.dense else x
        return nn.Dropout(0.5, deterministic=not self.train)(x), None


class Habits(nn.Module):
    """A dense layer, a habit, and a head."""

    habit: str
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train):
        x = jnp.tanh(nn.Dense(WIDTH, dtype=self.dtype)(x))
        if self.habit == "noise" and train:
            x = x + 0.3 * jax.random.normal(self.make_rng("noise"), x.shape)
        if self.habit == "attention":
            heads = nn.MultiHeadDotProductAttention(2, dropout_rate=0.3, deterministic=not train)
            x = heads(x.reshape(-1, 4, 2)).reshape(x.shape)
        if self.habit == "batch":
            x = x - x.mean(0)[None]
        if self.habit == "dropout":
            x = nn.Dropout(0.25, deterministic=not train)(x)
        if self.habit == "scan":
            x, _ = scanned(train)(x, None)
        x = nn.Dense(tasks.CLASSES, dtype=self.dtype, name="head")(x)
        return x / 4 if self.habit == "mode" and train else x


def scanned(train, dense=True, split_rngs=None):
    """Returns three layers, one scan."""
    split_rngs = split_rngs or {"params": True, "dropout": True}
    return nn.scan(Layer, variable_axes={"params": 0}, length=3, split_rngs=split_rngs)(train, dense, name="layers")


def linen(habit, **options):
    return from_linen(Habits(habit, **options), EXAMPLE)


class Mode(nnx.Module):
    """Dense layers with an output that depends on the mode, or noise from its own stream."""

    def __init__(self, habit, rngs):
        self.habit, self.rngs = habit, rngs
        self.first = nnx.Linear(tasks.FEATURES, WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, tasks.CLASSES, rngs=rngs)

    def __call__(self, x, train):
        x = jnp.tanh(self.first(x))
        if self.habit == "noise" and train:
            x = x + 0.3 * self.rngs.noise.normal(x.shape)
        x = self.head(x)
        return x / 4 if self.habit == "mode" and train else x


def of_nnx(habit):
    return from_nnx(lambda rngs: Mode(habit, nnx.Rngs(params=rngs.params(), noise=1)), EXAMPLE)


def functions():
    """Returns a task of plain functions that adds noise in training, whatever the dropout."""

    def init(key):
        return {"head": {"kernel": jax.random.normal(key, (tasks.FEATURES, tasks.CLASSES))}}

    def apply(params, batch, dropout, keys):
        x = batch["x"]
        if keys is not None:
            x = x + jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(keys)
        return x @ params["head"]["kernel"]

    return from_functions(init, apply)
