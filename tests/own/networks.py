"""The same small network of the user's own in Linen and in NNX, as modules that know nothing of finetune."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from finetune import from_linen, from_nnx
from finetune.config import Config
from finetune.study.plan import make_recipe
from finetune.trials.grid import Trial
from tests.helpers import tasks

EXAMPLE = {"x": jax.ShapeDtypeStruct((tasks.FEATURES,), "float32")}
MOMENTUM = 0.8


class Linen(nn.Module):
    """Three dense layers, two with batch normalisation behind them, and dropout before the head."""

    @nn.compact
    def __call__(self, x, *, train):
        for number in range(2):
            x = nn.Dense(5, use_bias=False, name=f"dense_{number}", param_dtype=float)(x)
            x = nn.BatchNorm(not train, momentum=MOMENTUM, name=f"norm_{number}", param_dtype=float)(x)
            x = nn.Dropout(0.0, name=f"off_{number}")(jnp.tanh(x), deterministic=not train)
        return nn.Dense(tasks.CLASSES, name="out", param_dtype=float)(nn.Dropout(0.9)(x, not train))


class NNX(nnx.Module):
    """The same."""

    def __init__(self, rngs):
        self.denses = nnx.List(
            [nnx.Linear(n, 5, use_bias=False, param_dtype=float, rngs=rngs) for n in (tasks.FEATURES, 5)]
        )
        self.norms = nnx.List([nnx.BatchNorm(5, momentum=MOMENTUM, param_dtype=float, rngs=rngs) for _ in range(2)])
        self.off = nnx.Dropout(0.0, rngs=rngs)
        self.drop = nnx.Dropout(0.9, rngs=rngs)
        self.out = nnx.Linear(5, tasks.CLASSES, param_dtype=float, rngs=rngs)

    def __call__(self, x):
        for dense, norm in zip(self.denses, self.norms, strict=True):
            x = self.off(jnp.tanh(norm(dense(x))))
        return self.out(self.drop(x))


def linen_task(**options):
    """Returns the Linen module as a task whose leaves, running averages too, are of the default precision."""
    return _precise(from_linen(Linen(), EXAMPLE, **options))


def nnx_task(**options):
    """Returns the NNX module so."""
    return _precise(from_nnx(NNX, EXAMPLE, **options))


def _precise(task):
    dtype = jax.dtypes.canonicalize_dtype(float)
    return task._replace(init=lambda key: jax.tree.map(lambda leaf: leaf.astype(dtype), task.init(key)))


def recipe_of(task, rows, trainable, **choices):
    """Returns the recipe of trials with the hyperparameters of `rows`, of `training.EXAMPLES` examples."""
    from finetune.member.params import abstract
    from tests.helpers.training import EXAMPLES

    choices = {"trainable": trainable, "optimizer.name": "sgd", "schedule": "constant", **choices}
    trials = [Trial(row, choices) for row in rows]
    return make_recipe(Config(), task, abstract(task), trials, EXAMPLES)._replace(metric="accuracy")
