"""Dropout in loops over layers: each pass drops others, and an example's mask is its own, whatever its batch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from finetune import from_linen, from_nnx
from finetune.errors import UserError
from finetune.member.dropout import Dropout
from tests.own.habits import Layer, scanned

WIDTH, EXAMPLES = 64, 64
EXAMPLE = {"x": jax.ShapeDtypeStruct((WIDTH,), "float32")}
KEYS = jax.random.split(jax.random.key(3), EXAMPLES)
ONES = jnp.ones((EXAMPLES, WIDTH))
BOTH = {"params": True, "dropout": True}


class Loops(nn.Module):
    """Drops half of its input three times; gives logits and what is left."""

    kind: str

    @nn.compact
    def __call__(self, x, train):
        layer = Layer(train, dense=False, name="layer")
        if self.kind == "scan":
            x, _ = scanned(train, dense=False)(x, None)
        elif self.kind == "unsplit":
            x, _ = scanned(train, dense=False, split_rngs={"params": True})(x, None)
        elif self.kind == "remat":
            for number in range(3):
                x, _ = nn.remat(Layer)(train, dense=False, name=f"layer_{number}")(x, None)
        elif self.kind == "plain":
            for number in range(3):
                x, _ = Layer(train, dense=False, name=f"layer_{number}")(x, None)
        elif self.kind == "vmap":
            copies = nn.vmap(Layer, in_axes=None, out_axes=0, axis_size=3, variable_axes={"params": 0}, split_rngs=BOTH)
            x = copies(train, dense=False, name="layers")(x, None)[0].prod(0)
        elif self.kind == "while":
            body = lambda module, carry: (carry[0] + 1, module(carry[1], None)[0])  # noqa: E731
            going = lambda module, carry: carry[0] < 3  # noqa: E731
            x = nn.while_loop(going, body, layer, (0, x), split_rngs={"dropout": True})[1]
        elif self.kind == "of JAX":
            x = jax.lax.fori_loop(0, 3, lambda _, x: layer(x, None)[0], x)
        return nn.Dense(2)(x), x


class Dropping(nnx.Module):
    def __init__(self, rngs):
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.drop(x)


class NNXLoops(nnx.Module):
    """The same."""

    def __init__(self, kind, rngs):
        self.kind = kind
        stack = nnx.split_rngs(splits=3)(nnx.vmap(Dropping, in_axes=0, out_axes=0))
        self.layers = stack(rngs) if kind == "scan" else Dropping(rngs)
        self.head = nnx.Linear(WIDTH, 2, rngs=rngs)

    def __call__(self, x):
        if self.kind == "scan":
            x = nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, self.layers)
        elif self.kind == "time":
            step = lambda carry: (carry[0], carry[0](carry[1]))  # noqa: E731
            x = nnx.scan(step, in_axes=(nnx.Carry,), out_axes=nnx.Carry, length=3)((self.layers, x))[1]
        elif self.kind == "remat":
            for _ in range(3):
                x = nnx.remat(lambda layer, x: layer(x))(self.layers, x)
        elif self.kind == "plain":
            for _ in range(3):
                x = self.layers(x)
        elif self.kind == "of JAX":
            x = jax.lax.fori_loop(0, 3, lambda _, x: self.layers(x), x)
        return self.head(x), x


def left(task, rate=0.5, part=slice(None)):
    params = task.init(jax.random.key(0))
    _, x = jax.jit(task.apply)(params, {"x": ONES[part]}, rate, KEYS[part])
    return np.asarray(x)


def task_of(framework, kind):
    if framework == "linen":
        return from_linen(Loops(kind), EXAMPLE)
    return from_nnx(lambda rngs: NNXLoops(kind, rngs), EXAMPLE, head="head")


LINEN = [("linen", kind) for kind in ("plain", "scan", "vmap", "remat", "while")]
OF_NNX = [("nnx", kind) for kind in ("plain", "scan", "time", "remat")]


@pytest.mark.parametrize(("framework", "kind"), LINEN + OF_NNX)
def test_every_pass_has_a_mask_of_its_own(framework, kind):
    task = task_of(framework, kind)
    found = left(task)
    # Three halves leave an eighth, six standard deviations of a binomial.
    assert (found != 0).mean() == pytest.approx(1 / 8, abs=6 * (7 / 64 / found.size) ** 0.5)
    np.testing.assert_array_equal(found[5:9], left(task, part=slice(5, 9)))
    assert (left(task, rate=0.0) == 1).all()


def test_rematerialised_layers_drop_what_plain_ones_do():
    np.testing.assert_array_equal(left(task_of("linen", "remat")), left(task_of("linen", "plain")))


@pytest.mark.parametrize(
    ("framework", "kind", "words"),
    [
        ("linen", "unsplit", "hands on no random stream 'dropout', allowed: .*split_rngs={'dropout': True}"),
        ("linen", "of JAX", "of JAX's own, whose passes would draw the same, allowed: Flax's own"),
        ("nnx", "of JAX", "of JAX's own, whose passes would draw the same, allowed: NNX's own"),
    ],
)
def test_a_loop_that_cannot_tell_its_passes_apart_is_refused(framework, kind, words):
    with pytest.raises(UserError, match=words) as caught:
        left(task_of(framework, kind))
    assert "\n" not in str(caught.value)


class OwnLayer(nn.Module):
    @nn.compact
    def __call__(self, x, dropout, keys):
        return Dropout()(x, dropout, keys), None


class Own(nn.Module):
    """Layers of finetune's own dropout in a scan."""

    @nn.compact
    def __call__(self, batch, dropout, keys):
        options = {"in_axes": (nn.broadcast, nn.broadcast), "length": 3, "split_rngs": BOTH}
        x, _ = nn.scan(OwnLayer, variable_axes={"params": 0}, **options)(name="layers")(batch["x"], dropout, keys)
        return nn.Dense(2)(x), x


def test_finetunes_own_dropout_in_a_scan():
    found = left(from_linen(Own(), EXAMPLE))
    assert (found != 0).mean() == pytest.approx(1 / 8, abs=6 * (7 / 64 / found.size) ** 0.5)
