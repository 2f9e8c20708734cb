"""The Optax chain of one member, built from traced hyperparameters, and its unit schedules.

    g ← clip(g);  p ← p − s(t)·learning_rate·(direction(g) + weight_decay·p)

where s(t) in [0, 1] is the unit schedule and direction is Adam's, SGD's with momentum, or Lion's. As in optax.adamw
and PyTorch, decay is multiplied by the learning rate; with `decay_coupling = "independent"` it is s(t)·weight_decay·p
(Loshchilov and Hutter 2019, algorithm 2).
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import optax

from finetune import lora
from finetune.config import OptimizerConfig
from finetune.hparams import Hparams
from finetune.params import Leaves


def unit_schedule(name: str, update: jax.Array, total: jax.Array, warmup_fraction: jax.Array) -> jax.Array:
    """Returns the factor of the learning rate at `update` (0-based) of `total`, a scalar in [0, 1].

    Warm-up: (update + 1) / (warmup_fraction·total), until 1. Then, with x in [0, 1) the share of the rest that is
    done: constant 1, linear 1 − x, cosine (1 + cos πx) / 2.
    """
    warmup = warmup_fraction * total
    rise = jnp.minimum(1.0, (update + 1) / jnp.maximum(warmup, 1.0))
    share = jnp.clip((update - warmup) / jnp.maximum(total - warmup, 1.0), 0.0, 1.0)
    fall = {"constant": jnp.ones_like(share), "linear": 1 - share, "cosine": (1 + jnp.cos(jnp.pi * share)) / 2}[name]
    return rise * fall


def rate_factors(hparams: Hparams, paths: Iterable[str]) -> dict[str, jax.Array]:
    """Returns by what the learning rate of a path is multiplied, a scalar; paths without a factor are left out."""
    return lora.rate_factors(hparams, paths)


def _by_path(factors: dict[str, jax.Array]) -> optax.GradientTransformation:
    """Returns what multiplies the final update of each path in `factors`."""

    def multiply(updates: Leaves, params: Leaves | None = None) -> Leaves:
        del params
        return {
            path: factors[path].astype(leaf.dtype) * leaf if path in factors else leaf for path, leaf in updates.items()
        }

    return optax.stateless(multiply)


def make_optimizer(
    config: OptimizerConfig, hparams: Hparams, scale: jax.Array, decayed: dict[str, bool]
) -> optax.GradientTransformation:
    """Returns the update rule of one member; `scale` is its s(t), `decayed` says of each path whether it decays."""
    direction = {
        "adamw": lambda: optax.scale_by_adam(hparams.beta1, hparams.beta2, config.epsilon),
        "sgd": lambda: optax.trace(hparams.momentum),
        "lion": lambda: optax.scale_by_lion(hparams.beta1, hparams.beta2),
    }[config.name]()
    clip = optax.clip_by_global_norm(jnp.where(hparams.clip_norm > 0, hparams.clip_norm, jnp.inf))
    rate = optax.chain(optax.scale(-scale * hparams.learning_rate), _by_path(rate_factors(hparams, decayed)))
    if config.decay_coupling == "independent":
        decay = optax.add_decayed_weights(-scale * hparams.weight_decay, decayed)
        return optax.chain(clip, direction, rate, decay)
    return optax.chain(clip, direction, optax.add_decayed_weights(hparams.weight_decay, decayed), rate)
