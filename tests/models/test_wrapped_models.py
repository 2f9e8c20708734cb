"""Models wrapped in jit, remat or scan, written in nnx or as plain functions, split at the same place."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

from finetune.member.params import flatten, partition, unflatten
from tests.helpers.cuts import cut, struct

pytestmark = pytest.mark.usefixtures("float64")


class Stack(nn.Module):
    """Residual layers, wrapped one by one or scanned over, and a head on the mean over the tokens."""

    wrap: str

    @nn.compact
    def __call__(self, x):
        layer = Layer if self.wrap == "plain" else nn.remat(Layer)
        if self.wrap == "scan":
            x, _ = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)(name="layer")(x)
        else:
            for index in range(3):
                x, _ = layer(name=f"layer_{index}")(x)
        return nn.Dense(2, name="head")(x.mean(1))


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + nn.Dense(x.shape[-1], name="down")(nn.gelu(nn.Dense(9, name="up")(x))), None


def stack(wrap):
    module = Stack("plain" if wrap == "jit" else wrap)

    def apply(params, x):
        return module.apply({"params": params}, x)

    apply = jax.jit(apply) if wrap == "jit" else apply
    variables = module.init(jax.random.key(0), jnp.ones((1, 5, 4)))["params"]
    leaves = {path: jnp.asarray(leaf, jnp.float64) for path, leaf in flatten(variables).items()}
    return (lambda params, frozen, batch, *_: apply(unflatten({**frozen, **params}), batch["x"])), leaves


def nnx_stack():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.up, self.down, self.head = (
                nnx.Linear(4, 9, rngs=rngs),
                nnx.Linear(9, 4, rngs=rngs),
                nnx.Linear(4, 2, rngs=rngs),
            )

        def __call__(self, x):
            return self.head((x + self.down(nnx.gelu(self.up(x)))).mean(1))

    graph, state = nnx.split(Model(nnx.Rngs(0)))
    pure = nnx.to_pure_dict(state)
    leaves = {"/".join(path): jnp.asarray(leaf, jnp.float64) for path, leaf in traverse_util.flatten_dict(pure).items()}

    def forward(params, frozen, batch, dropout, keys):
        nested = traverse_util.unflatten_dict(
            {tuple(path.split("/")): leaf for path, leaf in {**frozen, **params}.items()}
        )
        merged = jax.tree.map(lambda leaf: leaf, state)
        nnx.replace_by_pure_dict(merged, nested)
        return nnx.merge(graph, merged)(batch["x"])

    return forward, leaves


def plain_function():
    random = np.random.default_rng(0)
    leaves = {"up": random.normal(size=(4, 9)), "head": random.normal(size=(4, 2)), "down": random.normal(size=(9, 4))}

    def forward(params, frozen, batch, dropout, keys):
        leaves = {**frozen, **params}
        x = batch["x"].reshape(-1, 4)  # tokens of all examples, one after the other
        x = x + jax.nn.relu(x @ leaves["up"]) @ leaves["down"]
        return x.reshape(-1, 5, 4).mean(1) @ leaves["head"]

    return forward, jax.tree.map(jnp.asarray, leaves)


WRAPS = {wrap: lambda wrap=wrap: stack(wrap) for wrap in ("plain", "jit", "remat", "scan")}
WRAPS |= {"nnx": nnx_stack, "plain function": plain_function}


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("trained", ["head", "last"])
def test_wrapped_models_split_at_the_same_place(wrap, trained):
    forward, leaves = WRAPS[wrap]()
    chosen = {path for path in leaves if path.startswith("head")}
    if trained == "last":
        chosen |= {path for path in leaves if "down" in path and ("layer_" not in path or "layer_2" in path)}
    params, frozen = partition(leaves, frozenset(chosen))
    found = cut(forward, params, frozen, {"x": struct((5, 4), jnp.float64)})
    batch = {"x": jnp.asarray(np.random.default_rng(1).normal(size=(3, 5, 4)))}
    features = found.trunk(frozen, batch)

    def loss(forward, frozen, batch):
        return jax.jit(jax.value_and_grad(lambda params: (forward(params, frozen, batch, 0.0, None) ** 2).sum()))(
            params
        )

    expected, actual = loss(forward, frozen, batch), loss(found.tail, found.constants(frozen), {**batch, **features})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), expected, actual)
    sizes = sorted(feature.size for feature in found.features.values())
    # The head reads the mean [4]. The last layer reads its input [5, 4], once where it stays whole (remat; all layers
    # of a scan); else its hidden values [5, 9] too, whose activation is repeated. Raw inputs cost nothing.
    last = {"remat": [20], "scan": [], "nnx": [45], "plain function": [45]}.get(wrap, [20, 45])
    assert sizes == ([4] if trained == "head" else last)
    assert found.refused is None
