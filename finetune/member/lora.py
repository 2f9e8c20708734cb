"""LoRA: a dense layer gives y + scale·(dropout(x)·A)·B, and only A and B train (Hu et al. 2021, section 4.1).

An adapted task has the leaves of the task and, for every targeted layer, `lora/LAYER/a` [d_in, R] and `lora/LAYER/b`
[R, d_out]. R is the largest rank of a group. A member of rank r uses the first r columns of A and rows of B: `masked`
zeroes the others where they are drawn, where the model runs and where penalties are taken, so that their gradients are
zero too and no norm or moment sees them.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from finetune.config import LoraConfig
from finetune.errors import UserError
from finetune.member.dense import at_dense
from finetune.member.dropout import at_least_zero, dropout
from finetune.member.params import Leaves, flatten, matches, unflatten
from finetune.member.task import Batch, Params, Task
from finetune.trials.chain import adapts
from finetune.trials.hparams import Hparams

ROOT = "lora"
_KERNEL = "/kernel"


class Adapters(NamedTuple):
    """The adapters of a group: shapes of their leaves by path, two for each layer, and how alpha scales them."""

    shapes: dict[str, jax.ShapeDtypeStruct]
    scaling: str

    @property
    def layers(self) -> list[str]:
        """The paths of the layers that are adapted."""
        return layers(self.shapes)

    @property
    def rank(self) -> int:
        """The columns that every adapter has; 0 where there are none."""
        return next((shape.shape[1] for path, shape in self.shapes.items() if path.endswith("/a")), 0)


def layers(paths: Iterable[str]) -> list[str]:
    """Returns the paths of the layers whose adapters are among `paths`."""
    return [path.removeprefix(f"{ROOT}/").removesuffix("/a") for path in paths if _is(path, "a")]


NONE = Adapters({}, "alpha/rank")


def adapters(
    config: LoraConfig, spec: str, task: Task, shapes: Mapping[str, jax.ShapeDtypeStruct], rank: int
) -> Adapters:
    """Returns what `trainable` = `spec` may train in adapters of `rank` columns, nothing where it holds no lora.

    Raises UserError for targets that hit no dense layer, and for a rank that no targeted layer can have.
    """
    if not adapts(spec):
        return NONE._replace(scaling=config.scaling)
    if any(path.split("/")[0] == ROOT for path in shapes):
        raise UserError(f"trainable is {spec!r}, but the model has parameters of its own called {ROOT!r}")
    made: dict[str, jax.ShapeDtypeStruct] = {}
    most = 0
    for layer in _targeted(config.targets, task, shapes):
        kernel = shapes[layer + _KERNEL]
        most = max(most, min(kernel.shape))
        made[f"{ROOT}/{layer}/a"] = jax.ShapeDtypeStruct((kernel.shape[0], rank), kernel.dtype)
        made[f"{ROOT}/{layer}/b"] = jax.ShapeDtypeStruct((rank, kernel.shape[1]), kernel.dtype)
    if rank > most:
        raise UserError(f"lora_rank is {rank}, allowed: 1 to {most}, the highest rank of a targeted layer")
    return Adapters(made, config.scaling)


def _targeted(targets: str, task: Task, shapes: Mapping[str, jax.ShapeDtypeStruct]) -> list[str]:
    """Returns the paths of the dense layers that `targets` names, in the order of `shapes`."""
    layers = [
        path.removesuffix(_KERNEL) for path, leaf in shapes.items() if path.endswith(_KERNEL) and len(leaf.shape) == 2
    ]
    chosen: set[str] = set()
    for term in (part.strip() for part in targets.split("+")):
        patterns = {"blocks": task.blocks, "attention": ("**/attention",), "mlp": ("**/mlp",)}.get(term, (term,))
        hit = {layer for layer in layers if term and any(matches(pattern, layer) for pattern in patterns)}
        if not hit:
            raise UserError(
                f"lora.targets is {targets!r}: {term!r} hits no dense layer, allowed: blocks, attention, mlp, or path "
                f"patterns over {', '.join(layers[:8])}{', ...' * (len(layers) > 8)}"
            )
        chosen |= hit
    return [layer for layer in layers if layer in chosen]


def kept(made: Adapters, trained: frozenset[str]) -> Adapters:
    """Returns the adapters that train; raises UserError for one of which A or B alone does."""
    layers = [layer for layer in made.layers if not trained.isdisjoint(_leaves_of(layer))]
    for layer in layers:
        if not trained.issuperset(_leaves_of(layer)):
            raise UserError(f"trainable freezes one of {' and '.join(_leaves_of(layer))}, allowed: both or none")
    return made._replace(shapes={path: made.shapes[path] for layer in layers for path in _leaves_of(layer)})


def _leaves_of(layer: str) -> tuple[str, str]:
    return f"{ROOT}/{layer}/a", f"{ROOT}/{layer}/b"


def adapted(task: Task, made: Adapters) -> Task:
    """Returns `task` with adapters at its dense layers, the task itself where there are none.

    A starts uniform in ±1/sqrt(d_in), each column with a key of its own, so that it does not depend on R; B starts at
    zero. `apply` takes B as `effective` makes it, and raises UserError for a targeted layer that it does not reach.
    """
    if not made.shapes:
        return task
    layers = frozenset(made.layers)

    def init(key: jax.Array) -> Params:
        drawn = {path: _drawn(path, shape, key) for path, shape in made.shapes.items()}
        return {**task.init(key), **unflatten(drawn)}

    def apply(params: Params, batch: Batch, rate: jax.Array | float, keys: jax.Array | None) -> Any:
        return _run(layers, params, rate, keys, lambda model: task.apply(model, batch, rate, keys))

    def update(
        params: Params, batch: Batch, rate: jax.Array | float, keys: jax.Array | None, trained: frozenset[str]
    ) -> Any:
        assert task.update is not None
        change = task.update
        return _run(layers, params, rate, keys, lambda model: change(model, batch, rate, keys, trained))

    return task._replace(init=init, apply=apply, update=update if task.update else None)


def _run(
    layers: frozenset[str], params: Params, rate: jax.Array | float, keys: jax.Array | None,
    call: Callable[[Params], Any],
) -> Any:  # fmt: skip
    """Returns what `call` makes of the model's own parameters while `layers` add what their adapters give."""
    leaves, reached = flatten({ROOT: params[ROOT]}), set()

    def hook(layer: str, x: jax.Array, y: jax.Array) -> jax.Array:
        if layer not in layers:
            return y
        reached.add(layer)
        a, b = (leaves[path].astype(y.dtype) for path in _leaves_of(layer))
        return y + jnp.dot(jnp.dot(_dropped(layer, x.astype(y.dtype), rate, keys), a), b)

    with at_dense(hook):
        outputs = call({name: part for name, part in params.items() if name != ROOT})
    if missed := sorted(layers - reached):
        raise UserError(
            f"lora.targets hits {missed[0]!r}, which is no dense layer that can be adapted, allowed: Flax's Dense, "
            "and layers that call finetune.member.dense.dense_output"
        )
    return outputs


def _drawn(path: str, shape: jax.ShapeDtypeStruct, key: jax.Array) -> jax.Array:
    if path.endswith("/b"):
        return jnp.zeros(shape.shape, shape.dtype)
    key, (width, rank) = jax.random.fold_in(key, zlib.crc32(path.encode())), shape.shape
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(rank))
    bound = width**-0.5
    return jax.vmap(lambda key: jax.random.uniform(key, (width,), shape.dtype, -bound, bound), out_axes=1)(keys)


def _dropped(layer: str, x: jax.Array, rate: jax.Array | float, keys: jax.Array | None) -> jax.Array:
    """Returns a layer's input [B, ..., d_in] or [B·T, d_in], examples one after the other, after dropout.

    One of [R, ..., d_in] where R is not B is of no example, as embeddings of distances are, and stays as it is.
    """
    if keys is None or (x.ndim > 2 and x.shape[0] != keys.shape[0]):
        return x
    by_example = x.reshape(keys.shape[0], -1, x.shape[-1])
    return dropout(by_example, at_least_zero(rate), keys, zlib.crc32(f"{ROOT}/{layer}".encode())).reshape(x.shape)


def masked(leaves: Leaves, hparams: Hparams) -> Leaves:
    """Returns a member's leaves with zeros in the columns of A and the rows of B beyond its rank."""

    def used(path: str, leaf: jax.Array) -> jax.Array:
        if not is_adapter(path):
            return leaf
        column = jnp.arange(leaf.shape[1])[None] if _is(path, "a") else jnp.arange(leaf.shape[0])[:, None]
        return jnp.where(column < hparams.lora_rank, leaf, 0)

    return {path: used(path, leaf) for path, leaf in leaves.items()}


def effective(leaves: Leaves, hparams: Hparams, scaling: str) -> Leaves:
    """Returns a member's leaves as its model runs them: B times the scale, and zero beyond the member's rank.

    scaling: alpha/rank (Hu et al. 2021), or alpha/sqrt(rank) (Kalajdzievski 2023, rsLoRA).
    """
    factor = scale(hparams.lora_alpha, hparams.lora_rank, scaling)
    return {
        path: factor.astype(leaf.dtype) * leaf if _is(path, "b") else leaf
        for path, leaf in masked(leaves, hparams).items()
    }


def scale(alpha: Any, rank: Any, scaling: str) -> Any:
    """Returns the factor of A·B, a scalar."""
    return alpha / {"alpha/rank": rank, "alpha/sqrt(rank)": rank**0.5}[scaling]


def is_adapter(path: str) -> bool:
    """Says whether `path` is that of an adapter's leaf."""
    return path.startswith(f"{ROOT}/")


def _is(path: str, name: str) -> bool:
    return is_adapter(path) and path.endswith(f"/{name}")


def rate_factors(hparams: Hparams, paths: Iterable[str]) -> dict[str, jax.Array]:
    """Returns by what the rate of the leaves of B is multiplied (LoRA+, Hayou et al. 2024); no other path has one."""
    return {path: hparams.lora_ratio for path in paths if _is(path, "b")}


def of_rank(leaves: Mapping[str, np.ndarray], rank: int) -> dict[str, np.ndarray]:
    """Returns a member's host leaves with adapters of its own rank, without what pads them."""
    return {
        path: leaf[:, :rank] if _is(path, "a") else leaf[:rank] if _is(path, "b") else leaf
        for path, leaf in leaves.items()
    }


def merged(leaves: Mapping[str, np.ndarray], hparams: Mapping[str, Any], scaling: str) -> dict[str, np.ndarray]:
    """Returns all leaves of a trial on the host without adapters: kernels W + scale·A·B, computed in float64."""
    found = {path: leaf for path, leaf in leaves.items() if not is_adapter(path)}
    for layer in layers(leaves):
        a, b = (np.asarray(leaves[path], np.float64) for path in _leaves_of(layer))
        factor = scale(float(hparams["lora_alpha"]), int(hparams["lora_rank"]), scaling)
        kernel = np.asarray(found[layer + _KERNEL])
        found[layer + _KERNEL] = (kernel.astype(np.float64) + factor * (a @ b)).astype(kernel.dtype)
    return found
