"""Small random programs: lists of steps over values of a few types, for every batch size, in double precision.

A step is (operation, operand, operand, number). Operands are places among the values of the type that the operation
takes, so that every list of steps is a program.
"""

# ruff: noqa: E501, E741, B905 -- a table of programs, one a line

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.cuts import struct

WIDTH, TOKENS, ROWS, LAYERS = 4, 3, 5, 2

# Types of values: shapes by B examples. What has no B is without an axis of examples.
#   x [B, W], y [W, B], z [B·W], t [B, T, W] floats; i [B] ints in [0, ROWS); l [B, W] bools;
#   k [W, W], c [W], s [] floats
EXAMPLE = {"x": struct((WIDTH,), jnp.float64), "ids": struct((), jnp.int32), "flags": struct((WIDTH,), jnp.bool_)}
OPERATIONS = {}


def operation(name, takes, gives):
    def register(function):
        assert name not in OPERATIONS, name
        OPERATIONS[name] = takes, gives, function
        return function

    return register


def simple(type_, **functions):
    for name, function in functions.items():
        operation(name, type_, type_[0])(lambda leaves, number, *values, function=function: function(*values))


def convert(takes, gives, **functions):
    for name, function in functions.items():
        operation(name, takes, gives)(lambda leaves, number, *values, function=function: function(*values))


def layer(x, kernel):
    return jnp.tanh(x @ kernel)


@jax.custom_jvp
def bent(x):
    return jnp.sin(x)


@bent.defjvp
def _(primals, tangents):
    return bent(*primals), 3 * tangents[0]


@jax.custom_vjp
def doubled(x, table):
    return x * 1.5 + table[None], table * 2


doubled.defvjp(lambda x, table: (doubled(x, table), x), lambda x, gradients: (2 * gradients[0] * x, gradients[1]))


def batch_of(values):
    return values.shape[0]


# What keeps examples apart.
simple(
    "x",
    tanh=jnp.tanh,
    layer_norm=lambda x: (x - x.mean(1, keepdims=True)) / jnp.sqrt(x.var(1, keepdims=True) + 1),
    reversed_width=lambda x: x[:, ::-1],
    rolled_width=lambda x: jnp.roll(x, 1, 1),
    running_width=lambda x: jnp.cumsum(x, 1),
    sorted_width=lambda x: jnp.sort(x, 1),
    ranks=lambda x: x + jnp.argsort(x, 1),
    top=lambda x: jnp.pad(lax.top_k(x, 2)[0], ((0, 0), (0, WIDTH - 2))),
    nested_jit=lambda x: jax.jit(lambda x: jax.jit(jnp.cos)(x) + x)(x),
    bent=bent,
    mapped=lambda x: lax.map(lambda row: row * 2 - row.sum(), x),
    vmapped_while=lambda x: jax.vmap(lambda row: lax.while_loop(lambda r: r[0] < 0, lambda r: r * 0.5 + 1, row))(x),
    scan_of_width=lambda x: lax.scan(lambda c, v: (c + v, c * v), x[:, 0], x.T)[1].T,
    associative=lambda x: lax.associative_scan(jnp.add, x, axis=1),
    called_back=lambda x: jax.pure_callback(
        np.tanh, struct(x.shape, x.dtype), lax.stop_gradient(x), vmap_method="expand_dims"
    ),
    called_by_row=lambda x: jax.vmap(
        lambda row: jax.pure_callback(
            np.sin, struct((WIDTH,), x.dtype), lax.stop_gradient(row), vmap_method="sequential"
        )
    )(x),
    set_first=lambda x: x.at[:, 0].set(1.0),
    updated_slice=lambda x: lax.dynamic_update_slice(x, jnp.zeros_like(x[:, :1]), (0, 1)),
)
simple("xx", add=jnp.add, multiply=lambda a, b: a * b, joined=lambda a, b: jnp.concatenate([a, b], 1)[:, 1 : WIDTH + 1])
simple(
    "xx",
    barrier=lambda a, b: lax.optimization_barrier((a, jnp.arange(WIDTH), b))[2] + 1,
    swapped_loop=lambda a, b: lax.fori_loop(0, 3, lambda i, c: (c[1] + i, c[0]), (a, b))[0],
    attention=lambda a, b: jnp.einsum("bw,bv->bwv", a, b).sum(1),
)
simple("xk", product=lambda x, k: x @ k, layer=layer, twice=lambda x, k: layer(x, k) * (layer(x, k) + 1))
simple(
    "xk",
    remat=lambda x, k: jax.checkpoint(layer)(x, k),
    loop=lambda x, k: lax.fori_loop(0, 2, lambda i, x: layer(x, k) + i, x),
    loop_counter_kept=lambda x, k: (lambda out: out[1] * out[0])(
        lax.scan(lambda c, _: ((c[0] + 1, layer(c[1], k)), None), (1, x), length=2)[0]
    ),
    gradient=lambda x, k: jax.grad(lambda x: jnp.tanh(x @ k).sum())(x),
    sequential=lambda x, k: lax.map(lambda row: jnp.tanh(k @ row), x),
    sequential_twice=lambda x, k: layer(layer(x, k), k),
)
simple(
    "xc",
    shifted=lambda x, c: x + c[None],
    scaled=lambda x, c: c[None] * x,
    clipped=lambda x, c: jnp.minimum(x, c[None]),
)
simple(
    "xc",
    doubled=lambda x, c: (lambda out: out[0] * out[1][None])(doubled(x, c)),
    doubled_rest=lambda x, c: x + doubled(x, c)[1][None],
    remat_two=lambda x, c: (lambda out: out[0] - out[1][None])(jax.checkpoint(lambda x, c: (x * c[None], c + 1))(x, c)),
    scanned_table=lambda x, c: (lambda out: out[0] + out[1][None])(lax.scan(lambda carry, v: (carry * v, v + 1), x, c)),
)
simple("xs", plus=lambda x, s: x + s, times=lambda x, s: s * x)
simple(
    "xs",
    cond=lambda x, s: lax.cond(s > 0.3, lambda x: x * 2, lambda x: -x, x),
    cond_of_two=lambda x, s: (lambda out: out[0] * out[1])(
        lax.cond(s > 0.3, lambda x: (x, s), lambda x: (x + 1, 1.5), x)
    ),
    switch=lambda x, s: lax.switch(jnp.int32(s * 2), [jnp.tanh, lambda x: x * 3, lambda x: jnp.ones_like(x)], x),
    while_of_scalar=lambda x, s: lax.while_loop(
        lambda c: c[0] < 2, lambda c: (c[0] + 0.5 + s * s, jnp.sin(c[1])), (s, x)
    )[1],
    while_scaled=lambda x, s: (lambda out: out[0] * out[1])(
        lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 0.5 + s * s, jnp.sin(c[1])), (s, x))
    ),
)
simple(
    "xl", where=lambda x, l: jnp.where(l, x, 0.5), where_either=lambda x, l: jnp.where(l.any(1, keepdims=True), x, -x)
)
simple(
    "xi",
    place_of_each=lambda x, i: x + jnp.take_along_axis(x, (i % WIDTH)[:, None], 1),
    numbered_place=lambda x, i: x + x[jnp.arange(batch_of(x)), i % WIDTH][:, None],
    sliced_by_each=lambda x, i: jnp.tile(jax.vmap(lambda r, j: lax.dynamic_slice(r, (j % 3,), (2,)))(x, i), (1, 2)),
    indexed_condition=lambda x, i: jax.vmap(lambda r, j: lax.cond(j > 2, jnp.sin, jnp.cos, r))(x, i),
    looped_by_each=lambda x, i: jax.vmap(lambda r, j: lax.fori_loop(0, j % 3, lambda _, r: jnp.sin(r), r))(x, i),
    times_index=lambda x, i: x * i[:, None],
)
simple("i", next=lambda i: (i + 1) % ROWS, same=lambda i: i * 1)
simple("l", opposite=lambda l: ~l)
convert("x", "l", positive=lambda x: x > 0.1)
convert("x", "i", largest=lambda x: jnp.argmax(x, 1).astype(jnp.int32))
convert("l", "x", as_number=lambda l: l.astype(jnp.float64))
convert("x", "y", transposed=lambda x: x.T)
convert("y", "x", back=lambda y: y.T)
simple("y", running_rows=lambda y: jnp.cumsum(y, 0), sine_y=jnp.sin, flipped_rows=lambda y: y[::-1])
convert("yk", "y", product_y=lambda y, k: k @ y)
convert("x", "z", merged=lambda x: x.reshape(-1))
convert("z", "x", apart=lambda z: z.reshape(-1, WIDTH))
simple("z", sine_z=jnp.sin, sorted_z=jnp.sort, running_z=jnp.cumsum)
convert("zc", "z", tiled=lambda z, c: z * jnp.tile(c, len(z) // WIDTH))
convert("xc", "t", tokens=lambda x, c: x[:, None] + (jnp.arange(TOKENS)[:, None] * c[None])[None])
convert("t", "x", summed=lambda t: t.sum(1), first=lambda t: t[:, 0], longest=lambda t: t.max(1))
convert("t", "z", merged_tokens=lambda t: t.sum(1).reshape(-1))
simple(
    "t",
    running_tokens=lambda t: jnp.cumsum(t, 1),
    class_token=lambda t: jnp.concatenate([jnp.ones_like(t[:, :1]), t[:, 1:]], 1),
)
simple("t", token_scan=lambda t: lax.scan(lambda c, v: (c + v, c * v), t[:, 0], t.swapaxes(0, 1))[1].swapaxes(0, 1))
convert("tk", "t", flat_layer=lambda t, k: layer(t.reshape(-1, WIDTH), k).reshape(-1, TOKENS, WIDTH))
convert("ti", "x", token_of_each=lambda t, i: jnp.take_along_axis(t, (i % TOKENS)[:, None, None], 1)[:, 0])
simple("c", sine_c=jnp.sin, positions=lambda c: c + jnp.arange(WIDTH), running_c=jnp.cumsum)
simple("c", counted=lambda c: lax.fori_loop(0, 2, lambda i, c: c + i, c), again=lambda c: jnp.sin(c) + jnp.sin(c))
simple("c", called_constant=lambda c: jax.pure_callback(np.cos, struct(c.shape, c.dtype), lax.stop_gradient(c)))
simple("c", drawn=lambda c: c + jax.random.normal(jax.random.key(3, impl="threefry2x32"), (WIDTH,), jnp.float64))
convert("kc", "c", product_c=lambda k, c: k @ c)
convert("c", "s", summed_c=lambda c: jnp.sin(c.sum()))
simple("s", half=lambda s: s * 0.5, doubled_s=lambda s: s * 2.0, root=lambda s: jnp.sqrt(s * s + 1))
simple("k", transposed_k=jnp.transpose, product_k=lambda k: k @ k * 0.5)
operation("lookup", "i", "x")(lambda leaves, number, i: leaves["table"][i])
operation("one_hot", "i", "x")(lambda leaves, number, i: jax.nn.one_hot(i, WIDTH, dtype=jnp.float64))
operation("stack", "x", "x")(
    lambda leaves, number, x: lax.scan(lambda x, k: (layer(x, k), x.sum(1)), x, leaves["layers"])[0]
)
operation("stack_sums", "x", "x")(
    lambda leaves, number, x: (
        x + lax.scan(lambda x, k: (layer(x, k), x.sum(1)), x, leaves["layers"])[1].T.sum(1, keepdims=True)
    )
)
operation("counted_stack", "x", "x")(
    lambda leaves, number, x: lax.fori_loop(0, LAYERS, lambda i, x: layer(x, leaves["layers"][i]), x)
)
operation("frozen_bound", "x", "x")(
    lambda leaves, number, x: lax.fori_loop(0, leaves["steps"], lambda i, x: layer(x, leaves["layers"][i]) + i, x)
)
operation("power", "x", "x")(lambda leaves, number, x: x ** (number + 1) * 0.5)


@operation("dropout", "x", "x")
def _(leaves, number, x):
    if leaves["keys"] is None:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - leaves["rate"], (WIDTH,)))(leaves["keys"])
    return jnp.where(keep, x / (1 - leaves["rate"]), 0)


@operation("dropout_in_stack", "x", "x")
def _(leaves, number, x):
    def body(x, scanned):
        kernel, place = scanned
        if leaves["keys"] is not None:
            keys = jax.vmap(jax.random.fold_in, (0, None))(leaves["keys"], place)
            keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - leaves["rate"], (WIDTH,)))(keys)
            x = jnp.where(keep, x, 0)
        return layer(x, kernel), None

    return lax.scan(body, x, (leaves["layers"], jnp.arange(LAYERS)))[0]


# What does not keep them apart, or depends on how many there are.
simple(
    "x",
    centred=lambda x: x - x.mean(0, keepdims=True),
    normalised=lambda x: (x - x.mean(0, keepdims=True)) / jnp.sqrt(x.var(0, keepdims=True) + 1),
    summed_batch=lambda x: x + x.sum(0, keepdims=True),
    reversed_batch=lambda x: x[::-1],
    rolled_batch=lambda x: jnp.roll(x, 1, 0),
    running_batch=lambda x: jnp.cumsum(x, 0),
    sorted_batch=lambda x: jnp.sort(x, 0),
    first_example=lambda x: x - x[:1],
    joined_batch=lambda x: jnp.concatenate([x, x + 1], 0)[1 : batch_of(x) + 1],
    doubled_batch=lambda x: jnp.concatenate([x, x + 1], 0).reshape(2, -1, WIDTH).sum(0),
    similarity=lambda x: x @ x.T @ x * 0.1,
    numbered=lambda x: x + jnp.arange(batch_of(x))[:, None],
    sized=lambda x: x * batch_of(x),
    sized_power=lambda x: x + (jnp.abs(x) + 1) ** -batch_of(x),
    sized_column=lambda x: x + x[:, batch_of(x) % WIDTH][:, None],
    sized_column_of_few=lambda x: x + x[:, min(batch_of(x) // 4, WIDTH - 1)][:, None],
    sized_of_few=lambda x: x * max(batch_of(x) // 4, 1),
    sized_roll=lambda x: jnp.roll(x, batch_of(x), 1),
    sized_scan=lambda x: lax.fori_loop(0, batch_of(x), lambda i, x: x * 0.5 + 1, x),
    exchanged=lambda x: x.T.reshape(-1, WIDTH),
    scan_of_batch=lambda x: lax.scan(lambda c, row: (c + row, c), jnp.zeros(WIDTH), x)[1],
    batch_condition=lambda x: lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x),
    square=lambda x: (x.T if batch_of(x) == WIDTH else x) * 1.0,
)
convert("x", "c", example_mean=lambda x: x.mean(0), last_example=lambda x: x[-1])
convert("xc", "c", sized_loop_c=lambda x, c: lax.fori_loop(0, batch_of(x), lambda i, c: c * 0.5 + i, c))
convert("xc", "c", sized_power_c=lambda x, c: c + (jnp.abs(c) + 1) ** -batch_of(x))
convert("xc", "c", sized_place=lambda x, c: c + c[min(batch_of(x) - 2, 2)])
convert("xs", "s", sized_s=lambda x, s: s * batch_of(x), sized_2=lambda x, s: s + 1 / batch_of(x))
convert("x", "s", total=lambda x: jnp.sin(x.sum()))
convert("l", "x", any_flag=lambda l: (l | l.any(0, keepdims=True)).astype(jnp.float64))
simple("y", sorted_batch_y=lambda y: jnp.sort(y, 1), running_batch_y=lambda y: jnp.cumsum(y, 1))
simple("i", sorted_ids=jnp.sort, running_ids=lambda i: jnp.cumsum(i) % ROWS)

TYPES = "xyztilcsk"


def leaves_of(seed=0):
    """Returns (trainable, frozen) leaves."""
    random = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(random.normal(0, 0.6, shape))  # noqa: E731
    trainable = {"kernel": normal(WIDTH, WIDTH), "bias": normal(WIDTH)}
    frozen = {
        "first": normal(WIDTH, WIDTH), "second": normal(WIDTH, WIDTH), "shift": normal(WIDTH), "scale": jnp.asarray(0.7),
        "table": normal(ROWS, WIDTH), "layers": normal(LAYERS, WIDTH, WIDTH), "steps": jnp.asarray(2, jnp.int32),
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
        for name, one, other, number in steps:
            takes, gives, function = OPERATIONS[name]
            found = [pool[type_][-1 - place % len(pool[type_])] for type_, place in zip(takes, (one, other))]
            pool[gives].append(function(environment, number, *found))
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
