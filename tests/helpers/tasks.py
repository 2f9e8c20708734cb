"""Tiny tasks, data and recipes for the tests: plain functions over nested dicts, quick to compile."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from finetune.config import OptimizerConfig
from finetune.member.dropout import draws
from finetune.member.metric import accuracy
from finetune.member.objective import cross_entropy, trained_loss
from finetune.member.params import abstract, decayed_paths, partition, trainable_paths
from finetune.member.rates import NO_RATES, Rates
from finetune.member.step import Member, Recipe, Shared, full_forward, init_member, training_forward
from finetune.member.task import Apply, Task
from finetune.trials import hparams
from finetune.trials.hparams import Hparams

FEATURES, WIDTH, CLASSES = 6, 5, 3


def _task(init: Callable[[jax.Array], Any], apply: Apply) -> Task:
    return Task(
        init=init,
        apply=apply,
        loss=lambda logits, batch, smoothing: cross_entropy(logits, batch["label"], smoothing),
        metrics={"accuracy": lambda logits, batch: accuracy(logits, batch["label"])},
        stem=("stem",),
        blocks=("block_0",),
        head="head",
    )


def _draw(key: jax.Array, sizes: dict[str, tuple[int, ...]]) -> Any:
    """Returns a kernel and a bias for each size, all from one draw: it compiles faster than one for each."""
    counts = [size for shape in sizes.values() for size in (math.prod(shape), shape[-1])]
    values = jax.random.uniform(key, (sum(counts),), minval=-1.0, maxval=1.0)
    parts = iter(jnp.split(values, np.cumsum(counts[:-1])))
    return {
        name: {"kernel": (3 / math.prod(shape[:-1])) ** 0.5 * next(parts).reshape(shape), "bias": 0.1 * next(parts)}
        for name, shape in sizes.items()
    }


def _linear(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ layer["kernel"] + layer["bias"][None]


def _drop(x: jax.Array, rate: jax.Array | float, keys: jax.Array) -> jax.Array:
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), 0)


def mlp(width: int = WIDTH, features: int = FEATURES, activation: Callable[[jax.Array], jax.Array] = jnp.tanh) -> Task:
    """Returns x [B, features] -> three dense layers stem, block_0, head, with dropout before the head."""

    sizes = {"stem": (features, width), "block_0": (width, width), "head": (width, CLASSES)}

    def apply(params: Any, batch: Any, dropout: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        x = activation(_linear(params["stem"], batch["x"]))
        x = activation(_linear(params["block_0"], x))
        if draws(dropout, keys):
            x = _drop(x, dropout, keys)
        return _linear(params["head"], x)

    return _task(lambda key: _draw(key, sizes), apply)


def convolution() -> Task:
    """Returns x [B, 4, 4, 1] -> a 3x3 convolution with two channels, relu, and a dense head."""

    sizes = {"stem": (3, 3, 1, 2), "head": (32, CLASSES)}

    def apply(params: Any, batch: Any, dropout: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        del dropout, keys
        axes = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(batch["x"], params["stem"]["kernel"], (1, 1), "SAME", dimension_numbers=axes)
        x = jax.nn.relu(x + params["stem"]["bias"][None, None, None])
        return _linear(params["head"], x.reshape(len(x), -1))

    return _task(lambda key: _draw(key, sizes), apply)._replace(blocks=())


def data(examples: int, *shape: int) -> dict[str, np.ndarray]:
    """Returns {"x": [examples, *shape], "label": [examples]}, the same at every call."""
    random = np.random.default_rng(7)
    x = random.normal(size=(examples, *(shape or (FEATURES,))))
    labels = x.reshape(examples, -1)[:, :CLASSES].argmax(axis=1)
    return {"x": x.astype(jax.dtypes.canonicalize_dtype(float)), "label": labels.astype(np.int32)}


def make_recipe(
    task: Task,
    trainable: str,
    examples: int,
    micro_batch: int,
    *,
    accumulates: bool = False,
    dropout: bool = False,
    focal: bool = False,
    seeds: int = 100,
    rates: Rates = NO_RATES,
    metric: str = "accuracy",
    **optimizer: Any,
) -> Recipe:
    """Returns the recipe that trains `trainable` of `task`; `optimizer` holds fields of OptimizerConfig."""
    shapes = abstract(task)
    paths = trainable_paths(trainable, task, shapes)
    config = OptimizerConfig(**optimizer)
    return Recipe(
        task=task,
        forward=training_forward(task, paths, dropout),
        evaluating_forward=full_forward(task),
        metric=metric,
        paths=tuple(sorted(paths)),
        optimizer=config,
        decayed=decayed_paths(config.decayed, {path: shapes[path] for path in paths}),
        examples=examples,
        micro_batch=micro_batch,
        accumulates=accumulates,
        dropout=dropout,
        trained_loss=trained_loss(task, emphasises=True) if focal else None,
        seeds=seeds,
        rates=rates,
    )


def base_leaves(task: Task) -> dict[str, np.ndarray]:
    """Returns every parameter of `task` as a "pretrained" host array, none of them as a member would draw it."""
    random = np.random.default_rng(9)
    shapes = sorted(abstract(task).items())
    return {path: random.normal(0, 0.4, leaf.shape).astype(leaf.dtype) for path, leaf in shapes}


def make_shared(recipe: Recipe, pretrained: tuple[str, ...] = ()) -> Shared:
    """Returns `base_leaves` parted for `recipe`; `pretrained` are the trained leaves that start from them."""
    trained, frozen = partition(base_leaves(recipe.task), frozenset(recipe.paths))
    return jax.tree.map(jnp.asarray, Shared(frozen, {path: trained[path] for path in pretrained}))


DEFAULTS: dict[str, float | int] = {
    "learning_rate": 0.01, "warmup_fraction": 0.1, "weight_decay": 0.0, "l2": 0.0, "l1": 0.0, "l2_sp": 0.0,
    "dropout": 0.0, "label_smoothing": 0.0, "focal_gamma": 0.0, "temperature": 0.05, "clip_norm": 0.0,
    "layer_decay": 1.0, "momentum": 0.9, "beta1": 0.9, "beta2": 0.999, "lora_rank": 8, "lora_alpha": 16.0,
    "lora_ratio": 1.0, "batch_size": 4, "epochs": 2, "seed": 0, "data_seed": 0,
}  # fmt: skip


def row(**changes: float | int) -> dict[str, float | int]:
    """Returns the hyperparameters of one trial: DEFAULTS with `changes`."""
    return {**DEFAULTS, **changes}


def scalars(**changes: float | int) -> Hparams:
    """Returns the hyperparameters of one member as arrays []."""
    return Hparams(*(jnp.asarray(values[0]) for values in hparams.stack([row(**changes)], 1)))


def start(recipe: Recipe, shared: Shared, **changes: float | int) -> Member:
    """Returns a member of `recipe` before its first update, with the hyperparameters `row(**changes)`."""
    return jax.jit(functools.partial(init_member, recipe))(shared, scalars(**changes))
