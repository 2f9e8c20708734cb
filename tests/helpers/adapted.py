"""A tiny task with hooks at its dense layers, and recipes that train adapters in it."""

from typing import Any

import jax
import jax.numpy as jnp

from finetune.config import LoraConfig
from finetune.member import lora
from finetune.member.dense import dense_output
from finetune.member.params import abstract, decayed_paths, trainable_paths
from finetune.member.step import Recipe, full_forward
from finetune.member.task import Task
from tests.helpers import tasks

LAYERS = ("block_0/in", "block_0/out")
WIDTH, HIDDEN = 18, 20


def hooked() -> Task:
    """Returns x [B, 6] -> stem, a block of two dense layers that can be adapted, head."""
    sizes = {"stem": (tasks.FEATURES, WIDTH), "in": (WIDTH, HIDDEN), "out": (HIDDEN, WIDTH)}
    sizes["head"] = (WIDTH, tasks.CLASSES)

    def init(key: jax.Array) -> Any:
        drawn = tasks._draw(key, sizes)
        return {"stem": drawn["stem"], "block_0": {"in": drawn["in"], "out": drawn["out"]}, "head": drawn["head"]}

    def apply(params: Any, batch: Any, dropout: jax.Array | float, keys: jax.Array | None) -> jax.Array:
        del dropout, keys

        def dense(name: str, x: jax.Array) -> jax.Array:
            return dense_output(f"block_0/{name}", x, tasks._linear(params["block_0"][name], x))

        x = jnp.tanh(tasks._linear(params["stem"], batch["x"]))
        x = x + dense("out", jnp.tanh(dense("in", x)))
        return tasks._linear(params["head"], x)

    return tasks._task(init, apply)


def recipe_of(
    rank: int, spec: str = "lora", examples: int = 26, targets: str = "blocks", scaling: str = "alpha/rank",
    dropout: bool = False, task: Task | None = None, **optimizer: Any,
) -> Recipe:  # fmt: skip
    """Returns the recipe of a group whose largest rank is `rank`; `optimizer` holds fields of OptimizerConfig."""
    task = task or hooked()
    made = lora.adapters(LoraConfig(targets, scaling), spec, task, abstract(task), rank)
    shapes = {**abstract(task), **made.shapes}
    paths = trainable_paths(spec, task, shapes)
    made = lora.kept(made, paths)
    recipe = tasks.make_recipe(task, "all", examples, 4, dropout=dropout, **optimizer)
    task = lora.adapted(task, made)
    return recipe._replace(
        task=task,
        forward=full_forward(task),
        evaluating_forward=full_forward(task),
        paths=tuple(sorted(paths)),
        decayed=decayed_paths(recipe.optimizer.decayed, {path: shapes[path] for path in paths}),
        adapters=made,
    )
