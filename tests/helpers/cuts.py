"""Small float64 models, cut into a trunk and a tail. Tests that use them run in double precision."""

import jax
import jax.numpy as jnp
import numpy as np

from finetune.jaxpr.program import bodies
from finetune.member.params import abstract, partition, trainable_paths
from finetune.member.step import full_forward
from finetune.models import from_linen
from finetune.models.bert import Bert
from finetune.models.vit import Vit
from finetune.trunk.cut import Cut

WIDTH, DEPTH, HEADS, MLP, TOKENS, CLASSES = 8, 2, 2, 12, 6, 3
SIZES = {"classes": CLASSES, "width": WIDTH, "depth": DEPTH, "heads": HEADS, "mlp_width": MLP}
BLOCKS = tuple(f"block_{index}" for index in range(DEPTH))
DENSE = 6  # matrix products with a kernel in a block; two more are without


def struct(shape, dtype):
    return jax.ShapeDtypeStruct(shape, dtype)


TEXT = {"input_ids": struct((TOKENS,), jnp.int32), "length": struct((), jnp.int32)}
IMAGE = {"image": struct((8, 8, 2), jnp.uint8)}  # 4 patches and a class token


def bert(**options):
    sizes = SIZES | {"vocabulary": 11, "positions": 9, "token_types": 2, "epsilon": 1e-5}
    return Bert(**sizes, dtype=jnp.float64, param_dtype=jnp.float64, **options), TEXT


def vit(**options):
    return Vit(**SIZES, patch_size=4, epsilon=1e-5, dtype=jnp.float64, param_dtype=jnp.float64, **options), IMAGE


def batch_of(example, size):
    random = np.random.default_rng(size)
    high = {"input_ids": 11, "length": TOKENS + 1, "image": 256}
    draw = lambda name, one: random.integers(1, high[name], (size, *one.shape)).astype(one.dtype)  # noqa: E731
    return {name: jnp.asarray(draw(name, one)) for name, one in example.items()}


def task_of(model, example):
    return from_linen(model, example, ("embeddings",), BLOCKS, "head")


def draw(shapes):
    random = np.random.default_rng(0)
    return {path: jnp.asarray(random.normal(0, 0.4, leaf.shape)) for path, leaf in shapes.items()}


def example_keys(size):
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(5, impl="threefry2x32"), jnp.arange(size))


class Setup:
    """A task, random leaves split by `spec`, and their cut."""

    def __init__(self, model, example, spec, keys=False):
        task = task_of(model, example)
        shapes = abstract(task)
        self.forward, self.example = full_forward(task), example
        self.params, self.frozen = partition(draw(shapes), trainable_paths(spec, task, shapes))
        self.keys = keys
        self.cut = cut(self.forward, self.params, self.frozen, example, keys)


def cut(forward, params, frozen, example, keys=False):
    shapes = [{path: struct(leaf.shape, leaf.dtype) for path, leaf in leaves.items()} for leaves in (params, frozen)]
    return Cut(forward, *shapes, example, struct((), jnp.float64), keys)


def products(program):
    inner = sum(products(body) for equation in program.equations for body in bodies(equation))
    return inner + sum(equation.primitive.name == "dot_general" for equation in program.equations)
