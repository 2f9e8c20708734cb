"""Where in a running model a random number is drawn: apart for every pass of a loop over layers.

A loop such as nn.scan is traced once, so that no count made while tracing tells its passes apart. What does is the
random stream that Flax splits for them. Modules run with a stream whose root is the same in every run; what has become
of it is the place, and what is drawn there comes from the keys of the examples.
"""

import functools
import zlib
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.core.tracers import current_trace

from finetune.errors import UserError

STREAM = "dropout"
Place = jax.Array | int  # the pass of the loops around it, hashed (uint32), 0 outside of loops


@functools.cache
def root() -> jax.Array:
    """Returns the random key that every run starts from."""
    with jax.ensure_compile_time_eval():
        return jax.random.key(0, impl="threefry2x32")


def site(path: str, place: Place) -> Any:
    """Returns what tells what is drawn at `path` in `place` from all else (uint32)."""
    number = zlib.crc32(path.encode())
    return number if isinstance(place, int) and place == 0 else np.uint32(number) ^ place


def hashed(key: jax.Array) -> jax.Array:
    """Returns random keys of any shape as a number (uint32) each."""
    data = jax.random.key_data(key)
    return data[..., 0] ^ data[..., 1]


def loop_place(module: nn.Module) -> Place:
    """Returns the place of a Linen module that runs in the loops that hold it, 0 too where these share one.

    Raises UserError inside a transformation that Flax does not know, or that hands its passes no random stream.
    """
    scope, path = module.scope, "/".join(module.path)
    assert scope is not None  # of a module that runs
    if current_trace() != scope.root.trace_level:
        raise refusal(path, "of JAX's own, whose passes would draw the same", _ALLOWED)
    if module.has_rng(STREAM):
        stream = scope.rngs[STREAM].rng
        return 0 if stream is root() else hashed(stream) ^ hashed(root())
    if scope.root.path:
        raise refusal(path, f"that hands on no random stream {STREAM!r}", _ALLOWED)
    return 0


def own_key(module: nn.Module) -> jax.Array:
    """Returns the key, the same in every run, of a Linen module that draws by itself; raises UserError as the above."""
    loop_place(module)
    return type(module).make_rng(module, STREAM)


_ALLOWED = f"Flax's own, such as nn.scan, with split_rngs={{{STREAM!r}: True}}"


def refusal(path: str, where: str, allowed: str) -> UserError:
    """Returns the error for random numbers that are drawn inside a transformation that cannot tell its passes apart."""
    return UserError(f"{path!r} draws random numbers inside a transformation {where}, allowed: {allowed}")
