"""What a kind of task makes of a model: how many outputs it has, and how it reads several texts an example."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from finetune import models
from finetune.config import ModelConfig
from finetune.member.objective import Objective
from finetune.member.task import Batch, Params, Task

_TEXTS = ("input_ids", "token_type_ids", "length")  # arrays [B, K, ...] where an example has K texts


def build(
    config: ModelConfig,
    kind: str,
    classes: int,
    example: Mapping[str, jax.ShapeDtypeStruct],
    objective: Objective | None = None,
) -> Task:
    """Returns the model that `config` describes for a `kind` of task, data.task, with so many classes.

    example, objective: as of `models.build`, which says what is raised.
    """
    if kind == "contrastive":
        width = int(models.architecture(config)["width"])
        return _of_each(_begun_as_it_is(models.build(config, width, _of_one(example), objective), width))
    if kind == "choice":
        return _one_score(_of_each(models.build(config, 1, _of_one(example), objective)))
    if kind == "question_answering":  # of each token, whether the answer starts, and whether it ends there
        return models.build(config, 2, example, objective, per_position=True)
    return models.build(config, max(classes, 1), example, objective, per_position=kind == "tokens")


def _of_one(example: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of one of an example's texts."""
    return {
        name: jax.ShapeDtypeStruct(each.shape[1:], each.dtype) if name in _TEXTS else each
        for name, each in example.items()
    }


def _of_each(task: Task) -> Task:
    """Returns a task that runs each of the K texts of an example by itself: outputs [B, K, C], masks of their own."""

    def apply(params: Params, batch: Batch, dropout: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        texts = {name: array for name, array in batch.items() if name in _TEXTS}

        def one(place: jax.Array, text: Batch) -> Any:
            own = None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, place)
            return task.apply(params, text, dropout, own)

        places = jnp.arange(texts["length"].shape[1])
        return jax.vmap(one, in_axes=(0, 1), out_axes=1)(places, texts)

    return task._replace(apply=apply)


def _one_score(task: Task) -> Task:
    """Returns a task with outputs [B, K] in place of [B, K, 1]."""
    return task._replace(apply=lambda *arguments: task.apply(*arguments)[:, :, 0])


def _begun_as_it_is(task: Task, width: int) -> Task:
    """Returns a task whose head begins as the identity: its outputs are then what the encoder gives."""

    def init(key: jax.Array) -> Params:
        params = task.init(key)
        dtype = params["head"]["kernel"].dtype
        return params | {"head": {"kernel": jnp.eye(width, dtype=dtype), "bias": jnp.zeros(width, dtype)}}

    return task._replace(init=init)
